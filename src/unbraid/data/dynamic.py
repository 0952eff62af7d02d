"""An endless stream of mixtures, the same for any number of workers and after any stop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from unbraid.data.effects import EFFECTS
from unbraid.mixing.recipe import MixPlan, Planner
from unbraid.mixing.render import ClipReader, render


@dataclass(frozen=True, eq=False)
class MixtureBatch:
    """Mixtures of one length that ask for the same number of sources.

    Attributes:
        mixture: What the model hears.
        references: What it should give. They need not add up to the mixture, see
            ``mixing.augmentation``.
        prompt_indices: Rows of the prompt bank, one per reference.
    """

    mixture: Float[Tensor, "batch time"]
    references: Float[Tensor, "batch source time"]
    prompt_indices: Int[Tensor, "batch source"]


class MixtureStream(IterableDataset[MixtureBatch]):
    """Draws and renders batch after batch.

    Batch ``n`` depends on the seed and on ``n`` alone. With several loader workers each
    renders every so-many-th batch, and the loader hands them out in order, so the stream
    is the same; started at ``first_batch`` it goes on as if it had never stopped.

    Args:
        planner: Draws the plans.
        read_clip: Reads the clips that the plans name.
        sample_rate: Of the clips and the mixtures.
        prompt_rows: Prompt → row of the model's prompt bank.
        batch_size: Mixtures in a batch.
        seed: Of the whole stream.
        first_batch: Number of batches to skip.
        rank: Which of the processes that share every batch this one is.
        world_size: How many they are; each renders an equal share of the batch.
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
        """Batch ``number`` of the stream; of several processes, this one's share of it."""
        plans = self.plans(number)
        return render_batch(plans, self._read_clip, self._sample_rate, self._prompt_rows)

    def plans(self, number: int) -> tuple[MixPlan, ...]:
        """What batch ``number`` is rendered from."""
        # Drawn whole everywhere, so that all shares ask for the same number of sources.
        plans = self._planner.draw_batch(self._batch_size, seed=f"{self._seed}/{number}")
        return plans[self._rank :: self._world_size]


def render_batch(
    plans: tuple[MixPlan, ...],
    read_clip: ClipReader,
    sample_rate: int,
    prompt_rows: Mapping[str, int],
) -> MixtureBatch:
    """Render plans that ask for the same number of sources, and stack them."""
    mixes = [render(plan, read_clip, sample_rate, EFFECTS) for plan in plans]
    return MixtureBatch(
        mixture=torch.stack([mix.mixture for mix in mixes]),
        references=torch.stack([mix.references for mix in mixes]),
        prompt_indices=torch.tensor([[prompt_rows[name] for name in mix.prompts] for mix in mixes]),
    )
