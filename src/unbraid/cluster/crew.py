"""What a crew of workers is, wherever they are: they come, get recordings, finish, get lost."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from unbraid.cluster.manifest import Entry
from unbraid.cluster.worker import Outcome


@dataclass(frozen=True)
class Joined:
    """A worker is ready."""

    worker: str


@dataclass(frozen=True)
class Done:
    """A worker is done with its recording, and ready for another one."""

    worker: str
    outcome: Outcome


@dataclass(frozen=True)
class Lost:
    """A worker is gone for good.

    Attributes:
        worker: Its name.
        reason: What is known about it.
    """

    worker: str
    reason: str


@runtime_checkable
class Crew(Protocol):
    """Workers that each do one recording at a time. No two ever have the same name."""

    def tend(self, num_wanted: int) -> None:
        """Start workers, also in the place of lost ones, until there are enough.

        Args:
            num_wanted: More than this are not needed.
        """

    def give(self, worker: str, entry: Entry, dead: Collection[str]) -> None:
        """Let a worker that is ready begin with a recording.

        Args:
            worker: Which one.
            entry: The recording.
            dead: The workers that were lost so far.
        """

    def wait(self, timeout_s: float) -> list[Joined | Done | Lost]:
        """What has happened; returns as soon as anything has.

        Args:
            timeout_s: After this time at the latest.

        Raises:
            UnbraidError: If no worker is left and none will come.
        """

    def close(self) -> None:
        """Stop all workers; what they are at is given up, and nothing half-written stays."""
