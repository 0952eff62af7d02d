"""An endless stream of mixtures, the same for any number of workers and ranks, after any stop."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

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
        mixture: What the model hears; with an axis for channels if it hears several together.
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


class MixtureStream(IterableDataset[MixtureBatch]):
    """Draws and renders batch after batch.

    Batch ``n`` depends on the seed and on ``n`` alone. With several loader workers each
    renders every so-many-th batch, and the loader hands them out in order, so the stream
    is the same; started at ``first_batch`` it goes on as if it had never stopped.

    With several ranks every rank plans all of batch ``n``, which costs little, and renders its
    share: mixtures ``rank``, ``rank + world_size``, … So what all ranks together hear in a step
    does not depend on how many they are.

    A mixture with a recording that cannot be read is drawn again: the same prompts, from a seed
    of the stream's seed, ``n``, the mixture's place in the batch and the number of the attempt.
    So it depends on which recordings can be read, but not on who found out when.

    Args:
        planner: Draws the plans.
        read_clip: Reads the clips that the plans name.
        sample_rate: Of the clips and the mixtures.
        prompt_rows: Prompt → row of the model's prompt bank.
        batch_size: Mixtures in a batch, over all ranks together.
        seed: Of the whole stream.
        first_batch: Number of batches to skip.
        rank: Which of the processes that share every batch this one is, from 0.
        world_size: How many they are; each renders an equal share of the batch.

    Raises:
        ConfigError: If the ranks cannot share a batch evenly; a mean of their gradients would
            then not be that of the batch.
    """

    def __init__(
        self,
        planner: Planner,
        read_clip: ClipReader,
        sample_rate: int,
        prompt_rows: Mapping[str, int],
        batch_size: int,
        seed: int,
        first_batch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} of {world_size}: ranks count from 0.")
        if batch_size % world_size:
            raise ConfigError(
                f"{world_size} ranks cannot share {batch_size} mixtures evenly; make batch_size, "
                f"which counts those of all ranks together, a multiple of {world_size}."
            )
        self._planner = planner
        self._read_clip = read_clip
        self._sample_rate = sample_rate
        self._prompt_rows = dict(prompt_rows)
        self._batch_size = batch_size
        self._seed = seed
        self._first_batch = first_batch
        self._rank = rank
        self._world_size = world_size

    def __iter__(self) -> Iterator[MixtureBatch]:
        worker = get_worker_info()
        number = self._first_batch + (worker.id if worker is not None else 0)
        step = worker.num_workers if worker is not None else 1
        while True:
            yield self.batch(number)
            number += step

    def batch(self, number: int) -> MixtureBatch:
        """Batch ``number`` of the stream; of several processes, this one's share of it.

        Raises:
            DataError: If too many recordings cannot be read.
        """
        seed = f"{self._seed}/{number}"
        share = range(self._rank, self._batch_size, self._world_size)
        mixes = [
            self._render(plan, f"{seed}/{place}")
            for place, plan in zip(share, self.plans(number), strict=True)
        ]
        return _stack(mixes, self._prompt_rows)

    def _render(self, plan: MixPlan, seed: str) -> RenderedMix:
        for attempt in range(_MAX_REDRAWS):
            try:
                return render(plan, self._read_clip, self._sample_rate, EFFECTS)
            except UnreadableClip as error:
                reason = error
                plan = _draw_again(plan, self._planner, f"{seed}/{attempt}")
        raise DataError(
            f"a mixture was drawn {_MAX_REDRAWS} times, and never could all of its recordings be "
            f"read; the last one: {reason}"
        )

    def plans(self, number: int) -> tuple[MixPlan, ...]:
        """What batch ``number`` is rendered from."""
        # Drawn whole everywhere, so that all shares ask for the same number of sources.
        plans = self._planner.draw_batch(self._batch_size, seed=f"{self._seed}/{number}")
        return plans[self._rank :: self._world_size]


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
