"""The stems of one recording on their way into files: rate, common gain, levels, formats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.meters import Meter
from unbraid.audio import AtomicWriter, AudioFormat, AudioInfo, safe_name
from unbraid.dsp.levels import db_to_gain
from unbraid.dsp.resample import Resampler
from unbraid.errors import AudioError, Cancelled, DiskError

_BYTES_PER_VALUE = 4
#: A peak that was brought to full scale may be above it by a rounding.
_HIGHEST_PEAK = 1 + 1e-6


class StemFiles:
    """Writes stems that arrive in blocks into files of one folder.

    A common gain is known only at the end, so with ``peak_dbfs`` everything waits in a
    temporary file in the folder, as 32-bit floats. Call ``close`` whatever happens.

    Args:
        folder: Where the files are made.
        names: The stems.
        audio_format: How to store them.
        source: The recording, whose layout, tags and start the files keep.
        peak_dbfs: The level that the highest peak of all stems shall have; None to leave
            levels alone.

    Attributes:
        sample_rate: Of the files.
        gain: What all stems were multiplied with; known after ``finish``.
        meters: Levels of the stems before the gain.

    Raises:
        AudioError: If the format cannot hold such stems, or files cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        audio_format: AudioFormat,
        source: AudioInfo,
        peak_dbfs: float | None = None,
    ) -> None:
        self.sample_rate = audio_format.rate_for(source.sample_rate)
        self.gain = 1.0
        self.meters = {name: Meter() for name in names}
        self._source = source
        self._format = audio_format
        self._peak_dbfs = peak_dbfs
        self._resampler = Resampler(source.sample_rate, self.sample_rate)
        self._cleanup = ExitStack()
        self._spool: _Spool | None = None
        try:
            self._renditions = [self._rendition(folder, names, audio_format)]
            if peak_dbfs is not None:
                self._spool = _Spool(folder / "spool", len(names), source.num_channels)
                self._cleanup.callback(self._spool.close)
        except BaseException:
            self.close()
            raise

    def also(
        self, folder: Path, names: Sequence[str], audio_format: AudioFormat
    ) -> dict[str, Path]:
        """Write some of the stems into another folder, in another format.

        Returns:
            Stem name → the file in which it will be after ``finish``.

        Raises:
            AudioError: As for the stems themselves.
        """
        rendition = self._rendition(folder, names, audio_format)
        self._renditions.append(rendition)
        return rendition.files

    @property
    def files(self) -> dict[str, Path]:
        """Stem name → the file in which it is after ``finish``."""
        return self._renditions[0].files

    def write(self, stems: Float[Tensor, "stem channel time"]) -> None:
        """Append a block of all stems, at the recording's rate.

        Raises:
            AudioError: If a sample is not a finite number, or cannot be stored.
        """
        rows = self._resampler.push(stems.flatten(0, 1))
        self._take(rows.unflatten(0, stems.shape[:2]))

    def finish(self, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        """Write what is left, and close the files.

        Raises:
            AudioError: As ``write``.
            Cancelled: If ``is_cancelled`` said so.
        """
        tail = self._resampler.finish()
        if tail is not None:
            self._take(tail.unflatten(0, (len(self.meters), -1)))
        if self._spool is not None:
            highest = max(meter.peak for meter in self.meters.values())
            assert self._peak_dbfs is not None
            self.gain = db_to_gain(self._peak_dbfs) / highest if highest > 0 else 1.0
            for stems in self._spool.blocks():
                if is_cancelled():
                    raise Cancelled("the separation was cancelled.")
                # In float64, because the gain for a faint recording may not fit into float32.
                self._render((stems.double() * self.gain).float())
            self._spool.close()
        for rendition in self._renditions:
            rendition.finish()

    def close(self) -> None:
        """Close everything; files that are not finished are removed."""
        self._cleanup.close()

    def warnings(self) -> Iterator[str]:
        """What the user should know about the files."""
        if self.sample_rate != self._source.sample_rate:
            yield (
                f"{self._format.container} cannot hold {self._source.sample_rate} Hz; the stems "
                f"have {self.sample_rate} Hz. Write --wav or --flac to keep the rate"
            )
        formats = [rendition.audio_format for rendition in self._renditions]
        form = next((form for form in formats if form.subtype != "FLOAT"), None)
        if form is None:
            return
        for name, meter in self.meters.items():
            peak = meter.peak * self.gain
            if peak <= min(_HIGHEST_PEAK, form.highest_peak):
                continue
            text = f"{name} peaks at {20 * math.log10(peak):+.1f} dB of full scale and "
            if form.is_integer:
                text += f"was clipped in {form.subtype}; --float32 keeps it whole, "
            elif peak > form.highest_peak:
                text += f"was turned down there by the encoder of {form.container}; "
            else:
                text += "will be clipped where it is played; "
            yield text + "--peak -1 lowers all stems alike"

    def _take(self, stems: Float[Tensor, "stem channel time"]) -> None:
        if not bool(torch.isfinite(stems).all()):
            raise AudioError(
                "the model gave a sample that is not a finite number, so nothing was written; "
                "please report it."
            )
        for meter, stem in zip(self.meters.values(), stems, strict=True):
            meter.add(stem)
        if self._spool is None:
            self._render(stems)
        else:
            self._spool.append(stems)

    def _render(self, stems: Float[Tensor, "stem channel time"]) -> None:
        for rendition in self._renditions:
            rendition.write(stems)

    def _rendition(
        self, folder: Path, names: Sequence[str], audio_format: AudioFormat
    ) -> _Rendition:
        known = list(self.meters)
        positions = [known.index(name) for name in names]
        rendition = _Rendition(
            folder, names, positions, audio_format, self._source, self.sample_rate
        )
        self._cleanup.callback(rendition.discard)
        return rendition


class _Rendition:
    """Some stems in one format."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        positions: Sequence[int],
        audio_format: AudioFormat,
        source: AudioInfo,
        sample_rate: int,
    ) -> None:
        self.files = {
            name: folder / f"{safe_name(name)}.{audio_format.extension}" for name in names
        }
        self.audio_format = audio_format
        self._positions = positions
        to_rate = audio_format.rate_for(sample_rate)
        self._resampler = Resampler(sample_rate, to_rate)
        self._num_channels = source.num_channels
        self._writers: list[AtomicWriter] = []
        try:
            for file in self.files.values():
                writer = AtomicWriter(
                    file,
                    audio_format,
                    to_rate,
                    source.num_channels,
                    channel_layout=source.channel_layout,
                    tags=source.tags,
                    start_s=source.start_s,
                )
                self._writers.append(writer)
        except BaseException:
            self.discard()
            raise

    def write(self, stems: Float[Tensor, "stem channel time"]) -> None:
        """Append a block of all stems, of which only some are meant."""
        self._write_rows(self._resampler.push(stems[self._positions].flatten(0, 1)))

    def finish(self) -> None:
        """Write what is left, close the files, and let them appear in their folder."""
        tail = self._resampler.finish()
        if tail is not None:
            self._write_rows(tail)
        for writer in self._writers:
            writer.finish()
        for writer in self._writers:
            writer.publish()

    def discard(self) -> None:
        """Remove what is not finished."""
        for writer in self._writers:
            writer.discard()

    def _write_rows(self, rows: Float[Tensor, "row time"]) -> None:
        stems = rows.unflatten(0, (len(self._writers), self._num_channels))
        for writer, stem in zip(self._writers, stems, strict=True):
            writer.write(stem)


class _Spool:
    """Blocks of stems that wait on the disk until the gain is known."""

    def __init__(self, path: Path, num_stems: int, num_channels: int) -> None:
        self._shape = (num_stems, num_channels)
        self._lengths: list[int] = []
        self._path = path
        try:
            self._file = path.open("w+b")
        except OSError as error:
            raise self._failure(error) from error

    def append(self, stems: Float[Tensor, "stem channel time"]) -> None:
        """Put a block at the end."""
        try:
            self._file.write(stems.contiguous().numpy().tobytes())
        except OSError as error:
            raise self._failure(error) from error
        self._lengths.append(stems.shape[-1])

    def blocks(self) -> Iterator[Float[Tensor, "stem channel time"]]:
        """All blocks, from the beginning."""
        try:
            self._file.seek(0)
            for length in self._lengths:
                num_bytes = math.prod(self._shape) * length * _BYTES_PER_VALUE
                content = bytearray(self._file.read(num_bytes))
                if len(content) < num_bytes:
                    raise OSError(None, "not all samples have arrived on the disk")
                if length:
                    stored = torch.frombuffer(content, dtype=torch.float32)
                    yield stored.reshape(*self._shape, length)
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _failure(self, error: OSError) -> AudioError:
        return DiskError(
            f"{self._path}: cannot be written ({error.strerror}); choose another folder with "
            "--out or make room."
        )
