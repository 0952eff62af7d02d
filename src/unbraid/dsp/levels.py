"""Levels: decibels, root mean square, and the normalisation around a model."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def db_to_gain(level_db: float) -> float:
    """Amplitude factor of a level in dB; 0 dB is 1, -6.02 dB is one half."""
    return float(10.0 ** (level_db / 20.0))


def power_db(power: Float[Tensor, "*axes"], floor: float = 1e-20) -> Float[Tensor, "*axes"]:
    """Power in dB; values below ``floor`` (silence) give the level of the floor."""
    return 10.0 * torch.log10(power.clamp_min(floor))


def rms(waveform: Float[Tensor, "*batch time"]) -> Float[Tensor, "*batch"]:
    """Root mean square over time; 0 for silence and for an empty waveform."""
    if waveform.shape[-1] == 0:
        return waveform.new_zeros(waveform.shape[:-1])
    return waveform.square().mean(dim=-1).sqrt()


def scale_of(waveform: Float[Tensor, "batch time"], eps: float = 1e-8) -> Float[Tensor, "batch 1"]:
    """The scale a model divides its input by: the standard deviation over time, plus eps.

    The unbiased estimate, as in the released TUSS. A waveform of one sample has no
    deviation and gets the scale 1.

    Source: K. Saijo et al., "Task-aware unified source separation", ICASSP 2025.
    """
    if waveform.shape[-1] < 2:
        return waveform.new_ones(waveform.shape[0], 1)
    return waveform.std(dim=-1, keepdim=True, unbiased=True) + eps
