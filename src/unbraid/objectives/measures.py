"""Measures of how close an estimate is to its reference, as formulas.

Those called ``*_db`` are better when higher. The catalogue that users choose from, with what
happens to sources for which a measure has no meaning, is ``evaluation.measures``.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unbraid.dsp.stft import StftConfig, stft

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


def windowed_sdr_db(
    estimate: Float[Tensor, "*axes channel time"],
    reference: Float[Tensor, "*axes channel time"],
    window_length: int,
) -> Float[Tensor, "*axes window"]:
    """Signal-to-distortion ratio of BSS Eval version 4, window by window.

    All channels together; windows lie side by side, and a shorter rest is left out. A recording
    that is no longer than one window is one window.

    The toolkit splits an error into spatial distortion, interference and artefacts, each found
    by filters of 512 taps. They add up to the error again, whatever the filters:

        SDR = 10 log10 |r|^2 / |e_spat + e_interf + e_artif|^2 = 10 log10 |r|^2 / |e - r|^2

    Source: A. Liutkus, F.-R. Stöter and N. Ito, "The 2018 Signal Separation Evaluation
        Campaign", LVA/ICA 2018; the definition is that of museval.
    """
    return _ratio_db(
        _window_energies(reference, window_length),
        _window_energies(estimate - reference, window_length),
    )


def audible_windows(
    waveform: Float[Tensor, "*axes channel time"], window_length: int
) -> Bool[Tensor, "*axes window"]:
    """In which of the windows of ``windowed_sdr_db`` there is any sound, as museval sees it.

    A window is silent where the sum of the channels is 0 throughout.
    """
    windows = _windows(
        waveform.sum(dim=-2) if waveform.shape[-2] > 1 else waveform[..., 0, :], window_length
    )
    return (windows.amin(dim=-1) != 0) | (windows.amax(dim=-1) != 0)


def level_error(
    estimate: Float[Tensor, "*axes time"], reference: Float[Tensor, "*axes time"]
) -> Float[Tensor, "*axes"]:
    """How much louder the estimate is than the reference, in dB; negative where it is softer.

    Between ``-LIMIT_DB``, where the estimate is silent, and ``LIMIT_DB``. A silent reference
    has no level to compare with and gives ``LIMIT_DB``, or ``-LIMIT_DB`` if both are silent.
    """
    return _ratio_db(estimate.square().sum(-1), reference.square().sum(-1))


def leak_suppression_db(
    estimate: Float[Tensor, "*axes time"], mixture: Float[Tensor, "*axes time"]
) -> Float[Tensor, "*axes"]:
    """How far an estimate that should be silent lies below the mixture.

    A silent estimate gives ``LIMIT_DB``, the mixture itself 0.
    """
    return _ratio_db(mixture.square().sum(-1), estimate.square().sum(-1))


def log_spectral_distance(
    estimate: Float[Tensor, "channel time"],
    reference: Float[Tensor, "channel time"],
    config: StftConfig,
    *,
    range_db: float = 80.0,
) -> Float[Tensor, "channel"]:
    """Root mean squared difference of the two log spectra over bins, averaged over frames; in dB.

    0 for equal magnitudes, whatever the phases. Bins count as no softer than ``range_db`` below
    the reference's loudest, so that what nobody hears does not decide; a reference that is
    silent gives 0 for a silent estimate only.

    Source: A. Gray and J. Markel, "Distance measures for speech processing", TASSP 1976.
    Differs: The floor is ours; without it digital silence is infinitely far from anything.
    """
    spectra = (stft(waveform, config) for waveform in (estimate, reference))
    estimate_power, reference_power = (each.real.square() + each.imag.square() for each in spectra)
    floor = reference_power.amax(dim=(-2, -1), keepdim=True) * 10.0 ** (-range_db / 10.0)
    floor = floor.clamp_min(1e-20)
    ratio = torch.maximum(estimate_power, floor) / torch.maximum(reference_power, floor)
    return (10.0 * torch.log10(ratio)).square().mean(dim=-1).sqrt().mean(dim=-1)


def _windows(
    waveform: Float[Tensor, "*axes time"], window_length: int
) -> Float[Tensor, "*axes window sample"]:
    window_length = max(1, min(window_length, waveform.shape[-1]))
    count = waveform.shape[-1] // window_length
    return waveform[..., : count * window_length].unflatten(-1, (count, window_length))


def _window_energies(
    waveform: Float[Tensor, "*axes channel time"], window_length: int
) -> Float[Tensor, "*axes window"]:
    return _windows(waveform, window_length).square().sum(dim=(-3, -1))


def _ratio_db(
    signal: Float[Tensor, "*axes"], noise: Float[Tensor, "*axes"]
) -> Float[Tensor, "*axes"]:
    tiny = 1e-20
    ratio = 10.0 * torch.log10((signal + tiny) / (noise + tiny))
    ratio = torch.where(signal <= tiny, torch.full_like(ratio, -LIMIT_DB), ratio)
    return ratio.clamp(-LIMIT_DB, LIMIT_DB)
