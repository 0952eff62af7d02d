r"""Learning slots: what each generates is compared with the compressed magnitudes of a source.

=======================  ==========================  ==========================================
paper                    here                        what it is
=======================  ==========================  ==========================================
input, targets           AudioSlots.image            \|S\|^0.3 of the mixture, of each source
estimates                AudioSlots.magnitudes       what the slots generate
Hungarian MSE            matched_mse_loss            mean squared error in the best order
autoencoder              one slot                    hears a source and generates it again
=======================  ==========================  ==========================================

Nothing is masked while a model learns. Mixtures that are longer than a chunk teach a network that
carries its slots: one order is chosen for all chunks of a mixture.

Source: P. Reddy, S. Wisdom, K. Greff, J. R. Hershey, T. Kipf, "AudioSlots: a slot-centric
    generative model for audio separation", ICASSP SASB workshop 2023, arXiv 2305.05591.
Differs: Mixtures are brought to one level first, as they are when they are separated.
"""

from __future__ import annotations

from typing import TypeGuard

from jaxtyping import Float
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch
from unbraid.dsp.levels import scale_of
from unbraid.dsp.stft import FftTransform
from unbraid.errors import ConfigError
from unbraid.models.architectures.audio_slots import AudioSlots, Masks, masked
from unbraid.models.base import SpectralModel
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.losses import matched_mse_loss
from unbraid.training.methods.supervised import with_all_outputs


def learns_slots(network: SpectralModel) -> TypeGuard[AudioSlots]:
    """Whether a network learns by this method."""
    return isinstance(network, AudioSlots)


def slots_loss(model: WaveformModel, batch: MixtureBatch) -> Float[Tensor, ""]:
    """Mean squared error of compressed magnitudes, the best order inside equal prompts.

    Slots that a mixture has no source for are to be silent. A model with one slot hears each
    source by itself.

    Raises:
        ConfigError: If the model's level is another than ``deviation``.
    """
    network = _network(model)
    if network.num_outputs == 1:
        targets = _images(model, batch, batch.references).flatten(0, 1)
        estimates = network.magnitudes(targets)
        return (estimates[:, 0] - targets).square().mean()
    batch = with_all_outputs(model, batch)
    heard = _images(model, batch, batch.mixture[:, None])[:, 0]
    targets = _images(model, batch, batch.references)
    return matched_mse_loss(network.magnitudes(heard), targets, batch.prompt_indices)


def autoencoder_estimates(
    model: WaveformModel, batch: MixtureBatch, masks: Masks = "wiener"
) -> Float[Tensor, "batch source time"]:
    """Mask the mixture by what a model with one slot generates when it hears each source.

    What slots could reach if they found their sources: no separation, for it needs the sources.

    Raises:
        ConfigError: If the model's level is another than ``deviation``.
    """
    network = _network(model)
    images = _images(model, batch, batch.references)
    generated = network.magnitudes(images.flatten(0, 1))[:, 0].unflatten(0, images.shape[:2])
    transform = FftTransform(model.config.stft)
    sources = masked(transform.analyse(batch.mixture), generated, masks)
    estimates = transform.synthesise(sources.flatten(0, 1), batch.mixture.shape[-1])
    return estimates.unflatten(0, sources.shape[:2])


def _network(model: WaveformModel) -> AudioSlots:
    network = model.network
    assert learns_slots(network), "only such models come here"
    if model.config.level != "deviation":
        raise ConfigError(
            f"slots are learnt at the level deviation, not {model.config.level}; leave model.level "
            "out."
        )
    return network


def _images(
    model: WaveformModel, batch: MixtureBatch, signals: Float[Tensor, "batch source time"]
) -> Float[Tensor, "batch source frame bin"]:
    """Compressed magnitudes at the level at which the network hears the mixture."""
    scaled = signals / scale_of(batch.mixture)[:, None]
    spectrograms = FftTransform(model.config.stft).analyse(scaled.flatten(0, 1))
    return _network(model).image(spectrograms).unflatten(0, signals.shape[:2])
