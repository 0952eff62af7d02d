"""Whether only this machine can reach something, and by which names it may be called then."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at ``host``.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_called_loopback(host: str) -> bool:
    """Whether the Host header of a request names this machine as only it can.

    A page of strangers can let a name of its own lead here, and would be taken for ours; a browser
    sends that name along.

    >>> [is_called_loopback(host) for host in ("localhost:80", "[::1]:80", "evil.example:80", "")]
    [True, True, False, False]
    """
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
