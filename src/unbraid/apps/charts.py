"""Charts as inline SVG that any width suits: places across are per cent, heights are pixels.

So text keeps its size on a phone, and colours come from the style sheet of the page. What a
chart shows is said in its label, and the page says it again in a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_ROW_PX = 58
_AXIS_PX = 24
_HALF_PX = 96
_NUM_BARS = 40
#: What is further from the middle half than this many times its width must not set the axis.
_FAR = 2.5
_SCATTER_PX = 2 * _HALF_PX
_NARROW_PER_CENT = 1.5
#: More dots than these are a cloud anyway, and would only make the page heavy.
_MAX_DOTS = 1500


# ------------------------------------------------------------------ axes


@dataclass(frozen=True)
class Axis:
    """A straight scale between two round numbers.

    Attributes:
        ticks: Where it is labelled, from its lower end to its upper end.
        decimals: How many decimals the labels need.
    """

    ticks: tuple[float, ...]
    decimals: int

    @property
    def low(self) -> float:
        """The lower end."""
        return self.ticks[0]

    @property
    def high(self) -> float:
        """The upper end."""
        return self.ticks[-1]

    def share(self, value: float) -> float:
        """Where a value lies, from 0 to 1; what is beyond an end lies on it."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def label(self, tick: float) -> str:
        """A tick as text."""
        return minus(f"{tick + 0.0:.{self.decimals}f}")


def axis_for(values: Sequence[float], num_ticks: int = 6) -> Axis:
    """The axis of about ``num_ticks`` round numbers that holds all values.

    Equal values get an axis around them, no values one from 0 to 1.

    >>> axis_for([-1.3, 18.0]).ticks
    (-5.0, 0.0, 5.0, 10.0, 15.0, 20.0)
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / max(1, num_ticks - 1)
    power = math.floor(math.log10(rough))
    step = min((1, 2, 5, 10), key=lambda factor: abs(math.log(factor * 10.0**power / rough)))
    unit = step * 10.0**power
    first, last = math.floor(low / unit + 1e-9), math.ceil(high / unit - 1e-9)
    decimals = max(0, -math.floor(math.log10(unit) + 1e-9))
    return Axis(tuple(round(n * unit, decimals) for n in range(first, last + 1)), decimals)


def minus(text: str) -> str:
    """Text with typographic minus signs."""
    return text.replace("-", "\N{MINUS SIGN}")


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the ordered values lie, interpolated between two.

    >>> quantile([1.0, 2.0, 4.0], 0.75)
    3.0
    """
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


# ------------------------------------------------------------------ boxes


@dataclass(frozen=True)
class Spread:
    """How values lie: quantiles at 5, 25, 50, 75 and 95 per cent.

    Attributes:
        quantiles: The five.
        count: How many values there are.
    """

    quantiles: tuple[float, float, float, float, float]
    count: int


def spread_of(values: Sequence[float]) -> Spread | None:
    """How values lie; None without any."""
    if not values:
        return None
    ordered = sorted(values)
    q05, q25, q50, q75, q95 = (quantile(ordered, share) for share in (0.05, 0.25, 0.5, 0.75, 0.95))
    return Spread((q05, q25, q50, q75, q95), len(ordered))


@dataclass(frozen=True)
class BoxRow:
    """A line of a box chart.

    Attributes:
        title: Of what.
        before: How the mixture fares; None to leave it out.
        after: How the estimates fare.
        text: The middle of both in words, at the right end.
    """

    title: str
    before: Spread | None
    after: Spread
    text: str


def box_chart(rows: Sequence[BoxRow], label: str) -> str:
    """Boxes for the middle half and lines for nine tenths, before above after."""
    ends = [
        end
        for row in rows
        for spread in (row.before, row.after)
        if spread is not None
        for end in (spread.quantiles[0], spread.quantiles[-1])
    ]
    axis = axis_for(ends)
    height = _ROW_PX * len(rows)
    parts = [_grid(axis, height)]
    for number, row in enumerate(rows):
        top = number * _ROW_PX
        parts.append(_text(0, top + 20, row.title, "name"))
        parts.append(_text(1, top + 20, row.text, "figure end"))
        if row.before is not None:
            parts.append(_box(axis, row.before, top + 34, 3, "before"))
        parts.append(_box(axis, row.after, top + 44, 6, "after"))
    return _svg("".join(parts), height + _AXIS_PX, label)


def _box(axis: Axis, spread: Spread, middle: float, half: float, kind: str) -> str:
    low, left, centre, right, high = (100 * axis.share(value) for value in spread.quantiles)
    # In a box as narrow as the gap that marks its median, the gap would be all there is.
    median = (
        f'<line class="median" x1="{centre:.2f}%" x2="{centre:.2f}%" '
        f'y1="{middle - half - 1}" y2="{middle + half + 1}"/>'
    ) * (right - left > _NARROW_PER_CENT)
    return (
        f'<g class="{kind}"><line x1="{low:.2f}%" x2="{high:.2f}%" y1="{middle}" y2="{middle}"/>'
        f'<rect x="{left:.2f}%" width="{max(right - left, 0.1):.2f}%" y="{middle - half}" '
        f'height="{2 * half}" rx="2"/>{median}</g>'
    )


# ------------------------------------------------------------------ intervals


@dataclass(frozen=True)
class IntervalRow:
    """A line of an interval chart: a dot and how sure it is."""

    title: str
    value: float
    low: float
    high: float
    text: str


def interval_chart(rows: Sequence[IntervalRow], label: str) -> str:
    """A dot with its interval per row, and where nothing changes."""
    axis = axis_for([0.0, *(end for row in rows for end in (row.low, row.value, row.high))])
    row_px = _ROW_PX - 12
    height = row_px * len(rows)
    zero = 100 * axis.share(0.0)
    parts = [
        _grid(axis, height),
        f'<line class="zero" x1="{zero:.2f}%" x2="{zero:.2f}%" y1="0" y2="{height}"/>',
    ]
    for number, row in enumerate(rows):
        top = number * row_px
        low, centre, high = (100 * axis.share(value) for value in (row.low, row.value, row.high))
        parts.append(_text(0, top + 18, row.title, "name"))
        parts.append(_text(1, top + 18, row.text, "figure end"))
        parts.append(
            f'<g class="after"><line x1="{low:.2f}%" x2="{high:.2f}%" y1="{top + 33}" '
            f'y2="{top + 33}"/><circle cx="{centre:.2f}%" cy="{top + 33}" r="5"/></g>'
        )
    return _svg("".join(parts), height + _AXIS_PX, label)


# ------------------------------------------------------------------ histograms


def histogram(after: Sequence[float], before: Sequence[float], label: str) -> str:
    """How many values lie where: ``after`` upwards, ``before`` downwards from the same line.

    The outermost bars hold what lies beyond the axis.
    """
    axis = axis_for([*_core(after), *_core(before)])
    counts = [_counts(values, axis) for values in (after, before)]
    highest = max(1, *map(max, counts))
    height = _HALF_PX * (2 if before else 1)
    parts = [_grid(axis, height)]
    for kind, bars in zip(("after", "before"), counts, strict=True):
        rects = []
        for number, count in enumerate(bars):
            tall = (_HALF_PX - 4) * count / highest
            if count:
                y = _HALF_PX - tall if kind == "after" else _HALF_PX
                rects.append(
                    f'<rect x="{100 * number / _NUM_BARS + 0.15:.2f}%" y="{y:.1f}" '
                    f'width="{100 / _NUM_BARS - 0.3:.2f}%" height="{tall:.1f}"/>'
                )
        parts.append(f'<g class="{kind} bars">{"".join(rects)}</g>')
    parts.append(f'<line class="base" x1="0" x2="100%" y1="{_HALF_PX}" y2="{_HALF_PX}"/>')
    return _svg("".join(parts), height + _AXIS_PX, label)


def _core(values: Sequence[float]) -> tuple[float, ...]:
    """Where the values begin and end, but for a few that are far from all others."""
    if not values:
        return ()
    ordered = sorted(values)
    low, left, right, high = (quantile(ordered, share) for share in (0.01, 0.25, 0.75, 0.99))
    reach = _FAR * (right - left)
    return max(low, left - reach), min(high, right + reach)


def _counts(values: Sequence[float], axis: Axis) -> list[int]:
    counts = [0] * _NUM_BARS
    for value in values:
        counts[min(int(axis.share(value) * _NUM_BARS), _NUM_BARS - 1)] += 1
    return counts


# ------------------------------------------------------------------ dots


@dataclass(frozen=True)
class Dot:
    """A source in a scatter chart: its value before and after, and what it is."""

    before: float
    after: float
    title: str


def scatter(dots: Sequence[Dot], label: str) -> str:
    """Before from left to right, after from bottom to top; on the line nothing has changed."""
    shown = dots[:: math.ceil(len(dots) / _MAX_DOTS)] if dots else []
    axis = axis_for([*_core([dot.before for dot in dots]), *_core([dot.after for dot in dots])])
    parts = [_grid(axis, _SCATTER_PX)]
    for tick in axis.ticks[1:-1]:
        y = _SCATTER_PX * (1 - axis.share(tick))
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(0, y - 3, axis.label(tick), "tick"))
    parts.append(f'<line class="zero" x1="0" y1="{_SCATTER_PX}" x2="100%" y2="0"/>')
    for dot in shown:
        x, y = 100 * axis.share(dot.before), _SCATTER_PX * (1 - axis.share(dot.after))
        title = f"<title>{escape(dot.title)}</title>"
        parts.append(f'<circle class="dot" cx="{x:.2f}%" cy="{y:.1f}" r="3.5">{title}</circle>')
    return _svg("".join(parts), _SCATTER_PX + _AXIS_PX, label)


# ------------------------------------------------------------------ shared parts


def _grid(axis: Axis, height: float) -> str:
    """A thin line per tick over the whole height, and the labels below."""
    parts = []
    for number, tick in enumerate(axis.ticks):
        x = 100 * axis.share(tick)
        last = len(axis.ticks) - 1
        anchor = "" if number == 0 else " end" if number == last else " middle"
        parts.append(
            f'<line class="grid" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="{height}"/>'
            f'<text class="tick{anchor}" x="{x:.2f}%" y="{height + 17}">{axis.label(tick)}</text>'
        )
    return "".join(parts)


def _text(share: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{100 * share:.2f}%" y="{y:.1f}">{escape(text)}</text>'


def _svg(content: str, height: float, label: str) -> str:
    return (
        f'<svg class="chart" role="img" aria-label="{escape(label)}" width="100%" '
        f'height="{height}">{content}</svg>'
    )
