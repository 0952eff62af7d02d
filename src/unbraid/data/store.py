"""Decoded recordings on disk, read at random without decoding again.

Recordings are decoded once, brought to one rate and mono, and kept as 16-bit samples
scaled to the recording's own peak in one file that is mapped into memory. A cache, not a
data set: it can be deleted at any time and is rebuilt when its recordings change.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int16
from torch import Tensor

from unbraid.audio.decode import read
from unbraid.data.manifest import Recording
from unbraid.data.unreadable import MAX_UNREADABLE, UnreadableClips
from unbraid.downloads import try_lock
from unbraid.dsp.resample import resample
from unbraid.errors import AudioError
from unbraid.mixing.recipe import ACTIVE_BLOCK_S

#: A block counts as active above this level, and above this far below its recording's loudest.
_ACTIVE_DBFS = -50.0
_ACTIVE_BELOW_LOUDEST_DB = 35.0

_PATIENCE_WITH_OTHERS_S = 0.2


@dataclass(frozen=True)
class StoredClip:
    """Where a recording lies in the store."""

    offset: int
    length: int
    peak: float
    active_s: tuple[float, ...]


class ClipStore:
    """Random access to decoded recordings.

    Several processes may open one: the first one decodes, the others wait for it.

    Args:
        root: Folder that the recordings' paths are relative to.
        recordings: What to hold.
        sample_rate: The rate to hold it at.
        cache_dir: Where the decoded samples are kept.
        max_unreadable: How large a share of the recordings may be unreadable. They are left out.
        channel: Which channel to hold; of recordings with fewer, the last one.

    Attributes:
        unreadable: The recordings that were left out.

    Raises:
        DataError: If more cannot be read.
    """

    def __init__(
        self,
        root: Path,
        recordings: Sequence[Recording],
        sample_rate: int,
        cache_dir: Path,
        max_unreadable: float = MAX_UNREADABLE,
        *,
        channel: int = 0,
    ) -> None:
        self.sample_rate = sample_rate
        self._channel = channel
        self.unreadable = UnreadableClips((row.key for row in recordings), max_unreadable)
        facts = [[recording.key, size_bytes(root / recording.path)] for recording in recordings]
        # Stores of the first channel have kept their names since there were no others.
        wanted = [sample_rate, facts, channel] if channel else [sample_rate, facts]
        key = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]
        self._samples_path = cache_dir / f"clips-{key}.i16"
        index_path = cache_dir / f"clips-{key}.json"
        if not index_path.is_file():
            cache_dir.mkdir(parents=True, exist_ok=True)
            with alone(cache_dir / f"clips-{key}.lock"):
                if not index_path.is_file():
                    self._decode_all(root, recordings, index_path)
        entries = json.loads(index_path.read_text(encoding="utf-8"))
        for recording in recordings:
            if recording.key not in entries:
                self.unreadable.note(
                    recording.key,
                    f"{root / recording.path}: could not be read when the cache was made.",
                )
        self._index = {
            key: StoredClip(**{**entry, "active_s": tuple(entry["active_s"])})
            for key, entry in entries.items()
        }
        self._samples = self._mapped()

    def __getstate__(self) -> dict[str, object]:
        # A map would be copied to a worker that is not forked, sample by sample.
        return {name: value for name, value in self.__dict__.items() if name != "_samples"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._samples = self._mapped()

    def __contains__(self, key: str) -> bool:
        return key in self._index

    @property
    def keys(self) -> tuple[str, ...]:
        """All recordings that it holds."""
        return tuple(self._index)

    def num_samples(self, key: str) -> int:
        """Length of a recording."""
        return self._index[key].length

    def active_s(self, key: str) -> tuple[float, ...]:
        """Starts of the stretches of a recording that are not silent."""
        return self._index[key].active_s

    def is_silent(self, key: str) -> bool:
        """Whether a recording has no sound at all."""
        return self._index[key].peak == 0.0

    def read(self, key: str, start: int, count: int) -> Float[Tensor, "time"]:
        """Samples of a recording; zeros before its beginning and after its end."""
        clip = self._index[key]
        first, last = max(0, start), min(clip.length, start + count)
        output = torch.zeros(count)
        if last > first:
            block = np.asarray(self._samples[clip.offset + first : clip.offset + last])
            samples = torch.from_numpy(block.astype(np.float32))
            output[first - start : last - start] = samples * (clip.peak / 32767.0)
        return output

    def _mapped(self) -> np.ndarray:
        # An empty file cannot be mapped.
        if not self._samples_path.stat().st_size:
            return np.zeros(0, np.int16)
        return np.memmap(self._samples_path, dtype=np.int16, mode="r")

    def _decode_all(self, root: Path, recordings: Sequence[Recording], index_path: Path) -> None:
        """Decode every recording into one file; unreadable ones are counted and left out."""
        index = {}
        offset = 0
        token = secrets.token_hex(4)
        part = self._samples_path.with_suffix(f".{token}.part")
        try:
            with part.open("wb") as file:
                for recording in recordings:
                    try:
                        mono = read_channel(
                            root / recording.path,
                            recording.track,
                            self.sample_rate,
                            self._channel,
                        )
                    except AudioError as error:
                        self.unreadable.note(recording.key, str(error))
                        continue
                    scaled, peak = to_int16(mono)
                    file.write(scaled.numpy().tobytes())
                    active = active_blocks(mono, self.sample_rate)
                    index[recording.key] = StoredClip(offset, mono.numel(), peak, active)
                    offset += mono.numel()
            part.rename(self._samples_path)
        finally:
            part.unlink(missing_ok=True)
        written = index_path.with_suffix(f".{token}.part")
        written.write_text(
            json.dumps({key: asdict(clip) for key, clip in index.items()}), encoding="utf-8"
        )
        written.rename(index_path)


def read_channel(
    path: Path, track: int | None, sample_rate: int, channel: int
) -> Float[Tensor, "time"]:
    """One channel of a whole recording at a rate; the papers take the first: a mean can cancel.

    Of a recording with fewer channels the last one is read.

    Raises:
        AudioError: If it cannot be read.
    """
    waveform = read(path, track)
    row = min(channel, waveform.num_channels - 1)
    return resample(waveform.samples[row : row + 1], waveform.sample_rate, sample_rate)[0]


def to_int16(mono: Float[Tensor, "time"]) -> tuple[Int16[Tensor, "time"], float]:
    """Samples scaled to their own peak and rounded, and that peak; silence stays zero."""
    peak = float(mono.abs().max()) if mono.numel() else 0.0
    scaled = mono * (32767.0 / peak) if peak > 0 else mono
    return scaled.round().to(torch.int16), peak


def size_bytes(path: Path) -> int | None:
    """How long a file is; None for one that is not there, which is unreadable."""
    try:
        return path.stat().st_size
    except OSError:
        return None


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process is at it: the ranks of a machine start together."""
    with lock.open("ab") as file:
        while not try_lock(file):
            time.sleep(_PATIENCE_WITH_OTHERS_S)
        yield


def active_blocks(mono: Float[Tensor, "time"], sample_rate: int) -> tuple[float, ...]:
    """Starts in seconds of the blocks that are loud enough to be worth separating."""
    block = round(ACTIVE_BLOCK_S * sample_rate)
    padded = torch.nn.functional.pad(mono, (0, -mono.numel() % block))
    power = padded.unflatten(0, (-1, block)).square().mean(dim=-1) if mono.numel() else mono
    levels = 10.0 * torch.log10(power + 1e-12)
    if levels.numel() == 0:
        return ()
    threshold = max(_ACTIVE_DBFS, float(levels.max()) - _ACTIVE_BELOW_LOUDEST_DB)
    return tuple((levels >= threshold).nonzero().flatten().mul(ACTIVE_BLOCK_S).tolist())
