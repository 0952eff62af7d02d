"""Audio files out: written under a temporary name, checked, then renamed.

A file appears under its real name only when it is whole. Samples are rounded to the
nearest step of an integer format, so samples that came from a file of the same bit depth
go back unchanged. How each container is filled stands in ``encoders``.

Lengths are exact to the sample in every container, and so is the place of each sample:
what an encoder needs before the first and after the last one is marked as such in the
file, and readers leave it out again. Measured with clicks, at the rates between 8 and
192 kHz that a container holds:

| container | libsndfile | FFmpeg |
|---|---|---|
| wav, flac, opus | exact | exact |
| mp3 | exact | exact; below 47 samples at 24 kHz or less, up to 529 too many |
| ogg (Vorbis) | exact | begins exactly; says the length, but is up to 256 samples off it |
| m4a | does not read it | begins exactly; says the length, but fills the last 1024 samples |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import soundfile
from jaxtyping import Float
from torch import Tensor

from unbraid.audio.encoders import Encoder, open_encoder, stored_length
from unbraid.audio.formats import AudioFormat
from unbraid.audio.partial_file import PartialFile
from unbraid.errors import AudioError
from unbraid.types import Waveform

_WRITE_ERRORS = (av.FFmpegError, soundfile.LibsndfileError, OSError)
_REFERENCE = "time_reference"
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")  # what a broadcast wav's 64 bits hold


class AtomicWriter:
    """Writes one audio file that appears whole or not at all.

    As a context manager it publishes the file when the block ends well and discards it
    otherwise. To let several files wait for each other, call ``finish`` on all of them, then
    ``publish`` on all of them, and ``discard`` on all of them if anything fails.

    Attributes:
        path: Where the file will appear.
        peak: The largest absolute sample so far; compare it to the format's ``highest_peak``.
        num_samples: Samples per channel written so far.
    """

    def __init__(
        self,
        path: Path,
        audio_format: AudioFormat,
        sample_rate: int,
        num_channels: int,
        *,
        channel_layout: str = "",
        tags: Mapping[str, str] | None = None,
        start_s: float = 0.0,
    ) -> None:
        """Create the temporary file, and the folders on the way to it.

        Args:
            path: Where the file will appear.
            audio_format: How to store samples.
            sample_rate: Samples per second, as ``audio_format.rate_for`` gives it.
            num_channels: Channels of every block to come.
            channel_layout: Which channel is which, in FFmpeg's words; empty if unknown.
            tags: Title, artist and the like; each container keeps what it has a place for.
                ``time_reference`` counts samples at ``sample_rate``.
            start_s: When the first sample belongs on the time line of the recording. A wav
                and a FLAC keep it as ``time_reference``, where an editor finds it.

        Raises:
            AudioError: If the format cannot hold this audio or the file cannot be created.
        """
        audio_format.check_fits(num_channels, sample_rate)
        self.path = path
        self.peak = 0.0
        self.num_samples = 0
        self._format = audio_format
        self._sample_rate = sample_rate
        self._file = PartialFile(path)
        self._encoder: Encoder | None = None
        try:
            self._encoder = open_encoder(
                self._file.create(),
                audio_format,
                sample_rate,
                num_channels,
                channel_layout,
                _placed(tags or {}, audio_format, sample_rate, start_s),
            )
        except _WRITE_ERRORS as error:
            self.discard()
            raise self._file.failure(error) from error
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
        """Append a block of any length; the caller's tensor is left alone.

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
        assert self._encoder is not None, "write after finish"
        try:
            self._encoder.write(block)
        except _WRITE_ERRORS as error:
            raise self._file.failure(error) from error
        self.peak = max(self.peak, peak)
        self.num_samples += len(block)

    def finish(self) -> None:
        """Close the temporary file and check that all of it has arrived on the disk.

        Raises:
            AudioError: If the last samples could not be stored.
        """
        try:
            if self._encoder is not None:
                encoder, self._encoder = self._encoder, None
                encoder.close()
            stored = stored_length(self._file.temporary, self._format)
            if stored != self.num_samples:
                raise OSError(None, "not all samples have arrived on the disk")
            self._file.sync()
        except _WRITE_ERRORS as error:
            raise self._file.failure(error) from error

    def publish(self) -> None:
        """Let the finished file appear under its name, replacing what was there.

        Raises:
            AudioError: If the file cannot be renamed.
        """
        self._file.publish()

    def discard(self) -> None:
        """Leave nothing half-written; does nothing to a published file."""
        if self._encoder is not None:
            encoder, self._encoder = self._encoder, None
            encoder.abandon()
        self._file.discard()


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
    ) as writer:
        writer.write(waveform.samples)


def _placed(
    tags: Mapping[str, str], audio_format: AudioFormat, sample_rate: int, start_s: float
) -> dict[str, str]:
    """Say in ``time_reference`` where the first sample belongs, if that is known.

    The tag of a recording that begins late counts from the beginning of its container.
    Lossy containers have no such tag that anybody reads.
    """
    placed = {key: value for key, value in tags.items() if key.lower() != _REFERENCE}
    if audio_format.is_lossy:
        return placed
    given = next((value for key, value in tags.items() if key.lower() == _REFERENCE), "")
    is_number = _WHOLE_NUMBER.fullmatch(given.strip()) is not None
    if is_number or start_s != 0:
        # It counts samples from midnight on; before that there is nothing.
        begins_at = int(given) if is_number else 0
        placed[_REFERENCE] = str(max(0, begins_at + round(start_s * sample_rate)))
    return placed
