"""Take a recording apart that nobody has described: what is in it, when, and how to ask for it.

The recording streams through three times, whatever its length: to find the few seconds in which
each sound seems to be there most, on which sets of prompts are then tried
(``separation.discovery``); to be separated with the prompts that were found, as ``unbraid
separate`` does it; and to be drawn. ``discovery.json`` appears last: with it all is whole.
"""

from __future__ import annotations

import functools
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._version import __version__
from unbraid.apps.lanes_picture import Lane, lanes_png
from unbraid.apps.presence_file import read_presence
from unbraid.apps.recordings import RecordingFile, as_argument
from unbraid.apps.separate_files import FileResult, SeparateOptions, separate_file
from unbraid.apps.separator import Separator, load_separator
from unbraid.apps.sidecar import read_sidecar, sidecar_content
from unbraid.apps.whole_files import make_folder, write_whole
from unbraid.audio import AudioInfo, FormatChoice, probe, read_blocks
from unbraid.checkpoints import (
    DEFAULT_MODEL,
    load_bundle,
    model_fingerprint,
    model_info,
    resolve_model,
)
from unbraid.checkpoints.prompt_store import installed_prompts
from unbraid.dsp.levels import power_db
from unbraid.dsp.log_spectrogram import log_spectrogram_of_stream_db
from unbraid.dsp.resample import resample
from unbraid.errors import AudioError, CheckpointError, ConfigError
from unbraid.models.taggers.htsat import Htsat
from unbraid.separation.discovery import (
    NOTHING,
    SILENT_DBFS,
    WHOLES,
    Attempt,
    Heard,
    StretchPicker,
    Trial,
    hear,
    joined,
    trial_of,
    weigh,
)
from unbraid.separation.presence import WINDOW_S, Presence, window_start
from unbraid.separation.separator import separate_waveform
from unbraid.types import Progress, Waveform, stem_names

#: The model whose tagger says what a stem sounds like.
TAGGER_MODEL = "query-mini"
#: The file that says what was found, and the picture beside it.
DISCOVERY = "discovery"

_STRETCH_S = 8.0
#: Outputs of a model that always gives the same ones count as silent below this level.
_SILENT_OUTPUT_DB = -25.0
#: Classes of the tagger that are named, and how sure it must be of one to be believed.
_NUM_CLASSES = 3
_BELIEVED = 0.5
#: What misses the threshold by no more than this may be there.
_NEARLY = 0.15
#: From here on, so much is left over that a sound seems to have no prompt.
_MUCH_LEFT_DB = -6.0

#: A stem is listened to in pieces of this length, and measured in frames of that.
_PIECE_S = 5.0
_FRAME_S = 0.1

#: Called with what is being done, and how far that is.
StageCallback = Callable[[str, Progress], None]


@dataclass(frozen=True)
class DiscoverOptions:
    """How a recording is heard, and where the results go.

    Attributes:
        model_name: What the model is called, in paths and in the record.
        model_digest: SHA-256 of the model.
        threshold: How sure it must be that a sound is there, from 0 to 1.
        overwrite: Do again what is finished, and replace files of others.
        track: The audio track, counted from 1; None for the file's default.
        model: How to name the model on a command line, where its name does not find it: a folder,
            or a model on the hub. None for its name.

    Raises:
        ConfigError: For a threshold that is not between 0 and 1, or a track below 1.
    """

    model_name: str
    model_digest: str
    threshold: float = 0.5
    overwrite: bool = False
    track: int | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold < 1.0:
            raise ConfigError(
                f"--threshold {self.threshold:g}: must lie between 0 and 1; 0.5 is as usual, less "
                "finds more sounds, also such that are not there."
            )
        if self.track is not None and self.track < 1:
            raise ConfigError(f"--track {self.track}: tracks are counted from 1.")


@dataclass(frozen=True)
class Source:
    """A sound that was found.

    Attributes:
        name: Of the stem.
        prompt: What brings it out; of a model that does not name its outputs, the prompt of
            ``mini`` that it answers to.
        file: The stem.
        sureness: How sure it is that the sound is there, from 0 to 1; None where an output of a
            model that always gives the same ones is not silent.
        level_dbfs: Of the stem; None for silence.
        intervals: Beginning and end, in seconds, of each stretch in which it is heard.
        classes: What the tagger takes it for, the likeliest first, and how sure it is.
    """

    name: str
    prompt: str
    file: Path
    sureness: float | None
    level_dbfs: float | None
    intervals: tuple[tuple[float, float], ...]
    classes: Mapping[str, float] = field(default_factory=dict)

    @property
    def sounds_like(self) -> str | None:
        """The class that the tagger is fairly sure of, if it is of any."""
        name = next(iter(self.classes), None)
        return name if name is not None and self.classes[name] >= _BELIEVED else None


@dataclass(frozen=True)
class Discovery:
    """What was found in a recording.

    Attributes:
        path: The recording.
        status: ``written``, or ``skipped`` where all of it was there already.
        sources: The sounds, in the order in which they were asked for.
        command: How to separate the recording so; None where nothing was found.
        picture: A PNG file: the spectrogram, and when each sound is heard.
        sidecar: The JSON file with all of this.
        record: What it holds.
    """

    path: Path
    status: Literal["written", "skipped"]
    sources: tuple[Source, ...]
    command: str | None
    picture: Path
    sidecar: Path
    record: Mapping[str, Any]

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompt of each source."""
        return tuple(source.prompt for source in self.sources)

    @property
    def perhaps(self) -> dict[str, float]:
        """Prompts that just missed the threshold, and how sure it is of them."""
        threshold = self.record["options"]["threshold"]
        return {
            name: sureness
            for name, sureness in self.record["sureness"].items()
            if threshold - _NEARLY <= sureness < threshold and name not in self.prompts
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know."""
        return tuple(self.record["warnings"])


def discover(
    path: str | Path,
    model: str | Path = DEFAULT_MODEL,
    out_dir: str | Path = "discovered",
    *,
    threshold: float = 0.5,
    overwrite: bool = False,
    track: int | None = None,
    device: torch.device | str | None = None,
    progress: StageCallback = lambda stage, progress: None,
    cancel: threading.Event | None = None,
) -> Discovery:
    """Find out what is in a recording, and write it apart.

    All prompts that the model has learned are tried, and those that are installed for it.

    Args:
        path: The recording, of any format, length and number of channels.
        model: A name, a folder or a model on the hub.
        out_dir: Results go to ``out_dir/MODEL/RECORDING``.
        threshold: How sure it must be that a sound is there, from 0 to 1.
        overwrite: Do again what is finished, and replace files of others.
        track: The audio track, counted from 1; None for the file's default.
        device: Where to compute; None takes the first of cuda, mps and cpu that is there.
        progress: Called with what is being done and how far it is; may raise ``Cancelled``.
        cancel: Set it, from any thread, to stop.

    Returns:
        What was found; of silence no source.

    Raises:
        AudioError: If the recording cannot be read, or results cannot be written.
        ConfigError: For an impossible threshold or track, or if files of others are in the way.
        CheckpointError: If there is no such model, or an installed prompt is damaged.
        PromptError: If the model knows no prompt.
        Cancelled: If ``cancel`` was set or ``progress`` asked to stop; then no result is left but
            perhaps finished stems.
    """
    info = model_info(model)
    options = DiscoverOptions(
        info.name.removeprefix("hf:"), info.digest, threshold, overwrite, track, str(model)
    )
    taught = sorted(installed_prompts(model_fingerprint(info.path)))
    separator = load_separator(info.path, device=device, prompts=taught)
    return discover_file(separator, path, out_dir, options, progress, cancel)


def discover_file(
    separator: Separator,
    path: str | Path,
    out_dir: str | Path,
    options: DiscoverOptions,
    progress: StageCallback = lambda stage, progress: None,
    cancel: threading.Event | None = None,
) -> Discovery:
    """As ``discover``, with a separator that is there already, and all prompts that it knows.

    Its settings must leave the stems as the model gives them: no gate, no projection.

    Raises:
        AudioError, ConfigError, PromptError, Cancelled: As ``discover``.
    """
    path, out_dir = Path(path), Path(out_dir)
    work = _Discovering(separator, path, out_dir, options, progress, cancel or threading.Event())
    return work.finished() or work.run()


class _Discovering:
    """One recording on its way."""

    def __init__(
        self,
        separator: Separator,
        path: Path,
        out_dir: Path,
        options: DiscoverOptions,
        progress: StageCallback,
        cancel: threading.Event,
    ) -> None:
        self._separator = separator
        self._path = path
        self._out_dir = out_dir
        self._options = options
        self._progress = progress
        self._cancel = cancel
        self._names = separator.model.prompts.resolve(separator.model.prompts.names)
        self._separate_options = SeparateOptions(
            options.model_name,
            options.model_digest,
            # So that stems beyond full scale stay whole.
            audio_format=FormatChoice(depth="float32"),
            overwrite=options.overwrite,
            track=options.track,
        )
        track = PurePath(path.stem)
        self._recording = RecordingFile(path, track)
        place = functools.partial(self._separate_options.output_path, track, out_dir, DISCOVERY)
        self._sidecar, self._picture = place("json"), place("png")

    def finished(self) -> Discovery | None:
        """What a former run found, if it answers this very request and is whole.

        Raises:
            ConfigError: If what is there belongs to another recording.
        """
        record, request = read_sidecar(self._sidecar), self._request()
        former = record.get("source", {})
        is_same = former | {"path": ""} == request["source"] | {"path": ""}
        if self._options.overwrite:
            return None
        if (
            self._sidecar.exists()
            and not is_same
            and former.get("path") != str(self._path.absolute())
        ):
            whose = f"of another recording ({former['path']})" if "path" in former else "not ours"
            raise ConfigError(
                f"{self._sidecar}: is there and {whose}; choose another --out or replace it with "
                "--overwrite."
            )
        is_finished = is_same and all(
            record.get(key) == request[key] for key in request if key != "source"
        )
        if not is_finished or "sources" not in record:
            return None
        # Recording and model may be called by other paths than then.
        asked = [source["prompt"] for source in record["sources"].values()]
        result = self._result("skipped", record | {"command": self._command(asked)})
        files = [self._picture, *(source.file for source in result.sources)]
        return result if all(file.is_file() for file in files) else None

    def run(self) -> Discovery:
        """Do all of it.

        Raises:
            AudioError, ConfigError, Cancelled: As ``discover``.
        """
        request = self._request()
        info = probe(self._path, self._options.track)
        heard, prompts, num_samples, is_too_quiet = self._listen(info)
        separated = self._separate(prompts) if prompts else None
        record: dict[str, Any] = {"unbraid": __version__, **request}
        record |= {"sample_rate": info.sample_rate, "num_samples": num_samples}
        duration_s = num_samples / info.sample_rate
        sources, lanes = self._describe(separated, heard, prompts, duration_s)
        asked = [source["prompt"] for source in sources.values()]
        left_db = None if separated is None else separated.record["residual_to_mixture_db"]
        warnings = list(info.warnings if separated is None else separated.warnings)
        if left_db is not None and left_db > _MUCH_LEFT_DB:
            warnings.append(
                f"what is left over is only {-left_db:.0f} dB below the recording: a sound in it "
                "seems to have no prompt"
            )
        if is_too_quiet:
            warnings.append(
                f"it is nowhere louder than {SILENT_DBFS:.0f} dBFS, which counts as silence; make "
                "it louder if there is something to hear"
            )
        elif sources and duration_s < WINDOW_S:
            warnings.append(
                f"only {duration_s:.2g} s of sound: that is too short to be sure of what it is"
            )
        record |= {
            "sources": sources,
            "sureness": {name: round(value, 4) for name, value in heard.sureness.items()},
            "parts": {name: round(value, 4) for name, value in heard.parts.items()},
            "residual_to_mixture_db": left_db,
            "command": self._command(asked),
            "warnings": warnings,
        }
        make_folder(self._sidecar.parent)
        write_whole(self._picture, self._draw(info, num_samples, lanes))
        self._remove_former(separated)
        write_whole(self._sidecar, sidecar_content(record))
        return self._result("written", record)

    def _remove_former(self, separated: FileResult | None) -> None:
        """Remove what a former run made of sounds that are not found any more.

        A file that the former record does not list is somebody else's.

        Raises:
            AudioError: If one of them cannot be removed.
        """
        former = read_sidecar(self._sidecar).get("sources", {})
        listed = {each["file"] for each in former.values()}
        made = set() if separated is None else {path.name for path in separated.stems.values()}
        for name in sorted(listed - made):
            file = self._sidecar.parent / name
            if PurePath(name).name != name or not file.is_file():
                continue
            try:
                file.unlink()
            except OSError as error:
                raise AudioError(
                    f"{file}: is no longer wanted and cannot be removed ({error.strerror}); "
                    "remove it, or choose another --out."
                ) from error

    @property
    def _always(self) -> tuple[str, ...]:
        """The outputs of a model that always gives the same ones."""
        return self._separator.model.config.outputs

    def _request(self) -> dict[str, Any]:
        try:
            stat = self._path.stat()
            source = {"num_bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
        except (OSError, ValueError):
            source = {}  # opening the file will say what is wrong with it
        return {
            "source": {"path": str(self._path.absolute()), **source},
            "model": {"name": self._options.model_name, "digest": self._options.model_digest},
            "prompts": list(self._names),
            "taught": self._separator.prompt_digests,
            "options": {"threshold": self._options.threshold, "track": self._options.track},
            "settings": asdict(self._separator.engine.config),
        }

    def _listen(self, info: AudioInfo) -> tuple[Heard, tuple[str, ...], int, bool]:
        """What is there, and what to ask for.

        Returns:
            The two, how many samples the recording has, and whether there is nothing only because
            all of it is too quiet.
        """
        wholes = tuple(name for name in WHOLES if name in self._names)
        asked = self._always or (wholes if len(wholes) > 1 else self._names)
        windows = round(_STRETCH_S / WINDOW_S)
        picker = StretchPicker(
            len(asked), windows, lambda number: window_start(number, info.sample_rate)
        )
        num_samples, is_nothing = 0, True
        self._progress("listening", Progress(0.0, info.duration_s))
        blocks = read_blocks(self._path, track=self._options.track)
        try:
            for block in self._separator.separate_stream(
                blocks, info.sample_rate, asked, cancel=self._cancel
            ):
                picker.add(block)
                num_samples += block.num_samples
                is_nothing = is_nothing and not bool(block.mixture.any())
                self._progress(
                    "listening", Progress(num_samples / info.sample_rate, info.duration_s)
                )
        except AudioError as error:
            if str(self._path) in str(error):
                raise
            raise AudioError(f"{self._path}: {error}") from error
        stretches = picker.finish()
        if not stretches:
            return NOTHING, (), num_samples, not is_nothing
        if self._always:
            return NOTHING, self._always, num_samples, False
        found = []
        for number, stretch in enumerate(stretches):
            self._progress("trying prompts", Progress(float(number), float(len(stretches))))
            found.append(
                hear(
                    attempt_on(self._separator, stretch.samples, info.sample_rate, self._cancel),
                    self._names,
                    self._separator.model.config.discovery,
                    self._options.threshold,
                )
            )
        heard = joined(found)
        return heard, heard.prompts, num_samples, False

    def _separate(self, prompts: Sequence[str]) -> FileResult:
        return separate_file(
            self._separator,
            self._recording,
            prompts,
            self._out_dir,
            self._separate_options,
            functools.partial(self._progress, "separating"),
            self._cancel,
        )

    def _describe(
        self,
        separated: FileResult | None,
        heard: Heard,
        prompts: Sequence[str],
        duration_s: float,
    ) -> tuple[dict[str, dict[str, Any]], list[Lane]]:
        """What the record says of each source, and its lane in the picture."""
        if separated is None:
            return {}, []
        assert separated.presence is not None, "only failed recordings have none"
        found = {each.name: each for each in read_presence(separated.presence)}
        tagger = _tagger()
        namer = None if self._separator.model.names_sources else load_separator(DEFAULT_MODEL)
        sources: dict[str, dict[str, Any]] = {}
        lanes = []
        mixture_dbfs = self._loudest_dbfs(separated)
        for name, prompt in zip(stem_names(prompts), prompts, strict=True):
            stem = separated.record["stems"][name]
            level = stem["level_dbfs"]
            if self._always and (level is None or level < mixture_dbfs + _SILENT_OUTPUT_DB):
                continue
            listened = _listen_to(separated.stems[name])
            called = prompt if namer is None else _name_of(listened.loudest, namer)
            intervals = _intervals(found[name], duration_s)
            sureness = heard.sureness.get(prompt, heard.parts.get(prompt))
            sources[name] = {
                "prompt": called,
                "file": separated.stems[name].name,
                "sureness": None if sureness is None else round(sureness, 4),
                "level_dbfs": level,
                "presence": round(found[name].score, 4),
                "intervals": [[round(time_s, 6) for time_s in each] for each in intervals],
                "classes": {} if tagger is None else _classes_of(listened.loudest, tagger),
            }
            title = name if called == prompt else f"{name} ({called})"
            lanes.append(Lane(title, intervals, listened.levels_dbfs, _FRAME_S))
        return sources, lanes

    def _loudest_dbfs(self, separated: FileResult) -> float:
        levels = [stem["level_dbfs"] for stem in separated.record["stems"].values()]
        return max((level for level in levels if level is not None), default=0.0)

    def _draw(self, info: AudioInfo, num_samples: int, lanes: Sequence[Lane]) -> bytes:
        duration_s = num_samples / info.sample_rate
        blocks = read_blocks(self._path, track=self._options.track)
        spectrogram = log_spectrogram_of_stream_db(blocks, info.sample_rate, duration_s)
        return lanes_png(self._path.name, spectrogram, max(duration_s, 1e-3), lanes)

    def _command(self, prompts: Sequence[str]) -> str | None:
        if not prompts:
            return None
        words = ["unbraid", "separate", as_argument(str(self._path))]
        model = self._options.model or self._options.model_name
        if self._separator.model.names_sources and model != DEFAULT_MODEL:
            words += ["-m", model]
        if self._options.track is not None:
            words += ["--track", str(self._options.track)]
        return shlex.join([*words, "--prompts", ",".join(prompts)])

    def _result(
        self, status: Literal["written", "skipped"], record: Mapping[str, Any]
    ) -> Discovery:
        sources = tuple(
            Source(
                name,
                each["prompt"],
                self._sidecar.parent / each["file"],
                each["sureness"],
                each["level_dbfs"],
                tuple((start_s, end_s) for start_s, end_s in each["intervals"]),
                each["classes"],
            )
            for name, each in record["sources"].items()
        )
        command = record["command"]
        return Discovery(self._path, status, sources, command, self._picture, self._sidecar, record)


def attempt_on(
    separator: Separator,
    samples: Float[Tensor, "channel time"],
    sample_rate: int,
    cancel: threading.Event | None = None,
) -> Attempt:
    """Tries sets of prompts on a stretch, each set once.

    Args:
        separator: With settings that leave the stems as the model gives them.
        samples: The stretch, which must not be silent.
        sample_rate: Of it, in Hz.
        cancel: Set it to stop.
    """
    waveform = Waveform(samples, sample_rate)

    @functools.cache
    def attempt(prompts: tuple[str, ...]) -> Trial:
        return trial_of(separate_waveform(separator.engine, waveform, prompts))

    return attempt


def _intervals(presence: Presence, duration_s: float) -> tuple[tuple[float, float], ...]:
    """When a sound is heard that is there: at least where its score is highest."""
    threshold = min(0.5, float(presence.timeline.max())) if presence.timeline.numel() else 0.5
    if threshold <= 0.0:
        return ()
    return tuple(
        (start_s, min(end_s, duration_s)) for start_s, end_s in presence.intervals(threshold)
    )


# ------------------------------------------------------------------ what a stem sounds like


@dataclass(frozen=True, eq=False)
class _Listened:
    """A stem, heard once through.

    Attributes:
        levels_dbfs: Level of frames of ``_FRAME_S``, over all channels.
        loudest: Its loudest few seconds.
    """

    levels_dbfs: Float[Tensor, "frame"]
    loudest: Waveform


def _listen_to(path: Path) -> _Listened:
    rate = probe(path).sample_rate
    frame = max(1, round(_FRAME_S * rate))
    levels, loudest, most = [], torch.zeros(1, 0), -1.0
    for block in read_blocks(path, block_s=_PIECE_S):
        power = block.square().mean(dim=0)
        # One tensor per block: hours have very many frames.
        levels.append(torch.stack([part.mean() for part in power.split(frame)]))
        energy = float(power.sum())
        if energy > most:
            loudest, most = block, energy
    level = power_db(torch.cat(levels)) if levels else torch.zeros(0)
    return _Listened(level, Waveform(loudest, rate))


@functools.cache
def _tagger() -> Htsat | None:
    """The tagger that names classes; None where it is missing."""
    try:
        tagger = load_bundle(resolve_model(TAGGER_MODEL)).model.tagger
    except CheckpointError:
        return None
    return tagger if tagger is not None and tagger.config.class_names else None


def _classes_of(waveform: Waveform, tagger: Htsat) -> dict[str, float]:
    """The likeliest classes of a sound, and how sure the tagger is; none of silence."""
    mono = waveform.samples.mean(dim=0, keepdim=True)
    if not bool(mono.any()):
        return {}
    clip = resample(mono, waveform.sample_rate, tagger.sample_rate)
    with torch.inference_mode():
        scores = tagger(clip).clip_scores[0]
    best = scores.topk(min(_NUM_CLASSES, len(scores)))
    return {
        tagger.config.class_names[number]: round(score, 4)
        for score, number in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    }


def _name_of(waveform: Waveform, namer: Separator) -> str:
    """The prompt that a sound by itself answers to best."""
    if not bool(waveform.samples.any()):
        return WHOLES[0]
    attempt = attempt_on(namer, waveform.samples, waveform.sample_rate)
    sureness = weigh(attempt, namer.model.config.discovery)
    return max(WHOLES, key=sureness.__getitem__)
