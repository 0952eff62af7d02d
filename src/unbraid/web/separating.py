"""What a visitor asks to separate, done as the command line does it, and made ready to look at."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from jaxtyping import Float
from torch import Tensor

from unbraid.apps.example_clips import digest_of_clip
from unbraid.apps.pictures import spectrogram_strip_png
from unbraid.apps.recordings import RecordingFile, as_argument
from unbraid.apps.separate_files import (
    PRESENCE,
    FileResult,
    SeparateOptions,
    separate_file,
)
from unbraid.apps.separator import load_separator
from unbraid.apps.whole_files import write_whole
from unbraid.audio import AtomicWriter, AudioFormat, AudioInfo, FormatChoice, probe, read_blocks
from unbraid.audio.formats import Container
from unbraid.checkpoints import find_prompts, model_fingerprint, model_info
from unbraid.checkpoints.bundle import read_config
from unbraid.checkpoints.prompt_store import open_prompt
from unbraid.errors import AudioError, Cancelled, ConfigError, PromptError, UnbraidError
from unbraid.separation.settings import SeparationConfig
from unbraid.types import Progress
from unbraid.web.choices import listed_folder
from unbraid.web.options import WebOptions
from unbraid.web.visitors import Upload, Visitor, take_upload
from unbraid.web.working import HowFar, Pace, clock

#: The name of the mixture where stems have theirs.
MIXTURE = "mixture"
#: How many stems can be asked for at once.
MOST_STEMS = 16

# A browser plays samples of these kinds as they lie in the file.
_PLAYED_CONTAINERS = ("WAV", "WAVEX")
_PLAYED_SUBTYPES = ("PCM_16", "PCM_24", "FLOAT")


@dataclass(frozen=True)
class Wishes:
    """What a visitor asks for.

    Attributes:
        model: The model.
        counts: Prompt → how often, in the order in which the model is asked.
        container: What stems are stored as.
        has_residual: Whether what is left over becomes a stem.
        is_gated: Whether a stem is silent where its sound is absent.
    """

    model: str
    counts: Mapping[str, int]
    container: Container = "wav"
    has_residual: bool = False
    is_gated: bool = False

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt as often as it is asked for."""
        return tuple(name for name, count in self.counts.items() for _ in range(count))


@dataclass(frozen=True)
class _Brought:
    """What of the visitor's own a separation asks for.

    Attributes:
        prompts: Prompt → its file.
        clips: Prompt by example → the clip that shows it.
    """

    prompts: Mapping[str, Path]
    clips: Mapping[str, Path]


@dataclass(frozen=True)
class Track:
    """The mixture or a stem, as the page shows it.

    Attributes:
        name: What it is called.
        sound: Name of the wav to play, among the visitor's files.
        picture: Name of its spectrogram, among the visitor's files.
        download: Name of the file to keep; empty for the mixture, which the visitor has.
        size_bytes: Size of that file.
        level_dbfs: Its level; None for silence.
        score: How sure it is that its sound is there, from 0 to 1; None where nobody asked.
        intervals: From when to when it is there, in seconds.
    """

    name: str
    sound: str
    picture: str
    download: str = ""
    size_bytes: int = 0
    level_dbfs: float | None = None
    score: float | None = None
    intervals: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Separated:
    """What came of it.

    Attributes:
        recording: What the recording's file is called.
        duration_s: Its length.
        tracks: The mixture, then the stems.
        left_over_db: Energy of the mixture minus the stems relative to the mixture.
        warnings: What the visitor should know.
        command: What gives the same stems on the command line, in the folder with the recording,
            and with the clips and prompt files of the visitor's own that it names.
    """

    recording: str
    duration_s: float
    tracks: tuple[Track, ...]
    left_over_db: float | None
    warnings: tuple[str, ...]
    command: str


def take_recording(visitor: Visitor, uploaded: str | Path, options: WebOptions) -> Upload:
    """Take what a visitor brings to be separated; what they brought before is removed.

    Raises:
        AudioError: If it is no recording, or longer than the page allows.
        ConfigError: If something is being done for the visitor.
    """
    with visitor.working():
        visitor.upload = None
        path = take_upload(uploaded, visitor.new_folder("recording"))
        info = probe(path)
        if info.duration_s > 60 * options.max_minutes:
            path.unlink()
            raise AudioError(
                f"{path.name}: is {clock(info.duration_s)} long; this page takes recordings of "
                f"up to {options.max_minutes:g} minutes."
            )
        visitor.upload = Upload(path, Path(uploaded).name, info)
        return visitor.upload


def separate(
    visitor: Visitor, wishes: Wishes, options: WebOptions, tell: Callable[[HowFar], None]
) -> Separated:
    """Separate a visitor's recording; what came of the one before is removed.

    Args:
        visitor: Whose recording it is. Their ``files`` and ``archive`` hold what came of it.
        wishes: What they ask for.
        options: Of the page.
        tell: Takes reports of how far it has come.

    Raises:
        ConfigError: If there is no recording, or something is being done for the visitor.
        PromptError: If no prompt is ticked, or the model does not know one.
        UnbraidError: As ``separate_file``.
    """
    with visitor.working():
        upload = visitor.upload
        if upload is None:
            raise ConfigError("there is nothing to separate yet; bring or record something first.")
        if not wishes.prompts:
            raise PromptError("nothing is ticked; tick what you want to hear by itself.")
        if len(wishes.prompts) > MOST_STEMS:
            raise ConfigError(
                f"{len(wishes.prompts)} stems at once are too many; ask for {MOST_STEMS} at most."
            )
        brought = _brought(visitor, wishes, listed_folder(wishes.model))
        visitor.files.clear()
        visitor.archive.clear()
        tell(HowFar("Loading the model"))
        result = _separate(visitor, upload, wishes, brought, options, tell)
        return _shown(visitor, upload, result, _command(upload, wishes, brought), tell)


def readable(error: UnbraidError, visitor: Visitor) -> str:
    """An error without the folders of the machine that the page runs on."""
    text = re.sub(rf"{re.escape(str(visitor.folder))}/(?:[^/]+/)*", "", str(error))
    # A message that begins with a word is a sentence; names stay as they are.
    return text[:1].upper() + text[1:] if re.match(r"[a-z]+ ", text) else text


def _separate(
    visitor: Visitor,
    upload: Upload,
    wishes: Wishes,
    brought: _Brought,
    options: WebOptions,
    tell: Callable[[HowFar], None],
) -> FileResult:
    info = model_info(wishes.model)
    clips = brought.clips
    names = [name for name in wishes.counts if name not in clips]
    asked = find_prompts(info.path, [*brought.prompts.values(), *names])
    separator = load_separator(
        info.path,
        SeparationConfig(gate=wishes.is_gated),
        device=options.device,
        prompts=[stored.path for stored in asked.taught.values()],
        queries={name: [clip] for name, clip in clips.items()},
    )
    pace = Pace("Separating")

    def show(progress: Progress) -> None:
        if visitor.cancel.is_set():
            raise Cancelled("the separation was cancelled.")
        tell(pace.of_audio(progress))

    return separate_file(
        separator,
        RecordingFile(upload.path, PurePath(upload.path.stem)),
        wishes.prompts,
        visitor.new_folder("stems"),
        SeparateOptions(
            model_name=info.name.removeprefix("hf:"),
            model_digest=info.digest,
            audio_format=FormatChoice(wishes.container),
            template="{stem}.{ext}",
            has_residual=wishes.has_residual,
            queries={name: digest_of_clip(clip) for name, clip in clips.items()},
        ),
        show,
        visitor.cancel,
    )


def _brought(visitor: Visitor, wishes: Wishes, model: Path) -> _Brought:
    shown = visitor.examples if read_config(model).tagger is not None else {}
    clips = {name: shown[name] for name in wishes.counts if name in shown}
    if not visitor.prompts:
        return _Brought({}, clips)
    fingerprint = model_fingerprint(model)
    prompts = {
        stored.name: stored.path
        for stored in map(open_prompt, visitor.prompts)
        if stored.name in wishes.counts
        and stored.name not in clips
        and stored.prompt.fingerprint == fingerprint
    }
    return _Brought(prompts, clips)


def _shown(
    visitor: Visitor,
    upload: Upload,
    result: FileResult,
    command: str,
    tell: Callable[[HowFar], None],
) -> Separated:
    """Sounds to play and pictures to look at, for the mixture and every stem."""
    folder = visitor.new_folder("shown")
    record = result.record
    names = [MIXTURE, *result.stems]
    tracks = []
    for place, name in enumerate(names):
        tell(HowFar("Drawing pictures", place / len(names), f"{place} of {len(names)}"))
        if visitor.cancel.is_set():
            raise Cancelled("the separation was cancelled.")
        stem = result.stems.get(name)
        path = upload.path if stem is None else stem
        sound = _playable(path, folder / f"{place}.wav")
        picture = folder / f"{place}.png"
        write_whole(picture, spectrogram_strip_png(*_blocks(sound)))
        visitor.files |= {f"{place}.wav": sound, f"{place}.png": picture}
        track = Track(name, f"{place}.wav", f"{place}.png")
        if stem is not None:
            visitor.files[stem.name] = stem
            visitor.archive[stem.name] = stem
            facts = record["stems"][name]
            presence = facts.get("presence")
            track = replace(
                track,
                download=stem.name,
                size_bytes=stem.stat().st_size,
                level_dbfs=facts["level_dbfs"],
                score=presence["score"] if presence else None,
                intervals=tuple((start, end) for start, end in presence["intervals"])
                if presence
                else (),
            )
        tracks.append(track)
    assert result.presence is not None
    assert result.sidecar is not None
    visitor.archive |= {f"{PRESENCE}.csv": result.presence, result.sidecar.name: result.sidecar}
    return Separated(
        upload.name,
        result.duration_s,
        tuple(tracks),
        record["residual_to_mixture_db"],
        result.warnings,
        command,
    )


def _playable(path: Path, target: Path) -> Path:
    """A wav that a browser can play from the middle; the file itself where it is one."""
    info = probe(path)
    if info.format in _PLAYED_CONTAINERS and info.subtype in _PLAYED_SUBTYPES:
        return path
    with AtomicWriter(
        target, AudioFormat("wav", "PCM_16"), info.sample_rate, info.num_channels
    ) as writer:
        for block in read_blocks(path):
            writer.write(block)
    return target


def _blocks(path: Path) -> tuple[Iterator[Float[Tensor, "channel _"]], int, float]:
    info: AudioInfo = probe(path)
    return read_blocks(path), info.sample_rate, info.duration_s


def _command(upload: Upload, wishes: Wishes, brought: _Brought) -> str:
    """What gives the same stems in the folder with the visitor's files."""
    words = ["unbraid", "separate", as_argument(upload.name), "-m", wishes.model]
    prompts = [
        as_argument(brought.prompts[name].name) if name in brought.prompts else name
        for name in wishes.prompts
        if name not in brought.clips
    ]
    if prompts:
        words += ["-p", ",".join(prompts)]
    for name in wishes.prompts:
        if name in brought.clips:
            words += ["--query", as_argument(brought.clips[name].name)]
    if wishes.container != "wav":
        words.append(f"--{wishes.container}")
    if wishes.is_gated:
        words.append("--gate")
    if wishes.has_residual:
        words.append("--residual")
    return shlex.join(words)
