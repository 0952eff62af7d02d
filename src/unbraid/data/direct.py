"""Crops straight from the files of a corpus, for corpora that do not fit into the cache.

Every recording is decoded once, to learn its length, where it sounds and where decoding can begin
in its middle, in memory that does not grow. That is noted in the cache folder, a line for each
recording, so a run that is stopped goes on where it was. Crops are then decoded and resampled when
they are asked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from unbraid.audio.decode import Heard, listen, read_span
from unbraid.audio.seek_point import SeekPoint
from unbraid.data.access import read_resampled
from unbraid.data.manifest import Recording
from unbraid.data.store import ActivityMeter, alone, size_bytes
from unbraid.data.unreadable import MAX_UNREADABLE, UnreadableClips
from unbraid.dsp.resample import Resampler
from unbraid.errors import AudioError, DataError, UnreadableClip

log = logging.getLogger(__name__)

#: In shorter recordings decoding begins at the start.
_SHORTEST_TO_SEEK_S = 8.0
#: Where it is tried whether decoding from the middle gives the same, and how exactly it must: each
#: place lies a quarter further on than the one before, and those of the last two thirds count.
_FIRST_TRIED_S = 2.0
_TRIED_STEP = 1.25
_TRIED_FROM = 0.33
_TRIED_S = 0.25
_LARGEST_DIFFERENCE_DB = -80.0


@dataclass(frozen=True)
class _Noted:
    """What is known of a recording.

    Attributes:
        size_bytes: Of its file, by which a change is noticed.
        sample_rate: Of its file.
        num_samples: At that rate.
        active_s: Starts of the stretches that are not silent.
        marks: Where decoding can begin, as ``SeekPoint`` has it.
        samples: The samples that come first there.
    """

    size_bytes: int
    sample_rate: int
    num_samples: int
    active_s: tuple[float, ...]
    marks: tuple[int, ...] = ()
    samples: tuple[int, ...] = ()

    @property
    def points(self) -> tuple[SeekPoint, ...]:
        return tuple(map(SeekPoint, self.marks, self.samples))


class DirectClips:
    """Random access to recordings in their own files.

    Several processes may open one: the first one takes the notes, the others wait for it.

    Args:
        root: Folder that the recordings' paths are relative to.
        recordings: What to read.
        sample_rate: The rate to read it at.
        cache_dir: Where the notes are kept.
        max_unreadable: How large a share of the recordings may be unreadable.
        num_channels: How many channels to read: the first ones of each recording. One that has
            fewer is put on all.

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
        num_channels: int = 1,
    ) -> None:
        self.sample_rate = sample_rate
        self.num_channels = num_channels
        self.unreadable = UnreadableClips((row.key for row in recordings), max_unreadable)
        self._root = root
        self._recordings = {row.key: row for row in recordings}
        # Where a recording sounds depends on the channels that are heard.
        several = [num_channels] if num_channels > 1 else []
        facts = json.dumps([str(root.resolve()), sample_rate, *several])
        name = f"direct-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
        cache_dir.mkdir(parents=True, exist_ok=True)
        with alone(cache_dir / f"{name}.lock"):
            self._noted = self._take_notes(cache_dir / f"{name}.jsonl")

    def __contains__(self, key: str) -> bool:
        return key in self._noted

    def active_s(self, key: str) -> tuple[float, ...]:
        """Starts of the stretches of a recording that are not silent."""
        return self._noted[key].active_s

    def duration_s(self, key: str) -> float:
        """Length of a recording."""
        return self._noted[key].num_samples / self._noted[key].sample_rate

    def read(self, key: str, start: int, count: int) -> Float[Tensor, "*channel time"]:
        """Samples of a recording; zeros before its beginning and after its end.

        Without an axis for channels where one is read.

        Raises:
            UnreadableClip: If its file is damaged, has changed or is gone.
            DataError: If that makes too many of them.
        """
        noted = self._noted[key]
        recording = self._recordings[key]

        def read(first: int, num_samples: int) -> Float[Tensor, "*channel time"]:
            path = self._root / recording.path
            found = read_span(path, first, num_samples, recording.track, noted.points)
            return _first_channels(found, self.num_channels)

        try:
            return read_resampled(
                read,
                noted.num_samples,
                noted.sample_rate,
                self.sample_rate,
                start,
                count,
                self.num_channels,
            )
        except AudioError as error:
            self.unreadable.note(key, str(error))
            raise UnreadableClip(str(error)) from error

    def _take_notes(self, path: Path) -> dict[str, _Noted]:
        """Read the notes, and decode what is not in them."""
        known = dict(_lines(path))
        sizes = {key: size_bytes(self._root / row.path) for key, row in self._recordings.items()}
        noted = {}
        missing = []
        for key, row in self._recordings.items():
            if key in known and known[key].size_bytes == sizes[key]:
                noted[key] = known[key]
            else:
                missing.append(row)
        if not missing:
            return noted
        log.info("decoding %d recordings once, to learn where they sound", len(missing))
        with path.open("a", encoding="utf-8") as file:
            for row in missing:
                try:
                    noted[row.key] = self._listen(row, sizes[row.key] or 0)
                except AudioError as error:
                    self.unreadable.note(row.key, str(error))
                    continue
                # A line that a process did not come to write the end of is passed over.
                file.write(f"\n{json.dumps({'key': row.key, **asdict(noted[row.key])})}\n")
                file.flush()
        return noted

    def _listen(self, recording: Recording, num_bytes: int) -> _Noted:
        path = self._root / recording.path
        ear = _Ear(self.sample_rate, self.num_channels)
        heard = listen(path, ear.hear, recording.track)
        points = heard.points
        if heard.num_samples < _SHORTEST_TO_SEEK_S * heard.sample_rate:
            points = ()
        if points and not _gives_the_same(path, recording.track, ear.kept, heard):
            points = ()
        return _Noted(
            num_bytes,
            heard.sample_rate,
            heard.num_samples,
            ear.active_s(),
            tuple(point.mark for point in points),
            tuple(point.sample for point in points),
        )


class _Ear:
    """Hears a recording once, block by block, and keeps little of it.

    Attributes:
        kept: First sample → a short stretch, all channels, of places further and further on.
    """

    def __init__(self, sample_rate: int, num_channels: int) -> None:
        self.kept: dict[int, Tensor] = {}
        self._sample_rate = sample_rate
        self._num_channels = num_channels
        self._meter = ActivityMeter(sample_rate)
        self._resampler: Resampler | None = None
        self._done = 0
        self._next_kept = 0.0

    def hear(self, block: Float[Tensor, "channel time"], sample_rate: int) -> None:
        """Take the next block."""
        if self._resampler is None:
            self._resampler = Resampler(sample_rate, self._sample_rate)
            self._next_kept = _FIRST_TRIED_S * sample_rate
        channels = _first_channels(block, self._num_channels).reshape(self._num_channels, -1)
        self._meter.push(self._resampler.push(channels))
        length = round(_TRIED_S * sample_rate)
        if self._done >= self._next_kept and block.shape[1] >= length:
            self.kept[self._done] = block[:, :length].clone()
            self._next_kept = _TRIED_STEP * self._done
        self._done += block.shape[1]

    def active_s(self) -> tuple[float, ...]:
        """Starts of the stretches that are not silent; asked for once, in the end."""
        if self._resampler is not None and (tail := self._resampler.finish()) is not None:
            self._meter.push(tail)
        return self._meter.active_s()


def _first_channels(
    samples: Float[Tensor, "channel time"], num_channels: int
) -> Float[Tensor, "*channel time"]:
    """The first channels, or the first of fewer on all; without an axis where one is wanted."""
    if num_channels == 1:
        return samples[0]
    if len(samples) < num_channels:
        return samples[:1].expand(num_channels, -1)
    return samples[:num_channels]


def _gives_the_same(
    path: Path, track: int | None, kept: Mapping[int, Float[Tensor, "channel _"]], heard: Heard
) -> bool:
    """Whether decoding from the middle gives what decoding from the start gives."""
    for first, expected in kept.items():
        if first < _TRIED_FROM * heard.num_samples:
            continue
        try:
            found = read_span(path, first, expected.shape[1], track, heard.points)
        except AudioError:
            return False
        difference = (found - expected).square().mean()
        if difference > 10 ** (_LARGEST_DIFFERENCE_DB / 10) * expected.square().mean():
            return False
    return True


def _lines(path: Path) -> Iterable[tuple[str, _Noted]]:
    """The notes in a file, later ones of a recording after earlier ones."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it.") from error
    for line in text.splitlines():
        try:
            entry: dict[str, Any] = json.loads(line)
            key = entry.pop("key")
            fields: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in entry.items()
            }
            yield key, _Noted(**fields)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
