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

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch
from unbraid.dsp.levels import scale_of
from unbraid.dsp.stft import FftTransform
from unbraid.errors import ConfigError
from unbraid.models.architectures.audio_slots import AudioSlots, Masks, masked
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.losses import matched_mse_loss
from unbraid.training.methods.supervised import with_all_outputs


@dataclass(frozen=True)
class SlotsConfig:
    """How a model learns to generate what its slots stand for.

    Attributes:
        kind: What tells it from the other methods.
        drawn_share: Share of the frames of a chunk that are drawn and compared in a step, others
            in each step. The decoder is most of the work in small networks, and draws every frame
            by itself. Validation draws all.
    """

    kind: Literal["slots"] = "slots"
    drawn_share: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.drawn_share <= 1.0:
            raise ConfigError(
                f"method.drawn_share is a share of the frames above 0, not {self.drawn_share}."
            )


def slots_loss(
    model: WaveformModel, batch: MixtureBatch, drawn_share: float = 1.0
) -> Float[Tensor, ""]:
    """Mean squared error of compressed magnitudes, the best order inside equal prompts.

    Slots that a mixture has no source for are to be silent. A model with one slot hears each
    source by itself.

    Args:
        model: What learns.
        batch: Mixtures and their sources.
        drawn_share: Share of the frames that count, drawn at random; see ``SlotsConfig``.

    Raises:
        ConfigError: If the model is none of slots, or its level is another than ``deviation``.
    """
    network = _network(model)
    frames = _draw_frames(network.frames, drawn_share)
    if network.num_outputs == 1:
        heard = _images(model, batch, batch.references).flatten(0, 1)
        estimates = network.magnitudes(heard, frames)
        targets = _frames_of(heard[:, None], frames, network.frames)
        return (estimates - targets).square().mean()
    batch = with_all_outputs(model, batch)
    heard = _images(model, batch, batch.mixture[:, None])[:, 0]
    targets = _frames_of(_images(model, batch, batch.references), frames, network.frames)
    return matched_mse_loss(network.magnitudes(heard, frames), targets, batch.prompt_indices)


def separated_by_slots(
    model: WaveformModel, batch: MixtureBatch
) -> tuple[MixtureBatch, Float[Tensor, "batch source time"]]:
    """What is asked for, and the estimates; with one slot those of ``autoencoder_estimates``."""
    if _network(model).num_outputs == 1:
        return batch, autoencoder_estimates(model, batch)
    asked = with_all_outputs(model, batch)
    return asked, model(asked.mixture, asked.prompt_indices)


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


def _draw_frames(num_frames: int, share: float) -> Int[Tensor, "drawn"]:
    if share == 1.0:
        return torch.arange(num_frames)
    return torch.randperm(num_frames)[: max(1, round(share * num_frames))]


def _frames_of(
    images: Float[Tensor, "batch source frame bin"],
    frames: Int[Tensor, "drawn"],
    num_frames: int,
) -> Float[Tensor, "batch source drawn_frame bin"]:
    """These frames of each chunk of images, in the order in which a network draws them."""
    return images.unflatten(2, (-1, num_frames))[:, :, :, frames].flatten(2, 3)


def _network(model: WaveformModel) -> AudioSlots:
    network = model.network
    if not isinstance(network, AudioSlots):
        raise ConfigError(
            f"method: slots is for the architecture audio_slots, not {model.config.architecture}."
        )
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
