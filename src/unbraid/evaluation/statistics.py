"""How sure a number is, and whether a difference could be chance.

Mixtures of one song, or sources of one mixture, resemble each other, so they say less than as
many independent ones would. Both functions here take whole groups of them at a time.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

_Floats: TypeAlias = npt.NDArray[np.float64]
_Counts: TypeAlias = npt.NDArray[np.int64]

_NUM_RESAMPLES = 1000
_TAIL = 0.025
#: Up to as many pairs the distribution of ranks is counted out; beyond it is near normal.
_MAX_COUNTED_PAIRS = 50


@dataclass(frozen=True)
class Interval:
    """A number and how sure it is.

    Attributes:
        value: The number; nan where nothing was defined.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        count: How many values it comes from; those that are not defined do not count.
    """

    value: float
    low: float
    high: float
    count: int


def average(
    values: Sequence[float],
    statistic: Literal["mean", "median"] = "mean",
    classes: Sequence[Hashable] | None = None,
) -> float:
    """Mean or median of those values that are defined; nan where none is.

    The median of an even count is the mean of the two in the middle.

    Args:
        values: What is averaged; nan is left out.
        statistic: Mean or median.
        classes: The class of each value. Each class is averaged by itself, and the mean of
            the classes is the result.
    """
    numbers, members = _defined(values, classes)
    take = np.mean if statistic == "mean" else np.median
    by_class = [take(numbers[members == one]) for one in np.unique(members)]
    return float(np.mean(by_class)) if by_class else math.nan


def bootstrap_interval(
    values: Sequence[float],
    statistic: Literal["mean", "median"] = "mean",
    groups: Sequence[Hashable] | None = None,
    classes: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Interval:
    """An average with its 95 % interval, by resampling whole groups.

    Groups are drawn with replacement, as many as there are, a thousand times; the interval
    leaves out the lowest and the highest 2.5 % of the averages. The same values and seed give
    the same interval. One value, or one group, has nothing to be resampled: its interval is the
    number itself, which does not mean that it is sure.

    Args:
        values: What is averaged; nan is left out.
        statistic: Mean or median.
        groups: What each value belongs to; each to itself unless given.
        classes: As in ``average``.
        seed: Of the random draws.

    Source: B. Efron and R. Tibshirani, "An introduction to the bootstrap", 1993, chapter 13,
        percentile intervals; whole groups as in A. Davison and D. Hinkley, "Bootstrap methods
        and their application", 1997, section 3.8.
    """
    numbers, members = _defined(values, classes)
    value = average(values, statistic, classes)
    if len(numbers) == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    _, owners = _defined(values, range(len(values)) if groups is None else groups)
    resamples = _resamples(int(owners.max()) + 1, seed)
    resampled = _weighted_median if statistic == "median" else _weighted_mean
    by_class = np.stack(
        [
            resampled(numbers[members == one], owners[members == one], resamples)
            for one in np.unique(members)
        ]
    )
    # A class whose groups were not drawn is left out of that resample.
    drawn = ~np.isnan(by_class)
    averages = np.where(drawn, by_class, 0.0).sum(axis=0) / drawn.sum(axis=0)
    low, high = np.quantile(averages, (_TAIL, 1.0 - _TAIL))
    # Rounding may put the ends of a narrow interval beside its number.
    return Interval(value, min(float(low), value), max(float(high), value), len(numbers))


def paired_test(differences: Sequence[float], groups: Sequence[Hashable] | None = None) -> float:
    """How often differences that are as lopsided would come by chance, on both sides.

    Wilcoxon's signed-rank test: under chance each difference is as likely to have the other sign.
    Differences of 0 say nothing and are left out; where nothing is left the result is 1. Up to 50
    pairs are counted out exactly, ties included; above, ranks are taken as normally distributed.

        T = sum of the ranks of |d| over all d > 0

    Args:
        differences: One per pair; nan is left out.
        groups: What each pair belongs to. The differences of a group count as one, their mean.

    Source: F. Wilcoxon, "Individual comparisons by ranking methods", Biometrics, 1945.
    """
    numbers, owners = _defined(differences, groups)
    if groups is not None and len(numbers):
        numbers = np.bincount(owners, numbers) / np.bincount(owners)
    numbers = numbers[numbers != 0.0]
    count = len(numbers)
    if count == 0:
        return 1.0
    _, places, ties = np.unique(np.abs(numbers), return_inverse=True, return_counts=True)
    # Equal differences share the mean of their ranks; twice that is a whole number.
    last = np.cumsum(ties)
    doubled = (2 * last - ties + 1)[places]
    total = int(doubled[numbers > 0].sum())
    if count <= _MAX_COUNTED_PAIRS:
        return _counted_out(doubled, total)
    # Mean and variance of T, doubled as the ranks are; ties lower the variance.
    mean = doubled.sum() / 2
    variance = (doubled.astype(np.float64) ** 2).sum() / 4
    return math.erfc(abs(total - mean) / math.sqrt(2 * variance))


def _counted_out(doubled: _Counts, total: int) -> float:
    """Share of all choices of signs whose ranks add up to ``total`` or are more lopsided."""
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1.0
    for rank in doubled:
        # Each rank is counted in or not.
        ways[rank:] += ways[: len(ways) - rank].copy()
    smaller, greater = ways[: total + 1].sum(), ways[total:].sum()
    return min(1.0, 2.0 * float(min(smaller, greater)) / 2.0 ** len(doubled))


def _defined(values: Sequence[float], labels: Sequence[Hashable] | None) -> tuple[_Floats, _Counts]:
    """Values that are defined, and the label of each as a number from 0 on; 0 without labels."""
    numbers = np.asarray(values, dtype=np.float64)
    kept = ~np.isnan(numbers)
    if labels is None:
        return numbers[kept], np.zeros(int(kept.sum()), dtype=np.int64)
    places: dict[Hashable, int] = {}
    codes = [
        places.setdefault(label, len(places))
        for label, is_kept in zip(labels, kept, strict=True)
        if is_kept
    ]
    return numbers[kept], np.asarray(codes, dtype=np.int64)


@lru_cache(maxsize=4)
def _resamples(num_groups: int, seed: int) -> npt.NDArray[np.uint16]:
    """How often each group is drawn: ``[resample, group]``."""
    generator = np.random.default_rng(seed)
    drawn = np.empty((_NUM_RESAMPLES, num_groups), dtype=np.uint16)
    for row in drawn:
        row[:] = np.bincount(generator.integers(num_groups, size=num_groups), minlength=num_groups)
    drawn.setflags(write=False)
    return drawn


def _weighted_mean(numbers: _Floats, owners: _Counts, resamples: npt.NDArray[np.uint16]) -> _Floats:
    num_groups = resamples.shape[1]
    sums = np.bincount(owners, numbers, minlength=num_groups)
    counts = np.bincount(owners, minlength=num_groups)
    weights = resamples.astype(np.float64)
    with np.errstate(invalid="ignore"):  # nothing of this class was drawn: nan
        return np.asarray((weights @ sums) / (weights @ counts))


def _weighted_median(
    numbers: _Floats, owners: _Counts, resamples: npt.NDArray[np.uint16]
) -> _Floats:
    order = np.argsort(numbers)
    numbers, owners = numbers[order], owners[order]
    medians = np.empty(len(resamples))
    for row, drawn in enumerate(resamples):
        reached = np.cumsum(drawn[owners], dtype=np.int64)
        count = reached[-1]
        if count == 0:
            medians[row] = math.nan
            continue
        # Where the numbers stood in a row, each as often as drawn: the middle, or both middles.
        middle = np.searchsorted(reached, ((count - 1) // 2, count // 2), side="right")
        medians[row] = numbers[middle].mean()
    return medians
