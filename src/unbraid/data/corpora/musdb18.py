"""MUSDB18: 150 songs with their vocals, drums, bass and the rest, as compressed stems.

From Zenodo; the zip unpacks into ``train`` (100 songs) and ``test`` (50)::

    train/<artist> - <title>.stem.mp4
    test/<artist> - <title>.stem.mp4

Each file has five stereo tracks at 44.1 kHz: mixture, drums, bass, other, vocals.

Traps: the tracks are AAC, which ends at 16 kHz, and the mixture is encoded by itself, so it
differs a little from the sum of the stems. The mixture here is the sum. Fourteen songs of
``train`` are by common usage the validation set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unbraid.audio import read
from unbraid.data.activity import TUSS, ActivityConfig, active_pieces_s
from unbraid.data.corpora.base import (
    Archive,
    Corpus,
    MixtureFiles,
    ReferenceFiles,
    Track,
    check_choice,
    files_in,
    relative,
)
from unbraid.data.manifest import Recording
from unbraid.errors import AudioError, DataError

_TITLE = "MUSDB18"
_EXTENSION = ".stem.mp4"
#: Track of a file → stem; track 1 is the mixture.
_TRACKS = {"vocals": 5, "drums": 2, "bass": 3, "other": 4}

#: Split → the folder that its songs lie in.
FOLDERS = {"train": "train", "valid": "train", "test": "test"}
#: Stems in the order of the references; they are prompts, too.
STEMS = ("vocals", "drums", "bass", "other")
LICENCE = "for education and research only, not commercial; each song has its own licence"
#: The songs of ``train`` that the package musdb sets aside for validation.
VALIDATION_SONGS = frozenset(
    {
        "Actions - One Minute Smile",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Johnny Lokke - Promises & Lies",
        "Patrick Talbot - A Reason To Leave",
        "Triviul - Angelsaint",
        "Alexander Ross - Goodbye Bolero",
        "Fergessen - Nos Palpitants",
        "Leaf - Summerghost",
        "Skelpolu - Human Mistakes",
        "Young Griffo - Pennies",
        "ANiMAL - Rockshow",
        "James May - On The Line",
        "Meaxic - Take A Step",
        "Traffic Experiment - Sirens",
    }
)


def recordings(root: Path, *, activity: ActivityConfig = TUSS) -> Iterator[Recording]:
    """The stems of all songs, with the pieces in which they are heard.

    A stem that is heard in none is left out.

    Raises:
        DataError: If a folder is missing, or a song cannot be read.
    """
    for split in FOLDERS:
        for path in _songs(root, split):
            song = path.name.removesuffix(_EXTENSION)
            for stem in STEMS:
                found = active_stem(
                    root, path, stem, split, LICENCE, activity, song=song, track=_TRACKS[stem]
                )
                if found is not None:
                    yield found


def mixtures(root: Path, split: str = "test") -> Iterator[MixtureFiles]:
    """The songs of a split: vocals, drums, bass, other; the mixture is their sum.

    Args:
        root: Holds ``train`` and ``test``.
        split: ``train``, ``valid`` or ``test``.

    Raises:
        DataError: If there is no such split or no song.
    """
    check_split(split, _TITLE)
    for path in _songs(root, split):
        song = path.name.removesuffix(_EXTENSION)
        tracks = {stem: Track(relative(path, root), _TRACKS[stem]) for stem in STEMS}
        # Their lengths are seen when they are read: to learn them is to decode the song.
        yield song_of(song, split, tracks)


def check_split(split: str, corpus: str) -> None:
    """Refuse a split that the songs are not divided into.

    Raises:
        DataError: With the splits there are.
    """
    check_choice(corpus, "split", split, FOLDERS)


def is_in(song: str, split: str) -> bool:
    """Whether a song of a split's folder belongs to the split."""
    return split == "test" or (song in VALIDATION_SONGS) == (split == "valid")


def song_of(song: str, split: str, tracks: dict[str, Track]) -> MixtureFiles:
    """The mixture of a song's stems."""
    references = tuple(ReferenceFiles(stem, (track,)) for stem, track in tracks.items())
    return MixtureFiles(name=song, split=split, references=references, group=song)


def active_stem(
    root: Path,
    path: Path,
    stem: str,
    split: str,
    licence: str,
    activity: ActivityConfig,
    *,
    song: str,
    track: int | None = None,
) -> Recording | None:
    """A stem with the pieces in which its first channel is heard; None where it never is.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        waveform = read(path, track)
    except AudioError as error:
        raise DataError(str(error)) from error
    pieces_s = active_pieces_s(waveform.samples[0], waveform.sample_rate, activity)
    if not pieces_s:
        return None
    return Recording(
        path=relative(path, root),
        kind=f"music_stems/{stem}",
        split=split,
        duration_s=waveform.duration_s,
        bandwidth_hz=waveform.sample_rate / 2,
        speaker="",
        licence=licence,
        sample_rate=waveform.sample_rate,
        track=track,
        pieces_s=pieces_s,
        song=song,
    )


def _songs(root: Path, split: str) -> list[Path]:
    paths = files_in(root, FOLDERS[split], f"*{_EXTENSION}", _TITLE)
    return [path for path in paths if is_in(path.name.removesuffix(_EXTENSION), split)]


def _all_mixtures(root: Path) -> Iterator[MixtureFiles]:
    present = [split for split, folder in FOLDERS.items() if (root / folder).is_dir()]
    for split in present or ["test"]:
        yield from mixtures(root, split)


CORPUS = Corpus(
    name="musdb18",
    title=_TITLE,
    contents="150 songs (10 h) at 44.1 kHz with vocals, drums, bass and other, compressed",
    licence=LICENCE,
    url="https://zenodo.org/records/1117372",
    how_to_get="Free for education and research.",
    layout="train/<song>.stem.mp4, test/<song>.stem.mp4",
    archives=(
        Archive(
            "https://zenodo.org/records/1117372/files/musdb18.zip",
            4_684_228_845,
            "md5:af06762477334799bfc5abf237648207",
        ),
    ),
    recordings=recordings,
    mixtures=_all_mixtures,
)
