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
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    is_ours = isinstance(record, dict) and "unbraid" in record
    return record if is_ours and isinstance(record.get("source"), dict) else {}


def sidecar_content(record: Mapping[str, Any]) -> bytes:
    """The bytes of a sidecar with this record."""
    return (json.dumps(record, indent=2) + "\n").encode()
