"""How stems are stored: what the user wishes, and what a container can hold."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from unbraid.audio.info import AudioInfo
from unbraid.errors import AudioError, ConfigError

Container: TypeAlias = Literal["wav", "flac", "ogg", "opus", "mp3", "m4a"]
Subtype: TypeAlias = Literal[
    "PCM_16", "PCM_24", "PCM_32", "FLOAT", "VORBIS", "OPUS", "MPEG_LAYER_III", "AAC"
]
Depth: TypeAlias = Literal["int16", "int24", "float32"]

# The first subtype is what a container stores when nothing else is asked for.
_SUBTYPES: dict[Container, tuple[Subtype, ...]] = {
    "wav": ("PCM_16", "PCM_24", "PCM_32", "FLOAT"),
    "flac": ("PCM_16", "PCM_24"),
    "ogg": ("VORBIS",),
    "opus": ("OPUS",),
    "mp3": ("MPEG_LAYER_III",),
    "m4a": ("AAC",),
}
_BITS: dict[Subtype, int] = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_SUBTYPE_OF_DEPTH: dict[Depth, Subtype] = {
    "int16": "PCM_16",
    "int24": "PCM_24",
    "float32": "FLOAT",
}
# What a recording without loss calls itself, followed by its bits per sample.
_INTEGER_SUBTYPE = re.compile(r"(?:PCM|ALAC|DPCM|DWVW)_S?(\d+)")
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")

_NAMES: dict[Container, str] = {
    "wav": "WAV",
    "flac": "FLAC",
    "ogg": "Ogg Vorbis",
    "opus": "Opus",
    "mp3": "mp3",
    "m4a": "m4a",
}
# A wav has room for more channels; FFmpeg's coder of plain samples has not.
_CHANNELS: dict[Container, tuple[int, ...]] = {
    "wav": tuple(range(1, 256)),
    "flac": tuple(range(1, 9)),
    "ogg": tuple(range(1, 9)),
    # FFmpeg's way into libopus puts five and seven channels into the wrong places.
    "opus": (1, 2, 3, 4, 6, 8),
    "mp3": (1, 2),
    "m4a": tuple(range(1, 9)),
}
_RATES: dict[Container, tuple[int, ...]] = {
    "opus": (48_000,),
    "mp3": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    "m4a": (
        *(7_350, 8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000),
        *(44_100, 48_000, 64_000, 88_200, 96_000),
    ),
}
_VORBIS_RATES = (8_000, 192_000)
_HIGHEST_FLAC_RATE = 655_350
_HIGHEST_ODD_FLAC_RATE = 65_535

# Smallest and largest bit rate in kbit/s, over all channels.
_BITRATES_KBPS: dict[Container, tuple[int, int]] = {
    "ogg": (32, 2000),
    "opus": (6, 2048),
    "mp3": (8, 320),
    "m4a": (16, 2048),
}
_MP3_KBPS = 320
# From here on encoders change the level, measured with two sines: FFmpeg's AAC encoder
# turns every frame down that peaks higher, LAME and Vorbis run out of numbers.
_HIGHEST_PEAK: dict[Container, float] = {"m4a": 0.95, "mp3": 8.0, "ogg": 16.0, "opus": 256.0}
_KBPS_PER_CHANNEL = 128


@dataclass(frozen=True)
class AudioFormat:
    """How a file stores samples.

    Attributes:
        container: ``wav``, ``flac``, ``ogg`` (Vorbis), ``opus`` (in Ogg), ``mp3`` or ``m4a``.
        subtype: ``PCM_16``, ``PCM_24``, ``PCM_32`` or ``FLOAT`` in a wav; the first two in
            FLAC; ``VORBIS``, ``OPUS``, ``MPEG_LAYER_III`` or ``AAC`` in the lossy ones.
        bitrate_kbps: Bits per second over all channels, in thousands, for lossy containers.
            None for 320 in mp3, and for 128 per channel (256 for stereo) in the others.
            Vorbis varies its rate around the nearest quality that it knows.

    Raises:
        ConfigError: If the parts do not fit together.
    """

    container: Container = "wav"
    subtype: Subtype = "PCM_16"
    bitrate_kbps: int | None = None

    def __post_init__(self) -> None:
        if self.container not in _SUBTYPES:
            raise ConfigError(
                f"unknown format {self.container!r}; known: {', '.join(get_args(Container))}."
            )
        subtypes = _SUBTYPES[self.container]
        if self.subtype not in subtypes:
            raise ConfigError(
                f"{_NAMES[self.container]} cannot hold {self.subtype}; "
                f"it holds {' or '.join(subtypes)}."
            )
        _check_bitrate(self.container, self.bitrate_kbps)

    @property
    def extension(self) -> str:
        """The file name extension, without a dot."""
        return self.container

    @property
    def is_integer(self) -> bool:
        """Whether samples are stored as whole numbers, so that values beyond ±1 do not fit."""
        return self.subtype in _BITS

    @property
    def is_lossy(self) -> bool:
        """Whether the samples that come back are not those that went in."""
        return self.container in _BITRATES_KBPS

    @property
    def highest_peak(self) -> float:
        """The largest absolute sample that keeps its level.

        Whole numbers clip above 1. AAC turns down what peaks above 0.95 (0.5 dB for a peak
        of 1.0) for as long as it does. The others keep what is beyond full scale.
        """
        if self.is_lossy:
            return _HIGHEST_PEAK[self.container]
        return 1.0 if self.is_integer else math.inf

    @property
    def bits(self) -> int | None:
        """Bits per sample of whole numbers; None for floats and lossy containers."""
        return _BITS.get(self.subtype)

    def kbps_for(self, num_channels: int) -> int:
        """The bit rate over all channels of a lossy file, in thousands per second."""
        if self.bitrate_kbps is not None:
            return self.bitrate_kbps
        return _MP3_KBPS if self.container == "mp3" else _KBPS_PER_CHANNEL * num_channels

    def rate_for(self, sample_rate: int) -> int:
        """The sample rate to write a recording of this rate with.

        It is the recording's own where the container holds it; else the next higher one,
        or the highest there is. Containers without loss are never given another rate.

        >>> AudioFormat("mp3", "MPEG_LAYER_III").rate_for(96_000)
        48000
        """
        if self.container == "ogg":
            lowest, highest = _VORBIS_RATES
            return min(max(sample_rate, lowest), highest)
        rates = _RATES.get(self.container)
        if rates is None:
            return sample_rate
        return min((rate for rate in rates if rate >= sample_rate), default=rates[-1])

    def check_fits(self, num_channels: int, sample_rate: int) -> None:
        """Refuse what the container cannot hold.

        Raises:
            AudioError: For more channels than it has places for, or a sample rate that is
                not ``rate_for`` itself. FLAC ends at eight channels and 655350 Hz (above
                65535 Hz the rate must be a multiple of 10 Hz).
        """
        name = _NAMES[self.container]
        channels = _CHANNELS[self.container]
        if num_channels not in channels:
            if num_channels > channels[-1]:
                held = f"{channels[-1]} channels at most"
            else:
                held = ", ".join(map(str, channels)) + " channels"
            raise AudioError(f"{name} holds {held}, not {num_channels}; {self._way_out}.")
        if self.container == "flac":
            is_odd = sample_rate > _HIGHEST_ODD_FLAC_RATE and sample_rate % 10
            is_held = sample_rate <= _HIGHEST_FLAC_RATE and not is_odd
        else:
            is_held = sample_rate == self.rate_for(sample_rate)
        if not is_held:
            raise AudioError(
                f"{name} cannot hold a sample rate of {sample_rate} Hz; {self._way_out}."
            )

    @property
    def _way_out(self) -> str:
        if self.container == "wav":
            return "split the recording"
        return "write --wav" if self.container == "flac" else "write --flac or --wav"


@dataclass(frozen=True)
class FormatChoice:
    """What the user wishes about the files; what is left open follows the recording.

    16, 24 and 32 bits and float stay what they are (double becomes float; in FLAC
    everything above 24 bits becomes 24 bits). Lossy and 8-bit recordings give 16 bits,
    which hold all of them that can be heard.

    Attributes:
        container: See ``AudioFormat``.
        depth: Whole numbers of 16 or 24 bits or 32-bit floats, whatever the recording has.
        bitrate_kbps: Bits per second of a lossy file, in thousands.

    Raises:
        ConfigError: If the wishes exclude each other; it names the flags.
    """

    container: Container = "wav"
    depth: Depth | None = None
    bitrate_kbps: int | None = None

    def __post_init__(self) -> None:
        if self.container not in _SUBTYPES:
            flags = ", ".join(f"--{name}" for name in get_args(Container))
            raise ConfigError(f"--{self.container}: no such format; choose one of {flags}.")
        if self.depth is not None and self.depth not in _SUBTYPE_OF_DEPTH:
            flags = ", ".join(f"--{name}" for name in _SUBTYPE_OF_DEPTH)
            raise ConfigError(f"--{self.depth}: no such depth; choose one of {flags}.")
        if self.depth is not None and self.container in _BITRATES_KBPS:
            raise ConfigError(
                f"--{self.depth} and --{self.container} exclude each other: "
                f"{_NAMES[self.container]} has no depth; write --wav or --flac, "
                "or choose its quality with --bitrate."
            )
        if self.depth == "float32" and self.container == "flac":
            raise ConfigError("--flac cannot hold --float32; write --wav, or --flac with --int24.")
        _check_bitrate(self.container, self.bitrate_kbps)

    def for_source(self, source: AudioInfo) -> AudioFormat:
        """The format for stems of this recording."""
        if self.container not in ("wav", "flac"):
            return AudioFormat(self.container, _SUBTYPES[self.container][0], self.bitrate_kbps)
        if self.depth is not None:
            return AudioFormat(self.container, _SUBTYPE_OF_DEPTH[self.depth])
        return AudioFormat(self.container, _subtype_of_source(source.subtype, self.container))


def _subtype_of_source(subtype: str, container: Container) -> Subtype:
    if subtype in _FLOAT_SUBTYPES:
        return "FLOAT" if container == "wav" else "PCM_24"
    found = _INTEGER_SUBTYPE.fullmatch(subtype)
    bits = int(found[1]) if found else 16
    if bits <= 16:
        return "PCM_16"
    return "PCM_32" if bits > 24 and container == "wav" else "PCM_24"


def _check_bitrate(container: Container, bitrate_kbps: int | None) -> None:
    if bitrate_kbps is None:
        return
    limits = _BITRATES_KBPS.get(container)
    if limits is None:
        lossy = ", ".join(f"--{name}" for name in _BITRATES_KBPS)
        raise ConfigError(
            f"--bitrate {bitrate_kbps}: {_NAMES[container]} loses nothing and has no bit rate "
            f"to choose; leave it out, or write one of {lossy}."
        )
    lowest, highest = limits
    if not lowest <= bitrate_kbps <= highest:
        raise ConfigError(
            f"--bitrate {bitrate_kbps}: {_NAMES[container]} takes {lowest} to {highest} kbit/s."
        )
