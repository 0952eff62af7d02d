"""Mamba: a gated recurrence along a sequence whose memory depends on what passes by."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Steps whose decays and inputs are made together: enough to spare calls, few enough to stay in
# the cache.
_STEPS_AT_ONCE = 32
# The range in which step sizes start, and the least of them.
_SMALLEST_STEP, _LARGEST_STEP, _STEP_FLOOR = 1e-3, 1e-1, 1e-4


class SelectiveScan(nn.Module):
    """One Mamba layer: a short convolution, a selective recurrence, and a gate.

    It is causal: a position hears itself and those before it. There is no residual and no
    normalisation. On CUDA, the kernel of the package ``mamba_ssm`` does the recurrence, where
    that is installed; elsewhere plain operations do, one position after the other.

    =====================  =================================================================
    Mamba-1                here
    =====================  =================================================================
    in_proj, out_proj      entry, exit
    conv1d                 convolution
    x_proj                 selection: step sizes, then inputs (B), then outputs (C)
    dt_proj                step_size
    A_log, D               log_decay, skip
    =====================  =================================================================

    Args:
        dim: Channels in and out.
        state_dim: Numbers that each channel remembers (N).
        kernel_size: Positions that the convolution hears, the present one included.
        expansion: Channels of the recurrence in multiples of ``dim``.

    Source: A. Gu and T. Dao, "Mamba: linear-time sequence modeling with selective state
        spaces", COLM 2024, algorithm 2.
    """

    def __init__(
        self, dim: int, state_dim: int = 8, kernel_size: int = 4, expansion: int = 1
    ) -> None:
        super().__init__()
        inner_dim = expansion * dim
        self.rank = math.ceil(dim / 16)
        self.state_dim = state_dim
        self.entry = nn.Linear(dim, 2 * inner_dim, bias=False)
        self.convolution = nn.Conv1d(
            inner_dim, inner_dim, kernel_size, groups=inner_dim, padding=kernel_size - 1
        )
        self.selection = nn.Linear(inner_dim, self.rank + 2 * state_dim, bias=False)
        self.step_size = nn.Linear(self.rank, inner_dim)
        self.log_decay = nn.Parameter(torch.empty(inner_dim, state_dim))
        self.skip = nn.Parameter(torch.ones(inner_dim))
        self.exit = nn.Linear(inner_dim, dim, bias=False)
        # On the meta device only the shape is wanted; see ``nn.rotary``.
        if not self.log_decay.is_meta:
            self._start()

    def _start(self) -> None:
        """Memories of 1 to N steps, and step sizes spread evenly over two decades."""
        with torch.no_grad():
            self.log_decay.copy_(torch.arange(1.0, self.state_dim + 1).log())
            nn.init.uniform_(self.step_size.weight, -(self.rank**-0.5), self.rank**-0.5)
            smallest, largest = math.log(_SMALLEST_STEP), math.log(_LARGEST_STEP)
            steps = torch.empty_like(self.step_size.bias).uniform_(smallest, largest).exp()
            steps.clamp_min_(_STEP_FLOOR)
            # softplus(b) = log(1 + exp(b)) = s, so b = log(exp(s) - 1).
            self.step_size.bias.copy_(steps.expm1().log())

    def forward(
        self, features: Float[Tensor, "row position dim"]
    ) -> Float[Tensor, "row position dim"]:
        """Run along ``position``; rows do not hear each other."""
        length = features.shape[1]
        values, gates = self.entry(features).chunk(2, dim=-1)
        # Padded on both sides; cutting the end off leaves the past alone.
        heard = self.convolution(values.transpose(1, 2))[..., :length].transpose(1, 2)
        values = torch.nn.functional.silu(heard)
        ranks, inputs, outputs = self.selection(values).split(
            [self.rank, self.state_dim, self.state_dim], dim=-1
        )
        steps = torch.nn.functional.softplus(self.step_size(ranks).float())
        scan = selective_scan
        if features.is_cuda and _fused_scan() is not None:
            scan = fused_selective_scan
        scanned = scan(
            values.float(), steps, -self.log_decay.float().exp(), inputs.float(), outputs.float()
        )
        scanned = scanned + self.skip * values
        return self.exit(scanned.to(features.dtype) * torch.nn.functional.silu(gates))


def selective_scan(
    values: Float[Tensor, "row position channel"],
    steps: Float[Tensor, "row position channel"],
    decay: Float[Tensor, "channel state"],
    inputs: Float[Tensor, "row position state"],
    outputs: Float[Tensor, "row position state"],
) -> Float[Tensor, "row position channel"]:
    """The selective recurrence, from an empty memory.

        h_t = exp(s_t A) h_(t-1) + s_t x_t b_t,    y_t = c_t . h_t

    for every channel by itself, with a memory h of ``state`` numbers.

    Args:
        values: What is heard, x.
        steps: Step sizes s, positive: how far the memory moves on at each position.
        decay: Rates A, negative.
        inputs: How a value enters the memory, b.
        outputs: How the memory is read, c.

    Source: A. Gu and T. Dao, as above, equations 1 and 2 with the discretisation that the
        released code uses: exact for A, a plain product for b.
    """
    rows, length, channels = values.shape
    memory = values.new_zeros(rows, channels, decay.shape[1])
    read = []
    for start in range(0, length, _STEPS_AT_ONCE):
        here = slice(start, start + _STEPS_AT_ONCE)
        kept = (steps[:, here, :, None] * decay).exp()
        entering = (steps[:, here] * values[:, here]).unsqueeze(-1) * inputs[:, here, None]
        memories = []
        for position_kept, position_entering in zip(
            kept.unbind(1), entering.unbind(1), strict=True
        ):
            memory = torch.addcmul(position_entering, position_kept, memory)
            memories.append(memory)
        read.append((torch.stack(memories, dim=1) * outputs[:, here, None]).sum(dim=-1))
    return torch.cat(read, dim=1)


def fused_selective_scan(
    values: Float[Tensor, "row position channel"],
    steps: Float[Tensor, "row position channel"],
    decay: Float[Tensor, "channel state"],
    inputs: Float[Tensor, "row position state"],
    outputs: Float[Tensor, "row position state"],
) -> Float[Tensor, "row position channel"]:
    """``selective_scan`` by the kernel of ``mamba_ssm``, which has positions on the last axis."""
    scan = _fused_scan()
    assert scan is not None, "the caller asked for it first"
    # The kernel wants memory that runs along the positions.
    heard, moved, entering, reading = (
        tensor.transpose(1, 2).contiguous() for tensor in (values, steps, inputs, outputs)
    )
    return scan(heard, moved, decay, entering, reading).transpose(1, 2)


@cache
def _fused_scan() -> Callable[..., Tensor] | None:
    """The kernel, None where the package is not installed or does not fit this machine."""
    try:
        module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except (ImportError, OSError, RuntimeError):
        return None
    found: Callable[..., Tensor] | None = getattr(module, "selective_scan_fn", None)
    return found
