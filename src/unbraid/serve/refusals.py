"""Why a request is turned away, with the HTTP status that says so."""

from __future__ import annotations

from unbraid.errors import AudioError, ConfigError, MissingExtra, PromptError, UnbraidError


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


def refusal_of(error: UnbraidError) -> Refusal:
    """The answer to a request that the command line would have ended with this error."""
    is_about_request = isinstance(error, PromptError | ConfigError | AudioError | MissingExtra)
    return Refusal(422 if is_about_request else 500, type(error).__name__, str(error))
