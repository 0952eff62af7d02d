"""Why a request is turned away, with the HTTP status that says so."""

from __future__ import annotations

import re
from typing import get_args

from unbraid.audio.formats import Container, Depth
from unbraid.errors import (
    AudioError,
    ConfigError,
    DiskError,
    MissingExtra,
    PromptError,
    UnbraidError,
)

#: Flag of the command line → field of the form; results lie where the server keeps its jobs.
_FIELDS = {
    **{f"--{name}": f"format={name}" for name in get_args(Container)},
    **{f"--{name}": f"depth={name}" for name in get_args(Depth)},
    "--bitrate": "bitrate_kbps",
    "--peak": "peak_dbfs",
    "--track": "track",
    "--residual": "residual",
    "--out": "--spool",
}
_FLAG = re.compile(r"--[a-z][a-z0-9-]*")


class Refusal(Exception):
    """A request that is turned away.

    Attributes:
        status: Of the answer.
        kind: A word for programs.
        detail: What is wrong and what to do about it, for people.
        retry_after_s: When it makes sense to ask again; None if it does not.
    """

    def __init__(
        self, status: int, kind: str, detail: str, retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.retry_after_s = retry_after_s


def in_fields(text: str) -> str:
    """A message of the command line in the words of the form.

    >>> in_fields("--int24 and --mp3 exclude each other")
    'depth=int24 and format=mp3 exclude each other'
    """
    return _FLAG.sub(lambda found: _FIELDS.get(found[0], found[0]), text)


def refusal_of(error: UnbraidError) -> Refusal:
    """The answer to a request that the command line would have ended with this error."""
    if isinstance(error, DiskError):
        return Refusal(507, type(error).__name__, in_fields(str(error)))
    is_about_request = isinstance(error, PromptError | ConfigError | AudioError | MissingExtra)
    return Refusal(422 if is_about_request else 500, type(error).__name__, in_fields(str(error)))
