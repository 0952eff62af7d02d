"""Whether the network may be used."""

from __future__ import annotations

import os

#: Set to 1, on, yes or true, each of them forbids the network; the second is the hub's own.
_SWITCHES = ("UNBRAID_OFFLINE", "HF_HUB_OFFLINE")
_ON = frozenset({"1", "on", "yes", "true"})


def offline_switch() -> str:
    """The environment variable that forbids the network; empty if none does."""
    return next((name for name in _SWITCHES if os.environ.get(name, "").strip().lower() in _ON), "")
