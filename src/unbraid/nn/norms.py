"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.errors import ConfigError


class RmsGroupNorm(nn.Module):
    """Divide each group of channels by its root mean square, then scale each channel.

    Args:
        dim: Channels on the last axis.
        num_groups: Groups of ``dim / num_groups`` neighbouring channels.
        eps: Added to the root mean square itself, outside the root.

    Raises:
        ConfigError: If ``num_groups`` does not divide ``dim``.

    Source: K. Saijo et al., "TF-Locoformer", IWAENC 2024, section 3.2.
    """

    def __init__(self, dim: int, num_groups: int, eps: float = 1e-5) -> None:
        super().__init__()
        if num_groups < 1 or dim % num_groups:
            raise ConfigError(f"num_groups ({num_groups}) must divide dim ({dim}).")
        self.gain = nn.Parameter(torch.ones(dim))
        self.num_groups = num_groups
        self.eps = eps

    def forward(self, features: Float[Tensor, "*axes dim"]) -> Float[Tensor, "*axes dim"]:
        """Normalise the last axis, in float32 whatever the input's precision."""
        groups = features.float().unflatten(-1, (self.num_groups, -1))
        # By the norm and not by its parts: its gradient is defined at silence too, as zero.
        norm = torch.linalg.vector_norm(groups, dim=-1, keepdim=True)
        root_mean_square = norm * groups.shape[-1] ** -0.5
        normalised = groups * (root_mean_square + self.eps).reciprocal()
        return (normalised.flatten(-2) * self.gain).to(features.dtype)


class GlobalLayerNorm(nn.Module):
    """Normalise an item by its mean and variance over all frames, bands and channels.

    Args:
        dim: Channels on the last axis, each with a gain and a bias.
        eps: Added to the variance.

    Source: Y. Luo and N. Mesgarani, "Conv-TasNet", TASLP 2019, section II-C.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(
        self, features: Float[Tensor, "batch frame band dim"]
    ) -> Float[Tensor, "batch frame band dim"]:
        """Normalise every item of the batch."""
        centred = features - _mean(features)
        deviation = (_mean(centred.square()) + self.eps).sqrt()
        return centred / deviation * self.gain + self.bias


def _mean(features: Float[Tensor, "batch frame band dim"]) -> Float[Tensor, "batch 1 1 1"]:
    # Axis by axis: other programs that run exported graphs add up millions of numbers one after
    # the other, and lose 20 dB of accuracy.
    return features.mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation of ``batch channel row column``, whose state is all real numbers.

    Left out is PyTorch's count of batches: it matters only to running statistics that are
    plain means over all batches, and these forget.

    Args:
        num_channels: Channels on the second axis, each with a gain, a bias, and a running mean
            and variance that take the place of the batch's outside training.
        momentum: How much of the running statistics each batch replaces.
    """

    def __init__(self, num_channels: int, momentum: float = 0.1) -> None:
        super().__init__(num_channels, momentum=momentum)
        self.num_batches_tracked = None

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        *rest: Any,
    ) -> None:
        # To a state that does not say its version PyTorch would add the count, and then refuse it.
        super()._load_from_state_dict(state_dict, prefix, {**local_metadata, "version": 2}, *rest)


#: The norms that a TF-Locoformer path can have; both work on the last axis.
Norm = RmsGroupNorm | nn.LayerNorm
