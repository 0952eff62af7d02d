"""Manifests: one row per recording, in CSV."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from unbraid.errors import DataError

_REQUIRED = ("path", "category", "class", "split", "seconds", "orig_sr", "sample_rate")


@dataclass(frozen=True)
class Recording:
    """One row of a manifest.

    Attributes:
        path: Relative to the manifest's folder.
        kind: ``category/class``, what the patterns of a pool match.
        split: ``train``, ``eval`` or any other name.
        duration_s: Length.
        bandwidth_hz: Half the lowest sampling rate that the recording ever had.
        speaker: Who speaks; empty where nobody does.
        licence: As stated by its source; empty where the manifest has no such column.
    """

    path: str
    kind: str
    split: str
    duration_s: float
    bandwidth_hz: float
    speaker: str
    licence: str


def read_manifest(path: Path) -> tuple[Recording, ...]:
    """Read a manifest.

    Raises:
        DataError: If the file is missing, lacks a column, or holds a row that makes no sense.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{path}: the manifest cannot be read ({error.strerror}).") from error
    if not rows:
        raise DataError(f"{path}: the manifest has no rows.")
    missing = [column for column in _REQUIRED if column not in rows[0]]
    if missing:
        raise DataError(f"{path}: the manifest lacks the columns {', '.join(missing)}.")
    recordings = []
    for number, row in enumerate(rows, start=2):
        try:
            recordings.append(
                Recording(
                    path=row["path"],
                    kind=f"{row['category']}/{row['class']}",
                    split=row["split"],
                    duration_s=float(row["seconds"]),
                    bandwidth_hz=min(float(row["orig_sr"]), float(row["sample_rate"])) / 2,
                    speaker=row.get("speaker") or "",
                    licence=row.get("licence") or "",
                )
            )
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}.") from error
    return tuple(recordings)
