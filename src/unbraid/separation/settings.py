"""How a recording is to be separated: one record, from the command line to the core."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from unbraid.errors import ConfigError
from unbraid.types import Precision, StereoMode

_CHOICES = {
    "join": ("crossfade", "mean"),
    "consistency": ("off", "project"),
    "stereo": (None, *get_args(StereoMode)),
    "precision": ("auto", *get_args(Precision)),
}


@dataclass(frozen=True)
class SeparationConfig:
    """What may be chosen about a separation, whatever the model.

    Attributes:
        segment_s: Length of the chunks in seconds; None for what suits the model. Where the model
            hears shorter chunks only, as long as it hears.
        overlap_s: How much neighbouring chunks share, in seconds; None for what suits the
            model, or, with a segment of another length than the model's, for a quarter of that
            where it is less.
        join: How chunks are joined; see ``separation.chunking.ChunkPlan``.
        gate: Make a stem digital silence where its sound is absent; see ``separation.gate``.
        consistency: ``project`` changes the stems so that they add up to the mixture; see
            ``separation.consistency``. ``off`` leaves them as the model gave them.
        stereo: How several channels are put together, see ``types.StereoMode``; None for what
            suits the model.
        precision: ``bfloat16`` lets the network compute with numbers of 8 significant bits,
            which is faster and differs from ``float32`` by some -50 dB. ``auto`` is bfloat16
            on GPUs made for it and float32 everywhere else.

    Raises:
        ConfigError: For a length that is not a number, or a choice that does not exist.
    """

    segment_s: float | None = None
    overlap_s: float | None = None
    join: Literal["crossfade", "mean"] = "crossfade"
    gate: bool = False
    consistency: Literal["off", "project"] = "off"
    stereo: StereoMode | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        for name in ("segment_s", "overlap_s"):
            seconds = getattr(self, name)
            if seconds is not None and not math.isfinite(seconds):
                raise ConfigError(f"{name} {seconds}: must be a number of seconds.")
        for name, known in _CHOICES.items():
            chosen = getattr(self, name)
            if chosen not in known:
                named = ", ".join(choice for choice in known if choice is not None)
                raise ConfigError(f"{name} {chosen!r}: choose one of {named}.")
