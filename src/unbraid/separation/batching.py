"""Rows of several threads in one batch, for devices that a single row does not fill.

While the device works for one thread, the rows of the others pile up; the next thread takes all of
them that fit together. So nobody waits for company: a lone row goes through at once, and the
batches grow with the load.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.errors import Cancelled


class _Row:
    """A row on its way: what is asked, and what came of it."""

    def __init__(
        self,
        samples: Float[Tensor, "*channel _"],
        prompt_indices: Int[Tensor, "source"],
        is_cancelled: Callable[[], bool],
    ) -> None:
        self.samples = samples
        self.prompt_indices = prompt_indices
        self.is_cancelled = is_cancelled
        self.estimates: Tensor | None = None
        self.error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.estimates is not None or self.error is not None

    def fits(self, other: _Row) -> bool:
        """Whether both may stand in one batch: nothing is ever padded."""
        return (
            self.samples.shape == other.samples.shape
            and self.prompt_indices.shape == other.prompt_indices.shape
        )


class SharedBatches:
    """Puts rows through a network, those of several threads together.

    Rows share a batch if they have the same length and channels and as many prompts; which
    prompts does not matter.

    Args:
        compute: The network, for a batch of rows and their prompts.
        most: How many rows a batch has at most.

    Attributes:
        most: The same; halved for good when a batch did not fit into memory.
    """

    def __init__(
        self,
        compute: Callable[
            [Float[Tensor, "row *channel time"], Int[Tensor, "row source"]],
            Float[Tensor, "row source *channel time"],
        ],
        most: int,
    ) -> None:
        self.most = most
        self._compute = compute
        self._turn = threading.Lock()
        self._guard = threading.Lock()
        self._waiting: list[_Row] = []

    def separate(
        self,
        rows: Sequence[Float[Tensor, "*channel _"]],
        prompt_indices: Int[Tensor, "source"],
        is_cancelled: Callable[[], bool],
    ) -> list[Float[Tensor, "source *channel _"]]:
        """Separate rows, in order. Any number of threads may ask at the same time.

        Raises:
            Cancelled: If ``is_cancelled``, asked before each batch, said so. It may be asked by
                another thread.
        """
        asked = [_Row(row, prompt_indices, is_cancelled) for row in rows]
        with self._guard:
            self._waiting += asked
        estimates = []
        try:
            for row in asked:
                with self._turn:
                    # Another thread may have taken it along in its batch.
                    if not row.is_done:
                        self._work_on(self._taken_with(row))
                if row.error is not None:
                    raise row.error
                assert row.estimates is not None
                estimates.append(row.estimates)
        finally:
            with self._guard:
                self._waiting = [row for row in self._waiting if row not in asked]
        return estimates

    def _taken_with(self, row: _Row) -> list[_Row]:
        """The row and those that wait and fit, the longest waiting first."""
        with self._guard:
            fitting = [other for other in self._waiting if other is not row and other.fits(row)]
            batch = [row, *fitting[: self.most - 1]]
            self._waiting = [other for other in self._waiting if other not in batch]
        return batch

    def _work_on(self, batch: list[_Row]) -> None:
        for row in batch:
            if row.is_cancelled():
                row.error = Cancelled("the separation was cancelled.")
        left = [row for row in batch if row.error is None]
        while left:
            now = left[: self.most]
            try:
                estimates = self._compute(
                    torch.stack([row.samples for row in now]),
                    torch.stack([row.prompt_indices for row in now]),
                )
            except torch.cuda.OutOfMemoryError as error:
                if len(now) > 1:
                    self.most = len(now) // 2
                    continue
                now[0].error = error
            except BaseException as error:
                for row in left:
                    row.error = error
                return
            else:
                for row, estimate in zip(now, estimates, strict=True):
                    row.estimates = estimate
            left = left[len(now) :]
