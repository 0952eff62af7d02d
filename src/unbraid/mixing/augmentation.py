"""What can happen to sounds on their way into a mixture, and what becomes of the references.

Drawn first, then applied: here stand the distributions, and the plain data that a draw gives;
``recipe`` puts them into its plans and ``render`` carries them out, in this order:

===================  ==========  ==============================================================
what                 of          references
===================  ==========  ==============================================================
speed, tempo, pitch  each part   changed alike; parts that are cut from one song change together
tone                 each part   changed alike (``MixRecipe.tone_probability``)
bandwidth            each part   cut alike (``MixRecipe.*_bandwidth_probability``)
codec                a source    changed alike: the recording came that way
polarity             a source    changed alike
width                a source    changed alike
room                 a source    what the room adds stays in, or all but its early part is left
                                 out; in time with the direct path either way
gain                 a source    changed alike (``MixRecipe.gain_db``)
clipping             a mixture   clean, or turned down together where the mixture is clipped
codec                a mixture   clean, or each sent through the codec as well
level                a mixture   changed alike
===================  ==========  ==============================================================

References add up to the mixture, unless something was left out of them: a late reverberation,
a sound that is not asked for, the damage of a mixture.

What is drawn here comes from a generator of its own. So a recipe with an augmentation draws the
clips, levels and tones that it draws without, and the two can be compared.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias

from unbraid.errors import ConfigError

#: Lossy codecs: mp3, Opus, Ogg Vorbis, and AAC in an m4a.
Codec: TypeAlias = Literal["mp3", "opus", "ogg", "m4a"]

#: Lowest and highest bit rate that a codec takes for one channel, in kbit/s.
CODEC_KBPS: Mapping[Codec, tuple[int, int]] = {
    "mp3": (8, 320),
    "opus": (6, 256),
    "ogg": (32, 256),
    "m4a": (16, 256),
}


@dataclass(frozen=True)
class Warp:
    """How the time and the pitch of a part were changed.

    Attributes:
        speed: Played so much faster; higher by as much.
        tempo: Faster at the same pitch.
        pitch_semitones: Higher at the same tempo.
    """

    speed: float = 1.0
    tempo: float = 1.0
    pitch_semitones: float = 0.0

    @property
    def pace(self) -> float:
        """Seconds of the clip that pass in a second of the mixture."""
        return self.speed * self.tempo

    @property
    def frequency_ratio(self) -> float:
        """What frequencies are multiplied by."""
        return self.speed * 2.0 ** (self.pitch_semitones / 12.0)


UNWARPED = Warp()


@dataclass(frozen=True)
class Room:
    """A room that a source is heard in.

    Attributes:
        clip: Key of the room impulse response.
        duration_s: Its length.
        early_s: The reference ends so long after the direct path; None keeps all of the room.
    """

    clip: str
    duration_s: float
    early_s: float | None = None


@dataclass(frozen=True)
class Coding:
    """A codec and its bit rate."""

    codec: Codec
    kbps: int


@dataclass(frozen=True)
class Augmentation:
    """How often sounds and mixtures are changed, and how far; by default never.

    Where two numbers stand, what is drawn lies evenly between them, but for bit rates, which
    lie evenly on a logarithmic scale.

    Attributes:
        polarity_probability: How often a source is turned upside down.
        width_probability: How often the two channels of a source are moved together or apart.
        width: Narrowest and widest, as factors of their difference: 0 makes both alike, 1 changes
            nothing.
        speed_probability: How often a part is played faster or slower, pitch and all.
        speed: Slowest and fastest, as factors; in steps of a hundredth.
        tempo_probability: How often a part's tempo changes and its pitch does not. This and the
            next need the extra ``augment``.
        tempo: Slowest and fastest, as factors.
        pitch_probability: How often a part's pitch changes and its tempo does not.
        pitch_semitones: Lowest and highest shift.
        room_probability: How often a source is heard in a room.
        room_target: ``reverberant`` leaves the room in the reference; ``early`` keeps the direct
            path and the reflections soon after it, so that a model learns to take away the rest.
            The mixture holds the whole room either way.
        early_s: How soon, for ``early``.
        source_codec_probability: How often a source went through a lossy codec.
        clipping_probability: How often a mixture is clipped.
        clipping_db: How far the loudest sample stood above the limit.
        codec_probability: How often a mixture went through a lossy codec.
        codecs: Codec → lowest and highest bit rate of one channel in kbit/s. All are drawn alike.
        damage_target: ``clean`` leaves clipping and codec of the mixture out of the references,
            so that a model learns to repair. ``damaged`` turns the references down as far as the
            mixture where it is clipped, and sends each through the codec.
        level_probability: How often the level of a mixture changes, that of its references with it.
        level_db: By how much.
    """

    polarity_probability: float = 0.0
    width_probability: float = 0.0
    width: tuple[float, float] = (0.0, 1.5)
    speed_probability: float = 0.0
    speed: tuple[float, float] = (0.9, 1.1)
    tempo_probability: float = 0.0
    tempo: tuple[float, float] = (0.9, 1.1)
    pitch_probability: float = 0.0
    pitch_semitones: tuple[float, float] = (-2.0, 2.0)
    room_probability: float = 0.0
    room_target: Literal["reverberant", "early"] = "reverberant"
    early_s: float = 0.05
    source_codec_probability: float = 0.0
    clipping_probability: float = 0.0
    clipping_db: tuple[float, float] = (1.0, 12.0)
    codec_probability: float = 0.0
    codecs: Mapping[Codec, tuple[int, int]] = field(
        default_factory=lambda: {
            "mp3": (32, 160),
            "opus": (12, 96),
            "ogg": (48, 160),
            "m4a": (32, 160),
        }
    )
    damage_target: Literal["clean", "damaged"] = "clean"
    level_probability: float = 0.0
    level_db: tuple[float, float] = (-30.0, 0.0)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name.endswith("_probability") and not 0.0 <= value <= 1.0:
                raise ConfigError(f"augmentation.{each.name} is a probability, not {value}.")
        for name, lowest, highest in (
            ("width", 0.0, 4.0),
            ("speed", 0.5, 2.0),
            ("tempo", 0.5, 2.0),
            ("pitch_semitones", -12.0, 12.0),
            ("clipping_db", 0.0, 60.0),
            ("level_db", -120.0, 60.0),
        ):
            _check_range(name, getattr(self, name), lowest, highest)
        if not 0.0 <= self.early_s <= 1.0:
            raise ConfigError(
                f"augmentation.early_s lies between 0 and 1 second, not at {self.early_s}."
            )
        for codec, kbps in self.codecs.items():
            if codec not in CODEC_KBPS:
                raise ConfigError(
                    f"augmentation.codecs: {codec!r} is none of {', '.join(CODEC_KBPS)}."
                )
            _check_range(f"codecs.{codec}", kbps, *CODEC_KBPS[codec])
        if not self.codecs and max(self.source_codec_probability, self.codec_probability) > 0:
            raise ConfigError("augmentation.codecs must name one, or the probabilities be 0.")

    @property
    def stretches(self) -> bool:
        """Whether tempo or pitch may change by itself, for which torch does not suffice."""
        return max(self.tempo_probability, self.pitch_probability) > 0

    def check_channels(self, num_channels: int) -> None:
        """Refuse what cannot be done to sounds of so many channels.

        Raises:
            ConfigError: If something is to happen that is for mono, or for two channels, alone.
        """
        for name in _FOR_MONO if num_channels != 1 else ():
            if getattr(self, name) > 0:
                raise ConfigError(
                    f"recipe.augmentation.{name} is for mono, and the model hears {num_channels} "
                    "channels; leave it out."
                )
        if self.width_probability > 0 and num_channels != 2:
            raise ConfigError(
                "recipe.augmentation.width_probability is for two channels, and the model hears "
                f"{num_channels}; leave it out."
            )


#: What is done to one channel at a time, and would take several apart.
_FOR_MONO = (
    "speed_probability",
    "tempo_probability",
    "pitch_probability",
    "room_probability",
    "source_codec_probability",
    "codec_probability",
)


def generator_beside(rng: random.Random) -> random.Random:
    """A generator that depends on where another one stands, and does not move it."""
    twin = random.Random(0)
    twin.setstate(rng.getstate())
    return random.Random(f"augmentation/{twin.getrandbits(64)}")


def draw_warp(settings: Augmentation, rng: random.Random) -> Warp:
    """Speed, tempo and pitch of a part."""
    warp = {}
    if rng.random() < settings.speed_probability:
        # In hundredths, so that resampling needs a hundred filters and no more.
        warp["speed"] = round(rng.uniform(*settings.speed), 2)
    if rng.random() < settings.tempo_probability:
        warp["tempo"] = round(rng.uniform(*settings.tempo), 4)
    if rng.random() < settings.pitch_probability:
        warp["pitch_semitones"] = round(rng.uniform(*settings.pitch_semitones), 2)
    return Warp(**warp)


def draw_width(settings: Augmentation, rng: random.Random) -> float:
    """What the difference of two channels is multiplied by."""
    # No number is drawn where none is wanted, so that older recipes keep their plans.
    if settings.width_probability > 0 and rng.random() < settings.width_probability:
        return rng.uniform(*settings.width)
    return 1.0


def draw_coding(settings: Augmentation, probability: float, rng: random.Random) -> Coding | None:
    """A codec and a bit rate, or none."""
    if rng.random() >= probability:
        return None
    codec = rng.choice(list(settings.codecs))
    low, high = settings.codecs[codec]
    return Coding(codec, round(low * (high / low) ** rng.random()))


def _check_range(name: str, bounds: tuple[float, float], lowest: float, highest: float) -> None:
    low, high = bounds
    if not lowest <= low <= high <= highest:
        raise ConfigError(
            f"augmentation.{name} goes from a low to a high number between {lowest:g} and "
            f"{highest:g}, not from {low:g} to {high:g}."
        )
