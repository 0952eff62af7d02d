"""MUSDB18-HQ: the songs of MUSDB18, uncompressed.

From Zenodo; the zip unpacks into ``train`` (100 songs) and ``test`` (50)::

    train/<artist> - <title>/{mixture,drums,bass,other,vocals}.wav
    test/<artist> - <title>/...

Traps: a few mixtures are not quite the sum of their stems. The mixture here is the sum.
Fourteen songs of ``train`` are by common usage the validation set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unbraid.data.activity import TUSS, ActivityConfig
from unbraid.data.corpora.base import (
    Archive,
    Corpus,
    MixtureFiles,
    Track,
    check_equal_lengths,
    require,
    require_files,
)
from unbraid.data.corpora.musdb18 import (
    FOLDERS,
    LICENCE,
    STEMS,
    active_stem,
    check_split,
    is_in,
    song_of,
)
from unbraid.data.manifest import Recording
from unbraid.errors import DataError

_TITLE = "MUSDB18-HQ"


def recordings(root: Path, *, activity: ActivityConfig = TUSS) -> Iterator[Recording]:
    """The stems of all songs, with the pieces in which they are heard.

    A stem that is heard in none is left out.

    Raises:
        DataError: If a folder or stem is missing, or cannot be read.
    """
    for split in FOLDERS:
        for song in _songs(root, split):
            for stem in STEMS:
                path = root / FOLDERS[split] / song / f"{stem}.wav"
                found = active_stem(root, path, stem, split, LICENCE, activity, song=song)
                if found is not None:
                    yield found


def mixtures(root: Path, split: str = "test") -> Iterator[MixtureFiles]:
    """The songs of a split: vocals, drums, bass, other; the mixture is their sum.

    Args:
        root: Holds ``train`` and ``test``.
        split: ``train``, ``valid`` or ``test``.

    Raises:
        DataError: If a stem is missing or cannot be read, or lengths differ.
    """
    check_split(split, _TITLE)
    for song in _songs(root, split):
        tracks = {stem: Track(f"{FOLDERS[split]}/{song}/{stem}.wav") for stem in STEMS}
        check_equal_lengths(root, list(tracks.values()))
        yield song_of(song, split, tracks)


def _songs(root: Path, split: str) -> list[str]:
    """Names of the songs of a split, whose stems are all there."""
    folder = FOLDERS[split]
    require(root, [folder], _TITLE)
    in_folder = sorted(path.name for path in (root / folder).iterdir() if path.is_dir())
    if not in_folder:
        raise DataError(f"{root / folder}: holds no folder of a song, as {_TITLE} should.")
    songs = [song for song in in_folder if is_in(song, split)]
    require_files(root, (f"{folder}/{song}/{stem}.wav" for song in songs for stem in STEMS), _TITLE)
    return songs


def _all_mixtures(root: Path) -> Iterator[MixtureFiles]:
    present = [split for split, folder in FOLDERS.items() if (root / folder).is_dir()]
    for split in present or ["test"]:
        yield from mixtures(root, split)


CORPUS = Corpus(
    name="musdb18-hq",
    title=_TITLE,
    contents="150 songs (10 h) at 44.1 kHz with vocals, drums, bass and other, uncompressed",
    licence=LICENCE,
    url="https://zenodo.org/records/3338373",
    how_to_get="Free for education and research.",
    layout="train/<song>/{vocals,drums,bass,other}.wav, test/<song>/...",
    archives=(
        Archive(
            "https://zenodo.org/records/3338373/files/musdb18hq.zip",
            22_656_664_047,
            "md5:12d4f2ecd55245a4688754dd76363103",
        ),
    ),
    recordings=recordings,
    mixtures=_all_mixtures,
)
