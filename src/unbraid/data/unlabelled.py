"""Recordings that nobody has taken apart, whatever they are and however long, to cut from."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.data.direct import DirectClips
from unbraid.data.manifest import Recording
from unbraid.errors import DataError, UnreadableClip
from unbraid.mixing.recipe import ACTIVE_BLOCK_S, Clip, draw_start

#: Of stereo both channels are heard, each by itself; of more channels the first two.
_NUM_CHANNELS = 2
#: A crop softer than this is silence.
_SILENT_DBFS = -60.0
_MOST_DRAWS = 100


class UnlabelledRecordings:
    """Recordings in their own files, cut at random where they sound.

    Args:
        paths: The files.
        sample_rate: The rate to read them at.
        cache_dir: Where notes about them are kept, see ``DirectClips``.

    Attributes:
        clips: Those that can be read and are not silent.
        silent: Those in which nothing is heard.
        unreadable: Those that cannot be read to their end.
    """

    def __init__(self, paths: Sequence[Path], sample_rate: int, cache_dir: Path) -> None:
        rows = [_row(path) for path in paths]
        self._store = DirectClips(
            Path("/"), rows, sample_rate, cache_dir, max_unreadable=1.0, num_channels=_NUM_CHANNELS
        )
        heard = [row for row in rows if row.key in self._store]
        clips = [
            Clip(
                row.key,
                self._store.duration_s(row.key),
                sample_rate / 2,
                active_s=self._store.active_s(row.key),
            )
            for row in heard
        ]
        self.clips = tuple(clip for clip in clips if clip.active_s)
        self.silent = tuple(Path(clip.key) for clip in clips if not clip.active_s)
        self.unreadable = tuple(map(Path, self._store.unreadable.keys))

    def draw(
        self, clips: Sequence[Clip], crop_s: float, rng: random.Random
    ) -> Float[Tensor, "time"]:
        """A crop of one channel in which something is heard; longer clips are drawn more often.

        Raises:
            DataError: If nothing is heard in a hundred of them.
        """
        weights = [len(clip.active_s) for clip in clips]
        length = round(crop_s * self._store.sample_rate)
        for _ in range(_MOST_DRAWS):
            (clip,) = rng.choices(clips, weights)
            start = round(draw_start(clip, crop_s, rng) * self._store.sample_rate)
            channel = rng.randrange(_NUM_CHANNELS)
            try:
                # Behind the end of a part, as of a whole, there is silence.
                end = round(clip.duration_s * self._store.sample_rate)
                crop = self._store.read(clip.key, start, min(length, end - start))[channel]
            except UnreadableClip:
                continue
            if crop.square().mean() > 10.0 ** (_SILENT_DBFS / 10.0):
                return torch.nn.functional.pad(crop, (0, length - crop.numel()))
        raise DataError(
            f"{clips[0].key}: of {_MOST_DRAWS} crops none could be read and heard; give other "
            "recordings."
        )

    def batches(
        self, clips: Sequence[Clip], crop_s: float, batch_size: int, seed: str
    ) -> Iterator[Float[Tensor, "batch time"]]:
        """Crops without end; batch ``n`` depends on the seed and on ``n`` alone."""
        number = 0
        while True:
            rng = random.Random(f"{seed}/{number}")
            yield torch.stack([self.draw(clips, crop_s, rng) for _ in range(batch_size)])
            number += 1


@dataclass(frozen=True)
class Parts:
    """What is learnt from, and what is held back to check with.

    Attributes:
        learnt_from: Recordings, or the beginning of an only one.
        held_back: Other recordings, or the end of it.
        is_one: Whether there is only one.
    """

    learnt_from: tuple[Clip, ...]
    held_back: tuple[Clip, ...]
    is_one: bool


def hold_back(clips: Sequence[Clip], share: float, crop_s: float, seed: int) -> Parts:
    """Hold a share of the recordings back, one at least; of a single one the end.

    No crop of the end reaches into the beginning.

    Args:
        clips: All of them.
        share: How many to hold back.
        crop_s: Length of the crops that are drawn.
        seed: Of the choice.
    """
    if len(clips) == 1:
        (clip,) = clips
        from_s = (1.0 - share) * clip.duration_s
        first = [start for start in clip.active_s if start + ACTIVE_BLOCK_S <= from_s]
        last = [start for start in clip.active_s if start >= from_s + crop_s - ACTIVE_BLOCK_S]
        begin = dataclasses.replace(clip, duration_s=from_s, active_s=tuple(first))
        end = dataclasses.replace(clip, active_s=tuple(last))
        return Parts((begin,) if first else (), (end,) if last else (), True)
    order = random.Random(seed).sample(range(len(clips)), len(clips))
    held_back = set(order[: max(1, round(share * len(clips)))])
    return Parts(
        tuple(clip for place, clip in enumerate(clips) if place not in held_back),
        tuple(clip for place, clip in enumerate(clips) if place in held_back),
        False,
    )


def _row(path: Path) -> Recording:
    """A recording as a manifest would have it; its length is learnt when it is heard."""
    return Recording(
        path=str(path.resolve()),
        kind="recording/any",
        split="all",
        duration_s=0.0,
        bandwidth_hz=0.0,
        speaker="",
        licence="",
        sample_rate=0,
    )
