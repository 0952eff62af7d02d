r"""The query-conditioned spectrogram U-Net (ST-SED-SEP), the separator that APT tunes prompts for.

=====================  ==========================  =============================================
paper                  here                        what it is
=====================  ==========================  =============================================
\\|X\\|                  magnitude                   magnitude spectrogram of the mixture
c, e                   queries                     latent of a sound tagger, or a tuned prompt
encoder block          down                        two convolutions, then half the resolution
decoder block          up                          twice the resolution, the skip, two convolutions
M                      mask                        sigmoid of the last layer
\\|Y\\|                  estimates                   M \\|X\\|, with the phase of the mixture
=====================  ==========================  =============================================

The query enters behind every convolution: a linear layer makes of it a number for each channel,
which is added after the non-linearity.

Source: K. Chen, X. Du, B. Zhu, Z. Ma, T. Berg-Kirkpatrick, S. Dubnov, "Zero-shot audio source
    separation through query-based learning from weakly-labeled data", AAAI 2022, arXiv
    2112.07891; Y. Liu et al., "Audio prompt tuning for universal sound separation", ICASSP 2024,
    arXiv 2311.18399, for tuning the queries.
Differs: All layers that queries go through begin alike; the release forgets a third of those of
    its decoder, which keep PyTorch's own beginning.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.dsp.stft import StftConfig
from unbraid.errors import ConfigError
from unbraid.models.base import Architecture, SpectralModel
from unbraid.nn.norms import BatchNorm

#: How much of the running statistics of the bins a batch replaces.
_BIN_MOMENTUM = 0.01
#: Of the weights of the layers that the query goes through, as they begin.
_CONDITION_RANGE = 0.1


@dataclass(frozen=True)
class QueryUnetConfig:
    """One U-Net.

    Attributes:
        channels: Of each level, from the finest to the centre.
        query_dim: Length of a query.
    """

    channels: tuple[int, ...]
    query_dim: int

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or min(self.channels) < 1:
            raise ConfigError(
                f"channels ({self.channels}) must be positive, for one level and the centre at "
                "least."
            )
        if self.query_dim < 1:
            raise ConfigError(f"query_dim must be positive, not {self.query_dim}.")


class QueryUnet(SpectralModel):
    """The U-Net; sources do not see each other, so each is a run of its own.

    It hears absolute levels: the published weights go with ``ModelConfig.level`` ``none``.
    """

    def __init__(self, config: QueryUnetConfig, sample_rate: int, stft: StftConfig) -> None:
        super().__init__()
        self.query_dim = config.query_dim
        *levels, centre = config.channels
        self._step = 2 ** len(levels)
        if (stft.num_bins - 1) % self._step:
            raise ConfigError(
                f"{len(levels)} levels halve {stft.num_bins - 1} bins so often; half of "
                f"stft.n_fft must be a multiple of {self._step}."
            )
        self.bin_norm = BatchNorm(stft.num_bins, _BIN_MOMENTUM)
        self.down = nn.ModuleList(
            _Convolutions(before, after, config.query_dim)
            for before, after in zip((1, *levels), levels, strict=False)
        )
        self.centre = _Convolutions(levels[-1], centre, config.query_dim)
        upwards = [centre, *reversed(levels)]
        self.up = nn.ModuleList(
            _Up(before, after, config.query_dim) for before, after in itertools.pairwise(upwards)
        )
        self.last = _Convolutions(levels[0], levels[0], config.query_dim)
        self.mask = nn.Conv2d(levels[0], 1, 1)
        nn.init.xavier_uniform_(self.mask.weight)
        # Convolutions on a CPU are a third faster with the channels of a place side by side.
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def forward(
        self,
        mixture: Float[Tensor, "batch 2 frame bin"],
        queries: Float[Tensor, "batch source dim"],
    ) -> Float[Tensor, "batch source 2 frame bin"]:
        """Estimate one source per query; masks are real and lie between 0 and 1."""
        batch, sources, _ = queries.shape
        masks = self.masks(mixture, queries.flatten(0, 1)).unflatten(0, (batch, sources))
        return masks[:, :, None] * mixture[:, None]

    def masks(
        self,
        mixture: Float[Tensor, "batch 2 frame bin"],
        queries: Float[Tensor, "row dim"],
    ) -> Float[Tensor, "row frame bin"]:
        """One mask per query, as many for each mixture.

        The highest bin takes no part, and its mask is always one half, as in the release.
        """
        # By the norm: its gradient is defined at silence too.
        magnitude = torch.linalg.vector_norm(mixture, dim=1)
        # Bins stand where images have their channels.
        features = self.bin_norm(magnitude.transpose(1, 2)[..., None]).permute(0, 3, 2, 1)
        frames = features.shape[2]
        padded_frames = (frames + self._step - 1) // self._step * self._step
        features = torch.nn.functional.pad(features[..., :-1], (0, 0, 0, padded_frames - frames))
        # Up to the first query all sources of a mixture have the same features.
        features = features.repeat_interleave(queries.shape[0] // mixture.shape[0], dim=0)
        skips = []
        for down in self.down:
            skips.append(down(features, queries))
            features = torch.nn.functional.avg_pool2d(skips[-1], 2)
        features = self.centre(features, queries)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            features = up(features, skip, queries)
        logits = self.mask(self.last(features, queries))[:, 0, :frames]
        return torch.nn.functional.pad(logits, (0, 1)).sigmoid()


class _Conditioned(nn.Module):
    """A convolution, batch norm, the non-linearity, and what the query adds to every channel."""

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d, query_dim: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = BatchNorm(convolution.out_channels)
        self.condition = nn.Linear(query_dim, convolution.out_channels)
        nn.init.xavier_uniform_(self.convolution.weight)
        nn.init.uniform_(self.condition.weight, -_CONDITION_RANGE, _CONDITION_RANGE)
        nn.init.zeros_(self.condition.bias)

    def forward(
        self, features: Float[Tensor, "row before frame bin"], queries: Float[Tensor, "row dim"]
    ) -> Float[Tensor, "row after new_frame new_bin"]:
        active = torch.nn.functional.relu(self.norm(self.convolution(features)))
        return active + self.condition(queries)[:, :, None, None]


class _Convolutions(nn.Module):
    """Two convolutions, each with its own condition."""

    def __init__(self, before: int, after: int, query_dim: int) -> None:
        super().__init__()
        self.first = _Conditioned(nn.Conv2d(before, after, 3, padding=1, bias=False), query_dim)
        self.second = _Conditioned(nn.Conv2d(after, after, 3, padding=1, bias=False), query_dim)

    def forward(
        self, features: Float[Tensor, "row before frame bin"], queries: Float[Tensor, "row dim"]
    ) -> Float[Tensor, "row after frame bin"]:
        return self.second(self.first(features, queries), queries)


class _Up(nn.Module):
    """Twice the resolution, then two convolutions over that and the skip."""

    def __init__(self, before: int, after: int, query_dim: int) -> None:
        super().__init__()
        self.upsample = _Conditioned(
            nn.ConvTranspose2d(before, after, 3, stride=2, bias=False), query_dim
        )
        self.convolutions = _Convolutions(2 * after, after, query_dim)

    def forward(
        self,
        features: Float[Tensor, "row before half_frame half_bin"],
        skip: Float[Tensor, "row after frame bin"],
        queries: Float[Tensor, "row dim"],
    ) -> Float[Tensor, "row after frame bin"]:
        # One row and one column more than twice as many come out.
        upsampled = self.upsample(features, queries)[:, :, :-1, :-1]
        return self.convolutions(torch.cat([upsampled, skip], dim=1), queries)


ARCHITECTURE = Architecture(
    name="query_unet",
    config_type=QueryUnetConfig,
    build=QueryUnet,
    presets={"published": QueryUnetConfig((32, 64, 128, 256, 512, 1024, 2048), 2048)},
    examples={
        "two levels": QueryUnetConfig((4, 6, 8), 8),
        "one level": QueryUnetConfig((3, 5), 4),
    },
)
