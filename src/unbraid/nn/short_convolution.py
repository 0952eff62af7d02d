"""Toom-Cook convolution: the same sums as a short convolution, with fewer multiplications.

A tile of m neighbouring outputs of a kernel of r taps needs m + r - 1 inputs. One by one the
outputs cost m r multiplications; evaluated at m + r - 1 points they cost one for each point,
and some additions:

    y = A ((G g) * (B d))      d: inputs of the tile, g: kernel, y: outputs of the tile

The points are 0, 1, -1, 2, -2 and infinity: three outputs of four taps, or four outputs of
three taps, cost six multiplications instead of twelve. Read backwards it is the transposed
convolution, d = B' ((G g) * (A' y)). All constants are small whole numbers but those in G,
which meets the weights once, in float64; float32 keeps more than 100 dB.

Source: S. Winograd, "Arithmetic complexity of computations", SIAM 1980; A. Lavin and S. Gray,
    "Fast algorithms for convolutional neural networks", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

_FINITE_POINTS = (0, 1, -1, 2, -2)
NUM_POINTS = len(_FINITE_POINTS) + 1
# With one tap there is nothing to gain, with six a tile has one output.
SUPPORTED_TAPS = range(2, NUM_POINTS)


def outputs_per_tile(num_taps: int) -> int:
    """Outputs of a tile (m); its inputs are as many as there are points."""
    return NUM_POINTS + 1 - num_taps


def input_transform() -> Float[Tensor, "point input"]:
    """B: evaluates the inputs of a tile at the points. Its transpose gives back tiles."""
    rows = [
        [*_coefficients([other for other in _FINITE_POINTS if other != point]), 0]
        for point in _FINITE_POINTS
    ]
    return torch.tensor([*rows, _coefficients(_FINITE_POINTS)], dtype=torch.float32)


def _coefficients(roots: Sequence[int]) -> list[int]:
    """Coefficients of the polynomial with these roots, the constant one first."""
    polynomial = [1]
    for root in roots:
        lower, upper = [*(-root * value for value in polynomial), 0], [0, *polynomial]
        polynomial = [low + high for low, high in zip(lower, upper, strict=True)]
    return polynomial


def kernel_at_points(kernel: Float[Tensor, "*axes tap"]) -> Float[Tensor, "point *axes"]:
    """G g: the kernel's value at each point, with the fractions of the other transforms."""
    taps = range(kernel.shape[-1])
    rows = [
        [
            point**tap / prod(point - other for other in _FINITE_POINTS if other != point)
            for tap in taps
        ]
        for point in _FINITE_POINTS
    ]
    rows.append([float(tap == taps[-1]) for tap in taps])
    transform = torch.tensor(rows, dtype=torch.float64, device=kernel.device)
    return (kernel.double() @ transform.T).movedim(-1, 0).to(kernel.dtype)


def gather_outputs(
    at_points: Sequence[Float[Tensor, "row channel"]], out: Float[Tensor, "output row channel"]
) -> None:
    """A: products at the points → the outputs of the tiles. Overwrites ``at_points``."""
    zero, plus_one, minus_one, plus_two, minus_two, infinity = at_points
    # What opposite points have in common is added up once: even outputs need their sums,
    # odd outputs their differences.
    ones = torch.add(plus_one, minus_one), plus_one.sub_(minus_one)
    twos = torch.add(plus_two, minus_two, out=minus_one), plus_two.sub_(minus_two)
    for position, output in enumerate(out):
        parity = position % 2
        torch.add(ones[parity], twos[parity], alpha=2**position, out=output)
    out[0] += zero
    out[-1] += infinity


def spread_outputs(
    outputs: Float[Tensor, "output row channel"], out: Float[Tensor, "point row channel"]
) -> None:
    """A': ``gather_outputs`` transposed."""
    zero, plus_one, minus_one, plus_two, minus_two, infinity = out
    zero.copy_(outputs[0])
    infinity.copy_(outputs[-1])
    for size, plus, minus in ((1, plus_one, minus_one), (2, plus_two, minus_two)):
        even, odd = (_powers_summed(outputs[parity::2].unbind(), size**2) for parity in (0, 1))
        torch.add(even, odd, alpha=size, out=plus)
        torch.sub(even, odd, alpha=size, out=minus)


def _powers_summed(terms: Sequence[Tensor], base: int) -> Float[Tensor, "row channel"]:
    """First term + base * second + base^2 * third ..."""
    *others, total = terms
    for term in reversed(others):
        total = torch.add(term, total, alpha=base)
    return total
