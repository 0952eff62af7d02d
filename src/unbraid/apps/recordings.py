"""From what the user names (files, folders, patterns) to recordings, each with its own name."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from unbraid.apps.sidecar import SIDECAR, read_sidecar
from unbraid.audio.decode import MEDIA_EXTENSIONS
from unbraid.errors import AudioError, ConfigError


def as_argument(path: str) -> str:
    """A path as a word of a command line that cannot be taken for a flag.

    >>> as_argument("-x.wav"), as_argument("x.wav")
    ('./-x.wav', 'x.wav')
    """
    return f"./{path}" if path.startswith("-") else path


@dataclass(frozen=True)
class Origin:
    """The file in a store that a recording is a copy of.

    Attributes:
        address: Where it is, such as ``s3://bucket/speech.wav``.
        num_bytes: Its size.
        modified_ns: When it was last changed, in nanoseconds since 1970; 0 where the store does
            not say.
    """

    address: str
    num_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class RecordingFile:
    """A file to separate.

    Attributes:
        path: Where it is.
        track: What its results are called: the file's name without its extension, below the
            sub-folders in which it was found.
        origin: What it is a copy of; None where the file itself is meant.
    """

    path: Path
    track: PurePath
    origin: Origin | None = None

    @property
    def source(self) -> dict[str, Any]:
        """What tells this recording, as it is now, from others; it goes into the sidecar.

        Without a size where there is no such file: opening it will say what is wrong.
        """
        if self.origin is not None:
            return {
                "path": self.origin.address,
                "num_bytes": self.origin.num_bytes,
                "modified_ns": self.origin.modified_ns,
            }
        path = str(self.path.absolute())
        try:
            stat = self.path.stat()
        except (OSError, ValueError):
            return {"path": path}
        return {"path": path, "num_bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}


@dataclass(frozen=True)
class Unusable:
    """Something that was named and gives no recording.

    Attributes:
        path: What was named, or a folder below it.
        error: Why it gives none.
    """

    path: Path
    error: AudioError


@dataclass(frozen=True)
class _Found:
    """A file that is not named yet.

    Attributes:
        path: Where it is.
        below: Its place below the folder that was searched; its name if it was named itself.
        searched: The name of that folder; empty if the file was named itself.
    """

    path: Path
    below: PurePath
    searched: str = ""

    @property
    def names(self) -> list[PurePath]:
        """What it could be called, the best first; the later ones for when that is taken."""
        stem = self.below.stem
        # "..wav" without its extension would be a folder.
        short = self.below if stem in (".", "..") else self.below.with_name(stem)
        names = [short, self.below]
        if self.searched:
            names += [PurePath(self.searched, short), PurePath(self.searched, self.below)]
        return names


def find_recordings(
    inputs: Sequence[str | Path],
    out_dir: Path,
    place_of: Callable[[PurePath], Path],
    *,
    is_recursive: bool = False,
) -> tuple[RecordingFile | Unusable, ...]:
    """Find the recordings that are meant, each once, in a stable order.

    A file is taken whatever it is. In a folder, files are taken that are recordings by their
    extension (``audio.decode.MEDIA_EXTENSIONS``); a pattern with ``*``, ``?`` or ``[…]`` is
    searched likewise, where ``**`` stands for any folders. Left out of searches: hidden
    files and folders, what lies inside ``out_dir``, and folders that hold stems of ours.

    Recordings of one name are told apart, whatever the order: by their extensions first
    (``x.wav`` and ``x.flac``), then by the folders that were searched.

    Args:
        inputs: Files, folders and patterns.
        out_dir: Where results go.
        place_of: Where the results of a recording with this name would go.
        is_recursive: Search folders inside folders, too.

    Returns:
        Recordings in the order of the inputs, those of a folder sorted by name, and in
        between what gives none: an empty folder, a pattern that nothing matches.

    Raises:
        ConfigError: If two recordings would write to the same place.
    """
    search = _Search(out_dir, is_recursive)
    found = [entry for given in inputs for entry in search.find(given)]
    tracks = _distinct_tracks([entry for entry in found if isinstance(entry, _Found)], place_of)
    return tuple(
        entry if isinstance(entry, Unusable) else RecordingFile(entry.path, tracks[entry])
        for entry in found
    )


class _Search:
    """One run through the inputs; remembers what it has seen."""

    def __init__(self, out_dir: Path, is_recursive: bool) -> None:
        self._out_dir = out_dir.resolve()
        self._is_recursive = is_recursive
        self._seen: set[object] = set()

    def find(self, given: str | Path) -> Iterator[_Found | Unusable]:
        path = Path(given)
        if path.is_dir():
            yield from self._in_given_folder(path)
        elif glob.has_magic(str(given)) and not os.path.lexists(path):
            yield from self._matching(path)
        elif self._is_new(path):
            yield _Found(path, PurePath(path.name))

    def _in_given_folder(self, folder: Path) -> Iterator[_Found | Unusable]:
        problem = None
        if self._is_in_out_dir(folder):
            problem = "lies inside the folder for results, which is not searched"
        elif read_sidecar(folder / f"{SIDECAR}.json"):
            problem = "holds stems that unbraid made; name the files themselves to separate them"
        if problem is not None:
            yield Unusable(folder, AudioError(f"{folder}: {problem}."))
            return
        is_empty = True
        for path in self._walk(folder, set()):
            is_empty = False
            if isinstance(path, Unusable):
                yield path
            elif self._is_new(path):
                yield _Found(path, path.relative_to(folder), folder.resolve().name)
        if is_empty:
            hint = "" if self._is_recursive else "; --recursive looks into folders inside it"
            yield Unusable(folder, AudioError(f"{folder}: no recording is in this folder{hint}."))

    def _matching(self, pattern: Path) -> Iterator[_Found | Unusable]:
        parts = pattern.parts
        num_fixed = next(n for n, part in enumerate(parts) if glob.has_magic(part))
        base = Path(*parts[:num_fixed])
        # A pattern with an extension of its own says what it wants.
        wants_all = bool(pattern.suffix) and not glob.has_magic(pattern.suffix)
        # Path.glob would find hidden files, too.
        names = glob.glob(str(pattern), recursive=True)  # noqa: PTH207
        matches = [Path(name) for name in sorted(names)]
        matches = [
            path
            for path in matches
            if path.is_file()
            and (wants_all or _is_recording(path))
            and not self._is_ours(path.parent)
        ]
        if not matches:
            yield Unusable(
                pattern, AudioError(f"{pattern}: no recording has a name like this pattern.")
            )
        for path in matches:
            if self._is_new(path):
                yield _Found(path, path.relative_to(base), base.resolve().name)

    def _walk(self, folder: Path, above: set[object]) -> Iterator[Path | Unusable]:
        """The recordings in a folder, sorted; files before the folders inside it."""
        try:
            entries = sorted(folder.iterdir(), key=lambda path: path.name)
        except OSError as error:
            yield Unusable(folder, AudioError(f"{folder}: cannot be opened ({error.strerror})."))
            return
        yield from (path for path in entries if _is_recording(path) and not path.is_dir())
        if not self._is_recursive:
            return
        # A link to a folder further up would lead round in circles.
        above = above | {_identity(folder)}
        for inner in entries:
            is_hidden = inner.name.startswith(".")
            if not inner.is_dir() or is_hidden or self._is_ours(inner):
                continue
            if _identity(inner) not in above:
                yield from self._walk(inner, above)

    def _is_in_out_dir(self, folder: Path) -> bool:
        return folder.resolve().is_relative_to(self._out_dir)

    def _is_ours(self, folder: Path) -> bool:
        """Whether a folder is for results, not for recordings."""
        return self._is_in_out_dir(folder) or bool(read_sidecar(folder / f"{SIDECAR}.json"))

    def _is_new(self, path: Path) -> bool:
        """Whether this file has not been met before, under whatever name."""
        identity = _identity(path)
        is_new = identity not in self._seen
        self._seen.add(identity)
        return is_new


def _is_recording(path: Path) -> bool:
    return path.suffix.lower() in MEDIA_EXTENSIONS and not path.name.startswith(".")


def _identity(path: Path) -> object:
    """What all names of one file have in common."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return path.absolute()  # opening the file will say what is wrong with it
    return status.st_dev, status.st_ino


def _distinct_tracks(
    found: Sequence[_Found], place_of: Callable[[PurePath], Path]
) -> dict[_Found, PurePath]:
    """Give every file the best of its names that no other file has.

    Raises:
        ConfigError: Naming two files that cannot be told apart.
    """
    ranks = dict.fromkeys(found, 0)
    while True:
        groups: dict[str, list[_Found]] = {}
        for entry, rank in ranks.items():
            groups.setdefault(same_for_all_systems(place_of(entry.names[rank])), []).append(entry)
        crowded = [group for group in groups.values() if len(group) > 1]
        if not crowded:
            return {entry: entry.names[rank] for entry, rank in ranks.items()}
        for group in crowded:
            movable = [entry for entry in group if ranks[entry] + 1 < len(entry.names)]
            if not movable:
                raise ConfigError(
                    f"{group[0].path} and {group[1].path} would write to the same stems; put "
                    "{track} into --filename, or separate them in two runs with different "
                    "--out folders."
                )
            lowest = min(ranks[entry] for entry in movable)
            for entry in movable:
                if ranks[entry] == lowest:
                    ranks[entry] += 1


def same_for_all_systems(path: Path) -> str:
    """Some file systems take upper and lower case, or two spellings of an accent, for one."""
    return unicodedata.normalize("NFC", str(path)).casefold()
