"""LibriSpeech: read English from 2,484 speakers, at 16 kHz.

Layout::

    LibriSpeech/SPEAKERS.TXT
    LibriSpeech/train-clean-100/19/198/19-198-0000.flac
    LibriSpeech/train-clean-100/19/198/19-198.trans.txt

and so on for ``train-clean-360``, ``train-other-500``, ``dev-clean``, ``dev-other``,
``test-clean`` and ``test-other``; the first number is the speaker, the second the chapter. The
folder ``LibriSpeech`` itself is accepted too. A copy may hold any of the seven parts.

Traps: each chapter's ``.trans.txt`` names its sentences, and it is checked that all are there: a
copy whose unpacking broke off looks whole otherwise. The recordings were MP3 before.

Source: Panayotov, Chen, Povey, Khudanpur, "LibriSpeech: an ASR corpus based on public domain
audio books", ICASSP 2015.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unbraid.data.corpora.base import (
    Archive,
    Corpus,
    files_in,
    recording_of,
    relative,
    require,
    require_files,
)
from unbraid.data.corpora.parallel_folders import inside
from unbraid.data.manifest import Recording

_TITLE = "LibriSpeech"
_LICENCE = "CC BY 4.0"

#: Parts of the corpus, and the split that each belongs to.
PARTS = {
    "train-clean-100": "train",
    "train-clean-360": "train",
    "train-other-500": "train",
    "dev-clean": "valid",
    "dev-other": "valid",
    "test-clean": "test",
    "test-other": "test",
}


def recordings(root: Path) -> Iterator[Recording]:
    """All sentences of the parts that are there.

    Raises:
        DataError: If no part is there, a sentence is missing that a transcript names, or a
            file cannot be read.
    """
    prefix = inside(root, "LibriSpeech")
    parts = [part for part in PARTS if (root / f"{prefix}{part}").is_dir()]
    if not parts:
        require(root, [f"{prefix}{part}" for part in PARTS], _TITLE)
    for part in parts:
        for transcript in files_in(root, f"{prefix}{part}", "*/*/*.trans.txt", _TITLE):
            paths = [transcript.parent / f"{name}.flac" for name in _named_in(transcript)]
            require_files(root, (relative(path, root) for path in paths), transcript.name)
            for path in paths:
                yield recording_of(
                    root,
                    path,
                    "speech/librispeech",
                    PARTS[part],
                    _LICENCE,
                    speaker=transcript.parent.parent.name,
                )


def _named_in(transcript: Path) -> list[str]:
    """The sentences of a chapter: the first word of each line."""
    lines = transcript.read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line.strip()]


_ARCHIVES = (
    ("dev-clean", 337_926_286, "42e2234ba48799c1f50f24a7926300a1"),
    ("dev-other", 314_305_928, "c8d0bcc9cca99d4f8b62fcc847357931"),
    ("test-clean", 346_663_984, "32fa31d27d2e1cad72775fee3f4849a9"),
    ("test-other", 328_757_843, "fb5a50374b501bb3bac4815ee91d3135"),
    ("train-clean-100", 6_387_309_499, "2a93770f6d5c6c964bc36631d331a522"),
    ("train-clean-360", 23_049_477_885, "c0e676e450a7ff2f54aeade5171606fa"),
    ("train-other-500", 30_593_501_606, "d1a0fd59409feb2c614ce4d30c387708"),
)

CORPUS = Corpus(
    name="librispeech",
    title=_TITLE,
    contents="Read English from 2,484 speakers, 982 hours, 16 kHz",
    licence=_LICENCE,
    url="https://www.openslr.org/12",
    how_to_get="Free. Any of its parts can be used without the others.",
    layout="LibriSpeech/train-clean-100/<speaker>/<chapter>/<sentence>.flac and .trans.txt",
    archives=tuple(
        Archive(f"https://www.openslr.org/resources/12/{part}.tar.gz", size, f"md5:{md5}")
        for part, size, md5 in _ARCHIVES
    ),
    recordings=recordings,
)
