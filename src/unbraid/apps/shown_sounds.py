"""Sounds that are shown instead of named: a clip, or a folder of clips of one sound."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unbraid.apps.example_clips import LEAST_SOUND_S, files_in, read_clip, sound_s
from unbraid.apps.queries import name_queries
from unbraid.errors import AudioError

# Enough to tell sound from silence.
_RATE = 16_000


@dataclass(frozen=True)
class ShownSound:
    """One query.

    Attributes:
        clips: Its clips, at least one.
        sha256: Of the clip; of several, of their digests.
        warnings: What is odd about it, a sentence each.
    """

    clips: tuple[Path, ...]
    sha256: str
    warnings: tuple[str, ...] = ()


def shown_sounds(paths: Iterable[Path], taken: Iterable[str]) -> dict[str, ShownSound]:
    """Name and read what stands for queries on the command line.

    Args:
        paths: A clip each, or a folder whose recordings and videos are clips of one sound.
        taken: Names that mean something else.

    Returns:
        Name → sound, in order; named after the file or folder.

    Raises:
        AudioError: If a folder holds no clips, or a clip cannot be read.
    """
    return {name: _shown(path) for name, path in name_queries(paths, taken).items()}


def joint_digest(digests: Iterable[str]) -> str:
    """One SHA-256 for several files: that of their own ones, sorted, in hexadecimal digits.

    >>> joint_digest(["b", "a"]) == joint_digest(["a", "b"])
    True
    """
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def _shown(path: Path) -> ShownSound:
    clips = files_in(path)
    if not clips:
        raise AudioError(f"{path}: no recordings there; give a clip, or a folder of clips.")
    heard = [read_clip(clip, _RATE) for clip in clips]
    length_s = sum(sound_s(clip, _RATE) for clip in heard)
    warnings = []
    if length_s < LEAST_SOUND_S:
        warnings.append(
            f"{path}: only {1000 * length_s:.0f} ms of sound, too little to tell what it sounds "
            f"like; give at least {LEAST_SOUND_S:g} s."
        )
    digests = [clip.sha256 for clip in heard]
    digest = joint_digest(digests) if path.is_dir() else digests[0]
    return ShownSound(tuple(clips), digest, tuple(warnings))
