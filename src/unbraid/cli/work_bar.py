"""How far a long task of several steps has come: a bar where there is a terminal, else lines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from unbraid.cli.console import one_line
from unbraid.downloads import size_in_words

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from unbraid.types import Step


class WorkBar:
    """Shows one step at a time, on stderr.

    Without a terminal each step is a line when it begins, so that a log shows what was done.

    Args:
        is_shown: Whether to show anything.
    """

    def __init__(self, is_shown: bool = True) -> None:
        self._is_shown = is_shown
        self._bar = _bar() if is_shown and sys.stderr.isatty() else None
        self._step = ""
        self._task: TaskID | None = None

    def update(self, step: Step) -> None:
        """Show how far a step has come; another name begins another step."""
        if step.name != self._step:
            self._begin(step.name)
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=step.done, total=step.total, amount=_amount(step)
            )

    def _begin(self, name: str) -> None:
        self._step = name
        if self._bar is None:
            if not self._is_shown:
                return
            print(one_line(name), file=sys.stderr, flush=True)
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(one_line(name), total=None, amount="")

    def __enter__(self) -> WorkBar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _amount(step: Step) -> str:
    """What is done, of how much, and what else there is to say."""
    if step.total is None and not step.done:
        return ""
    in_words = size_in_words if step.unit == "bytes" else "{:,}".format
    total = "" if step.total is None else f" of {in_words(step.total)}"
    return f"{in_words(step.done)}{total}" + (f", {step.detail}" if step.detail else "")


def _bar() -> Progress:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[amount]}", markup=False),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
