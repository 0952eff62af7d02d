"""WHAMR!: WHAM! in simulated rooms.

Layout, as the published scripts write it::

    wav8k/min/tt/mix_both_reverb/<name>.wav     tr 20,000, cv 5,000, tt 3,000 mixtures
    wav8k/min/tt/s1_anechoic/<name>.wav
    wav8k/min/tt/s2_anechoic/<name>.wav

Beside them lie ``s1_reverb``, ``s2_reverb``, ``noise`` and all of ``mix_{single,clean,both}_
{anechoic,reverb}``.

Traps: by custom the mixture is ``mix_both_reverb`` and the references are anechoic, so they do
not add up to it: a system has to remove the noise and the reverberation too. The anechoic
sources are delayed to be in time with the reverberant ones. The scripts write one channel;
``MONO = False`` in them makes two.

Source: Maciejewski, Wichern, McQuinn, Le Roux, "WHAMR!: Noisy and Reverberant Single-Channel
Speech Separation", ICASSP 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unbraid.data.corpora.base import Corpus, MixtureFiles, check_choice
from unbraid.data.corpora.parallel_folders import (
    every_variant,
    mixtures_in,
    variant_folder,
)

_TITLE = "WHAMR!"
_BUCKET = "https://my-bucket-a8b4b49c25c811ee9a7e8bba05fa24c7.s3.amazonaws.com"

SPLITS = ("tr", "cv", "tt")
MIXTURES = (
    "mix_clean_anechoic",
    "mix_clean_reverb",
    "mix_both_anechoic",
    "mix_both_reverb",
)
TARGETS = ("anechoic", "reverb")


def mixtures(
    root: Path,
    split: str = "tt",
    sample_rate: int = 8000,
    length: str = "min",
    mixture: str = "mix_both_reverb",
    target: str = "anechoic",
) -> Iterator[MixtureFiles]:
    """Two speakers in a room, with noise; the references are the speakers alone.

    Args:
        root: The corpus's folder.
        split: ``tr``, ``cv`` or ``tt``.
        sample_rate: 8000 or 16000.
        length: ``min`` or ``max``.
        mixture: What is to be separated, a folder of the corpus with both speakers.
        target: ``anechoic`` for speech without the room, ``reverb`` for speech with it.

    Raises:
        DataError: If there is no such variant, mixture or target, or a file is missing or too
            short.
    """
    check_choice(_TITLE, "mixture", mixture, MIXTURES)
    check_choice(_TITLE, "target", target, TARGETS)
    folder = variant_folder(_TITLE, sample_rate, length, split, SPLITS)
    yield from mixtures_in(
        root,
        folder,
        split,
        [("speech", f"s1_{target}"), ("speech", f"s2_{target}")],
        corpus=_TITLE,
        mixture=mixture,
    )


def _all_mixtures(root: Path) -> Iterator[MixtureFiles]:
    """Every variant that is there, with the usual mixture and target."""
    yield from every_variant(
        root,
        "",
        SPLITS,
        _TITLE,
        lambda sample_rate, length, split: mixtures(root, split, sample_rate, length),
    )


CORPUS = Corpus(
    name="whamr",
    title=_TITLE,
    contents="Mixtures of two speakers of WSJ0 and noise in simulated rooms, 8 and 16 kHz",
    licence="CC BY-NC 4.0 (noise); LDC User Agreement (WSJ0)",
    url="http://wham.whisper.ai/",
    how_to_get=(
        "Made from WSJ0, which the LDC sells (LDC93S6A): convert it to wav, fetch "
        f"{_BUCKET}/wham_noise.zip and {_BUCKET}/whamr_scripts.tar.gz, and run "
        "create_wham_from_scratch.py of these."
    ),
    layout=(
        "wav8k/min/tt/mix_both_reverb/<name>.wav\nwav8k/min/tt/s1_anechoic/<name>.wav\n"
        "wav8k/min/tt/s2_anechoic/<name>.wav\nthe same for wav16k, max, tr and cv"
    ),
    mixtures=_all_mixtures,
)
