"""Cutting a stream into overlapping chunks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.errors import ConfigError


@dataclass(frozen=True)
class ChunkPlan:
    """How a recording is cut and joined again.

    Attributes:
        segment: Samples of a chunk.
        overlap: Samples that neighbouring chunks share.
        join: ``crossfade`` leaves out the estimates next to a chunk's edge, where context
            is missing on one side, and fades in the middle of the overlap. ``mean``
            averages all estimates and fills the last chunk up with zeros, as the released
            TUSS does.
    """

    segment: int
    overlap: int
    join: Literal["crossfade", "mean"] = "crossfade"

    def __post_init__(self) -> None:
        if self.segment < 1 or not 0 <= self.overlap < self.segment:
            raise ConfigError(
                f"a segment of {self.segment} samples with an overlap of {self.overlap} makes no "
                "sense; the segment must be positive and longer than the overlap."
            )

    @property
    def hop(self) -> int:
        """Samples from the beginning of one chunk to the beginning of the next."""
        return self.segment - self.overlap

    @property
    def fade(self) -> int:
        """Samples of the cross-fade in the middle of an overlap; the rest is context."""
        return (self.overlap + 3) // 4


def make_plan(
    segment_s: float,
    overlap_s: float,
    sample_rate: int,
    join: Literal["crossfade", "mean"] = "crossfade",
) -> ChunkPlan:
    """A plan in samples from one in seconds.

    Raises:
        ConfigError: If the segment is not positive or not longer than the overlap.
    """
    if not 0 <= overlap_s < segment_s < math.inf:
        raise ConfigError(
            f"segment {segment_s:g} s with overlap {overlap_s:g} s: the segment must be positive "
            "and longer than the overlap, and the overlap must not be negative."
        )
    return ChunkPlan(max(1, round(segment_s * sample_rate)), round(overlap_s * sample_rate), join)


@dataclass(frozen=True, eq=False)
class Chunk:
    """One chunk of a stream.

    Attributes:
        samples: At most a segment; the last chunk is as long as what is left.
        is_first: Nothing stands before it.
        is_last: Nothing stands behind it.
    """

    samples: Float[Tensor, "channel time"]
    is_first: bool
    is_last: bool


def cut(blocks: Iterable[Float[Tensor, "channel _"]], plan: ChunkPlan) -> Iterator[Chunk]:
    """Cut a stream of blocks of any size into chunks.

    A stream without samples gives no chunk. Holds one segment and one block at a time.
    """
    pending: list[Tensor] = []
    available = 0
    is_first = True
    for block in blocks:
        pending.append(block)
        available += block.shape[-1]
        if available <= plan.segment:  # one sample more must be there: is this the last?
            continue
        buffer = torch.cat(pending, dim=-1)
        while buffer.shape[-1] > plan.segment:
            yield Chunk(buffer[:, : plan.segment], is_first, is_last=False)
            is_first = False
            buffer = buffer[:, plan.hop :]
        pending, available = [buffer], buffer.shape[-1]
    if available:
        yield Chunk(torch.cat(pending, dim=-1), is_first, is_last=True)
