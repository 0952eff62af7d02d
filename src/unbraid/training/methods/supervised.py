"""Supervised learning: mixtures whose sources are known."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.losses import SnrLossConfig, thresholded_snr_loss


def supervised_loss(
    model: WaveformModel, batch: MixtureBatch, config: SnrLossConfig
) -> Float[Tensor, ""]:
    """Thresholded negative SNR of the estimates, the best order inside equal prompts, in dB.

    A model with fixed outputs is asked for all of them; those that the mixture has no source for
    are to be silent. Channels that a model hears together count together.
    """
    batch = _with_all_outputs(model, batch)
    estimates = model(batch.mixture, batch.prompt_indices).flatten(2)
    references = batch.references.flatten(2)
    # The loss has absolute terms, so it is taken at the level the network works at.
    scale = batch.mixture.flatten(1).std(dim=-1).clamp_min(1e-8)[:, None, None]
    return thresholded_snr_loss(estimates / scale, references / scale, batch.prompt_indices, config)


def _with_all_outputs(model: WaveformModel, batch: MixtureBatch) -> MixtureBatch:
    places = model.outputs_for(batch.prompt_indices)
    if places is None:
        return batch
    items, _, *shape = batch.references.shape
    asked = model.all_outputs.to(places.device).expand(items, -1)
    references = batch.references.new_zeros(items, asked.shape[1], *shape)
    references[torch.arange(items, device=places.device)[:, None], places] = batch.references
    return MixtureBatch(batch.mixture, references, asked)
