"""Make a published corpus ready for use: fetch it where that is free, check it, list what it holds.

Two lists are written. ``unbraid-manifest.csv`` has a row for each recording to mix from, as
recipes of ``unbraid train`` read it. ``unbraid-mixtures.jsonl`` has a line for each ready-made
mixture, see ``data.mixture_lists``. Paths are relative to the list's folder unless that is
another one than the corpus's.
"""

from __future__ import annotations

import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from unbraid.apps.whole_files import publish_folder
from unbraid.data.corpora import find_corpus
from unbraid.data.corpora.base import Archive, Corpus, MixtureFiles, probed
from unbraid.data.manifest import Recording, format_manifest
from unbraid.data.mixture_lists import format_mixtures
from unbraid.data.preparing import (
    ARCHIVES_FOLDER,
    Package,
    is_unpacked,
    note_unpacked,
    packages_of,
    unpack,
)
from unbraid.downloads import fetch, size_in_words
from unbraid.errors import ConfigError, DataError, DownloadError
from unbraid.types import Step, StepCallback

MANIFEST_NAME = "unbraid-manifest.csv"
MIXTURES_NAME = "unbraid-mixtures.jsonl"

#: What of a corpus to list.
Contents: TypeAlias = Literal["all", "recordings", "mixtures"]

Entry = TypeVar("Entry", Recording, MixtureFiles)


@dataclass(frozen=True)
class Share:
    """What belongs together in a corpus.

    Attributes:
        split: As the corpus calls it.
        kind: ``category/class`` of recordings; the prompts of mixtures, joined by `` + ``.
        count: How many recordings or mixtures.
        hours: How long they are together.
    """

    split: str
    kind: str
    count: int
    hours: float


@dataclass(frozen=True)
class PreparedCorpus:
    """What a corpus holds, and where that is listed.

    Attributes:
        corpus: The corpus.
        folder: Where it lies.
        manifest: The list of recordings; None if there is none.
        mixtures: The list of mixtures; None if there is none.
        recording_shares: Recordings by split and kind, sorted.
        mixture_shares: Mixtures by split and prompts, sorted.
    """

    corpus: Corpus
    folder: Path
    manifest: Path | None
    mixtures: Path | None
    recording_shares: tuple[Share, ...]
    mixture_shares: tuple[Share, ...]


def prepare_corpus(
    name: str,
    folder: Path,
    *,
    download: bool = False,
    keep_archives: bool = False,
    contents: Contents = "all",
    out_dir: Path | None = None,
    progress: StepCallback | None = None,
    cancel: threading.Event | None = None,
) -> PreparedCorpus:
    """Check a corpus and list what it holds.

    The lists are written when all of the corpus has been checked, and not before. Fetching and
    unpacking go on where an earlier call was stopped.

    Args:
        name: The corpus.
        folder: Where it lies, or shall.
        download: Whether to fetch and unpack what is missing first.
        keep_archives: Whether archives stay when they are unpacked.
        contents: What to list: by default all that the corpus has.
        out_dir: Where the lists go; None for the corpus's folder. Elsewhere, their paths are
            absolute.
        progress: Called with every step.
        cancel: Set it to stop a download.

    Raises:
        ConfigError: If the corpus has no such contents.
        DataError: If there is no such corpus, it cannot be fetched, or it is incomplete or
            damaged; the message names the file.
        DownloadError: If fetching fails.
        AudioError: If the lists cannot be written.
        Cancelled: If it was stopped.
    """
    corpus = find_corpus(name)
    for asked, lister in (("recordings", corpus.recordings), ("mixtures", corpus.mixtures)):
        if contents == asked and lister is None:
            raise ConfigError(f"{corpus.title} holds no {asked}; leave that choice out.")
    report = progress or _silent
    if download:
        _download(corpus, folder, keep_archives, report, cancel)
    recordings: list[Recording] = []
    mixtures: list[MixtureFiles] = []
    if corpus.recordings is not None and contents != "mixtures":
        recordings = _all_of(corpus, corpus.recordings, folder, "recordings", report)
    if corpus.mixtures is not None and contents != "recordings":
        mixtures = _all_of(corpus, corpus.mixtures, folder, "mixtures", report)
    # Of a corpus that comes in two halves, one is enough.
    if not recordings and not mixtures:
        wanted = "recordings or mixtures" if contents == "all" else contents
        raise DataError(
            f"{folder}: holds no {wanted} of {corpus.title}; it should hold {corpus.layout}"
        )
    mixture_shares = _shares(_mixture_lengths(folder, mixtures, report))
    out_dir = out_dir or folder
    # Relative paths go on being right when the folder is moved, but only inside of it.
    prefix = "" if out_dir.resolve() == folder.resolve() else f"{folder.absolute().as_posix()}/"
    with publish_folder(out_dir) as new:
        if recordings:
            rows = (replace(row, path=prefix + row.path) for row in recordings)
            (new / MANIFEST_NAME).write_bytes(format_manifest(rows).encode())
        if mixtures:
            (new / MIXTURES_NAME).write_bytes(format_mixtures(mixtures, prefix).encode())
    return PreparedCorpus(
        corpus=corpus,
        folder=folder,
        manifest=out_dir / MANIFEST_NAME if recordings else None,
        mixtures=out_dir / MIXTURES_NAME if mixtures else None,
        recording_shares=_shares((row.split, row.kind, row.duration_s) for row in recordings),
        mixture_shares=mixture_shares,
    )


def missing_archives(name: str, folder: Path) -> tuple[Archive, ...]:
    """What ``prepare_corpus`` would fetch into a folder, in order.

    Raises:
        DataError: If there is no such corpus, or it cannot be fetched.
    """
    corpus = find_corpus(name)
    return tuple(part for package in _missing(corpus, folder) for part in package.parts)


def _silent(step: Step) -> None:
    """Report to nobody."""


# ------------------------------------------------------------------ fetching


def _missing(corpus: Corpus, folder: Path) -> list[Package]:
    if not corpus.archives:
        raise DataError(f"{corpus.title} cannot be fetched from here. {corpus.how_to_get}")
    return [package for package in packages_of(corpus.archives) if not is_unpacked(folder, package)]


def _download(
    corpus: Corpus,
    folder: Path,
    keep_archives: bool,
    report: StepCallback,
    cancel: threading.Event | None,
) -> None:
    missing = _missing(corpus, folder)
    _check_room(corpus, folder, missing)
    for package in missing:
        goal = folder / package.folder
        home = folder / ARCHIVES_FOLDER if package.is_archive else goal
        files = [home / part.name for part in package.parts]
        for part, file in zip(package.parts, files, strict=True):
            fetch(
                part.url,
                file,
                size_bytes=part.size_bytes,
                digest=part.digest,
                progress=_byte_report(f"fetching {part.name}", report),
                cancel=cancel,
            )
        if package.is_archive:
            unpack(files, goal, package.name, _byte_report(f"unpacking {package.name}", report))
        note_unpacked(folder, package)
        if package.is_archive and not keep_archives:
            for file in files:
                file.unlink()


def _byte_report(name: str, report: StepCallback) -> Callable[[int, int | None], None]:
    return lambda done, total: report(Step(name, done, total, "bytes"))


def _check_room(corpus: Corpus, folder: Path, missing: Sequence[Package]) -> None:
    """See that what is to be fetched finds room; what it is unpacked to is seen later."""
    wanted = sum(part.size_bytes or 0 for package in missing for part in package.parts)
    home = folder / ARCHIVES_FOLDER
    there = sum(file.stat().st_size for file in home.glob("*") if file.is_file())
    above = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(above).free
    if wanted - there > free:
        raise DownloadError(
            f"{folder}: {corpus.title} needs {size_in_words(wanted - there)}, but only "
            f"{size_in_words(free)} are free on that disk; make room or choose another folder."
        )


# ------------------------------------------------------------------ listing


def _all_of(
    corpus: Corpus,
    lister: Callable[[Path], Iterator[Entry]],
    folder: Path,
    kind: Literal["recordings", "mixtures"],
    report: StepCallback,
) -> list[Entry]:
    """Everything that a corpus lists, counted aloud."""
    entries: list[Entry] = []
    report(Step(f"listing {kind}", 0, None, "files"))
    try:
        for entry in lister(folder):
            entries.append(entry)
            report(Step(f"listing {kind}", len(entries), None, "files"))
    except DataError as error:
        other = "mixtures" if kind == "recordings" else "recordings"
        if corpus.recordings is None or corpus.mixtures is None or not folder.is_dir():
            raise
        raise DataError(f"{error} If only its {other} are wanted, add --only {other}.") from error
    return entries


def _mixture_lengths(
    folder: Path, mixtures: Sequence[MixtureFiles], report: StepCallback
) -> Iterator[tuple[str, str, float]]:
    """Split, prompts and length of mixtures; a file of each is opened."""
    for number, entry in enumerate(mixtures, start=1):
        track = entry.mixture or next(
            track for source in entry.references for track in (*source.add, *source.subtract)
        )
        prompts = " + ".join(source.prompt for source in entry.references)
        yield entry.split, prompts, probed(folder / track.path, track.track).duration_s
        report(Step("measuring mixtures", number, len(mixtures), "files"))


def _shares(entries: Iterable[tuple[str, str, float]]) -> tuple[Share, ...]:
    """Add up what has the same split and kind."""
    lengths_s: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for split, kind, duration_s in entries:
        lengths_s[split, kind].append(duration_s)
    return tuple(
        Share(split, kind, len(durations_s), sum(durations_s) / 3600)
        for (split, kind), durations_s in sorted(lengths_s.items())
    )
