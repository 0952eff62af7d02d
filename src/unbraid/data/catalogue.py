"""Which recordings serve which prompt."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from jaxtyping import Float
from torch import Tensor

from unbraid.data.access import Access, ClipSource
from unbraid.data.direct import DirectClips
from unbraid.data.manifest import PIECE_S, Recording, read_manifest
from unbraid.data.shards import PackedCorpus, ShardClips, open_packed
from unbraid.data.store import ClipStore
from unbraid.data.unreadable import MAX_UNREADABLE
from unbraid.errors import ConfigError, DataError
from unbraid.mixing.recipe import Clip


def select(
    recordings: Sequence[Recording],
    pools: Mapping[str, Sequence[str]],
    split: str,
    is_part: bool = False,
) -> dict[str, tuple[Recording, ...]]:
    """Sort the recordings of a split into pools.

    Args:
        recordings: All rows of a manifest.
        pools: Prompt → patterns over ``category/class``, as in shells. A pattern that
            begins with ``!`` takes away what the patterns before it let in.
        split: Which split to take from.
        is_part: Whether other manifests may hold what a pattern matches.

    Raises:
        DataError: If a pattern that lets in matches no recording of any split.
    """
    kinds = sorted({recording.kind for recording in recordings})
    chosen = {}
    for prompt, patterns in pools.items():
        wanted: set[str] = set()
        for pattern in patterns:
            matching = set(fnmatch.filter(kinds, pattern.removeprefix("!")))
            if pattern.startswith("!"):
                wanted -= matching
                continue
            if not matching and not is_part:
                raise DataError(f"pool {prompt!r}: the pattern {pattern!r} matches no recording.")
            wanted |= matching
        chosen[prompt] = tuple(
            recording
            for recording in recordings
            if recording.split == split and recording.kind in wanted
        )
    return chosen


def open_pools(
    manifest: Path,
    recordings: Sequence[Recording],
    pools: Mapping[str, Sequence[str]],
    split: str,
    sample_rate: int,
    cache_dir: Path,
    max_unreadable: float = MAX_UNREADABLE,
) -> tuple[dict[str, tuple[Clip, ...]], ClipStore]:
    """Decode the recordings of a split and list them as clips, prompt by prompt.

    Silent and unreadable recordings are left out.

    Raises:
        DataError: If more than a share of ``max_unreadable`` cannot be read.
    """
    selected = select(recordings, pools, split)
    rows = _distinct(selected)
    store = ClipStore(manifest.parent, rows, sample_rate, cache_dir, max_unreadable)
    return _clips(selected, store), store


def open_splits(
    where: str,
    base: Path,
    pools: Mapping[str, Sequence[str]],
    splits: Sequence[str],
    sample_rate: int,
    cache_dir: Path,
    access: Access = "cache",
    max_unreadable: float = MAX_UNREADABLE,
) -> tuple[tuple[dict[str, tuple[Clip, ...]], ClipSource], ...]:
    """Open the recordings of several splits, in whatever way they are to be read.

    Where nothing was lost on the way (``cache`` and ``direct`` of one manifest, ``shards`` of that
    manifest at this rate), the clips are the same, and so are the mixtures drawn from them.

    Args:
        where: The manifest; for ``shards``, the folder or address of a packed corpus.
        base: What a relative path is relative to.
        pools: Prompt → patterns of what serves it, see ``select``.
        splits: Which splits.
        sample_rate: The rate to read them at.
        cache_dir: Where decoded recordings, or notes about recordings, are kept.
        access: How they are read.
        max_unreadable: How large a share of the recordings of a split may be unreadable.

    Returns:
        For each split its clips by prompt, silent and unreadable ones left out, and what reads
        them.

    Raises:
        DataError: If the manifest or packed corpus cannot be read, or too many recordings.
    """
    place = _find(where, base, access)
    opened = []
    for split in splits:
        selected = select(place.recordings, pools, split)
        source = place.open(_distinct(selected), sample_rate, cache_dir, max_unreadable)
        opened.append((_clips(selected, source), source))
    return tuple(opened)


@dataclass(frozen=True)
class Pools:
    """The recordings of a split, from one place or several, and the rooms to hear them in.

    Attributes:
        clips: Prompt → its clips. A key begins with the number of its source and a colon.
        rooms: Room impulse responses.
        sources: What reads clips and rooms.
    """

    clips: Mapping[str, tuple[Clip, ...]]
    rooms: tuple[Clip, ...]
    sources: tuple[ClipSource, ...]

    def read(self, key: str, start: int, count: int) -> Float[Tensor, "*channel time"]:
        """Samples of a recording or of a room impulse response, as ``ClipSource.read``."""
        number, _, name = key.partition(":")
        return self.sources[int(number)].read(name, start, count)


def open_together(
    where: Sequence[str],
    base: Path,
    pools: Mapping[str, Sequence[str]],
    split: str,
    sample_rate: int,
    cache_dir: Path,
    access: Access = "cache",
    max_unreadable: float = MAX_UNREADABLE,
    num_channels: int = 1,
    rooms: Sequence[str] = (),
) -> Pools:
    """Open the recordings of a split from several manifests, or packed corpora, as one.

    Each has a source of its own, so that what was decoded for one recipe serves another that
    joins it with others. Speakers and songs of one are never those of another.

    Args:
        where: Manifests, or packed corpora, as in ``open_splits``.
        base: What relative paths are relative to.
        pools: Prompt → patterns of what serves it, see ``select``; one match in all is enough.
        split: Which split.
        sample_rate: The rate to read them at.
        cache_dir: Where decoded recordings, or notes about recordings, are kept.
        access: How they are read.
        max_unreadable: How large a share of the recordings of each may be unreadable.
        num_channels: How many channels; more than one need ``cache``, see ``ClipStore``.
        rooms: Patterns of room impulse responses; they need a manifest.

    Raises:
        ConfigError: If channels or rooms are wanted that cannot be read in this way.
        DataError: If a manifest or packed corpus cannot be read, or too many recordings, or a
            pattern matches nothing.
    """
    if num_channels > 1 and access != "cache":
        raise ConfigError(
            f"the model hears {num_channels} channels, which data.access {access!r} does not read; "
            "set it to cache."
        )
    if rooms and access == "shards":
        raise ConfigError("data.rooms needs a manifest: set data.access to cache or direct.")
    places = [_find(each, base, access) for each in where]
    every_row = [row for place in places for row in place.recordings]
    select(every_row, {**pools, "rooms": rooms}, split)
    clips: dict[str, tuple[Clip, ...]] = dict.fromkeys(pools, ())
    responses: tuple[Clip, ...] = ()
    sources: list[ClipSource] = []
    for place in places:
        selected = select(place.recordings, pools, split, is_part=True)
        rows = _distinct(selected)
        sources.append(place.open(rows, sample_rate, cache_dir, max_unreadable, num_channels))
        for prompt, found in _clips(selected, sources[-1]).items():
            clips[prompt] += tuple(_apart(clip, len(sources) - 1) for clip in found)
        if rooms:
            heard, store = open_rooms(
                place.manifest, place.recordings, rooms, split, sample_rate, cache_dir, is_part=True
            )
            sources.append(store)
            responses += tuple(_apart(room, len(sources) - 1) for room in heard)
    return Pools(clips, responses, tuple(sources))


@dataclass(frozen=True)
class _Place:
    """A manifest or a packed corpus, and what it lists."""

    recordings: Sequence[Recording]
    where: Path | PackedCorpus
    access: Access

    @property
    def manifest(self) -> Path:
        assert isinstance(self.where, Path), "a packed corpus has none"
        return self.where

    def open(
        self,
        rows: Sequence[Recording],
        sample_rate: int,
        cache_dir: Path,
        max_unreadable: float,
        num_channels: int = 1,
    ) -> ClipSource:
        """What reads some of its recordings."""
        if isinstance(self.where, PackedCorpus):
            return ShardClips(self.where, rows, sample_rate, max_unreadable)
        root = self.where.parent
        if self.access == "direct":
            return DirectClips(root, rows, sample_rate, cache_dir, max_unreadable)
        return ClipStore(root, rows, sample_rate, cache_dir, max_unreadable, num_channels)


def _find(where: str, base: Path, access: Access) -> _Place:
    if access == "shards":
        corpus = open_packed(where, base)
        return _Place([clip.recording for clip in corpus.clips], corpus, access)
    manifest = base / Path(where).expanduser()
    return _Place(read_manifest(manifest), manifest, access)


def _apart(clip: Clip, number: int) -> Clip:
    """A clip with names of its own: speakers and songs mean something in their manifest only."""

    def named(name: str) -> str:
        return f"{number}:{name}" if name else ""

    return replace(
        clip, key=named(clip.key), performer=named(clip.performer), song=named(clip.song)
    )


def _distinct(selected: Mapping[str, Sequence[Recording]]) -> list[Recording]:
    return list({row.key: row for rows in selected.values() for row in rows}.values())


def _clips(
    selected: Mapping[str, Sequence[Recording]], source: ClipSource
) -> dict[str, tuple[Clip, ...]]:
    return {
        prompt: tuple(
            Clip(
                key=row.key,
                duration_s=row.duration_s,
                bandwidth_hz=row.bandwidth_hz,
                performer=row.speaker,
                song=_song(row),
                active_s=active_s,
                num_pieces=max(1, len(row.pieces_s)),
            )
            for row in rows
            if row.key in source and (active_s := _worth_mixing(row, source.active_s(row.key)))
        )
        for prompt, rows in selected.items()
    }


def open_rooms(
    manifest: Path,
    recordings: Sequence[Recording],
    patterns: Sequence[str],
    split: str,
    sample_rate: int,
    cache_dir: Path,
    is_part: bool = False,
) -> tuple[tuple[Clip, ...], ClipStore]:
    """Decode the room impulse responses of a split, in a store of their own.

    Args:
        manifest: Of the recordings.
        recordings: All its rows.
        patterns: Over ``category/class``, as in ``select``.
        split: Which split to take from.
        sample_rate: To bring them to.
        cache_dir: Where they are kept decoded.
        is_part: Whether other manifests may hold what a pattern matches.

    Raises:
        DataError: If a pattern that lets in matches no recording of any split.
    """
    rows = select(recordings, {"rooms": patterns}, split, is_part)["rooms"]
    store = ClipStore(manifest.parent, rows, sample_rate, cache_dir)
    rooms = tuple(
        Clip(row.key, row.duration_s, row.bandwidth_hz)
        for row in rows
        if row.key in store and not store.is_silent(row.key)
    )
    return rooms, store


def _worth_mixing(recording: Recording, active_s: Sequence[float]) -> tuple[float, ...]:
    """The active stretches that lie in a piece of the recording that its manifest keeps."""
    if not recording.pieces_s:
        return tuple(active_s)
    return tuple(
        block
        for block in active_s
        if any(start <= block < start + PIECE_S for start in recording.pieces_s)
    )


def _song(recording: Recording) -> str:
    """Its song; without one in the manifest, stems are called ``song__stem``."""
    if recording.song:
        return recording.song
    name = PurePosixPath(recording.path).stem
    return name.rpartition("__")[0] if recording.kind.startswith("music_stems/") else ""
