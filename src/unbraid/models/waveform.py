"""The road from a waveform to its sources: level, STFT, network, inverse STFT, level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unbraid.config import parse
from unbraid.dsp.levels import scale_of
from unbraid.dsp.stft import FftTransform, SpectralTransform, StftConfig
from unbraid.errors import ConfigError
from unbraid.models.base import SpectralModel
from unbraid.models.registry import find_architecture
from unbraid.models.taggers.htsat import Htsat, HtsatConfig
from unbraid.prompts import ANY_SOURCE, STANDARD_PROMPTS, PromptBank
from unbraid.types import StereoMode

#: What a waveform is divided by before the network and multiplied by after it.
#:
#: ``deviation``: its standard deviation, as TUSS and TF-Locoformer do.
#: ``spectrum``: the root mean square of its spectrogram, as SFC does.
#: ``none``: nothing, as ST-SED-SEP does; the network hears absolute levels.
Level: TypeAlias = Literal["deviation", "spectrum", "none"]


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
class DiscoveryWeights:
    """How much each answer of a trial says that a sound is there: see ``separation.discovery``.

    Each attribute but the bias has a number per whole (speech, effects, music), and the last one
    a number per part of the music. Scores are log odds, levels tens of decibels.

    Attributes:
        bias: Added to the weighted answers.
        score_together: Presence of the three, asked for together.
        level_together: Level of the three, asked for together.
        score_alone: Presence of each, asked for alone.
        level_alone: Level of each, asked for alone.
        left_by_it: What each leaves, asked for alone.
        left_by_others: What the two others leave.
        score_of_part: Presence of the parts, asked for together.
    """

    bias: float
    score_together: tuple[float, float, float]
    level_together: tuple[float, float, float]
    score_alone: tuple[float, float, float]
    level_alone: tuple[float, float, float]
    left_by_it: tuple[float, float, float]
    left_by_others: tuple[float, float, float]
    score_of_part: tuple[float, float, float, float]

    @property
    def slopes(self) -> tuple[float, ...]:
        """All but the bias, in order."""
        return (
            *self.score_together,
            *self.level_together,
            *self.score_alone,
            *self.level_alone,
            *self.left_by_it,
            *self.left_by_others,
            *self.score_of_part,
        )


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build a model without its weights.

    Attributes:
        architecture: Name of a file in ``models/architectures``.
        sample_rate: The rate the network works at, in Hz.
        stft: The transform around the network.
        network: The fields of the architecture's own config.
        prompts: Canonical names of the prompts that the model knows.
        outputs: Of a network with fixed outputs, the prompt that each of them answers; equal
            ones for outputs of one kind. The prompts are then these, each once.
        level: What the waveform is divided by before the network, see ``Level``.
        segment_s: Length of the chunks that suits the model, in seconds.
        overlap_s: How much neighbouring chunks share, in seconds.
        stereo: How several channels are put together, see ``types.StereoMode``: the better the
            model, the more ``channels`` suits it.
        presence: Prompt → how to tell from its stem that its sound is there. Prompts that
            are not in here are judged by weights that are common to all.
        discovery: Prompt → how to tell from trials that its sound is there, for speech, effects
            and music; empty for a model that nobody has measured so.
        tagger: Of a model whose queries are embeddings of sounds, what makes them; None for a
            model that is asked by name only.
    """

    architecture: str
    sample_rate: int
    stft: StftConfig
    network: Mapping[str, Any]
    prompts: tuple[str, ...] = STANDARD_PROMPTS
    outputs: tuple[str, ...] = ()
    level: Level = "deviation"
    segment_s: float = 8.0
    overlap_s: float = 2.0
    stereo: StereoMode = "channels"
    presence: Mapping[str, PresenceWeights] = field(default_factory=dict)
    discovery: Mapping[str, DiscoveryWeights] = field(default_factory=dict)
    tagger: HtsatConfig | None = None

    def __post_init__(self) -> None:
        if self.outputs:
            distinct = tuple(dict.fromkeys(self.outputs))
            if self.prompts not in (STANDARD_PROMPTS, distinct):
                raise ConfigError(
                    f"the prompts of a model with fixed outputs are {', '.join(distinct)}; leave "
                    "prompts out."
                )
            object.__setattr__(self, "prompts", distinct)
        if self.sample_rate < 1:
            raise ConfigError(f"sample_rate must be positive, not {self.sample_rate}.")
        if not 0.0 <= self.overlap_s < self.segment_s < math.inf:
            raise ConfigError(
                f"segment_s ({self.segment_s:g}) must be longer than overlap_s "
                f"({self.overlap_s:g}), and neither may be negative."
            )


class WaveformModel(nn.Module):
    """A spectral network and its prompt bank, usable on waveforms.

    The input is divided by its level before the network and the outputs are multiplied by it
    after, so the model is blind to level: f(a x) = a f(x). Not so with ``ModelConfig.level``
    ``none``.

    Args:
        config: What the model is.
        network: The network that the config describes.
        prompts: The bank that its queries come from.
        tagger: What makes queries of sounds; None if nothing does. It takes no part in
            separation, and training leaves it alone.
    """

    def __init__(
        self,
        config: ModelConfig,
        network: SpectralModel,
        prompts: PromptBank,
        tagger: Htsat | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.prompts = prompts
        self.tagger = None if tagger is None else tagger.requires_grad_(False).eval()

    @property
    def sample_rate(self) -> int:
        """Samples per second that the model works at."""
        return self.config.sample_rate

    @property
    def num_parameters(self) -> int:
        """Numbers in the network and its prompts, frozen rotary frequencies included.

        Without the tagger, and without running statistics, which are no parameters.
        """
        parts = (self.network, self.prompts)
        return sum(each.numel() for part in parts for each in part.parameters())

    def train(self, mode: bool = True) -> WaveformModel:
        """Set network and prompts to training or evaluation; the tagger never learns here."""
        super().train(mode)
        if self.tagger is not None:
            self.tagger.eval()
        return self

    def forward(
        self,
        mixture: Float[Tensor, "batch *channel time"],
        prompt_indices: Int[Tensor, "batch source"],
    ) -> Float[Tensor, "batch source *channel time"]:
        """Separate mixtures at the model's rate; sources are as long as the mixture.

        Args:
            mixture: Mono without an axis for channels, or as many channels as the network
                hears. Any level; silence gives silence up to rounding.
            prompt_indices: Rows of the prompt bank, from ``prompts.indices``.
        """
        return separate(
            mixture,
            self.prompts(prompt_indices),
            self.network,
            FftTransform(self.config.stft),
            level=self.config.level,
            outputs=self.outputs_for(prompt_indices),
        )

    def separate_all(
        self, mixture: Float[Tensor, "batch *channel time"]
    ) -> Float[Tensor, "batch output *channel time"]:
        """Give every output of a model with fixed outputs, in order; otherwise as ``forward``."""
        rows = self.all_outputs.to(mixture.device)
        return self(mixture, rows.expand(len(mixture), -1))

    def with_prompts(self, vectors: Mapping[str, Float[Tensor, "vector dim"]]) -> WaveformModel:
        """A model that also knows these prompts; it shares the network, and this one stays.

        Raises:
            PromptError: As ``PromptBank.with_prompts``.
        """
        prompts = self.prompts.with_prompts(vectors)
        config = replace(self.config, prompts=prompts.names)
        return WaveformModel(config, self.network, prompts, self.tagger)

    @property
    def all_outputs(self) -> Int[Tensor, "output"]:
        """Rows of the prompt bank that ask for every fixed output, in order."""
        return torch.tensor([self.prompts.names.index(name) for name in self.config.outputs])

    @property
    def names_sources(self) -> bool:
        """Whether outputs answer prompts; not where the model gives sources of any kind."""
        return self.prompts.names != (ANY_SOURCE,)

    def outputs_for(
        self, prompt_indices: Int[Tensor, "batch source"]
    ) -> Int[Tensor, "batch source"] | None:
        """Which fixed output answers each prompt; None where every prompt has one of its own.

        The first of equal prompts gets the first output of its kind, the second the second.
        """
        if not self.config.outputs:
            return None
        outputs = [
            [place for place, output in enumerate(self.config.outputs) if output == name]
            for name in self.prompts.names
        ]
        most = max(map(len, outputs))
        # Prompts with fewer outputs are never asked for more: the bank sees to it.
        table = torch.tensor([row + row[-1:] * (most - len(row)) for row in outputs])
        is_equal = prompt_indices.unsqueeze(1) == prompt_indices.unsqueeze(2)
        num_before = is_equal.tril(-1).sum(dim=2).clamp_max(most - 1)
        return table.to(prompt_indices.device)[prompt_indices, num_before]


def separate(
    mixture: Float[Tensor, "batch *channel time"],
    queries: Float[Tensor, "batch source query"],
    network: SpectralModel,
    transform: SpectralTransform,
    *,
    level: Level = "deviation",
    outputs: Int[Tensor, "batch source"] | None = None,
) -> Float[Tensor, "batch source *channel time"]:
    """Lead waveforms through a network: level, STFT, network, inverse STFT, level.

    Args:
        mixture: As ``WaveformModel.forward`` takes it.
        queries: One per source.
        network: The network.
        transform: The STFT.
        level: See ``ModelConfig.level``.
        outputs: Of a network with fixed outputs, those to go on with.
    """
    batch, length = mixture.shape[0], mixture.shape[-1]
    channels = mixture.shape[1:-1]
    rows = mixture.flatten(0, -2)
    scale = scale_of(mixture.flatten(1)) if level == "deviation" else None
    if scale is not None:
        rows = (mixture.flatten(1) / scale).reshape(rows.shape)
    spectrogram = _channels_together(transform.analyse(rows), channels)
    if level == "spectrum":
        scale = _spectral_level(spectrogram)
        spectrogram = spectrogram / scale[..., None, None]
    estimates = network(spectrogram, queries)
    if outputs is not None:
        estimates = estimates[torch.arange(batch, device=outputs.device)[:, None], outputs]
    sources = transform.synthesise(_channels_apart(estimates, channels), length)
    # Of a source, a row per channel.
    sources = sources.unflatten(0, (batch, -1, *channels))
    return sources if scale is None else sources * scale.reshape(batch, *[1] * (len(channels) + 2))


def _channels_together(
    rows: Float[Tensor, "row 2 frame bin"], channels: torch.Size
) -> Float[Tensor, "batch part frame bin"]:
    """Channels from the batch to the parts: all real parts, then all imaginary parts."""
    if not channels:
        return rows
    return rows.unflatten(0, (-1, *channels)).transpose(1, 2).flatten(1, 2)


def _channels_apart(
    estimates: Float[Tensor, "batch source part frame bin"], channels: torch.Size
) -> Float[Tensor, "row 2 frame bin"]:
    """Sources, and channels where there are any, from their axes to the batch."""
    if not channels:
        return estimates.flatten(0, 1)
    return estimates.unflatten(2, (2, *channels)).transpose(2, 3).flatten(0, 2)


def _spectral_level(
    spectrogram: Float[Tensor, "batch part frame bin"],
) -> Float[Tensor, "batch 1"]:
    """Root mean square magnitude over channels, frames and bins.

    Source: K. Saijo and Y. Bando, "Input-adaptive spectral feature compression by sequence
        modeling for source separation", TASLP 2026.
    """
    # Two parts make a magnitude.
    power = 2 * spectrogram.square().flatten(1).mean(dim=1, keepdim=True)
    return power.sqrt().clamp_min(1e-15)


def build_model(config: ModelConfig) -> WaveformModel:
    """Make a model with fresh weights.

    Raises:
        ConfigError: If the architecture is unknown or its config does not fit it.
    """
    architecture = find_architecture(config.architecture)
    network_config = parse(architecture.config_type, dict(config.network), where="network")
    network = architecture.build(network_config, config.sample_rate, config.stft)
    if (network.num_outputs or 0) != len(config.outputs):
        raise ConfigError(
            f"the network has {network.num_outputs or 'no fixed'} outputs, but the config names "
            f"{len(config.outputs)}: outputs is to name the prompt of each, ['speech', 'speech'] "
            "for two speakers."
        )
    if config.tagger is not None and config.tagger.embedding_dim != network.query_dim:
        raise ConfigError(
            f"embeddings of the tagger have {config.tagger.embedding_dim} numbers, but queries of "
            f"the network have {network.query_dim}; the two do not belong together."
        )
    most = [config.outputs.count(name) for name in config.prompts] if config.outputs else None
    prompts = PromptBank(config.prompts, network.query_dim, most, network.query_vectors)
    tagger = None if config.tagger is None else Htsat(config.tagger)
    return WaveformModel(config, network, prompts, tagger)
