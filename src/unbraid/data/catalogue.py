"""Which recordings serve which prompt."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from unbraid.data.access import Access, ClipSource
from unbraid.data.direct import DirectClips
from unbraid.data.manifest import PIECE_S, Recording, read_manifest
from unbraid.data.shards import ShardClips, open_packed
from unbraid.data.store import ClipStore
from unbraid.data.unreadable import MAX_UNREADABLE
from unbraid.errors import DataError
from unbraid.mixing.recipe import Clip


def select(
    recordings: Sequence[Recording], pools: Mapping[str, Sequence[str]], split: str
) -> dict[str, tuple[Recording, ...]]:
    """Sort the recordings of a split into pools.

    Args:
        recordings: All rows of a manifest.
        pools: Prompt → patterns over ``category/class``, as in shells. A pattern that
            begins with ``!`` takes away what the patterns before it let in.
        split: Which split to take from.

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
            if not matching:
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
    if access == "shards":
        corpus = open_packed(where, base)
        recordings: Sequence[Recording] = [clip.recording for clip in corpus.clips]
    else:
        manifest = base / Path(where).expanduser()
        recordings = read_manifest(manifest)
    opened = []
    for split in splits:
        selected = select(recordings, pools, split)
        rows = _distinct(selected)
        source: ClipSource
        if access == "shards":
            source = ShardClips(corpus, rows, sample_rate, max_unreadable)
        else:
            kind = ClipStore if access == "cache" else DirectClips
            source = kind(manifest.parent, rows, sample_rate, cache_dir, max_unreadable)
        opened.append((_clips(selected, source), source))
    return tuple(opened)


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
) -> tuple[tuple[Clip, ...], ClipStore]:
    """Decode the room impulse responses of a split, in a store of their own.

    Args:
        manifest: Of the recordings.
        recordings: All its rows.
        patterns: Over ``category/class``, as in ``select``.
        split: Which split to take from.
        sample_rate: To bring them to.
        cache_dir: Where they are kept decoded.

    Raises:
        DataError: If a pattern that lets in matches no recording of any split.
    """
    rows = select(recordings, {"rooms": patterns}, split)["rooms"]
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
