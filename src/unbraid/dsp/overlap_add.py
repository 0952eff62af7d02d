"""Joining overlapping segments into one signal by a weighted mean."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def trapezoid(
    length: int, overlap: int, fade: int, *, first: bool, last: bool
) -> Float[Tensor, time]:
    """Weights of a segment that shares ``overlap`` samples with each neighbour.

    Only the middle ``fade`` samples of a shared stretch are cross-faded; the samples
    nearer to the segment's own edge, where the model saw the least context, get the
    weight 0, those nearer to its centre 1. Neighbouring weights sum to one. The outer
    edges of the ``first`` and ``last`` segment keep the weight 1.
    """
    weights = torch.ones(length)
    margin = (overlap - fade) // 2
    ramp = torch.zeros(overlap)
    # Sampled half-way, so that the ramp and its mirror image sum to exactly one.
    ramp[margin : margin + fade] = (torch.arange(fade) + 0.5) / max(1, fade)
    ramp[margin + fade :] = 1.0
    if overlap and not first:
        weights[:overlap] *= ramp
    if overlap and not last:
        weights[length - overlap :] *= 1.0 - ramp
    return weights


class OverlapAdder:
    """Weighted sums of segments that arrive in order, divided by the sum of the weights.

    Keeps only the samples that a later segment may still change. Segments have any
    leading axes, all the same.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._weight: Tensor | None = None

    def add(self, segment: Float[Tensor, "*axes time"], weights: Float[Tensor, time]) -> None:
        """Add a segment that starts at the first sample not yet taken."""
        weights = weights.to(segment)
        weighted = segment * weights
        if self._sum is None or self._weight is None:
            self._sum, self._weight = weighted, weights.clone()
            return
        missing = segment.shape[-1] - self._sum.shape[-1]
        if missing > 0:
            self._sum = torch.nn.functional.pad(self._sum, (0, missing))
            self._weight = torch.nn.functional.pad(self._weight, (0, missing))
        self._sum[..., : segment.shape[-1]] += weighted
        self._weight[: segment.shape[-1]] += weights

    def take(self, count: int) -> Float[Tensor, "*axes time"]:
        """Hand out the next ``count`` samples, which no later segment touches."""
        assert self._sum is not None
        assert self._weight is not None
        finished = self._sum[..., :count] / self._weight[:count].clamp_min(1e-12)
        self._sum, self._weight = self._sum[..., count:].clone(), self._weight[count:].clone()
        return finished
