"""Two runs, item by item: which is better, by how much, and how sure is that."""

from __future__ import annotations

from dataclasses import dataclass

from unbraid.evaluation.results import RunInfo
from unbraid.evaluation.summary import Interval


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
