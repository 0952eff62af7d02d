"""What spectral feature compression is made of: sequence models between bands and bins.

Source: K. Saijo and Y. Bando, "Input-adaptive spectral feature compression by sequence modeling
    for source separation", IEEE TASLP 2026, arXiv 2602.08671.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from unbraid.nn.nearby_attention import nearby_attention
from unbraid.nn.selective_scan import SelectiveScan

# Frames whose attention is computed together on a processor, where no gradients are wanted.
_FRAMES_AT_ONCE = 16

Bands = tuple[tuple[int, int], ...]
BiasMode = Literal["none", "zero-inside", "learnable", "learnable-slope", "fixed", "hard-mask"]
QueryPlace = Literal["middle", "forward", "backward"]


class CrossAttention(nn.Module):
    """Queries attend to tokens, then a pointwise net works on what they gathered.

        y = Attention(Norm(queries), Norm(tokens));  y = y + FFN(Norm(y))

    The attention has no residual: what a query knows of itself ends there.

    Args:
        dim: Channels of queries and tokens.
        num_heads: Heads; they divide ``dim``.
        bias: What is added to the attention before the softmax.
    """

    def __init__(self, dim: int, num_heads: int, bias: BandBias) -> None:
        super().__init__()
        self.output_dim = dim
        self.num_heads = num_heads
        self.query_norm = RmsNorm(dim)
        self.token_norm = RmsNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        # Output channels: head, then key or value, then the head's own.
        self.keys_values = nn.Linear(dim, 2 * dim, bias=False)
        self.bias = bias
        self.output = nn.Linear(dim, dim, bias=False)
        self.feed_forward_norm = RmsNorm(dim)
        self.feed_forward = SwiGlu(dim, 2 * dim, dim)

    def forward(
        self,
        queries: Float[Tensor, "query_row query dim"],
        tokens: Float[Tensor, "row token dim"],
    ) -> tuple[Float[Tensor, "row query dim"], None]:
        """What the queries gathered; nothing for the tokens, which stay as they are.

        Args:
            queries: One row for all rows of tokens, or one for each.
            tokens: What to attend to; rows do not see each other.
        """
        on_processor = tokens.device.type == "cpu"
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not on_processor:
            return self._gather(queries, tokens), None
        # A few frames after the other: the pointwise net has four times the channels of the
        # bins, gigabytes for all frames of all sources, and what stays in the cache is faster.
        shared = queries.shape[0] == 1
        blocks = [
            self._gather(queries if shared else queries[first : first + _FRAMES_AT_ONCE], some)
            for first, some in zip(
                range(0, tokens.shape[0], _FRAMES_AT_ONCE),
                tokens.split(_FRAMES_AT_ONCE),
                strict=True,
            )
        ]
        return torch.cat(blocks), None

    def _gather(
        self,
        queries: Float[Tensor, "query_row query dim"],
        tokens: Float[Tensor, "row token dim"],
    ) -> Float[Tensor, "row query dim"]:
        asking, keys, values = self.heads(queries, tokens)
        gathered = self._attend(asking, keys, values)
        attended = self.output(gathered.transpose(1, 2).flatten(-2))
        return attended + self.feed_forward(self.feed_forward_norm(attended))

    def _attend(
        self,
        asking: Float[Tensor, "row head query channel"],
        keys: Float[Tensor, "row head token channel"],
        values: Float[Tensor, "row head token channel"],
    ) -> Float[Tensor, "row head query channel"]:
        bias = self.bias()
        if bias is None:
            return scaled_dot_product_attention(asking, keys, values)
        if (
            torch.is_grad_enabled()
            and asking.device.type == "cpu"
            and asking.dtype == torch.float32
            and not torch.compiler.is_compiling()
        ):
            # The fused kernels refuse a bias that is trained, and all scores at once are slow.
            return nearby_attention(asking, keys, values, bias)
        bias = bias.to(asking.dtype).unsqueeze(0)
        if not torch.is_grad_enabled():
            # Refused even where nothing asks for a gradient.
            bias = bias.detach()
        return scaled_dot_product_attention(asking, keys, values, bias)

    def heads(
        self,
        queries: Float[Tensor, "query_row query dim"],
        tokens: Float[Tensor, "row token dim"],
    ) -> tuple[
        Float[Tensor, "row head query channel"],
        Float[Tensor, "row head token channel"],
        Float[Tensor, "row head token channel"],
    ]:
        """Queries, keys and values of every head."""
        asking = self.query(self.query_norm(queries)).unflatten(-1, (self.num_heads, -1))
        keys, values = (
            self.keys_values(self.token_norm(tokens))
            .unflatten(-1, (self.num_heads, 2, -1))
            .permute(3, 0, 2, 1, 4)
        )
        return asking.transpose(1, 2).expand(tokens.shape[0], -1, -1, -1), keys, values


class BandBias(nn.Module):
    """What is added to the attention between bands and bins before the softmax.

    Args:
        bands: First bin and last bin + 1 of every band.
        num_heads: Heads of the attention.
        mode: See ``CompressionConfig.bias``.
        bins_ask: The bins are the queries and the bands are the tokens.
    """

    def __init__(
        self, bands: Bands, num_heads: int, mode: BiasMode, bins_ask: bool = False
    ) -> None:
        super().__init__()
        self.matrix: Tensor | None = None
        self.slope: nn.Parameter | None = None
        if mode == "none":
            return
        bias = distance_to_bands(bands)
        if mode == "zero-inside":
            bias = torch.where(_inside(bands), 0.0, bias)
        elif mode == "hard-mask":
            bias = torch.where(_inside(bands), 0.0, -torch.inf)
        if bins_ask:
            bias = bias.T
        if mode in ("learnable", "zero-inside"):
            matrix = nn.Parameter(torch.empty(num_heads, *bias.shape))
            if not matrix.is_meta:
                with torch.no_grad():
                    matrix.copy_(bias)
            self.matrix = matrix
        else:
            del self.matrix
            self.register_buffer("matrix", bias.unsqueeze(0).contiguous(), persistent=False)
        if mode == "learnable-slope":
            self.slope = nn.Parameter(torch.ones(num_heads, 1, 1))

    def forward(self) -> Float[Tensor, "head query token"] | None:
        """The bias, for all heads or one for every head; None for no bias."""
        if self.matrix is None or self.slope is None:
            return self.matrix
        return self.matrix * self.slope


class BidirectionalMamba(nn.Module):
    """One Mamba layer along queries and tokens in one row, one against it, no residual.

    Args:
        dim: Channels of queries and tokens.
        order: Where bins and queries of bands stand, as ``query_order`` gives it.
        bins_ask: The bins are the queries and the bands are the tokens.
    """

    order: Int[Tensor, "position"]
    places: Int[Tensor, "position"]

    def __init__(self, dim: int, order: list[int], bins_ask: bool = False) -> None:
        super().__init__()
        self.output_dim = 2 * dim
        self.bins_ask = bins_ask
        self.forward_norm = RmsNorm(dim)
        self.forward_scan = SelectiveScan(dim)
        self.backward_norm = RmsNorm(dim)
        self.backward_scan = SelectiveScan(dim)
        places = [0] * len(order)
        for position, member in enumerate(order):
            places[member] = position
        remember(self, "order", order)
        remember(self, "places", places)

    def forward(
        self,
        queries: Float[Tensor, "query_row query dim"],
        tokens: Float[Tensor, "row token dim"],
    ) -> tuple[Float[Tensor, "row query output"], Float[Tensor, "row token output"]]:
        """What passes at the queries and at the tokens, both directions side by side.

        Args:
            queries: One row for all rows of tokens, or one for each.
            tokens: What the queries stand among; rows do not see each other.
        """
        queries = queries.expand(tokens.shape[0], -1, -1)
        bins, bands = (queries, tokens) if self.bins_ask else (tokens, queries)
        line = torch.cat([bins, bands], dim=1)[:, self.order]
        along = self.forward_scan(self.forward_norm(line))
        against = self.backward_scan(self.backward_norm(line.flip(1))).flip(1)
        passing = torch.cat([along, against], dim=-1)[:, self.places]
        at_bins, at_bands = passing.split([bins.shape[1], bands.shape[1]], dim=1)
        return (at_bins, at_bands) if self.bins_ask else (at_bands, at_bins)


class SwiGlu(nn.Module):
    """A pointwise net of one hidden layer, half of whose channels gate the other half."""

    def __init__(self, input_dim: int, hidden_dim: int, dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(input_dim, 2 * hidden_dim)
        self.reduce = nn.Linear(hidden_dim, dim)

    def forward(self, features: Float[Tensor, "*axes input"]) -> Float[Tensor, "*axes dim"]:
        """Positions do not hear each other."""
        # Two products instead of one that is cut in two: training would put the gradients of
        # both halves together again, which takes a seventh of a whole step.
        (value_weight, gate_weight), (value_bias, gate_bias) = (
            parameter.chunk(2) for parameter in (self.expand.weight, self.expand.bias)
        )
        gate = silu(linear(features, gate_weight, gate_bias))
        return self.reduce(linear(features, value_weight, value_bias) * gate)


class RmsNorm(nn.Module):
    """Divide by the root mean square over the last axis, then scale each channel.

    Unlike in ``norms.RmsGroupNorm``, ``eps`` is added inside the root.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, features: Float[Tensor, "*axes dim"]) -> Float[Tensor, "*axes dim"]:
        """Normalise, in float32 whatever the input's precision."""
        full = features.float()
        mean_square = full.square().mean(dim=-1, keepdim=True)
        return (full * torch.rsqrt(mean_square + self.eps) * self.gain).to(features.dtype)


def distance_to_bands(bands: Bands) -> Float[Tensor, "band bin"]:
    """What a bin's distance to a band costs: 0 to -1 inside, 1 more for every bin outside.

    Inside, for a band [s, e) with the middle c = floor((s + e) / 2),

        -|c - bin| / (floor((e - s) / 2) + 1).
    """
    # Always in memory, also where a model is only sketched on the meta device.
    bins = torch.arange(bands[-1][1], device="cpu")
    rows = []
    for start, end in bands:
        middle = (start + end) // 2
        inside = -(bins - middle).abs() / ((end - start) // 2 + 1)
        outside = torch.minimum(bins - start, end - 1 - bins).float()
        rows.append(torch.where(outside < 0, outside, inside))
    return torch.stack(rows)


def query_order(bands: Bands, place: QueryPlace) -> list[int]:
    """How bins and the queries of bands stand in one row.

    Args:
        bands: First bin and last bin + 1 of every band.
        place: Whether a query stands just before the middle of its band, behind its last bin
            or before its first bin.

    Returns:
        The members of the row in order: a bin as its number, the query of the band k as the
        number of bins + k.

    >>> query_order(((0, 2), (2, 4)), "middle")
    [0, 4, 1, 2, 5, 3]
    """
    num_bins = bands[-1][1]
    before_bin = {
        "middle": [(start + end) // 2 for start, end in bands],
        "forward": [end for _, end in bands],
        "backward": [start for start, _ in bands],
    }[place]
    members = [(float(bin_), bin_) for bin_ in range(num_bins)]
    # Half a bin before the bin; queries at one place stay in the order of their bands.
    members += [(bin_ - 0.5, num_bins + band) for band, bin_ in enumerate(before_bin)]
    return [member for _, member in sorted(members)]


def remember(module: nn.Module, name: str, indices: list[int]) -> None:
    """Keep indices that follow from the config: moved with the module, but not stored."""
    # In memory also where a model is only sketched on the meta device: its weights are put in
    # place later, and what is not stored would stay empty.
    module.register_buffer(name, torch.tensor(indices, device="cpu"), persistent=False)


def _inside(bands: Bands) -> Tensor:
    bins = torch.arange(bands[-1][1], device="cpu")
    return torch.stack([(bins >= start) & (bins < end) for start, end in bands])
