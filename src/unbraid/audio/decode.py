"""Audio files in: what a file holds, and its samples in blocks of constant size.

Everything that libsndfile reads is read (wav, flac, ogg, opus, mp3, aiff and more).
A file that cannot be read is an ``AudioError`` that names the file; one that breaks
in the middle is an ``AudioError`` that names the time. Nothing is replaced by silence
and nothing is cut short without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.audio.info import AudioInfo
from unbraid.errors import AudioError
from unbraid.types import Waveform

# libsndfile's answer for a stream whose header does not say how long it is.
_UNKNOWN_LENGTH = 2**63 - 1
_SEEK_FAILED = 39
# Programs that write a wav into a pipe put a size near one of these limits in the header.
_SMALLEST_PLACEHOLDER_SIZE = 0x7FFF_0000
# An mp3 header counts whole frames; some encoders are a few frames off.
_TOLERATED_MP3_SHORTAGE_S = 0.1


def probe(path: str | Path) -> AudioInfo:
    """Say what an audio file holds.

    The header is enough for most formats. A stream without a length in its header, and
    an mp3 (whose header is only a promise), is decoded once to count its samples.

    Raises:
        AudioError: If the file is missing, a folder, empty, unreadable, or not audio.
    """
    path = Path(path)
    with _opened(path) as file:
        num_samples = int(file.frames)
        warnings = []
        if num_samples == _UNKNOWN_LENGTH or file.format == "MP3":
            promised_s = num_samples / file.samplerate
            num_samples = sum(len(block) for block in _decoded(file, path, file.samplerate))
            actual_s = num_samples / file.samplerate
            if file.format == "MP3" and promised_s - actual_s > _TOLERATED_MP3_SHORTAGE_S:
                warnings.append(_shortage(promised_s, actual_s))
        promised_bytes = _promised_wav_bytes(file)
        if promised_bytes is not None:
            bytes_per_s = promised_bytes[1] / max(num_samples, 1) * file.samplerate
            warnings.append(
                _shortage(promised_bytes[0] / max(bytes_per_s, 1), num_samples / file.samplerate)
            )
        return AudioInfo(
            sample_rate=int(file.samplerate),
            num_channels=int(file.channels),
            num_samples=num_samples,
            format=str(file.format),
            subtype=str(file.subtype),
            warnings=tuple(warnings),
        )


def read_blocks(path: str | Path, block_s: float = 1.0) -> Iterator[Float[Tensor, "channel time"]]:
    """Decode a file block by block, in memory that does not grow with its length.

    Args:
        path: The audio file.
        block_s: Length of a block in seconds; the last one may be shorter.

    Yields:
        Blocks of at least one sample; a file without samples yields none. Full scale is
        ±1; float files keep values beyond it.

    Raises:
        AudioError: As ``probe``, and at the time at which the file breaks off or is damaged.
    """
    path = Path(path)
    with _opened(path) as file:
        block_length = max(1, round(block_s * file.samplerate))
        for block in _decoded(file, path, block_length):
            yield torch.from_numpy(np.ascontiguousarray(block.T))


def read(path: str | Path) -> Waveform:
    """Decode a whole file into memory.

    Raises:
        AudioError: As ``read_blocks``.
    """
    path = Path(path)
    with _opened(path) as file:
        sample_rate, num_channels = int(file.samplerate), int(file.channels)
    blocks = list(read_blocks(path))
    samples = torch.cat(blocks, dim=1) if blocks else torch.zeros(num_channels, 0)
    return Waveform(samples, sample_rate)


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a file, or say which of the usual reasons keeps it from being opened."""
    _check_readable(path)
    try:
        file = soundfile.SoundFile(path)
    # A name that ends in .raw makes soundfile ask for the rate with a TypeError.
    except (soundfile.LibsndfileError, TypeError) as error:
        raise AudioError(
            f"{path}: not an audio file that can be read here ({_reason(error)}); "
            "convert it to wav or flac first."
        ) from error
    with file:
        yield file


def _check_readable(path: Path) -> None:
    """Ask the file system first: libsndfile calls every trouble a 'system error'."""
    try:
        if path.is_dir():
            raise AudioError(f"{path}: is a folder; name the audio files in it.")
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except FileNotFoundError as error:
        raise AudioError(f"{path}: no such file.") from error
    except PermissionError as error:
        raise AudioError(f"{path}: no permission to read it.") from error
    except (OSError, ValueError) as error:
        raise AudioError(f"{path}: cannot be opened ({_reason(error)}).") from error
    if is_empty:
        raise AudioError(f"{path}: the file is empty (0 bytes).")


def _decoded(file: soundfile.SoundFile, path: Path, block_length: int) -> Iterator[np.ndarray]:
    """Yield float32 blocks ``[time, channel]`` to the end of the file.

    Raises:
        AudioError: With the time, if the decoder gives up or the file ends early.
    """
    promised = int(file.frames)
    done = 0
    while True:
        block = np.empty((block_length, file.channels), dtype=np.float32)
        try:
            num_read = _read_into(file, block)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{path}: damaged at about {done / file.samplerate:.2f} s "
                f"({_reason(error)}); repair the file or fetch it again."
            ) from error
        done += num_read
        if num_read:
            yield block[:num_read]
        if num_read < block_length:
            break
    is_promise_exact = promised != _UNKNOWN_LENGTH and file.format != "MP3"
    if is_promise_exact and done < promised:
        raise AudioError(
            f"{path}: breaks off at {done / file.samplerate:.2f} s although its header says "
            f"{promised / file.samplerate:.2f} s; repair the file or fetch it again."
        )


def _read_into(file: soundfile.SoundFile, block: np.ndarray) -> int:
    """Fill ``block`` from the file; return how many samples per channel were there.

    After each read soundfile seeks to where it stands. At the end of a stream of unknown
    length that seek fails, although the samples have been delivered; only formats of
    whole numbers come without a length, so NaN can mark what was not delivered.
    """
    if file.frames != _UNKNOWN_LENGTH:
        return len(file.read(out=block))
    block.fill(np.nan)
    try:
        return len(file.read(out=block))
    except soundfile.LibsndfileError as error:
        if error.code != _SEEK_FAILED:
            raise
        return int(np.count_nonzero(~np.isnan(block[:, 0])))


def _promised_wav_bytes(file: soundfile.SoundFile) -> tuple[int, int] | None:
    """Return (bytes in the header, bytes in the file) of a wav that was cut short."""
    found = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    if found is None:
        return None
    promised, actual = int(found[1]), int(found[2])
    return (promised, actual) if actual < promised < _SMALLEST_PLACEHOLDER_SIZE else None


def _shortage(promised_s: float, actual_s: float) -> str:
    return (
        f"the file was cut short: its header says {promised_s:.2f} s, it holds {actual_s:.2f} s; "
        "the stems are as long as what is there"
    )


def _reason(error: Exception) -> str:
    """The library's own words on one line, without the path it repeats."""
    if isinstance(error, soundfile.LibsndfileError):
        text = str(error.error_string)
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = str(error)
    return " ".join(text.split()).removeprefix("Error : ").rstrip(".")
