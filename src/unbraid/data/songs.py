"""Songs with their stems, decoded once and read at random: what a model is tuned on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unbraid.audio import probe
from unbraid.data.corpora.base import MixtureFiles, ReferenceFiles, Track
from unbraid.data.dynamic import MixtureBatch
from unbraid.data.manifest import Recording
from unbraid.data.store import ClipStore, active_blocks
from unbraid.errors import AudioError, DataError
from unbraid.mixing.recipe import Clip
from unbraid.mixing.songs import Song, SongPlanner, Stem, render_stems

#: A stem this far below the mixture is taken for silence.
_UNHEARD_DB = -40.0


class SongStore:
    """Songs that stems can be cut from. Tracks that a stem is the sum of are added up.

    Args:
        root: The folder that the paths of the mixtures are relative to.
        mixtures: What to hold; their ready-made mixtures are not read.
        sample_rate: The rate to hold it at.
        num_channels: How many channels to hold, the first ones; mono stands on all of them.
        cache_dir: Where decoded samples are kept. A folder in it belongs to these files as they
            are now.

    Attributes:
        songs: The songs, in the order of the mixtures.

    Raises:
        DataError: If a file cannot be read.
    """

    def __init__(
        self,
        root: Path,
        mixtures: Sequence[MixtureFiles],
        sample_rate: int,
        num_channels: int,
        cache_dir: Path,
    ) -> None:
        self.sample_rate = sample_rate
        self._num_channels = num_channels
        self._files: dict[str, ReferenceFiles] = {}
        stems: dict[str, list[tuple[str, str]]] = {}
        for files in mixtures:
            for number, reference in enumerate(files.references):
                key = f"{files.name}/{number}"
                self._files[key] = reference
                stems.setdefault(files.name, []).append((key, reference.prompt))
        tracks = {
            track: None
            for reference in self._files.values()
            for track in (*reference.add, *reference.subtract)
        }
        recordings = {track: _recording(root, track) for track in tracks}
        folder = cache_dir / f"songs-{_state(root, tracks)}"
        self._store = ClipStore(
            root, list(recordings.values()), sample_rate, folder, num_channels=num_channels
        )
        self._keys = {track: recording.key for track, recording in recordings.items()}
        for track, key in self._keys.items():
            if key not in self._store:
                raise DataError(f"{root / track.path}: cannot be read; repair it or take it out.")
        self.songs = tuple(
            Song(name, tuple(Stem(prompt, self._clip(key, name)) for key, prompt in keys))
            for name, keys in stems.items()
        )

    def read(self, key: str, start: int, count: int) -> Float[Tensor, "*channel time"]:
        """Samples of a stem, with an axis for channels if there are several."""
        files = self._files[key]
        shape = (self._num_channels, count) if self._num_channels > 1 else (count,)
        sound = torch.zeros(shape)
        for track in files.add:
            sound = sound + self._store.read(self._keys[track], start, count)
        for track in files.subtract:
            sound = sound - self._store.read(self._keys[track], start, count)
        return sound

    def _clip(self, key: str, song: str) -> Clip:
        files = self._files[key]
        length = max(
            (self._store.num_samples(self._keys[track]) for track in (*files.add, *files.subtract)),
            default=0,
        )
        sound = self.read(key, 0, length)
        active = {
            start
            for channel in (sound if self._num_channels > 1 else sound[None])
            for start in active_blocks(channel, self.sample_rate)
        }
        return Clip(
            key,
            duration_s=length / self.sample_rate,
            bandwidth_hz=self.sample_rate / 2,
            song=song,
            active_s=tuple(sorted(active)),
        )


def song_batches(
    planner: SongPlanner,
    store: SongStore,
    rows: Mapping[str, int],
    crop_s: float,
    batch_size: int,
    seed: int,
) -> Iterator[MixtureBatch]:
    """Mixtures without end; batch ``n`` depends on the seed and on ``n`` alone.

    Args:
        planner: Draws the plans.
        store: Holds the songs.
        rows: Prompt → row of the model's prompt bank.
        crop_s: Length of a mixture, as the planner knows it.
        batch_size: Mixtures in a batch.
        seed: Of all batches.
    """
    length = round(crop_s * store.sample_rate)
    number = 0
    while True:
        plans = planner.draw_batch(batch_size, f"{seed}/{number}")
        sources = torch.stack(
            [render_stems(plan, store.read, length, store.sample_rate) for plan in plans]
        )
        mixture = sources.sum(dim=1)
        yield MixtureBatch(
            mixture=mixture,
            references=sources * is_heard(sources, mixture),
            prompt_indices=torch.tensor(
                [[rows[stem.prompt] for stem in plan.stems] for plan in plans]
            ),
        )
        number += 1


def is_heard(
    sources: Float[Tensor, "batch source *channel time"],
    mixture: Float[Tensor, "batch *channel time"],
) -> Bool[Tensor, "batch source ..."]:
    """Which sources are loud enough to be brought out; the others are taken for silence.

    A stem rests for long, but seldom at digital zero: without a bound the noise of a mixing desk
    would weigh as much as a singer.
    """
    powers = [each.flatten(2).square().sum(dim=2) for each in (sources, mixture.unsqueeze(1))]
    heard = powers[0] > powers[1] * 10.0 ** (_UNHEARD_DB / 10.0)
    return heard.reshape(*heard.shape, *[1] * (sources.ndim - 2))


def _recording(root: Path, track: Track) -> Recording:
    try:
        info = probe(root / track.path, track.track)
    except AudioError as error:
        raise DataError(str(error)) from error
    return Recording(
        path=track.path,
        kind="song/stem",
        split="all",
        duration_s=info.duration_s,
        bandwidth_hz=info.sample_rate / 2,
        speaker="",
        licence="",
        sample_rate=info.sample_rate,
        track=track.track,
    )


def _state(root: Path, tracks: Sequence[Track] | Mapping[Track, None]) -> str:
    """Tells these files as they are now from all others: paths alone may mean two folders."""
    facts = []
    for track in tracks:
        path = root / track.path
        state = path.stat()
        facts.append([str(path.resolve()), track.track, state.st_size, state.st_mtime_ns])
    return hashlib.sha256(json.dumps(sorted(facts, key=str)).encode()).hexdigest()[:16]
