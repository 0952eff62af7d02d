"""Manifests: one row per recording, in CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unbraid.errors import DataError

_REQUIRED = ("path", "category", "class", "split", "seconds", "orig_sr", "sample_rate")
_OPTIONAL = ("speaker", "licence", "track", "pieces_s", "song")


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
        sample_rate: Of the file.
        track: Which audio track of a file that has several, from 1; None for its only one.
        pieces_s: Starts of the pieces of ``PIECE_S`` seconds that are worth mixing, as source-
            activity detection found them; none where nothing was left out.
        song: Recordings of the same song run in time with each other; empty for none.
    """

    path: str
    kind: str
    split: str
    duration_s: float
    bandwidth_hz: float
    speaker: str
    licence: str
    sample_rate: int
    track: int | None = None
    pieces_s: tuple[float, ...] = ()
    song: str = ""

    @property
    def key(self) -> str:
        """What tells it from all others of its manifest."""
        return self.path if self.track is None else f"{self.path}#{self.track}"


#: Length of the pieces that long recordings are cut into, in seconds, and from one to the next.
PIECE_S, PIECE_HOP_S = 8.0, 4.0


def read_manifest(path: Path) -> tuple[Recording, ...]:
    """Read a manifest.

    Raises:
        DataError: If the file is missing, lacks a column, or holds a row that makes no sense.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(
            f"{path}: the manifest cannot be read ({error.strerror}); `unbraid data prepare` makes "
            "those of published corpora."
        ) from error
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
                    sample_rate=int(float(row["sample_rate"])),
                    track=int(row["track"]) if row.get("track") else None,
                    pieces_s=tuple(map(float, (row.get("pieces_s") or "").split())),
                    song=row.get("song") or "",
                )
            )
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}.") from error
    return tuple(recordings)


def format_manifest(recordings: Iterable[Recording]) -> str:
    """The text of a manifest that ``read_manifest`` reads as these recordings."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*_REQUIRED, *_OPTIONAL))
    for recording in recordings:
        category, _, name = recording.kind.partition("/")
        writer.writerow(
            (
                recording.path,
                category,
                name,
                recording.split,
                f"{recording.duration_s:.6f}",
                round(2 * recording.bandwidth_hz),
                recording.sample_rate,
                recording.speaker,
                recording.licence,
                "" if recording.track is None else recording.track,
                " ".join(f"{start_s:g}" for start_s in recording.pieces_s),
                recording.song,
            )
        )
    return text.getvalue()
