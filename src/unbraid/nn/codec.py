"""What stands between a spectrogram and the features a network works on."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class SpectralCodec(nn.Module, ABC):
    """Entry and exit of a network: spectrogram → features, features → mask.

    Implementations are exchangeable: the same network body runs between any of them. The
    axis of length 2 holds real and imaginary part.
    """

    @abstractmethod
    def encode(
        self, spectrogram: Float[Tensor, "batch 2 frame bin"]
    ) -> Float[Tensor, "batch frame band dim"]:
        """Turn a spectrogram into features; frames stay, bins become bands."""

    @abstractmethod
    def decode(
        self, features: Float[Tensor, "batch frame band dim"]
    ) -> Float[Tensor, "batch source 2 frame bin"]:
        """Turn features into complex masks, one per source the codec was built for."""
