"""Joining the estimates of chunks, with equal prompts kept in their places.

A model that is asked for ``speech,speech`` does not say which speaker comes first: every
chunk, and every channel, may answer in another order. Only outputs with equal prompts may
be exchanged. The order is the one for which most speaks: the estimates agree with those of
the chunk before where both overlap, they agree with those of the leading channel, and each
sounds like what was heard of its place over the last minutes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dsp.overlap_add import OverlapAdder, trapezoid
from unbraid.separation.chunking import Chunk, ChunkPlan
from unbraid.separation.identity import (
    Frames,
    Level,
    Memory,
    audibility,
    cepstra_of,
    frame_length,
    frames_of,
    impression_of,
    merged,
)
from unbraid.types import equal_prompt_groups

#: Up to this many equal prompts every order is tried; beyond, sources are matched greedily.
_MAX_EXHAUSTIVE = 5

#: What an audible second says, in nats, if another order adds as much difference as the best
#: order leaves. Little, for a model may exchange sources inside a chunk.
_AGREEMENT_NATS = 0.5
#: Estimates of one source never agree better than this; a share of their power.
_DISAGREEMENT_FLOOR = 0.1
#: Weight of frames in which nothing is audible: enough to break a tie.
_INAUDIBLE = 0.01


class Stitcher:
    """State of one recording whose chunks are being joined.

    Args:
        plan: How it was cut.
        prompts: The prompt of each source.
        sample_rate: Of the estimates, in Hz. Only sources with equal prompts depend on it.
        remembers: Whether sources are also recognised by what they sounded like before; else
            only what overlaps decides, and two speakers may change places in a pause.
        channels_agree: Whether all channels of a chunk have their sources in one order, so
            that the loudest one decides for all.
    """

    def __init__(
        self,
        plan: ChunkPlan,
        prompts: Sequence[str],
        *,
        sample_rate: int,
        remembers: bool = True,
        channels_agree: bool = False,
    ) -> None:
        self._plan = plan
        self._groups = [
            _Group(list(group), plan.overlap, sample_rate, remembers, channels_agree)
            for group in equal_prompt_groups(prompts)
            if len(group) > 1
        ]
        self._adder = OverlapAdder()

    def add(
        self, estimates: Float[Tensor, "source channel time"], chunk: Chunk
    ) -> Float[Tensor, "source channel out"]:
        """Take the estimates of the next chunk; give the samples that are finished.

        Joined, the outputs are as long as the recording.
        """
        plan = self._plan
        length = estimates.shape[-1]
        if self._groups:
            estimates = estimates.clone()
        for group in self._groups:
            group.put_in_order(estimates)
        if plan.join == "mean":
            weights = torch.ones(length)
        else:
            weights = trapezoid(
                length, plan.overlap, plan.fade, first=chunk.is_first, last=chunk.is_last
            )
        self._adder.add(estimates, weights)
        return self._adder.take(length if chunk.is_last else plan.hop)


class _Group:
    """Sources with equal prompts, and what is known of their places."""

    def __init__(
        self,
        sources: list[int],
        overlap: int,
        sample_rate: int,
        remembers: bool,
        channels_agree: bool,
    ) -> None:
        self.sources = sources
        self._overlap = overlap
        self._sample_rate = sample_rate
        self._remembers = remembers
        self._channels_agree = channels_agree
        self._tail: Tensor | None = None
        self._level = Level()
        self._memory = Memory(len(sources))

    def put_in_order(self, estimates: Float[Tensor, "source channel time"]) -> None:
        """Exchange the sources of the group, channel by channel, so that they keep their places.

        Changes the tensor that it is given.
        """
        chunk = frames_of(estimates[self.sources], self._sample_rate)
        if chunk.scale > 0.0:
            for channel, order in self._orders(chunk).items():
                if order != sorted(order):
                    taken = [self.sources[candidate] for candidate in order]
                    estimates[self.sources, channel] = estimates[taken, channel]
        if self._overlap:
            start = max(0, estimates.shape[-1] - self._overlap)
            self._tail = estimates[self.sources, :, start:]

    def _orders(self, chunk: Frames) -> dict[int, list[int]]:
        """Decide which candidate takes each place, for every channel, and learn from it."""
        tail = head = None
        first_new = 0
        if self._tail is not None:
            # Whole frames only; an overlap shorter than a frame says nothing.
            first_new = self._overlap // frame_length(self._sample_rate)
            tail = frames_of(self._tail, self._sample_rate).first(first_new)
            head = chunk.first(first_new)
        # The loudest channel decides first: in it the order is clearest.
        loudness = chunk.amplitudes.square().sum(dim=(0, 2))
        channels = loudness.argsort(descending=True, stable=True).tolist()
        self._hear(chunk.channel(channels[0]), first_new)

        leading: Frames | None = None
        orders: dict[int, list[int]] = {}
        heard = []
        for channel in channels[:1] if self._channels_agree else channels:
            here = chunk.channel(channel)
            audible = audibility(here, self._level.usual)
            evidence = torch.zeros(len(self.sources), len(self.sources))
            if tail is not None and head is not None:
                evidence += self._agreement(tail.channel(channel), head.channel(channel))
            if leading is not None:
                evidence += self._agreement(leading, here)
            if self._remembers:
                cepstra = cepstra_of(here)
                evidence += self._memory.recognise(impression_of(cepstra, audible, chunk.frame_s))
            order = best_order(evidence)
            orders |= dict.fromkeys(channels if self._channels_agree else [channel], order)
            if leading is None:
                leading = here.in_order(order)
            if self._remembers:
                trusted = audible[order] * self._trust(evidence[:, order])[:, None]
                new = slice(first_new, None)  # what came before has been learned
                heard.append(impression_of(cepstra[order, new], trusted[:, new], chunk.frame_s))
        if heard:
            self._memory.learn(merged(heard))
        return orders

    def _hear(self, leading: Frames, first_new: int) -> None:
        """Follow the level, and let what was learned from fainter sound count for less."""
        before = self._level.usual
        loudest = leading.amplitudes[:, first_new:].amax(dim=0)
        self._level.hear(loudest, leading.scale, leading.frame_s)
        if self._level.usual > before > 0.0:
            self._memory.fade(before / self._level.usual)

    def _agreement(self, kept: Frames, candidates: Frames) -> Float[Tensor, "place candidate"]:
        """Evidence from sounds at the same time that a candidate belongs to a place, in nats.

        Magnitudes are compared, so that a delay between two microphones does not hide that
        they hear the same voice. Their changes only: two sounds that have nothing to do with
        each other then agree by chance, and so not at all. Both sides are scaled to one over
        all their sources: levels inside a side are what tells a source from its leakage.
        """
        usual = self._level.usual
        audible = torch.maximum(
            audibility(kept, usual).amax(dim=0), audibility(candidates, usual).amax(dim=0)
        )
        weights = audible.clamp_min(_INAUDIBLE)
        products = _changes(kept, weights) @ _changes(candidates, weights).mT
        # Each order leaves the difference 2 - 2 (sum of its products). Taken as Gaussian errors
        # whose variance is that of the best order, differences become log likelihoods.
        best = float(products[torch.arange(len(products)), best_order(products)].sum())
        difference = 2.0 * max(0.0, 1.0 - best) + _DISAGREEMENT_FLOOR
        seconds = float(weights.sum()) * kept.frame_s
        return _AGREEMENT_NATS * seconds * 2.0 * products / difference

    def _trust(self, evidence: Float[Tensor, "place candidate"]) -> Float[Tensor, "place"]:
        """How sure it is that each place got its source (candidate = place), from 0 to 1.

        The chance that it did, against the likeliest exchange of two, from even chance up.
        Places of which nothing is known yet cannot be confused.
        """
        right = evidence.diagonal()
        margin = right[:, None] + right - evidence - evidence.mT
        is_new = self._memory.heard_s == 0.0
        margin[is_new[:, None] & is_new] = torch.inf
        margin.fill_diagonal_(torch.inf)
        return torch.tanh(margin.amin(dim=1) / 2).clamp_min(0.0)


def _changes(frames: Frames, weights: Float[Tensor, "frame"]) -> Float[Tensor, "source value"]:
    """Compressed magnitudes around their mean, weighted by frame, with the norm 1 in all."""
    values = frames.bands.sqrt().sqrt()  # so that faint parts count too
    mean = torch.einsum("sfb,f->sb", values, weights / weights.sum())
    root = weights.sqrt()[:, None]
    changes = ((values - mean[:, None]) * root).flatten(1)
    # What does not change at all tells nothing: its rounding must not grow to one.
    norm = torch.maximum(changes.norm(), 0.1 * (values * root).norm())
    return changes / norm.clamp_min(1e-12)


def best_order(evidence: Float[Tensor, "place candidate"]) -> list[int]:
    """Which candidate takes each place so that the total evidence is largest."""
    size = evidence.shape[0]
    if size <= _MAX_EXHAUSTIVE:
        places = list(range(size))
        options = itertools.permutations(places)
        return list(max(options, key=lambda order: float(evidence[places, list(order)].sum())))
    remaining = evidence.clone()
    order = [0] * size
    for _ in range(size):
        place, candidate = divmod(int(remaining.argmax()), size)
        order[place] = candidate
        remaining[place, :] = -torch.inf
        remaining[:, candidate] = -torch.inf
    return order
