"""Masks over a spectrogram: applying them, and the ideal ones that bound what masks can do.

Ideal masks need the references, so they are no separators. Their magnitudes are one real number
between 0 and 1 per bin and source; with the phase of the mixture, that is all that they can set.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def apply_masks(
    masks: Float[Tensor, "batch source part frame bin"],
    mixture: Float[Tensor, "batch part frame bin"],
) -> Float[Tensor, "batch source part frame bin"]:
    """Multiply the mixture's spectrogram by one complex mask per source and channel.

    The axis ``part`` holds the real parts of all channels, then their imaginary parts.
    """
    mask_parts = masks.unflatten(2, (2, -1))
    mask_real, mask_imaginary = mask_parts.unbind(2)
    real, imaginary = mixture.unsqueeze(1).chunk(2, dim=2)
    product = mask_parts * real.unsqueeze(2)
    # In place: masks of many sources are the largest thing that a network makes.
    product[:, :, 0].addcmul_(mask_imaginary, imaginary, value=-1.0)
    product[:, :, 1].addcmul_(mask_real, imaginary)
    return product.flatten(2, 3)


def ideal_binary_masks(
    references: Complex[Tensor, "batch source frame bin"],
) -> Float[Tensor, "batch source frame bin"]:
    """1 for the source that is loudest in a bin, 0 for all others.

    The first of equally loud sources has the bin. Bins in which every reference is silent
    give 0 to all.

    Source: D. Wang, "On ideal binary mask as the computational goal of auditory scene
        analysis", 2005, with the other sources together as the noise there.
    Differs: The loudest single source has the bin, as in separation of several sources,
        also where all others together are louder.
    """
    power = _power(references)
    peak, loudest = power.max(dim=1, keepdim=True)
    masks = torch.zeros_like(power).scatter_(1, loudest, 1.0)
    return masks * (peak > 0)


def ideal_ratio_masks(
    references: Complex[Tensor, "batch source frame bin"],
) -> Float[Tensor, "batch source frame bin"]:
    """Each source's share of the summed magnitudes.

    Bins in which every reference is silent give 0 to all.

    Source: A. Liutkus and R. Badeau, "Generalized Wiener filtering with fractional power
        spectrograms", ICASSP 2015, with alpha = 1.
    """
    return _shares(_power(references).sqrt())


def wiener_like_masks(
    references: Complex[Tensor, "batch source frame bin"],
) -> Float[Tensor, "batch source frame bin"]:
    """Each source's share of the summed powers.

    Bins in which every reference is silent give 0 to all.

    Source: H. Erdogan et al., "Phase-sensitive and recognition-boosted speech separation
        using deep recurrent neural networks", ICASSP 2015, where they are called so.
    """
    return _shares(_power(references))


def phase_sensitive_masks(
    references: Complex[Tensor, "batch source frame bin"],
    mixture: Complex[Tensor, "batch frame bin"],
) -> Float[Tensor, "batch source frame bin"]:
    """The real mask of least squared error, cut to the range from 0 to 1.

    With X the mixture's bin and S the source's, |m X - S|^2 is least for

        m = Re(S conj(X)) / |X|^2 = |S| / |X| cos(angle between them).

    Bins in which the mixture is silent give 0 to all.

    Source: H. Erdogan et al., ICASSP 2015, as above: the truncated phase-sensitive filter.
    """
    power = _power(mixture).unsqueeze(1)
    along = references.real * mixture.real.unsqueeze(1)
    along += references.imag * mixture.imag.unsqueeze(1)
    return (along / power.clamp_min(torch.finfo(power.dtype).tiny)).clamp(0.0, 1.0)


def _power(spectrogram: Complex[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    # Several times faster than by the magnitude, which is made to survive overflow.
    return spectrogram.real.square() + spectrogram.imag.square()


def _shares(
    amounts: Float[Tensor, "batch source frame bin"],
) -> Float[Tensor, "batch source frame bin"]:
    return amounts / amounts.sum(dim=1, keepdim=True).clamp_min(torch.finfo(amounts.dtype).tiny)
