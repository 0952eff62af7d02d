"""Joining the estimates of chunks, with equal prompts kept in their places.

A model that is asked for ``speech,speech`` does not say which speaker comes first: every
chunk, and every channel, may answer in another order. Only outputs with equal prompts may
be exchanged. The order is the one in which the estimates look most alike: to those of the
chunk before, where both overlap, and to those of the leading channel.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dsp.overlap_add import OverlapAdder, trapezoid
from unbraid.dsp.stft import StftConfig, stft
from unbraid.separation.chunking import Chunk, ChunkPlan
from unbraid.types import equal_prompt_groups

_STFT = StftConfig(n_fft=1024, hop_length=512)

#: Up to this many equal prompts every order is tried; beyond, sources are matched greedily.
_MAX_EXHAUSTIVE = 5


class Stitcher:
    """State of one recording whose chunks are being joined.

    Args:
        plan: How it was cut.
        prompts: The prompt of each source.
    """

    def __init__(self, plan: ChunkPlan, prompts: Sequence[str]) -> None:
        self._plan = plan
        self._groups = [group for group in equal_prompt_groups(prompts) if len(group) > 1]
        self._adder = OverlapAdder()
        self._tail: Tensor | None = None

    def add(
        self, estimates: Float[Tensor, "source channel time"], chunk: Chunk
    ) -> Float[Tensor, "source channel out"]:
        """Take the estimates of the next chunk; give the samples that are finished.

        Joined, the outputs are as long as the recording.
        """
        plan = self._plan
        length = estimates.shape[-1]
        for group in self._groups:
            estimates = self._in_order(estimates, list(group))
        self._tail = estimates[..., length - plan.overlap :] if plan.overlap else None
        if plan.join == "mean":
            weights = torch.ones(length)
        else:
            weights = trapezoid(
                length, plan.overlap, plan.fade, first=chunk.is_first, last=chunk.is_last
            )
        self._adder.add(estimates, weights)
        return self._adder.take(length if chunk.is_last else plan.hop)

    def _in_order(
        self, estimates: Float[Tensor, "source channel time"], group: list[int]
    ) -> Float[Tensor, "source channel time"]:
        """Exchange the sources of a group, channel by channel, so that they keep their places."""
        ordered = estimates.clone()
        # The loudest channel decides first: in it the order is clearest.
        channels = estimates[group].square().sum(dim=(0, 2)).argsort(descending=True).tolist()
        leading = channels[0]
        for channel in channels:
            candidates = estimates[group, channel]
            likeness = torch.zeros(len(group), len(group))
            if self._tail is not None:
                overlap = self._tail.shape[-1]
                likeness += _likeness(self._tail[group, channel], candidates[:, :overlap])
            if channel != leading:
                likeness += _likeness(ordered[group, leading], candidates)
            order = _best_order(likeness)
            ordered[group, channel] = candidates[order]
        return ordered


def _likeness(
    kept: Float[Tensor, "place time"], candidates: Float[Tensor, "candidate time"]
) -> Float[Tensor, "place candidate"]:
    """How alike sounds are: inner products of their compressed magnitude spectrograms.

    Magnitudes, so that a delay between two microphones does not hide that they hear the
    same voice. Not normalised source by source: agreement on a loud source counts for more
    than agreement on leftovers; normalised over all, so that both terms weigh the same.
    """
    first = stft(kept, _STFT).abs().sqrt().flatten(1)
    second = stft(candidates, _STFT).abs().sqrt().flatten(1)
    products = first @ second.T
    return products / (first.norm() * second.norm() + 1e-12)


def _best_order(likeness: Float[Tensor, "place candidate"]) -> list[int]:
    """Which candidate takes each place so that the total likeness is largest."""
    size = likeness.shape[0]
    if size <= _MAX_EXHAUSTIVE:
        places = list(range(size))
        options = itertools.permutations(places)
        return list(max(options, key=lambda order: float(likeness[places, list(order)].sum())))
    remaining = likeness.clone()
    order = [0] * size
    for _ in range(size):
        place, candidate = divmod(int(remaining.argmax()), size)
        order[place] = candidate
        remaining[place, :] = -torch.inf
        remaining[:, candidate] = -torch.inf
    return order
