"""What masks could reach at best: estimates made with masks from the references themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from unbraid.config import nearest
from unbraid.dsp.masks import (
    ideal_binary_masks,
    ideal_ratio_masks,
    phase_sensitive_masks,
    wiener_like_masks,
)
from unbraid.dsp.stft import StftConfig, istft, stft
from unbraid.errors import ConfigError
from unbraid.objectives.assignment import assign_freely, gather_sources

#: References and mixture → one mask per reference.
OracleMasks: TypeAlias = Callable[
    [
        Complex[Tensor, "batch source frame bin"],
        Complex[Tensor, "batch frame bin"],
    ],
    Float[Tensor, "batch source frame bin"],
]

#: Name of an oracle → how its masks are made.
ORACLES: Mapping[str, OracleMasks] = MappingProxyType(
    {
        "ideal_binary": lambda references, mixture: ideal_binary_masks(references),
        "ideal_ratio": lambda references, mixture: ideal_ratio_masks(references),
        "wiener_like": lambda references, mixture: wiener_like_masks(references),
        "phase_sensitive": phase_sensitive_masks,
    }
)

# Long songs are masked stretch by stretch; this bounds the memory of their spectrograms.
_STRETCH_S = 20.0


def oracle_stft(sample_rate: int) -> StftConfig:
    """Windows of 2048 samples at 44.1 and 48 kHz, with three quarters of overlap.

    At other rates the longest power of two that lasts no longer than 2048 samples at 44.1 kHz:
    512 samples, 32 ms, at 16 kHz.
    """
    n_fft = max(16, 2 ** math.floor(math.log2(2048 * sample_rate / 44100)))
    return StftConfig(n_fft, n_fft // 4)


def oracle_estimates(
    name: str,
    references: Float[Tensor, "source channel time"],
    mixture: Float[Tensor, "channel time"],
    sample_rate: int,
    stft_config: StftConfig | None = None,
) -> Float[Tensor, "source channel time"]:
    """Mask the mixture with an oracle's masks, each channel by itself.

    What is in the mixture beside the references counts as one more source, so that it has
    its share of each bin; it gets no estimate. The result does not depend on how long
    recordings are cut: they are masked in stretches of some seconds, with as much context as
    the windows reach.

    Args:
        name: One of ``ORACLES``.
        references: With the channels and the length of the mixture.
        mixture: What is masked.
        sample_rate: Of both.
        stft_config: Of the masks; ``oracle_stft`` unless given.

    Raises:
        ConfigError: If there is no oracle of that name.
    """
    if name not in ORACLES:
        raise ConfigError(f"unknown oracle {name!r}; {nearest(name, list(ORACLES))}")
    config = stft_config or oracle_stft(sample_rate)
    estimates = torch.empty_like(references)
    length = mixture.shape[-1]
    hops = max(1, round(_STRETCH_S * sample_rate / config.hop_length))
    step = hops * config.hop_length
    # Starts on whole hops keep the frames where they are; a frame that misses samples beyond
    # its stretch is centred less than half a window inside, and reaches half a window further.
    context = config.n_fft
    for start in range(0, length, step):
        low, stop = max(0, start - context), min(length, start + step)
        high = min(length, stop + context)
        masked = _masked(ORACLES[name], references[..., low:high], mixture[..., low:high], config)
        estimates[..., start:stop] = masked[..., start - low : stop - low]
    return estimates


def _masked(
    oracle: OracleMasks,
    references: Float[Tensor, "source channel time"],
    mixture: Float[Tensor, "channel time"],
    config: StftConfig,
) -> Float[Tensor, "source channel time"]:
    sources, channels, length = references.shape
    rest = mixture - references.sum(dim=0)
    everything = torch.cat([references, rest[None]]).transpose(0, 1)
    spectra = stft(everything.flatten(0, 1), config).unflatten(0, (channels, sources + 1))
    mixture_spectrum = stft(mixture, config)
    masks = oracle(spectra, mixture_spectrum)[:, :sources]
    masked = masks * mixture_spectrum.unsqueeze(1)
    estimates = istft(masked.flatten(0, 1), config, length)
    return estimates.unflatten(0, (channels, sources)).transpose(0, 1)


def in_oracle_order(
    estimates: Float[Tensor, "chunk source time"], references: Float[Tensor, "chunk source time"]
) -> Float[Tensor, "chunk source time"]:
    """The estimates of each chunk in the order that leaves the least squared error.

    Joining chunks in this order is a bound on every way to keep sources in their places, and
    needs the references.

    Source: P. Reddy et al., "AudioSlots", ICASSP SASB workshop 2023, which joins its chunks so.
    """
    difference = estimates.unsqueeze(2) - references.unsqueeze(1)
    assignment = assign_freely(difference.square().sum(dim=-1))
    return gather_sources(estimates, assignment)
