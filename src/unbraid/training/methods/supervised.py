"""Supervised learning: mixtures whose sources are known."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.losses import SnrLossConfig, thresholded_snr_loss


def supervised_loss(
    model: WaveformModel, batch: MixtureBatch, config: SnrLossConfig
) -> Float[Tensor, ""]:
    """Thresholded negative SNR of the estimates, the best order inside equal prompts, in dB."""
    estimates = model(batch.mixture, batch.prompt_indices)
    # The loss has absolute terms, so it is taken at the level the network works at.
    scale = batch.mixture.std(dim=-1).clamp_min(1e-8)[:, None, None]
    return thresholded_snr_loss(
        estimates / scale, batch.references / scale, batch.prompt_indices, config
    )
