"""Divide and Remaster, version 2: one-minute mixtures of speech, music and effects.

From Zenodo, one tar in eleven parts (``cat dnr_v2.tar.gz.* | tar xz``)::

    dnr_v2/tr/<id>/{mix,speech,music,sfx}.wav, annots.csv
    dnr_v2/cv/<id>/...
    dnr_v2/tt/<id>/...

Traps: ``sfx`` holds foreground and background effects together, so it asks for ``sfx-mix``.
Music may hold singing. ``mix.wav`` is not read: the mixture is the sum of the three stems.
All is mono at 44.1 kHz.
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
    require,
    require_files,
)
from unbraid.errors import DataError

_TITLE = "Divide and Remaster v2"
_SPLITS = {"train": "tr", "valid": "cv", "test": "tt"}
_PART = 10_737_418_240
#: Size and MD5 of the parts of the archive, in order, where they could be learned.
_PARTS: tuple[tuple[int | None, str], ...] = (
    (_PART, "md5:c4d200e054e2b80b82bdaf70bd9927a2"),
    (_PART, "md5:f5ad60624a69c1760de6289a0e4f391a"),
    (_PART, "md5:41cd14f12b90a6347afac1e3fad8506a"),
    (_PART, "md5:cf5ec720d68f90ef461fe1713118913b"),
    (_PART, "md5:8f56a37b39ce65df6aca66fc07159d77"),
    (_PART, "md5:b6d4bc7a2592bf09e5985beb2492cbd9"),
    *[(None, "")] * 5,
)

#: Prompt → name of its stem, in the order of the references.
STEMS = {"speech": "speech", "music-mix": "music", "sfx-mix": "sfx"}


def mixtures(root: Path, split: str = "test") -> Iterator[MixtureFiles]:
    """The mixtures of a split: speech, music-mix, sfx-mix; the mixture is their sum.

    Args:
        root: Holds ``dnr_v2``, or ``tr``, ``cv`` and ``tt`` themselves.
        split: ``train``, ``valid`` or ``test``.

    Raises:
        DataError: If a file is missing, or lengths differ.
    """
    check_choice(_TITLE, "split", split, _SPLITS)
    folder = _home(root) / _SPLITS[split]
    clips = clips_in(root, folder, _TITLE)
    require_files(root, (f"{clip}/{stem}.wav" for clip in clips for stem in STEMS.values()), _TITLE)
    for clip in clips:
        yield mixture_of(root, clip, ".wav", clip.name, split)


def clips_in(root: Path, folder: PurePosixPath, corpus: str) -> list[PurePosixPath]:
    """The folders of the clips below a folder, relative to the corpus's; at least one.

    Raises:
        DataError: If there is no such folder, or it holds none.
    """
    require(root, [str(folder)], corpus)
    clips = sorted(path.name for path in (root / folder).iterdir() if path.is_dir())
    if not clips:
        raise DataError(f"{root / folder}: holds no folder of a clip, as {corpus} should.")
    return [folder / clip for clip in clips]


def mixture_of(
    root: Path, clip: PurePosixPath, extension: str, name: str, split: str
) -> MixtureFiles:
    """The mixture whose stems lie in the folder of a clip.

    Raises:
        DataError: If a stem cannot be read, or their lengths differ.
    """
    tracks = {prompt: Track(f"{clip}/{stem}{extension}") for prompt, stem in STEMS.items()}
    check_equal_lengths(root, list(tracks.values()))
    references = tuple(ReferenceFiles(prompt, (track,)) for prompt, track in tracks.items())
    return MixtureFiles(name=name, split=split, references=references)


def _home(root: Path) -> PurePosixPath:
    has_splits = any((root / folder).is_dir() for folder in _SPLITS.values())
    return PurePosixPath("." if has_splits else "dnr_v2")


def _all_mixtures(root: Path) -> Iterator[MixtureFiles]:
    home = root / _home(root)
    present = [split for split, folder in _SPLITS.items() if (home / folder).is_dir()]
    for split in present or ["test"]:
        yield from mixtures(root, split)


CORPUS = Corpus(
    name="dnr-v2",
    title=_TITLE,
    contents="4,866 mixtures of 60 s of speech, music and effects at 44.1 kHz, with stems",
    licence=(
        "as its record states; made of LibriSpeech (CC BY 4.0) and of FMA and FSD50K (each clip "
        "its own, some not for commercial use)"
    ),
    url="https://zenodo.org/records/6949108",
    how_to_get=(
        "Free: one tar in eleven parts; 'cat dnr_v2.tar.gz.* | tar xz' unpacks it. Digests of "
        "the last five parts could not be verified and are not checked."
    ),
    layout="dnr_v2/{tr,cv,tt}/<id>/{mix,speech,music,sfx}.wav",
    archives=tuple(
        Archive(
            f"https://zenodo.org/records/6949108/files/dnr_v2.tar.gz.{number:02d}",
            size_bytes,
            digest,
        )
        for number, (size_bytes, digest) in enumerate(_PARTS)
    ),
    mixtures=_all_mixtures,
)
