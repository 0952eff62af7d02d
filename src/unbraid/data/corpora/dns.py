"""The DNS challenge of Interspeech 2020: its synthetic test set, clean speech and noise, 16 kHz.

Layout, as in branch ``interspeech2020/master`` of its repository::

    datasets/test_set/synthetic/no_reverb/noisy/clnsp1_train_69005_1_snr15_tl-21_fileid_158.wav
    datasets/test_set/synthetic/no_reverb/clean/clean_fileid_158.wav
    datasets/test_set/synthetic/with_reverb/...
    datasets/clean/*.wav
    datasets/noise/*.wav

Both test sets hold 150 mixtures; a noisy file and its clean one share the number at the end.
A copy may hold the test set alone, or the training files alone.

Traps: without git-lfs a clone holds small text files that are called ``.wav``. The clean files
of ``with_reverb`` are reverberant: only the noise is to be removed.

Source: Reddy et al., "The INTERSPEECH 2020 Deep Noise Suppression Challenge: Datasets, Subjective
Testing Framework, and Challenge Results", 2020, arXiv 2005.13981.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from unbraid.data.corpora.base import (
    Corpus,
    MixtureFiles,
    ReferenceFiles,
    Track,
    check_equal_lengths,
    files_in,
    recording_of,
    relative,
    require,
)
from unbraid.data.manifest import Recording
from unbraid.errors import DataError

_TITLE = "DNS 2020"
_TEST_SET = "datasets/test_set/synthetic"
_FILE_ID = re.compile(r".*_fileid_(\d+)")
_READER = re.compile(r"reader_\d+")

#: Folder, kind and licence of what mixtures can be made from.
_POOLS = (
    ("datasets/clean", "speech/dns", "Public domain (LibriVox)"),
    (
        "datasets/noise",
        "sfx/ambience_dns",
        "CC BY 4.0 (AudioSet), CC0-1.0 (Freesound) or CC BY-SA 3.0 (DEMAND)",
    ),
)


def mixtures(root: Path, reverb: bool = False, noise: bool = False) -> Iterator[MixtureFiles]:
    """Noisy speech of the synthetic test set, in the order of its numbers.

    Args:
        root: The corpus's folder.
        reverb: Take the set with reverberation.
        noise: Ask for the noise too, which is the noisy file without the clean one; published
            results are for speech alone.

    Raises:
        DataError: If a file is missing, is called otherwise, or a noisy file is not as long as
            its clean one.
    """
    split = "with_reverb" if reverb else "no_reverb"
    folder = f"{_TEST_SET}/{split}"
    noisy = {_number(path): path for path in files_in(root, f"{folder}/noisy", "*.wav", _TITLE)}
    clean = {_number(path): path for path in files_in(root, f"{folder}/clean", "*.wav", _TITLE)}
    if lonely := sorted(noisy.keys() ^ clean.keys()):
        path = (noisy | clean)[lonely[0]]
        other = "clean" if lonely[0] in noisy else "noisy"
        raise DataError(
            f"{path}: has no {other} file with number {lonely[0]} in {root / folder / other}; "
            "fetch the test set again."
        )
    for number in sorted(noisy):
        mixture = Track(relative(noisy[number], root))
        speech = Track(relative(clean[number], root))
        check_equal_lengths(root, [mixture, speech])
        references = [ReferenceFiles("speech", (speech,))]
        if noise:
            references.append(ReferenceFiles("sfx-mix", (mixture,), subtract=(speech,)))
        yield MixtureFiles(
            name=noisy[number].stem, split=split, references=tuple(references), mixture=mixture
        )


def _number(path: Path) -> int:
    match = _FILE_ID.fullmatch(path.stem)
    if match is None:
        raise DataError(f"{path}: does not end with _fileid_ and a number, as {_TITLE} has it.")
    return int(match[1])


def recordings(root: Path) -> Iterator[Recording]:
    """The clean speech and the noise that the challenge makes its training mixtures from.

    The challenge keeps no part of them for validation. Here a tenth of the readers and of the
    noises is of the split ``valid``, always the same ones; all others are of ``train``.

    Raises:
        DataError: If neither is there, or a file cannot be read.
    """
    pools = [pool for pool in _POOLS if (root / pool[0]).is_dir()]
    if not pools:
        require(root, [folder for folder, _, _ in _POOLS], _TITLE)
    for folder, kind, licence in pools:
        for path in files_in(root, folder, "**/*.wav", _TITLE):
            reader = _READER.search(path.stem)
            speaker = reader[0] if reader is not None else ""
            split = "valid" if _is_kept(speaker or path.stem) else "train"
            yield recording_of(root, path, kind, split, licence, speaker=speaker)


def _is_kept(name: str) -> bool:
    """Whether a reader or a noise is kept for validation."""
    return zlib.crc32(name.encode()) % 10 == 9


def _has_test_set(root: Path) -> bool:
    return (root / _TEST_SET).is_dir()


def _has_pools(root: Path) -> bool:
    return any((root / folder).is_dir() for folder, _, _ in _POOLS)


def _all_mixtures(root: Path) -> Iterator[MixtureFiles]:
    """Both test sets; none where there are only clean speech and noise."""
    if _has_test_set(root) or not _has_pools(root):
        yield from mixtures(root, reverb=False, noise=True)
        yield from mixtures(root, reverb=True, noise=True)


def _all_recordings(root: Path) -> Iterator[Recording]:
    """Clean speech and noise; none where there is only the test set."""
    if _has_pools(root) or not _has_test_set(root):
        yield from recordings(root)


CORPUS = Corpus(
    name="dns",
    title=_TITLE,
    contents="150 test mixtures of speech and noise, with and without reverberation; 16 kHz",
    licence=(
        "as received by the challenge: test speech ODbL-1.0 (PTDB-TUG), clean speech public domain "
        "(LibriVox), noise CC BY 4.0 (AudioSet), CC0-1.0 (Freesound), CC BY-SA 3.0 (DEMAND)"
    ),
    url="https://github.com/microsoft/DNS-Challenge/tree/interspeech2020/master",
    how_to_get=(
        "Free, through git-lfs: git clone -b interspeech2020/master "
        "https://github.com/microsoft/DNS-Challenge; for the test set alone clone with "
        'GIT_LFS_SKIP_SMUDGE=1 and then run git lfs pull --include "datasets/test_set/synthetic".'
    ),
    layout=(
        "datasets/test_set/synthetic/no_reverb/noisy/<...>_fileid_<number>.wav\n"
        "datasets/test_set/synthetic/no_reverb/clean/clean_fileid_<number>.wav\n"
        "the same for with_reverb; datasets/clean/*.wav and datasets/noise/*.wav"
    ),
    recordings=_all_recordings,
    mixtures=_all_mixtures,
)
