"""Which recordings serve which prompt."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from unbraid.data.manifest import PIECE_S, Recording
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
    needed = {row.key: row for rows in selected.values() for row in rows}
    store = ClipStore(
        manifest.parent, list(needed.values()), sample_rate, cache_dir, max_unreadable
    )
    clips = {
        prompt: tuple(
            Clip(
                key=row.key,
                duration_s=row.duration_s,
                bandwidth_hz=row.bandwidth_hz,
                performer=row.speaker,
                song=_song(row),
                active_s=_worth_mixing(row, store.active_s(row.key)),
            )
            for row in rows
            if row.key in store and _worth_mixing(row, store.active_s(row.key))
        )
        for prompt, rows in selected.items()
    }
    return clips, store


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
