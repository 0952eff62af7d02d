"""MoisesDB: 240 songs with every recorded track, sorted into eleven stems.

By hand from its publisher; the zip holds ``moisesdb/moisesdb_v0.1``::

    moisesdb_v0.1/<song id>/data.json
    moisesdb_v0.1/<song id>/<stem>/<track id>.wav
    splits.csv                                  song_id,split (1 to 5); may be missing

``data.json`` names artist, song and genre, and under ``stems`` for each its ``stemName`` and its
``tracks`` with ``id`` and ``extension``.

Traps: no split is published. TUSS takes the five folds of Banquet (query-bandit): 1 to 3 for
training, 4 for validation, 5 for test; copy its ``reproducibility/splits.csv`` into the folder.
Without it all songs are of the split ``all``. Stems other than vocals, drums and bass count as
other, percussion too. Tracks of one song differ in length, and some are mono: who adds them
ends with the shortest and gives both channels to a mono track.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unbraid.data.activity import TUSS, ActivityConfig
from unbraid.data.corpora.base import (
    Corpus,
    MixtureFiles,
    ReferenceFiles,
    Track,
    check_choice,
    check_equal_lengths,
    require,
    require_files,
)
from unbraid.data.corpora.musdb18 import STEMS, active_stem
from unbraid.data.manifest import Recording
from unbraid.errors import DataError

_TITLE = "MoisesDB"
_LICENCE = "CC BY-NC-SA 4.0"
_HOMES = ("moisesdb/moisesdb_v0.1", "moisesdb_v0.1")
_SPLIT_LIST = "splits.csv"
_SPLITS = {"1": "train", "2": "train", "3": "train", "4": "valid", "5": "test"}
#: The split of all songs where the list of splits is missing.
_UNDIVIDED = "all"


@dataclass(frozen=True)
class _Song:
    """A song; ``paths`` are those of its tracks, stem by stem, relative to the corpus's folder."""

    identity: str
    title: str
    split: str
    paths: dict[str, tuple[str, ...]]


def recordings(root: Path, *, activity: ActivityConfig = TUSS) -> Iterator[Recording]:
    """Each track of all songs by itself, with the pieces in which it is heard.

    A track that is heard in none is left out.

    Raises:
        DataError: If a list makes no sense, or a track is missing or cannot be read.
    """
    for song in _songs(root):
        for stem, paths in song.paths.items():
            for path in paths:
                found = active_stem(
                    root, root / path, stem, song.split, _LICENCE, activity, song=song.identity
                )
                if found is not None:
                    yield found


def mixtures(root: Path, split: str = "test") -> Iterator[MixtureFiles]:
    """The songs of a split: vocals, drums, bass, other; the mixture is their sum.

    A song without a stem has a reference without files for it.

    Args:
        root: Holds ``moisesdb_v0.1`` and ``splits.csv``.
        split: ``train``, ``valid``, ``test``; ``all`` without ``splits.csv``.

    Raises:
        DataError: If there is no such split, or a track is missing or cannot be read, or rates
            differ.
    """
    choices = [_UNDIVIDED]
    if (root / _SPLIT_LIST).is_file():
        choices = sorted({*_SPLITS.values()})
    elif split in _SPLITS.values():
        raise DataError(
            f"{root / _SPLIT_LIST}: missing, so {_TITLE} has no split {split!r}; copy "
            "reproducibility/splits.csv of github.com/kwatcharasupat/query-bandit there."
        )
    check_choice(_TITLE, "split", split, choices)
    yield from (_mixture(root, song) for song in _songs(root) if song.split == split)


def _mixture(root: Path, song: _Song) -> MixtureFiles:
    tracks = {stem: tuple(Track(path) for path in song.paths[stem]) for stem in STEMS}
    # Only the rates must agree: readers of this corpus end with the shortest track.
    check_equal_lengths(
        root, [track for added in tracks.values() for track in added], tolerance=sys.maxsize
    )
    references = tuple(ReferenceFiles(stem, added) for stem, added in tracks.items())
    return MixtureFiles(
        name=song.identity,
        split=song.split,
        references=references,
        group=song.title,
        is_ragged=True,
    )


def _songs(root: Path) -> list[_Song]:
    """All songs, whose tracks are all there."""
    home = _home(root)
    require(root, [str(home)], _TITLE)
    identities = sorted(path.parent.name for path in (root / home).glob("*/data.json"))
    if not identities:
        raise DataError(f"{root / home}: holds no <song id>/data.json, as {_TITLE} should.")
    splits = _read_splits(root / _SPLIT_LIST)
    songs = [_read_song(root, home / identity, splits) for identity in identities]
    for song in songs:
        paths = (path for added in song.paths.values() for path in added)
        require_files(root, paths, f"{song.identity}/data.json")
    return songs


def _home(root: Path) -> PurePosixPath:
    return PurePosixPath(next((name for name in _HOMES if (root / name).is_dir()), _HOMES[-1]))


def _read_song(root: Path, folder: PurePosixPath, splits: dict[str, str]) -> _Song:
    path = root / folder / "data.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        paths: dict[str, list[str]] = {stem: [] for stem in STEMS}
        for stem in data["stems"]:
            name = stem["stemName"]
            for track in stem["tracks"]:
                file_name = f"{track['id']}.{track['extension']}"
                paths[name if name in STEMS else "other"].append(f"{folder}/{name}/{file_name}")
        title = f"{data['artist']} - {data['song']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: does not describe a song ({error}); unpack it again.") from error
    if not any(paths.values()):
        raise DataError(f"{path}: names no track; unpack it again.")
    if splits and folder.name not in splits:
        raise DataError(f"{root / _SPLIT_LIST}: does not name the song {folder.name}; add it.")
    return _Song(
        identity=folder.name,
        title=title,
        split=splits.get(folder.name, _UNDIVIDED),
        paths={stem: tuple(added) for stem, added in paths.items()},
    )


def _read_splits(path: Path) -> dict[str, str]:
    """Song → split; nothing where there is no list."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {row["song_id"]: _SPLITS[row["split"]] for row in csv.DictReader(file)}
    except (OSError, csv.Error, UnicodeDecodeError, KeyError) as error:
        raise DataError(
            f"{path}: not a list of song_id,split with splits from 1 to 5 ({error}); copy it again."
        ) from error


def _all_mixtures(root: Path) -> Iterator[MixtureFiles]:
    yield from (_mixture(root, song) for song in _songs(root))


CORPUS = Corpus(
    name="moisesdb",
    title=_TITLE,
    contents="240 songs (14 h) at 44.1 kHz with all their tracks, sorted into eleven stems",
    licence=_LICENCE,
    url="https://music.ai/research/",
    how_to_get=(
        "By hand: ask for moisesdb.zip there (MD5 13cf74eda129c38b914a51ea79fb1778) and unpack it. "
        "For splits copy reproducibility/splits.csv of github.com/kwatcharasupat/query-bandit "
        "beside moisesdb_v0.1."
    ),
    layout="moisesdb_v0.1/<song id>/data.json, .../<stem>/<track id>.wav; splits.csv",
    recordings=recordings,
    mixtures=_all_mixtures,
)
