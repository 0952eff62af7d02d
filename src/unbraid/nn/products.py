"""Products of rows with matrices of weights, by whichever of PyTorch's libraries is faster.

``torch.bmm`` calls a BLAS, MKL in most builds, and a convolution of one tap in channels-last
memory is the same product by oneDNN. On many processors they are equal, but MKL leaves the widest
instructions of some unused, and oneDNN is then twice as fast.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.errors import ConfigError

#: The environment variable that decides, in place of a measurement, and what it may say.
PRODUCTS = "UNBRAID_PRODUCTS"
CHOICES = ("blas", "onednn")

# A choice that hangs on noise would let the last bits of results change from run to run.
_CLEARLY_FASTER = 1.5
_MEASURED_ROWS, _MEASURED_IN, _MEASURED_OUT = 512, 256, 512
_MEASURED_PAIRS = 7


class Weights:
    """Matrices that rows are multiplied by, point by point.

    Args:
        matrices: One for each point.
        bias: Added to every row of the products; None for nothing.
    """

    def __init__(
        self,
        matrices: Float[Tensor, "point in out"],
        bias: Float[Tensor, "point out"] | None = None,
    ) -> None:
        self._matrices = matrices.detach().contiguous()
        self._bias = None if bias is None else bias.detach().clone()
        self._kernels = None
        if onednn_is_faster():
            self._kernels = self._matrices.transpose(1, 2).contiguous()[..., None, None]

    def multiply(
        self, rows: Float[Tensor, "point row in"], out: Float[Tensor, "point row out"]
    ) -> Sequence[Float[Tensor, "row out"]]:
        """The products, point by point; in ``out`` or somewhere else."""
        if self._kernels is not None:
            biases = [None] * len(rows) if self._bias is None else self._bias
            return [_by_onednn(*point) for point in zip(rows, self._kernels, biases, strict=True)]
        if self._bias is not None:
            return torch.baddbmm(self._bias[:, None], rows, self._matrices, out=out).unbind()
        return torch.bmm(rows, self._matrices, out=out).unbind()


def onednn_is_faster() -> bool:
    """Whether oneDNN is clearly faster than the BLAS: measured once, in a few milliseconds.

    The two round differently, and a busy machine can mislead the measurement. Where several
    processes have to give the same bits, ``UNBRAID_PRODUCTS`` says what it shall be for all of
    them: ``blas`` or ``onednn``.

    Raises:
        ConfigError: If it says anything else.
    """
    said = os.environ.get(PRODUCTS, "")
    if said not in ("", *CHOICES):
        raise ConfigError(f"{PRODUCTS}={said}: must be {' or '.join(CHOICES)}.")
    return said == "onednn" if said else _measured_faster()


@cache
def _measured_faster() -> bool:
    # From a generator of its own: whoever loads a model keeps the state of theirs.
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(_MEASURED_ROWS, _MEASURED_IN, generator=generator)
    matrix = torch.randn(_MEASURED_IN, _MEASURED_OUT, generator=generator)
    out = torch.empty(_MEASURED_ROWS, _MEASURED_OUT)
    kernel = matrix.T.contiguous()[..., None, None]
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other where cores are busy
    try:
        with torch.inference_mode():
            # In turn, and the shortest of each, because machines are disturbed.
            pairs = [
                (
                    _seconds(lambda: torch.mm(rows, matrix, out=out)),
                    _seconds(lambda: _by_onednn(rows, kernel)),
                )
                for _ in range(_MEASURED_PAIRS)
            ]
    finally:
        torch.set_num_threads(num_threads)
    blas_s, onednn_s = map(min, zip(*pairs, strict=True))
    return blas_s > _CLEARLY_FASTER * onednn_s


def _by_onednn(
    rows: Float[Tensor, "row in"],
    kernel: Float[Tensor, "out in 1 1"],
    bias: Float[Tensor, "out"] | None = None,
) -> Float[Tensor, "row out"]:
    # One image, one line, one pixel per row; channels last, as comes out again.
    image = rows.view(1, 1, *rows.shape).permute(0, 3, 1, 2)
    return torch.nn.functional.conv2d(image, kernel, bias).permute(0, 2, 3, 1)[0, 0]


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s
