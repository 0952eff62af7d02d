"""The convolutional feed-forward network of TF-Locoformer."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ConvSwiGlu(nn.Module):
    """Convolution, swish gate, transposed convolution: a feed-forward net that sees neighbours.

    An output position sees ``kernel_size - 1`` neighbours on either side. With the kernel
    size 1 it is a plain pointwise SwiGLU.

    Args:
        dim: Channels in and out.
        hidden_dim: Channels between the convolutions.
        kernel_size: Length of both kernels.
        stride: Step of both convolutions, 1 in every published model.
        dropout: Share of the gated numbers that are set to zero in training.

    Source: K. Saijo et al., "TF-Locoformer", IWAENC 2024, section 3.1.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        kernel_size: int,
        stride: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        # The modules hold weights in the shapes of 1-d convolutions; forward() applies them
        # as 2-d ones over channels-last features, which needs no transposition in memory.
        self.expand = nn.Conv1d(dim, 2 * hidden_dim, kernel_size, stride)
        self.reduce = nn.ConvTranspose1d(hidden_dim, dim, kernel_size, stride)
        self.kernel_size = kernel_size
        self.stride = stride

    def forward(
        self, features: Float[Tensor, "batch row position dim"]
    ) -> Float[Tensor, "batch row position dim"]:
        """Transform every position by its neighbourhood; rows do not see each other."""
        if self.kernel_size == 1 and self.stride == 1:
            value, gate = torch.nn.functional.linear(
                features, self.expand.weight[..., 0], self.expand.bias
            ).chunk(2, dim=-1)
            hidden = self.dropout(value * torch.nn.functional.silu(gate))
            return torch.nn.functional.linear(
                hidden, self.reduce.weight[..., 0].T, self.reduce.bias
            )
        length = features.shape[2]
        left = self.kernel_size - self.stride
        steps = math.ceil((length + 2 * left - self.kernel_size) / self.stride)
        right = steps * self.stride + self.kernel_size - length - left
        image = features.permute(0, 3, 1, 2)  # batch dim row position, channels last in memory
        image = torch.nn.functional.pad(image, (left, right))
        value, gate = torch.nn.functional.conv2d(
            image, _as_image_kernel(self.expand.weight), self.expand.bias, (1, self.stride)
        ).chunk(2, dim=1)
        hidden = self.dropout(value * torch.nn.functional.silu(gate))
        if self.stride == 1:
            # A transposed convolution of stride 1 is a plain one with the kernel reversed;
            # without padding it gives just the middle that is kept.
            reversed_kernel = self.reduce.weight.flip(2).transpose(0, 1)
            output = torch.nn.functional.conv2d(
                hidden, _as_image_kernel(reversed_kernel), self.reduce.bias
            )
        else:
            output = torch.nn.functional.conv_transpose2d(
                hidden, self.reduce.weight.unsqueeze(2), self.reduce.bias, (1, self.stride)
            )[..., left : left + length]
        return output.permute(0, 2, 3, 1)


def _as_image_kernel(
    kernel: Float[Tensor, out in tap],
) -> Float[Tensor, "out in 1 tap"]:
    return kernel.unsqueeze(2).contiguous(memory_format=torch.channels_last)
