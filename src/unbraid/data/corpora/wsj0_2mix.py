"""WSJ0-2mix: two speakers of WSJ0 at once.

Layout, as the published scripts write it::

    2speakers/wav8k/min/tt/mix/<name>.wav       tr 20,000, cv 5,000, tt 3,000 mixtures
    2speakers/wav8k/min/tt/s1/<name>.wav
    2speakers/wav8k/min/tt/s2/<name>.wav

The folder ``2speakers`` itself is accepted too. A name holds both utterances and their levels,
for example ``40na010x_1.9857_01xo031a_-1.9857``.

Traps: results are by custom on ``wav8k/min/tt``. Mixtures are stored with 16 bits, so they are
the sum of the sources only up to rounding; the stored ones are given. ``cv`` has the speakers
of ``tr``.

Source: Hershey, Chen, Le Roux, Watanabe, "Deep clustering: Discriminative embeddings for
segmentation and separation", ICASSP 2016.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unbraid.data.corpora.base import Corpus, MixtureFiles
from unbraid.data.corpora.parallel_folders import (
    every_variant,
    inside,
    mixtures_in,
    variant_folder,
)

_TITLE = "WSJ0-2mix"
SPLITS = ("tr", "cv", "tt")


def mixtures(
    root: Path, split: str = "tt", sample_rate: int = 8000, length: str = "min"
) -> Iterator[MixtureFiles]:
    """Mixtures of two speakers.

    Args:
        root: The corpus's folder.
        split: ``tr``, ``cv`` or ``tt``.
        sample_rate: 8000 or 16000.
        length: ``min`` for mixtures that end with the shorter utterance, or ``max``.

    Raises:
        DataError: If there is no such variant, or a file is missing or too short.
    """
    folder = variant_folder(_TITLE, sample_rate, length, split, SPLITS)
    yield from mixtures_in(
        root,
        f"{inside(root, '2speakers')}{folder}",
        split,
        [("speech", "s1"), ("speech", "s2")],
        corpus=_TITLE,
        mixture="mix",
    )


def _all_mixtures(root: Path) -> Iterator[MixtureFiles]:
    """Every variant that is there."""
    yield from every_variant(
        root,
        inside(root, "2speakers"),
        SPLITS,
        _TITLE,
        lambda sample_rate, length, split: mixtures(root, split, sample_rate, length),
    )


CORPUS = Corpus(
    name="wsj0-2mix",
    title=_TITLE,
    contents="Mixtures of two speakers of WSJ0, 8 and 16 kHz",
    licence="LDC User Agreement (WSJ0); the scripts that mix it are Apache-2.0",
    url="https://www.merl.com/research/highlights/deep-clustering/",
    how_to_get=(
        "Made from WSJ0, which the LDC sells (LDC93S6A): convert it to wav, then run the scripts "
        "of http://www.merl.com/demos/deep-clustering/create-speaker-mixtures.zip (Matlab or "
        "Octave) or create_wav_2speakers.py of the WHAM! scripts."
    ),
    layout=(
        "wav8k/min/tt/mix/<name>.wav\nwav8k/min/tt/s1/<name>.wav\nwav8k/min/tt/s2/<name>.wav\n"
        "the same for wav16k, max, tr and cv"
    ),
    mixtures=_all_mixtures,
)
