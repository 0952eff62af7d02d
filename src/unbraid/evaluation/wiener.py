"""Estimates refined together by a Wiener filter, as the query-based separator's test does."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dsp.stft import StftConfig, istft, stft

_CONFIG = StftConfig(2048, 512, window="hann")
_EPS = 1e-9
_SCALE = 8.0


def wiener_filtered(
    estimates: Float[Tensor, "source channel time"],
    mixture: Float[Tensor, "channel time"],
) -> Float[Tensor, "source channel time"]:
    """Share the mixture out by the magnitudes of the estimates, then refine that once.

    The shares are |e_j| / sum_k |e_k|. One step of expectation-maximisation follows, on the
    mixture x scaled so that its loudest bin is at most ``8``: with v_j the mean power of
    source j over channels and R_j its spatial covariance over all frames,

        R_j = sum_t y_j y_j^H / sum_t v_j,    W_j = v_j R_j (sum_k v_k R_k + eps I)^-1,
        y_j <- W_j x

    With one channel and R_j of its own per bin, this is a Wiener filter with source models.
    Bins in which every estimate is silent stay silent.

    Source: A. Liutkus, F. Stöter, "norbert: multichannel Wiener filtering", 2019, after
        N. Q. K. Duong, E. Vincent, R. Gribonval, "Under-determined reverberant audio source
        separation using a full-rank spatial covariance model", TASLP 2010. Scale and steps
        as in K. Chen et al., "Zero-shot audio source separation through query-based learning
        from weakly-labeled data", AAAI 2022.
    """
    length = mixture.shape[-1]
    spectrum = stft(mixture, _CONFIG)
    scale = max(1.0, float(spectrum.abs().max()) / _SCALE)
    spectrum = spectrum / scale
    shares = torch.stack([stft(estimate, _CONFIG).abs() for estimate in estimates])
    sources = shares / (shares.sum(dim=0) + _EPS) * spectrum
    power = sources.abs().square().mean(dim=1)  # [source frame bin]
    outer = torch.einsum("sctf,sdtf->sfcd", sources, sources.conj())
    covariances = outer / (power.sum(dim=1) + _EPS)[..., None, None]
    models = torch.einsum("stf,sfcd->stfcd", power.to(covariances.dtype), covariances)
    noise = _EPS * torch.eye(mixture.shape[0], dtype=models.dtype)
    inverse = torch.linalg.inv(models.sum(dim=0) + noise)
    refined = torch.stack(
        [torch.einsum("tfcd,tfde,etf->ctf", model, inverse, spectrum) for model in models]
    )
    return torch.stack([istft(source * scale, _CONFIG, length) for source in refined])
