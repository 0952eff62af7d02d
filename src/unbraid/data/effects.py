"""What mixtures need beside torch: lossy codecs, and tempo and pitch by themselves."""

from __future__ import annotations

import importlib.util
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.audio.formats import AudioFormat, Subtype
from unbraid.audio.lossy import through_codec
from unbraid.errors import MissingExtra
from unbraid.mixing.augmentation import Augmentation, Codec, Coding
from unbraid.mixing.render import Effects
from unbraid.types import Waveform

_SUBTYPES: dict[Codec, Subtype] = {
    "mp3": "MPEG_LAYER_III",
    "opus": "OPUS",
    "ogg": "VORBIS",
    "m4a": "AAC",
}


def check_extras(augmentation: Augmentation) -> None:
    """See that what an augmentation needs is installed.

    Raises:
        MissingExtra: If it is not.
    """
    if augmentation.stretches and not _can_stretch():
        raise MissingExtra(
            "changing tempo or pitch by itself needs the package python-stretch; install it with: "
            "pip install 'unbraid[augment]', or use augmentation.speed_probability."
        )


@cache
def _can_stretch() -> bool:
    return importlib.util.find_spec("python_stretch") is not None


def _code(signal: Float[Tensor, "time"], sample_rate: int, coding: Coding) -> Float[Tensor, "time"]:
    audio_format = AudioFormat(coding.codec, _SUBTYPES[coding.codec], coding.kbps)
    return through_codec(Waveform(signal[None], sample_rate), audio_format).samples[0]


def _stretch(
    signal: Float[Tensor, "time"], sample_rate: int, tempo: float, semitones: float
) -> Float[Tensor, "stretched"]:
    """Another tempo or pitch, by the phase vocoder of Signalsmith Stretch."""
    import python_stretch  # optional, and loaded by nobody else

    # With a seed of its own: equal plans give equal sounds.
    stretch = python_stretch.Signalsmith.Stretch(0)
    stretch.preset(1, sample_rate)
    stretch.setTransposeSemitones(semitones)
    stretch.timeFactor = tempo
    return torch.from_numpy(np.array(stretch.process(signal[None].numpy()))[0])


#: What ``render`` is handed for every plan.
EFFECTS = Effects(code=_code, stretch=_stretch)
