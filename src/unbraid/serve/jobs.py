"""What a job is: plain records that are kept on disk and shown to whoever asks."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from unbraid.audio import FormatChoice
from unbraid.audio.formats import Container, Depth
from unbraid.config import parse
from unbraid.errors import ConfigError, PromptError

#: ``expired``: it was done once; its stems were kept for their time, or deleted on request.
State: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled", "expired"]

#: States that a job does not leave any more, but for ``done``, which expires.
FINISHED: frozenset[State] = frozenset({"done", "failed", "cancelled", "expired"})

_ID_BYTES = 16


def new_id() -> str:
    """A name for a job that nobody can guess: 128 random bits."""
    return secrets.token_hex(_ID_BYTES)


@dataclass(frozen=True)
class JobRequest:
    """What is asked for; the fields mean what the flags of ``unbraid separate`` mean.

    Attributes:
        prompts: What to separate into: names, with commas between them. They may repeat.
        format: The container of the stems.
        depth: Bits of the stems, for wav and flac; None for the recording's own.
        bitrate_kbps: Thousands of bits per second of lossy stems.
        residual: Give what the stems leave over as one more stem.
        gate: Make a stem silent where its sound is absent.
        consistency: ``project`` lets the stems add up to the recording.
        peak_dbfs: Bring the highest peak of all stems to this level.
        track: Which audio track of the recording, counted from 1.

    Raises:
        ConfigError: If the wishes about the format exclude each other.
    """

    prompts: tuple[str, ...] = ()
    format: Container = "wav"
    depth: Depth | None = None
    bitrate_kbps: int | None = None
    residual: bool = False
    gate: bool = False
    consistency: Literal["off", "project"] = "off"
    peak_dbfs: float | None = None
    track: int | None = None

    def __post_init__(self) -> None:
        self.audio_format  # noqa: B018 - it refuses what makes no sense

    @property
    def audio_format(self) -> FormatChoice:
        """The wishes about the format, as the command line holds them."""
        return FormatChoice(self.format, self.depth, self.bitrate_kbps)


def parse_request(fields: Mapping[str, str]) -> JobRequest:
    """A request from the fields of a form; empty ones count as left out.

    Raises:
        ConfigError: For an unknown field (with the nearest known one), a missing one, or a
            value that makes no sense.
    """
    data: dict[str, Any] = {name: value for name, value in fields.items() if value.strip()}
    if "prompts" in data:
        names = [name.strip() for name in data["prompts"].split(",")]
        data["prompts"] = tuple(name for name in names if name)
    return parse(JobRequest, data, where="the form")


@dataclass(frozen=True)
class Sound:
    """What an upload turned out to hold when it was decoded.

    Attributes:
        sample_rate: Samples per second.
        num_channels: Channels.
        num_samples: Samples in each channel.
    """

    sample_rate: int
    num_channels: int
    num_samples: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate


@dataclass(frozen=True)
class Stem:
    """A result.

    Attributes:
        name: The prompt, numbered where it repeats, or ``residual``.
        file: The name of its file.
        num_bytes: The size of the file.
        level_dbfs: Mean level, 0 for full scale; None for silence.
        presence: From 0 to 1, how sure it is that the sound is there; None for the residual.
    """

    name: str
    file: str
    num_bytes: int
    level_dbfs: float | None = None
    presence: float | None = None


@dataclass(frozen=True)
class Failure:
    """Why a job failed.

    Attributes:
        kind: The name of the error in ``unbraid.errors``.
        detail: What is wrong and what to do about it.
    """

    kind: str
    detail: str


@dataclass(frozen=True)
class Job:
    """A job, as it is kept; times are seconds since 1970.

    Attributes:
        id: Its name.
        request: What is asked for.
        sound: What was uploaded.
        num_bytes: How much was uploaded.
        created: When it was.
        state: Where the job stands.
        started: When the work began, last.
        finished: When it came to an end.
        stems: The results, while they are kept.
        residual_to_mixture_db: What the stems leave over, relative to the recording.
        warnings: What the user should know about the stems.
        failure: Why it failed.
    """

    id: str
    request: JobRequest
    sound: Sound
    num_bytes: int
    created: float
    state: State = "queued"
    started: float | None = None
    finished: float | None = None
    stems: tuple[Stem, ...] = ()
    residual_to_mixture_db: float | None = None
    warnings: tuple[str, ...] = ()
    failure: Failure | None = None

    @property
    def is_finished(self) -> bool:
        """Whether nothing is to be done any more."""
        return self.state in FINISHED

    @property
    def most_bytes(self) -> int:
        """What its files may take on the disk while it is worked on.

        Stems have at most four bytes per sample, and wait as floats for a common peak.
        """
        num_stems = len(self.request.prompts) + self.request.residual
        num_copies = 1 if self.request.peak_dbfs is None else 2
        num_values = self.sound.num_samples * self.sound.num_channels * num_stems
        return self.num_bytes + 4 * num_values * num_copies


@dataclass(frozen=True)
class Limits:
    """What the server takes, and how long it keeps things.

    Attributes:
        upload_bytes: Size of an upload.
        upload_s: How long an upload may take.
        audio_s: Length of a recording.
        channels: Channels of a recording.
        stems: Stems of a job.
        queued_jobs: Jobs that wait, with those that are being uploaded.
        disk_bytes: Uploads and results in all; a job counts from its upload on with the most
            that its stems can take.
        kept_s: How long results are kept, and how long after that it is still known what
            became of a job.

    Raises:
        ConfigError: If one of them is not positive.
    """

    upload_bytes: int = 512 * 2**20
    upload_s: float = 600.0
    audio_s: float = 3600.0
    channels: int = 8
    stems: int = 8
    queued_jobs: int = 100
    disk_bytes: int = 20 * 2**30
    kept_s: float = 3600.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise ConfigError(f"the limit {name} is {value}; it must be positive.")


@dataclass(frozen=True)
class Offer:
    """What a server separates with.

    Attributes:
        model: The name of the model.
        digest: Its SHA-256.
        prompts: What may be asked for.
        sample_rate: What the model works at; recordings may have any rate.
        limits: What is taken.

    Raises:
        PromptError: If there is no prompt, so that no job could be.
    """

    model: str
    digest: str
    prompts: tuple[str, ...]
    sample_rate: int
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.prompts:
            raise PromptError(
                f"{self.model}: has learned no prompts, so there is nothing to offer; name some "
                "that were taught with --prompts, or choose another model."
            )
