"""TF-Locoformer for inference on processors: the sums of ``nn.locoformer``, in another order.

``nn.locoformer`` is the readable truth; this room is held to it by a parity test. What it
does otherwise:

- The features are changed in place, in blocks of rows small enough to pass through feed-forward
  net, attention and feed-forward net while they lie in the processor's cache, and all
  intermediate results go into buffers that are used again: a large buffer that is given back to
  the operating system after every operation costs as much as the arithmetic.
- The short convolutions need half the multiplications (``nn.short_convolution``).
- The gains of the norms are part of the weights that follow them, the scale of the residuals is
  part of the weights before them.
- Queries and keys are turned by one complex multiplication.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from unbraid.nn.attention import SelfAttention
from unbraid.nn.conv_swiglu import ConvSwiGlu
from unbraid.nn.locoformer import LocoformerBlock, LocoformerPath, LocoformerStack
from unbraid.nn.norms import Norm, RmsGroupNorm
from unbraid.nn.products import Weights
from unbraid.nn.rotary import Rotary
from unbraid.nn.short_convolution import (
    NUM_POINTS,
    SUPPORTED_TAPS,
    gather_outputs,
    input_transform,
    kernel_at_points,
    outputs_per_tile,
    spread_outputs,
)
from unbraid.types import Precision

# Positions that pass through a path together, for each thread: enough for operations to be worth
# their start, few enough for their features to stay in the cache.
_BLOCK = 2048
# Hidden numbers of as many positions as pass through a feed-forward net together, for each
# thread: with all points of a tile 6 MB.
_HIDDEN_NUMBERS = 1024 * 768


class FastLocoformerStack(nn.Module):
    """Takes the place of a ``LocoformerStack`` that will not be trained, on a processor.

    Holds weights of its own, made from the stack's: later changes of the stack do not reach it.

    Args:
        stack: The stack to imitate, in float32.
        precision: ``bfloat16`` computes the feed-forward nets with numbers of 8 significant
            bits, which processors with instructions for them do at twice the speed. Features,
            norms and attention stay in float32: bfloat16 makes softmax slower, not faster.
    """

    def __init__(self, stack: LocoformerStack, precision: Precision = "float32") -> None:
        super().__init__()
        self._freq_rotary = stack.freq_rotary
        self._frame_rotary = stack.frame_rotary
        self._paths: list[tuple[bool, _Path]] = []
        with torch.no_grad():
            for block in stack.blocks:
                assert isinstance(block, LocoformerBlock)
                paths = [
                    (True, _Path(block.freq_path, precision)),
                    (False, _Path(block.frame_path, precision)),
                ]
                self._paths += paths if block.order == "ft" else paths[::-1]

    @torch.no_grad()
    def forward(
        self, features: Float[Tensor, "batch frame band dim"]
    ) -> Float[Tensor, "batch frame band dim"]:
        """As ``LocoformerStack.forward``, without gradients."""
        _, frames, bands, _ = features.shape
        freq_turns = _complex_turns(self._freq_rotary, bands)
        frame_turns = _complex_turns(self._frame_rotary, frames)
        scratch = _Scratch()
        refined = features.clone(memory_format=torch.contiguous_format)
        for item in refined:
            for is_freq, path in self._paths:
                if is_freq:
                    path.run(item, freq_turns, scratch)
                else:
                    path.run(item.transpose(0, 1), frame_turns, scratch)
        return refined


def _complex_turns(rotary: Rotary | None, length: int) -> Complex[Tensor, "position pair"] | None:
    if rotary is None:
        return None
    cosine, sine = rotary(length)
    return torch.complex(cosine, sine)


class _Scratch:
    """Buffers by name, as large as the largest that was asked for."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        size = torch.Size(shape).numel()
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name] = torch.empty(size)
        return buffer[:size].view(shape)


class _Path:
    """``LocoformerPath`` on blocks of rows, in place."""

    def __init__(self, path: LocoformerPath, precision: Precision) -> None:
        self._before = (
            _feed_forward(path.norm_before, path.feed_forward_before, path.scale, precision)
            if path.norm_before is not None and path.feed_forward_before is not None
            else None
        )
        self._attention = _Attention(path.attention_norm, path.attention)
        self._after = _feed_forward(path.norm_after, path.feed_forward_after, path.scale, precision)

    def run(
        self,
        features: Float[Tensor, "row position dim"],
        turns: Complex[Tensor, "position pair"] | None,
        scratch: _Scratch,
    ) -> None:
        num_rows = max(1, _BLOCK * torch.get_num_threads() // features.shape[1])
        for view in features.split(num_rows):
            rows = view
            if not view.is_contiguous():  # the frame path: its rows lie across
                rows = scratch("rows", *view.shape)
                rows.copy_(view)
            if self._before is not None:
                self._before.add_to(rows, scratch)
            self._attention.add_to(rows, turns, scratch)
            self._after.add_to(rows, scratch)
            if rows is not view:
                view.copy_(rows)


class _RmsGroupNorm:
    """``RmsGroupNorm`` without its gain."""

    def __init__(self, norm: RmsGroupNorm) -> None:
        self._num_groups = norm.num_groups
        self._eps = norm.eps
        self._mean = (norm.num_groups / norm.gain.numel()) ** 0.5

    def into(self, features: Float[Tensor, "*axes dim"], out: Float[Tensor, "*axes dim"]) -> None:
        groups = features.unflatten(-1, (self._num_groups, -1))
        norms = torch.linalg.vector_norm(groups, dim=-1, keepdim=True)
        torch.div(
            groups,
            norms.mul_(self._mean).add_(self._eps),
            out=out.unflatten(-1, (self._num_groups, -1)),
        )


class _LayerNorm:
    """Layer normalisation, all of it.

    Its bias cannot be part of the weights that follow: convolutions see zeros, and not it, beyond
    the ends of a row.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        self._norm = copy.deepcopy(norm)

    def into(self, features: Float[Tensor, "*axes dim"], out: Float[Tensor, "*axes dim"]) -> None:
        out.copy_(self._norm(features))


def _without_gain(norm: Norm) -> tuple[_RmsGroupNorm | _LayerNorm, Float[Tensor, "dim"]]:
    """A norm for the fast path, and the gain that the weights after it have to bring."""
    if isinstance(norm, nn.LayerNorm):
        return _LayerNorm(norm), torch.ones_like(norm.weight)
    return _RmsGroupNorm(norm), norm.gain


class _Attention:
    """``SelfAttention`` behind its norm, added to its input."""

    def __init__(self, norm: Norm, attention: SelfAttention) -> None:
        self._norm, gain = _without_gain(norm)
        self._num_heads = attention.num_heads
        self._width = len(attention.queries_keys_values.weight)
        self._project = Weights((attention.queries_keys_values.weight * gain).T[None])
        self._output = Weights(attention.output.weight.T[None])

    def add_to(
        self,
        rows: Float[Tensor, "row position dim"],
        turns: Complex[Tensor, "position pair"] | None,
        scratch: _Scratch,
    ) -> None:
        num_rows, length, dim = rows.shape
        tokens = rows.view(1, -1, dim)
        normed = scratch("normed", *tokens.shape)
        self._norm.into(tokens, normed)
        wide = scratch("wide", *tokens.shape[:2], self._width)
        (projected,) = self._project.multiply(normed, out=wide)
        heads = projected.view(num_rows, length, 3, self._num_heads, -1)
        if turns is not None:
            pairs = heads[:, :, :2].unflatten(-1, (-1, 2))
            torch.view_as_complex(pairs).mul_(turns[:, None, None])
        queries, keys, values = heads.transpose(1, 3).unbind(2)
        mixed = torch.nn.functional.scaled_dot_product_attention(queries, keys, values)
        joined = mixed.transpose(1, 2).reshape(*tokens.shape[:2], -1)
        tokens += self._output.multiply(joined, out=normed)[0]


class _PointwiseFeedForward:
    """``ConvSwiGlu`` of one tap behind its norm, added to its input."""

    def __init__(self, norm: Norm, net: ConvSwiGlu, scale: float) -> None:
        self._norm, gain = _without_gain(norm)
        self._width = len(net.expand.weight)
        expand = (net.expand.weight[..., 0] * gain).T
        self._expand = Weights(expand[None], _bias(net.expand)[None])
        reduce = scale * net.reduce.weight[..., 0]
        self._reduce = Weights(reduce[None], scale * _bias(net.reduce)[None])

    def add_to(self, rows: Float[Tensor, "row position dim"], scratch: _Scratch) -> None:
        tokens = rows.view(1, -1, rows.shape[-1])
        for block in tokens.split(_positions_at_once(self._width), dim=1):
            normed = scratch("normed", *block.shape)
            self._norm.into(block, normed)
            wide = scratch("wide", *block.shape[:2], self._width)
            (hidden,) = self._expand.multiply(normed, out=wide)
            gated = _gate(hidden, scratch("gated", *block.shape[1:2], self._width // 2))
            block += self._reduce.multiply(gated[None], out=normed)[0]


class _TiledFeedForward:
    """``ConvSwiGlu`` of several taps behind its norm, added to its input.

    The hidden positions are computed in tiles. A tile of m of them takes the NUM_POINTS
    positions of the padded input that begin where the tile does, and gives back to the same
    positions of the padded output.
    """

    def __init__(self, norm: Norm, net: ConvSwiGlu, scale: float) -> None:
        self._norm, gain = _without_gain(norm)
        self._taps = net.kernel_size
        self._tile = outputs_per_tile(net.kernel_size)
        # weights: point, channel in, channel out
        expand = net.expand.weight * gain[:, None]
        self._width = len(expand)
        self._expand = Weights(kernel_at_points(expand).transpose(1, 2))
        self._expand_bias = _bias(net.expand).detach().clone()
        self._reduce = Weights(kernel_at_points(scale * net.reduce.weight))
        self._reduce_bias = scale * _bias(net.reduce)
        self._to_points = input_transform()
        self._from_points = self._to_points.T.contiguous()

    def add_to(self, rows: Float[Tensor, "row position dim"], scratch: _Scratch) -> None:
        num_rows, length, dim = rows.shape
        edge = self._taps - 1
        num_tiles = -(-(length + edge) // self._tile)
        # A tile's last inputs lie beyond it: the padded rows have one tile's rest more.
        padded_length = (num_tiles - 1) * self._tile + NUM_POINTS
        padded = scratch("padded", num_rows, padded_length, dim)
        padded[:, :edge] = 0
        padded[:, edge + length :] = 0
        self._norm.into(rows, padded[:, edge : edge + length])
        tiles = padded.unfold(1, NUM_POINTS, self._tile).permute(3, 0, 1, 2)
        inputs = scratch("inputs", *tiles.shape)
        inputs.copy_(tiles)
        output = scratch("output", num_rows, padded_length, dim)
        output.zero_()
        at_points = torch.mm(
            self._to_points,
            inputs.view(NUM_POINTS, -1),
            out=scratch("at_points", NUM_POINTS, inputs[0].numel()),
        ).view(NUM_POINTS, -1, dim)
        outputs = torch.mm(
            self._from_points,
            self._transform(at_points, scratch).view(NUM_POINTS, -1),
            out=inputs.view(NUM_POINTS, -1),
        ).view(tiles.shape)
        for position in range(NUM_POINTS):
            last = position + (num_tiles - 1) * self._tile
            output[:, position : last + 1 : self._tile] += outputs[position]
        rows.add_(output[:, edge : edge + length]).add_(self._reduce_bias)

    def _transform(
        self, at_points: Float[Tensor, "point tile dim"], scratch: _Scratch
    ) -> Float[Tensor, "point tile dim"]:
        """Expand, gate and reduce, in place, in blocks of tiles."""
        block = max(1, _positions_at_once(self._width) // self._tile)
        for start in range(0, at_points.shape[1], block):
            part = at_points[:, start : start + block]
            num_tiles = part.shape[1]
            wide = scratch("wide", NUM_POINTS, num_tiles, self._width)
            products = self._expand.multiply(part, out=wide)
            # The value at the point 1 is part of every output, once.
            products[1].add_(self._expand_bias)
            hidden = scratch("hidden", self._tile, num_tiles, self._width)
            gather_outputs(products, hidden)
            gated = _gate(hidden, scratch("gated", self._tile, num_tiles, self._width // 2))
            spread = scratch("wide", NUM_POINTS, num_tiles, self._width // 2)
            spread_outputs(gated, spread)
            narrow = scratch("narrow", *part.shape)
            for target, product in zip(
                part, self._reduce.multiply(spread, out=narrow), strict=True
            ):
                target.copy_(product)
        return at_points


class _DirectFeedForward:
    """``ConvSwiGlu`` as it is, in any precision, behind its norm, added to its input."""

    def __init__(self, norm: Norm, net: ConvSwiGlu, scale: float, precision: torch.dtype) -> None:
        self._norm = norm
        self._net = copy.deepcopy(net).to(precision)
        self._scale = scale
        self._precision = precision

    def add_to(self, rows: Float[Tensor, "row position dim"], scratch: _Scratch) -> None:
        del scratch
        normed = self._norm(rows).to(self._precision)
        rows.add_(self._net(normed[None])[0], alpha=self._scale)


def _feed_forward(
    norm: Norm, net: ConvSwiGlu, scale: float, precision: Precision
) -> _PointwiseFeedForward | _TiledFeedForward | _DirectFeedForward:
    if precision == "bfloat16":
        # Toom-Cook would amplify the errors of so short numbers.
        return _DirectFeedForward(norm, net, scale, torch.bfloat16)
    if net.stride == 1 and net.kernel_size == 1:
        return _PointwiseFeedForward(norm, net, scale)
    if net.stride == 1 and net.kernel_size in SUPPORTED_TAPS:
        return _TiledFeedForward(norm, net, scale)
    return _DirectFeedForward(norm, net, scale, torch.float32)


def _positions_at_once(width: int) -> int:
    return min(_BLOCK, max(1, _HIDDEN_NUMBERS // width)) * torch.get_num_threads()


def _bias(convolution: nn.Conv1d | nn.ConvTranspose1d) -> Float[Tensor, "channel"]:
    assert convolution.bias is not None, "ConvSwiGlu has biases"
    return convolution.bias


def _gate(
    hidden: Float[Tensor, "*axes double"], out: Float[Tensor, "*axes half"]
) -> Float[Tensor, "*axes half"]:
    value, gate = hidden.chunk(2, dim=-1)
    return torch.mul(value, torch.nn.functional.silu(gate, inplace=True), out=out)
