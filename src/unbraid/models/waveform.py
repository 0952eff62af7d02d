"""The road from a waveform to its sources: level, STFT, network, inverse STFT, level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from unbraid.config import parse
from unbraid.dsp.levels import scale_of
from unbraid.dsp.stft import StftConfig, istft, stft
from unbraid.errors import ConfigError
from unbraid.models.base import SpectralModel
from unbraid.models.registry import find_architecture
from unbraid.prompts import STANDARD_PROMPTS, PromptBank


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
    """

    architecture: str
    sample_rate: int
    stft: StftConfig
    network: Mapping[str, Any]
    prompts: tuple[str, ...] = STANDARD_PROMPTS
    segment_s: float = 8.0
    overlap_s: float = 2.0

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
        batch, length = mixture.shape
        scale = scale_of(mixture)
        spectrogram = stft(mixture / scale, self.config.stft)
        estimates = self.network(spectrogram, self.prompts(prompt_indices))
        sources = istft(estimates.flatten(0, 1), self.config.stft, length)
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
