"""Separate one recording into stems on disk, in memory that does not grow with its length.

Samples stream from the decoder through the separator into one writer per stem, all of it in
a hidden folder. When everything is whole, the results move to their places together, the
JSON sidecar last: a recording counts as finished when its sidecar says that these stems
came from this file with this model and these options.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal

import torch

from unbraid._version import __version__
from unbraid.apps.meters import Meter, ratio_db
from unbraid.apps.presence_file import presence_report, presence_table
from unbraid.apps.recordings import RecordingFile
from unbraid.apps.separator import Separator
from unbraid.apps.sidecar import SIDECAR, marker_content, read_sidecar, sidecar_content
from unbraid.apps.stem_files import StemFiles
from unbraid.apps.whole_files import (
    make_folder,
    remove_empty,
    rename,
    replace_together,
    write_whole,
)
from unbraid.apps.workplace import enter_workplace
from unbraid.audio import (
    DEFAULT_TEMPLATE,
    AudioInfo,
    FormatChoice,
    check_template,
    probe,
    read_blocks,
    safe_name,
    stem_path,
)
from unbraid.audio.remux import put_under_video, remux_extension, remux_format
from unbraid.errors import AudioError, Cancelled, ConfigError, DiskError, UnbraidError
from unbraid.prompts import RESIDUAL
from unbraid.separation.presence import PresenceTimeline
from unbraid.types import Progress, ProgressCallback, stem_names

#: The name that the timeline has where stems have theirs: ``presence.csv``.
PRESENCE = "presence"
#: In ``SeparateOptions.remux``: every stem.
ALL_STEMS = "all"

#: How long a process waits before it asks again for a recording that another one has.
_PATIENCE_S = 0.2
#: Tags are for looking at; a whole lyrics sheet belongs into the stems, not into the sidecar.
_LONGEST_TAG = 200


@dataclass(frozen=True)
class SeparateOptions:
    """How recordings are read, and how their stems are named and stored.

    Attributes:
        model_name: What the model is called, in paths and in the sidecar.
        model_digest: SHA-256 of the model.
        audio_format: The container, and how deep.
        template: Path of a stem below the output folder.
        has_residual: Whether to write the mixture minus the sum of the stems as well.
        overwrite: Separate again what is finished, and replace files of others.
        track: The audio track to separate, counted from 1; None for the file's default.
        peak_dbfs: Bring the highest peak of all stems of a recording to this level, with
            one gain for all of them; None to leave levels alone.
        remux: Stems to put under the pictures of a video as well, or ``("all",)``.
        queries: Of prompts that are shown by example, the SHA-256 of their clips.

    Raises:
        ConfigError: For a template that cannot name stems safely, a track below 1, or a
            peak above 0 dB of full scale.
    """

    model_name: str
    model_digest: str
    audio_format: FormatChoice = field(default_factory=FormatChoice)
    template: str = DEFAULT_TEMPLATE
    has_residual: bool = False
    overwrite: bool = False
    track: int | None = None
    peak_dbfs: float | None = None
    remux: tuple[str, ...] = ()
    queries: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_template(self.template)
        if self.track is not None and self.track < 1:
            raise ConfigError(f"--track {self.track}: tracks are counted from 1.")
        if self.peak_dbfs is not None and not -200 <= self.peak_dbfs <= 0:
            raise ConfigError(
                f"--peak {self.peak_dbfs:g}: must be from -200 to 0 dB of full scale, "
                "for example -1."
            )

    def output_path(self, track: PurePath, out_dir: Path, stem: str, extension: str) -> Path:
        """Where a result of a recording goes."""
        return stem_path(
            self.template, out_dir, model=self.model_name, track=track, stem=stem, ext=extension
        )

    def sidecar_path(self, track: PurePath, out_dir: Path) -> Path:
        """Where the sidecar of a recording goes."""
        return self.output_path(track, out_dir, SIDECAR, "json")


@dataclass(frozen=True)
class FileResult:
    """What became of one recording.

    Attributes:
        path: The recording.
        status: ``written``; ``skipped`` where the stems were there already; ``failed``.
        sidecar: The JSON file beside the stems; None where the recording failed.
        stems: Stem name → file; empty where the recording failed.
        presence: The table of which sound is there when; None where the recording failed.
        videos: Stem name → the video with that stem as its sound.
        record: What the sidecar holds; empty where the recording failed.
        error: Why it failed.
    """

    path: Path
    status: Literal["written", "skipped", "failed"]
    sidecar: Path | None = None
    stems: Mapping[str, Path] = field(default_factory=dict)
    presence: Path | None = None
    videos: Mapping[str, Path] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    error: UnbraidError | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know, for example about samples that were clipped."""
        return tuple(self.record.get("warnings", ()))

    @property
    def duration_s(self) -> float:
        """Length of the recording; 0 where it failed."""
        return self.record["num_samples"] / self.record["sample_rate"] if self.record else 0.0


def separate_file(
    separator: Separator,
    path: str | Path | RecordingFile,
    prompts: Sequence[str],
    out_dir: str | Path,
    options: SeparateOptions,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> FileResult:
    """Separate one recording, unless its stems are there already.

    If another process is at it, this one waits for it.

    Args:
        separator: Does the work.
        path: The recording.
        prompts: What to separate it into; names may repeat.
        out_dir: Where the stems go.
        options: How they are named and stored.
        progress: Called now and then; may raise ``Cancelled``.
        cancel: Set it, from any thread, to stop.

    Raises:
        PromptError: For an unknown prompt or an empty list.
        AudioError: If the recording cannot be read or the stems cannot be written; then
            neither a stem nor a part of one is left behind.
        ConfigError: If a file is in the way that does not belong to a finished separation
            of this recording, if there is no stem of a name in ``options.remux``, or if the
            device has too little memory.
        Cancelled: If ``cancel`` was set or ``progress`` asked to stop; nothing is left behind.
    """
    cancel = cancel or threading.Event()
    if not isinstance(path, RecordingFile):
        path = RecordingFile(Path(path), PurePath(Path(path).stem))
    job = FileJob(separator, path, prompts, Path(out_dir), options)
    while (result := job.attempt(progress, cancel)) is None:
        if cancel.wait(_PATIENCE_S):
            raise Cancelled("the separation was cancelled.")
    return result


def stems_of(
    separator: Separator, prompts: Sequence[str], options: SeparateOptions
) -> tuple[str, ...]:
    """The names of the stems that every recording gives.

    Raises:
        PromptError: For an unknown prompt or an empty list.
        ConfigError: If a name in ``options.remux`` is none of theirs, or a prompt has the
            name of the residual.
    """
    names = stem_names(separator.model.prompts.resolve(prompts))
    if options.has_residual:
        if RESIDUAL in names:
            raise ConfigError(f"a prompt is called {RESIDUAL!r} already; leave --residual out.")
        names = (*names, RESIDUAL)
    for name in options.remux:
        if name not in (*names, ALL_STEMS):
            raise ConfigError(
                f"--remux {name}: no such stem; there are {', '.join(names)}, or {ALL_STEMS}."
            )
    return names


class FileJob:
    """One recording on its way to its stems: where they go and how they get there.

    Args:
        separator: Does the work.
        recording: What to separate.
        prompts: What to separate it into; names may repeat.
        out_dir: Where the stems go.
        options: How they are named and stored.

    Attributes:
        new_folders: The folders that ``attempt`` made. What is empty of them is removed after
            a failure, but another job may be in there just then.

    Raises:
        PromptError: For an unknown prompt or an empty list.
        ConfigError: As ``stems_of``, or if two results would have one name.
    """

    def __init__(
        self,
        separator: Separator,
        recording: RecordingFile,
        prompts: Sequence[str],
        out_dir: Path,
        options: SeparateOptions,
    ) -> None:
        self.new_folders: list[Path] = []
        self._separator = separator
        self._recording = recording
        self._prompts = separator.model.prompts.resolve(prompts)
        self._out_dir = out_dir
        self._options = options
        self._names = names = stems_of(separator, prompts, options)
        self._sidecar = options.sidecar_path(recording.track, out_dir)
        extension = options.audio_format.container
        self._stems = {name: self._output_path(name, extension) for name in names}
        self._presence = self._output_path(PRESENCE, "csv")
        self._videos = {
            name: self._output_path(name, remux_extension(recording.path))
            for name in names
            if name in options.remux or ALL_STEMS in options.remux
        }
        _check_distinct(self.results)

    def attempt(
        self,
        progress: ProgressCallback | None,
        cancel: threading.Event,
        fetch: Callable[[], None] | None = None,
    ) -> FileResult | None:
        """Separate the recording, unless that is done already.

        Args:
            progress: Called now and then; may raise ``Cancelled``.
            cancel: Set it, from any thread, to stop.
            fetch: Called before the recording is read, when it is clear that this process
                separates it. For copies (``RecordingFile.origin``) that are not here yet.

        Returns:
            What became of it; None if another process is at it just now.

        Raises:
            AudioError, ConfigError, Cancelled: As ``separate_file``.
        """
        request = self._request()
        if (finished := self._finished(request)) is not None:
            return finished
        workplace = enter_workplace(self._out_dir, self._sidecar)
        if workplace is None:
            return None
        self.new_folders += workplace.new_folders
        try:
            # Another process may just have finished it.
            if (finished := self._finished(request)) is not None:
                return finished
            if fetch is not None:
                fetch()
            source = probe(self._recording.path, self._options.track)
            self._check_possible(source)
            record = self._run(workplace.folder, source, request, progress, cancel)
        except AudioError as error:
            if str(self._recording.path) in str(error):
                raise
            raise type(error)(f"{self._recording.path}: {error}") from error
        except torch.cuda.OutOfMemoryError as error:
            raise ConfigError(
                f"{self._recording.path}: too little memory on {self._separator.engine.device}; "
                "try a smaller --segment, fewer prompts or --device cpu."
            ) from error
        finally:
            workplace.leave()
        return self._result("written", record)

    @property
    def results(self) -> list[Path]:
        """Every file that this job makes, the sidecar last."""
        return [*self._stems.values(), self._presence, *self._videos.values(), self._sidecar]

    def _output_path(self, stem: str, extension: str) -> Path:
        return self._options.output_path(self._recording.track, self._out_dir, stem, extension)

    def _result(
        self, status: Literal["written", "skipped"], record: Mapping[str, Any]
    ) -> FileResult:
        return FileResult(
            self._recording.path,
            status,
            self._sidecar,
            self._stems,
            self._presence,
            self._videos,
            record,
        )

    def _request(self) -> dict[str, Any]:
        """What decides whether results would come out the same; it goes into the sidecar."""
        options = self._options
        return {
            "model": {"name": options.model_name, "digest": options.model_digest},
            "prompts": list(self._prompts),
            "taught": {
                name: digest
                for name, digest in self._separator.prompt_digests.items()
                if name in self._prompts
            },
            "source": self._recording.source,
            "options": {
                **asdict(options.audio_format),
                "residual": options.has_residual,
                "track": options.track,
                "peak_dbfs": options.peak_dbfs,
                "remux": list(self._videos),
                # Only where there are some: what was finished before there were any stays so.
                **({"queries": dict(options.queries)} if options.queries else {}),
            },
            "settings": asdict(self._separator.engine.config),
        }

    def _finished(self, request: Mapping[str, Any]) -> FileResult | None:
        """The result, if the sidecar answers this very request and everything is there."""
        known = read_sidecar(self._sidecar)
        is_finished = self._is_answered(request, known) and all(
            file.is_file() for file in self.results
        )
        return self._result("skipped", known) if is_finished else None

    def is_answered_by(self, record: Mapping[str, Any]) -> bool:
        """Whether a sidecar with this record says that there is nothing left to do."""
        return self._is_answered(self._request(), record)

    def obstacle(self, record: Mapping[str, Any]) -> str | None:
        """Why a result may not be put where a file is, if a sidecar with this record is there."""
        former = record.get("source", {}).get("path")
        if self._options.overwrite or former == self._recording.source["path"]:
            return None
        if former is None:
            return (
                "is there already and does not come from a finished separation; "
                "choose another --out or replace it with --overwrite."
            )
        return (
            f"belongs to another recording ({former}); "
            "choose another --out or replace it with --overwrite."
        )

    def _is_answered(self, request: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
        known = {"taught": {}} | dict(record)  # as before there were any
        return (
            not self._options.overwrite
            and "num_bytes" in request["source"]
            # A recording that was moved is still the same recording.
            and known.get("source", {}) | {"path": ""} == request["source"] | {"path": ""}
            and all(
                known.get(key) == request[key]
                for key in ("model", "prompts", "taught", "options", "settings")
            )
            # A sidecar without stems marks results on their way to their places.
            and "stems" in known
        )

    def _check_possible(self, source: AudioInfo) -> None:
        """Refuse what cannot end well before the work begins.

        Raises:
            AudioError: If pictures are asked for and the recording has none.
            ConfigError: If a result would replace the recording itself, or anything but the
                former results of this very recording.
        """
        if self._videos and not source.has_video:
            raise AudioError(
                f"{self._recording.path}: has no pictures to put a stem under; leave --remux out."
            )
        path = self._recording.path
        former = read_sidecar(self._sidecar)
        for file in self.results:
            if not os.path.lexists(file):
                continue
            if file.exists() and file.samefile(path):
                problem: str | None = "a stem would replace the recording; choose another --out."
            elif file.is_dir():
                problem = "a folder is in the way; choose another --out."
            else:
                problem = self.obstacle(former)
            if problem is not None:
                raise ConfigError(f"{file}: {problem}")

    def _run(
        self,
        folder: Path,
        source: AudioInfo,
        request: Mapping[str, Any],
        progress: ProgressCallback | None,
        cancel: threading.Event,
    ) -> dict[str, Any]:
        """Make everything in ``folder``, then let it appear where it belongs."""
        try:
            # A place that cannot be written shows now, not after the work.
            for file in self.results:
                self.new_folders += make_folder(file.parent)
                _check_writable(file)
            record, made = self._make(folder, source, request, progress, cancel)
            if cancel.is_set():
                raise Cancelled("the separation was cancelled.")
            self._publish(folder, made, record)
        except BaseException:
            remove_empty(self.new_folders)
            raise
        return record

    def _make(
        self,
        folder: Path,
        source: AudioInfo,
        request: Mapping[str, Any],
        progress: ProgressCallback | None,
        cancel: threading.Event,
    ) -> tuple[dict[str, Any], list[Path]]:
        """Make all results but the sidecar in ``folder``.

        Returns:
            What the sidecar has to say, and the files, in the order of ``_results``.
        """
        options = self._options
        path = self._recording.path
        audio_format = options.audio_format.for_source(source)
        stems = StemFiles(folder, self._names, audio_format, source, options.peak_dbfs)
        with closing(stems):
            sounds: Mapping[str, Path] = {}
            if self._videos:
                sound_format = remux_format(path, source)
                sounds = stems.also(folder / "remux", list(self._videos), sound_format)
            timeline = PresenceTimeline(stem_names(self._prompts))
            nulled = self._stream(source, stems, timeline, progress, cancel)
            stems.finish(cancel.is_set)
            videos = []
            warnings = [*source.warnings, *stems.warnings()]
            for name, sound in sounds.items():
                video = folder / f"{safe_name(name)}.{remux_extension(path)}"
                left_out = put_under_video(path, sound, video, start_s=source.start_s, title=name)
                warnings += [text for text in left_out if text not in warnings]
                videos.append(video)
        table = folder / f"{PRESENCE}.csv"
        presence = timeline.result()
        duration_s = nulled.mixture.num_samples / source.sample_rate
        write_whole(table, presence_table(presence, duration_s))
        reports = {each.name: presence_report(each, duration_s) for each in presence}
        record = {
            "unbraid": __version__,
            **request,
            "track": source.track,
            "sample_rate": source.sample_rate,
            "num_channels": source.num_channels,
            "num_samples": nulled.mixture.num_samples,
            "channel_layout": source.channel_layout,
            "start_s": source.start_s,
            "tags": {key: value[:_LONGEST_TAG] for key, value in source.tags.items()},
            "format": {**asdict(audio_format), "sample_rate": stems.sample_rate},
            "gain_db": ratio_db(stems.gain**2, 1),
            "stems": {
                name: {
                    "file": self._from_sidecar(file),
                    **stems.meters[name].report(stems.gain),
                    **({"presence": reports[name]} if name in reports else {}),
                }
                for name, file in self._stems.items()
            },
            "videos": {name: self._from_sidecar(file) for name, file in self._videos.items()},
            "residual_to_mixture_db": nulled.residual.relative_to(nulled.mixture),
            "warnings": warnings,
        }
        return record, [*stems.files.values(), table, *videos]

    def _stream(
        self,
        source: AudioInfo,
        stems: StemFiles,
        timeline: PresenceTimeline,
        progress: ProgressCallback | None,
        cancel: threading.Event,
    ) -> _NullTest:
        nulled = _NullTest()
        if progress is not None:
            progress(Progress(0.0, source.duration_s))
        blocks = read_blocks(self._recording.path, track=self._options.track)
        for block in self._separator.separate_stream(
            blocks, source.sample_rate, self._prompts, cancel=cancel
        ):
            nulled.mixture.add(block.mixture)
            residual = block.residual
            nulled.residual.add(residual)
            outputs = block.sources
            if self._options.has_residual:
                outputs = torch.cat([outputs, residual[None]])
            stems.write(outputs)
            if block.presence.numel():
                timeline.add(block.presence)
            if progress is not None:
                done_s = nulled.mixture.num_samples / source.sample_rate
                progress(Progress(done_s, source.duration_s))
        return nulled

    def _publish(self, folder: Path, made: Sequence[Path], record: Mapping[str, Any]) -> None:
        """Let all results appear, the sidecar last; or none.

        Meanwhile a sidecar without stems stands there: whatever happens before the new one
        is there, the recording counts as unfinished, and what lies there as its own.
        """
        marker, sidecar = folder / "marker", folder / f"{SIDECAR}.json"
        write_whole(marker, marker_content(record))
        write_whole(sidecar, sidecar_content(record))
        for file in self.results:
            # Somebody who failed may have removed an empty folder that we wanted to use.
            self.new_folders += make_folder(file.parent)
        aside = folder / "former"
        aside.mkdir()
        former = self._sidecar.read_bytes() if self._sidecar.is_file() else None
        rename(marker, self._sidecar)
        try:
            moves = list(zip(made, self.results[:-1], strict=True))
            replace_together(moves, (sidecar, self._sidecar), aside)
        except BaseException:
            if former is None:
                self._sidecar.unlink(missing_ok=True)
            else:
                write_whole(self._sidecar, former)
            raise

    def _from_sidecar(self, file: Path) -> str:
        return Path(os.path.relpath(file, self._sidecar.parent)).as_posix()


class _NullTest:
    """What is compared to say how nearly the stems add up to the mixture."""

    def __init__(self) -> None:
        self.mixture = Meter()
        self.residual = Meter()


def _check_distinct(results: Sequence[Path]) -> None:
    counts = Counter(str(file).casefold() for file in results)
    for file in results:
        if counts[str(file).casefold()] > 1:
            raise ConfigError(
                f"{file}: two results would have this name; choose another format or --filename."
            )


def _check_writable(file: Path) -> None:
    """Find out now whether a file can appear there.

    Raises:
        AudioError: If it cannot.
    """
    reason = None
    try:
        file.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:  # for example because the name is too long
        reason = error.strerror
    if not os.access(file.parent, os.W_OK):
        reason = "no permission to write there"
    if reason is not None:
        raise DiskError(f"{file}: cannot be written ({reason}); choose another folder with --out.")
