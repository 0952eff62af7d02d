"""Two runs, item by item: which is better, by how much, and how sure is that."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unbraid.errors import DataError
from unbraid.evaluation.measures import merit
from unbraid.evaluation.results import (
    IMPROVEMENT,
    ItemResult,
    Run,
    RunInfo,
    SourceResult,
    plain,
)
from unbraid.evaluation.statistics import Interval, bootstrap_interval, paired_test

# What a protocol says of oracles and of averages changes no source's own numbers.
_RULES_OF_OTHER_NUMBERS = ("oracles", "oracle_stft", "summary", "medians")


@dataclass(frozen=True)
class ComparisonRow:
    """Two runs by one measure, over the same sources.

    Attributes:
        measure: Name of the measure.
        title: ``all``, a part or a prompt.
        num_pairs: Sources for which it is defined in both.
        first: Mean of the first run.
        second: Mean of the second.
        difference: Second minus first.
        p_value: How often a difference as large would come by chance, two-sided.
        num_better: Sources for which the second run is better.
        num_worse: Sources for which it is worse.
    """

    measure: str
    title: str
    num_pairs: int
    first: float
    second: float
    difference: Interval
    p_value: float
    num_better: int
    num_worse: int


@dataclass(frozen=True)
class Change:
    """What became of one source, by the leading measure."""

    item: str
    stem: str
    first: float
    second: float


@dataclass(frozen=True)
class RunComparison:
    """Two runs side by side.

    Attributes:
        first: What the first run measured.
        second: What the second run measured.
        rows: Measure by measure, over everything, then by part and prompt.
        changes: Every source, the greatest loss of the second run first.
        warnings: What makes the two not quite comparable.
    """

    first: RunInfo
    second: RunInfo
    rows: tuple[ComparisonRow, ...]
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Pair:
    """One source in both runs."""

    item: ItemResult
    first: SourceResult
    second: SourceResult


def compare_runs(first: Run, second: Run, measures: Sequence[str] | None = None) -> RunComparison:
    """Compare two runs over the sources that both have measured.

    Sources are paired by their mixture's name and their own. Means are over all pairs at once,
    whatever rule the protocol sums up by, so that differences are of one source each. Intervals
    and tests take a song's mixtures, or a mixture's sources, as one: ``evaluation.statistics``.
    The first measure leads: ``changes`` are of it, ordered so that losses come first whether
    higher, lower or near-zero values are better.

    Args:
        first: What is compared with.
        second: What is held against it.
        measures: Names, also of improvements (``si_sdr_db_improvement``); those that both runs
            have unless given.

    Raises:
        DataError: If the runs share no source or no measure, or lack one that is asked for.
    """
    theirs = {(item.item, source.stem): source for item in second.items for source in item.sources}
    pairs = [
        _Pair(item, source, theirs[item.item, source.stem])
        for item in first.items
        for source in item.sources
        if (item.item, source.stem) in theirs
    ]
    if not pairs:
        raise DataError(
            f"the runs share no source ({_in_words(first)}; {_in_words(second)}); "
            "compare two runs over the same mixtures."
        )
    chosen = _shared_measures(first.info, second.info, measures)
    rows = tuple(row for measure in chosen for row in _rows(measure, pairs) if row.num_pairs > 0)
    return RunComparison(
        first=first.info,
        second=second.info,
        rows=rows,
        changes=_changes(chosen[0], pairs),
        warnings=tuple(_warnings(first, second, len(pairs))),
    )


def _in_words(run: Run) -> str:
    return f"{len(run.items)} mixtures of {run.info.benchmark}"


def _shared_measures(
    first: RunInfo, second: RunInfo, measures: Sequence[str] | None
) -> tuple[str, ...]:
    shared = tuple(name for name in first.measures if name in second.measures)
    if measures is None:
        if not shared:
            raise DataError(
                f"the runs share no measure: the first has {', '.join(first.measures)}, "
                f"the second {', '.join(second.measures)}."
            )
        return shared
    for name in measures:
        if name.removesuffix(IMPROVEMENT) not in shared:
            raise DataError(
                f"the measure {name} is not in both runs; both have "
                f"{', '.join(shared) or 'none in common'}."
            )
    return tuple(measures)


def _rows(measure: str, pairs: Sequence[_Pair]) -> Iterator[ComparisonRow]:
    yield _row(measure, "all", pairs)
    for label in (_part_of, _prompt_of):
        for title in dict.fromkeys(label(pair) for pair in pairs if label(pair)):
            yield _row(measure, title, [pair for pair in pairs if label(pair) == title])


def _part_of(pair: _Pair) -> str:
    return pair.item.part


def _prompt_of(pair: _Pair) -> str:
    return pair.first.prompt


def _row(measure: str, title: str, pairs: Sequence[_Pair]) -> ComparisonRow:
    defined = list(_values(measure, pairs))
    groups = [pair.item.group or pair.item.item for pair, _, _ in defined]
    differences = [second - first for _, first, second in defined]
    gains = [merit(measure, second) - merit(measure, first) for _, first, second in defined]
    return ComparisonRow(
        measure=measure,
        title=title,
        num_pairs=len(defined),
        first=_mean([first for _, first, _ in defined]),
        second=_mean([second for _, _, second in defined]),
        difference=bootstrap_interval(differences, "mean", groups),
        p_value=paired_test(differences, groups),
        num_better=sum(gain > 0 for gain in gains),
        num_worse=sum(gain < 0 for gain in gains),
    )


def _values(measure: str, pairs: Sequence[_Pair]) -> Iterator[tuple[_Pair, float, float]]:
    for pair in pairs:
        first, second = pair.first.value(measure), pair.second.value(measure)
        if not math.isnan(second - first):
            yield pair, first, second


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _changes(measure: str, pairs: Sequence[_Pair]) -> tuple[Change, ...]:
    gains = {
        Change(pair.item.item, pair.first.stem, first, second): merit(measure, second)
        - merit(measure, first)
        for pair, first, second in _values(measure, pairs)
    }
    return tuple(sorted(gains, key=lambda change: (gains[change], change.item, change.stem)))


def _warnings(first: Run, second: Run, num_pairs: int) -> Iterator[str]:
    if first.info.benchmark != second.info.benchmark:
        yield f"different benchmarks: {first.info.benchmark} and {second.info.benchmark}"
    yield from _different_rules(first.info, second.info)
    digests = {first.info.items_digest, second.info.items_digest}
    if len(digests) == 2 and "" not in digests:
        yield "the mixtures are not made of the same files"
    for name, run in (("first", first), ("second", second)):
        missing = sum(len(item.sources) for item in run.items) - num_pairs
        if missing:
            yield f"sources in the {name} run only, left out: {missing}"
    if first.info.version != second.info.version:
        yield f"measured by different versions: {first.info.version} and {second.info.version}"


def _different_rules(first: RunInfo, second: RunInfo) -> Iterator[str]:
    for key in dict.fromkeys((*first.protocol, *second.protocol)):
        one, other = _rule(first, key), _rule(second, key)
        if one != other and key not in _RULES_OF_OTHER_NUMBERS:
            yield f"different protocols: {key} is {one} in the first run, {other} in the second"


def _rule(info: RunInfo, key: str) -> str:
    rule = info.protocol.get(key)
    if key == "measures" and rule:
        rule = rule[0]  # it decides the order of the estimates; the others change nothing
    # Tuples of a run in memory are lists in one that was read.
    return json.dumps(plain(rule), sort_keys=True)
