"""Rotary positions: queries and keys turned by an angle that grows with their position."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Rotary(nn.Module):
    """The rotary frequencies of one stack, shared by all its blocks.

    Pair j of a head's channels turns by position x theta^(-2j / head_dim), so the product
    of a query and a key depends on their distance only. Frequencies are a frozen
    parameter: released checkpoints carry them and their counts include them.

    Args:
        head_dim: Channels of one head, even.
        theta: Base of the frequencies.

    Source: J. Su et al., "RoFormer", Neurocomputing 2024, equation 34.
    """

    def __init__(self, head_dim: int, theta: float = 10000.0) -> None:
        super().__init__()
        num_pairs = len(range(0, head_dim, 2))
        self.frequencies = nn.Parameter(torch.empty(num_pairs), requires_grad=False)
        # On the meta device only the shape is wanted; arithmetic there imports PyTorch's
        # compiler, which takes a second and 90 MiB.
        if not self.frequencies.is_meta:
            exponents = torch.arange(0, head_dim, 2).float() / head_dim
            self.frequencies.copy_(theta**-exponents)

    def forward(self, length: int) -> Float[Tensor, "2 position pair"]:
        """Cosines and sines of the angles at the positions 0 .. ``length`` - 1."""
        positions = torch.arange(length, device=self.frequencies.device, dtype=torch.float32)
        angles = torch.outer(positions, self.frequencies.float())
        return torch.stack([angles.cos(), angles.sin()])


def rotate(
    heads: Float[Tensor, "*axes position head channel"],
    turns: Float[Tensor, "2 position pair"],
) -> Float[Tensor, "*axes position head channel"]:
    """Turn neighbouring channel pairs (0, 1), (2, 3), ... by the angle of their position."""
    # (x, y) -> cos (x, y) + sin (-y, x), two products over whole rows: twice as fast as four
    # products over every other channel. A complex product is faster still, but neither
    # exporters nor compilers take it.
    cosine, sine = turns.unsqueeze(-2).unbind(0)
    pairs = heads.float().unflatten(-1, (-1, 2))
    turned = pairs * torch.stack([cosine, cosine], dim=-1)
    turned = turned + pairs.flip(-1) * torch.stack([-sine, sine], dim=-1)
    return turned.flatten(-2).to(heads.dtype)
