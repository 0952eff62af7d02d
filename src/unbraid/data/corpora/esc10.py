"""ESC-10: the ten kinds of sound of ESC-50 that are told apart most easily.

It is part of ESC-50 and has the same layout; the column ``esc10`` of its list marks the clips.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unbraid.data.corpora.base import Corpus
from unbraid.data.corpora.esc50 import ARCHIVE, ESC10_LICENCE, LAYOUT, listed
from unbraid.data.manifest import Recording

_TITLE = "ESC-10"


def recordings(root: Path) -> Iterator[Recording]:
    """The clips of ESC-10 as ``sfx/<class>``; the splits are ``fold1`` to ``fold5``.

    Args:
        root: The folder of ESC-50.

    Raises:
        DataError: If the list makes no sense, or a clip is missing or cannot be read.
    """
    return listed(root, _TITLE, only_esc10=True)


CORPUS = Corpus(
    name="esc10",
    title=_TITLE,
    contents="400 clips of 5 s of 10 kinds of sound at 44.1 kHz, in five folds; part of ESC-50",
    licence=ESC10_LICENCE,
    url="https://github.com/karolpiczak/ESC-50",
    how_to_get="Free; it comes with ESC-50, about 600 MB.",
    layout=LAYOUT,
    archives=(ARCHIVE,),
    recordings=recordings,
)
