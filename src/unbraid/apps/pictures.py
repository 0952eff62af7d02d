"""Pictures of sound: spectrograms to look at, one or several side by side."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.whole_files import write_whole
from unbraid.dsp.levels import power_db
from unbraid.dsp.log_spectrogram import (
    CEILING_DB,
    FLOOR_DB,
    HIGHEST_HZ,
    LOWEST_HZ,
    log_spectrogram_db,
)
from unbraid.types import Waveform

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What all pictures have in common.
PIXELS_PER_INCH = 150
BACKGROUND = "#14161c"
INK = "#e8e8ec"

# Of a strip: enough for a wide screen.
_STRIP_COLUMNS = 1200
_STRIP_ROWS = 180
_PIECE_S = 30.0

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
    axis; colours are those of the other pictures. Memory does not grow with the length: a column
    of a long recording is the mean power of what it stands for.

    Args:
        blocks: The recording, block by block.
        sample_rate: Of the blocks, in Hz.
        duration_s: Length of all blocks together.
    """
    from matplotlib.image import imsave

    columns = [
        _strip_columns(Waveform(piece, sample_rate), _STRIP_COLUMNS / duration_s)
        for piece in _pieces(blocks, round(_PIECE_S * sample_rate))
    ]
    if not columns:
        columns = [torch.full((1, _STRIP_ROWS), FLOOR_DB)]
    picture = io.BytesIO()
    imsave(
        picture,
        torch.cat(columns).T.numpy(),
        vmin=FLOOR_DB,
        vmax=CEILING_DB,
        cmap="magma",
        origin="lower",
        format="png",
    )
    return picture.getvalue()


def _strip_columns(piece: Waveform, per_second: float) -> Float[Tensor, "column row"]:
    """A piece's levels in so many columns a second, or as many as it has frames."""
    levels_db = log_spectrogram_db(piece)
    num_columns = min(len(levels_db), max(1, round(per_second * piece.duration_s)))
    power = 10.0 ** (levels_db / 10.0)
    shape = (num_columns, _STRIP_ROWS)
    return power_db(torch.nn.functional.adaptive_avg_pool2d(power[None], shape)[0])


def _pieces(
    blocks: Iterable[Float[Tensor, "channel _"]], length: int
) -> Iterator[Float[Tensor, "channel _"]]:
    """The same samples in pieces of one length; the last one may be shorter."""
    held: list[Tensor] = []
    num_held = 0
    for block in blocks:
        held.append(block)
        num_held += block.shape[1]
        while num_held >= length:
            joined = torch.cat(held, dim=1)
            yield joined[:, :length]
            held = [joined[:, length:]]
            num_held -= length
    if num_held:
        yield torch.cat(held, dim=1)


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
