"""Pack a corpus into shards for training: decoded, brought to one rate, readable at any sample.

A shard appears under its name when it is whole, and beside it a list of what is in it; the index
of all is written last, and the lists are removed. So a run that is stopped goes on at the shard
in which it was, and in the end the files are those of a run that was not stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from unbraid.apps.whole_files import write_whole
from unbraid.audio.decode import read
from unbraid.data.manifest import Recording, read_manifest
from unbraid.data.shards import (
    EXTENSIONS,
    INDEX_NAME,
    PackedClip,
    ShardFormat,
    encode,
    index_text,
    open_packed,
)
from unbraid.data.store import active_blocks, alone, to_int16
from unbraid.data.unreadable import MAX_UNREADABLE, UnreadableClips
from unbraid.dsp.resample import resample
from unbraid.errors import AudioError, ConfigError, DataError, in_brief
from unbraid.types import Step, StepCallback

_SETTINGS_NAME = "pack.json"
_LOCK_NAME = ".lock"
_MIB = 2**20
_TAR_BLOCK_BYTES = 512
#: So many recordings per process are made ahead of the one that is written.
_AHEAD = 4
_SMALLEST_RATE = 1000


@dataclass(frozen=True)
class PackSettings:
    """What decides the content of the shards.

    Attributes:
        sample_rate: Of all recordings; None to leave each at its own.
        shard_mb: Size in MiB from which on a new shard is begun.
        storage: How samples are stored.
    """

    sample_rate: int | None = None
    shard_mb: int = 512
    storage: ShardFormat = "flac"

    def __post_init__(self) -> None:
        if self.sample_rate is not None and self.sample_rate < _SMALLEST_RATE:
            raise ConfigError(
                f"--sample-rate {self.sample_rate}: must be at least {_SMALLEST_RATE}, in Hz."
            )
        if self.shard_mb < 1:
            raise ConfigError(f"--shard-mb {self.shard_mb}: must be at least 1.")


@dataclass(frozen=True)
class PackedFolder:
    """What was packed.

    Attributes:
        folder: Where it lies.
        num_shards: How many shards.
        num_bytes: Their size together.
        num_recordings: How many recordings are in them.
        hours: How long these are together.
        unreadable: Recordings that are not, since they cannot be read.
    """

    folder: Path
    num_shards: int
    num_bytes: int
    num_recordings: int
    hours: float
    unreadable: tuple[str, ...]


def pack_corpus(
    manifest: Path,
    folder: Path,
    settings: PackSettings,
    *,
    max_unreadable: float = MAX_UNREADABLE,
    jobs: int = 1,
    progress: StepCallback | None = None,
) -> PackedFolder:
    """Pack the recordings of a manifest; what an earlier call has packed is kept.

    Args:
        manifest: The manifest; paths in it are relative to its folder.
        folder: Where the shards go; made if it is not there.
        settings: What they shall hold.
        max_unreadable: How large a share of the recordings may be unreadable; they are left out.
        jobs: How many processes decode and encode; the result is the same for any number.
        progress: Called with every recording.

    Raises:
        ConfigError: If the folder holds something else, or shards of other settings.
        DataError: If the manifest cannot be read, too many recordings cannot, or the disk is full.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs {jobs}: must be at least 1.")
    recordings = {row.key: row for row in read_manifest(manifest)}
    unreadable = UnreadableClips(recordings, max_unreadable)
    report = progress or _silent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / _LOCK_NAME):
            _claim(folder, manifest, settings)
            if not (folder / INDEX_NAME).is_file():
                _Packing(manifest.parent, folder, settings, unreadable).run(
                    list(recordings.values()), jobs, report
                )
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror}); make room or choose another --out. "
            "The same command goes on with what is there."
        ) from error
    corpus = open_packed(str(folder))
    packed = {clip.recording.key for clip in corpus.clips}
    return PackedFolder(
        folder,
        len(corpus.shards),
        sum(corpus.shards.values()),
        len(corpus.clips),
        sum(clip.num_samples / clip.sample_rate for clip in corpus.clips) / 3600,
        tuple(key for key in recordings if key not in packed),
    )


def verify_packed(folder: Path, progress: StepCallback | None = None) -> int:
    """Compare every byte of a packed corpus with the digests in its index.

    Args:
        folder: Where it lies.
        progress: Called with every recording.

    Returns:
        How many recordings are as they were written; all of them.

    Raises:
        DataError: If the index is missing, or a shard or a recording differs from it.
    """
    corpus = open_packed(str(folder))
    report = progress or _silent
    wrong = []
    for name, num_bytes in corpus.shards.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != num_bytes:
            wrong.append(f"{name} has {found} bytes, not {num_bytes}" if found else f"no {name}")
    for number, clip in enumerate(corpus.clips):
        report(Step("verifying shards", number, len(corpus.clips), "files"))
        path = folder / clip.shard
        if not path.is_file():
            continue
        with path.open("rb") as file:
            file.seek(clip.offset)
            digest = hashlib.sha256(file.read(clip.num_bytes)).hexdigest()
        if digest != clip.sha256:
            wrong.append(f"{clip.recording.key} in {clip.shard} is damaged")
    if wrong:
        raise DataError(
            f"{folder}: {in_brief(wrong)}; fetch these shards again, or remove the folder and pack "
            "the corpus again."
        )
    return len(corpus.clips)


def _silent(step: Step) -> None:
    """Report to nobody."""


def _claim(folder: Path, manifest: Path, settings: PackSettings) -> None:
    """Note what the folder is for, or see that it is for the same."""
    facts = {
        **asdict(settings),
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
    }
    path = folder / _SETTINGS_NAME
    if not path.is_file():
        if strangers := [each.name for each in folder.iterdir() if each.name != _LOCK_NAME]:
            raise ConfigError(
                f"{folder}: holds other files already ({in_brief(sorted(strangers))}); choose "
                "another --out."
            )
        write_whole(path, json.dumps(facts, indent=1).encode())
        return
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        kept = None
    if kept != facts:
        raise ConfigError(
            f"{folder}: was begun with other settings or for another manifest; choose another "
            "--out, or remove the folder."
        )


# ------------------------------------------------------------------ one recording


@dataclass(frozen=True)
class _Made:
    """A recording as it stands in a shard; ``clip`` does not yet know its place."""

    clip: PackedClip
    content: bytes


def _make(root: Path, settings: PackSettings, named: tuple[str, Recording]) -> _Made | str:
    """Decode and encode a recording; what keeps it from being read, if it cannot be."""
    name, recording = named
    try:
        waveform = read(root / recording.path, recording.track)
        rate = settings.sample_rate or waveform.sample_rate
        # The first channel, as everywhere in training.
        mono = resample(waveform.samples[:1], waveform.sample_rate, rate)[0]
        if not mono.numel():
            raise AudioError(f"{root / recording.path}: holds no samples.")
        samples, peak = to_int16(mono)
        content, groups, group_frames = encode(samples.numpy(), rate, settings.storage)
    except AudioError as error:
        return str(error)
    clip = PackedClip(
        name=name,
        recording=recording,
        shard="",
        offset=0,
        num_bytes=len(content),
        sample_rate=rate,
        num_samples=mono.numel(),
        peak=peak,
        active_s=active_blocks(mono, rate),
        groups=groups,
        group_frames=group_frames,
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return _Made(clip, content)


# ------------------------------------------------------------------ all of them


@dataclass(frozen=True)
class _Finished:
    """What the list beside a shard says."""

    shard: str
    num_bytes: int
    clips: tuple[PackedClip, ...]
    unreadable: dict[str, str]


@dataclass
class _Packing:
    """One run."""

    root: Path
    folder: Path
    settings: PackSettings
    unreadable: UnreadableClips
    finished: list[_Finished] = field(default_factory=list)

    def run(self, recordings: Sequence[Recording], jobs: int, report: StepCallback) -> None:
        for leftover in self.folder.glob("shard-*.tar.part"):
            leftover.unlink()
        self._read_finished()
        done = {clip.recording.key for each in self.finished for clip in each.clips}
        done.update(key for each in self.finished for key in each.unreadable)
        left = [
            (f"{number:08d}", row) for number, row in enumerate(recordings) if row.key not in done
        ]
        made = self._made(left, jobs)
        num_done = len(done)
        while num_done < len(recordings):
            num_done += self._write_shard(made, num_done, len(recordings), report)
        shards = {each.shard: each.num_bytes for each in self.finished if each.clips}
        clips = [clip for each in self.finished for clip in each.clips]
        text = index_text(shards, clips, self.settings.storage)
        write_whole(self.folder / INDEX_NAME, text.encode())
        for each in self.finished:
            self._list_of(each.shard).unlink()

    def _list_of(self, shard: str) -> Path:
        return (self.folder / shard).with_suffix(".jsonl")

    def _read_finished(self) -> None:
        for path in sorted(self.folder.glob("shard-*.jsonl")):
            head, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            for key, reason in head["unreadable"].items():
                self.unreadable.note(key, reason)
            clips = tuple(map(PackedClip.from_line, lines))
            self.finished.append(
                _Finished(head["shard"], head["num_bytes"], clips, head["unreadable"])
            )

    def _made(
        self, named: Sequence[tuple[str, Recording]], jobs: int
    ) -> Iterator[tuple[Recording, _Made | str]]:
        """Make recordings, in their order."""
        make = partial(_make, self.root, self.settings)
        if jobs == 1:
            yield from ((row, make((name, row))) for name, row in named)
            return
        # Processes that are forked from one with threads may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context) as pool:
            for first in range(0, len(named), _AHEAD * jobs):
                some = named[first : first + _AHEAD * jobs]
                yield from zip((row for _, row in some), pool.map(make, some), strict=True)

    def _write_shard(
        self,
        made: Iterator[tuple[Recording, _Made | str]],
        num_done: int,
        total: int,
        report: StepCallback,
    ) -> int:
        """Fill a shard, and say how many recordings were dealt with."""
        name = f"shard-{len(self.finished):06d}.tar"
        part = self.folder / f"{name}.part"
        clips: list[PackedClip] = []
        unreadable: dict[str, str] = {}
        with part.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for recording, result in made:
                    if isinstance(result, str):
                        self.unreadable.note(recording.key, result)
                        unreadable[recording.key] = result
                    else:
                        clips.append(self._add(tar, file, name, result))
                    report(Step("packing", num_done + len(clips) + len(unreadable), total, "files"))
                    if file.tell() >= self.settings.shard_mb * _MIB:
                        break
            file.flush()
            os.fsync(file.fileno())  # some disks report 'full' only now
        if clips:
            part.rename(self.folder / name)
            num_bytes = (self.folder / name).stat().st_size
        else:
            part.unlink()
            num_bytes = 0
        finished = _Finished(name, num_bytes, tuple(clips), unreadable)
        self.finished.append(finished)
        head = {"shard": name, "num_bytes": num_bytes, "unreadable": unreadable}
        lines: list[dict[str, Any]] = [head, *(clip.line() for clip in clips)]
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        write_whole(self._list_of(name), text.encode())
        return len(clips) + len(unreadable)

    def _add(self, tar: tarfile.TarFile, file: IO[bytes], shard: str, made: _Made) -> PackedClip:
        """Put a recording into a shard."""
        clip = replace(made.clip, shard=shard, offset=file.tell() + _TAR_BLOCK_BYTES)
        extension = EXTENSIONS[self.settings.storage]
        about = json.dumps({"key": clip.recording.key, **clip.line()}).encode()
        for ending, content in ((extension, made.content), ("json", about)):
            info = tarfile.TarInfo(f"{clip.name}.{ending}")
            info.size = len(content)
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(content))
        return clip
