"""Putting a model to work on several rows of samples at a time.

A row is one channel of one chunk, or all that a model hears together; rows know nothing of each
other. A processor gives each row to a thread with its share of the cores, because the operations
of a small network are too short to be split; a GPU takes rows in one batch, also those of several
recordings, because they are too short to fill it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.errors import Cancelled
from unbraid.models.inference import for_inference
from unbraid.models.waveform import WaveformModel
from unbraid.separation.batching import SharedBatches
from unbraid.types import Precision

# More rows at a time use more memory and gain nothing: cores beyond are shared out.
_MOST_THREADS = 4
_GPU_BATCH = 8


class RowSeparator:
    """A model on a device, ready for rows. Several threads may use one at the same time.

    Args:
        model: The model; it stays as it is.
        device: Where it is.
        precision: See ``SeparationConfig.precision``.
    """

    def __init__(
        self,
        model: WaveformModel,
        device: torch.device,
        precision: Literal["auto", "float32", "bfloat16"],
    ) -> None:
        self._device = device
        self._model = for_inference(model, _resolved(precision, device))
        self._batches = SharedBatches(self._separate_batch, _GPU_BATCH)

    @property
    def rows_at_once(self) -> int:
        """How many rows to bring so that nothing idles."""
        return _num_threads() if self._device.type == "cpu" else self._batches.most

    def separate(
        self,
        rows: Sequence[Float[Tensor, "*channel _"]],
        prompt_indices: Int[Tensor, "source"],
        is_cancelled: Callable[[], bool],
    ) -> list[Float[Tensor, "source *channel _"]]:
        """Separate rows, in order.

        Raises:
            Cancelled: If ``is_cancelled``, asked before each piece of work, said so.
        """
        if self._device.type != "cpu":
            return self._batches.separate(rows, prompt_indices, is_cancelled)

        def separate_row(row: Float[Tensor, "*channel _"]) -> Float[Tensor, "source *channel _"]:
            if is_cancelled():
                raise Cancelled("the separation was cancelled.")
            return self._separate_batch(row[None], prompt_indices[None])[0]

        return _in_threads(separate_row, rows)

    def _separate_batch(
        self, batch: Float[Tensor, "row *channel time"], prompt_indices: Int[Tensor, "row source"]
    ) -> Float[Tensor, "row source *channel time"]:
        with torch.inference_mode():
            return self._model(batch.to(self._device), prompt_indices).cpu()


def _in_threads(
    work: Callable[[Tensor], Tensor], rows: Sequence[Float[Tensor, "*channel _"]]
) -> list[Float[Tensor, "source *channel _"]]:
    """Work on the rows, with all threads that this one may use."""
    num_workers = min(_num_threads(), len(rows))
    if num_workers < 2:
        return [work(row) for row in rows]
    num_threads = torch.get_num_threads()

    def work_alone(row: Float[Tensor, "*channel _"]) -> Float[Tensor, "source *channel _"]:
        torch.set_num_threads(num_threads // num_workers)
        return work(row)

    try:
        with ThreadPoolExecutor(num_workers) as pool:
            return list(pool.map(work_alone, rows))
    finally:
        # Each thread has its own number, but new ones begin with the last that was set.
        torch.set_num_threads(num_threads)


def _num_threads() -> int:
    """How many rows this thread may have worked on at the same time."""
    num_cores = torch.get_num_threads()
    if hasattr(os, "sched_getaffinity"):
        # A thread may run where the one that started it may. Where OpenMP pins its threads
        # (OMP_PROC_BIND) that is one core, and only OpenMP's own threads reach the others.
        num_cores = min(num_cores, len(os.sched_getaffinity(0)))
    return min(num_cores, _MOST_THREADS)


def _resolved(precision: Literal["auto", "float32", "bfloat16"], device: torch.device) -> Precision:
    if precision != "auto":
        return precision
    # Emulated bfloat16, as on GPUs before 2020, is slower than float32.
    is_fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "bfloat16" if is_fast else "float32"
