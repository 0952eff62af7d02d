"""Recordings in memory that mixtures are cut from: for the few that somebody teaches with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.data.store import active_blocks
from unbraid.mixing.recipe import Clip


class ClipShelf:
    """Recordings at one rate, by name.

    Args:
        sample_rate: Of all of them.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._samples: dict[str, Tensor] = {}

    def add(
        self, key: str, samples: Float[Tensor, "time"], bandwidth_hz: float | None = None
    ) -> Clip:
        """Keep a recording.

        Args:
            key: Its name; must be new.
            samples: Mono, at the rate of the shelf.
            bandwidth_hz: The highest frequency that it can hold; None for half the rate.

        Returns:
            What a planner needs to know of it; a silent one has no active stretch.

        Raises:
            ValueError: If the name is taken.
        """
        if key in self._samples:
            raise ValueError(f"a clip called {key} stands on the shelf already")
        self._samples[key] = samples
        return Clip(
            key=key,
            duration_s=samples.numel() / self.sample_rate,
            bandwidth_hz=self.sample_rate / 2 if bandwidth_hz is None else bandwidth_hz,
            active_s=active_blocks(samples, self.sample_rate),
        )

    def add_all(self, recordings: Mapping[str, Float[Tensor, "time"]]) -> tuple[Clip, ...]:
        """Keep several; name → samples."""
        return tuple(self.add(key, samples) for key, samples in recordings.items())

    def read(self, key: str, start: int, count: int) -> Float[Tensor, "time"]:
        """Samples of a recording; zeros before its beginning and after its end."""
        samples = self._samples[key]
        output = torch.zeros(count)
        first, last = max(0, start), min(samples.numel(), start + count)
        if last > first:
            output[first - start : last - start] = samples[first:last]
        return output
