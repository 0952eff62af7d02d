"""Who may ask: anybody on this machine, or whoever has the token."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.requests import Request

from unbraid.apps.loopback import is_called_loopback, is_loopback
from unbraid.errors import ConfigError
from unbraid.serve.refusals import Refusal

_SHORTEST_TOKEN = 16


def check_token(host: str, token: str | None) -> None:
    """Refuse to start where strangers could come in.

    Raises:
        ConfigError: If others can reach ``host`` and there is no token, or a token is too short or
            has characters that a header cannot carry.
    """
    if token is None:
        if not is_loopback(host):
            raise ConfigError(
                f"--host {host}: others can reach this address, so a token is needed; put one "
                "into a file and name it with --token-file, or into UNBRAID_TOKEN. "
                "`openssl rand -hex 32` makes one."
            )
    elif (
        len(token) < _SHORTEST_TOKEN
        or not token.isascii()
        or not token.isprintable()
        or (" " in token)
    ):
        raise ConfigError(
            f"the token must have at least {_SHORTEST_TOKEN} characters, plain ASCII without "
            "blanks; `openssl rand -hex 32` makes a good one."
        )


def check_access(request: Request, token: str | None) -> None:
    """Turn away who may not ask.

    Without a token, the name by which the server was called must be one of this machine and the
    page that asks, if one does, must come from here: else any page that a browser shows could send
    jobs, or fetch results by letting a name of its own lead here.

    Raises:
        Refusal: 401 without the token; 403 from a foreign page, or by a foreign name.
    """
    if token is not None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Compared as bytes, in the same time wherever they differ.
        is_right = hmac.compare_digest(given.strip().encode(), token.encode())
        if scheme.lower() != "bearer" or not is_right:
            raise Refusal(
                401, "Unauthorized", "send the token, as in `Authorization: Bearer TOKEN`."
            )
        return
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    is_foreign = origin is not None and urlsplit(origin).netloc != host
    if is_foreign or not is_called_loopback(host):
        raise Refusal(
            403,
            "Forbidden",
            "without a token this server answers this machine only; call it by the address that it "
            "printed when it started.",
        )
