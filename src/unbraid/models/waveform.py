"""The road from a waveform to its sources: level, STFT, network, inverse STFT, level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from unbraid.config import parse
from unbraid.dsp.levels import scale_of
from unbraid.dsp.stft import FftTransform, SpectralTransform, StftConfig
from unbraid.errors import ConfigError
from unbraid.models.base import SpectralModel
from unbraid.models.registry import find_architecture
from unbraid.prompts import STANDARD_PROMPTS, PromptBank
from unbraid.types import StereoMode


@dataclass(frozen=True)
class PresenceWeights:
    """How much each feature of a stem says that its sound is there: see ``separation.presence``.

    Attributes:
        bias: Added to the weighted features.
        level_db: Level of the stem, relative to the mixture.
        share: The stem's part of the power in the bins in which it sounds, from 0 to 1.
        loudest_frames_db: Level relative to the mixture in the tenth of the frames in which
            that is highest.
        loudest_band_db: The same in the band in which that is highest.
        flatness: Natural logarithm of the stem's spectral flatness above 250 Hz: 0 for
            steady noise, lower for tones and for what comes and goes.
        modulation: How much the stem's power varies from frame to frame, relative to its mean.
        below_250_hz: Power in this band, relative to all of the stem, as a power of ten.
        below_1000_hz: The same for the band above that.
        below_4000_hz: The same for the band above that.
        above_4000_hz: The same for all above that.
    """

    bias: float = 0.0
    level_db: float = 0.0
    share: float = 0.0
    loudest_frames_db: float = 0.0
    loudest_band_db: float = 0.0
    flatness: float = 0.0
    modulation: float = 0.0
    below_250_hz: float = 0.0
    below_1000_hz: float = 0.0
    below_4000_hz: float = 0.0
    above_4000_hz: float = 0.0


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build a model without its weights.

    Attributes:
        architecture: Name of a file in ``models/architectures``.
        sample_rate: The rate the network works at, in Hz.
        stft: The transform around the network.
        network: The fields of the architecture's own config.
        prompts: Canonical names of the prompts that the model knows.
        segment_s: Length of the chunks that suits the model, in seconds.
        overlap_s: How much neighbouring chunks share, in seconds.
        stereo: How several channels are put together, see ``types.StereoMode``: the better the
            model, the more ``channels`` suits it.
        presence: Prompt → how to tell from its stem that its sound is there. Prompts that
            are not in here are judged by weights that are common to all.
    """

    architecture: str
    sample_rate: int
    stft: StftConfig
    network: Mapping[str, Any]
    prompts: tuple[str, ...] = STANDARD_PROMPTS
    segment_s: float = 8.0
    overlap_s: float = 2.0
    stereo: StereoMode = "channels"
    presence: Mapping[str, PresenceWeights] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sample_rate < 1:
            raise ConfigError(f"sample_rate must be positive, not {self.sample_rate}.")
        if not 0.0 <= self.overlap_s < self.segment_s < math.inf:
            raise ConfigError(
                f"segment_s ({self.segment_s:g}) must be longer than overlap_s "
                f"({self.overlap_s:g}), and neither may be negative."
            )


class WaveformModel(nn.Module):
    """A spectral network and its prompt bank, usable on waveforms.

    The input is divided by its standard deviation before the network and the outputs are
    multiplied by it after, so the model is blind to level: f(a x) = a f(x).

    Args:
        config: What the model is.
        network: The network that the config describes.
        prompts: The bank that its queries come from.
    """

    def __init__(self, config: ModelConfig, network: SpectralModel, prompts: PromptBank) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.prompts = prompts

    @property
    def sample_rate(self) -> int:
        """Samples per second that the model works at."""
        return self.config.sample_rate

    @property
    def num_parameters(self) -> int:
        """Numbers in the network and its prompts, frozen rotary frequencies included."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(
        self,
        mixture: Float[Tensor, "batch time"],
        prompt_indices: Int[Tensor, "batch source"],
    ) -> Float[Tensor, "batch source time"]:
        """Separate mono mixtures at the model's rate; sources are as long as the mixture.

        Args:
            mixture: Any level; silence gives silence up to rounding.
            prompt_indices: Rows of the prompt bank, from ``prompts.indices``.
        """
        transform = FftTransform(self.config.stft)
        return separate(mixture, self.prompts(prompt_indices), self.network, transform)


def separate(
    mixture: Float[Tensor, "batch time"],
    queries: Float[Tensor, "batch source dim"],
    network: SpectralModel,
    transform: SpectralTransform,
) -> Float[Tensor, "batch source time"]:
    """Lead waveforms through a network: level, STFT, network, inverse STFT, level."""
    batch, length = mixture.shape
    scale = scale_of(mixture)
    estimates = network(transform.analyse(mixture / scale), queries)
    sources = transform.synthesise(estimates.flatten(0, 1), length)
    return sources.unflatten(0, (batch, -1)) * scale.unsqueeze(1)


def build_model(config: ModelConfig) -> WaveformModel:
    """Make a model with fresh weights.

    Raises:
        ConfigError: If the architecture is unknown or its config does not fit it.
    """
    architecture = find_architecture(config.architecture)
    network_config = parse(architecture.config_type, dict(config.network), where="network")
    network = architecture.build(network_config, config.sample_rate, config.stft)
    return WaveformModel(config, network, PromptBank(config.prompts, network.query_dim))
