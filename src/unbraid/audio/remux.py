"""A stem put back under its film: pictures copied as they are, the sound replaced."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeAlias

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Disposition, Stream

from unbraid.audio.encoders import clean_tags
from unbraid.audio.formats import AudioFormat, FormatChoice
from unbraid.audio.info import AudioInfo
from unbraid.audio.media import CannotOpenError, first_video, open_container, reason_of
from unbraid.audio.partial_file import PartialFile
from unbraid.errors import AudioError

_VideoContainer: TypeAlias = Literal["mp4", "mov", "mkv", "webm"]

# Matroska takes the pictures of every other container.
_CONTAINERS: dict[str, _VideoContainer] = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".qt": "mov",
    ".webm": "webm",
}
_MUXERS: dict[_VideoContainer, str] = {
    "mp4": "mp4",
    "mov": "mov",
    "mkv": "matroska",
    "webm": "webm",
}
_QUICKTIME = "mov"  # a part of the name of FFmpeg's reader for mp4 and mov
_SOUND = -1


def remux_extension(video: Path) -> str:
    """The file name extension of a copy of this film, without a dot.

    It says the container: that of the film for mp4 (m4v), mov and webm, else mkv.
    """
    return _container_for(video)


def remux_format(video: Path, source: AudioInfo) -> AudioFormat:
    """How to encode a stem that goes under this film.

    AAC for mp4 and mov, Opus for webm, and FLAC of the recording's depth for mkv.

    Args:
        video: The film; only its name is looked at.
        source: Its sound.
    """
    container = _container_for(video)
    if container == "mkv":
        return FormatChoice("flac").for_source(source)
    return FormatChoice("opus" if container == "webm" else "m4a").for_source(source)


def put_under_video(
    video: Path, audio: Path, out: Path, *, start_s: float, title: str
) -> tuple[str, ...]:
    """Copy a film with this sound instead of its own.

    Pictures, subtitles, chapters and attachments are copied packet by packet, and so is
    the sound: nothing is decoded or encoded. Memory does not grow with the length. What
    was heard together with a picture is heard together with it again: exactly to the sample
    in mp4 and mov; Matroska and WebM count time in milliseconds, so that a track that
    begins between two of them is placed up to half a millisecond off.

    Args:
        video: The film.
        audio: One track of sound, encoded as ``remux_format`` says.
        out: Where to write, with the ending that ``remux_extension`` says; it appears when
            it is complete.
        start_s: How long after the first picture the sound begins, as ``probe`` says it.
        title: What players call the track.

    Returns:
        What could not be taken along, in words for the user.

    Raises:
        AudioError: If there are no moving pictures, something cannot be read, the
            container cannot take the pictures, or the copy cannot be written.
    """
    file = PartialFile(out)
    try:
        with _opened(video) as film, _opened(audio) as sound, file.create() as handle:
            target = av.open(
                handle,
                "w",
                format=_MUXERS[_container_for(video)],
                container_options=_options(video, sound),
            )
            try:
                streams, left_out = _add_streams(film, sound, target, video, title)
                offset = Fraction(start_s) + _first_picture_s(film)
                if _container_for(video) == "webm":
                    # Opus begins 312 samples early, which are 6.5 ms. FFmpeg rounds that up
                    # to whole milliseconds when it writes, and again when it reads.
                    offset -= Fraction(1, 48_000)
                pictures = _packets(film, video, streams, Fraction(0))
                notes = _packets(sound, audio, {0: streams[_SOUND]}, offset)
                # Side by side, so that FFmpeg has little to hold back.
                for packet in heapq.merge(pictures, notes, key=_time):
                    target.mux_one(packet)
                target.close()
                handle.flush()
            except BaseException:
                handle.close()  # then FFmpeg does not try to write an end
                with suppress(av.FFmpegError, OSError, ValueError):
                    target.close()
                raise
        file.sync()
        file.publish()
    except (av.FFmpegError, OSError) as error:
        raise file.failure(error) from error
    finally:
        file.discard()
    return left_out


def _first_picture_s(film: InputContainer) -> Fraction:
    """Where the film's own time line has its first picture; often not at zero."""
    picture = first_video(film)
    if picture is None or picture.start_time is None or picture.time_base is None:
        return Fraction(0)
    return picture.start_time * picture.time_base


def _container_for(video: Path) -> _VideoContainer:
    return _CONTAINERS.get(video.suffix.lower(), "mkv")


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    try:
        # An avi does not say when a picture is shown.
        with open_container(path, fflags="+genpts") as container:
            yield container
    except CannotOpenError as error:
        raise AudioError(f"{path}: cannot be read ({error}).") from error


def _options(video: Path, sound: InputContainer) -> dict[str, str]:
    options = {"fflags": "+bitexact"}  # the same copy each time
    if _container_for(video) in ("mp4", "mov"):
        # The unit in which a track's beginning is counted; FFmpeg's own is a millisecond.
        options["movie_timescale"] = str(sound.streams.audio[0].codec_context.sample_rate)
    return options


def _add_streams(
    film: InputContainer, sound: InputContainer, target: OutputContainer, video: Path, title: str
) -> tuple[dict[int, Stream], tuple[str, ...]]:
    """Open a stream in the copy for all that can be taken along.

    Returns:
        The streams by their index in the film, that of the sound under ``_SOUND``; and
        what is left out, in words.
    """
    container = _container_for(video)
    streams: dict[int, Stream] = {}
    left_out = []
    target.metadata.update(clean_tags(film.metadata))
    for picture in film.streams.video:
        if Disposition.attached_pic in picture.disposition:
            continue
        try:
            streams[picture.index] = _add_like(picture, film, target)
        except ValueError as error:
            raise AudioError(
                f"{video}: its pictures cannot be copied into a {container} file ({error}); "
                "convert it to mkv first."
            ) from error
    if not streams:
        raise AudioError(f"{video}: has no moving pictures to put a stem under.")
    streams[_SOUND] = _add_like(sound.streams.audio[0], sound, target)
    streams[_SOUND].metadata["title"] = title
    if container in ("mp4", "mov"):
        streams[_SOUND].metadata["handler_name"] = title  # what most players show there
    streams[_SOUND].disposition = Disposition.default
    for stream in film.streams:
        if stream.type == "subtitle":
            try:
                streams[stream.index] = _add_like(stream, film, target)
            except ValueError:
                language = stream.metadata.get("language", "")
                left_out.append(f"{container} cannot hold the subtitles {language}".rstrip())
        elif isinstance(stream, AttachmentStream) and container == "mkv":
            kind = stream.mimetype or "application/octet-stream"
            target.add_attachment(stream.name or "attachment", kind, stream.data)
    target.set_chapters(film.chapters())
    return streams, tuple(left_out)


def _add_like(stream: Stream, source: InputContainer, target: OutputContainer) -> Stream:
    """Open a stream for the packets of another one.

    Raises:
        ValueError: If the container cannot hold such packets.
    """
    if stream.codec_context is None:
        raise ValueError("unknown codec")
    added = target.add_stream_from_template(stream, opaque=True)
    added.metadata.update(clean_tags(stream.metadata))
    added.disposition = stream.disposition
    if _QUICKTIME in source.format.name and target.format.name in ("mp4", "mov"):
        # Tags that mean the same codec are not the same to every player.
        added.codec_context.codec_tag = stream.codec_context.codec_tag
    return added


def _packets(
    container: InputContainer, path: Path, streams: Mapping[int, Stream], offset_s: Fraction
) -> Iterator[Packet[Stream]]:
    """The packets of a file, addressed to the streams of the copy, later by an offset."""
    last_dts: dict[int, int] = {}
    taken = [stream for stream in container.streams if stream.index in streams]
    try:
        for packet in container.demux(*taken):
            if packet.pts is None and packet.dts is None:
                continue  # the empty packets at the end
            index = packet.stream_index
            if packet.dts is None:
                # Matroska does not store when to decode; it must only not go back, nor be
                # later than the picture is shown.
                packet.dts = last_dts.get(index, packet.pts)
            assert packet.dts is not None
            last_dts[index] = packet.dts
            offset = round(offset_s / packet.time_base)
            packet.dts += offset
            if packet.pts is not None:
                packet.pts += offset
            packet.stream = streams[index]
            yield packet
    except (av.FFmpegError, OSError) as error:
        raise AudioError(
            f"{path}: damaged ({reason_of(error)}); repair the file or fetch it again."
        ) from error


def _time(packet: Packet[Stream]) -> Fraction:
    assert packet.dts is not None
    return packet.dts * packet.time_base
