"""Pictures of sound: spectrograms to look at, one or several side by side."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.whole_files import write_whole
from unbraid.dsp.log_spectrogram import (
    CEILING_DB,
    FLOOR_DB,
    HIGHEST_HZ,
    LOWEST_HZ,
    log_spectrogram_db,
    log_spectrogram_of_stream_db,
)
from unbraid.types import Waveform

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What all pictures have in common.
PIXELS_PER_INCH = 150
BACKGROUND = "#14161c"
INK = "#e8e8ec"

# Of a strip, which is twice as many pixels as it is high on a page.
_STRIP_ROWS = 180

_TICKS_HZ = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)


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
        dpi=PIXELS_PER_INCH,
        facecolor=BACKGROUND,
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
    bar.set_label("Level (dB)", color=INK, fontsize=11)
    bar.ax.tick_params(colors=INK, labelsize=10)
    bar.outline.set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def spectrogram_strip_png(
    blocks: Iterable[Float[Tensor, "channel _"]], sample_rate: int, duration_s: float
) -> bytes:
    """A spectrogram without axes, title and margins, as the content of a PNG file.

    Its width is the duration, its height runs from ``LOWEST_HZ`` to ``HIGHEST_HZ`` on a logarithmic
    axis; colours are those of the other pictures. Memory hardly grows with the length.

    Args:
        blocks: The recording, block by block.
        sample_rate: Of the blocks, in Hz.
        duration_s: Length of all blocks together.
    """
    from matplotlib.image import imsave

    levels_db = log_spectrogram_of_stream_db(blocks, sample_rate, duration_s)
    # A strip is low; the mean of some rows does for it.
    shape = (len(levels_db), _STRIP_ROWS)
    levels_db = torch.nn.functional.adaptive_avg_pool2d(levels_db[None], shape)[0]
    picture = io.BytesIO()
    imsave(
        picture,
        levels_db.T.numpy(),
        vmin=FLOOR_DB,
        vmax=CEILING_DB,
        cmap="magma",
        origin="lower",
        format="png",
    )
    return picture.getvalue()


def _label(axis: Axes, title: str, *, is_first: bool) -> None:
    """Title, time axis, and the frequency axis on the first panel."""
    label_frequencies(axis, has_title=is_first)
    axis.set_title(title, color=INK, fontsize=13, loc="left")
    axis.set_xlabel("Time (s)", color=INK, fontsize=11)
    axis.tick_params(colors=INK, labelsize=10)
    for spine in axis.spines.values():
        spine.set_visible(False)


def label_frequencies(axis: Axes, *, has_title: bool = True) -> None:
    """Mark frequencies on an axis that shows a spectrogram of ``dsp.log_spectrogram``."""
    span = math.log(HIGHEST_HZ / LOWEST_HZ)
    positions = [math.log(hz / LOWEST_HZ) / span for hz in _TICKS_HZ]
    names = [f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz" for hz in _TICKS_HZ]
    axis.set_yticks(positions, names)
    if has_title:
        axis.set_ylabel("Frequency", color=INK, fontsize=11)
