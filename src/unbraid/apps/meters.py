"""Levels of signals that arrive in blocks."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

#: The lowest ratio that is reported: below it float32 cannot tell anything from nothing.
_FLOOR_DB = -200.0


class Meter:
    """Energy and peak of a signal that arrives in blocks.

    Attributes:
        num_samples: Samples per channel so far.
        peak: The largest absolute value so far.
    """

    def __init__(self) -> None:
        self.num_samples = 0
        self.peak = 0.0
        self._num_values = 0
        self._energy = 0.0

    def add(self, block: Float[Tensor, "channel time"]) -> None:
        """Take a block into account."""
        self.num_samples += block.shape[-1]
        if block.numel():
            self._num_values += block.numel()
            self._energy += float(block.double().square().sum())
            self.peak = max(self.peak, float(block.abs().max()))

    def report(self, gain: float = 1.0) -> dict[str, float | None]:
        """Level (RMS over all channels) and peak in dB of full scale; None for silence.

        Args:
            gain: What the signal was multiplied with after it was measured.
        """
        return {
            "level_dbfs": ratio_db(self._energy * gain**2, self._num_values),
            "peak_dbfs": ratio_db((self.peak * gain) ** 2, 1),
        }

    def relative_to(self, other: Meter) -> float | None:
        """Energy of this signal over that of another in dB; None where there is none.

        A signal that is silent, or is rounding noise only, is at -200 dB.
        """
        if other._energy == 0:
            return None
        found_db = ratio_db(self._energy, other._energy)
        return _FLOOR_DB if found_db is None else max(found_db, _FLOOR_DB)


def ratio_db(power: float, reference: float) -> float | None:
    """A ratio of powers in dB, to two decimal places; None if there is no power."""
    return round(10 * math.log10(power / reference), 2) if power > 0 else None
