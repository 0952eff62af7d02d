"""A picture of what sounds when: the spectrogram of a recording, and a lane for each source."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.pictures import BACKGROUND, INK, PIXELS_PER_INCH, label_frequencies
from unbraid.dsp.log_spectrogram import CEILING_DB, FLOOR_DB

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#6cb8ff", "#ffb454", "#8ce99a", "#f783ac", "#b197fc", "#ffe066", "#66d9e8", "#ced4da")
_EMPTY = "#22252e"
_LEAKED = "#4a4e5a"
_FAINT_INK = "#9a9da6"

_WIDTH_IN = 10.0
_SPECTROGRAM_IN = 3.0
_LANE_IN = 0.55
_FRAME_IN = 0.9
#: So many decibels below a source's loudest moment its lane is as thin as it gets.
_RANGE_DB = 40.0
_THINNEST = 0.06
#: Half the height of a lane's full bar, of the distance from lane to lane.
_HALF = 0.40
_MOST_COLUMNS = 1000
#: From here on, times stand as on a clock.
_LONG_S = 300.0


@dataclass(frozen=True, eq=False)
class Lane:
    """When a source is heard.

    Attributes:
        title: What it is called.
        intervals: Beginning and end, in seconds, of each stretch in which it is heard.
        levels_dbfs: Level of its frames.
        frame_s: Length of a frame.
    """

    title: str
    intervals: Sequence[tuple[float, float]]
    levels_dbfs: Float[Tensor, "frame"]
    frame_s: float


def lanes_png(
    title: str,
    spectrogram_db: Float[Tensor, "frame row"],
    duration_s: float,
    lanes: Sequence[Lane],
) -> bytes:
    """Draw a recording and its sources, one below the other, as the content of a PNG file.

    A lane is a band as thick as its source is loud: in full colour while the source is heard, grey
    where its stem holds what leaked from others. Without lanes the picture says that nothing was
    found.

    Args:
        title: Written above the picture.
        spectrogram_db: Of the recording, from ``dsp.log_spectrogram``.
        duration_s: Length of the recording, more than 0.
        lanes: From top to bottom.
    """
    # See ``pictures.spectrogram_png``.
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    lanes_in = _LANE_IN * max(1, len(lanes))
    figure = Figure(
        figsize=(_WIDTH_IN, _SPECTROGRAM_IN + lanes_in + _FRAME_IN),
        dpi=PIXELS_PER_INCH,
        facecolor=BACKGROUND,
        layout=ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.06),
    )
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(_SPECTROGRAM_IN, lanes_in))
    above.imshow(
        spectrogram_db.T.numpy(),
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=FLOOR_DB,
        vmax=CEILING_DB,
        interpolation="bilinear",
        extent=(0.0, duration_s, 0.0, 1.0),
    )
    label_frequencies(above)
    above.set_title(title, color=INK, fontsize=13, loc="left", parse_math=False)
    above.tick_params(colors=INK, labelsize=10, labelbottom=False, length=3)
    _draw_lanes(below, lanes, duration_s)
    for axis in (above, below):
        for spine in axis.spines.values():
            spine.set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _draw_lanes(axis: Axes, lanes: Sequence[Lane], duration_s: float) -> None:
    axis.set_facecolor(BACKGROUND)
    axis.set_xlim(0.0, duration_s)
    axis.set_ylim(max(1, len(lanes)) - 0.5, -0.5)
    axis.set_yticks(range(len(lanes)), [lane.title for lane in lanes])
    for text in axis.get_yticklabels():
        text.set_parse_math(False)
    axis.set_xlabel("Time (s)")
    axis.xaxis.label.set(color=INK, fontsize=11)
    axis.tick_params(colors=INK, labelsize=10)
    axis.tick_params(axis="y", length=0, labelsize=11)
    axis.grid(axis="x", color=_EMPTY, linewidth=0.8)
    axis.set_axisbelow(True)
    if duration_s >= _LONG_S:
        axis.xaxis.set_major_formatter(lambda value, place: _clock(value))
        axis.set_xlabel("Time (h:min:s)")
    if not lanes:
        axis.text(
            0.5, 0.5, "no sound", color=_FAINT_INK, fontsize=12, ha="center", va="center",
            transform=axis.transAxes,
        )  # fmt: skip
    for place, lane in enumerate(lanes):
        axis.axhspan(place - _HALF, place + _HALF, color=_EMPTY, linewidth=0)
        times, half = _outline(lane)
        colour = _COLOURS[place % len(_COLOURS)]
        axis.fill_between(
            times, place - half, place + half, color=_LEAKED, linewidth=0, step="post"
        )
        heard = torch.zeros(len(times), dtype=torch.bool)
        for start_s, end_s in lane.intervals:
            heard |= (times >= start_s) & (times <= end_s)
        axis.fill_between(
            times, place - half, place + half, where=heard, color=colour, linewidth=0, step="post"
        )
        starts, ends = zip(*lane.intervals, strict=True) if lane.intervals else ((), ())
        axis.hlines([place + _HALF] * len(starts), starts, ends, color=colour, linewidth=2.5)


def _clock(time_s: float) -> str:
    """A time as hours, minutes and seconds.

    >>> _clock(75.0), _clock(3725.0)
    ('1:15', '1:02:05')
    """
    minutes, seconds = divmod(round(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _outline(lane: Lane) -> tuple[Float[Tensor, "column"], Float[Tensor, "column"]]:
    """When each column of a lane begins, and half its height there."""
    levels = lane.levels_dbfs
    if levels.numel() == 0:
        return torch.zeros(0), torch.zeros(0)
    together = -(-len(levels) // _MOST_COLUMNS)
    missing = -len(levels) % together
    padded = torch.nn.functional.pad(levels, (0, missing), value=float(levels.min()))
    columns = padded.unflatten(0, (-1, together)).amax(dim=1)
    share = ((columns - columns.max()) / _RANGE_DB + 1.0).clamp(0.0, 1.0)
    half = _HALF * (_THINNEST + (0.9 - _THINNEST) * share)
    times = torch.arange(len(columns)) * (lane.frame_s * together)
    return times, half
