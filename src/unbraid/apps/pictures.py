"""Pictures of sound: spectrograms to look at, one or several side by side."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.whole_files import write_whole
from unbraid.dsp.levels import power_db
from unbraid.dsp.stft import StftConfig, stft
from unbraid.types import Waveform

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Every picture shows the same ranges, so that colours can be compared between pictures.
LOWEST_HZ = 50.0
HIGHEST_HZ = 20_000.0
FLOOR_DB = -90.0
CEILING_DB = -10.0

# Enough rows and columns for the pixels of one panel.
_NUM_ROWS = 360
_MAX_COLUMNS = 1200
_WINDOW_S = 0.07
_PIXELS_PER_INCH = 150
_TICKS_HZ = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)

_BACKGROUND = "#14161c"
_INK = "#e8e8ec"


def spectrogram_picture(waveform: Waveform, path: Path, title: str) -> None:
    """Draw the spectrogram of ``waveform`` as a PNG file.

    Time runs to the right in seconds, frequency up on a logarithmic axis, colour is the
    level in dB, near 0 for a low sine at full scale. Channels are averaged in power.
    Silence, and frequencies above half the sample rate, show the darkest colour. The file
    appears under its name only when it is whole.

    Args:
        waveform: What to draw; any rate, length and channel count.
        path: Where the PNG goes; an existing file is replaced.
        title: Written above the picture.

    Raises:
        AudioError: If the file cannot be written.
    """
    spectrogram_row([(title, waveform)], path)


def spectrogram_row(panels: Sequence[tuple[str, Waveform]], path: Path) -> None:
    """Draw several spectrograms side by side, with one frequency axis and one colour scale.

    Args:
        panels: Title and waveform of each, from left to right; at least one.
        path: Where the PNG goes; an existing file is replaced.

    Raises:
        AudioError: If the file cannot be written.
    """
    write_whole(path, spectrogram_png(panels))


def spectrogram_png(panels: Sequence[tuple[str, Waveform]]) -> bytes:
    """The picture of ``spectrogram_row`` as the content of a PNG file."""
    # Matplotlib takes a second to import; commands that draw nothing should not wait for
    # it. The figure is made without pyplot, which would keep it alive in global state.
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(
        figsize=(1.6 + 3.2 * len(panels), 3.0),
        dpi=_PIXELS_PER_INCH,
        facecolor=_BACKGROUND,
        layout=ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09),
    )
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for position, ((title, waveform), axis) in enumerate(zip(panels, axes, strict=True)):
        image = axis.imshow(
            log_spectrogram_db(waveform).T.numpy(),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=FLOOR_DB,
            vmax=CEILING_DB,
            interpolation="bilinear",
            extent=(0.0, max(waveform.duration_s, 1 / waveform.sample_rate), 0.0, 1.0),
        )
        _label(axis, title, is_first=position == 0)
    bar = figure.colorbar(image, ax=list(axes), pad=0.015, aspect=24)
    bar.set_label("Level (dB)", color=_INK, fontsize=11)
    bar.ax.tick_params(colors=_INK, labelsize=10)
    bar.outline.set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


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


def _label(axis: Axes, title: str, *, is_first: bool) -> None:
    """Title, time axis, and the frequency axis on the first panel."""
    span = math.log(HIGHEST_HZ / LOWEST_HZ)
    positions = [math.log(hz / LOWEST_HZ) / span for hz in _TICKS_HZ]
    names = [f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz" for hz in _TICKS_HZ]
    axis.set_yticks(positions, names)
    axis.set_title(title, color=_INK, fontsize=13, loc="left")
    axis.set_xlabel("Time (s)", color=_INK, fontsize=11)
    if is_first:
        axis.set_ylabel("Frequency", color=_INK, fontsize=11)
    axis.tick_params(colors=_INK, labelsize=10)
    for spine in axis.spines.values():
        spine.set_visible(False)
