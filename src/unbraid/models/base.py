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
    """Mixture spectrogram and queries in, one spectrogram per output out.

    Axes: ``batch``, ``frame`` and ``bin`` are those of ``dsp.stft``; ``source`` is the
    number of queries, the same for the whole batch. The axis ``part`` holds the real parts of
    all channels, then their imaginary parts: no network sees a complex number, so every one can
    be exported.

    Most networks give one output per query. Those with fixed outputs always give the same ones:
    their queries have no numbers, and ``WaveformModel`` picks what was asked for.

    A model must
    - give finite output for finite input, silence included;
    - treat the items of a batch independently;
    - leave its arguments unchanged.

    It need not be linear in level: ``WaveformModel`` normalises around it.
    """

    #: Length of a query vector; 0 with fixed outputs.
    query_dim: int
    #: How many such vectors a query may have; several stand behind each other in the axis
    #: ``query``. One is always enough.
    query_vectors: tuple[int, ...] = (1,)
    #: How many outputs there always are; None for one per query.
    num_outputs: int | None = None
    #: How many channels it hears together.
    num_channels: int = 1
    #: How many frames it can hear at once; None for any number.
    most_frames: int | None = None

    @abstractmethod
    def forward(
        self,
        mixture: Float[Tensor, "batch part frame bin"],
        queries: Float[Tensor, "batch source query"],
    ) -> Float[Tensor, "batch output part frame bin"]:
        """Estimate the spectrogram of every queried source, or of all fixed outputs."""


@dataclass(frozen=True)
class Architecture:
    """What a file in ``models/architectures`` declares as ``ARCHITECTURE``.

    Attributes:
        name: The name in configs and bundles.
        config_type: The frozen dataclass that describes one model.
        build: Makes the network from its config, the sampling rate and the transform.
        presets: Published sizes by name.
        examples: Networks of a few thousand numbers that show every variant; the contract tests
            run on them, at 16 kHz with windows of 256 samples.
    """

    name: str
    config_type: type[Any]
    build: Callable[[Any, int, StftConfig], SpectralModel]
    presets: Mapping[str, Any] = field(default_factory=dict)
    examples: Mapping[str, Any] = field(default_factory=dict)
