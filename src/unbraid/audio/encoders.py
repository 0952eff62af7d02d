"""How samples become bytes: one encoder for each container.

FFmpeg (through PyAV) writes everything but Ogg Vorbis; what it lacks there is a Vorbis
encoder worth the name, and libsndfile has the reference one. Compared for wav and FLAC,
the two store the same samples at the same speed; FFmpeg also keeps tags, the layout of
the channels and a broadcast wav's place in time, and lets a wav grow past 4 GB without
knowing that in advance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol, cast, runtime_checkable

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from unbraid.audio.formats import AudioFormat, Container, Subtype
from unbraid.audio.padding import mark_excess
from unbraid.errors import AudioError

_MUXERS: dict[Container, str] = {
    "wav": "wav",
    "flac": "flac",
    "opus": "opus",
    "mp3": "mp3",
    "m4a": "ipod",  # what FFmpeg calls the kind of mp4 that holds a song
}
# Codec, and the sample format that it is opened with.
_CODECS: dict[tuple[Container, Subtype], tuple[str, str]] = {
    ("wav", "PCM_16"): ("pcm_s16le", "s16"),
    ("wav", "PCM_24"): ("pcm_s24le", "s32"),
    ("wav", "PCM_32"): ("pcm_s32le", "s32"),
    ("wav", "FLOAT"): ("pcm_f32le", "flt"),
    ("flac", "PCM_16"): ("flac", "s16"),
    ("flac", "PCM_24"): ("flac", "s32"),
    ("opus", "OPUS"): ("libopus", "flt"),
    ("mp3", "MPEG_LAYER_III"): ("libmp3lame", "fltp"),
    ("m4a", "AAC"): ("aac", "fltp"),
}
_SAMPLES_PER_FRAME = 8192
# Lossy encoders take what is beyond full scale, but far beyond it libopus falls silent
# (from 10,000 on) and LAME ends the whole process (from a million on).
_LARGEST_LOSSY_VALUE = 256.0

# The layouts that a wav has a channel mask for. Other names would build a layout of
# their own in FFmpeg, whose memory PyAV does not look after.
_LAYOUTS = {
    "mono": 1,
    "stereo": 2,
    **dict.fromkeys(("2.1", "3.0", "3.0(back)"), 3),
    **dict.fromkeys(("4.0", "quad", "quad(side)", "3.1"), 4),
    **dict.fromkeys(("5.0", "5.0(side)", "4.1"), 5),
    **dict.fromkeys(("5.1", "5.1(side)", "6.0", "6.0(front)", "3.1.2", "hexagonal"), 6),
    **dict.fromkeys(("6.1", "6.1(back)", "6.1(front)", "7.0", "7.0(front)"), 7),
    **dict.fromkeys(("7.1", "7.1(wide)", "7.1(wide-side)", "octagonal", "5.1.2"), 8),
    **dict.fromkeys(("5.1.4", "7.1.2"), 10),
    "7.1.4": 12,
}
_USUAL_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
# Lossy containers do not tell speakers at the side from speakers at the back.
_LAYOUT_IN_LOSSY = {"quad(side)": "quad", "5.0(side)": "5.0", "5.1(side)": "5.1"}
# Vorbis has an order of its own: at each place, which of FFmpeg's channels stands there.
# Source: Vorbis I specification, section 4.3.9.
_VORBIS_ORDER = {
    "3.0": (0, 2, 1),
    "5.0": (0, 2, 1, 3, 4),
    "5.1": (0, 2, 1, 4, 5, 3),
    "6.1": (0, 2, 1, 5, 6, 4, 3),
    "7.1": (0, 2, 1, 6, 7, 4, 5, 3),
}
# Nominal bit rates of a stereo file at Vorbis's qualities 0.0, 0.1, … 1.0.
_VORBIS_KBPS = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 500)
# libsndfile puts a whole block on its stack.
_VORBIS_BLOCK_LENGTH = 4096

# How many samples the encoders put before the first one.
_MP3_LEAD_IN = 1105
_OPUS_LEAD_IN = 312

_BROADCAST_TAGS = {
    *("originator", "originator_reference", "origination_date", "origination_time"),
    *("time_reference", "umid", "coding_history"),
}
# What says how the recording was stored, not what it is, or how loud it was: wrong for
# its stems.
_STALE_TAGS = re.compile(
    r"encoder(-.*)?|encoded_by|encoding|major_brand|minor_version|compatible_brands|"
    r"handler_name|vendor_id|duration(-.*)?|_statistics_.*|bps(-.*)?|number_of_.*|"
    r"replaygain_.*|r128_.*|itunnorm|itunsmpb|itunes_cddb.*|tlen|metadata_block_picture|"
    r"waveformatextensible_channel_mask"
)
_TAG_NAME = re.compile(r"[A-Za-z0-9_ .:/-]{1,64}")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_LONGEST_TAG = 2**16
_MOST_TAG_CHARACTERS = 2**20
_VORBIS_TAGS = {
    "title": "title",
    "artist": "artist",
    "album": "album",
    "date": "date",
    "genre": "genre",
    "track": "tracknumber",
    "comment": "comment",
    "copyright": "copyright",
    "license": "license",
}

_UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's words for it


@runtime_checkable
class Encoder(Protocol):
    """Fills one file."""

    def write(self, block: NDArray[np.float32]) -> None:
        """Append samples ``[time, channel]``."""

    def close(self) -> None:
        """Write what is still held back, and the end of the file; then close it."""

    def abandon(self) -> None:
        """Close the file as it is; nobody will read it."""


def open_encoder(
    file: IO[bytes],
    audio_format: AudioFormat,
    sample_rate: int,
    num_channels: int,
    channel_layout: str,
    tags: Mapping[str, str],
) -> Encoder:
    """Begin to fill a file that has just been created; it is closed if that fails.

    Raises:
        AudioError: If the format cannot hold this layout of channels.
        OSError: If the file cannot be written; also libsndfile's and FFmpeg's own errors.
    """
    try:
        layout = layout_name(audio_format, num_channels, channel_layout)
        tags = clean_tags(tags)
        if audio_format.container == "ogg":
            file.close()  # libsndfile opens it by its name
            return _VorbisEncoder(Path(file.name), audio_format, sample_rate, layout, tags)
        return _FfmpegEncoder(file, audio_format, sample_rate, layout, tags)
    except BaseException:
        file.close()
        raise


def stored_length(path: Path, audio_format: AudioFormat) -> int:
    """Samples per channel that a finished file says it holds.

    Raises:
        soundfile.LibsndfileError: If it cannot be read again; for m4a FFmpeg's own error.
    """
    if audio_format.container != "m4a":
        num_samples = int(soundfile.info(path).frames)
        # A FLAC without samples says zero, which readers take for 'unknown'.
        return 0 if num_samples == _UNKNOWN_LENGTH else num_samples
    with av.open(str(path.absolute()), "r") as container:
        stream = container.streams.audio[0]
        if stream.duration is None or stream.time_base is None:
            return 0
        return round(stream.duration * stream.time_base * stream.codec_context.sample_rate)


def layout_name(audio_format: AudioFormat, num_channels: int, channel_layout: str) -> str:
    """The layout to write, in FFmpeg's words; the usual one where it is not known.

    Raises:
        AudioError: If the container has no place for such channels: Vorbis and Opus know
            one layout for each number of channels.
    """
    is_known = _LAYOUTS.get(channel_layout) == num_channels
    if not audio_format.is_lossy:
        if is_known:
            return channel_layout
        return f"{num_channels} channels" if num_channels > 2 else _USUAL_LAYOUTS[num_channels - 1]
    usual = _USUAL_LAYOUTS[num_channels - 1]
    wanted = _LAYOUT_IN_LOSSY.get(channel_layout, channel_layout) if is_known else usual
    if wanted != usual and audio_format.container in ("ogg", "opus"):
        raise AudioError(
            f"{audio_format.container} cannot hold {channel_layout} channels, "
            f"only {usual} when there are {num_channels}; write --flac or --wav."
        )
    return wanted


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags that every container can take: named plainly, without control characters.

    A value longer than 65,536 characters is cut; after a million in all the rest is left
    out. What is true of the recording's file only (its encoder, its loudness) goes too.
    """
    cleaned: dict[str, str] = {}
    num_characters = 0
    for key, value in tags.items():
        if not _TAG_NAME.fullmatch(key) or _STALE_TAGS.fullmatch(key.lower()):
            continue
        text = _CONTROL_CHARACTERS.sub("", value)[:_LONGEST_TAG]
        text = text.encode(errors="ignore").decode()  # halves of a surrogate pair
        num_characters += len(key) + len(text)
        if num_characters > _MOST_TAG_CHARACTERS:
            break
        if text:
            cleaned[key] = text
    return cleaned


class _FfmpegEncoder:
    def __init__(
        self,
        file: IO[bytes],
        audio_format: AudioFormat,
        sample_rate: int,
        layout: str,
        tags: Mapping[str, str],
    ) -> None:
        self._file = file
        self._format = audio_format
        self._sample_rate = sample_rate
        self._layout = layout
        self._num_samples = 0
        self._num_packets = 0
        # Nothing that differs from one run to the next, such as the time or a random
        # serial number, goes into the file.
        options = {"fflags": "+bitexact"}
        if audio_format.container == "wav":
            options["rf64"] = "auto"
            if _BROADCAST_TAGS & {key.lower() for key in tags}:
                options["write_bext"] = "1"
        elif audio_format.container == "m4a":
            options["movie_timescale"] = str(sample_rate)  # else lengths are whole ms
        self._container = av.open(
            file, "w", format=_MUXERS[audio_format.container], container_options=options
        )
        self._container.metadata.update(tags)
        codec, self._sample_format = _CODECS[audio_format.container, audio_format.subtype]
        self._stream = cast(
            av.AudioStream,  # add_stream knows the type from the literal name only
            self._container.add_stream(
                codec, rate=sample_rate, layout=layout, format=self._sample_format
            ),
        )
        if audio_format.is_lossy:
            num_channels = self._stream.codec_context.channels
            self._stream.codec_context.bit_rate = 1000 * audio_format.kbps_for(num_channels)
        if audio_format.container == "m4a" and "language" in tags:
            self._stream.metadata["language"] = tags["language"]
        self._container.start_encoding()

    def write(self, block: NDArray[np.float32]) -> None:
        for start in range(0, len(block), _SAMPLES_PER_FRAME):
            self._mux(self._encoded(block[start : start + _SAMPLES_PER_FRAME]))

    def close(self) -> None:
        try:
            self._mux(self._last_packets())
            self._container.close()
            self._file.flush()
        finally:
            self._file.close()

    def abandon(self) -> None:
        # FFmpeg sees that the file is closed and writes no end to it.
        with suppress(OSError):
            self._file.close()
        with suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()

    def _mux(self, packets: Sequence[av.Packet[av.AudioStream]]) -> None:
        for packet in packets:
            self._container.mux_one(packet)
        self._num_packets += len(packets)

    def _encoded(self, block: NDArray[np.float32]) -> list[av.Packet[av.AudioStream]]:
        """Encode samples; PyAV cuts them into frames of the encoder's size."""
        samples = _stored(block, self._format)
        # Always interleaved: of planar frames with eight channels PyAV miscounts the planes.
        name = {"int16": "s16", "int32": "s32", "float32": "flt"}[samples.dtype.name]
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), name, self._layout)
        frame.sample_rate = self._sample_rate
        frame.pts = self._num_samples
        self._num_samples += len(block)
        return self._stream.encode(frame)

    def _last_packets(self) -> list[av.Packet[av.AudioStream]]:
        """What the encoder still holds, with marks that make the length exact.

        A lossy file without a single packet is not valid; one without samples gets one of
        silence that is marked as not to be heard.
        """
        num_samples = self._num_samples
        packets = []
        if num_samples == 0 and self._format.is_lossy:
            num_channels = self._stream.codec_context.channels
            packets += self._encoded(np.zeros((1, num_channels), dtype=np.float32))
        packets += self._stream.encode(None)
        if self._format.container == "mp3":
            frame_length = self._stream.codec_context.frame_size
            num_packets = self._num_packets + len(packets)
            excess = num_packets * frame_length - _MP3_LEAD_IN - num_samples
            if excess > frame_length:
                # FFmpeg marks a part of the last frame only, not all of it and more.
                mark_excess(packets[-1], excess)
        elif self._format.container == "opus" and num_samples == 0:
            packets[-1].duration = _OPUS_LEAD_IN
        elif self._format.container == "m4a" and num_samples == 0:
            packets = packets[:1]  # nothing but the lead-in
        return packets


class _VorbisEncoder:
    def __init__(
        self,
        path: Path,
        audio_format: AudioFormat,
        sample_rate: int,
        layout: str,
        tags: Mapping[str, str],
    ) -> None:
        num_channels = _LAYOUTS[layout]
        self._order = list(_VORBIS_ORDER.get(layout, range(num_channels)))
        kbps_of_stereo = 2 * audio_format.kbps_for(num_channels) / num_channels
        quality = float(np.interp(kbps_of_stereo, _VORBIS_KBPS, np.linspace(0, 1, 11)))
        self._file = soundfile.SoundFile(
            path,
            "w",
            samplerate=sample_rate,
            channels=num_channels,
            format="OGG",
            subtype="VORBIS",
            compression_level=1 - quality,
        )
        for key, name in _VORBIS_TAGS.items():
            value = next((value for tag, value in tags.items() if tag.lower() == key), "")
            if value:
                setattr(self._file, name, value)

    def write(self, block: NDArray[np.float32]) -> None:
        reordered = _within_reason(block)[:, self._order]
        for start in range(0, len(block), _VORBIS_BLOCK_LENGTH):
            self._file.write(np.ascontiguousarray(reordered[start : start + _VORBIS_BLOCK_LENGTH]))

    def close(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        with suppress(soundfile.LibsndfileError, OSError):
            self._file.close()


def _stored(block: NDArray[np.float32], audio_format: AudioFormat) -> NDArray[Any]:
    """Turn floats ``[time, channel]`` into what the encoder takes without rounding again.

    A sample of value v becomes the whole number nearest to v · 2^(bits-1), which is what
    reading divides by. FFmpeg takes the upper 24 of 32 bits, hence the shift.
    """
    bits = audio_format.bits
    if bits is None:
        block = _within_reason(block) if audio_format.is_lossy else block
        return np.ascontiguousarray(block, dtype=np.float32)
    full_scale = 2.0 ** (bits - 1)
    steps = np.rint(block.astype(np.float64, order="C") * full_scale)
    np.clip(steps, -full_scale, full_scale - 1, out=steps)
    return steps.astype(np.int16) if bits == 16 else steps.astype(np.int32) << (32 - bits)


def _within_reason(block: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.clip(block, -_LARGEST_LOSSY_VALUE, _LARGEST_LOSSY_VALUE)
