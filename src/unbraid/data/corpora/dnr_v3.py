"""Divide and Remaster, version 3: the same task in many languages, without voices in the music.

Each language has archives of its own, unpacked side by side::

    multi/audio/{train,val,test}/<id>/{speech,music,sfx,sfx_fg,sfx_bg,mixture}.flac
    multi/manifest/..., multi/audio_metadata/...
    eng/audio/...

Traps: what the recipe writes itself is wav, what is published is flac; both are read.
``mixture`` is not read: the mixture is the sum of speech, music and sfx. All is mono at 48 kHz.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from unbraid.data.corpora.base import Corpus, MixtureFiles, check_choice, require, require_files
from unbraid.data.corpora.dnr_v2 import STEMS, clips_in, mixture_of

_TITLE = "Divide and Remaster v3"
_SPLITS = {"train": "train", "valid": "val", "test": "test"}


def mixtures(root: Path, split: str = "test", *, language: str = "multi") -> Iterator[MixtureFiles]:
    """The mixtures of a split of a language: speech, music-mix, sfx-mix; the mixture is their sum.

    Args:
        root: Holds the folders of the languages.
        split: ``train``, ``valid`` or ``test``.
        language: ``multi`` for all languages, or a code such as ``eng``.

    Raises:
        DataError: If the language or a file is missing, or lengths differ.
    """
    check_choice(_TITLE, "split", split, _SPLITS)
    folder = PurePosixPath(language) / "audio" / _SPLITS[split]
    require(root, [str(folder)], _TITLE)
    clips = clips_in(root, folder, _TITLE)
    extension = ".wav" if (root / clips[0] / "speech.wav").is_file() else ".flac"
    files = (f"{clip}/{stem}{extension}" for clip in clips for stem in STEMS.values())
    require_files(root, files, _TITLE)
    for clip in clips:
        yield mixture_of(root, clip, extension, f"{language}_{clip.name}", split)


def _all_mixtures(root: Path) -> Iterator[MixtureFiles]:
    present = [
        (language, split)
        for language in sorted(path.parent.name for path in root.glob("*/audio"))
        for split, folder in _SPLITS.items()
        if (root / language / "audio" / folder).is_dir()
    ]
    for language, split in present or [("multi", "test")]:
        yield from mixtures(root, split, language=language)


CORPUS = Corpus(
    name="dnr-v3",
    title=_TITLE,
    contents="7,800 mixtures of 60 s per language of speech, music and effects at 48 kHz",
    licence="CC BY-SA 4.0",
    url="https://github.com/kwatcharasupat/divide-and-remaster-v3",
    how_to_get=(
        "Free, by hand: fetch dnr-v3-multi-audio.test.tar.gz (and train, val) from the links of "
        "the wiki of that page and unpack them in one folder. No sizes or digests could be "
        "verified, so nothing is fetched from here."
    ),
    layout="<language>/audio/{train,val,test}/<id>/{speech,music,sfx}.flac",
    mixtures=_all_mixtures,
)
