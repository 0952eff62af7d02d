"""Decoded recordings on disk, read at random without decoding again.

Recordings are decoded once, brought to one rate and mono, and kept as 16-bit samples
scaled to the recording's own peak in one file that is mapped into memory. A cache, not a
data set: it can be deleted at any time and is rebuilt when its recordings change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor

from unbraid.audio.decode import read
from unbraid.data.manifest import Recording
from unbraid.dsp.resample import resample
from unbraid.errors import AudioError, DataError
from unbraid.mixing.recipe import ACTIVE_BLOCK_S

#: A block counts as active above this level, and above this far below its recording's loudest.
_ACTIVE_DBFS = -50.0
_ACTIVE_BELOW_LOUDEST_DB = 35.0

#: More unreadable recordings than this share of all is no accident.
_MAX_UNREADABLE = 0.01


@dataclass(frozen=True)
class StoredClip:
    """Where a recording lies in the store."""

    offset: int
    length: int
    peak: float
    active_s: tuple[float, ...]


class ClipStore:
    """Random access to decoded recordings.

    Args:
        root: Folder that the recordings' paths are relative to.
        recordings: What to hold.
        sample_rate: The rate to hold it at.
        cache_dir: Where the decoded samples are kept.

    Raises:
        DataError: If more than one recording in a hundred cannot be read.
    """

    def __init__(
        self, root: Path, recordings: Sequence[Recording], sample_rate: int, cache_dir: Path
    ) -> None:
        self.sample_rate = sample_rate
        facts = [[recording.key, _size(root / recording.path)] for recording in recordings]
        key = hashlib.sha256(json.dumps([sample_rate, facts]).encode()).hexdigest()[:16]
        samples_path = cache_dir / f"clips-{key}.i16"
        index_path = cache_dir / f"clips-{key}.json"
        if not index_path.is_file():
            cache_dir.mkdir(parents=True, exist_ok=True)
            # The processes of a run on several devices all get here: one decodes, others wait.
            with FileLock(index_path.with_suffix(".lock")):
                if not index_path.is_file():
                    index = _decode_all(root, recordings, sample_rate, samples_path)
                    _write_index(index, index_path)
        entries = json.loads(index_path.read_text(encoding="utf-8"))
        self._index = {
            key: StoredClip(**{**entry, "active_s": tuple(entry["active_s"])})
            for key, entry in entries.items()
        }
        # An empty file cannot be mapped.
        self._samples: np.ndarray = (
            np.memmap(samples_path, dtype=np.int16, mode="r")
            if samples_path.stat().st_size
            else np.zeros(0, np.int16)
        )

    def __contains__(self, key: str) -> bool:
        return key in self._index

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


def _write_index(index: Mapping[str, StoredClip], path: Path) -> None:
    written = path.with_suffix(".part")
    written.write_text(
        json.dumps({key: asdict(clip) for key, clip in index.items()}), encoding="utf-8"
    )
    written.rename(path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(
            f"{path}: the manifest names this file, but it cannot be read ({error.strerror})."
        ) from error


def _decode_all(
    root: Path, recordings: Sequence[Recording], sample_rate: int, samples_path: Path
) -> dict[str, StoredClip]:
    """Decode every recording into one file; unreadable ones are counted and left out."""
    index = {}
    unreadable: list[str] = []
    offset = 0
    part = samples_path.with_suffix(".part")
    with part.open("wb") as file:
        for recording in recordings:
            try:
                waveform = read(root / recording.path, recording.track)
            except AudioError as error:
                unreadable.append(str(error))
                continue
            # The first channel, as the papers do: a mean of channels can cancel.
            mono = resample(waveform.samples[:1], waveform.sample_rate, sample_rate)[0]
            peak = float(mono.abs().max()) if mono.numel() else 0.0
            scaled = mono * (32767.0 / peak) if peak > 0 else mono
            file.write(scaled.round().to(torch.int16).numpy().tobytes())
            active = active_blocks(mono, sample_rate)
            index[recording.key] = StoredClip(offset, mono.numel(), peak, active)
            offset += mono.numel()
    if len(unreadable) > _MAX_UNREADABLE * len(recordings):
        raise DataError(
            f"{len(unreadable)} of {len(recordings)} recordings cannot be read; the first: "
            f"{unreadable[0]}"
        )
    part.rename(samples_path)
    return index


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
