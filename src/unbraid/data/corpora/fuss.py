"""FUSS: ten-second mixtures of one to four arbitrary sounds.

From Zenodo, version 1.2 of the dry data (``FUSS_ssdata.tar.gz``)::

    ssdata/{train,validation,eval}_example_list.txt    mixture, then its sources, tabs between
    ssdata/eval/example00000.wav
    ssdata/eval/example00000_sources/background0_sound.wav
    ssdata/eval/example00000_sources/foreground0_sound.wav ...

Traps: a mixture holds one background, which lasts throughout, and up to three foreground
sounds; some mixtures have one source only. ``ssdata_reverb`` has the same layout and is what
the challenge DCASE 2020 was scored on. All is at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from unbraid.data.corpora.base import (
    Archive,
    Corpus,
    MixtureFiles,
    ReferenceFiles,
    Track,
    check_choice,
    check_equal_lengths,
    recording_of,
    require,
    require_files,
)
from unbraid.data.manifest import Recording
from unbraid.errors import DataError

_TITLE = "FUSS"
_LICENCE = "CC BY 4.0"
_SPLITS = ("train", "validation", "eval")


def recordings(root: Path) -> Iterator[Recording]:
    """The mixtures as recordings, to learn from without references, and their sources.

    Mixtures are ``mixture/fuss``, sources ``sfx/fuss_background`` and ``sfx/fuss_foreground``; of
    every split whose list is there.

    Raises:
        DataError: If a file is missing.
    """
    home = _home(root, "ssdata")
    for split in _present_splits(root / home):
        example_list = root / home / f"{split}_example_list.txt"
        require(root, [str(home / example_list.name)], _TITLE)
        examples = _read_examples(example_list)
        named = (str(home / path) for paths in examples for path in paths)
        require_files(root, named, example_list.name)
        for mixture, *sources in examples:
            yield recording_of(root, root / home / mixture, "mixture/fuss", split, _LICENCE)
            for path in sources:
                ground = "back" if PurePosixPath(path).name.startswith("back") else "fore"
                kind = f"sfx/fuss_{ground}ground"
                yield recording_of(root, root / home / path, kind, split, _LICENCE)


def mixtures(root: Path, split: str = "eval", *, reverb: bool = False) -> Iterator[MixtureFiles]:
    """The mixtures of a split, in the order of the corpus's list.

    Each source is one reference of the prompt ``sfx``, the background first. Mixtures of one
    source are among them. The mixture is the sum of the references.

    Args:
        root: Holds ``ssdata``, or is it.
        split: ``train``, ``validation`` or ``eval``.
        reverb: Read ``ssdata_reverb`` instead.

    Raises:
        DataError: If a file is missing, or lengths differ.
    """
    check_choice(_TITLE, "split", split, _SPLITS)
    home = _home(root, "ssdata_reverb" if reverb else "ssdata")
    example_list = f"{split}_example_list.txt"
    require(root, [str(home / example_list)], _TITLE)
    examples = _read_examples(root / home / example_list)
    named = (str(home / path) for paths in examples for path in paths)
    require_files(root, named, example_list)
    for mixture, *sources in examples:
        tracks = [Track(str(home / path)) for path in sources]
        check_equal_lengths(root, tracks)
        yield MixtureFiles(
            name=PurePosixPath(mixture).stem,
            split=split,
            references=tuple(ReferenceFiles("sfx", (track,)) for track in tracks),
        )


def _home(root: Path, name: str) -> PurePosixPath:
    """Where the lists lie; a folder of the archive's own name may be given itself."""
    return PurePosixPath("." if root.name == name else name)


def _read_examples(path: Path) -> list[list[str]]:
    """Paths of a mixture and its sources, line by line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list cannot be read ({error}); unpack it again.") from error
    examples = [line.split("\t") for line in lines if line.strip()]
    for number, paths in enumerate(examples, start=1):
        if len(paths) < 2:
            raise DataError(
                f"{path}, line {number}: names no source; expected a mixture and its sources "
                "with tabs between them."
            )
    return examples


def _all_mixtures(root: Path) -> Iterator[MixtureFiles]:
    for split in _present_splits(root / _home(root, "ssdata")):
        yield from mixtures(root, split)


def _present_splits(home: Path) -> list[str]:
    """Splits whose lists are there; with none, the one whose list is then missed."""
    present = [split for split in _SPLITS if (home / f"{split}_example_list.txt").exists()]
    return present or ["eval"]


CORPUS = Corpus(
    name="fuss",
    title=_TITLE,
    contents="23,000 mixtures of 10 s of one to four arbitrary sounds at 16 kHz, with sources",
    licence="CC BY 4.0; the clips in it are CC0",
    url="https://zenodo.org/records/3743844",
    how_to_get="Free. Only the dry mixtures are fetched; FUSS_ssdata_reverb.tar.gz lies beside.",
    layout=(
        "ssdata/{train,validation,eval}_example_list.txt,\n"
        "ssdata/eval/example00000.wav, ssdata/eval/example00000_sources/*.wav"
    ),
    archives=(
        Archive(
            "https://zenodo.org/records/3743844/files/FUSS_ssdata.tar.gz",
            8_892_152_218,
            "sha256:7f51e4231661aa99150c51d42d3fad30a381a38416dba02c3b81fe217188d005",
        ),
    ),
    recordings=recordings,
    mixtures=_all_mixtures,
)
