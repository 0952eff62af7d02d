"""Spectrograms to look at: levels in dB on a logarithmic frequency axis."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dsp.levels import power_db
from unbraid.dsp.stft import StftConfig, stft
from unbraid.types import Waveform

# Every picture shows the same ranges, so that colours can be compared between pictures.
LOWEST_HZ = 50.0
HIGHEST_HZ = 20_000.0
FLOOR_DB = -90.0
CEILING_DB = -10.0

# Enough rows and columns for the pixels of one panel.
_NUM_ROWS = 360
_MAX_COLUMNS = 1200
_WINDOW_S = 0.07


def log_spectrogram_db(waveform: Waveform) -> Float[Tensor, "frame row"]:
    """The level of ``waveform`` on rows that are evenly spaced in log-frequency.

    Rows run from ``LOWEST_HZ`` to ``HIGHEST_HZ``. Where rows are wider than the bins of
    the transform, a row is the mean power of the bins around it (broad noise keeps its
    level, a thin line up there looks weaker); where they are narrower, it interpolates.

    Returns:
        Power in dB, 0 dB for a low sine at full scale, ``-200`` for silence. Between 1 and
        about 1200 frames, whatever the length.
    """
    n_fft = 4 * max(1, round(_WINDOW_S * waveform.sample_rate / 4))
    config = StftConfig(n_fft, n_fft // 4, window="hann")
    spectrum = stft(waveform.samples.detach().cpu(), config)
    # A full-scale sine peaks at half the sum of the window, which for Hann is n_fft / 4.
    power = (spectrum.abs() / (n_fft / 4)).square().mean(dim=0)
    power = power[:: max(1, len(power) // _MAX_COLUMNS)]
    return power_db(power @ _row_weights(config.num_bins, waveform.sample_rate))


def _row_weights(num_bins: int, sample_rate: int) -> Float[Tensor, "bin row"]:
    """Triangles over the bins, one per row, each summing to one (or zero above Nyquist)."""
    bin_hz = sample_rate / 2 / (num_bins - 1)
    bins_hz = torch.arange(num_bins)[:, None] * bin_hz
    ratio = (HIGHEST_HZ / LOWEST_HZ) ** (1 / (_NUM_ROWS - 1))
    centres_hz = LOWEST_HZ * ratio ** torch.arange(_NUM_ROWS)
    half_width_hz = (centres_hz * (ratio - 1)).clamp_min(bin_hz)
    weights = (1 - (bins_hz - centres_hz).abs() / half_width_hz).clamp_min(0)
    weights = weights / weights.sum(dim=0).clamp_min(1e-9)
    return weights * (centres_hz < sample_rate / 2)
