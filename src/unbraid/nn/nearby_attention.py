"""Attention whose bias rules most of it out: only what can matter is computed.

With a bias that falls off away from the diagonal, as that of spectral feature compression does,
nearly all of the attention between bins and bands is zero to the last bit of float32. Let P be
the bias of a row, m its largest value, and B no less than any |q k| / sqrt(d). The largest
logit of the row is at least m - B, and where P < m - 2 B - c a token has a logit below
m - B - c. All L tokens of this kind together have a share in the softmax of at most

    L exp(-c),      which is below 2^-24 for      c = log(2^24 L),

so that leaving them out changes nothing that float32 could hold. B comes from the norms of the
actual queries and keys, P from the actual bias: nothing is assumed about either. Should training
ever let queries look everywhere, everything is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

# Runs that neighbouring queries are put together in: fewer runs compute more that is zero, more
# of them make smaller products.
_NUM_RUNS = 32


class Run(NamedTuple):
    """Neighbouring queries, and the neighbouring tokens that matter to any of them."""

    queries: slice
    tokens: slice


def nearby_attention(
    queries: Float[Tensor, "row head query channel"],
    keys: Float[Tensor, "row head token channel"],
    values: Float[Tensor, "row head token channel"],
    bias: Float[Tensor, "bias_head query token"],
) -> Float[Tensor, "row head query channel"]:
    """What ``scaled_dot_product_attention`` gives, up to the rounding of float32.

    Args:
        queries: In float32, like all others.
        keys: One for each token.
        values: One for each token.
        bias: Added to the scaled products of every row; for each head or one for all.
    """
    with torch.no_grad():
        runs = _runs(bias, _largest_product(queries, keys))
    gathered: Tensor = _NearbyAttention.apply(  # type: ignore[no-untyped-call]
        queries, keys, values, bias, runs
    )
    return gathered


def _largest_product(queries: Tensor, keys: Tensor) -> float:
    """No less than any scaled product (B)."""
    longest = queries.norm(dim=-1).amax() * keys.norm(dim=-1).amax()
    return longest.item() / math.sqrt(queries.shape[-1])


def _runs(bias: Tensor, largest_product: float) -> list[Run]:
    num_queries, num_tokens = bias.shape[-2:]
    reach = 2 * largest_product + math.log(2**24 * num_tokens)
    if not math.isfinite(reach):
        return [Run(slice(0, num_queries), slice(0, num_tokens))]
    matters = (bias >= bias.amax(dim=-1, keepdim=True) - reach).any(dim=0)
    per_run = -(-num_queries // _NUM_RUNS)
    runs = []
    for some, first in zip(matters.split(per_run), range(0, num_queries, per_run), strict=True):
        places = some.any(dim=0).nonzero()
        tokens = slice(int(places[0]), int(places[-1]) + 1)
        runs.append(Run(slice(first, first + len(some)), tokens))
    return runs


class _NearbyAttention(torch.autograd.Function):
    """Softmax attention run by run; what is left out gets no gradient, as it has none."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        bias: Tensor,
        runs: Sequence[Run],
    ) -> Tensor:
        scale = queries.shape[-1] ** -0.5
        gathered = torch.empty_like(queries)
        shares = []
        for asking, looked_at in runs:
            scores = (queries[:, :, asking] * scale) @ keys[:, :, looked_at].transpose(-1, -2)
            share = scores.add_(bias[:, asking, looked_at]).softmax(dim=-1)
            gathered[:, :, asking] = share @ values[:, :, looked_at]
            shares.append(share)
        ctx.runs = runs
        ctx.save_for_backward(queries, keys, values, bias, *shares)
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (at_gathered,) = gradients
        queries, keys, values, bias, *shares = ctx.saved_tensors
        scale = queries.shape[-1] ** -0.5
        at_queries = torch.empty_like(queries)
        at_keys, at_values = torch.zeros_like(keys), torch.zeros_like(values)
        at_bias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        for (asking, looked_at), share in zip(ctx.runs, shares, strict=True):
            from_above = at_gathered[:, :, asking]
            at_values[:, :, looked_at] += share.transpose(-1, -2) @ from_above
            at_share = from_above @ values[:, :, looked_at].transpose(-1, -2)
            # Softmax: dL/dscore = share (dL/dshare - sum over tokens of share dL/dshare)
            at_scores = at_share.mul_(share)
            at_scores = at_scores - share * at_scores.sum(dim=-1, keepdim=True)
            if at_bias is not None:
                over_rows = at_scores.sum(dim=0)
                at_bias[:, asking, looked_at] += (
                    over_rows if len(bias) > 1 else over_rows.sum(dim=0, keepdim=True)
                )
            at_queries[:, :, asking] = (at_scores @ keys[:, :, looked_at]) * scale
            at_keys[:, :, looked_at] += (
                at_scores.transpose(-1, -2) @ queries[:, :, asking]
            ) * scale
        return at_queries, at_keys, at_values, at_bias, None
