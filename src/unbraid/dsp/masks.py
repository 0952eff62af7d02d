"""Masks over a spectrogram: applying them, and the ideal ones that bound what masks can do."""

from __future__ import annotations

from jaxtyping import Complex, Float
from torch import Tensor


def apply_masks(
    masks: Float[Tensor, "batch source 2 frame bin"],
    mixture: Float[Tensor, "batch 2 frame bin"],
) -> Float[Tensor, "batch source 2 frame bin"]:
    """Multiply the mixture's spectrogram by one complex mask per source.

    Complex numbers are pairs of real and imaginary part on the axis of length 2.
    """
    mask_real, mask_imaginary = masks.unbind(2)
    real, imaginary = mixture.unsqueeze(1).unbind(2)
    product = masks * real.unsqueeze(2)
    # In place: masks of many sources are the largest thing that a network makes.
    product[:, :, 0].addcmul_(mask_imaginary, imaginary, value=-1.0)
    product[:, :, 1].addcmul_(mask_real, imaginary)
    return product


def ideal_ratio_masks(
    references: Complex[Tensor, "batch source frame bin"], eps: float = 1e-12
) -> Float[Tensor, "batch source frame bin"]:
    """Wiener-like oracle masks: each source's share of the summed power, between 0 and 1.

    Bins in which every reference is silent get 0. The masks need the references, so
    they are no separator: they show how far real-valued masks can reach.
    """
    power = references.abs().square()
    return power / (power.sum(dim=1, keepdim=True) + eps)
