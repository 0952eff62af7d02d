"""Supervised learning: mixtures whose sources are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.losses import LossConfig, SnrLossConfig, separation_loss


@dataclass(frozen=True)
class SupervisedConfig:
    """Learning from mixtures whose sources are known; ``TrainConfig.loss`` says how.

    Attributes:
        kind: What tells it from the other methods.
    """

    kind: Literal["supervised"] = "supervised"


def supervised_loss(
    model: WaveformModel, batch: MixtureBatch, config: LossConfig
) -> Float[Tensor, ""]:
    """The loss of what a model makes of a batch.

    A model with fixed outputs is asked for all of them; those that the mixture has no source for
    are to be silent. Channels that a model hears together count together.
    """
    asked = with_all_outputs(model, batch)
    return loss_of_estimates(asked, model(asked.mixture, asked.prompt_indices), config)


def loss_of_estimates(
    batch: MixtureBatch,
    estimates: Float[Tensor, "batch source *channel time"],
    config: LossConfig,
) -> Float[Tensor, ""]:
    """The loss of estimates, the best order inside equal prompts.

    Args:
        batch: What was asked for, see ``with_all_outputs``.
        estimates: What the model made of its mixtures.
        config: Which loss.
    """
    references = batch.references
    if isinstance(config, SnrLossConfig):
        # It has absolute terms, so it is taken at the level the network works at.
        scale = deviation_of(batch)
        estimates, references = estimates / scale, references / scale
    return separation_loss(estimates, references, batch.prompt_indices, config)


def deviation_of(batch: MixtureBatch) -> Float[Tensor, "batch 1 *one"]:
    """The standard deviation of each mixture, over all its channels; never quite zero.

    Its axes are those of the references, to divide them by it.
    """
    deviation = batch.mixture.flatten(1).std(dim=-1).clamp_min(1e-8)
    return deviation.reshape(-1, *[1] * (batch.references.ndim - 1))


def with_all_outputs(model: WaveformModel, batch: MixtureBatch) -> MixtureBatch:
    """What to ask a model for: all its fixed outputs, or where it has none, the batch's sources."""
    places = model.outputs_for(batch.prompt_indices)
    if places is None:
        return batch
    items, _, *shape = batch.references.shape
    asked = model.all_outputs.to(places.device).expand(items, -1)
    references = batch.references.new_zeros(items, asked.shape[1], *shape)
    references[torch.arange(items, device=places.device)[:, None], places] = batch.references
    return MixtureBatch(batch.mixture, references, asked)
