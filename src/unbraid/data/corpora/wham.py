"""WHAM!: WSJ0-2mix with noise of cafés, bars and restaurants, and that noise by itself.

Layout, as the published scripts write the mixtures, and the noise as it is published::

    wav16k/max/tt/s1/<name>.wav                 tr 20,000, cv 5,000, tt 3,000 mixtures
    wav16k/max/tt/s2/<name>.wav
    wav16k/max/tt/noise/<name>.wav
    wav16k/max/tt/mix_both/<name>.wav           and mix_clean, mix_single
    high_res_wham/high_res_metadata.csv         48 kHz, two channels, unsegmented
    high_res_wham/audio/<recording>.wav

Either half can be used without the other: the mixtures need WSJ0, the noise is free.

Traps: in ``max`` mixtures the noise begins before the speech and ends after it. Levels differ
from those of WSJ0-2mix. ``wham_noise`` (16 kHz, cut to the mixtures) is another publication of
the same recordings than ``high_res_wham``, and only the splits of the latter's table say which
of its recordings the test mixtures use.

Source: Wichern et al., "WHAM!: Extending Speech Separation to Noisy Environments",
Interspeech 2019.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from unbraid.data.activity import all_pieces_s
from unbraid.data.corpora.base import (
    Archive,
    Corpus,
    MixtureFiles,
    check_choice,
    recording_of,
    require,
    require_files,
)
from unbraid.data.corpora.parallel_folders import (
    every_variant,
    mixtures_in,
    variant_folder,
)
from unbraid.data.manifest import Recording
from unbraid.errors import DataError

_TITLE = "WHAM!"
_LICENCE = "CC BY-NC 4.0"
_NOISE = "high_res_wham"
_NOISE_TABLE = f"{_NOISE}/high_res_metadata.csv"
_NAME_COLUMN, _SPLIT_COLUMN = "Filename", "WHAM! Split"
_BUCKET = "https://my-bucket-a8b4b49c25c811ee9a7e8bba05fa24c7.s3.amazonaws.com"

SPLITS = ("tr", "cv", "tt")

_SPEAKERS = (("speech", "s1"), ("speech", "s2"))
_TASKS = {"sep_clean": _SPEAKERS, "sep_noisy": (*_SPEAKERS, ("sfx-mix", "noise"))}


def mixtures(
    root: Path,
    split: str = "tt",
    sample_rate: int = 16000,
    length: str = "max",
    task: str = "sep_noisy",
) -> Iterator[MixtureFiles]:
    """Two speakers, with or without noise; the mixture is the sum of the sources.

    Args:
        root: The corpus's folder.
        split: ``tr``, ``cv`` or ``tt``.
        sample_rate: 8000 or 16000.
        length: ``min`` or ``max``.
        task: ``sep_noisy`` for both speakers and the noise, ``sep_clean`` for both speakers.

    Raises:
        DataError: If there is no such variant or task, or a file is missing or too short.
    """
    check_choice(_TITLE, "task", task, tuple(_TASKS))
    folder = variant_folder(_TITLE, sample_rate, length, split, SPLITS)
    yield from mixtures_in(root, folder, split, _TASKS[task], corpus=_TITLE)


def recordings(root: Path) -> Iterator[Recording]:
    """The noise at 48 kHz, with the starts of its overlapping pieces.

    Raises:
        DataError: If the noise or its table is missing, the table lacks a column, or it names
            a file that is not there or cannot be read.
    """
    require(root, [_NOISE_TABLE, f"{_NOISE}/audio"], _TITLE)
    with (root / _NOISE_TABLE).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {_NAME_COLUMN, _SPLIT_COLUMN} <= rows[0].keys():
        raise DataError(
            f"{root / _NOISE_TABLE}: lacks rows or the columns {_NAME_COLUMN!r} and "
            f"{_SPLIT_COLUMN!r}; unpack it again."
        )
    splits = {
        f"{_NOISE}/audio/{PurePosixPath(row[_NAME_COLUMN]).name}": row[_SPLIT_COLUMN].lower()
        for row in rows
    }
    require_files(root, splits, _NOISE_TABLE)
    for path, split in sorted(splits.items()):
        recording = recording_of(root, root / path, "sfx/ambience_wham", split, _LICENCE)
        yield replace(recording, pieces_s=all_pieces_s(recording.duration_s))


def _has_mixtures(root: Path) -> bool:
    return (root / "wav8k").is_dir() or (root / "wav16k").is_dir()


def _all_mixtures(root: Path) -> Iterator[MixtureFiles]:
    """Every variant that is there; none where there is only the noise."""
    if _has_mixtures(root) or not (root / _NOISE).is_dir():
        yield from every_variant(
            root,
            "",
            SPLITS,
            _TITLE,
            lambda sample_rate, length, split: mixtures(root, split, sample_rate, length),
        )


def _all_recordings(root: Path) -> Iterator[Recording]:
    """The noise; none where there are only the mixtures."""
    if (root / _NOISE).is_dir() or not _has_mixtures(root):
        yield from recordings(root)


CORPUS = Corpus(
    name="wham",
    title=_TITLE,
    contents="Mixtures of two speakers of WSJ0 and noise, 8 and 16 kHz; the noise at 48 kHz",
    licence=f"{_LICENCE} (noise); LDC User Agreement (WSJ0)",
    url="http://wham.whisper.ai/",
    how_to_get=(
        "The archive is the noise alone, about 76 GB; its exact size and digest are not known "
        "here. The mixtures are made from WSJ0, which the LDC sells (LDC93S6A): convert it to "
        f"wav, fetch {_BUCKET}/wham_noise.zip and {_BUCKET}/wham_scripts.tar.gz, and run "
        "create_wham_from_scratch.py of these."
    ),
    layout=(
        "wav16k/max/tt/s1/<name>.wav\nwav16k/max/tt/s2/<name>.wav\nwav16k/max/tt/noise/<name>.wav\n"
        "the same for wav8k, min, tr and cv\n"
        "high_res_wham/high_res_metadata.csv\nhigh_res_wham/audio/<recording>.wav"
    ),
    archives=(Archive(f"{_BUCKET}/high_res_wham.zip", None),),
    recordings=_all_recordings,
    mixtures=_all_mixtures,
)
