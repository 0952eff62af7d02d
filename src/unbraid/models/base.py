"""The contract that every separation model keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from unbraid.dsp.stft import StftConfig


class SpectralModel(nn.Module, ABC):
    """Mixture spectrogram and queries in, one spectrogram per query out.

    Axes: ``batch``, ``frame`` and ``bin`` are those of ``dsp.stft``; ``source`` is the
    number of queries, the same for the whole batch. The axis of length 2 holds real and
    imaginary part: no network sees a complex number, so every one can be exported.

    A model must
    - give finite output for finite input, silence included;
    - treat the items of a batch independently;
    - leave its arguments unchanged.

    It need not be linear in level: ``WaveformModel`` normalises around it.
    """

    #: Length of a query vector.
    query_dim: int

    @abstractmethod
    def forward(
        self,
        mixture: Float[Tensor, "batch 2 frame bin"],
        queries: Float[Tensor, "batch source dim"],
    ) -> Float[Tensor, "batch source 2 frame bin"]:
        """Estimate the spectrogram of every queried source."""


@dataclass(frozen=True)
class Architecture:
    """What a file in ``models/architectures`` declares as ``ARCHITECTURE``.

    Attributes:
        name: The name in configs and bundles.
        config_type: The frozen dataclass that describes one model.
        build: Makes the network from its config, the sampling rate and the transform.
        presets: Published sizes by name.
    """

    name: str
    config_type: type[Any]
    build: Callable[[Any, int, StftConfig], SpectralModel]
    presets: Mapping[str, Any] = field(default_factory=dict)
