"""From many results to few numbers: over everything, part by part, prompt by prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from unbraid.errors import DataError
from unbraid.evaluation.results import IMPROVEMENT, ItemResult, Run, SourceResult
from unbraid.evaluation.statistics import Interval, average, bootstrap_interval

__all__ = ["Interval", "Summary", "SummaryRow", "summarise"]

RowKind: TypeAlias = Literal["all", "part", "prompt"]

#: The rule of the protocol's ``medians``.
_MEDIANS_OF_PROMPTS = "medians"
_RULES = ("mean", "mean-of-sources", "median", "median-of-groups")


@dataclass(frozen=True)
class SummaryRow:
    """One line of a table.

    Attributes:
        kind: What it sums up.
        title: ``all``, the part, or the prompt.
        num_items: Mixtures.
        num_sources: Sources.
        estimate: Measure → of the model's estimates.
        mixture: Measure → with the mixture as every estimate.
        improvement: Measure → what the model gains over the mixture.
        oracles: Oracle → measure → what its masks reach.
    """

    kind: RowKind
    title: str
    num_items: int
    num_sources: int
    estimate: Mapping[str, Interval]
    mixture: Mapping[str, float]
    improvement: Mapping[str, Interval]
    oracles: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Summary:
    """All lines: one over everything, then one per part, then one per prompt.

    Attributes:
        rows: The lines.
        measures: Names of the measures, the one that leads first.
        audio_s: Length of all mixtures.
        elapsed_s: How long all separations took.
    """

    rows: tuple[SummaryRow, ...]
    measures: tuple[str, ...]
    audio_s: float
    elapsed_s: float


@dataclass(frozen=True)
class _Placed:
    """A source's result, and the mixture that it is from."""

    item: ItemResult
    source: SourceResult

    @property
    def unit(self) -> str:
        """What is resampled as a whole: a song's mixtures, or the sources of one mixture."""
        return self.item.group or self.item.item


@dataclass(frozen=True)
class _Sample:
    """What is averaged, what belongs together, and how it is averaged."""

    values: Sequence[float]
    units: Sequence[str]
    statistic: Literal["mean", "median"]
    classes: Sequence[str] | None = None


def summarise(run: Run, seed: int = 0) -> Summary:
    """Sum up a run by the rule of its protocol, with intervals.

    The rule is ``summary`` in the protocol, but for measures that are among its ``medians``: see
    ``items.Protocol``. A part is summed up as everything is. Intervals come from resampling
    whole groups of mixtures, or whole mixtures where these belong to no group; what is not
    defined is left out. Parts and prompts stand in the order of their first mixture; mixtures
    without a part are in none.

    Args:
        run: The run.
        seed: Of the resampling; the same run and seed give the same summary.

    Raises:
        DataError: If the protocol names a rule that there is not.
    """
    rule = run.info.protocol.get("summary", "mean")
    if rule not in _RULES:
        raise DataError(
            f"the protocol of {run.info.benchmark} sums up by {rule!r}; known: {', '.join(_RULES)}."
        )
    sources = [_Placed(item, source) for item in run.items for source in item.sources]
    tables: list[tuple[RowKind, str, list[_Placed]]] = [("all", "all", sources)]
    for part in dict.fromkeys(placed.item.part for placed in sources if placed.item.part):
        tables.append(("part", part, [each for each in sources if each.item.part == part]))
    for prompt in dict.fromkeys(placed.source.prompt for placed in sources):
        tables.append(
            ("prompt", prompt, [each for each in sources if each.source.prompt == prompt])
        )
    return Summary(
        rows=tuple(_row(kind, title, placed, run, rule, seed) for kind, title, placed in tables),
        measures=tuple(run.info.measures),
        audio_s=sum(item.duration_s for item in run.items),
        elapsed_s=sum(item.elapsed_s for item in run.items),
    )


def _row(
    kind: RowKind, title: str, sources: Sequence[_Placed], run: Run, rule: str, seed: int
) -> SummaryRow:
    medians = run.info.protocol.get("medians", ())

    def sample(measure: str, values: Sequence[float]) -> _Sample:
        return _sample(sources, values, _MEDIANS_OF_PROMPTS if measure in medians else rule, kind)

    def interval(measure: str, values: Sequence[float]) -> Interval:
        found = sample(measure, values)
        interval = bootstrap_interval(
            found.values, found.statistic, found.units, found.classes, seed
        )
        return replace(interval, count=sum(not math.isnan(value) for value in values))

    def number(measure: str, values: Sequence[float]) -> float:
        found = sample(measure, values)
        return average(found.values, found.statistic, found.classes)

    measures = run.info.measures
    results = [placed.source for placed in sources]
    oracles = dict.fromkeys(name for source in results for name in source.oracles)
    return SummaryRow(
        kind=kind,
        title=title,
        num_items=len({placed.item.item for placed in sources}),
        num_sources=len(sources),
        estimate={
            name: interval(name, [each.value(name) for each in results]) for name in measures
        },
        mixture={
            name: number(name, [each.mixture.get(name, math.nan) for each in results])
            for name in measures
        },
        improvement={
            name: interval(name, [each.value(name + IMPROVEMENT) for each in results])
            for name in measures
        },
        oracles={
            oracle: {
                name: number(
                    name, [each.oracles.get(oracle, {}).get(name, math.nan) for each in results]
                )
                for name in measures
                if any(name in each.oracles.get(oracle, {}) for each in results)
            }
            for oracle in oracles
        },
    )


def _sample(
    sources: Sequence[_Placed], values: Sequence[float], rule: str, kind: RowKind
) -> _Sample:
    units = [placed.unit for placed in sources]
    if rule == "mean":
        by_item = _collected(values, [placed.item.item for placed in sources])
        unit_of = {placed.item.item: placed.unit for placed in sources}
        return _Sample(
            [average(of_item) for of_item in by_item.values()],
            [unit_of[item] for item in by_item],
            "mean",
        )
    if rule == "mean-of-sources":
        return _Sample(values, units, "mean")
    if rule == _MEDIANS_OF_PROMPTS:
        return _Sample(values, units, "median", [placed.source.prompt for placed in sources])
    if rule == "median-of-groups" and kind == "prompt":
        by_unit = _collected(values, units)
        medians = [average(of_unit, "median") for of_unit in by_unit.values()]
        return _Sample(medians, list(by_unit), "median")
    return _Sample(values, units, "median")


def _collected(values: Sequence[float], labels: Sequence[str]) -> dict[str, list[float]]:
    collected: dict[str, list[float]] = {}
    for value, label in zip(values, labels, strict=True):
        collected.setdefault(label, []).append(value)
    return collected
