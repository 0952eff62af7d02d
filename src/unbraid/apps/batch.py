"""Separate many recordings: several at a time, on several devices, whatever some of them do."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from unbraid.apps.recordings import RecordingFile, Unusable, find_recordings
from unbraid.apps.separate_files import FileJob, FileResult, SeparateOptions, stems_of
from unbraid.apps.separator import Separator
from unbraid.apps.whole_files import remove_empty
from unbraid.apps.workplace import clear_leftovers
from unbraid.errors import Cancelled, ConfigError, UnbraidError
from unbraid.types import Progress, ProgressCallback

#: How long a worker waits before it looks again for something to do.
_PATIENCE_S = 0.2


@dataclass(frozen=True)
class BatchResult:
    """What became of all recordings.

    Attributes:
        files: One result per recording, in the order in which they were given.
        wall_s: How long it took.
    """

    files: tuple[FileResult, ...]
    wall_s: float

    @property
    def counts(self) -> Mapping[str, int]:
        """How many were ``written``, ``skipped`` and ``failed``."""
        statuses = [result.status for result in self.files]
        return {status: statuses.count(status) for status in ("written", "skipped", "failed")}

    @property
    def audio_s(self) -> float:
        """Seconds of audio that were separated, without what was skipped."""
        return sum(result.duration_s for result in self.files if result.status == "written")

    @property
    def exit_code(self) -> int:
        """That of the first recording that failed; 0 if none did."""
        errors = (result.error for result in self.files)
        return next((error.exit_code for error in errors if error is not None), 0)


def separate_files(
    separators: Separator | Sequence[Separator],
    inputs: Sequence[str | Path],
    prompts: Sequence[str],
    out_dir: str | Path,
    options: SeparateOptions,
    *,
    is_recursive: bool = False,
    num_jobs: int = 1,
    on_start: Callable[[int], None] | None = None,
    on_progress: Callable[[Path, Progress], None] | None = None,
    on_result: Callable[[FileResult], None] | None = None,
) -> BatchResult:
    """Separate recordings; one that fails does not stop the others.

    What other processes have on hand at the moment comes last, and is waited for.

    Args:
        separators: What does the work: one, or one for each device, with equal models and
            settings.
        inputs: Files, folders and patterns, as in ``recordings.find_recordings``.
        prompts: What to separate them into; names may repeat.
        out_dir: Where the stems go.
        options: How they are named and stored.
        is_recursive: Search folders inside folders, too.
        num_jobs: How many recordings to work on at a time; at least one for each device.
        on_start: Called with the number of recordings before the first one begins.
        on_progress: Called now and then; may raise ``Cancelled``.
        on_result: Called when a recording is done, skipped or has failed, in the order in
            which that happens.

    The callbacks come from other threads, but never two at a time. An exception from one of
    them stops everything and comes out of this function.

    Returns:
        One result per recording and per input that gave none, in order.

    Raises:
        ConfigError: Before any work, if two recordings would write to the same files, or
            ``num_jobs`` is not positive.
        ConfigError, PromptError: Before any work, as ``separate_files.stems_of``.
        Cancelled: If ``on_progress`` asked to stop; finished recordings stay.
    """
    if num_jobs < 1:
        raise ConfigError(f"--jobs {num_jobs}: must be at least 1.")
    started_s = time.monotonic()
    workers = [separators] if isinstance(separators, Separator) else list(separators)
    out_dir = Path(out_dir)
    found = find_recordings(
        inputs,
        out_dir,
        lambda track: options.sidecar_path(track, out_dir),
        is_recursive=is_recursive,
    )
    # What is wrong with prompts or options is wrong with every recording.
    stems_of(workers[0], prompts, options)
    clear_leftovers(out_dir)
    if on_start is not None:
        on_start(len(found))
    batch = _Batch(found, _Callbacks(on_progress, on_result))
    num_workers = max(num_jobs, len(workers))

    def make_job(separator: Separator, recording: RecordingFile) -> FileJob:
        return FileJob(separator, recording, prompts, out_dir, options)

    batch.run([workers[number % len(workers)] for number in range(num_workers)], make_job)
    return BatchResult(tuple(batch.results), time.monotonic() - started_s)


@dataclass
class _Callbacks:
    """The caller's functions, called by one thread at a time."""

    on_progress: Callable[[Path, Progress], None] | None
    on_result: Callable[[FileResult], None] | None
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def progress_of(self, path: Path) -> ProgressCallback | None:
        on_progress = self.on_progress
        if on_progress is None:
            return None

        def progress(progress: Progress) -> None:
            with self._turn:
                on_progress(path, progress)

        return progress

    def result(self, result: FileResult) -> None:
        if self.on_result is not None:
            with self._turn:
                self.on_result(result)


class _Worker:
    """A thread that can be waited for although Ctrl-C may come at any moment.

    Not so ``threading.Thread.join``: interrupted, it takes the thread for ended.
    """

    def __init__(self, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work, arguments))

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def wait(self) -> None:
        """Return when the work has ended, or has never begun."""
        # With a limit, because on some systems Ctrl-C waits for the end of a wait.
        while not self._has_ended.wait(_PATIENCE_S) and self._thread.is_alive():
            pass

    def _run(self, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
        try:
            work(*arguments)
        finally:
            self._has_ended.set()


class _Batch:
    """Recordings that wait, the threads that take them, and what comes out."""

    def __init__(self, found: Sequence[RecordingFile | Unusable], callbacks: _Callbacks) -> None:
        self._found = found
        self._callbacks = callbacks
        self._waiting = deque(range(len(found)))
        self._new_folders: set[Path] = set()
        self._busy_elsewhere: set[int] = set()
        self._results: dict[int, FileResult] = {}
        self._stop = threading.Event()
        self._failure: BaseException | None = None

    @property
    def results(self) -> list[FileResult]:
        """One for everything that was found, in order."""
        return [self._results[position] for position in range(len(self._found))]

    def run(
        self,
        separators: Sequence[Separator],
        make_job: Callable[[Separator, RecordingFile], FileJob],
    ) -> None:
        """Work until nothing is waiting, with one thread for each of ``separators``."""
        separators = separators[: max(1, len(self._found))]
        num_threads = torch.get_num_threads()
        share = max(1, num_threads // len(separators)) if len(separators) > 1 else None
        workers = [_Worker(self._work, (separator, make_job, share)) for separator in separators]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.wait()
        finally:
            self._stop.set()
            for worker in workers:
                worker.wait()
            # What one job made and could not remove because another one was in there.
            remove_empty(sorted(self._new_folders))
            if share is not None:
                # Each thread has its own number, but new ones begin with the last that was set.
                torch.set_num_threads(num_threads)
        if self._failure is not None:
            raise self._failure

    def _work(
        self,
        separator: Separator,
        make_job: Callable[[Separator, RecordingFile], FileJob],
        num_threads: int | None,
    ) -> None:
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        try:
            while (position := self._next()) is not None:
                self._take(position, separator, make_job)
        except BaseException as error:
            # The first failure is the cause; the others only stop because of it.
            if not self._stop.is_set():
                self._failure = error
            self._stop.set()

    def _next(self) -> int | None:
        if self._stop.is_set():
            return None
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _take(
        self,
        position: int,
        separator: Separator,
        make_job: Callable[[Separator, RecordingFile], FileJob],
    ) -> None:
        entry = self._found[position]
        if isinstance(entry, Unusable):
            result: FileResult | None = FileResult(entry.path, "failed", error=entry.error)
        else:
            try:
                job = make_job(separator, entry)
                try:
                    result = job.attempt(self._callbacks.progress_of(entry.path), self._stop)
                finally:
                    self._new_folders.update(job.new_folders)
            except Cancelled:
                raise
            except UnbraidError as error:
                result = FileResult(entry.path, "failed", error=error)
        if result is None:
            # Another process is at it; look again when everything else has had its turn.
            if position in self._busy_elsewhere:
                self._stop.wait(_PATIENCE_S)
            self._busy_elsewhere.add(position)
            self._waiting.append(position)
            return
        self._results[position] = result
        self._callbacks.result(result)
