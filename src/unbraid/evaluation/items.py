"""Mixtures to measure on, in memory, and how a benchmark wants them treated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from unbraid.types import Waveform


@dataclass(frozen=True, eq=False)
class Item:
    """A mixture whose sources are known.

    Attributes:
        name: Unique in its benchmark.
        mixture: What is to be separated.
        references: Its sources, with the channels and the length of the mixture; they need
            not add up to it.
        prompts: What is asked for, one per reference.
        part: The part of the benchmark that it belongs to; may be empty.
        group: What several items belong to, such as a song; empty for nothing.
    """

    name: str
    mixture: Waveform
    references: Float[Tensor, "source channel time"]
    prompts: tuple[str, ...]
    part: str = ""
    group: str = ""


@dataclass(frozen=True)
class Protocol:
    """How the mixtures of a benchmark are separated and scored.

    Attributes:
        segment_s: Longest stretch that the model hears at once; None for whole mixtures.
        overlap_s: How much neighbouring stretches share.
        channels: ``first`` drops all channels but one, ``mono`` takes their mean, ``each``
            takes every channel for a mixture of its own, ``all`` keeps them together.
        sample_rate: Mixture and references are brought to this rate before; None for theirs.
        pieces_s: Mixtures are cut into pieces of this length, each measured by itself, and a
            shorter rest is dropped; None for whole mixtures.
        single_prompt: Ask for each distinct prompt by itself.
        wiener: Pass the estimates through a multichannel Wiener filter.
        measures: What is measured, by name; the first decides the order inside equal prompts
            and leads the table.
        summary: How one number comes from many: ``mean`` over a mixture's sources and then
            over mixtures; ``mean-of-sources`` over all sources at once; ``median`` over
            sources of one prompt; ``median-of-groups`` over a group's mixtures, then the
            median over groups; the last two prompt by prompt, and then their mean.
    """

    segment_s: float | None = None
    overlap_s: float = 0.0
    channels: Literal["first", "mono", "each", "all"] = "first"
    sample_rate: int | None = None
    pieces_s: float | None = None
    single_prompt: bool = False
    wiener: bool = False
    measures: tuple[str, ...] = ("si_sdr_db",)
    summary: Literal["mean", "mean-of-sources", "median", "median-of-groups"] = "mean"
