"""VCTK-DEMAND (also Voice Bank + DEMAND, Valentini): speech in noise, clean and noisy, at 48 kHz.

Layout::

    clean_testset_wav/p232_001.wav              824 files of p232 and p257
    noisy_testset_wav/p232_001.wav
    clean_trainset_28spk_wav/p226_001.wav       11,572 files; needed for train and valid alone
    noisy_trainset_28spk_wav/p226_001.wav

Clean and noisy files have one name and one length; the noise by itself is not published, it is
what remains of the noisy file without the clean one.

Traps: many copies go about at 16 kHz, this one has 48. Of the 28 training speakers, ``p226``
and ``p287`` are by custom kept for validation.

Source: Valentini-Botinhao, "Noisy speech database for training speech enhancement algorithms
and TTS models", 2017, doi:10.7488/ds/2117.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unbraid.data.corpora.base import (
    Archive,
    Corpus,
    MixtureFiles,
    ReferenceFiles,
    Track,
    check_choice,
    check_equal_lengths,
)
from unbraid.data.corpora.parallel_folders import shared_names
from unbraid.data.corpora.vctk import split_of

_TITLE = "VCTK-DEMAND"
_SETS = {"train": "trainset_28spk_wav", "valid": "trainset_28spk_wav", "test": "testset_wav"}
_ADDRESS = "https://datashare.ed.ac.uk/bitstream/handle/10283/2791"


def mixtures(root: Path, split: str = "test") -> Iterator[MixtureFiles]:
    """Speech and noise; the mixture is their sum, which is the noisy file.

    Args:
        root: The corpus's folder.
        split: ``test`` (824 mixtures), ``train`` or ``valid``.

    Raises:
        DataError: If there is no such split, a file is missing, or a noisy file is not as
            long as its clean one.
    """
    check_choice(_TITLE, "split", split, tuple(_SETS))
    clean, noisy = f"clean_{_SETS[split]}", f"noisy_{_SETS[split]}"
    for name in shared_names(root, [clean, noisy], _TITLE):
        if split != "test" and split != split_of(name.partition("_")[0]):
            continue
        speech, mixture = Track(f"{clean}/{name}"), Track(f"{noisy}/{name}")
        check_equal_lengths(root, [speech, mixture])
        yield MixtureFiles(
            name=name.removesuffix(".wav"),
            split=split,
            references=(
                ReferenceFiles("speech", (speech,)),
                ReferenceFiles("sfx-mix", (mixture,), subtract=(speech,)),
            ),
        )


def _all_mixtures(root: Path) -> Iterator[MixtureFiles]:
    """The test set, and what there is of the training set."""
    yield from mixtures(root)
    if (root / f"noisy_{_SETS['train']}").is_dir():
        yield from mixtures(root, "train")
        yield from mixtures(root, "valid")


CORPUS = Corpus(
    name="vctk-demand",
    title=_TITLE,
    contents="824 test sentences of two speakers in noise from everyday places, 48 kHz",
    licence="CC BY 4.0",
    url="https://datashare.ed.ac.uk/handle/10283/2791",
    how_to_get=(
        "Free; the archives are the test set, 154 and 171 MB (exact sizes are not known here). For "
        f"training, unpack {_ADDRESS}/clean_trainset_28spk_wav.zip and "
        "noisy_trainset_28spk_wav.zip beside it."
    ),
    layout="clean_testset_wav/<name>.wav\nnoisy_testset_wav/<name>.wav",
    archives=(
        Archive(f"{_ADDRESS}/clean_testset_wav.zip", None, "md5:34eb1c0ba7ef667e9b966866c542fc16"),
        Archive(f"{_ADDRESS}/noisy_testset_wav.zip", None, "md5:fb1b86caa31e8ba5b506c0c64da9aab5"),
    ),
    mixtures=_all_mixtures,
)
