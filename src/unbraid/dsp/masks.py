"""Masks over a spectrogram: applying them, and the ideal ones that bound what masks can do."""

from __future__ import annotations

from jaxtyping import Complex, Float
from torch import Tensor


def apply_masks(
    masks: Complex[Tensor, "batch source frame bin"],
    mixture: Complex[Tensor, "batch frame bin"],
) -> Complex[Tensor, "batch source frame bin"]:
    """Multiply the mixture's spectrogram by one complex mask per source."""
    return masks * mixture.unsqueeze(1)


def ideal_ratio_masks(
    references: Complex[Tensor, "batch source frame bin"], eps: float = 1e-12
) -> Float[Tensor, "batch source frame bin"]:
    """Wiener-like oracle masks: each source's share of the summed power, between 0 and 1.

    Bins in which every reference is silent get 0. The masks need the references, so
    they are no separator: they show how far real-valued masks can reach.
    """
    power = references.abs().square()
    return power / (power.sum(dim=1, keepdim=True) + eps)
