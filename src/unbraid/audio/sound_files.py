"""Sound files through libsndfile: wav, w64, rf64, flac, aiff, au, caf and more.

libsndfile knows to the sample how long these are, keeps every bit of them, and notices
where they are damaged. What can hold several tracks, and mp3, is read by ``media``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from unbraid.audio.info import AudioInfo, cut_short
from unbraid.audio.limits import block_length
from unbraid.audio.media import CannotOpenError, describe_container
from unbraid.errors import AudioError

# libsndfile's answer for a stream whose header does not say how long it is.
_UNKNOWN_LENGTH = 2**63 - 1
_SEEK_FAILED = 39
# Programs that write a wav into a pipe put a size near one of these limits in the header.
_SMALLEST_PLACEHOLDER_SIZE = 0x7FFF_0000
_UNRECOGNISED_FORMAT = 1
# wav, rf64, w64, flac, aiff, au, caf.
_BEGINNINGS = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"FORM", b".snd", b"dns.", b"caff")


def is_for_libsndfile(head: bytes) -> bool:
    """Say from a file's first bytes whether libsndfile should have the first try.

    libsndfile would read ogg and mp3 as well, but of several pieces joined together it reads
    the first, and its mp3 decoder prints to the terminal.
    """
    return head.startswith(_BEGINNINGS)


class SoundFileReader:
    """One open file; its samples can be asked for once.

    Attributes:
        sample_rate: Samples per second, as the header says it.
        num_channels: Channels, as the header says it.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path``.

        Raises:
            CannotOpenError: If libsndfile does not take it.
        """
        try:
            self._file = soundfile.SoundFile(path)
        except soundfile.LibsndfileError as error:
            is_foreign = error.code == _UNRECOGNISED_FORMAT
            raise CannotOpenError("" if is_foreign else _reason(error)) from error
        # A name that ends in .raw makes soundfile ask for the rate with a TypeError.
        except TypeError as error:
            raise CannotOpenError("") from error
        self._path = path
        self.sample_rate = int(self._file.samplerate)
        self.num_channels = int(self._file.channels)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def info(self) -> AudioInfo:
        """Say what the file holds; decodes it if its header does not say how long it is."""
        num_samples = int(self._file.frames)
        if num_samples == _UNKNOWN_LENGTH:
            length = block_length(1.0, self.sample_rate, self.num_channels)
            num_samples = sum(len(block) for block in self.blocks(length))
        facts = describe_container(self._path, self.num_channels)
        return AudioInfo(
            sample_rate=self.sample_rate,
            num_channels=self.num_channels,
            num_samples=num_samples,
            format=str(self._file.format),
            subtype=str(self._file.subtype),
            channel_layout=facts.channel_layout,
            tags=facts.tags,
            warnings=self._shortage(num_samples),
        )

    def blocks(self, block_length: int) -> Iterator[np.ndarray]:
        """Yield float32 blocks ``[time, channel]`` to the end of the file.

        Raises:
            AudioError: With the time, if the decoder gives up or the file ends early.
        """
        promised = int(self._file.frames)
        done = 0
        while True:
            block = np.empty((block_length, self.num_channels), dtype=np.float32)
            try:
                num_read = self._read_into(block)
            except soundfile.LibsndfileError as error:
                raise self._damaged(done, error) from error
            done += num_read
            if num_read:
                yield block[:num_read]
            if num_read < block_length:
                break
        if promised != _UNKNOWN_LENGTH and done < promised:
            raise AudioError(
                f"{self._path}: breaks off at {done / self.sample_rate:.2f} s although its "
                f"header says {promised / self.sample_rate:.2f} s; repair the file or fetch "
                "it again."
            )

    def span(self, first: int, count: int) -> np.ndarray | None:
        """Samples ``[time, channel]`` of the middle; None where the length is not known.

        Fewer than ``count`` where the file ends.

        Raises:
            AudioError: If the decoder gives up.
        """
        if self._file.frames == _UNKNOWN_LENGTH:
            return None
        try:
            self._file.seek(min(first, self._file.frames))
            return self._file.read(count, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise self._damaged(first, error) from error

    def _damaged(self, position: int, error: soundfile.LibsndfileError) -> AudioError:
        return AudioError(
            f"{self._path}: damaged at about {position / self.sample_rate:.2f} s "
            f"({_reason(error)}); repair the file or fetch it again."
        )

    def _read_into(self, block: np.ndarray) -> int:
        """Fill ``block`` from the file; return how many samples per channel were there.

        After each read soundfile seeks to where it stands. At the end of a stream of unknown
        length that seek fails, although the samples have been delivered; only formats of
        whole numbers come without a length, so NaN can mark what was not delivered.
        """
        if self._file.frames != _UNKNOWN_LENGTH:
            return len(self._file.read(out=block))
        block.fill(np.nan)
        try:
            return len(self._file.read(out=block))
        except soundfile.LibsndfileError as error:
            if error.code != _SEEK_FAILED:
                raise
            return int(np.count_nonzero(~np.isnan(block[:, 0])))

    def _shortage(self, num_samples: int) -> tuple[str, ...]:
        """Warn of a wav whose header promises more bytes than the file has."""
        found = re.search(r"^data : (\d+) \(should be (\d+)\)", self._file.extra_info, re.MULTILINE)
        if found is None:
            return ()
        promised, actual = int(found[1]), int(found[2])
        if not actual < promised < _SMALLEST_PLACEHOLDER_SIZE:
            return ()
        actual_s = num_samples / self.sample_rate
        return (cut_short(promised / max(actual, 1) * actual_s, actual_s),)


def _reason(error: soundfile.LibsndfileError) -> str:
    """Libsndfile's own words on one line, without the path it repeats."""
    return " ".join(str(error.error_string).split()).removeprefix("Error : ").rstrip(".")
