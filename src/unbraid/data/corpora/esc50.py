"""ESC-50: 2,000 clips of 5 s of fifty kinds of sound, in five folds.

The zip of its repository unpacks into ``ESC-50-master``; a clone is called ``ESC-50``::

    ESC-50-master/meta/esc50.csv       filename,fold,target,category,esc10,src_file,take
    ESC-50-master/audio/1-100032-A-0.wav

Traps: clips shorter than 5 s were filled up with digital silence. Fragments of one original
recording are always in the same fold, so folds must be kept together.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from unbraid.data.corpora.base import Archive, Corpus, recording_of, require, require_files
from unbraid.data.manifest import Recording
from unbraid.errors import DataError

_TITLE = "ESC-50"
_LICENCE = "CC BY-NC 3.0"
_HOMES = ("ESC-50-master", "ESC-50")
_LIST = "meta/esc50.csv"

#: The licence of the clips that are also in ESC-10.
ESC10_LICENCE = "CC BY"
ARCHIVE = Archive("https://github.com/karolpiczak/ESC-50/archive/master.zip", None)
LAYOUT = "ESC-50-master/meta/esc50.csv, ESC-50-master/audio/*.wav"


def recordings(root: Path) -> Iterator[Recording]:
    """All clips as ``sfx/<class>``; the splits are ``fold1`` to ``fold5``.

    Args:
        root: Holds ``ESC-50-master`` or ``ESC-50``, or is it.

    Raises:
        DataError: If the list makes no sense, or a clip is missing or cannot be read.
    """
    return listed(root, _TITLE, only_esc10=False)


def listed(root: Path, corpus: str, *, only_esc10: bool) -> Iterator[Recording]:
    """The clips that the list of ESC-50 names, or only those of ESC-10.

    Raises:
        DataError: As ``recordings``.
    """
    home = Path(next((name for name in _HOMES if (root / name).is_dir()), "."))
    require(root, [str(home / _LIST), str(home / "audio")], corpus)
    rows = [row for row in _read_list(root / home / _LIST) if row[3] or not only_esc10]
    require_files(root, (str(home / "audio" / name) for name, *_ in rows), _LIST)
    for name, fold, category, is_esc10 in rows:
        path = root / home / "audio" / name
        licence = ESC10_LICENCE if is_esc10 else _LICENCE
        yield recording_of(root, path, f"sfx/{category}", f"fold{fold}", licence)


def _read_list(path: Path) -> list[tuple[str, int, str, bool]]:
    """File name, fold, class of every clip, and whether it is in ESC-10."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                (row["filename"], int(row["fold"]), row["category"], row["esc10"] == "True")
                for row in csv.DictReader(file)
            ]
    except (OSError, csv.Error, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not the list of {_TITLE} ({error}); fetch it again.") from error


CORPUS = Corpus(
    name="esc50",
    title=_TITLE,
    contents="2,000 clips of 5 s of 50 kinds of sound at 44.1 kHz, in five folds",
    licence=f"{_LICENCE}; the clips of ESC-10 {ESC10_LICENCE}",
    url="https://github.com/karolpiczak/ESC-50",
    how_to_get="Free, about 600 MB. The repository publishes neither size nor digest of its zip.",
    layout=LAYOUT,
    archives=(ARCHIVE,),
    recordings=recordings,
)
