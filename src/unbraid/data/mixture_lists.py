"""Lists of ready-made mixtures: one line of JSON per mixture.

A line has ``name``, ``split``, ``group``, ``mixture`` (a track, or ``null`` for the sum of the
references), ``is_ragged`` where it is true, and ``references``, each with its ``prompt``, the
tracks to ``add`` and those to ``subtract``. A track has a ``path``, relative to the list's folder
unless it is absolute, and the number of the ``track`` in a file that has several.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unbraid.data.corpora.base import MixtureFiles, ReferenceFiles, Track
from unbraid.errors import DataError


def format_mixtures(mixtures: Iterable[MixtureFiles], prefix: str = "") -> str:
    """The text of a list that ``read_mixtures`` reads as these mixtures.

    Args:
        mixtures: What to list.
        prefix: Put before every path.
    """

    def plain(track: Track) -> dict[str, Any]:
        return {"path": prefix + track.path, "track": track.track}

    return "".join(
        json.dumps(
            {
                "name": entry.name,
                "split": entry.split,
                "group": entry.group,
                "mixture": entry.mixture and plain(entry.mixture),
                "references": [
                    {
                        "prompt": source.prompt,
                        "add": [plain(track) for track in source.add],
                        "subtract": [plain(track) for track in source.subtract],
                    }
                    for source in entry.references
                ],
            }
            | ({"is_ragged": True} if entry.is_ragged else {}),
            ensure_ascii=False,
        )
        + "\n"
        for entry in mixtures
    )


def read_mixtures(path: Path) -> tuple[MixtureFiles, ...]:
    """Read a list of mixtures.

    Raises:
        DataError: If the file cannot be read, is empty, or holds a line that makes no sense.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: the list of mixtures cannot be read ({error}); `unbraid data prepare` "
            "makes it."
        ) from error
    mixtures = []
    for number, line in enumerate(lines, start=1):
        try:
            mixtures.append(_mixture(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}, line {number}: does not describe a mixture ({error!r}); make the list "
                "again with `unbraid data prepare`."
            ) from error
    if not mixtures:
        raise DataError(f"{path}: the list has no mixtures.")
    return tuple(mixtures)


def _mixture(entry: dict[str, Any]) -> MixtureFiles:
    return MixtureFiles(
        name=entry["name"],
        split=entry["split"],
        references=tuple(
            ReferenceFiles(
                source["prompt"],
                tuple(_track(track) for track in source["add"]),
                tuple(_track(track) for track in source["subtract"]),
            )
            for source in entry["references"]
        ),
        mixture=None if entry["mixture"] is None else _track(entry["mixture"]),
        group=entry.get("group", ""),
        is_ragged=entry.get("is_ragged", False),
    )


def _track(entry: dict[str, Any]) -> Track:
    return Track(entry["path"], entry["track"])
