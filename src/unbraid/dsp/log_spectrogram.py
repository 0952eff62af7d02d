"""Spectrograms to look at: levels in dB on a logarithmic frequency axis."""

from __future__ import annotations

import math
from collections.abc import Iterable

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

# A stream is drawn in pieces of this length; each gets its share of the columns, and at least one.
_PIECE_S = 30.0


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


def log_spectrogram_of_stream_db(
    blocks: Iterable[Float[Tensor, "channel _"]], sample_rate: int, duration_s: float
) -> Float[Tensor, "frame row"]:
    """The same for a recording that comes in blocks, in memory that hardly grows with its length.

    A frame is the mean power over its share of the time. Up to half a minute it is what
    ``log_spectrogram_db`` gives.

    Args:
        blocks: Consecutive samples.
        sample_rate: Of the blocks, in Hz.
        duration_s: How long they are in all, about.
    """
    if duration_s <= _PIECE_S:
        waiting = list(blocks)
        samples = torch.cat(waiting, dim=1) if waiting else torch.zeros(1, 0)
        return log_spectrogram_db(Waveform(samples, sample_rate))
    columns = math.ceil(_MAX_COLUMNS * _PIECE_S / duration_s)
    frames, pending, available = [], [], 0
    for block in blocks:
        pending.append(block)
        available += block.shape[1]
        if available >= _PIECE_S * sample_rate:
            frames.append(_pooled_db(torch.cat(pending, dim=1), sample_rate, columns))
            pending, available = [], 0
    if available:
        share = max(1, round(columns * available / (_PIECE_S * sample_rate)))
        frames.append(_pooled_db(torch.cat(pending, dim=1), sample_rate, share))
    return torch.cat(frames)


def _pooled_db(
    samples: Float[Tensor, "channel time"], sample_rate: int, columns: int
) -> Float[Tensor, "column row"]:
    power = 10.0 ** (log_spectrogram_db(Waveform(samples, sample_rate)) / 10.0)
    return power_db(torch.nn.functional.adaptive_avg_pool1d(power.T, columns).T)


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
