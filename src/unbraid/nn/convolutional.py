"""The convolutional codec: one small convolution in, one out, bands as fine as the bins."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.errors import ConfigError
from unbraid.nn.codec import Encoded, SpectralCodec
from unbraid.nn.norms import GlobalLayerNorm


@dataclass(frozen=True)
class ConvolutionalConfig:
    """Convolutional entry and exit.

    Attributes:
        kernel_size: Side of both kernels, in frames and in bins; odd.
        norm_eps: Added to the variance of the features.
    """

    kernel_size: int = 3
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size must be odd and positive, not {self.kernel_size}.")


class ConvolutionalCodec(SpectralCodec):
    """A convolution and a normalisation in, a transposed convolution out.

    Every bin is a band. What ``decode`` gives are spectra and not masks, so that a source may be
    loud where the mixture is not. The normalisation runs over all channels, frames and bins of
    the chunk, so the codec is not causal.

    Both convolutions run in float32, under ``torch.autocast`` too.

    Args:
        config: What to build.
        dim: Channels of the features.
        num_sources: Spectra that ``decode`` gives for each set of features.
        num_channels: Channels of the recording.

    Source: K. Saijo et al., "TF-Locoformer", IWAENC 2024, section 2, after Z.-Q. Wang et al.,
        "TF-GridNet", TASLP 2023.
    """

    def __init__(
        self, config: ConvolutionalConfig, dim: int, num_sources: int, num_channels: int = 1
    ) -> None:
        super().__init__()
        margin = config.kernel_size // 2
        self.num_sources = num_sources
        self.expand = nn.Conv2d(2 * num_channels, dim, config.kernel_size, padding=margin)
        self.norm = GlobalLayerNorm(dim, config.norm_eps)
        self.reduce = nn.ConvTranspose2d(
            dim, 2 * num_channels * num_sources, config.kernel_size, padding=margin
        )

    def encode(self, spectrogram: Float[Tensor, "batch part frame bin"]) -> Encoded:
        """Give each bin its features."""
        with _in_float32(spectrogram):
            features = self.expand(spectrogram.float()).permute(0, 2, 3, 1).contiguous()
            return Encoded(self.norm(features), None)

    def decode(
        self,
        features: Float[Tensor, "batch frame band dim"],
        context: Float[Tensor, "batch frame bin inner"] | None = None,
    ) -> Float[Tensor, "batch source part frame bin"]:
        """Give each source a spectrogram, in float32."""
        with _in_float32(features):
            spectra = self.reduce(features.float().permute(0, 3, 1, 2))
        # channels: source, part
        return spectra.unflatten(1, (self.num_sources, -1))


def _in_float32(like: Tensor) -> AbstractContextManager[object]:
    device_type = like.device.type
    # Without autocast there is nothing to switch off, and exported graphs stay free of it.
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()
