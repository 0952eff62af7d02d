"""Who does what, in order, and again where it fails or its worker is lost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from unbraid.cluster.crew import Crew, Done, Joined
from unbraid.cluster.manifest import Entry
from unbraid.cluster.table import Row
from unbraid.cluster.worker import Outcome
from unbraid.errors import (
    AudioError,
    ClusterError,
    ConfigError,
    DiskError,
    PromptError,
    UnbraidError,
)

#: How long to wait for something to happen before looking after the crew again.
_LOOK_EVERY_S = 1.0
#: How long to leave a recording alone that another run is at.
_PATIENCE_WITH_OTHERS_S = 2.0
#: What a recording is at fault for, or what is asked of it: no worker can do better.
_FINAL = (AudioError, ConfigError, PromptError)


@dataclass
class _Open:
    """A recording that is not done.

    Attributes:
        position: In the manifest.
        entry: The recording.
        num_failures: How often it has failed.
        tried: The workers that have tried.
        not_before_s: When to look again.
    """

    position: int
    entry: Entry
    num_failures: int = 0
    tried: set[str] = field(default_factory=set)
    not_before_s: float = 0.0


def dispatch(
    entries: Sequence[Entry],
    crew: Crew,
    *,
    num_retries: int,
    on_row: Callable[[int, Row], None],
) -> None:
    """Have all recordings separated, in order, as workers become free.

    What fails is tried again, if possible on a worker that has not tried yet, unless the recording
    or what is asked is at fault; what a lost worker had on hand likewise. What another run has on
    hand comes later, and is waited for.

    Args:
        entries: The recordings.
        crew: Who separates them; the caller closes it.
        num_retries: How often a recording is tried again.
        on_row: Called with a recording's position and what became of it, in the order in which
            that happens.

    Raises:
        UnbraidError: If no worker is left.
    """
    _Dispatch(entries, crew, num_retries, on_row).run()


class _Dispatch:
    def __init__(
        self,
        entries: Sequence[Entry],
        crew: Crew,
        num_retries: int,
        on_row: Callable[[int, Row], None],
    ) -> None:
        self._fresh = deque(enumerate(entries))
        self._again: list[_Open] = []
        self._idle: dict[str, None] = {}  # a set that keeps its order
        self._working: dict[str, _Open] = {}
        self._lost: list[str] = []
        self._crew = crew
        self._num_retries = num_retries
        self._on_row = on_row

    def run(self) -> None:
        while num_open := len(self._fresh) + len(self._again) + len(self._working):
            self._crew.tend(num_open)
            for worker in list(self._idle):
                if (chosen := self._next_for(worker)) is not None:
                    del self._idle[worker]
                    self._working[worker] = chosen
                    self._crew.give(worker, chosen.entry, tuple(self._lost))
            for event in self._crew.wait(_LOOK_EVERY_S):
                if isinstance(event, Joined):
                    self._idle[event.worker] = None
                elif isinstance(event, Done):
                    self._idle[event.worker] = None
                    self._take(event.worker, event.outcome)
                else:
                    self._idle.pop(event.worker, None)
                    self._lost.append(event.worker)
                    self._take_from_lost(event.worker, event.reason)

    def _next_for(self, worker: str) -> _Open | None:
        now_s = time.monotonic()
        crew = {*self._idle, *self._working}
        for position, waiting in enumerate(self._again):
            is_for_others = worker in waiting.tried and not crew <= waiting.tried
            if waiting.not_before_s <= now_s and not is_for_others:
                return self._again.pop(position)
        return _Open(*self._fresh.popleft()) if self._fresh else None

    def _take(self, worker: str, outcome: Outcome) -> None:
        current = self._working.pop(worker)
        if outcome.status == "busy":
            current.not_before_s = time.monotonic() + _PATIENCE_WITH_OTHERS_S
            self._again.append(current)
        elif outcome.error is not None:
            self._fail(worker, current, outcome, outcome.error)
        else:
            self._report(worker, current, outcome)

    def _take_from_lost(self, worker: str, reason: str) -> None:
        current = self._working.pop(worker, None)
        if current is not None:
            error = ClusterError(f"{current.entry.path}: its worker was lost ({reason}).")
            self._fail(worker, current, Outcome("failed", error=error), error)

    def _fail(self, worker: str, current: _Open, outcome: Outcome, error: UnbraidError) -> None:
        current.num_failures += 1
        current.tried.add(worker)
        is_final = isinstance(error, _FINAL) and not isinstance(error, DiskError)
        if is_final or current.num_failures > self._num_retries:
            self._report(worker, current, outcome, error)
        else:
            self._again.append(current)

    def _report(
        self, worker: str, current: _Open, outcome: Outcome, error: UnbraidError | None = None
    ) -> None:
        num_attempts = current.num_failures + (error is None)
        self._on_row(current.position, Row(current.entry, worker, outcome, num_attempts))
