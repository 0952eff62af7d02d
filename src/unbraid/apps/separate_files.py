"""Separate audio files into stems on disk, in memory that does not grow with length.

Samples stream from the decoder through the separator into one writer per stem. The
stems of a recording appear together when all of them are whole, and a JSON sidecar is
written last: a recording counts as finished when its sidecar says that these stems came
from this file with this model and these options.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._version import __version__
from unbraid.apps.separator import Separator
from unbraid.apps.whole_files import write_whole
from unbraid.audio import (
    DEFAULT_TEMPLATE,
    AtomicWriter,
    AudioFormat,
    AudioInfo,
    FormatChoice,
    check_template,
    probe,
    read_blocks,
    stem_path,
)
from unbraid.errors import AudioError, Cancelled, ConfigError, UnbraidError
from unbraid.types import Progress, ProgressCallback, stem_names

#: The name of the stem that holds what the others leave of the mixture.
RESIDUAL = "residual"
#: The name that the sidecar has where stems have theirs: ``separation.json``.
SIDECAR = "separation"

#: The lowest ratio that is reported: below it float32 cannot tell anything from nothing.
_FLOOR_DB = -200.0


@dataclass(frozen=True)
class SeparateOptions:
    """How stems are named and stored.

    Attributes:
        model_name: What the model is called, in paths and in the sidecar.
        model_digest: SHA-256 of the model.
        audio_format: WAV or FLAC, and how deep.
        template: Path of a stem below the output folder.
        has_residual: Whether to write the mixture minus the sum of the stems as well.
        overwrite: Separate again what is finished, and replace files of others.

    Raises:
        ConfigError: For a template that cannot name stems safely.
    """

    model_name: str
    model_digest: str
    audio_format: FormatChoice = field(default_factory=FormatChoice)
    template: str = DEFAULT_TEMPLATE
    has_residual: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_template(self.template)


@dataclass(frozen=True)
class FileResult:
    """What became of one recording.

    Attributes:
        path: The recording.
        status: ``written``; ``skipped`` where the stems were there already; ``failed``.
        sidecar: The JSON file beside the stems.
        stems: Stem name → file; empty where the recording failed.
        record: What the sidecar holds; empty where the recording failed.
        error: Why it failed.
    """

    path: Path
    status: Literal["written", "skipped", "failed"]
    sidecar: Path
    stems: Mapping[str, Path] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    error: UnbraidError | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know, for example about samples that were clipped."""
        return tuple(self.record.get("warnings", ()))


def separate_files(
    separator: Separator,
    paths: Sequence[Path],
    prompts: Sequence[str],
    out_dir: Path,
    options: SeparateOptions,
    on_progress: Callable[[Path, Progress], None] | None = None,
    on_result: Callable[[FileResult], None] | None = None,
) -> tuple[FileResult, ...]:
    """Separate recordings one after the other; one that fails does not stop the others.

    Args:
        separator: Does the work.
        paths: The recordings; one that is given twice is separated once.
        prompts: What to separate them into; names may repeat.
        out_dir: Where the stems go.
        options: How they are named and stored.
        on_progress: Called now and then; may raise ``Cancelled``.
        on_result: Called when a recording is done, skipped or has failed.

    Returns:
        One result per recording, in order.

    Raises:
        ConfigError: Before any work, if two recordings would write to the same files.
        PromptError: Before any work, for an unknown prompt or an empty list.
        Cancelled: If ``on_progress`` asked to stop; finished recordings stay.
    """
    separator.model.prompts.resolve(prompts)
    recordings = _distinct_files(paths)
    _check_distinct_outputs(recordings, out_dir, options)
    results = []
    for path in recordings:
        progress = None if on_progress is None else _bound(on_progress, path)
        try:
            result = separate_file(separator, path, prompts, out_dir, options, progress)
        except Cancelled:
            raise
        except UnbraidError as error:
            sidecar = _sidecar_path(path, out_dir, options)
            result = FileResult(path, "failed", sidecar, error=error)
        results.append(result)
        if on_result is not None:
            on_result(result)
    return tuple(results)


def separate_file(
    separator: Separator,
    path: Path,
    prompts: Sequence[str],
    out_dir: Path,
    options: SeparateOptions,
    progress: ProgressCallback | None = None,
) -> FileResult:
    """Separate one recording, unless its stems are there already.

    Raises:
        PromptError: For an unknown prompt or an empty list.
        AudioError: If the recording cannot be read or the stems cannot be written; then
            neither a stem nor a part of one is left behind.
        ConfigError: If a file is in the way that does not belong to a finished separation
            of this recording, or the device has too little memory.
        Cancelled: If ``progress`` asked to stop; nothing is left behind.
    """
    job = _Job(separator, path, separator.model.prompts.resolve(prompts), out_dir, options)
    request = job.request()
    known = _read_sidecar(job.sidecar)
    if not options.overwrite and job.is_finished(known, request):
        return FileResult(path, "skipped", job.sidecar, job.stem_files, known)
    source = probe(path)
    job.check_nothing_in_the_way(known)
    try:
        record = job.run(source, request, progress)
    except AudioError as error:
        if str(path) in str(error):
            raise
        raise AudioError(f"{path}: {error}") from error
    except torch.cuda.OutOfMemoryError as error:
        raise ConfigError(
            f"{path}: too little memory on {separator.engine.device}; try a smaller --segment, "
            "fewer prompts or --device cpu."
        ) from error
    return FileResult(path, "written", job.sidecar, job.stem_files, record)


class _Job:
    """One recording on its way to its stems: where they go and how they get there."""

    def __init__(
        self,
        separator: Separator,
        path: Path,
        prompts: tuple[str, ...],
        out_dir: Path,
        options: SeparateOptions,
    ) -> None:
        self.separator = separator
        self.path = path
        self.prompts = prompts
        self.options = options
        names = stem_names(prompts)
        if options.has_residual:
            if RESIDUAL in names:
                raise ConfigError(f"a prompt is called {RESIDUAL!r} already; leave --residual out.")
            names = (*names, RESIDUAL)
        extension = options.audio_format.container
        self.stem_files = {
            name: _output_path(path, out_dir, options, name, extension) for name in names
        }
        self.sidecar = _sidecar_path(path, out_dir, options)

    def request(self) -> dict[str, Any]:
        """What decides whether stems would come out the same; it goes into the sidecar."""
        try:
            stat = self.path.stat()
            source = {"num_bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
        except (OSError, ValueError):
            source = {}  # opening the file will say what is wrong with it
        return {
            "model": {"name": self.options.model_name, "digest": self.options.model_digest},
            "prompts": list(self.prompts),
            "source": {"path": str(self.path.absolute()), **source},
            "options": {
                **asdict(self.options.audio_format),
                "residual": self.options.has_residual,
                "segment_s": self.separator.engine.segment_s,
                "overlap_s": self.separator.engine.overlap_s,
            },
        }

    def is_finished(self, known: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
        """Whether the sidecar answers this very request and its stems are there."""
        return (
            "num_bytes" in request["source"]
            # A recording that was moved is still the same recording.
            and known.get("source", {}) | {"path": ""} == request["source"] | {"path": ""}
            and all(known.get(key) == request[key] for key in ("model", "prompts", "options"))
            and all(file.is_file() for file in self.stem_files.values())
        )

    def check_nothing_in_the_way(self, known: Mapping[str, Any]) -> None:
        """Refuse to replace the recording itself, or anything but its own former stems.

        Raises:
            ConfigError: If something is in the way.
        """
        former = known.get("source", {}).get("path")
        for file in (*self.stem_files.values(), self.sidecar):
            if not os.path.lexists(file):
                continue
            if file.exists() and file.samefile(self.path):
                problem = "a stem would replace the recording; choose another --out."
            elif file.is_dir():
                problem = "a folder is in the way; choose another --out."
            elif self.options.overwrite or former == str(self.path.absolute()):
                continue
            elif former is None:
                problem = (
                    "is there already and does not come from a finished separation; "
                    "choose another --out or replace it with --overwrite."
                )
            else:
                problem = (
                    f"belongs to another recording ({former}); "
                    "choose another --out or replace it with --overwrite."
                )
            raise ConfigError(f"{file}: {problem}")

    def run(
        self, source: AudioInfo, request: Mapping[str, Any], progress: ProgressCallback | None
    ) -> dict[str, Any]:
        """Stream the recording into its stems, let them appear, then write the sidecar."""
        audio_format = self.options.audio_format.for_source(source)
        with ExitStack() as cleanup:
            writers = {}
            for name, file in self.stem_files.items():
                writers[name] = AtomicWriter(
                    file, audio_format, source.sample_rate, source.num_channels, source.num_samples
                )
                cleanup.callback(writers[name].discard)
            measured = self._stream(source, writers, progress)
            for writer in writers.values():
                writer.finish()
            record = {
                "unbraid": __version__,
                **request,
                "sample_rate": source.sample_rate,
                "num_channels": source.num_channels,
                "num_samples": measured.mixture.num_samples,
                "format": asdict(audio_format),
                "stems": {
                    name: {"file": self._from_sidecar(file), **measured.stems[name].report()}
                    for name, file in self.stem_files.items()
                },
                "residual_to_mixture_db": measured.residual.relative_to(measured.mixture),
                "warnings": [*source.warnings, *_clipped(writers, audio_format)],
            }
            self._publish(list(writers.values()), record)
        return record

    def _stream(
        self,
        source: AudioInfo,
        writers: Mapping[str, AtomicWriter],
        progress: ProgressCallback | None,
    ) -> _Measured:
        measured = _Measured(list(writers))
        if progress is not None:
            progress(Progress(0.0, source.duration_s))
        blocks = read_blocks(self.path)
        for block in self.separator.separate_stream(blocks, source.sample_rate, self.prompts):
            measured.mixture.add(block.mixture)
            measured.residual.add(block.residual)
            # Without --residual there is one writer less, and the last block has no taker.
            for (name, writer), stem in zip(
                writers.items(), [*block.sources, block.residual], strict=False
            ):
                measured.stems[name].add(stem)
                writer.write(stem)
            if progress is not None:
                done_s = measured.mixture.num_samples / source.sample_rate
                progress(Progress(done_s, source.duration_s))
        return measured

    def _publish(self, writers: Sequence[AtomicWriter], record: Mapping[str, Any]) -> None:
        """Let all stems appear, and the sidecar after them; or none.

        The former sidecar goes first: whatever happens before the new one is there, the
        recording counts as unfinished.
        """
        try:
            self.sidecar.unlink(missing_ok=True)
            for writer in writers:
                writer.publish()
            self.sidecar.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.sidecar, (json.dumps(record, indent=2) + "\n").encode())
        except BaseException as error:
            for writer in writers:
                writer.withdraw()
            if isinstance(error, OSError):
                raise AudioError(
                    f"{self.sidecar}: cannot be replaced ({error.strerror}); "
                    "choose another folder with --out."
                ) from error
            raise

    def _from_sidecar(self, file: Path) -> str:
        return Path(os.path.relpath(file, self.sidecar.parent)).as_posix()


class _Meter:
    """Energy and peak of a signal that arrives in blocks."""

    def __init__(self) -> None:
        self.num_samples = 0
        self._num_values = 0
        self._energy = 0.0
        self._peak = 0.0

    def add(self, block: Float[Tensor, "channel time"]) -> None:
        """Take a block into account."""
        self.num_samples += block.shape[-1]
        if block.numel():
            self._num_values += block.numel()
            self._energy += float(block.double().square().sum())
            self._peak = max(self._peak, float(block.abs().max()))

    def report(self) -> dict[str, float | None]:
        """Level (RMS over all channels) and peak in dB of full scale; None for silence."""
        return {
            "level_dbfs": _ratio_db(self._energy, self._num_values),
            "peak_dbfs": _ratio_db(self._peak**2, 1),
        }

    def relative_to(self, other: _Meter) -> float | None:
        """Energy of this signal over that of another in dB; None where there is none.

        A signal that is silent, or is rounding noise only, is at -200 dB.
        """
        if other._energy == 0:
            return None
        ratio_db = _ratio_db(self._energy, other._energy)
        return _FLOOR_DB if ratio_db is None else max(ratio_db, _FLOOR_DB)


class _Measured:
    """The meters of one recording."""

    def __init__(self, stems: Iterable[str]) -> None:
        self.mixture = _Meter()
        self.residual = _Meter()
        self.stems = {name: _Meter() for name in stems}


def _ratio_db(power: float, reference: float) -> float | None:
    return round(10 * math.log10(power / reference), 2) if power > 0 else None


def _clipped(writers: Mapping[str, AtomicWriter], audio_format: AudioFormat) -> Iterator[str]:
    """Say which stems did not fit into whole numbers."""
    if not audio_format.is_integer:
        return
    for name, writer in writers.items():
        if writer.peak > 1:
            yield (
                f"{name} peaks {20 * math.log10(writer.peak):.1f} dB above full scale and was "
                f"clipped in {audio_format.subtype}; --float32 keeps it whole"
            )


def _read_sidecar(path: Path) -> Mapping[str, Any]:
    """What a former run wrote; nothing if it is missing, damaged, or somebody else's file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_ours = isinstance(record, dict) and "unbraid" in record
    return record if is_ours and isinstance(record.get("source"), dict) else {}


def _output_path(
    path: Path, out_dir: Path, options: SeparateOptions, stem: str, extension: str
) -> Path:
    return stem_path(
        options.template,
        out_dir,
        model=options.model_name,
        track=path.stem,
        stem=stem,
        ext=extension,
    )


def _sidecar_path(path: Path, out_dir: Path, options: SeparateOptions) -> Path:
    return _output_path(path, out_dir, options, SIDECAR, "json")


def _distinct_files(paths: Sequence[Path]) -> tuple[Path, ...]:
    return tuple({path.absolute(): path for path in reversed(paths)}.values())[::-1]


def _check_distinct_outputs(paths: Sequence[Path], out_dir: Path, options: SeparateOptions) -> None:
    """Refuse recordings whose stems would land on each other.

    Raises:
        ConfigError: Naming two such recordings.
    """
    first_with: dict[str, Path] = {}
    for path in paths:
        # Some file systems take upper and lower case for the same.
        place = str(_sidecar_path(path, out_dir, options)).casefold()
        other = first_with.setdefault(place, path)
        if other is not path:
            raise ConfigError(
                f"{other} and {path} would write to the same stems; put {{track}} into "
                "--filename, or separate them in two runs with different --out folders."
            )


def _bound(on_progress: Callable[[Path, Progress], None], path: Path) -> ProgressCallback:
    return lambda progress: on_progress(path, progress)
