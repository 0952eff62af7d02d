"""How a recording is to be separated: one record, from the command line to the core."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from unbraid.errors import ConfigError


@dataclass(frozen=True)
class SeparationConfig:
    """What may be chosen about a separation, whatever the model.

    Attributes:
        segment_s: Length of the chunks in seconds; None for what suits the model.
        overlap_s: How much neighbouring chunks share, in seconds; None for what suits the
            model, or a quarter of the segment where that is less.
        join: How chunks are joined; see ``separation.chunking.ChunkPlan``.

    Raises:
        ConfigError: For a length that is not a number, or a choice that does not exist.
    """

    segment_s: float | None = None
    overlap_s: float | None = None
    join: Literal["crossfade", "mean"] = "crossfade"

    def __post_init__(self) -> None:
        for name in ("segment_s", "overlap_s"):
            seconds = getattr(self, name)
            if seconds is not None and not math.isfinite(seconds):
                raise ConfigError(f"{name} {seconds}: must be a number of seconds.")
