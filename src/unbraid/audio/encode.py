"""Audio files out: written under a temporary name, checked, then renamed.

A file appears under its real name only when it is whole. Samples are rounded to the
nearest step of an integer format (libsndfile alone would round down, which adds an
offset), so samples that came from a file of the same bit depth go back unchanged.
"""

from __future__ import annotations

import os
import secrets
import shutil
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import soundfile
from jaxtyping import Float
from torch import Tensor

from unbraid.audio.info import AudioInfo
from unbraid.errors import AudioError, ConfigError
from unbraid.types import Waveform

Container = Literal["wav", "flac"]
Subtype = Literal["PCM_16", "PCM_24", "PCM_32", "FLOAT"]

_BITS: dict[Subtype, int] = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32}

# Which stored form keeps the depth of a source. What is not listed is lossy or has fewer
# than 16 bits, and 16 bits hold all of it that can be heard.
_WAV_SUBTYPE_OF_SOURCE: dict[str, Subtype] = {
    "PCM_24": "PCM_24",
    "PCM_32": "PCM_32",
    "FLOAT": "FLOAT",
    "DOUBLE": "FLOAT",
}
# FLAC stops at 24 bits.
_FLAC_SUBTYPE_OF_SOURCE: dict[str, Subtype] = dict.fromkeys(_WAV_SUBTYPE_OF_SOURCE, "PCM_24")

_MOST_FLAC_CHANNELS = 8
_HIGHEST_FLAC_RATE = 655_350
_HIGHEST_ODD_FLAC_RATE = 65_535
# The size fields of a wav have 32 bits; some room is left for the header.
_LARGEST_WAV_BYTES = 2**32 - 2**16
_LITTLE_SPACE_BYTES = 2**20


@dataclass(frozen=True)
class AudioFormat:
    """How a file stores samples.

    Attributes:
        container: ``wav`` or ``flac``.
        subtype: ``PCM_16``, ``PCM_24``, ``PCM_32`` or ``FLOAT``; FLAC holds the first two.
    """

    container: Container = "wav"
    subtype: Subtype = "PCM_16"

    def __post_init__(self) -> None:
        if self.container == "flac" and self.subtype not in ("PCM_16", "PCM_24"):
            raise ConfigError(
                f"FLAC cannot hold {self.subtype}; choose 16 or 24 bits, or write WAV."
            )

    @property
    def extension(self) -> str:
        """The file name extension, without a dot."""
        return self.container

    @property
    def is_integer(self) -> bool:
        """Whether values beyond ±1 do not fit."""
        return self.subtype != "FLOAT"

    def check_fits(self, num_channels: int, sample_rate: int) -> None:
        """Refuse what the container cannot hold.

        Raises:
            AudioError: For FLAC with more than eight channels, or at a rate above
                655350 Hz (above 65535 Hz it must be a multiple of 10 Hz).
        """
        if self.container != "flac":
            return
        if num_channels > _MOST_FLAC_CHANNELS:
            raise AudioError(
                f"FLAC holds {_MOST_FLAC_CHANNELS} channels at most, not {num_channels}; write WAV."
            )
        is_odd = sample_rate > _HIGHEST_ODD_FLAC_RATE and sample_rate % 10
        if sample_rate > _HIGHEST_FLAC_RATE or is_odd:
            raise AudioError(f"FLAC cannot hold a sample rate of {sample_rate} Hz; write WAV.")


@dataclass(frozen=True)
class FormatChoice:
    """What the user wishes about the files; what is left open follows the recording.

    16, 24 and 32 bits and float stay what they are (double becomes float; in FLAC
    everything above 24 bits becomes 24 bits). Lossy and 8-bit recordings give 16 bits.

    Attributes:
        flac: Write FLAC instead of WAV.
        int24: Store 24-bit whole numbers whatever the recording has.
        float32: Store 32-bit floats whatever the recording has.

    Raises:
        ConfigError: If the wishes exclude each other.
    """

    flac: bool = False
    int24: bool = False
    float32: bool = False

    def __post_init__(self) -> None:
        if self.int24 and self.float32:
            raise ConfigError("--int24 and --float32 exclude each other; choose one.")
        if self.flac and self.float32:
            raise ConfigError("FLAC cannot hold --float32; write WAV, or FLAC with --int24.")

    @property
    def container(self) -> Container:
        """The container, which does not depend on the recording."""
        return "flac" if self.flac else "wav"

    def for_source(self, source: AudioInfo) -> AudioFormat:
        """The format for stems of this recording."""
        if self.int24:
            return AudioFormat(self.container, "PCM_24")
        if self.float32:
            return AudioFormat(self.container, "FLOAT")
        subtypes = _FLAC_SUBTYPE_OF_SOURCE if self.flac else _WAV_SUBTYPE_OF_SOURCE
        return AudioFormat(self.container, subtypes.get(source.subtype, "PCM_16"))


class AtomicWriter:
    """Writes one audio file that appears whole or not at all.

    As a context manager it publishes the file when the block ends well and discards it
    otherwise. To let several files appear together, call ``finish`` on all of them, then
    ``publish`` on all of them, and ``discard`` on all of them if anything fails.

    Attributes:
        path: Where the file will appear.
        peak: The largest absolute sample so far; above 1 an integer format clips.
        num_samples: Samples per channel written so far.
    """

    def __init__(
        self,
        path: Path,
        audio_format: AudioFormat,
        sample_rate: int,
        num_channels: int,
        expected_samples: int | None = None,
    ) -> None:
        """Create the temporary file, and the folders on the way to it.

        Args:
            path: Where the file will appear.
            audio_format: How to store samples.
            sample_rate: Samples per second.
            num_channels: Channels of every block to come.
            expected_samples: Samples per channel to come, where known: beyond 4 GB a wav
                then becomes an RF64, which has room.

        Raises:
            AudioError: If the format cannot hold this audio or the file cannot be created.
        """
        audio_format.check_fits(num_channels, sample_rate)
        self.path = path
        self.peak = 0.0
        self.num_samples = 0
        self._format = audio_format
        self._sample_rate = sample_rate
        self._num_channels = num_channels
        self._bytes_per_sample = num_channels * _BITS[audio_format.subtype] // 8
        container = audio_format.container
        expected_bytes = (expected_samples or 0) * self._bytes_per_sample
        if container == "wav" and expected_bytes > _LARGEST_WAV_BYTES:
            self._container = "RF64"
        else:
            self._container = container.upper()
        self._temporary = path.with_name(f".unbraid-{secrets.token_hex(4)}.partial")
        self._new_folders: list[Path] = []
        self._file: soundfile.SoundFile | None = None
        self._is_published = False
        try:
            self._open()
        except BaseException:
            self.discard()
            raise

    def __enter__(self) -> AtomicWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.finish()
                self.publish()
        finally:
            self.discard()

    def write(self, samples: Float[Tensor, "channel time"]) -> None:
        """Append a block; the caller's tensor is left alone.

        Raises:
            AudioError: If the block holds NaN or infinity, or cannot be stored.
        """
        block = samples.detach().cpu().numpy().T
        if not block.size:
            return
        peak = float(np.max(np.abs(block)))
        if not np.isfinite(peak):
            at_s = self.num_samples / self._sample_rate
            raise AudioError(f"{self.path}: a sample after {at_s:.2f} s is not a finite number.")
        num_bytes = (self.num_samples + len(block)) * self._bytes_per_sample
        if self._container == "WAV" and num_bytes > _LARGEST_WAV_BYTES:
            raise AudioError(f"{self.path}: a wav of unknown length cannot grow beyond 4 GB.")
        try:
            assert self._file is not None, "write after finish"
            self._file.write(_stored(block, self._format))
        except (soundfile.LibsndfileError, OSError) as error:
            raise self._failure(error) from error
        self.peak = max(self.peak, peak)
        self.num_samples += len(block)

    def finish(self) -> None:
        """Close the temporary file and check that all of it has arrived on the disk.

        Raises:
            AudioError: If the last samples could not be stored.
        """
        try:
            if self._file is not None:
                self._file.close()
                self._file = None
            if self._format.container == "flac" and self.num_samples == 0:
                # libsndfile writes no header before the first sample.
                self._temporary.write_bytes(
                    _empty_flac(self._sample_rate, self._num_channels, _BITS[self._format.subtype])
                )
            else:
                self._check_stored_length()
            with self._temporary.open("rb+") as file:
                os.fsync(file.fileno())  # some disks report 'full' only now
        except (soundfile.LibsndfileError, OSError) as error:
            raise self._failure(error) from error

    def publish(self) -> None:
        """Let the finished file appear under its name, replacing what was there.

        Raises:
            AudioError: If the file cannot be renamed.
        """
        try:
            self._temporary.replace(self.path)
        except OSError as error:
            raise self._failure(error) from error
        self._is_published = True

    def withdraw(self) -> None:
        """Remove the file again if it was published; for files that appear together."""
        if self._is_published:
            with suppress(OSError):
                self.path.unlink()
            self._is_published = False

    def discard(self) -> None:
        """Leave nothing half-written; does nothing to a published file."""
        if self._file is not None:
            with suppress(soundfile.LibsndfileError, OSError):
                self._file.close()
            self._file = None
        with suppress(OSError):
            self._temporary.unlink()
        if not self._is_published:
            for folder in reversed(self._new_folders):
                with suppress(OSError):
                    folder.rmdir()  # only if nobody else has put something there

    def _open(self) -> None:
        try:
            self._make_folders()
            self.path.exists()  # a name that is too long shows now, not after the work
            # Python's own open says why it fails; libsndfile says 'system error'.
            self._temporary.open("xb").close()
            self._file = soundfile.SoundFile(
                self._temporary,
                "w",
                samplerate=self._sample_rate,
                channels=self._num_channels,
                subtype=self._format.subtype,
                format=self._container,
            )
        except (soundfile.LibsndfileError, OSError) as error:
            raise self._failure(error) from error

    def _make_folders(self) -> None:
        missing = []
        folder = self.path.parent
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self._new_folders.append(folder)

    def _check_stored_length(self) -> None:
        with soundfile.SoundFile(self._temporary) as file:
            if file.frames != self.num_samples:
                raise OSError(None, "not all samples have arrived on the disk")

    def _failure(self, error: Exception) -> AudioError:
        if isinstance(error, PermissionError):
            why = "no permission to write there"
        elif isinstance(error, OSError) and error.strerror:
            why = error.strerror
        elif isinstance(error, soundfile.LibsndfileError):
            why = str(error.error_string).strip().rstrip(".")
        else:
            why = str(error)
        if _is_disk_full(self.path):
            why = "the disk is full"
        return AudioError(
            f"{self.path}: cannot be written ({why}); nothing half-written was kept. "
            "Choose another folder with --out or make room."
        )


def write(path: str | Path, waveform: Waveform, audio_format: AudioFormat | None = None) -> None:
    """Write a whole waveform; the file appears when it is complete.

    Args:
        path: Where to write.
        waveform: What to write; values beyond ±1 are clipped by integer formats.
        audio_format: How to store it; None for WAV of 32-bit floats, which loses nothing.

    Raises:
        AudioError: If it cannot be written.
    """
    with AtomicWriter(
        Path(path),
        audio_format or AudioFormat("wav", "FLOAT"),
        waveform.sample_rate,
        waveform.num_channels,
        waveform.num_samples,
    ) as writer:
        writer.write(waveform.samples)


def _stored(block: np.ndarray, audio_format: AudioFormat) -> np.ndarray:
    """Turn floats into what libsndfile stores without rounding again.

    A sample of value v becomes the whole number nearest to v · 2^(bits-1), which is what
    reading divides by. libsndfile takes the upper bits of 32-bit numbers, hence the shift.
    """
    if not audio_format.is_integer:
        return np.ascontiguousarray(block, dtype=np.float32)
    bits = _BITS[audio_format.subtype]
    full_scale = 2.0 ** (bits - 1)
    steps = np.rint(block.astype(np.float64) * full_scale)
    steps = np.clip(steps, -full_scale, full_scale - 1)
    return np.ascontiguousarray(steps.astype(np.int32) << (32 - bits))


def _empty_flac(sample_rate: int, num_channels: int, bits: int) -> bytes:
    """The shortest FLAC there is: a marker and a STREAMINFO block with zero samples.

    Source: RFC 9639, section 8.2.
    """
    block_sizes = struct.pack(">HH", 4096, 4096)
    frame_sizes = bytes(6)
    layout = (sample_rate << 44) | ((num_channels - 1) << 41) | ((bits - 1) << 36)
    checksum = bytes(16)
    stream_info = block_sizes + frame_sizes + layout.to_bytes(8, "big") + checksum
    last_block_of_kind_0 = b"\x80"
    return b"fLaC" + last_block_of_kind_0 + len(stream_info).to_bytes(3, "big") + stream_info


def _is_disk_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _LITTLE_SPACE_BYTES
    except OSError:
        return False
