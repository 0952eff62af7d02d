"""Recordings in: what a file holds, and its samples in blocks of constant size.

Whatever libsndfile or FFmpeg reads is read, sound or video, and so are clips that were packed
into an HDF5 file. A file's first bytes decide which of them tries first, never its name. A file
that cannot be read is an ``AudioError`` that names the file; one that breaks in the middle is
an ``AudioError`` that names the time. Nothing is replaced by silence and nothing is cut short
without a word.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.audio.info import AudioInfo
from unbraid.audio.limits import block_length, check_plausible
from unbraid.audio.media import CannotOpenError, MediaReader, open_media
from unbraid.audio.packed_file import PackedFileReader, is_packed
from unbraid.audio.seek_point import SeekPoint
from unbraid.audio.sound_files import SoundFileReader, is_for_libsndfile
from unbraid.errors import AudioError, DiskError
from unbraid.types import Waveform

_Reader: TypeAlias = SoundFileReader | MediaReader | PackedFileReader

# Names of what is taken for a recording when a folder is searched; a file that is named
# by itself may be called anything.
MEDIA_EXTENSIONS = frozenset(
    {
        ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf", ".au",
        ".avi", ".bwf", ".caf", ".dsf", ".dts", ".eac3", ".flac", ".flv", ".m2ts", ".m4a",
        ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpeg", ".mpg",
        ".mts", ".mxf", ".oga", ".ogg", ".ogv", ".opus", ".rf64", ".snd", ".spx", ".tak",
        ".ts", ".tta", ".vob", ".w64", ".wav", ".webm", ".wma", ".wmv", ".wv",
    }
)  # fmt: skip
_HEAD_BYTES = 16


def probe(path: str | Path, track: int | None = None) -> AudioInfo:
    """Say what a recording holds.

    The header is enough for wav, flac, aiff and HDF5. Everything else is decoded once to count
    its samples, since its header is only a promise; pictures are not decoded.

    Args:
        path: The file.
        track: Which audio track, from 1; None for the one marked as default, or the first.

    Raises:
        AudioError: If the file is missing, a folder, empty, unreadable, damaged or without
            sound, or has no such track.
        MissingExtra: If it is an HDF5 file and h5py is not installed.
    """
    with _opened(Path(path), track) as reader:
        return reader.info()


def read_blocks(
    path: str | Path, block_s: float = 1.0, track: int | None = None
) -> Iterator[Float[Tensor, "channel time"]]:
    """Decode a track block by block, in memory that does not grow with its length.

    Args:
        path: The file.
        block_s: Length of a block in seconds; the last one may be shorter, and with very
            many channels all are.
        track: As in ``probe``.

    Yields:
        Blocks of at least one sample, as many samples as ``probe`` says; a file without
        samples yields none. Full scale is ±1; float files keep values beyond it.

    Raises:
        AudioError: As ``probe``, and at the time at which the file breaks off, is damaged,
            or holds what is not a number.
        MissingExtra: As ``probe``.
    """
    with _opened(Path(path), track) as reader:
        yield from _blocks(Path(path), reader, block_s)


def count_samples(
    path: str | Path, track: int | None = None, most_s: float = math.inf
) -> tuple[int, int, int]:
    """Decode a track to its end, to be sure that this can be done, and keep nothing of it.

    Args:
        path: The file.
        track: As in ``probe``.
        most_s: When to give up, in seconds of sound: a small file may hold days of silence.

    Returns:
        Its sample rate, its channels, and the samples in each of them; somewhat more than
        ``most_s`` if it is longer than that.

    Raises:
        AudioError: As ``read_blocks``.
        MissingExtra: As ``probe``.
    """
    with _opened(Path(path), track) as reader:
        num_samples = 0
        for block in _blocks(Path(path), reader, 1.0):
            num_samples += block.shape[1]
            if num_samples > most_s * reader.sample_rate:
                break
        return reader.sample_rate, reader.num_channels, num_samples


def read(path: str | Path, track: int | None = None) -> Waveform:
    """Decode a whole track into memory.

    Args:
        path: The file.
        track: As in ``probe``.

    Raises:
        AudioError: As ``read_blocks``.
        MissingExtra: As ``probe``.
    """
    return read_with_seek_points(path, track)[0]


@dataclass(frozen=True)
class Heard:
    """What is known of a track that was decoded to its end.

    Attributes:
        sample_rate: Samples per second.
        num_channels: How many channels there are.
        num_samples: Of each channel.
        points: Where ``read_span`` can begin in the middle. There are none where none are needed,
            as for wav and FLAC, in what is shorter than a second, and where the clock of the file
            jumps.
    """

    sample_rate: int
    num_channels: int
    num_samples: int
    points: tuple[SeekPoint, ...]


def listen(
    path: str | Path,
    hear: Callable[[Float[Tensor, "channel time"], int], None],
    track: int | None = None,
) -> Heard:
    """Decode a whole track in memory that does not grow with its length.

    Args:
        path: The file.
        hear: Called with each block, of a second and in the end of less, and its rate.
        track: As in ``probe``.

    Raises:
        AudioError: As ``read_blocks``.
        MissingExtra: As ``probe``.
    """
    num_samples = 0
    with _opened(Path(path), track) as reader:
        for block in _blocks(Path(path), reader, 1.0):
            hear(block, reader.sample_rate)
            num_samples += block.shape[1]
        points = reader.seek_points() if isinstance(reader, MediaReader) else ()
        return Heard(reader.sample_rate, reader.num_channels, num_samples, points)


def read_with_seek_points(
    path: str | Path, track: int | None = None
) -> tuple[Waveform, tuple[SeekPoint, ...]]:
    """Decode a whole track, and note where ``read_span`` can begin in its middle.

    Args:
        path: The file.
        track: As in ``probe``.

    Returns:
        The track, and its points, see ``Heard.points``.

    Raises:
        AudioError: As ``read_blocks``.
        MissingExtra: As ``probe``.
    """
    blocks: list[Tensor] = []
    heard = listen(path, lambda block, _: blocks.append(block), track)
    samples = torch.cat(blocks, dim=1) if blocks else torch.zeros(heard.num_channels, 0)
    return Waveform(samples, heard.sample_rate), heard.points


def read_span(
    path: str | Path,
    first: int,
    count: int,
    track: int | None = None,
    points: Sequence[SeekPoint] = (),
) -> Float[Tensor, "channel time"]:
    """Decode a stretch of a track, and as little as possible of what comes before it.

    wav, FLAC and the like are read at any sample, also without points. All else is decoded from
    the start unless there are points; ``MediaReader.span`` says which codecs give the same
    samples from the middle as from the start.

    Args:
        path: The file.
        first: The first sample; as ``read`` counts them.
        count: How many samples.
        track: As in ``probe``.
        points: As ``read_with_seek_points`` gave them for this file.

    Raises:
        AudioError: As ``read``, and if the track has no such samples.
        MissingExtra: As ``probe``.
    """
    path = Path(path)
    with _opened(path, track) as reader:
        if not isinstance(reader, MediaReader):
            found = reader.span(first, count)
        elif points:
            found = reader.span(first, count, points)
        else:
            found = _cut(reader, first, count)
    if found is None:
        with _opened(path, track) as reader:
            found = _cut(reader, first, count)
    if len(found) < count:
        raise AudioError(
            f"{path}: has no samples {first} to {first + count}; it has changed since its length "
            "was noted. Fetch it again, or delete the note."
        )
    _check_finite(path, found, first, reader.sample_rate)
    return torch.from_numpy(np.ascontiguousarray(found.T))


def _cut(reader: _Reader, first: int, count: int) -> np.ndarray:
    """Samples ``[time, channel]``, decoded from the start; fewer where the track ends."""
    pieces = [np.empty((0, reader.num_channels), np.float32)]
    done = 0
    for block in reader.blocks(block_length(1.0, reader.sample_rate, reader.num_channels)):
        pieces.append(block[max(0, first - done) : max(0, first + count - done)])
        done += len(block)
        if done >= first + count:
            break
    return np.concatenate(pieces)


def _blocks(path: Path, reader: _Reader, block_s: float) -> Iterator[Float[Tensor, "channel time"]]:
    done = 0
    for block in reader.blocks(block_length(block_s, reader.sample_rate, reader.num_channels)):
        _check_finite(path, block, done, reader.sample_rate)
        done += len(block)
        yield torch.from_numpy(np.ascontiguousarray(block.T))


def _check_finite(path: Path, block: np.ndarray, position: int, sample_rate: int) -> None:
    if not np.isfinite(block).all():
        first = int(np.argmin(np.isfinite(block).all(axis=1)))
        raise AudioError(
            f"{path}: the sample at {(position + first) / sample_rate:.4f} s is not a finite "
            "number; repair the file or fetch it again."
        )


@contextmanager
def _opened(path: Path, track: int | None) -> Iterator[_Reader]:
    """Open a file with the library that knows it, or say what keeps it from being opened."""
    head = _checked_head(path)
    if is_packed(head):
        with closing(PackedFileReader(path, track)) as packed:
            yield packed
        return
    reason = ""
    if is_for_libsndfile(head):
        try:
            sound_file = SoundFileReader(path)
        except CannotOpenError as error:
            reason = str(error)
        else:
            with closing(sound_file):
                check_plausible(path, sound_file.sample_rate, sound_file.num_channels)
                if track not in (None, 1):
                    raise AudioError(f"{path}: has no audio track {track}; it has 1 track.")
                yield sound_file
            return
    try:
        with open_media(path, track) as media:
            yield media
    except CannotOpenError as error:
        raise AudioError(
            f"{path}: not an audio file that can be read here ({reason or error}); "
            "convert it to wav or flac first."
        ) from error


def _checked_head(path: Path) -> bytes:
    """Return a file's first bytes; the file system gives better reasons than a decoder."""
    try:
        if path.is_dir():
            raise AudioError(f"{path}: is a folder; name the audio files in it.")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise AudioError(f"{path}: no such file.") from error
    except PermissionError as error:
        raise AudioError(f"{path}: no permission to read it.") from error
    except OSError as error:
        raise DiskError(f"{path}: cannot be opened ({error.strerror or error}).") from error
    except ValueError as error:  # for example a name with a zero in it
        raise AudioError(f"{path}: cannot be opened ({error}).") from error
    if not head:
        raise AudioError(f"{path}: the file is empty (0 bytes).")
    return head
