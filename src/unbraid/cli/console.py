"""What all commands share towards the terminal: errors on one line, a progress bar."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import typer

from unbraid.errors import UnbraidError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from unbraid.types import Progress

P = ParamSpec("P")
T = TypeVar("T")

_INTERRUPTED = 130
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def reports_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Let a command end with one line and the documented exit code when it fails.

    Errors that nobody foresaw keep their traceback: they are ours to mend.
    """

    @functools.wraps(command)
    def reporting(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except UnbraidError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            print("interrupted; nothing half-written was kept.", file=sys.stderr)
            raise typer.Exit(_INTERRUPTED) from error

    return reporting


def print_error(error: UnbraidError) -> None:
    """Print an error on one line of stderr."""
    print(f"error: {one_line(error)}", file=sys.stderr, flush=True)


def print_warning(text: str) -> None:
    """Print a warning on one line of stderr."""
    print(f"warning: {one_line(text)}", file=sys.stderr, flush=True)


def one_line(text: object) -> str:
    """Text on one line, with characters that a terminal cannot show, or obeys, escaped."""
    return without_controls(" ".join(str(text).split()))


def without_controls(line: str) -> str:
    r"""A line with characters that a terminal cannot show, or obeys, escaped.

    >>> without_controls("a\x1b[2J")
    'a\\x1b[2J'
    """
    shown = line.encode(errors="backslashreplace").decode()
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", shown)


def print_rows(rows: Mapping[str, str]) -> None:
    """Print labels and values below each other."""
    for label, value in rows.items():
        print(f"{label + ':':13}{value}")


def duration_in_words(seconds: float) -> str:
    """A duration in the units that suit it.

    >>> duration_in_words(7.25), duration_in_words(200), duration_in_words(9000)
    ('7.2 s', '3.3 min', '2.50 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.2f} h"


class Bar:
    """Progress bars on stderr, one per task; they step aside while something is printed.

    Nothing is drawn, and nothing imported for it, where stderr is no terminal.
    """

    def __init__(self, is_shown: bool) -> None:
        self._bar = _bar() if is_shown and sys.stderr.isatty() else None
        self._tasks: dict[str, TaskID] = {}

    def update(self, name: str, progress: Progress) -> None:
        """Show how far the task called ``name`` has come."""
        if self._bar is None:
            return
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(one_line(name), total=progress.total_s)
        self._bar.update(self._tasks[name], completed=progress.done_s, total=progress.total_s)

    def remove(self, name: str) -> None:
        """Take the bar of a task away, if there is one."""
        if self._bar is not None and name in self._tasks:
            self._bar.remove_task(self._tasks.pop(name))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take all bars away while the caller prints."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def __enter__(self) -> Bar:
        self._start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop()

    def _start(self) -> None:
        if self._bar is not None:
            self._bar.start()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar() -> Bars:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        # stdout may be a file; the bar must not draw what is printed into stderr.
        redirect_stdout=False,
        redirect_stderr=False,
    )
