"""Remixing: estimated sources of a batch change places, make new mixtures, and come back.

First a plan is drawn, plain data that depends on its seed alone; then it is applied. Nothing here
changes its caller's tensor.

=====================  ==========================  ==============================================
paper                  here                        what it is
=====================  ==========================  ==============================================
channel shuffle        RemixPlan.channels          sources of an item change places
batch shuffle          RemixPlan.items             sources at one place change items
pseudo-mixture         the sum over a row          what the solver has to separate
=====================  ==========================  ==============================================

Source: K. Saijo, T. Ogawa, "Self-Remixing: unsupervised speech separation via separation and
    remixing", ICASSP 2023, arXiv 2211.10194; K. Saijo, T. Ogawa, "Remixing-based unsupervised
    source separation from scratch", Interspeech 2023, arXiv 2309.00376.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.errors import ConfigError

#: How sources change items: ``constrained`` so that no two sources of one mixture meet again,
#: ``free`` by chance, ``none`` not at all.
BatchShuffle: TypeAlias = Literal["constrained", "free", "none"]

#: How sources change places inside an item: ``all`` by chance, ``except_last`` the same with the
#: last one (noise) in its place, ``none`` not at all.
ChannelShuffle: TypeAlias = Literal["all", "except_last", "none"]


@dataclass(frozen=True)
class RemixPlan:
    """Which source goes where.

    Attributes:
        channels: For each item, which of its sources stands at each place.
        items: For each place, from which item the source of each new mixture is.
    """

    channels: tuple[tuple[int, ...], ...]
    items: tuple[tuple[int, ...], ...]


def draw_remix(
    batch_size: int,
    num_sources: int,
    rng: random.Random,
    *,
    batch_shuffle: BatchShuffle = "constrained",
    channel_shuffle: ChannelShuffle = "all",
) -> RemixPlan:
    """Draw which source goes where.

    Constrained, p_c(b) != p_c'(b) must hold for any two places c and c': two permutations p and q
    of the items are drawn, and a shift k_c of its own for every place, and

        p_c(b) = p[(q[b] + k_c) mod B].

    Every p_c by itself is any permutation, each as likely.

    Raises:
        ConfigError: If a constrained shuffle is asked for and the batch has fewer items than
            sources: two sources of one mixture would have to meet.

    Differs: The release draws permutations until they fit, which takes ever longer the fewer items
        there are; shifts of one permutation fit at once, and are not all that would fit.
    """
    everyone = range(batch_size)
    if batch_shuffle == "constrained":
        check_batch_size(batch_size, num_sources)
        outer, inner = _permutation(batch_size, rng), _permutation(batch_size, rng)
        shifts = rng.sample(everyone, num_sources)
        items = tuple(
            tuple(outer[(inner[item] + shift) % batch_size] for item in everyone)
            for shift in shifts
        )
    elif batch_shuffle == "free":
        items = tuple(_permutation(batch_size, rng) for _ in range(num_sources))
    else:
        items = (tuple(everyone),) * num_sources

    num_moving = {"all": num_sources, "except_last": max(0, num_sources - 1), "none": 0}
    moving = num_moving[channel_shuffle]
    staying = tuple(range(moving, num_sources))
    channels = tuple((*_permutation(moving, rng), *staying) for _ in everyone)
    return RemixPlan(channels, items)


def check_batch_size(
    batch_size: int,
    num_sources: int,
    advice: str = "raise batch_size, or set batch_shuffle: free",
    num_devices: int = 1,
) -> None:
    """Insist that a batch can be shuffled so that no two sources of one mixture meet again.

    Args:
        batch_size: Mixtures of all devices together.
        num_sources: Sources of each.
        advice: What the caller's user can do if it cannot.
        num_devices: How many share the batch equally; each shuffles its own share.

    Raises:
        ConfigError: If it cannot.
    """
    share = batch_size // num_devices
    if share < num_sources:
        where = f" on each of the {num_devices} devices" if num_devices > 1 else ""
        raise ConfigError(
            f"a constrained batch shuffle of {num_sources} sources needs a batch of {num_sources} "
            f"mixtures or more{where}, not {share}; {advice}."
        )


def shuffle(
    sources: Float[Tensor, "batch source time"], plan: RemixPlan
) -> Float[Tensor, "batch source time"]:
    """Move sources to where the plan wants them: first inside the items, then between them."""
    inside = sources[_rows(len(sources)), torch.tensor(plan.channels)]
    return inside[torch.tensor(plan.items).T, torch.arange(sources.shape[1])]


def unshuffle(
    sources: Float[Tensor, "batch source time"], plan: RemixPlan
) -> Float[Tensor, "batch source time"]:
    """Move sources back to where they were before ``shuffle``."""
    back = torch.tensor(plan.items).argsort(dim=1).T
    inside = sources[back, torch.arange(sources.shape[1])]
    return inside[_rows(len(sources)), torch.tensor(plan.channels).argsort(dim=1)]


def consistent(
    sources: Float[Tensor, "batch source time"], mixture: Float[Tensor, "batch time"]
) -> Float[Tensor, "batch source time"]:
    """Sources that sum to the mixture: what they leave of it is shared out equally.

    Source: S. Wisdom et al., "Differentiable consistency constraints for improved deep speech
        enhancement", ICASSP 2019, section 3.2.
    """
    residual = mixture - sources.sum(dim=1)
    return sources + residual.unsqueeze(1) / sources.shape[1]


def loudest(
    sources: Float[Tensor, "batch source time"], count: int
) -> Float[Tensor, "batch kept time"]:
    """The sources of most energy of each item, in the order in which they stood.

    All of them, if there are no more than ``count``.
    """
    if sources.shape[1] <= count:
        return sources
    energy = sources.detach().square().sum(dim=-1)
    kept = energy.topk(count, dim=1).indices.sort(dim=1).values
    return sources.gather(1, kept.unsqueeze(2).expand(-1, -1, sources.shape[2]))


def _permutation(length: int, rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.sample(range(length), length))


def _rows(count: int) -> Tensor:
    return torch.arange(count).unsqueeze(1)
