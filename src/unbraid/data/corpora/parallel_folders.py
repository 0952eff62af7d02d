"""What corpora of mixtures share that keep each source in a folder of its own.

A mixture and its sources have one file name in folders beside each other::

    wav8k/min/tt/mix/a.wav
    wav8k/min/tt/s1/a.wav
    wav8k/min/tt/s2/a.wav

The copies of one corpus differ in rate (``wav8k``, ``wav16k``), in length (``min`` ends with
the shortest source, ``max`` with the longest) and in split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from unbraid.data.corpora.base import (
    MixtureFiles,
    ReferenceFiles,
    Track,
    check_choice,
    check_equal_lengths,
    require,
    require_files,
)
from unbraid.errors import DataError

#: Rates and lengths that the scripts of WSJ0-2mix and its descendants make.
SAMPLE_RATES = (8000, 16000)
LENGTHS = ("min", "max")


def inside(root: Path, name: str) -> str:
    """``name/`` where a corpus lies in a folder of that name, empty where it lies in the root."""
    return f"{name}/" if (root / name).is_dir() else ""


def variant_folder(
    corpus: str, sample_rate: int, length: str, split: str, splits: Sequence[str]
) -> str:
    """Where a copy of a corpus lies, for example ``wav8k/min/tt``.

    Raises:
        DataError: If there is no such rate, length or split.
    """
    check_choice(corpus, "sample rate", sample_rate, SAMPLE_RATES)
    check_choice(corpus, "length", length, LENGTHS)
    check_choice(corpus, "split", split, splits)
    return f"wav{sample_rate // 1000}k/{length}/{split}"


def shared_names(root: Path, folders: Sequence[str], corpus: str) -> list[str]:
    """Names of the wav files that lie in each of several folders, sorted.

    Args:
        root: The corpus's folder.
        folders: Relative to it.
        corpus: The corpus's title, for messages.

    Raises:
        DataError: If a folder is missing or all are empty, or one lacks a file that another has.
    """
    require(root, folders, corpus)
    names = {path.name for folder in folders for path in (root / folder).glob("[!.]*.wav")}
    if not names:
        raise DataError(f"{root / folders[0]}: holds no *.wav, as {corpus} should.")
    check_in_all(root, folders, sorted(names), "a folder beside it")
    return sorted(names)


def check_in_all(root: Path, folders: Sequence[str], names: Sequence[str], named_by: str) -> None:
    """Check that files of these names are in each of several folders.

    Raises:
        DataError: With the first that is missing, and how many are.
    """
    paths = (f"{folder}/{name}" for name in names for folder in folders)
    require_files(root, paths, named_by)


def mixtures_in(
    root: Path,
    folder: str,
    split: str,
    sources: Sequence[tuple[str, str]],
    *,
    corpus: str,
    mixture: str = "",
    listed: tuple[Sequence[str], str] | None = None,
) -> Iterator[MixtureFiles]:
    """Mixtures from folders that lie beside each other.

    Args:
        root: The corpus's folder.
        folder: What the folders lie in, relative to it.
        split: As the corpus calls it.
        sources: Prompt and folder of each source.
        corpus: The corpus's title, for messages.
        mixture: Folder of the mixtures; empty for the sum of the sources.
        listed: File names that the corpus lists, and the list that names them; None where it
            keeps no list, and then each name that is in one folder has to be in all.

    Raises:
        DataError: If a folder or file is missing, or a file is not as long as the others.
    """
    folders = [f"{folder}/{name}" for _, name in sources]
    if mixture:
        folders.append(f"{folder}/{mixture}")
    if listed is None:
        names: Sequence[str] = shared_names(root, folders, corpus)
    else:
        names, named_by = listed
        require(root, folders, corpus)
        check_in_all(root, folders, names, named_by)
    for name in names:
        tracks = [Track(f"{each}/{name}") for each in folders]
        check_equal_lengths(root, tracks)
        yield MixtureFiles(
            name=name.removesuffix(".wav"),
            split=split,
            references=tuple(
                ReferenceFiles(prompt, (track,))
                for (prompt, _), track in zip(sources, tracks, strict=False)
            ),
            mixture=tracks[-1] if mixture else None,
        )


def every_variant(
    root: Path,
    prefix: str,
    splits: Sequence[str],
    corpus: str,
    mixtures: Callable[[int, str, str], Iterator[MixtureFiles]],
) -> Iterator[MixtureFiles]:
    """Mixtures of every rate, length and split that a copy of a corpus holds.

    Their names begin with the folder of their variant, for example ``wav8k/min/tt/``, since
    all variants call their files the same.

    Args:
        root: The corpus's folder.
        prefix: What the variants lie in, as ``inside`` gives it.
        splits: All splits of the corpus.
        corpus: The corpus's title, for messages.
        mixtures: Lists one variant: sample rate, length, split.

    Raises:
        DataError: If there is none, or as ``mixtures`` does.
    """
    variants = [
        (sample_rate, length, split)
        for sample_rate in SAMPLE_RATES
        for length in LENGTHS
        for split in splits
        if (root / prefix / variant_folder(corpus, sample_rate, length, split, splits)).is_dir()
    ]
    if not variants:
        require(root, [f"{prefix}wav8k/min/{splits[-1]}"], corpus)
    for sample_rate, length, split in variants:
        folder = variant_folder(corpus, sample_rate, length, split, splits)
        for each in mixtures(sample_rate, length, split):
            yield replace(each, name=f"{folder}/{each.name}")
