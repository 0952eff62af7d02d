"""Media files through FFmpeg: mp3, m4a, ogg, opus, and the sound of any video.

FFmpeg removes what encoders put before the first sample (mp3, AAC and Opus need some time
to start). What they put after the last one is removed where the file says how much it
is: mp3 with a LAME header, mp4 and its kin, Opus, Vorbis. Raw AAC, MPEG transport streams
and AAC in Matroska do not say it; their last frame is delivered whole, as players do.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition, Stream

from unbraid.audio.info import AudioInfo, cut_short
from unbraid.audio.limits import check_plausible
from unbraid.audio.padding import mark_excess
from unbraid.audio.seek_point import SeekPoint
from unbraid.audio.timeline import Timeline
from unbraid.errors import AudioError, counted

# Playlists open other files, and a text is no picture of a text.
_REFUSED_DEMUXERS = {"concat", "dash", "ffmetadata", "hls", "image2", "imf", "sdp", "tty"}
# Streams of frames that find their beginning by themselves, and may hold other things
# between them. They carry no clock: their time stamps only count frames.
_BARE_STREAMS = {
    "aac", "ac3", "amr", "amrnb", "amrwb", "dts", "dtshd", "eac3", "loas", "mlp", "mp3", "truehd",
}  # fmt: skip
# Recorded from the air or the net, where single packets get lost.
_BROADCASTS = {"mpeg", "mpegts", "mpegtsraw", "rtp_mpegts"}
_LONGEST_HOLE_IN_A_BROADCAST_S = 10.0
_LONGEST_UNANNOUNCED_S = 3600.0
# Tags that stand between the pieces of mp3 files that were joined.
_TAG_MARKS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")

_TOLERATED_SHORTAGE_S = 0.1
# The edit list of an mp4 counts in the ticks of the movie, 600 per second at the coarsest.
_EDIT_LIST_TICK_S = 1 / 500
_COARSEST_EXACT_TICK = Fraction(1, 8000)
_NUM_HELD_FRAMES = 3
_SEEK_POINT_EVERY_S = 0.5
# From here on PyAV misjudges how many planes a frame has.
_FEWEST_CHANNELS_TO_PACK = 8
_NOT_FOR_NUMPY = {"s64", "s64p"}
_HEAD_BYTES = 2**16

_SUBTYPES = {
    "mp3": "MPEG_LAYER_III", "mp3float": "MPEG_LAYER_III", "mp2": "MPEG_LAYER_II",
    "mp2float": "MPEG_LAYER_II", "mp1": "MPEG_LAYER_I", "mp1float": "MPEG_LAYER_I",
    "pcm_alaw": "ALAW", "pcm_mulaw": "ULAW",
}  # fmt: skip
_LOSSLESS = {"alac", "ape", "flac", "mlp", "shorten", "tak", "truehd", "tta", "wavpack"}
# What programs note for themselves, and what no longer holds for a stem.
_TECHNICAL_TAGS = re.compile(
    r"major_brand|minor_version|compatible_brands|encoder|handler_name|vendor_id|duration"
    r"|software|bps|number_of_\w+|_statistics_\w+|itunsmpb|itunnorm|id3v2_priv.*|variant_bitrate"
)


# PyAV 19 always replaces what is not UTF-8; before, one wrong tag made a file unreadable.
_TAG_OPTIONS: dict[str, Any] = (
    {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
)


class CannotOpenError(Exception):
    """A library does not take a file; the text is its reason, empty if it is not its kind."""


@dataclass(frozen=True)
class ContainerFacts:
    """What a container says beside the samples; empty where it says nothing."""

    channel_layout: str
    tags: Mapping[str, str]


def describe_container(path: Path, num_channels: int) -> ContainerFacts:
    """Ask FFmpeg for the layout and tags of a file whose samples libsndfile reads."""
    try:
        with open_container(path) as container:
            stream = container.streams.audio[0]
            return ContainerFacts(_layout(stream, num_channels), _tags(container, stream))
    # Whatever FFmpeg finds wrong with it, the samples can be read.
    except (CannotOpenError, av.FFmpegError, ValueError, IndexError):
        return ContainerFacts("", {})


class MediaReader:
    """One audio track of an open file; its samples can be asked for once.

    Attributes:
        sample_rate: Samples per second, as the decoder delivers them.
        num_channels: Channels, as the decoder delivers them.
    """

    def __init__(self, path: Path, container: InputContainer, track: int | None) -> None:
        """Choose a track and decode its first frame.

        Raises:
            AudioError: If there is no such track, or nothing can decode it.
        """
        self._path = path
        self._container = container
        self._track, self._stream = _chosen(path, container, track)
        for stream in container.streams:
            stream.discard = Discard.default if stream is self._stream else Discard.all
        names = set(container.format.name.split(","))
        self._is_bare = bool(names & _BARE_STREAMS)
        self._is_broadcast = bool(names & _BROADCASTS)
        self._is_ogg_vorbis = "ogg" in names and self._stream.codec_context.name == "vorbis"
        if self._stream.codec_context.name == "flac":
            # Without this, damaged frames pass for sound.
            self._stream.codec_context.options = {"err_detect": "crccheck"}
        self._num_packets = 0
        self._num_broken = 0
        self._first_broken_s = 0.0
        self._end_of_packets: int | None = None
        self._packer: AudioResampler | None = None
        self._packet_begins_at: int | None = None
        self._seek_points: list[SeekPoint] = []
        self._timeline: Timeline | None = None
        self._frames = self._decoded()
        self._first_frame = next(self._frames, None)
        if self._first_frame is not None:
            self.sample_rate = int(self._first_frame.sample_rate)
            self.num_channels = int(self._first_frame.layout.nb_channels)
        else:
            self.sample_rate = int(self._stream.codec_context.sample_rate or 0)
            self.num_channels = int(self._stream.codec_context.layout.nb_channels)
        check_plausible(path, self.sample_rate, self.num_channels)

    def info(self) -> AudioInfo:
        """Say what the track holds; decodes it to count its samples."""
        num_samples = sum(len(piece) for piece in self._pieces())
        stream, container = self._stream, self._container
        return AudioInfo(
            sample_rate=self.sample_rate,
            num_channels=self.num_channels,
            num_samples=num_samples,
            format=_format_name(self._path, container),
            subtype=_subtype(stream),
            channel_layout=_layout(stream, self.num_channels),
            start_s=self._start_s(),
            tags=_tags(container, stream),
            track=self._track,
            num_tracks=len(container.streams.audio),
            has_video=first_video(container) is not None,
            warnings=tuple(self._warnings(num_samples)),
        )

    def blocks(self, block_length: int) -> Iterator[np.ndarray]:
        """Yield float32 blocks ``[time, channel]`` to the end of the track.

        Raises:
            AudioError: With the time, where the track is damaged or changes its form.
        """
        block = np.empty((block_length, self.num_channels), dtype=np.float32)
        filled = 0
        for piece in self._pieces():
            while len(piece):
                taken = min(len(piece), block_length - filled)
                block[filled : filled + taken] = piece[:taken]
                piece = piece[taken:]
                filled += taken
                if filled == block_length:
                    yield block
                    block = np.empty_like(block)
                    filled = 0
        if filled:
            yield block[:filled]

    def seek_points(self) -> tuple[SeekPoint, ...]:
        """Where decoding can begin, about twice a second; known when all blocks were delivered.

        None where the clock of the track jumps, so that samples cannot be found by counting.
        """
        is_regular = self._timeline is not None and self._timeline.is_untouched
        return tuple(self._seek_points) if is_regular else ()

    def span(self, first: int, count: int, points: Sequence[SeekPoint]) -> np.ndarray | None:
        """Samples ``[time, channel]`` of the middle, decoded from a seek point before them.

        Decoders remember what came before: bits that are kept for later (mp3), the half of a
        window (Vorbis, AAC), filters and energies that fade (Opus). So decoding begins half a
        second before the point from which samples are counted. Then mp3, Vorbis, Opus and what
        loses nothing give the samples that they give from the start, to the last bit. AAC does
        where it does not put noise in place of sound; AC-3 and MPEG layer II draw noise always.

        Args:
            first: The first sample, counted as in ``blocks``.
            count: How many; the track must have them.
            points: Seek points of this track.

        Returns:
            The samples; None where they have to be decoded from the start, since ``first`` is
            near it, or the file does not have the points.

        Raises:
            AudioError: Where the track is damaged.
        """
        before = bisect_right(points, first, key=lambda point: point.sample)
        if before < 2:
            return None
        begin, anchor = points[before - 2 : before]
        self._seek(begin.mark)
        output = np.empty((count, self.num_channels), dtype=np.float32)
        position: int | None = None
        for frame in self._decoded():
            if position is None:
                if self._mark(frame) != anchor.mark:
                    continue
                position = anchor.sample
            self._check_form(frame)
            piece = self._samples(frame)[max(0, first - position) :]
            position += frame.samples
            at = max(0, position - len(piece) - first)
            output[at : at + len(piece)] = piece[: count - at]
            if position >= first + count:
                return output
        return None

    # Decoding ---------------------------------------------------------------------------

    def _seek(self, mark: int) -> None:
        try:
            if self._is_bare:
                self._container.seek(mark, unsupported_byte_offset=True)
            else:
                self._container.seek(mark, stream=self._stream)
        except (av.FFmpegError, ValueError) as error:
            raise self._damaged(error) from error

    def _mark(self, frame: AudioFrame) -> int | None:
        """What the frame that was decoded last is known by."""
        return self._packet_begins_at if self._is_bare else frame.pts

    def _decoded(self) -> Iterator[AudioFrame]:
        """Yield the frames of the track.

        A broken packet at the very end is what a file that was cut short ends with; one in
        the middle is damage, unless the format lets decoders find their way again.
        """
        is_forgiving = self._is_bare or self._is_broadcast
        damage: Exception | None = None
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, ValueError) as error:
                raise self._damaged(error) from error
            if packet is None:
                break
            is_flush = packet.size == 0
            if damage is not None and not is_forgiving and not is_flush:
                raise self._damaged(damage) from damage
            try:
                if self._is_ogg_vorbis and packet.has_sidedata("skip_samples"):
                    # In the last packet it is wrong by up to 256 samples; the position that
                    # the last page states is right.
                    mark_excess(packet, 0)
                frames = packet.decode()
                if packet.is_corrupt and not is_forgiving:
                    raise av.InvalidDataError(0, "the packet is incomplete")
            except (av.FFmpegError, ValueError) as error:
                if not (self._is_bare and bytes(packet).startswith(_TAG_MARKS)):
                    damage = error
                    self._note_broken()
                continue
            self._num_packets += 1
            self._packet_begins_at = packet.pos
            if packet.pts is not None and packet.duration:
                self._end_of_packets = packet.pts + packet.duration
            yield from (frame for frame in frames if frame.samples)
        if self._num_broken > self._num_packets:
            raise self._damaged(damage)

    def _note_broken(self) -> None:
        if not self._num_broken:
            self._first_broken_s = self._position_s()
        self._num_broken += 1

    def _pieces(self) -> Iterator[np.ndarray]:
        """Yield samples ``[time, channel]`` in step with the clock, without padding."""
        if self._first_frame is None:
            return
        time_base = _fraction(self._stream.time_base)
        timeline = Timeline(self.sample_rate, float(time_base), self._latest_s())
        self._timeline = timeline
        held: deque[np.ndarray] = deque()
        frame: AudioFrame | None = self._first_frame
        while frame is not None:
            self._check_form(frame)
            self._note_seek_point(frame, timeline.num_samples)
            time_s = None if self._is_bare or frame.pts is None else frame.pts * float(time_base)
            placement = timeline.place(time_s, frame.samples)
            if placement.num_silent:
                # Not held back: what is taken off at the end is padding, not a hole.
                yield from held
                held.clear()
                yield from self._silence(placement.num_silent)
            held.append(self._samples(frame)[placement.num_dropped :])
            if len(held) > _NUM_HELD_FRAMES:
                yield held.popleft()
            frame = next(self._frames, None)
        padding = self._padding(time_base)
        if 0 < padding <= sum(len(piece) for piece in held):
            while padding:
                piece = held.pop()
                held.append(piece[: max(0, len(piece) - padding)])
                padding -= len(piece) - len(held[-1])
                if not len(held[-1]):
                    held.pop()
        yield from held

    def _note_seek_point(self, frame: AudioFrame, position: int) -> None:
        latest = self._seek_points[-1].sample if self._seek_points else 0
        mark = self._mark(frame)
        if mark is not None and position - latest >= _SEEK_POINT_EVERY_S * self.sample_rate:
            self._seek_points.append(SeekPoint(mark, position))

    def _silence(self, num_samples: int) -> Iterator[np.ndarray]:
        zeros = np.zeros((min(num_samples, 4096), self.num_channels), dtype=np.float32)
        while num_samples:
            piece = zeros[:num_samples]
            num_samples -= len(piece)
            yield piece

    def _samples(self, frame: AudioFrame) -> np.ndarray:
        has_many_planes = frame.format.is_planar and self.num_channels >= _FEWEST_CHANNELS_TO_PACK
        if has_many_planes or frame.format.name in _NOT_FOR_NUMPY:
            if self._packer is None:
                self._packer = AudioResampler("flt", frame.layout, frame.sample_rate)
            pieces = [
                packed.to_ndarray().reshape(-1, self.num_channels)
                for packed in self._packer.resample(frame)
            ]
            return np.concatenate(pieces)
        samples = frame.to_ndarray()
        samples = samples.T if frame.format.is_planar else samples.reshape(-1, self.num_channels)
        if samples.dtype == np.uint8:
            return (samples.astype(np.float32) - 128) / 128
        if samples.dtype.kind == "i":
            return samples.astype(np.float32) / 2 ** (8 * samples.dtype.itemsize - 1)
        with np.errstate(over="ignore"):  # infinity is refused by whoever asked
            return samples.astype(np.float32)

    def _check_form(self, frame: AudioFrame) -> None:
        found = (int(frame.sample_rate), int(frame.layout.nb_channels))
        if found != (self.sample_rate, self.num_channels):
            raise AudioError(
                f"{self._path}: changes at {self._position_s():.2f} s from {self.num_channels} "
                f"channels at {self.sample_rate} Hz to {found[1]} at {found[0]} Hz; cut it there "
                "and separate the parts, or convert it to wav first."
            )

    # Time -------------------------------------------------------------------------------

    def _position_s(self) -> float:
        return self._timeline.num_samples / self.sample_rate if self._timeline else 0.0

    def _latest_s(self) -> float:
        """The time stamp behind which no frame is believed."""
        if self._container.duration is None:
            return _LONGEST_UNANNOUNCED_S
        begin = (self._container.start_time or 0) / av.time_base
        return begin + self._container.duration / av.time_base + 1.0

    def _padding(self, time_base: Fraction) -> int:
        """How many of the samples that were delivered stand behind the recording's end."""
        timeline = self._timeline
        assert timeline is not None
        stream = self._stream
        names = self._container.format.name
        if self._is_ogg_vorbis and stream.duration:
            length = round(stream.duration * time_base * self.sample_rate)
            return timeline.num_samples - length if timeline.is_untouched else 0
        if counted := _itunes_length(self._container):
            return timeline.num_samples - counted
        if not names.startswith("mov") or time_base > _COARSEST_EXACT_TICK:
            return 0
        ends = []
        if self._end_of_packets is not None:
            ends.append(self._end_of_packets)
        if stream.duration:
            edited = (stream.start_time or 0) + stream.duration
            # The length of the last packet is exact; the edit list may be rounded.
            if not ends or (ends[0] - edited) * time_base > _EDIT_LIST_TICK_S:
                ends = [edited]
        if not ends:
            return 0
        return timeline.num_samples - timeline.position_of(float(ends[0] * time_base))

    def _start_s(self) -> float:
        first_s = self._timeline.first_s if self._timeline else None
        if first_s is None or self._is_bare:
            return 0.0
        container = self._container
        begin_s = max((container.start_time or 0) / av.time_base, 0.0)
        video = first_video(container)
        if video is not None:
            if video.start_time is not None:
                begin_s = float(video.start_time * _fraction(video.time_base))
            return first_s - begin_s
        return max(first_s - begin_s, 0.0) if len(container.streams.audio) > 1 else 0.0

    def _promised_s(self) -> float | None:
        """How long the header says the track is; None where it does not say it."""
        stream, container = self._stream, self._container
        names = container.format.name
        if names == "mp3" and not _has_frame_count(self._path):
            return None
        if names.startswith("matroska"):
            written = stream.metadata.get("DURATION", "")
            # FFmpeg notes when a track ends, mkvmerge how long it is: the smaller one of both.
            silent_s = max(self._timeline.first_s or 0.0, 0.0) if self._timeline else 0.0
            if found := re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", written.strip("\0 ")):
                ends_s = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
                return ends_s - silent_s
            if len(container.streams) > 1 or container.duration is None:
                return None
            return container.duration / av.time_base - silent_s
        is_counted = self._is_bare and names != "mp3"
        if stream.duration is None or is_counted or self._is_broadcast or names == "ogg":
            return None
        return float(stream.duration * _fraction(stream.time_base))

    # Words ------------------------------------------------------------------------------

    def _damaged(self, error: Exception | None) -> AudioError:
        at_s = self._first_broken_s if self._num_broken else self._position_s()
        return AudioError(
            f"{self._path}: damaged at about {at_s:.2f} s ({reason_of(error)}); repair the file "
            "or fetch it again."
        )

    def _warnings(self, num_samples: int) -> Iterator[str]:
        actual_s = num_samples / self.sample_rate
        promised_s = self._promised_s()
        is_short = promised_s is not None and promised_s - actual_s > _TOLERATED_SHORTAGE_S
        if promised_s is not None and is_short:
            yield cut_short(promised_s, actual_s)
        # A file that was cut short usually ends in the middle of a packet.
        if self._num_broken > int(is_short):
            yield (
                f"left out {counted(self._num_broken, 'piece')} that cannot be decoded, the first "
                f"at about {self._first_broken_s:.2f} s"
            )
        if self._timeline is None:
            return
        if holes := self._timeline.holes:
            yield (
                f"filled {counted(len(holes), 'hole')} in the track with silence so that what "
                f"follows stays in time: the first at {holes[0][0]:.2f} s, "
                f"{sum(length_s for _, length_s in holes):.2f} s in all"
            )
        if overlaps := self._timeline.overlaps:
            yield (
                f"left out {counted(len(overlaps), 'piece')} that the track holds twice: the first "
                f"at {overlaps[0][0]:.2f} s, {sum(length_s for _, length_s in overlaps):.2f} s "
                "in all"
            )
        if restarts := self._timeline.restarts:
            yield (
                f"the clock of the track starts anew {counted(len(restarts), 'time')}, first at "
                f"{restarts[0]:.2f} s, as where recordings were joined; the sound is kept as it is"
            )


@contextmanager
def open_media(path: Path, track: int | None) -> Iterator[MediaReader]:
    """Open one audio track of a media file.

    Args:
        path: The file.
        track: Which audio track, from 1; None for the one marked as default, or the first.

    Raises:
        CannotOpenError: If FFmpeg does not know what it is.
        AudioError: If it has no sound, no such track, or nothing can decode it.
    """
    with open_container(path) as container:
        yield MediaReader(path, container, track)


@contextmanager
def open_container(path: Path, **options: str) -> Iterator[InputContainer]:
    """Open a media file, and nothing that it may point to.

    Args:
        path: The file.
        options: Further options of FFmpeg's reader.

    Raises:
        CannotOpenError: If FFmpeg does not know what it is.
    """
    try:
        container = av.open(
            # Without a protocol, a name with a colon is taken for an address.
            f"file:{path.absolute()}",
            options={
                "format_whitelist": _allowed_demuxers(),
                "protocol_whitelist": "file",
                **options,
            },
            **_TAG_OPTIONS,
        )
    except (av.FFmpegError, ValueError) as error:
        raise CannotOpenError(reason_of(error)) from error
    with container:
        yield container


@cache
def _allowed_demuxers() -> str:
    return ",".join(sorted(av.formats_available - _REFUSED_DEMUXERS))


def _chosen(path: Path, container: InputContainer, track: int | None) -> tuple[int, AudioStream]:
    """Find the track, or say which there are."""
    streams = list(container.streams.audio)
    if not streams:
        what = "pictures but no sound" if container.streams.video else "no sound"
        raise AudioError(f"{path}: holds {what}; name a file with an audio track.")
    if track is None:
        defaults = [stream for stream in streams if stream.disposition & Disposition.default]
        stream = (defaults or streams)[0]
        track = streams.index(stream) + 1
    elif 1 <= track <= len(streams):
        stream = streams[track - 1]
    else:
        listed = ", ".join(
            " ".join([str(number), *_track_words(stream)])
            for number, stream in enumerate(streams, start=1)
        )
        raise AudioError(
            f"{path}: has no audio track {track}; it has {counted(len(streams), 'track')}: "
            f"{listed}."
        )
    # A track in a form that this FFmpeg cannot decode, or an encrypted one, has no context.
    if stream.codec_context is None:
        raise AudioError(
            f"{path}: audio track {track} is in a form that cannot be decoded here; convert it "
            "to wav or flac first."
        )
    return track, stream


def _track_words(stream: Stream) -> list[str]:
    """Language and title of a track, as far as they are known."""
    tags = {name.lower(): value for name, value in stream.metadata.items()}
    words = [tags.get("language", "und"), tags.get("title", "")]
    known = [_one_line(word) for word in words if word not in ("", "und")]
    return [f"({', '.join(known)})"] if known else []


def first_video(container: InputContainer) -> Stream | None:
    """The first track of moving pictures; a cover picture is none."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def _layout(stream: AudioStream, num_channels: int) -> str:
    """FFmpeg's name of a track's layout; empty for one that is only a count."""
    if stream.codec_context is None:
        return ""
    layout = stream.codec_context.layout
    is_known = layout.nb_channels == num_channels and not re.match(r"\d+ channels", layout.name)
    return str(layout.name) if is_known else ""


def _tags(container: InputContainer, stream: Stream) -> dict[str, str]:
    """The tags of the recording: those of the track, over them those of the whole file."""
    tags = {}
    for name, value in [*stream.metadata.items(), *container.metadata.items()]:
        name = name.lower()
        if value and not _TECHNICAL_TAGS.fullmatch(name):
            # Lone surrogates stand for bytes that are not UTF-8.
            tags[name] = value.encode("utf-8", "replace").decode()
    if tags.get("language") == "und":
        del tags["language"]
    return tags


def _format_name(path: Path, container: InputContainer) -> str:
    """The container's common name, in capitals."""
    name = container.format.name
    if name.startswith("mov"):
        is_quicktime = container.metadata.get("major_brand", "").startswith("qt")
        return "MOV" if is_quicktime else "MP4"
    if name.startswith("matroska"):
        return "WEBM" if b"webm" in _head(path)[:64] else "MATROSKA"
    return name.split(",")[0].upper()


def _subtype(stream: AudioStream) -> str:
    """How samples are stored: libsndfile's word where it has one, else the codec's name."""
    context = stream.codec_context
    name = context.name
    if name in _SUBTYPES:
        return _SUBTYPES[name]
    if name in _LOSSLESS:
        return "PCM_16" if context.format is not None and context.format.bytes == 2 else "PCM_24"
    if found := re.fullmatch(r"pcm_([sfu])(\d+)\w*", name):
        floats = {"32": "FLOAT", "64": "DOUBLE"}
        return floats.get(found[2], "FLOAT") if found[1] == "f" else f"PCM_{found[2]}"
    return name.upper()


def _itunes_length(container: InputContainer) -> int:
    """The number of samples that iTunes notes in its files; zero where it does not."""
    words = container.metadata.get("iTunSMPB", "").split()
    is_count = len(words) > 3 and re.fullmatch("[0-9A-Fa-f]{1,16}", words[3])
    return int(words[3], 16) if is_count else 0


def _has_frame_count(path: Path) -> bool:
    """Whether an mp3 begins with a header that says how many frames follow."""
    head = _head(path)
    if head[:3] == b"ID3" and len(head) >= 10:
        # The size of the tag comes in four bytes of seven bits.
        size = 0
        for byte in head[6:10]:
            size = size * 128 + (byte & 0x7F)
        head = _head(path, 10 + size)
    return re.search(rb"Xing|Info|VBRI", head[:4096]) is not None


def _head(path: Path, offset: int = 0) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(_HEAD_BYTES)


def _fraction(time_base: Fraction | None) -> Fraction:
    if not time_base:
        return Fraction(1, av.time_base)
    return Fraction(time_base.numerator, time_base.denominator)


def reason_of(error: Exception | None) -> str:
    """FFmpeg's own words on one line, without numbers and names of its functions."""
    text = getattr(error, "strerror", None) or str(error or "nothing can be decoded")
    return _one_line(text).rstrip(".")


def _one_line(text: str) -> str:
    return " ".join(text.split())
