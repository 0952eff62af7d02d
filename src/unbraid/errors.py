"""Every error that unbraid raises on purpose.

::

    UnbraidError                exit code 1   (never raised itself)
    ├── ConfigError             2   a setting, flag or config file that makes no sense
    ├── PromptError             3   a prompt that the model does not know, or an empty list
    ├── AudioError              4   a file that cannot be read as audio, or written
    │   └── DiskError               the disk or store is at fault, not the recording
    ├── CheckpointError         5   a model or prompt file that is missing, damaged or foreign
    ├── DataError               6   a manifest or corpus that is incomplete
    │   └── UnreadableClip          one recording of a corpus; mixing draws another one
    ├── MissingExtra            7   an optional dependency that is not installed
    ├── DownloadError           8   a file that cannot be fetched, or is not what was promised
    ├── TrainingError           9   a training run that cannot go on as it is
    ├── ClusterError            10  many machines: none can be reached, or a worker was lost
    ├── ServiceError            11  a server that turns a request away, or gives no answer
    └── Cancelled               130 the caller's progress callback, or Ctrl-C, asked to stop
        └── Terminated          143 another program asked the process to end

Each message says what is wrong, where, and what to do about it, in one line.
The command line prints it and leaves with the exit code.
"""

from collections.abc import Iterable
from typing import ClassVar


class UnbraidError(Exception):
    """Base of all errors raised on purpose; catch it to catch them all."""

    exit_code: ClassVar[int] = 1


class ConfigError(UnbraidError):
    """A setting, command-line flag or config file that makes no sense."""

    exit_code = 2


class PromptError(UnbraidError):
    """A prompt that the model does not know, or an empty list of prompts."""

    exit_code = 3


class AudioError(UnbraidError):
    """A file that cannot be read as audio, or audio that cannot be written."""

    exit_code = 4


class DiskError(AudioError):
    """A disk or store that does not take a file, or give it; another attempt may go well."""


class CheckpointError(UnbraidError):
    """A model or prompt file that is missing, damaged, or not of the expected kind."""

    exit_code = 5


class DataError(UnbraidError):
    """A manifest or corpus that is missing, incomplete or contradictory."""

    exit_code = 6


class UnreadableClip(DataError):
    """One recording of a corpus that cannot be read; whoever mixes may draw another one."""


class MissingExtra(UnbraidError):
    """An optional dependency that is not installed; the message names the command."""

    exit_code = 7


class DownloadError(UnbraidError):
    """A file that cannot be fetched, or that is not what its publisher promised."""

    exit_code = 8


class TrainingError(UnbraidError):
    """A training run that cannot go on: a loss that is no number, a full disk, a lost process."""

    exit_code = 9


class ClusterError(UnbraidError):
    """A cluster that cannot be reached, or a worker that was lost."""

    exit_code = 10


class ServiceError(UnbraidError):
    """A server of ours that turns a request away, gives no answer, or knows no such job."""

    exit_code = 11


class Cancelled(UnbraidError):
    """Raised from a progress callback to stop the work; nothing half-written stays."""

    exit_code = 130


class Terminated(Cancelled):
    """Another program asked the process to end; nothing half-written stays."""

    exit_code = 143


def in_brief(items: Iterable[str], limit: int = 4) -> str:
    """Join the first few items for a message of one line, and say how many follow.

    >>> in_brief(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    listed = list(items)
    text = ", ".join(listed[:limit])
    return f"{text} and {len(listed) - limit} more" if len(listed) > limit else text


def counted(count: int, noun: str) -> str:
    """A number and what is counted, for a message.

    >>> counted(1, "song"), counted(0, "song")
    ('1 song', '0 songs')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
