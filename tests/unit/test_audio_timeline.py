"""The clock of a track: holes, overlaps and clocks that start anew."""

import pytest

from unbraid.audio.timeline import Placement, Timeline

RATE = 48_000
FRAME = 960


def placed(*times_s: float | None, tick_s: float = 0.001, latest_s: float = 1e9) -> Timeline:
    timeline = Timeline(RATE, tick_s, latest_s)
    timeline.placements = [timeline.place(time_s, FRAME) for time_s in times_s]
    return timeline


def test_frames_that_follow_each_other_are_left_alone() -> None:
    timeline = placed(5.0, 5.02, None, 5.06)

    assert timeline.placements == [Placement()] * 4
    assert timeline.is_untouched
    assert (timeline.first_s, timeline.num_samples) == (5.0, 4 * FRAME)
    assert timeline.position_of(5.08) == 4 * FRAME


def test_a_hole_is_as_long_as_whole_frames_if_the_ticks_are_coarse() -> None:
    assert placed(0.0, 0.061).holes == [(0.02, pytest.approx(0.04))]
    assert placed(0.0, 0.061, tick_s=1 / RATE).holes == [(0.02, pytest.approx(0.041))]


def test_a_clock_that_is_slightly_fast_tears_nothing_apart() -> None:
    timeline = placed(*(number * 0.0203 for number in range(1000)))

    assert timeline.is_untouched
    assert timeline.num_samples == 1000 * FRAME


def test_small_losses_are_made_good_when_they_add_up() -> None:
    """Each jump of 8 ms is too small for a hole; two are not."""
    timeline = placed(0.0, 0.028, 0.056, 0.084, 0.112, tick_s=1 / RATE)

    assert [round(length_s, 3) for _, length_s in timeline.holes] == [0.016, 0.016]
    assert timeline.position_of(0.112) == timeline.num_samples - FRAME


def test_an_overlap_is_dropped_whatever_frames_it_spans() -> None:
    timeline = placed(0.0, 0.02, 0.04, 0.06, 0.03, 0.05, 0.07, 0.09)

    assert sum(placement.num_dropped for placement in timeline.placements) == 2_400
    assert timeline.overlaps == [(0.08, pytest.approx(0.05))]
    assert timeline.position_of(0.11) == timeline.num_samples


@pytest.mark.parametrize("restart_s", [0.0, -7.0, 50.0])
def test_a_clock_that_starts_anew_loses_nothing(restart_s: float) -> None:
    timeline = placed(0.0, 0.02, 0.04, restart_s, restart_s + 0.02, latest_s=10.0)

    assert timeline.placements == [Placement()] * 5
    assert timeline.restarts == [0.06]
    assert timeline.position_of(restart_s) == 3 * FRAME
