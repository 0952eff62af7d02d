"""Learning to separate by example: each source is asked for with what it sounds like.

=======================  ==========================  ==========================================
paper                    here                        what it is
=======================  ==========================  ==========================================
anchor segment           batch.references            two seconds in which one sound is heard
latent embedding         Tags.embedding              what the tagger hears in it: the query
mixture of two           batch.mixture               sounds of different classes, as loud
MAE                      relative_error              mean distance of the waveforms
=======================  ==========================  ==========================================

No class is ever named, so a sound that was never heard can be asked for later, by a clip of it.

Source: K. Chen, X. Du, B. Zhu, Z. Ma, T. Berg-Kirkpatrick, S. Dubnov, "Zero-shot audio source
    separation through query-based learning from weakly-labeled data", AAAI 2022, arXiv 2112.07891.
Differs: Where a clip is loud is known from its level, not from the tagger's scores, since our
    clips hold one class each. The distance is relative to the level of the mixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch
from unbraid.dsp.stft import FftTransform
from unbraid.models.waveform import WaveformModel, separate
from unbraid.training.methods.supervised import deviation_of


@dataclass(frozen=True)
class ByExampleConfig:
    """Learning by example, after the tagger, which ``TrainConfig.tagging`` describes.

    Attributes:
        kind: What tells it from the other methods.
    """

    kind: Literal["by_example"] = "by_example"


def by_example_loss(model: WaveformModel, batch: MixtureBatch) -> Float[Tensor, ""]:
    """The loss of what a model makes of a batch, see ``relative_error``."""
    return relative_error(batch, estimates_by_example(model, batch))


def relative_error(
    batch: MixtureBatch, estimates: Float[Tensor, "batch source time"]
) -> Float[Tensor, ""]:
    """Mean absolute error of the estimates, relative to the deviation of their mixture."""
    return ((estimates - batch.references) / deviation_of(batch)).abs().mean()


def estimates_by_example(
    model: WaveformModel, batch: MixtureBatch
) -> Float[Tensor, "batch source time"]:
    """What the model brings out when each reference is its own example.

    Args:
        model: A model with a tagger, at one rate with it.
        batch: Mixtures and their sources; the prompts do not matter.
    """
    assert model.tagger is not None, "the config of the run said so"
    with torch.no_grad():
        queries = model.tagger(batch.references.flatten(0, 1)).embedding
    return separate(
        batch.mixture,
        queries.unflatten(0, batch.references.shape[:2]),
        model.network,
        FftTransform(model.config.stft),
        level=model.config.level,
    )
