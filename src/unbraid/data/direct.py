"""Crops straight from the files of a corpus, for corpora that do not fit into the cache.

Every recording is decoded once, to learn its length, where it sounds and where decoding can begin
in its middle. That is noted in the cache folder, a line for each recording, so a run that is
stopped goes on where it was. Crops are then decoded and resampled when they are asked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from unbraid.audio.decode import read_span, read_with_seek_points
from unbraid.audio.seek_point import SeekPoint
from unbraid.data.access import read_resampled
from unbraid.data.manifest import Recording
from unbraid.data.store import active_blocks, alone, size_bytes
from unbraid.data.unreadable import MAX_UNREADABLE, UnreadableClips
from unbraid.dsp.resample import resample
from unbraid.errors import AudioError, DataError, UnreadableClip
from unbraid.types import Waveform

log = logging.getLogger(__name__)

#: In shorter recordings decoding begins at the start.
_SHORTEST_TO_SEEK_S = 8.0
#: Where it is tried whether decoding from the middle gives the same, and how exactly it must.
_TRIED_AT = (0.35, 0.65, 0.9)
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
    ) -> None:
        self.sample_rate = sample_rate
        self.unreadable = UnreadableClips((row.key for row in recordings), max_unreadable)
        self._root = root
        self._recordings = {row.key: row for row in recordings}
        facts = json.dumps([str(root.resolve()), sample_rate])
        name = f"direct-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
        cache_dir.mkdir(parents=True, exist_ok=True)
        with alone(cache_dir / f"{name}.lock"):
            self._noted = self._take_notes(cache_dir / f"{name}.jsonl")

    def __contains__(self, key: str) -> bool:
        return key in self._noted

    def active_s(self, key: str) -> tuple[float, ...]:
        """Starts of the stretches of a recording that are not silent."""
        return self._noted[key].active_s

    def read(self, key: str, start: int, count: int) -> Float[Tensor, "time"]:
        """Samples of a recording; zeros before its beginning and after its end.

        Raises:
            UnreadableClip: If its file is damaged, has changed or is gone.
            DataError: If that makes too many of them.
        """
        noted = self._noted[key]
        recording = self._recordings[key]

        def read(first: int, num_samples: int) -> Float[Tensor, "time"]:
            path = self._root / recording.path
            return read_span(path, first, num_samples, recording.track, noted.points)[0]

        try:
            return read_resampled(
                read, noted.num_samples, noted.sample_rate, self.sample_rate, start, count
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
        waveform, points = read_with_seek_points(path, recording.track)
        mono = resample(waveform.samples[:1], waveform.sample_rate, self.sample_rate)[0]
        if waveform.samples.shape[-1] < _SHORTEST_TO_SEEK_S * waveform.sample_rate:
            points = ()
        if points and not _gives_the_same(path, recording.track, waveform, points):
            points = ()
        return _Noted(
            num_bytes,
            waveform.sample_rate,
            waveform.num_samples,
            active_blocks(mono, self.sample_rate),
            tuple(point.mark for point in points),
            tuple(point.sample for point in points),
        )


def _gives_the_same(
    path: Path, track: int | None, whole: Waveform, points: Sequence[SeekPoint]
) -> bool:
    """Whether decoding from the middle gives what decoding from the start gives."""
    count = round(_TRIED_S * whole.sample_rate)
    for share in _TRIED_AT:
        first = round(share * whole.num_samples)
        try:
            found = read_span(path, first, count, track, points)
        except AudioError:
            return False
        expected = whole.samples[:, first : first + count]
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
