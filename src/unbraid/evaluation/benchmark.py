"""What a benchmark is: mixtures, rules, and the numbers that others have published by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unbraid.data.corpora.base import MixtureLister
from unbraid.evaluation.items import Protocol


@dataclass(frozen=True)
class PublishedResult:
    """A line of a published table.

    Attributes:
        system: What was measured, for example ``TUSS medium``.
        values: Measure → value.
        source: Where it was published.
        row: ``all``, or the prompt that the values are of.
        note: What makes it not quite comparable; empty where nothing does.
    """

    system: str
    values: Mapping[str, float]
    source: str
    row: str = "all"
    note: str = ""


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark.

    Attributes:
        name: What it is called on the command line.
        title: A headline.
        corpus: Name of the corpus that its mixtures come from.
        protocol: How they are separated and scored.
        mixtures: Lists them.
        published: What others reached.
        source: The paper whose rules these are.
        stand_in: What is asked in the place of prompts that the model does not know; empty
            where a model without them cannot be measured.
        notes: Rules that are worth knowing, in a sentence or two.
    """

    name: str
    title: str
    corpus: str
    protocol: Protocol
    mixtures: MixtureLister
    published: tuple[PublishedResult, ...]
    source: str
    stand_in: str = ""
    notes: str = ""
