"""What every corpus tells about itself, and the checks that all of them make."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from unbraid.audio import AudioInfo, probe
from unbraid.data.manifest import Recording
from unbraid.errors import AudioError, DataError, in_brief


@dataclass(frozen=True)
class Archive:
    """A file that a corpus can be fetched as.

    Attributes:
        url: Where it lies.
        size_bytes: Its size; None where its publisher does not say.
        digest: ``md5:…``, ``sha1:…`` or ``sha256:…`` as published; empty where there is none.
        folder: Where it is unpacked, below the corpus's folder.
    """

    url: str
    size_bytes: int | None
    digest: str = ""
    folder: str = "."

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.rpartition("/")[2].partition("?")[0]


@dataclass(frozen=True)
class Track:
    """One audio track of a file of a corpus.

    Attributes:
        path: Relative to the corpus's folder, with ``/`` between its parts.
        track: Which track of a file that has several, from 1; None for its only one.
    """

    path: str
    track: int | None = None

    @property
    def key(self) -> str:
        """What tells it from all others of its corpus."""
        return self.path if self.track is None else f"{self.path}#{self.track}"


@dataclass(frozen=True)
class ReferenceFiles:
    """Where a source of a mixture comes from: files added up, others taken away.

    Attributes:
        prompt: Canonical name of the prompt that should bring it out.
        add: Tracks that are summed; none where the source is silent throughout.
        subtract: Tracks that are taken away; a noise is often noisy speech minus speech.
    """

    prompt: str
    add: tuple[Track, ...]
    subtract: tuple[Track, ...] = ()


@dataclass(frozen=True)
class MixtureFiles:
    """A mixture and its sources, as files.

    Attributes:
        name: Unique in the corpus and split.
        split: As the corpus calls it.
        references: Its sources.
        mixture: What is to be separated; None for the sum of the references.
        group: What several mixtures belong to, such as a song; empty for nothing.
        is_ragged: Whether its tracks differ in length and in channels as they were recorded;
            they are cut to the shortest, and mono is put on all channels.
    """

    name: str
    split: str
    references: tuple[ReferenceFiles, ...]
    mixture: Track | None = None
    group: str = ""
    is_ragged: bool = False


#: Lists what a corpus in that folder holds, or raises ``DataError`` that names what is missing.
RecordingLister: TypeAlias = Callable[[Path], Iterator[Recording]]
MixtureLister: TypeAlias = Callable[[Path], Iterator[MixtureFiles]]


@dataclass(frozen=True)
class Corpus:
    """A published corpus.

    Attributes:
        name: What it is called on the command line.
        title: Its name.
        contents: What it holds, in one sentence.
        licence: As its publisher states it.
        url: Its home.
        how_to_get: What to do where it cannot be fetched by ``--download``; for all others,
            what is worth knowing.
        archives: What it can be fetched as; none where it is not free.
        layout: What its folder should hold, in a few lines, for messages.
        recordings: Lists clips to mix from; None where it holds none.
        mixtures: Lists ready-made mixtures of all splits; None where it holds none.
    """

    name: str
    title: str
    contents: str
    licence: str
    url: str
    how_to_get: str
    layout: str
    archives: tuple[Archive, ...] = ()
    recordings: RecordingLister | None = None
    mixtures: MixtureLister | None = None


# ------------------------------------------------------------------ checks


def require(root: Path, names: Sequence[str], corpus: str) -> None:
    """Check that a corpus's folder holds files and folders of these names.

    Args:
        root: The corpus's folder.
        names: Paths relative to it.
        corpus: The corpus's title, for the message.

    Raises:
        DataError: With all that is missing, and the folder in which it was looked for.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder of {corpus}.")
    missing = [name for name in names if not (root / name).exists()]
    if missing:
        raise DataError(
            f"{root}: not a whole copy of {corpus}, it has no {in_brief(missing, limit=5)}; "
            "give the folder that holds it, or unpack the missing part there."
        )


def check_choice(corpus: str, what: str, value: object, choices: Collection[object]) -> None:
    """Check that a corpus has what is asked for.

    Args:
        corpus: Its title, for the message.
        what: What is chosen, for example ``split``.
        value: What was asked for.
        choices: What there is.

    Raises:
        DataError: If it has not, with all that it has.
    """
    if value not in choices:
        known = ", ".join(str(choice) for choice in choices)
        raise DataError(f"{corpus} has no {what} {value!r}; choose one of {known}.")


def files_in(root: Path, folder: str, pattern: str, corpus: str) -> list[Path]:
    """Files below a folder of a corpus, sorted; hidden ones are left out.

    Args:
        root: The corpus's folder.
        folder: Where to look, relative to it.
        pattern: As ``Path.glob`` takes it, for example ``**/*.wav``.
        corpus: The corpus's title, for the message.

    Raises:
        DataError: If there is no such folder, or nothing in it matches.
    """
    require(root, [folder], corpus)
    found = sorted(path for path in (root / folder).glob(pattern) if not path.name.startswith("."))
    if not found:
        raise DataError(f"{root / folder}: holds no {pattern}, as {corpus} should.")
    return found


def require_files(root: Path, paths: Iterable[str], named_by: str) -> None:
    """Check that all files that a list of the corpus names are there.

    Args:
        root: The corpus's folder.
        paths: Relative to it.
        named_by: The list that names them, for the message.

    Raises:
        DataError: With the full path of the first that is missing, and how many are.
    """
    missing = [path for path in paths if not (root / path).is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataError(
            f"{root / missing[0]}: missing{more}, though {named_by} names it; "
            "unpack or make the corpus again."
        )


def relative(path: Path, root: Path) -> str:
    """A path below a corpus's folder as manifests write it."""
    return path.relative_to(root).as_posix()


def recording_of(
    root: Path,
    path: Path,
    kind: str,
    split: str,
    licence: str,
    *,
    speaker: str = "",
    original_rate: int | None = None,
    track: int | None = None,
    pieces_s: tuple[float, ...] = (),
) -> Recording:
    """One row of a manifest; its file is opened to learn length, rate and channels.

    Args:
        root: The corpus's folder.
        path: The file.
        kind: ``category/class``.
        split: As the corpus calls it.
        licence: As stated for this file, or for the whole corpus.
        speaker: Who speaks; empty where nobody does.
        original_rate: The lowest rate it ever had; None for the file's own.
        track: Which track of a file that has several.
        pieces_s: See ``Recording.pieces_s``.

    Raises:
        DataError: If it cannot be read as audio.
    """
    info = probed(path, track)
    return Recording(
        path=relative(path, root),
        kind=kind,
        split=split,
        duration_s=info.duration_s,
        bandwidth_hz=min(original_rate or info.sample_rate, info.sample_rate) / 2,
        speaker=speaker,
        licence=licence,
        sample_rate=info.sample_rate,
        track=track,
        pieces_s=pieces_s,
    )


def check_equal_lengths(root: Path, tracks: Sequence[Track], *, tolerance: int = 0) -> None:
    """Check that tracks which are to be added have one length and one rate.

    Args:
        root: The corpus's folder.
        tracks: At least one.
        tolerance: Samples by which lengths may differ.

    Raises:
        DataError: With both paths and both lengths, where they differ.
    """
    first, *others = tracks
    expected = probed(root / first.path, first.track)
    for other in others:
        info = probed(root / other.path, other.track)
        if info.sample_rate != expected.sample_rate:
            raise DataError(
                f"{root / other.path}: {info.sample_rate} Hz, but {root / first.path} has "
                f"{expected.sample_rate} Hz; stems of one mixture must have one rate."
            )
        if abs(info.num_samples - expected.num_samples) > tolerance:
            raise DataError(
                f"{root / other.path}: {info.num_samples} samples, but {root / first.path} has "
                f"{expected.num_samples}; stems of one mixture must have one length."
            )


def probed(path: Path, track: int | None = None) -> AudioInfo:
    """What a file of a corpus holds.

    Raises:
        DataError: If it is missing or cannot be read as audio.
    """
    try:
        return probe(path, track)
    except AudioError as error:
        raise DataError(str(error)) from error
