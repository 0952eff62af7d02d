"""FMA: 30-second clips of songs from the Free Music Archive; the medium set is listed.

From its authors' server, metadata and sound apart::

    fma_metadata/tracks.csv          three lines of headings, one line per track
    fma_medium/000/000002.mp3        25,000 clips, named after their tracks
    ...

Traps: a handful of clips is much shorter than 30 s, and some hold no sound at all, because
they were cut beyond the end of their songs. Those that cannot be read are listed with the length
and rate that all should have, so that whoever decodes them counts and leaves them out. Every
song has its own licence.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from unbraid.data.corpora.base import Archive, Corpus, recording_of, require, require_files
from unbraid.data.manifest import Recording
from unbraid.errors import DataError

_TITLE = "FMA"
_TRACK_LIST = "fma_metadata/tracks.csv"
_SPLITS = {"training": "train", "validation": "valid", "test": "test"}
#: The sets that the medium one is made of.
_SUBSETS = ("small", "medium")
_CLIP_S = 30.0
_SAMPLE_RATE = 44100


def recordings(root: Path) -> Iterator[Recording]:
    """All clips of the medium set as ``music/mix``, in the splits of the corpus.

    Raises:
        DataError: If the list makes no sense, or a clip that it names is missing.
    """
    require(root, [_TRACK_LIST, "fma_medium"], _TITLE)
    clips = _read_tracks(root / _TRACK_LIST)
    require_files(root, (path for path, _, _ in clips), _TRACK_LIST)
    for path, split, licence in clips:
        try:
            yield recording_of(root, root / path, "music/mix", split, licence)
        except DataError:
            yield Recording(
                path=path,
                kind="music/mix",
                split=split,
                duration_s=_CLIP_S,
                bandwidth_hz=_SAMPLE_RATE / 2,
                speaker="",
                licence=licence,
                sample_rate=_SAMPLE_RATE,
            )


def _read_tracks(path: Path) -> list[tuple[str, str, str]]:
    """Path, split and licence of every clip of the medium set, in the order of the list."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            columns = list(zip(next(rows), next(rows), strict=True))
            next(rows)
            split, subset, licence = (
                columns.index(column)
                for column in (("set", "split"), ("set", "subset"), ("track", "license"))
            )
            clips = [
                (_clip_path(int(row[0])), _SPLITS[row[split]], row[licence])
                for row in rows
                if row[subset] in _SUBSETS
            ]
    except (OSError, csv.Error, ValueError, IndexError, KeyError, StopIteration) as error:
        raise DataError(f"{path}: not the list of {_TITLE} ({error}); unpack it again.") from error
    if not clips:
        raise DataError(f"{path}: names no clip of the medium set; unpack it again.")
    return clips


def _clip_path(track: int) -> str:
    name = f"{track:06d}"
    return f"fma_medium/{name[:3]}/{name}.mp3"


CORPUS = Corpus(
    name="fma",
    title=_TITLE,
    contents="25,000 clips of 30 s of songs of 16 genres, mp3",
    licence="metadata CC BY 4.0; each song as its artist chose, mostly Creative Commons",
    url="https://github.com/mdeff/fma",
    how_to_get=("Free, for research."),
    layout="fma_metadata/tracks.csv, fma_medium/000/000002.mp3 ...",
    archives=(
        Archive(
            "https://os.unil.cloud.switch.ch/fma/fma_metadata.zip",
            358_412_441,
            "sha1:f0df49ffe5f2a6008d7dc83c6915b31835dfe733",
        ),
        Archive(
            "https://os.unil.cloud.switch.ch/fma/fma_medium.zip",
            23_825_005_356,
            "sha1:c67b69ea232021025fca9231fc1c7c1a063ab50b",
        ),
    ),
    recordings=recordings,
)
