"""The JSON file beside the stems: it says how they were made, and that they are whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: The name that the sidecar has where stems have theirs: ``separation.json``.
SIDECAR = "separation"


def read_sidecar(path: Path) -> dict[str, Any]:
    """What a former run wrote; nothing if it is missing, damaged, or somebody else's file."""
    try:
        return parse_sidecar(path.read_bytes())
    except OSError:
        return {}


def parse_sidecar(content: bytes) -> dict[str, Any]:
    """What stands in a sidecar; nothing if it is damaged, or somebody else's file."""
    try:
        record = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return {}
    is_ours = isinstance(record, dict) and "unbraid" in record
    return record if is_ours and isinstance(record.get("source"), dict) else {}


def sidecar_content(record: Mapping[str, Any]) -> bytes:
    """The bytes of a sidecar with this record."""
    return (json.dumps(record, indent=2) + "\n").encode()


def marker_content(record: Mapping[str, Any]) -> bytes:
    """The bytes of a sidecar that stands while the results of this record move to their places.

    It has no stems, so the recording counts as unfinished, and what lies there as its own.
    """
    return sidecar_content({key: record[key] for key in ("unbraid", "source")})
