"""Multi-head self-attention along one axis."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.errors import ConfigError
from unbraid.nn.rotary import rotate


class SelfAttention(nn.Module):
    """Self-attention with optional rotary positions and no biases.

    Args:
        dim: Channels in and out.
        attention_dim: Channels of queries, keys and values, over all heads.
        num_heads: Heads; must divide ``attention_dim``.

    Raises:
        ConfigError: If ``num_heads`` does not divide ``attention_dim``.
    """

    def __init__(self, dim: int, attention_dim: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or attention_dim % num_heads:
            raise ConfigError(
                f"num_heads ({num_heads}) must divide attention_dim ({attention_dim})."
            )
        self.num_heads = num_heads
        self.queries_keys_values = nn.Linear(dim, 3 * attention_dim, bias=False)
        self.output = nn.Linear(attention_dim, dim, bias=False)

    def forward(
        self,
        features: Float[Tensor, "batch row position dim"],
        turns: Float[Tensor, "2 position pair"] | None,
    ) -> Float[Tensor, "batch row position dim"]:
        """Attend along ``position``; rows do not see each other.

        Args:
            features: What to attend over.
            turns: Rotary cosines and sines for the positions; None for no positions.
        """
        projected = self.queries_keys_values(features)
        heads = projected.unflatten(-1, (3 * self.num_heads, -1))
        queries_keys, values = heads.split([2 * self.num_heads, self.num_heads], dim=-2)
        if turns is not None:
            queries_keys = rotate(queries_keys, turns)
        queries, keys = queries_keys.chunk(2, dim=-2)
        mixed = torch.nn.functional.scaled_dot_product_attention(
            # batch and row become one axis, so that the fused kernels accept them
            queries.flatten(0, 1).transpose(1, 2),
            keys.flatten(0, 1).transpose(1, 2),
            values.flatten(0, 1).transpose(1, 2),
        )
        joined = mixed.transpose(1, 2).flatten(-2).unflatten(0, features.shape[:2])
        return self.output(joined)
