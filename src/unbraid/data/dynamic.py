"""An endless stream of mixtures, the same for any number of workers and ranks, after any stop."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from unbraid.data.effects import EFFECTS
from unbraid.errors import ConfigError, DataError, UnreadableClip
from unbraid.mixing.recipe import MixPlan, Planner
from unbraid.mixing.render import ClipReader, RenderedMix, render

#: So often a mixture is drawn again because a recording in it cannot be read.
_MAX_REDRAWS = 100


@dataclass(frozen=True, eq=False)
class MixtureBatch:
    """Mixtures of one length that ask for the same number of sources.

    Attributes:
        mixture: What the model hears; mono without an axis for channels.
        references: What it should give. They need not add up to the mixture, see
            ``mixing.augmentation``.
        prompt_indices: Rows of the prompt bank, one per reference.
    """

    mixture: Float[Tensor, "batch *channel time"]
    references: Float[Tensor, "batch source *channel time"]
    prompt_indices: Int[Tensor, "batch source"]

    def to(self, device: torch.device) -> MixtureBatch:
        """The same batch on a device."""
        return MixtureBatch(
            self.mixture.to(device), self.references.to(device), self.prompt_indices.to(device)
        )


@runtime_checkable
class Plan(Protocol):
    """What one mixture is made from, as plain data: a frozen dataclass."""

    @property
    def num_asked(self) -> int:
        """How many sources are asked for."""


@runtime_checkable
class BatchSource(Protocol):
    """Batches by their number: the same at every call, whatever was asked for before.

    With several ranks every rank plans all of a batch, which costs little, and makes its share:
    mixtures ``rank``, ``rank + world_size``, … So what all ranks together hear in a step does not
    depend on how many they are.
    """

    @property
    def batch_size(self) -> int:
        """Mixtures in a batch, over all ranks together."""

    def plans(self, number: int, rank: int = 0, world_size: int = 1) -> Sequence[Plan]:
        """What batch ``number`` is made from; of several processes, the share of one."""

    def batch(self, number: int, rank: int = 0, world_size: int = 1) -> MixtureBatch:
        """Batch ``number``; of several processes, the share of one."""


@dataclass(frozen=True)
class DynamicMixtures:
    """Batches that are drawn and rendered anew each time.

    A mixture with a recording that cannot be read is drawn again: the same prompts, from a seed
    of the seed of all, the batch's number, the mixture's place in the batch and the number of the
    attempt. So it depends on which recordings can be read, but not on who found out when.

    Attributes:
        planner: Draws the plans.
        read_clip: Reads the clips that the plans name.
        sample_rate: Of the clips and the mixtures.
        prompt_rows: Prompt → row of the model's prompt bank.
        batch_size: Mixtures in a batch.
        seed: Of all of them.
    """

    planner: Planner
    read_clip: ClipReader
    sample_rate: int
    prompt_rows: Mapping[str, int]
    batch_size: int
    seed: int

    def plans(self, number: int, rank: int = 0, world_size: int = 1) -> tuple[MixPlan, ...]:
        """What batch ``number`` is rendered from; depends on the seed and the number alone."""
        # Drawn whole everywhere, so that all shares ask for the same number of sources.
        plans = self.planner.draw_batch(self.batch_size, seed=f"{self.seed}/{number}")
        return plans[rank::world_size]

    def batch(self, number: int, rank: int = 0, world_size: int = 1) -> MixtureBatch:
        """Batch ``number``, rendered; of several processes, the share of one.

        Raises:
            DataError: If too many recordings cannot be read.
        """
        seed = f"{self.seed}/{number}"
        share = range(rank, self.batch_size, world_size)
        mixes = [
            self._render(plan, f"{seed}/{place}")
            for place, plan in zip(share, self.plans(number, rank, world_size), strict=True)
        ]
        return _stack(mixes, self.prompt_rows)

    def _render(self, plan: MixPlan, seed: str) -> RenderedMix:
        for attempt in range(_MAX_REDRAWS):
            try:
                return render(plan, self.read_clip, self.sample_rate, EFFECTS)
            except UnreadableClip as error:
                reason = error
                plan = _draw_again(plan, self.planner, f"{seed}/{attempt}")
        raise DataError(
            f"a mixture was drawn {_MAX_REDRAWS} times, and never could all of its recordings be "
            f"read; the last one: {reason}"
        )


class RenderedBatches(Dataset[MixtureBatch]):
    """Batches that were made before and stay in memory."""

    def __init__(self, batches: Sequence[MixtureBatch]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> MixtureBatch:
        return self._batches[number]


class MixtureStream(IterableDataset[MixtureBatch]):
    """Batch after batch without an end.

    With several loader workers each makes every so-many-th batch, and the loader hands them
    out in order, so the stream is the same; started at ``first_batch`` it goes on as if it had
    never stopped.

    Args:
        source: Makes the batches.
        first_batch: Number of batches to skip.
        rank: Which of the processes that share every batch this one is, from 0.
        world_size: How many they are; each makes an equal share of the batch.

    Raises:
        ConfigError: If the ranks cannot share a batch evenly; a mean of their gradients would
            then not be that of the batch.
    """

    def __init__(
        self, source: BatchSource, first_batch: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} of {world_size}: ranks count from 0.")
        if source.batch_size % world_size:
            raise ConfigError(
                f"{world_size} ranks cannot share {source.batch_size} mixtures evenly; make "
                "batch_size, which counts those of all ranks together, a multiple of "
                f"{world_size}."
            )
        self._source = source
        self._first_batch = first_batch
        self._share = (rank, world_size)

    def __iter__(self) -> Iterator[MixtureBatch]:
        worker = get_worker_info()
        number = self._first_batch + (worker.id if worker is not None else 0)
        step = worker.num_workers if worker is not None else 1
        while True:
            yield self._source.batch(number, *self._share)
            number += step


def render_batch(
    plans: Sequence[MixPlan],
    read_clip: ClipReader,
    sample_rate: int,
    prompt_rows: Mapping[str, int],
) -> MixtureBatch:
    """Render plans that ask for the same number of sources, and stack them."""
    return _stack([render(plan, read_clip, sample_rate, EFFECTS) for plan in plans], prompt_rows)


def _draw_again(plan: MixPlan, planner: Planner, seed: str) -> MixPlan:
    """Another mixture of the same prompts, of which the same are asked for."""
    drawn = planner.draw_mixture([old.prompt for old in plan.sources], random.Random(seed))
    sources = tuple(
        replace(new, is_asked=old.is_asked)
        for new, old in zip(drawn.sources, plan.sources, strict=True)
    )
    return replace(drawn, sources=sources)


def _stack(mixes: Sequence[RenderedMix], prompt_rows: Mapping[str, int]) -> MixtureBatch:
    return MixtureBatch(
        mixture=torch.stack([mix.mixture for mix in mixes]),
        references=torch.stack([mix.references for mix in mixes]),
        prompt_indices=torch.tensor([[prompt_rows[name] for name in mix.prompts] for mix in mixes]),
    )
