"""Averages, bootstrap intervals and the paired test: by hand, and against SciPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unbraid.evaluation.statistics import (
    Interval,
    average,
    bootstrap_interval,
    paired_test,
)

NAN = math.nan
FEW_NUMBERS = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=8)


def test_averages_by_hand() -> None:
    assert average([1.0, NAN, 3.0, 8.0]) == 4.0
    assert average([1.0, NAN, 3.0, 8.0], "median") == 3.0
    assert average([1.0, 2.0, 3.0, 8.0], "median") == 2.5  # the middle of the two in the middle
    assert math.isnan(average([]))
    assert math.isnan(average([NAN], "median"))


def test_classes_are_averaged_each_by_itself() -> None:
    values, classes = [1.0, 2.0, 9.0, 20.0, NAN], ["a", "a", "a", "b", "c"]
    assert average(values, "median", classes) == (2.0 + 20.0) / 2
    assert average(values, "mean", classes) == (4.0 + 20.0) / 2


def test_an_interval_holds_its_number_and_narrows_with_more_values() -> None:
    numbers = np.random.default_rng(3).normal(5.0, 2.0, 400).tolist()
    few, many = bootstrap_interval(numbers[:25]), bootstrap_interval(numbers)
    assert few.low < few.value < few.high
    assert many.value == pytest.approx(np.mean(numbers))
    assert many.count == 400
    # Normal theory: 1.96 standard deviations of the mean to either side.
    assert (many.high - many.low) / 2 == pytest.approx(1.96 * 2.0 / math.sqrt(400), rel=0.15)
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4.0, rel=0.35)


def test_the_interval_of_a_median_is_near_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    numbers = np.random.default_rng(4).exponential(size=101)
    theirs = stats.bootstrap(
        (numbers,), np.median, method="percentile", n_resamples=4000, rng=0
    ).confidence_interval
    ours = bootstrap_interval(numbers.tolist(), "median")
    assert ours.value == np.median(numbers)
    assert ours.low == pytest.approx(theirs.low, abs=0.06)
    assert ours.high == pytest.approx(theirs.high, abs=0.06)


def test_the_same_seed_gives_the_same_interval() -> None:
    numbers = np.random.default_rng(5).normal(size=30).tolist()
    assert bootstrap_interval(numbers, seed=1) == bootstrap_interval(numbers, seed=1)
    assert bootstrap_interval(numbers, seed=1) != bootstrap_interval(numbers, seed=2)


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_one_value_or_one_group_is_an_interval_of_no_width(statistic: str) -> None:
    assert bootstrap_interval([3.5, NAN], statistic) == Interval(3.5, 3.5, 3.5, 1)
    assert bootstrap_interval([3.0, 4.0], statistic, ["a", "a"]) == Interval(3.5, 3.5, 3.5, 2)


def test_nothing_defined_is_no_number() -> None:
    for values in ([], [NAN, NAN]):
        interval = bootstrap_interval(values)
        assert interval.count == 0
        assert all(math.isnan(each) for each in (interval.value, interval.low, interval.high))


def test_copies_inside_groups_do_not_make_a_number_surer() -> None:
    numbers = np.random.default_rng(6).normal(size=20).tolist()
    once = bootstrap_interval(numbers)
    copied = bootstrap_interval(numbers * 10, groups=list(range(20)) * 10)
    blind = bootstrap_interval(numbers * 10)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert blind.high - blind.low < 0.5 * (once.high - once.low)


def test_larger_groups_weigh_more_in_a_mean() -> None:
    interval = bootstrap_interval([0.0, 0.0, 0.0, 4.0], groups=["a", "a", "a", "b"])
    # Drawn are aa, ab, ba or bb: means of 0, 1, 1 and 4.
    assert (interval.value, interval.low, interval.high) == (1.0, 0.0, 4.0)


def test_a_class_that_was_not_drawn_is_left_out() -> None:
    interval = bootstrap_interval([1.0, 5.0], "median", classes=["a", "b"])
    # Drawn are aa, ab, ba or bb: 1, 3, 3 and 5, never nan.
    assert (interval.value, interval.low, interval.high) == (3.0, 1.0, 5.0)


@settings(deadline=None)
@given(FEW_NUMBERS, st.sampled_from(["mean", "median"]))
def test_intervals_lie_between_the_extremes(values: list[float], statistic: str) -> None:
    interval = bootstrap_interval(values, statistic)
    assert min(values) <= interval.low <= interval.value <= interval.high <= max(values)


def test_the_paired_test_by_hand() -> None:
    # Five gains: of 32 choices of signs, this one and its mirror are as lopsided.
    assert paired_test([1.0, 2.0, 3.0, 4.0, 5.0]) == 2 / 32
    assert paired_test([1.0]) == 1.0
    assert paired_test([1.0, -1.0]) == 1.0
    assert paired_test([0.0, 0.0, 0.0]) == 1.0
    assert paired_test([]) == 1.0
    assert paired_test([1.0, 2.0, 3.0, 0.0, 4.0, NAN, 5.0]) == 2 / 32


@settings(deadline=None)
@given(FEW_NUMBERS)
def test_the_paired_test_counts_every_choice_of_signs(differences: list[float]) -> None:
    numbers = [number for number in differences if number]
    sizes = sorted(abs(number) for number in numbers)
    rank = {size: sizes.index(size) + 1 + (sizes.count(size) - 1) / 2 for size in set(sizes)}
    totals = [
        sum(rank[abs(number)] for number, is_gain in zip(numbers, gains, strict=True) if is_gain)
        for gains in itertools.product([False, True], repeat=len(numbers))
    ]
    found = sum(rank[abs(number)] for number in numbers if number > 0)
    tails = (sum(each <= found for each in totals), sum(each >= found for each in totals))
    assert paired_test(differences) == pytest.approx(min(1.0, 2 * min(tails) / len(totals)))


@settings(deadline=None)
@given(FEW_NUMBERS)
def test_the_paired_test_has_no_side(differences: list[float]) -> None:
    assert paired_test(differences) == pytest.approx(paired_test([-d for d in differences]))


@pytest.mark.parametrize("count", [8, 30, 50, 51, 200])
def test_the_paired_test_is_that_of_scipy(count: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    differences = np.random.default_rng(count).normal(0.3, 1.0, count)
    method = "exact" if count <= 50 else "asymptotic"
    expected = stats.wilcoxon(differences, method=method).pvalue
    assert paired_test(differences.tolist()) == pytest.approx(expected, rel=1e-9)


def test_ties_among_many_pairs_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    differences = np.random.default_rng(1).integers(-3, 5, 90).astype(float)
    expected = stats.wilcoxon(differences, method="asymptotic", zero_method="wilcox").pvalue
    assert paired_test(differences.tolist()) == pytest.approx(expected, rel=1e-9)


def test_a_group_of_pairs_counts_as_one() -> None:
    groups = ["a", "a", "b", "b", "c", "c"]
    assert paired_test([1.0, 3.0, 2.0, 2.0, 5.0, -1.0], groups) == paired_test([2.0, 2.0, 2.0])
    assert paired_test([1.0, NAN, 2.0, NAN, NAN, NAN], groups) == paired_test([1.0, 2.0])
