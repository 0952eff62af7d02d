"""Packed corpora: recordings in a few large files, each of which can be read at any sample.

A packed corpus is a folder, on a disk or behind an address::

    index.jsonl         a first line about the whole, then a line for each recording
    shard-000000.tar    recordings side by side, in the layout of WebDataset:
                            00000042.flac    mono samples of 16 bits, scaled to their own peak
                            00000042.json    what the index says of it
    shard-000001.tar    …

The index says at which byte of which shard a recording begins, and in it each frame group, so
that a crop is one read of the bytes that it needs. The member of the tar is an ordinary FLAC or
WAV file; multiplied by its ``peak``, it has the recording's level.
"""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.audio.flac_frames import FRAME_SAMPLES, decode_flac_frames, encode_flac
from unbraid.data.access import read_resampled
from unbraid.data.manifest import Recording
from unbraid.data.ranges import Ranges, open_ranges
from unbraid.data.unreadable import MAX_UNREADABLE, UnreadableClips
from unbraid.errors import AudioError, DataError, DownloadError, UnreadableClip
from unbraid.mixing.recipe import ACTIVE_BLOCK_S

INDEX_NAME = "index.jsonl"

#: How samples are stored: 16 bits compressed without loss, or as they are, in a WAV file.
ShardFormat: TypeAlias = Literal["flac", "int16"]
EXTENSIONS: Mapping[ShardFormat, str] = {"flac": "flac", "int16": "wav"}

_VERSION = 1
_WAV_HEADER_BYTES = 44
_SAMPLE_BYTES = 2


@dataclass(frozen=True)
class PackedClip:
    """Where a recording lies in a packed corpus.

    Attributes:
        name: Of its files in the shard, without extension.
        recording: What the manifest said of it.
        shard: The file that holds it.
        offset: Its first byte there.
        num_bytes: How long it is.
        sample_rate: Of its samples.
        num_samples: How many there are.
        peak: Level of full scale.
        active_s: Starts of the stretches that are not silent.
        groups: In FLAC, the bytes at which groups of ``group_frames`` frames begin.
        group_frames: How many frames are in a group.
        sha256: Digest of its bytes.
    """

    name: str
    recording: Recording
    shard: str
    offset: int
    num_bytes: int
    sample_rate: int
    num_samples: int
    peak: float
    active_s: tuple[float, ...]
    groups: tuple[int, ...]
    group_frames: int
    sha256: str

    def line(self) -> dict[str, Any]:
        """What the index says of it; neighbouring active stretches are joined."""
        fields = {**asdict(self), "active_spans_s": _spans(self.active_s)}
        del fields["active_s"]
        return fields

    @staticmethod
    def from_line(fields: Mapping[str, Any]) -> PackedClip:
        """Read what ``line`` made."""
        fields = dict(fields)
        recording = dict(fields.pop("recording"))
        recording["pieces_s"] = tuple(recording["pieces_s"])
        spans = fields.pop("active_spans_s")
        fields["groups"] = tuple(fields["groups"])
        return PackedClip(
            **fields, recording=Recording(**recording), active_s=tuple(_starts(spans))
        )


@dataclass(frozen=True)
class PackedCorpus:
    """An open packed corpus.

    Attributes:
        where: Its folder or address.
        ranges: Reads its files.
        shards: Name of each shard → its length in bytes.
        clips: Its recordings.
        storage: How their samples are stored.
    """

    where: str
    ranges: Ranges
    shards: Mapping[str, int]
    clips: tuple[PackedClip, ...]
    storage: ShardFormat


def open_packed(where: str, base: Path = Path()) -> PackedCorpus:
    """Read the index of a packed corpus.

    Args:
        where: Its folder, or its address as ``ranges.open_ranges`` knows it.
        base: What a relative folder is relative to.

    Raises:
        DataError: If there is no such corpus, its index is damaged, or its place gives no parts
            of files.
        MissingExtra: If a package is missing that knows such an address.
    """
    ranges = open_ranges(where, base)
    try:
        text = ranges.read_whole(INDEX_NAME).decode()
    except (DownloadError, UnicodeDecodeError) as error:
        raise DataError(
            f"{where}: no packed corpus ({error}) Name what `unbraid data pack` wrote."
        ) from error
    try:
        head, *lines = map(json.loads, text.splitlines())
        if head["version"] != _VERSION:
            raise DataError(
                f"{where}: was packed by another version of unbraid (its layout is "
                f"{head['version']}, {_VERSION} can be read here); pack it again."
            )
        corpus = PackedCorpus(
            where,
            ranges,
            dict(head["shards"]),
            tuple(map(PackedClip.from_line, lines)),
            head["format"],
        )
        if len(lines) != head["num_recordings"]:
            raise ValueError(f"{len(lines)} of {head['num_recordings']} recordings are listed")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{where}/{INDEX_NAME}: is damaged ({error}); fetch it again, or pack the corpus again."
        ) from error
    return corpus


def index_text(shards: Mapping[str, int], clips: Sequence[PackedClip], storage: ShardFormat) -> str:
    """The index of a packed corpus, as ``open_packed`` reads it."""
    head = {
        "version": _VERSION,
        "format": storage,
        "num_recordings": len(clips),
        "shards": dict(shards),
    }
    return "".join(f"{json.dumps(line)}\n" for line in (head, *(clip.line() for clip in clips)))


def encode(
    samples: np.ndarray, sample_rate: int, storage: ShardFormat
) -> tuple[bytes, tuple[int, ...], int]:
    """The file of a recording in a shard.

    Args:
        samples: 16-bit samples ``[time]``.
        sample_rate: Their rate.
        storage: How to store them.

    Returns:
        The file; the bytes at which groups of frames begin, about one a second; and how many
        frames a group has. No groups where every sample can be found by counting.

    Raises:
        AudioError: If FLAC cannot hold the rate.
    """
    if storage == "flac":
        content, frames = encode_flac(samples, sample_rate)
        group_frames = max(1, round(sample_rate / FRAME_SAMPLES))
        return content, frames[::group_frames], group_frames
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, _SAMPLE_BYTES, sample_rate, len(samples), "NONE", ""))
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue(), (), 0


class ShardClips:
    """Random access to the recordings of a packed corpus.

    Args:
        corpus: The corpus.
        recordings: Which of its recordings to read.
        sample_rate: The rate to read them at; crops of other ones are resampled.
        max_unreadable: How large a share of the recordings may be unreadable.
    """

    def __init__(
        self,
        corpus: PackedCorpus,
        recordings: Sequence[Recording],
        sample_rate: int,
        max_unreadable: float = MAX_UNREADABLE,
    ) -> None:
        self.sample_rate = sample_rate
        self.unreadable = UnreadableClips((row.key for row in recordings), max_unreadable)
        wanted = {row.key for row in recordings}
        self._clips = {
            clip.recording.key: clip for clip in corpus.clips if clip.recording.key in wanted
        }
        self._where = corpus.where
        self._ranges = corpus.ranges
        self._shards = corpus.shards

    def __contains__(self, key: str) -> bool:
        return key in self._clips

    def active_s(self, key: str) -> tuple[float, ...]:
        """Starts of the stretches of a recording that are not silent."""
        return self._clips[key].active_s

    def read(self, key: str, start: int, count: int) -> Float[Tensor, "time"]:
        """Samples of a recording; zeros before its beginning and after its end.

        Raises:
            UnreadableClip: If its bytes cannot be had, or are damaged.
            DataError: If that makes too many of them.
        """
        clip = self._clips[key]

        def read(first: int, num_samples: int) -> Float[Tensor, "time"]:
            samples = self._samples(clip, first, num_samples).astype(np.float32)
            return torch.from_numpy(samples) * (clip.peak / 32767.0)

        try:
            return read_resampled(
                read, clip.num_samples, clip.sample_rate, self.sample_rate, start, count
            )
        except (DownloadError, AudioError) as error:
            reason = f"{key} in {self._where}/{clip.shard}: {error}"
            self.unreadable.note(key, reason)
            raise UnreadableClip(reason) from error

    def _samples(self, clip: PackedClip, first: int, count: int) -> np.ndarray:
        """16-bit samples ``[time]`` of what is stored."""
        if not clip.groups:
            begin = _WAV_HEADER_BYTES + _SAMPLE_BYTES * first
            content = self._bytes(clip, begin, begin + _SAMPLE_BYTES * count)
            return np.frombuffer(content, dtype="<i2")
        group_samples = clip.group_frames * FRAME_SAMPLES
        begin_group = first // group_samples
        end_group = -(-(first + count) // group_samples)
        ends = (*clip.groups, clip.num_bytes)
        content = self._bytes(clip, clip.groups[begin_group], ends[end_group])
        position = begin_group * group_samples
        there = min(end_group * group_samples, clip.num_samples) - position
        samples = decode_flac_frames(content, there, clip.sample_rate)
        return samples[first - position : first - position + count]

    def _bytes(self, clip: PackedClip, begin: int, end: int) -> bytes:
        return self._ranges.read(
            clip.shard, clip.offset + begin, end - begin, self._shards[clip.shard]
        )


def _spans(starts: Iterable[float]) -> list[tuple[float, float]]:
    """Stretches of ``ACTIVE_BLOCK_S``, those that follow each other joined."""
    spans: list[tuple[float, float]] = []
    for start in starts:
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], start + ACTIVE_BLOCK_S)
        else:
            spans.append((start, start + ACTIVE_BLOCK_S))
    return spans


def _starts(spans: Iterable[Sequence[float]]) -> list[float]:
    return [
        begin + number * ACTIVE_BLOCK_S
        for begin, end in spans
        for number in range(round((end - begin) / ACTIVE_BLOCK_S))
    ]
