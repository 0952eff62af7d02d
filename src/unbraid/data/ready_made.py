"""Ready-made mixtures of corpora, to learn from and to validate on, stretch by stretch."""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from unbraid.config import check_number
from unbraid.data.corpora.base import MixtureFiles, Track
from unbraid.data.dynamic import MixtureBatch
from unbraid.data.mixture_lists import read_mixtures
from unbraid.data.store import ClipStore
from unbraid.data.unreadable import MAX_UNREADABLE
from unbraid.errors import DataError

#: So often a stretch is drawn again in which a source is silent.
_MAX_TRIES = 20


@dataclass(frozen=True)
class MixtureSet:
    """Which mixtures of a list to take.

    Attributes:
        list: The list, as `unbraid data prepare` writes it; a relative path is relative to
            ``data.root``.
        split: As the corpus calls it.
        names: Pattern over the names of mixtures, as in shells; ``wav8k/min/*`` for a variant of
            a corpus that has several.
        num_sources: Only mixtures of so many sources; None for all.
        most: At most so many, spread evenly over the list; None for all.
    """

    list: str
    split: str
    names: str = "*"
    num_sources: int | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_sources", "most"):
            check_number(f"{name} of a set of mixtures", getattr(self, name), least=1)


@dataclass(frozen=True)
class ReadyMixture:
    """One mixture of a store.

    Attributes:
        files: Its tracks.
        num_samples: Length at the store's rate; that of its shortest track.
    """

    files: MixtureFiles
    num_samples: int

    @property
    def prompts(self) -> tuple[str, ...]:
        """One per source."""
        return tuple(reference.prompt for reference in self.files.references)


class ReadyMixtures:
    """Mixtures from files, any stretch of them at once.

    Args:
        root: Folder that paths are relative to.
        files: The mixtures.
        sample_rate: The rate to hold them at.
        cache_dir: Where the decoded samples are kept.
        max_unreadable: How large a share of the tracks may be unreadable.
        num_channels: See ``ClipStore``.

    Attributes:
        mixtures: Those that could be read.

    Raises:
        DataError: If more cannot be read.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[MixtureFiles],
        sample_rate: int,
        cache_dir: Path,
        max_unreadable: float = MAX_UNREADABLE,
        num_channels: int = 1,
    ) -> None:
        tracks = {track.key: track for entry in files for track in _tracks(entry)}
        self.store = ClipStore(
            root, list(tracks.values()), sample_rate, cache_dir, max_unreadable, num_channels
        )
        self.mixtures = tuple(
            ReadyMixture(entry, min(self.store.num_samples(track.key) for track in _tracks(entry)))
            for entry in files
            if all(track.key in self.store for track in _tracks(entry))
        )

    def stretch(
        self, mixture: ReadyMixture, start: int, count: int
    ) -> tuple[Float[Tensor, "*channel time"], Float[Tensor, "source *channel time"]]:
        """Samples of a mixture and its sources, zeros after its end."""
        inside = max(0, min(count, mixture.num_samples - start))

        def read(track: Track) -> Tensor:
            samples = self.store.read(track.key, start, inside)
            return torch.nn.functional.pad(samples, (0, count - inside))

        silence = torch.zeros_like(read(_tracks(mixture.files)[0]))
        references = []
        for reference in mixture.files.references:
            total = sum((read(track) for track in reference.add), silence)
            references.append(total - sum((read(track) for track in reference.subtract), silence))
        sources = torch.stack(references)
        whole = mixture.files.mixture
        return sources.sum(dim=0) if whole is None else read(whole), sources


def open_mixtures(
    root: Path,
    wanted: MixtureSet,
    sample_rate: int,
    cache_dir: Path,
    max_unreadable: float = MAX_UNREADABLE,
    num_channels: int = 1,
) -> ReadyMixtures:
    """Decode the mixtures of a set.

    Args:
        root: The folder that ``wanted.list`` is relative to.
        wanted: Which mixtures.
        sample_rate: The rate to hold them at.
        cache_dir: Where the decoded samples are kept.
        max_unreadable: How large a share of the tracks may be unreadable.
        num_channels: See ``ClipStore``.

    Raises:
        DataError: If the list cannot be read, has no such mixtures, or their files are missing.
    """
    path = root / Path(wanted.list).expanduser()
    found = [
        entry
        for entry in read_mixtures(path)
        if entry.split == wanted.split
        and fnmatch.fnmatchcase(entry.name, wanted.names)
        and wanted.num_sources in (None, len(entry.references))
    ]
    if not found:
        sources = "" if wanted.num_sources is None else f" of {wanted.num_sources} sources"
        raise DataError(
            f"{path}: has no mixtures{sources} of the split {wanted.split!r} that are called "
            f"{wanted.names!r}."
        )
    if wanted.most is not None and wanted.most < len(found):
        found = [found[number * len(found) // wanted.most] for number in range(wanted.most)]
    return ReadyMixtures(path.parent, found, sample_rate, cache_dir, max_unreadable, num_channels)


@dataclass(frozen=True)
class SegmentPlan:
    """One segment of a ready-made mixture.

    Attributes:
        collection: Which of several sets of mixtures it is in.
        place: Where in that set.
        name: What the corpus calls the mixture.
        start: Its first sample.
        asked: Prompts of its sources that are asked for.
        absent: Places of the sources that are taken out of it.
    """

    collection: int
    place: int
    name: str
    start: int
    asked: tuple[str, ...]
    absent: tuple[int, ...] = ()

    @property
    def num_asked(self) -> int:
        """How many sources are asked for."""
        return len(self.asked)


@dataclass(frozen=True)
class _Epoch:
    """All mixtures, as (set, place), batch by batch."""

    number: int
    batches: tuple[tuple[tuple[int, int], ...], ...]


class SegmentBatches:
    """Batches of random segments; every mixture is heard once in an epoch.

    The mixtures of a batch have equally many sources. Where they do not fill their last batch,
    some of them are heard twice.

    Args:
        sets: The mixtures.
        segment: Length of a segment in samples; shorter mixtures are filled up with zeros.
        prompt_rows: Prompt → row of the model's prompt bank; sources of other prompts are heard
            but not asked for.
        batch_size: Segments in a batch.
        seed: Of all of them.
        absent_probability: How often a source is taken out of its mixture. Never all of them.
    """

    def __init__(
        self,
        sets: Sequence[ReadyMixtures],
        segment: int,
        prompt_rows: Mapping[str, int],
        batch_size: int,
        seed: int,
        absent_probability: float = 0.0,
    ) -> None:
        self._sets = tuple(sets)
        self._segment = segment
        self._prompt_rows = dict(prompt_rows)
        #: Segments in a batch.
        self.batch_size = batch_size
        self._seed = seed
        self._absent_probability = absent_probability
        self._groups: dict[int, list[tuple[int, int]]] = {}
        for collection, each in enumerate(self._sets):
            for place, mixture in enumerate(each.mixtures):
                num_asked = len(_asked(mixture, prompt_rows))
                self._groups.setdefault(num_asked, []).append((collection, place))
        #: Batches until every mixture was heard.
        self.batches_per_epoch = sum(
            -(-len(group) // batch_size) for group in self._groups.values()
        )
        self._epoch = _Epoch(-1, ())

    def plans(self, number: int, rank: int = 0, world_size: int = 1) -> tuple[SegmentPlan, ...]:
        """What batch ``number`` is made from; depends on the seed and the number alone."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if self._epoch.number != epoch:
            self._epoch = self._draw_epoch(epoch)
        rng = random.Random(f"{self._seed}/segments/{number}")
        plans = tuple(self._draw_plan(*where, rng) for where in self._epoch.batches[place])
        return plans[rank::world_size]

    def batch(self, number: int, rank: int = 0, world_size: int = 1) -> MixtureBatch:
        """Batch ``number``; of several processes, the share of one."""
        plans = self.plans(number, rank, world_size)
        heard = [self._read(plan) for plan in plans]
        return MixtureBatch(
            mixture=torch.stack([mixture for mixture, _ in heard]),
            references=torch.stack([references for _, references in heard]),
            prompt_indices=torch.tensor(
                [[self._prompt_rows[name] for name in plan.asked] for plan in plans]
            ),
        )

    def _draw_epoch(self, number: int) -> _Epoch:
        """All mixtures in a new order."""
        rng = random.Random(f"{self._seed}/epoch/{number}")
        batches = []
        for _, group in sorted(self._groups.items()):
            order = rng.sample(group, len(group))
            for first in range(0, len(order), self.batch_size):
                places = range(first, first + self.batch_size)
                batches.append(tuple(order[place % len(order)] for place in places))
        rng.shuffle(batches)
        return _Epoch(number, tuple(batches))

    def _draw_plan(self, collection: int, place: int, rng: random.Random) -> SegmentPlan:
        mixture = self._sets[collection].mixtures[place]
        start = rng.randint(0, max(0, mixture.num_samples - self._segment))
        is_absent = [rng.random() < self._absent_probability for _ in mixture.prompts]
        absent = () if all(is_absent) else tuple(i for i, gone in enumerate(is_absent) if gone)
        names = tuple(mixture.prompts[each] for each in _asked(mixture, self._prompt_rows))
        return SegmentPlan(collection, place, mixture.files.name, start, names, absent)

    def _read(self, plan: SegmentPlan) -> tuple[Tensor, Tensor]:
        mixtures = self._sets[plan.collection]
        mixture = mixtures.mixtures[plan.place]
        whole, references = mixtures.stretch(mixture, plan.start, self._segment)
        absent = list(plan.absent)
        if absent:
            whole = whole - references[absent].sum(dim=0)
            references[absent] = 0.0
        return whole, references[list(_asked(mixture, self._prompt_rows))]


class ValidationSegments(Dataset[MixtureBatch]):
    """Segments of every mixture, always the same ones, each a batch of its own.

    Args:
        mixtures: The mixtures.
        segment: Length in samples, shorter mixtures as they are; None for whole mixtures.
        prompt_rows: Prompt → row of the model's prompt bank.
        seed: Which segments. Ones in which all sources are heard are looked for.
        per_mixture: How many of each.
    """

    def __init__(
        self,
        mixtures: ReadyMixtures,
        segment: int | None,
        prompt_rows: Mapping[str, int],
        seed: int,
        per_mixture: int = 1,
    ) -> None:
        self._mixtures = mixtures
        self._per_mixture = per_mixture
        self._segment = segment
        self._prompt_rows = dict(prompt_rows)
        self._seed = seed

    def __len__(self) -> int:
        return len(self._mixtures.mixtures) * self._per_mixture

    def __getitem__(self, number: int) -> MixtureBatch:
        """Segment ``number``, alone in its batch."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        mixture = self._mixtures.mixtures[number // self._per_mixture]
        count = mixture.num_samples
        if self._segment is not None:
            count = min(count, self._segment)
        rng = random.Random(f"{self._seed}/{mixture.files.name}/{number % self._per_mixture}")
        for _ in range(_MAX_TRIES):
            start = rng.randint(0, mixture.num_samples - count)
            whole, references = self._mixtures.stretch(mixture, start, count)
            if bool((references.flatten(1).abs().amax(dim=1) > 0).all()):
                break
        asked = _asked(mixture, self._prompt_rows)
        rows = torch.tensor([list(asked.values())])
        return MixtureBatch(whole.unsqueeze(0), references[list(asked)].unsqueeze(0), rows)


def _asked(mixture: ReadyMixture, prompt_rows: Mapping[str, int]) -> dict[int, int]:
    """Place of each source that is asked for → row of its prompt."""
    return {
        place: prompt_rows[name]
        for place, name in enumerate(mixture.prompts)
        if name in prompt_rows
    }


def _tracks(entry: MixtureFiles) -> list[Track]:
    tracks = [
        track for reference in entry.references for track in (*reference.add, *reference.subtract)
    ]
    return tracks if entry.mixture is None else [*tracks, entry.mixture]
