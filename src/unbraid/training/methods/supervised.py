"""Supervised learning: mixtures whose sources are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.losses import SnrLossConfig, thresholded_snr_loss


@dataclass(frozen=True)
class SupervisedConfig:
    """Learning from mixtures whose sources are known; ``TrainConfig.loss`` says how.

    Attributes:
        kind: What tells it from the other methods.
    """

    kind: Literal["supervised"] = "supervised"


def supervised_loss(
    model: WaveformModel, batch: MixtureBatch, config: SnrLossConfig
) -> Float[Tensor, ""]:
    """Thresholded negative SNR of the estimates, the best order inside equal prompts, in dB.

    A model with fixed outputs is asked for all of them; those that the mixture has no source for
    are to be silent. Channels that a model hears together count together.
    """
    batch = with_all_outputs(model, batch)
    return snr_loss_at_level(model(batch.mixture, batch.prompt_indices), batch, config)


def snr_loss_at_level(
    estimates: Float[Tensor, "batch source *channel time"],
    batch: MixtureBatch,
    config: SnrLossConfig,
) -> Float[Tensor, ""]:
    """The thresholded SNR loss, which has absolute terms, at the level the network works at."""
    scale = deviation_of(batch)
    return thresholded_snr_loss(
        estimates.flatten(2) / scale,
        batch.references.flatten(2) / scale,
        batch.prompt_indices,
        config,
    )


def deviation_of(batch: MixtureBatch) -> Float[Tensor, "batch 1 1"]:
    """The standard deviation of each mixture, over all its channels; never quite zero."""
    return batch.mixture.flatten(1).std(dim=-1).clamp_min(1e-8)[:, None, None]


def with_all_outputs(model: WaveformModel, batch: MixtureBatch) -> MixtureBatch:
    """The batch with a reference for every fixed output of the model, silent where it has none."""
    places = model.outputs_for(batch.prompt_indices)
    if places is None:
        return batch
    items, _, *shape = batch.references.shape
    asked = model.all_outputs.to(places.device).expand(items, -1)
    references = batch.references.new_zeros(items, asked.shape[1], *shape)
    references[torch.arange(items, device=places.device)[:, None], places] = batch.references
    return MixtureBatch(batch.mixture, references, asked)
