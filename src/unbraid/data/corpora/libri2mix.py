"""Libri2Mix: two speakers of LibriSpeech at once, with or without noise of WHAM!.

Layout, as the published scripts write it::

    Libri2Mix/wav8k/min/test/mix_clean/<name>.wav     test and dev 3,000 mixtures each,
    Libri2Mix/wav8k/min/test/mix_both/<name>.wav      train-100 13,900, train-360 50,800
    Libri2Mix/wav8k/min/test/s1/<name>.wav
    Libri2Mix/wav8k/min/test/s2/<name>.wav
    Libri2Mix/wav8k/min/test/noise/<name>.wav
    Libri2Mix/wav8k/min/metadata/mixture_test_mix_clean.csv

The folder ``Libri2Mix`` itself is accepted too. Where the tables in ``metadata`` are there, they
say which mixtures belong to the set.

Traps: the paths in these tables are those of the machine that made the corpus, only its names
are used. All files are stored with 16 bits, so mixtures are the sum of their sources only up to
rounding; the stored ones are given. ``noise`` is missing where only ``mix_clean`` was made.

Source: Cosentino, Pariente, Cornell, Deleforge, Vincent, "LibriMix: An Open-Source Dataset for
Generalizable Speech Separation", 2020, arXiv 2005.11262.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from unbraid.data.corpora.base import Corpus, MixtureFiles, check_choice
from unbraid.data.corpora.parallel_folders import (
    every_variant,
    inside,
    mixtures_in,
    variant_folder,
)
from unbraid.errors import DataError

_TITLE = "Libri2Mix"
_NAME_COLUMN = "mixture_ID"

SPLITS = ("train-100", "train-360", "dev", "test")

_SPEAKERS = (("speech", "s1"), ("speech", "s2"))
_TASKS = {"mix_clean": _SPEAKERS, "mix_both": (*_SPEAKERS, ("sfx-mix", "noise"))}


def mixtures(
    root: Path,
    split: str = "test",
    sample_rate: int = 8000,
    length: str = "min",
    task: str = "mix_clean",
) -> Iterator[MixtureFiles]:
    """Mixtures of two speakers.

    Args:
        root: The corpus's folder.
        split: ``test``, ``dev``, ``train-100`` or ``train-360``.
        sample_rate: 8000 or 16000.
        length: ``min`` for mixtures that end with the shorter utterance, or ``max``.
        task: ``mix_clean`` for both speakers, ``mix_both`` for both speakers and the noise.

    Raises:
        DataError: If there is no such variant or task, or a file is missing or too short.
    """
    check_choice(_TITLE, "task", task, tuple(_TASKS))
    variant = variant_folder(_TITLE, sample_rate, length, split, SPLITS)
    folder = f"{inside(root, 'Libri2Mix')}{variant}"
    table = f"{folder.removesuffix(split)}metadata/mixture_{split}_{task}.csv"
    yield from mixtures_in(
        root,
        folder,
        split,
        _TASKS[task],
        corpus=_TITLE,
        mixture=task,
        listed=(_listed(root / table), table) if (root / table).is_file() else None,
    )


def _listed(table: Path) -> Sequence[str]:
    """The file names that a table of the corpus names, in its order."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or _NAME_COLUMN not in rows[0]:
        raise DataError(
            f"{table}: lacks rows or the column {_NAME_COLUMN!r}; make the corpus again."
        )
    return [f"{row[_NAME_COLUMN]}.wav" for row in rows]


def _all_mixtures(root: Path) -> Iterator[MixtureFiles]:
    """Every variant that is there, without noise where it was made without."""
    prefix = inside(root, "Libri2Mix")

    def variant(sample_rate: int, length: str, split: str) -> Iterator[MixtureFiles]:
        folder = variant_folder(_TITLE, sample_rate, length, split, SPLITS)
        clean = (root / f"{prefix}{folder}" / "mix_clean").is_dir()
        task = "mix_clean" if clean else "mix_both"
        return mixtures(root, split, sample_rate, length, task)

    yield from every_variant(root, prefix, SPLITS, _TITLE, variant)


CORPUS = Corpus(
    name="libri2mix",
    title=_TITLE,
    contents="Mixtures of two speakers of LibriSpeech, with or without noise, 8 and 16 kHz",
    licence="CC BY 4.0 (LibriSpeech); CC BY-NC 4.0 (WHAM! noise); the scripts that mix it are MIT",
    url="https://github.com/JorisCos/LibriMix",
    how_to_get=(
        "Made from LibriSpeech and the noise of WHAM!, both free: clone the repository and run "
        "generate_librimix.sh, which fetches them; cut --freqs, --modes and --types in it down to "
        "what is needed, since all variants take 430 GB."
    ),
    layout=(
        "Libri2Mix/wav8k/min/test/mix_clean/<name>.wav\nLibri2Mix/wav8k/min/test/s1/<name>.wav\n"
        "Libri2Mix/wav8k/min/test/s2/<name>.wav\n"
        "with mix_both and noise beside them; the same for wav16k, max and the other splits"
    ),
    mixtures=_all_mixtures,
)
