"""Work in a thread of its own, and what it reports, one after the other."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from unbraid.errors import Cancelled, UnbraidError
from unbraid.types import Progress, Step

T = TypeVar("T")

# Reports come faster than a page should be redrawn.
_PATIENCE_S = 0.25


@dataclass(frozen=True)
class HowFar:
    """How far some work has come.

    Attributes:
        doing: What is being done.
        share: How much of it is done, from 0 to 1; None where nobody knows.
        amount: The same in words.
        left_s: About how many seconds it will take from here; None where nobody knows.
    """

    doing: str
    share: float | None = None
    amount: str = ""
    left_s: float | None = None


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of some work.

    Attributes:
        value: What it gave; None if it failed or was cancelled.
        error: Why it failed; None if it went well.
    """

    value: T | None = None
    error: UnbraidError | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody stopped it."""
        return isinstance(self.error, Cancelled)


def follow(task: Callable[[Callable[[HowFar], None]], T]) -> Iterator[HowFar | Outcome[T]]:
    """Do something in a thread, and say now and then how far it has come.

    Args:
        task: Called with a function that takes reports.

    Yields:
        Reports, the newest of those that came close together; then the outcome.

    Raises:
        Exception: Anything that the task raises and that is not an ``UnbraidError``.
    """
    news: queue.SimpleQueue[HowFar | Outcome[T] | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            news.put(Outcome(task(news.put)))
        except UnbraidError as error:
            news.put(Outcome(error=error))
        except BaseException as error:
            news.put(error)

    threading.Thread(target=work, daemon=True).start()
    shown_at = 0.0
    while True:
        item = news.get()
        while isinstance(item, HowFar) and not news.empty():
            item = news.get()
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, Outcome):
            yield item
            return
        if (wait_s := shown_at + _PATIENCE_S - time.monotonic()) > 0:
            time.sleep(wait_s)
        shown_at = time.monotonic()
        yield item


class Pace:
    """Tells how long something will take, from how fast it went so far.

    Args:
        doing: What is being done.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._begun: float | None = None

    def of_audio(self, progress: Progress) -> HowFar:
        """A report about seconds of audio."""
        total_s = progress.total_s
        if not total_s:
            return HowFar(self._doing, None, clock(progress.done_s))
        share = min(1.0, progress.done_s / total_s)
        amount = f"{clock(progress.done_s)} of {clock(total_s)}"
        return HowFar(self._doing, share, amount, self._left_s(share))

    def of_step(self, step: Step) -> HowFar:
        """A report about a step of a longer task; a new step begins a new pace."""
        if step.name != self._doing:
            self._doing, self._begun = step.name, None
        if not step.total:
            return HowFar(step.name)
        share = step.done / step.total
        if step.unit == "bytes":
            amount = f"{100 * share:.0f} %"
        else:
            amount = f"{step.done:,} of {step.total:,} {step.unit}"
        return HowFar(step.name, share, amount, self._left_s(share))

    def _left_s(self, share: float) -> float | None:
        now = time.monotonic()
        if self._begun is None:
            self._begun = now
        spent_s = now - self._begun
        return None if share <= 0 or spent_s < 1 else spent_s * (1 - share) / share


def clock(seconds: float) -> str:
    """A time in a recording.

    >>> clock(7.9), clock(83), clock(3723)
    ('0:07', '1:23', '1:02:03')
    """
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
