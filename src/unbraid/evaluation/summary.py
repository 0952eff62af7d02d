"""From many results to few numbers: over everything, part by part, prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


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

    kind: Literal["all", "part", "prompt"]
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
