"""What stands between a spectrogram and the features a network works on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn


class Encoded(NamedTuple):
    """What an entry makes of a spectrogram.

    Attributes:
        features: What the network works on.
        context: What the exit needs to know of the entry; None where it needs nothing.
    """

    features: Float[Tensor, "batch frame band dim"]
    context: Float[Tensor, "batch frame bin inner"] | None


class SpectralCodec(nn.Module, ABC):
    """Entry and exit of a network: spectrogram → features, features → mask.

    Implementations are exchangeable: the same network body runs between any of them. The axis
    ``part`` holds the real parts of all channels, then their imaginary parts.
    """

    @abstractmethod
    def encode(self, spectrogram: Float[Tensor, "batch part frame bin"]) -> Encoded:
        """Turn a spectrogram into features; frames stay, bins become bands."""

    @abstractmethod
    def decode(
        self,
        features: Float[Tensor, "batch frame band dim"],
        context: Float[Tensor, "batch frame bin inner"] | None,
    ) -> Float[Tensor, "batch source part frame bin"]:
        """Turn features into complex masks, one per source the codec was built for.

        Args:
            features: What the network made of ``Encoded.features``.
            context: ``Encoded.context``, repeated where the batch was.
        """
