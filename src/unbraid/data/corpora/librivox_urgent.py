"""LibriVox as the URGENT 2024 challenge prepared it: read books, each at the rate it deserves.

The challenge took the English read speech of the fifth DNS challenge (LibriVox, 48 kHz on
paper), brought each file down to its estimated bandwidth, and left out what holds little speech
or sounds noisy. What is left stands in two lists that its scripts write.

Layout, as these scripts leave it in their own folder::

    dns5_clean_read_speech_resampled_filtered_train.scp         or in data/tmp
    dns5_clean_read_speech_resampled_filtered_validation.scp
    dns5_fullband/Track1_Headset/resampled/clean/read_speech/0/book_…_reader_06709_….wav
    dns5_fullband/Track1_Headset/mnt/dnsv5/clean/read_speech/book_…_reader_06709_….wav

A line of a list is ``name rate path``. The second folder holds the originals; those with the
full bandwidth were not written again, so the lists name them there.

Traps: a copy that was made by the scripts of before 14 June 2024 was resampled wrongly, as the
challenge says. The filters are voice activity (mode 2, threshold 0.2) and DNSMOS BAK (threshold
3.0), with at most 5,000 files in a folder.

Source: https://github.com/urgent-challenge/urgent2024_challenge
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from unbraid.data.corpora.base import Corpus, recording_of, relative, require, require_files
from unbraid.data.manifest import Recording
from unbraid.errors import DataError

_TITLE = "LibriVox of URGENT 2024"
_LICENCE = "Public domain (LibriVox)"
_LISTS = {
    "dns5_clean_read_speech_resampled_filtered_train.scp": "train",
    "dns5_clean_read_speech_resampled_filtered_validation.scp": "valid",
}


def recordings(root: Path) -> Iterator[Recording]:
    """All files that the challenge's lists name.

    Raises:
        DataError: If a list is missing or makes no sense, or names a file that is not below
            the folder or cannot be read.
    """
    folder = "" if any((root / name).is_file() for name in _LISTS) else "data/tmp/"
    require(root, [f"{folder}{name}" for name in _LISTS], _TITLE)
    for name, split in _LISTS.items():
        list_path = root / f"{folder}{name}"
        paths = list(_paths(root, list_path))
        require_files(root, (relative(path, root) for path in paths), name)
        for path in paths:
            yield recording_of(
                root,
                path,
                "speech/librivox_urgent",
                split,
                _LICENCE,
                speaker=_speaker_of(path.stem),
            )


def _paths(root: Path, list_path: Path) -> Iterator[Path]:
    """The files that a list names, which are relative to the challenge's own folder."""
    home = Path(os.path.normpath(root.absolute()))
    for number, line in enumerate(list_path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split(maxsplit=2)
        if len(words) != 3:
            raise DataError(f"{list_path}, line {number}: not a name, a rate and a path.")
        path = Path(os.path.normpath(home / words[2]))
        if not path.is_relative_to(home):
            raise DataError(
                f"{list_path}, line {number}: {words[2]} is not below {root}; move it there, or "
                "run the challenge's scripts with their own output folder."
            )
        yield root / path.relative_to(home)


def _speaker_of(name: str) -> str:
    """Who reads: ``book_00000_chp_0009_reader_06709_0_seg_1`` is read by ``reader_06709``."""
    _, reader, rest = name.partition("reader_")
    return reader + rest.partition("_")[0]


CORPUS = Corpus(
    name="librivox-urgent",
    title=_TITLE,
    contents="Read English books, resampled to their own bandwidth, 8 to 48 kHz",
    licence=_LICENCE,
    url="https://github.com/urgent-challenge/urgent2024_challenge",
    how_to_get=(
        "Clone the repository, put the DNSMOS models into its folder DNSMOS as its script says, "
        "and run utils/prepare_DNS5_librivox_speech.sh; it needs 318 GB."
    ),
    layout=(
        "dns5_clean_read_speech_resampled_filtered_train.scp and …_validation.scp, here or in "
        "data/tmp\ndns5_fullband/Track1_Headset/…"
    ),
    recordings=recordings,
)
