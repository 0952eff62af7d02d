"""Charts: round axes, and everything at its place."""

import re
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbraid.apps.charts import (
    BoxRow,
    Dot,
    IntervalRow,
    Spread,
    axis_for,
    box_chart,
    histogram,
    interval_chart,
    quantile,
    scatter,
    spread_of,
)

NUMBERS = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


def numbers_of(svg: str, attribute: str) -> list[float]:
    return [float(text) for text in re.findall(rf' {attribute}="([-0-9.]+)%?"', svg)]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([-1.3, 18.0], (-5.0, 0.0, 5.0, 10.0, 15.0, 20.0)),
        ([0.12, 0.93], (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ([3.0, 3.0], (2.4, 2.6, 2.8, 3.0, 3.2, 3.4, 3.6)),
        ([], (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    ],
)
def test_axes_have_round_ticks(values: list[float], ticks: tuple[float, ...]) -> None:
    assert axis_for(values).ticks == ticks


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_an_axis_holds_all_values_and_is_not_crowded(values: list[float]) -> None:
    axis = axis_for(values)
    margin = 1e-6 * (1 + max(map(abs, values)))
    assert axis.low <= min(values) + margin
    assert axis.high >= max(values) - margin
    assert 2 <= len(axis.ticks) <= 12
    assert len({axis.label(tick) for tick in axis.ticks}) == len(axis.ticks)


def test_labels_have_a_real_minus_and_no_negative_zero() -> None:
    axis = axis_for([-10.0, 10.0])
    assert axis.label(axis.low) == "\N{MINUS SIGN}10"
    assert axis.label(-0.0) == "0"


@given(st.lists(NUMBERS, min_size=1, max_size=30))
def test_quantiles_lie_between_the_values(values: list[float]) -> None:
    ordered = sorted(values)
    assert quantile(ordered, 0.0) == ordered[0]
    assert quantile(ordered, 1.0) == ordered[-1]
    assert quantile(ordered, 0.5) == pytest.approx(median(ordered), abs=1e-6)


def test_a_spread_is_made_of_quantiles() -> None:
    assert spread_of([float(n) for n in range(101)]) == Spread((5.0, 25.0, 50.0, 75.0, 95.0), 101)
    assert spread_of([]) is None


def test_boxes_stand_where_their_quantiles_are() -> None:
    after = Spread((0.0, 25.0, 50.0, 75.0, 100.0), 9)
    svg = box_chart([BoxRow("speech", None, after, "50.0")], "a label")
    [box] = re.findall(r"<rect[^>]*>", svg)
    assert numbers_of(box, "x") == [25.0]
    assert numbers_of(box, "width") == [50.0]
    assert 'class="median" x1="50.00%"' in svg


def test_a_dot_stands_at_its_value() -> None:
    svg = interval_chart([IntervalRow("all", 2.0, 0.0, 4.0, "+2.0")], "a label")
    [dot] = re.findall(r"<circle[^>]*>", svg)
    assert numbers_of(dot, "cx") == [50.0]


def test_bars_count_every_value_and_the_outermost_hold_the_rest() -> None:
    values = [float(n) for n in range(100)] * 10
    svg = histogram([*values, 1e6, 1e6], [], "a label")
    heights = numbers_of(" ".join(re.findall(r"<rect[^>]*>", svg)), "height")
    assert len(heights) == 40
    # 102.5 values in the highest bar would be 92 pixels; bars differ by one value at most,
    # but for the last one, which has two more.
    assert max(heights) == pytest.approx(92)
    assert svg.count(">0<") == svg.count(">100<") == 1


def test_bars_of_the_mixture_hang_from_the_same_line() -> None:
    svg = histogram([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], "a label")
    up, down = re.findall(r'<g class="(?:after|before) bars">(.*?)</g>', svg)
    assert set(numbers_of(down, "y")) == {96.0}
    assert [
        y + height for y, height in zip(numbers_of(up, "y"), numbers_of(up, "height"), strict=True)
    ] == pytest.approx([96.0] * 3)


def test_dots_on_the_line_have_not_changed() -> None:
    svg = scatter([Dot(float(n), float(n), "same") for n in range(11)], "a label")
    x, y = numbers_of(svg, "cx"), numbers_of(svg, "cy")
    assert x == [10.0 * n for n in range(11)]
    assert y == pytest.approx([192 * (1 - n / 10) for n in range(11)], abs=0.1)


def test_a_cloud_is_thinned_out() -> None:
    svg = scatter([Dot(n / 100, n / 200, "") for n in range(20_000)], "a label")
    assert 1000 < svg.count("<circle") <= 1500


@pytest.mark.parametrize(
    "svg",
    [
        box_chart([BoxRow("<b>", None, Spread((0, 1, 2, 3, 4), 5), "<i>")], '"<u>"'),
        interval_chart([IntervalRow("<b>", 1, 0, 2, "<i>")], '"<u>"'),
        scatter([Dot(1, 2, "<b>")], '"<u>"'),
    ],
)
def test_names_are_escaped_and_the_label_is_there(svg: str) -> None:
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert 'role="img" aria-label="&quot;&lt;u&gt;&quot;"' in svg
