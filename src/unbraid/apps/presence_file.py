"""When each sound is there, as a table that spreadsheets open."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unbraid.errors import AudioError
from unbraid.separation.presence import Presence, recording_score

#: Scores are not known more exactly than this.
_NUM_DECIMALS = 4


def presence_table(found: Sequence[Presence], duration_s: float) -> bytes:
    """The content of ``presence.csv``: one row per window, one column per stem.

    Args:
        found: One record per stem.
        duration_s: Length of the recording, where the last window ends.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["start_s", "end_s", *(presence.name for presence in found)])
    window_s = found[0].window_s
    for number, scores in enumerate(zip(*(each.timeline.tolist() for each in found), strict=True)):
        start_s, end_s = number * window_s, min((number + 1) * window_s, duration_s)
        rounded = [round(score, _NUM_DECIMALS) for score in scores]
        writer.writerow([_seconds(start_s), _seconds(end_s), *rounded])
    return text.getvalue().encode()


def read_presence(path: Path) -> tuple[Presence, ...]:
    """What ``presence_table`` wrote: one record per stem.

    Raises:
        AudioError: If the file is missing or is none of ours.
    """
    try:
        header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
        scores = torch.tensor([[float(cell) for cell in row[2:]] for row in rows])
        timelines = scores.reshape(len(rows), len(header) - 2).T
    except (OSError, ValueError, RuntimeError) as error:
        raise AudioError(
            f"{path}: is no table of which sound is there when; separate again with --overwrite."
        ) from error
    return tuple(
        Presence(name, recording_score(timeline), timeline)
        for name, timeline in zip(header[2:], timelines, strict=True)
    )


def presence_report(presence: Presence, duration_s: float) -> dict[str, Any]:
    """What the sidecar says: the score, and from when to when the sound is there."""
    return {
        "score": round(presence.score, _NUM_DECIMALS),
        "intervals": [
            [_seconds(start_s), _seconds(min(end_s, duration_s))]
            for start_s, end_s in presence.intervals()
        ],
    }


def _seconds(time_s: float) -> float:
    return round(time_s, 6)
