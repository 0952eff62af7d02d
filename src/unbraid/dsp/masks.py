"""Masks over a spectrogram: applying them, and the ideal ones that bound what masks can do."""

from __future__ import annotations

import torch
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
    return torch.stack(
        [
            torch.addcmul(mask_real * real, mask_imaginary, imaginary, value=-1.0),
            torch.addcmul(mask_real * imaginary, mask_imaginary, real),
        ],
        dim=2,
    )


def ideal_ratio_masks(
    references: Complex[Tensor, "batch source frame bin"], eps: float = 1e-12
) -> Float[Tensor, "batch source frame bin"]:
    """Wiener-like oracle masks: each source's share of the summed power, between 0 and 1.

    Bins in which every reference is silent get 0. The masks need the references, so
    they are no separator: they show how far real-valued masks can reach.
    """
    power = references.abs().square()
    return power / (power.sum(dim=1, keepdim=True) + eps)
