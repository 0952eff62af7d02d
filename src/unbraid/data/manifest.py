"""Manifests: one row per recording, in CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
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
        DataError: If the file is missing, is no CSV in UTF-8, lacks a column, or holds a row that
            makes no sense; the message names its line, and where there is one, the column.
    """
    rows = _rows(path)
    if not rows:
        raise DataError(f"{path}: the manifest has no rows.")
    missing = [column for column in _REQUIRED if column not in rows[0][1]]
    if missing:
        raise DataError(f"{path}: the manifest lacks the columns {', '.join(missing)}.")
    recordings = []
    for line, row in rows:
        try:
            recordings.append(_recording(row))
        except ValueError as error:
            raise DataError(f"{path}, line {line}: {error}.") from error
    return tuple(recordings)


def _rows(path: Path) -> list[tuple[int, dict[str, str | None]]]:
    """The rows of a CSV file with the lines on which they end."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: the manifest cannot be read ({error.strerror}); `unbraid data prepare` makes "
            "those of published corpora."
        ) from error
    try:
        # Spreadsheets put a mark in front that says that it is UTF-8.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: no UTF-8 text; save the manifest as CSV in UTF-8."
        ) from error
    if (place := text.find("\0")) >= 0:
        line = text.count("\n", 0, place) + 1
        raise DataError(
            f"{path}, line {line}: holds a zero byte, so the file is damaged or no CSV."
        )
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.reader.line_num}: no CSV ({error}).") from error


def _recording(row: Mapping[str, str | None]) -> Recording:
    """A row as a recording; a ``ValueError`` names the column that makes no sense."""
    for column in _REQUIRED:
        if row[column] is None:
            raise ValueError(
                f"the row ends before the column {column}, as where a file was cut off"
            )
    sample_rate = _number(row, "sample_rate")
    return Recording(
        path=row["path"] or "",
        kind=f"{row['category']}/{row['class']}",
        split=row["split"] or "",
        duration_s=_number(row, "seconds"),
        bandwidth_hz=min(_number(row, "orig_sr"), sample_rate) / 2,
        speaker=row.get("speaker") or "",
        licence=row.get("licence") or "",
        sample_rate=int(sample_rate),
        track=int(_number(row, "track")) if row.get("track") else None,
        pieces_s=tuple(_finite(start, "pieces_s") for start in (row.get("pieces_s") or "").split()),
        song=row.get("song") or "",
    )


def _number(row: Mapping[str, str | None], column: str) -> float:
    return _finite(row[column] or "", column)


def _finite(text: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{column} must be a number of 0 or more, not {text!r}")
    return value


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
