"""The book of all jobs: which wait, which run, what became of them. Many threads, one lock."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unbraid.errors import AudioError
from unbraid.serve.jobs import Job, Limits
from unbraid.serve.metrics import Metrics
from unbraid.serve.refusals import Refusal
from unbraid.serve.spool import Spool

_MIB = 2**20
_SHORTEST_RETRY_S = 1
_LONGEST_RETRY_S = 300
#: What a job is taken to last before any was seen, and how fast that is forgotten.
_FIRST_GUESS_S = 2.0
_FORGETTING = 0.1

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Entry:
    """A job, and what is known of it only here."""

    job: Job
    done_s: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)
    is_cancelled: bool = False

    @property
    def num_bytes(self) -> int:
        """What its files take on the disk, or may come to take."""
        if self.job.is_finished:
            return sum(stem.num_bytes for stem in self.job.stems)
        return self.job.most_bytes


@dataclass(frozen=True)
class Standing:
    """A job, and where it stands at this moment.

    Attributes:
        job: The job.
        done_s: Seconds of the recording that are separated.
        position: How many jobs are worked on before this one; None if it does not wait.
    """

    job: Job
    done_s: float
    position: int | None


class JobBook:
    """All jobs of a server.

    Args:
        spool: Where they are kept.
        limits: How many, how long.
        metrics: What is counted.
        now: The clock, in seconds since 1970.

    Attributes:
        num_workers: How many jobs are worked on at a time; the engine says so.
    """

    def __init__(
        self,
        spool: Spool,
        limits: Limits,
        metrics: Metrics,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.num_workers = 1
        self._spool = spool
        self._limits = limits
        self._metrics = metrics
        self._now = now
        self._changed = threading.Condition()
        self._entries: dict[str, _Entry] = {}
        self._queue: deque[str] = deque()
        self._num_arriving = 0
        self._is_closed = False
        self._usual_s = _FIRST_GUESS_S
        for job in spool.load():
            self._take_over(job)
        self._measure()

    def _take_over(self, job: Job) -> None:
        """Go on with a job of a former server."""
        if not job.is_finished:
            job = replace(job, state="queued", started=None)
            self._queue.append(job.id)
        self._entries[job.id] = _Entry(job)

    @property
    def is_closed(self) -> bool:
        """Whether the server is about to stop."""
        return self._is_closed

    # New jobs -----------------------------------------------------------------------------

    def reserve(self) -> None:
        """Hold a place in the queue while an upload arrives, until ``release``.

        Raises:
            Refusal: 429 if there is none, or no room on the disk; 503 if the server stops.
        """
        with self._changed:
            self._check_room()
            self._num_arriving += 1

    def release(self) -> None:
        """Give up a place: the upload has become a job, or none."""
        with self._changed:
            self._num_arriving -= 1

    def _check_room(self) -> None:
        if self._is_closed:
            raise Refusal(503, "Stopping", "the server is about to stop; try again later.", 10)
        if len(self._queue) + self._num_arriving >= self._limits.queued_jobs:
            raise Refusal(
                429,
                "QueueFull",
                f"{self._limits.queued_jobs} jobs are waiting already; try again later.",
                self._retry_after_s(),
            )
        if self._num_bytes >= self._limits.disk_bytes:
            raise _no_room()

    def _retry_after_s(self) -> int:
        """When to come again: half of the queue should be free then.

        Sooner, most of those that come would be turned away once more, each with its upload.
        """
        expected_s = math.ceil(self._usual_s * len(self._queue) / 2 / self.num_workers)
        return min(max(expected_s, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)

    def add(self, job: Job, recording: Path) -> None:
        """Queue a job whose upload came through ``Spool.incoming``. It has a place: ``reserve``.

        Raises:
            AudioError: If the disk does not take it.
            Refusal: 503 if the server has begun to stop meanwhile; 429 if there is no room on
                the disk for its stems, 413 if there never will be.
        """
        with self._changed:
            if self._is_closed:
                self._check_room()
            if job.most_bytes > self._limits.disk_bytes:
                raise Refusal(
                    413,
                    "TooLarge",
                    f"the stems could take {job.most_bytes / _MIB:.1f} MiB; "
                    f"{self._limits.disk_bytes / _MIB:.1f} MiB are there for all. Ask for fewer, "
                    "or send the recording in pieces.",
                )
            if self._num_bytes + job.most_bytes > self._limits.disk_bytes:
                raise _no_room()
            self._spool.place(job, recording)
            self._entries[job.id] = _Entry(job)
            self._queue.append(job.id)
            self._metrics.accepted(job)
            self._measure()
            self._changed.notify_all()

    # Work ---------------------------------------------------------------------------------

    def take(self) -> tuple[Job, threading.Event, int] | None:
        """Wait for the next job and begin it.

        Returns:
            The job, what is set when it shall stop, and how many run now, this one included;
            None when the server stops.
        """
        with self._changed:
            while not self._is_closed and not self._queue:
                self._changed.wait()
            if self._is_closed:
                return None
            entry = self._entries[self._queue.popleft()]
            entry.stop.clear()
            entry.done_s = 0.0
            self._change(entry, state="running", started=self._now())
            self._metrics.started(entry.job)
            return entry.job, entry.stop, self._num_running

    def advance(self, job_id: str, done_s: float) -> None:
        """Note how many seconds of a recording are separated."""
        self._entries[job_id].done_s = done_s

    def finish(self, job_id: str, **changes: Any) -> None:
        """Note that a job is done or has failed.

        Args:
            job_id: Which.
            changes: Fields of the job, ``state`` among them.
        """
        with self._changed:
            entry = self._entries[job_id]
            if entry.is_cancelled:  # it came to an end before it saw that
                changes = {"state": "cancelled"}
                self._spool.drop_results(job_id)
            started, finished = entry.job.started, self._now()
            if started is not None and changes["state"] == "done":
                self._usual_s += _FORGETTING * (finished - started - self._usual_s)
            self._spool.drop_upload(job_id)
            self._change(entry, finished=finished, **changes)
            self._metrics.finished(entry.job)

    def give_back(self, job_id: str) -> None:
        """Note that a job was stopped: because it was cancelled, or for the next server."""
        with self._changed:
            entry = self._entries[job_id]
            if entry.is_cancelled:
                self.finish(job_id, state="cancelled")
                return
            entry.done_s = 0.0
            self._queue.appendleft(job_id)
            self._change(entry, state="queued", started=None)

    # Questions and wishes -----------------------------------------------------------------

    def standing(self, job_id: str) -> Standing:
        """Where a job stands.

        Raises:
            Refusal: 404 if there is no such job, or none any more.
        """
        with self._changed:
            entry = self._entry(job_id)
            done_s = entry.job.sound.duration_s if entry.job.state == "done" else entry.done_s
            position = self._queue.index(job_id) if job_id in self._queue else None
            return Standing(entry.job, done_s, position)

    def cancel(self, job_id: str) -> None:
        """Stop a job that waits or runs; remove the stems of one that is done.

        A running job ends a little later. Of one that failed or was cancelled nothing is left
        to remove.

        Raises:
            Refusal: 404 if there is no such job.
        """
        with self._changed:
            entry = self._entry(job_id)
            if entry.job.state == "queued":
                self._queue.remove(job_id)
                entry.is_cancelled = True
                self.finish(job_id, state="cancelled")
            elif entry.job.state == "running":
                entry.is_cancelled = True
                entry.stop.set()
            elif entry.job.state == "done":
                self._expire(entry)

    def clear(self) -> None:
        """Remove what was kept long enough."""
        with self._changed:
            for job_id, entry in list(self._entries.items()):
                finished = entry.job.finished
                if finished is None:
                    continue
                age_s = self._now() - finished
                if age_s > 2 * self._limits.kept_s:
                    del self._entries[job_id]
                    self._spool.drop(job_id)
                elif age_s > self._limits.kept_s and entry.job.state == "done":
                    self._expire(entry)

    def _entry(self, job_id: str) -> _Entry:
        entry = self._entries.get(job_id)
        if entry is None:
            raise Refusal(
                404,
                "UnknownJob",
                "there is no such job; what became of a job is known for "
                f"{2 * self._limits.kept_s:.0f} s after its end.",
            )
        return entry

    def _expire(self, entry: _Entry) -> None:
        self._spool.drop_results(entry.job.id)
        self._change(entry, state="expired", stems=())

    def _change(self, entry: _Entry, **changes: Any) -> None:
        entry.job = replace(entry.job, **changes)
        try:
            self._spool.note(entry.job)
        except AudioError as error:  # the next server will do it again, this one knows
            log.error("a job could not be written down: %s", error)
        self._measure()
        self._changed.notify_all()

    # The end ------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no new jobs, and begin none."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def wait_for_running(self, patience_s: float) -> bool:
        """Wait until no job runs; False if some still do after so long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._num_running, patience_s)

    def stop_running(self) -> None:
        """Let the jobs that run stop, for the next server to begin them again."""
        with self._changed:
            for entry in self._entries.values():
                if entry.job.state == "running":
                    entry.stop.set()

    @property
    def _num_bytes(self) -> int:
        return sum(entry.num_bytes for entry in self._entries.values())

    @property
    def _num_running(self) -> int:
        return sum(entry.job.state == "running" for entry in self._entries.values())

    def _measure(self) -> None:
        self._metrics.measured(
            num_queued=len(self._queue),
            num_running=self._num_running,
            num_bytes=self._num_bytes,
        )


def _no_room() -> Refusal:
    return Refusal(
        429,
        "DiskFull",
        "the room for uploads and stems is used up; fetch yours and delete the jobs, or try again "
        "later.",
        _LONGEST_RETRY_S,
    )
