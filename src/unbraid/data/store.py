"""Decoded recordings on disk, read at random without decoding again.

Recordings are decoded once, brought to one rate and number of channels, and kept as 16-bit samples
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
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int16
from torch import Tensor

from unbraid.audio.decode import read
from unbraid.data.unreadable import MAX_UNREADABLE, UnreadableClips
from unbraid.downloads import try_lock
from unbraid.dsp.resample import resample
from unbraid.errors import AudioError
from unbraid.mixing.recipe import ACTIVE_BLOCK_S

#: A block counts as active above this level, and above this far below its recording's loudest.
_ACTIVE_DBFS = -50.0
_ACTIVE_BELOW_LOUDEST_DB = 35.0

_PATIENCE_WITH_OTHERS_S = 0.2


@runtime_checkable
class Stored(Protocol):
    """What a store needs to know of a recording: a row of a manifest, or a track of a mixture."""

    @property
    def key(self) -> str:
        """What tells it from all others in the store."""

    @property
    def path(self) -> str:
        """Relative to the store's root."""

    @property
    def track(self) -> int | None:
        """Which audio track of a file that has several, from 1."""


@dataclass(frozen=True)
class StoredClip:
    """Where a recording lies in the store; offset and length count samples of all channels."""

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
        num_channels: How many channels to hold: the first ones of each recording. One that has
            fewer is put on all.

    Attributes:
        unreadable: The recordings that were left out.

    Raises:
        DataError: If more cannot be read.
    """

    def __init__(
        self,
        root: Path,
        recordings: Sequence[Stored],
        sample_rate: int,
        cache_dir: Path,
        max_unreadable: float = MAX_UNREADABLE,
        num_channels: int = 1,
    ) -> None:
        self.sample_rate = sample_rate
        self.num_channels = num_channels
        self.unreadable = UnreadableClips((row.key for row in recordings), max_unreadable)
        facts = [[recording.key, size_bytes(root / recording.path)] for recording in recordings]
        # Corpora that are made of each other have files of one name and size in different folders.
        what = [str(root.resolve()), sample_rate, num_channels, facts]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
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

    def active_s(self, key: str) -> tuple[float, ...]:
        """Starts of the stretches of a recording that are not silent."""
        return self._index[key].active_s

    def is_silent(self, key: str) -> bool:
        """Whether a recording has no sound at all."""
        return self._index[key].peak == 0.0

    def num_samples(self, key: str) -> int:
        """Length of a recording at the store's rate."""
        return self._index[key].length // self.num_channels

    def read(self, key: str, start: int, count: int) -> Float[Tensor, "*channel time"]:
        """Samples of a recording; zeros before its beginning and after its end.

        Without an axis for channels where the store holds one.
        """
        clip, channels = self._index[key], self.num_channels
        first, last = max(0, start), min(self.num_samples(key), start + count)
        output = torch.zeros(channels, count)
        if last > first:
            begin = clip.offset + first * channels
            block = np.asarray(self._samples[begin : begin + (last - first) * channels])
            samples = torch.from_numpy(block.astype(np.float32)).unflatten(0, (-1, channels)).T
            output[:, first - start : last - start] = samples * (clip.peak / 32767.0)
        return output if channels > 1 else output[0]

    def _mapped(self) -> np.ndarray:
        # An empty file cannot be mapped.
        if not self._samples_path.stat().st_size:
            return np.zeros(0, np.int16)
        return np.memmap(self._samples_path, dtype=np.int16, mode="r")

    def _decode_all(self, root: Path, recordings: Sequence[Stored], index_path: Path) -> None:
        """Decode every recording into one file; unreadable ones are counted and left out."""
        index = {}
        offset = 0
        token = secrets.token_hex(4)
        part = self._samples_path.with_suffix(f".{token}.part")
        try:
            with part.open("wb") as file:
                for recording in recordings:
                    try:
                        samples = read_channels(
                            root / recording.path,
                            recording.track,
                            self.sample_rate,
                            self.num_channels,
                        )
                    except AudioError as error:
                        self.unreadable.note(recording.key, str(error))
                        continue
                    scaled, peak = to_int16(samples)
                    file.write(scaled.T.contiguous().numpy().tobytes())
                    active = active_blocks(samples, self.sample_rate)
                    index[recording.key] = StoredClip(offset, samples.numel(), peak, active)
                    offset += samples.numel()
            part.rename(self._samples_path)
        finally:
            part.unlink(missing_ok=True)
        written = index_path.with_suffix(f".{token}.part")
        written.write_text(
            json.dumps({key: asdict(clip) for key, clip in index.items()}), encoding="utf-8"
        )
        written.rename(index_path)


def read_channels(
    path: Path, track: int | None, sample_rate: int, num_channels: int
) -> Float[Tensor, "channel time"]:
    """A whole recording at a rate; its first channels, or one of fewer on all of them.

    Where one is wanted, the papers take the first: a mean can cancel.

    Raises:
        AudioError: If it cannot be read.
    """
    waveform = read(path, track)
    channels = waveform.samples[:num_channels]
    if len(channels) < num_channels:
        channels = channels[:1].expand(num_channels, -1)
    return resample(channels, waveform.sample_rate, sample_rate)


def to_int16(
    samples: Float[Tensor, "*channel time"],
) -> tuple[Int16[Tensor, "*channel time"], float]:
    """Samples scaled to their own peak and rounded, and that peak; silence stays zero."""
    peak = float(samples.abs().max()) if samples.numel() else 0.0
    scaled = samples * (32767.0 / peak) if peak > 0 else samples
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


def active_blocks(samples: Float[Tensor, "*channel time"], sample_rate: int) -> tuple[float, ...]:
    """Starts in seconds of the blocks that are loud enough to be worth separating."""
    meter = ActivityMeter(sample_rate)
    meter.push(samples.reshape(-1, samples.shape[-1]) if samples.numel() else torch.zeros(1, 0))
    return meter.active_s()


class ActivityMeter:
    """Tells which blocks of a stream are loud enough to be worth separating.

    Args:
        sample_rate: Of the stream.
    """

    def __init__(self, sample_rate: int) -> None:
        self._block = round(ACTIVE_BLOCK_S * sample_rate)
        self._powers: list[Tensor] = []
        self._rest: Tensor | None = None

    def push(self, samples: Float[Tensor, "channel time"]) -> None:
        """Take the next samples."""
        if self._rest is not None:
            samples = torch.cat([self._rest, samples], dim=1)
        whole = samples.shape[1] - samples.shape[1] % self._block
        self._powers.append(self._powers_of(samples[:, :whole]))
        self._rest = samples[:, whole:].clone()

    def active_s(self) -> tuple[float, ...]:
        """Starts in seconds of the loud blocks of all that was pushed."""
        rest = self._rest if self._rest is not None else torch.zeros(1, 0)
        padded = torch.nn.functional.pad(rest, (0, -rest.shape[1] % self._block))
        power = torch.cat([*self._powers, self._powers_of(padded)])
        levels = 10.0 * torch.log10(power + 1e-12)
        if levels.numel() == 0:
            return ()
        threshold = max(_ACTIVE_DBFS, float(levels.max()) - _ACTIVE_BELOW_LOUDEST_DB)
        return tuple((levels >= threshold).nonzero().flatten().mul(ACTIVE_BLOCK_S).tolist())

    def _powers_of(self, samples: Float[Tensor, "channel time"]) -> Float[Tensor, "block"]:
        return samples.unflatten(1, (-1, self._block)).square().mean(dim=(0, 2))
