"""Measures of how close an estimate is to its reference, in dB; higher is better."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

#: Where a ratio has no bound (a perfect or a silent estimate) the measures stop here.
LIMIT_DB = 100.0


def snr_db(
    estimate: Float[Tensor, "*axes time"], reference: Float[Tensor, "*axes time"]
) -> Float[Tensor, "*axes"]:
    """Signal-to-noise ratio: power of the reference over power of the error.

    A perfect estimate gives ``LIMIT_DB``, a silent reference with a non-silent estimate
    ``-LIMIT_DB``. Levels count: an estimate at half the level has 6 dB.
    """
    return _ratio_db(reference.square().sum(-1), (estimate - reference).square().sum(-1))


def si_sdr_db(
    estimate: Float[Tensor, "*axes time"],
    reference: Float[Tensor, "*axes time"],
    *,
    remove_mean: bool = True,
) -> Float[Tensor, "*axes"]:
    """Scale-invariant signal-to-distortion ratio.

    The reference is scaled to fit the estimate best; what the scaled reference does not
    explain is distortion. With ``remove_mean`` both signals lose their mean first, as in
    the toolkits whose numbers are published as SI-SNR.

    A perfect estimate gives ``LIMIT_DB``; a silent estimate or reference ``-LIMIT_DB``.

        a = <e, r> / <r, r>,    SI-SDR = 10 log10 |a r|^2 / |e - a r|^2

    Source: J. Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, equation 3.
    """
    if remove_mean:
        estimate = estimate - estimate.mean(dim=-1, keepdim=True)
        reference = reference - reference.mean(dim=-1, keepdim=True)
    energy = reference.square().sum(dim=-1, keepdim=True)
    scale = (estimate * reference).sum(dim=-1, keepdim=True) / energy.clamp_min(1e-20)
    target = scale * reference
    return _ratio_db(target.square().sum(-1), (estimate - target).square().sum(-1))


def _ratio_db(
    signal: Float[Tensor, "*axes"], noise: Float[Tensor, "*axes"]
) -> Float[Tensor, "*axes"]:
    tiny = 1e-20
    ratio = 10.0 * torch.log10((signal + tiny) / (noise + tiny))
    ratio = torch.where(signal <= tiny, torch.full_like(ratio, -LIMIT_DB), ratio)
    return ratio.clamp(-LIMIT_DB, LIMIT_DB)
