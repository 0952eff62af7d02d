"""VCTK 0.92: read English from 110 speakers, at 48 kHz.

Layout::

    wav48_silence_trimmed/p225/p225_001_mic1.flac
    wav48_silence_trimmed/p225/p225_001_mic2.flac
    txt/p225/p225_001.txt
    speaker-info.txt

Traps: every sentence was recorded with two microphones at once, so only the first is listed;
``p280`` and ``p315`` lack the second altogether. The two speakers of the VCTK-DEMAND test set
are kept for testing here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unbraid.data.corpora.base import Archive, Corpus, files_in, recording_of
from unbraid.data.corpora.parallel_folders import inside
from unbraid.data.manifest import Recording

_TITLE = "VCTK 0.92"
_LICENCE = "CC BY 4.0"

#: Speakers that TUSS keeps apart, as VCTK-DEMAND does; all others are for training.
VALID_SPEAKERS = frozenset({"p226", "p287"})
TEST_SPEAKERS = frozenset({"p232", "p257"})


def split_of(speaker: str) -> str:
    """The split that a speaker belongs to."""
    if speaker in TEST_SPEAKERS:
        return "test"
    return "valid" if speaker in VALID_SPEAKERS else "train"


def recordings(root: Path) -> Iterator[Recording]:
    """All sentences as the first microphone heard them.

    Raises:
        DataError: If the folder does not hold the corpus, or a file cannot be read.
    """
    folder = f"{inside(root, 'VCTK-Corpus-0.92')}wav48_silence_trimmed"
    for path in files_in(root, folder, "*/*_mic1.flac", _TITLE):
        speaker = path.parent.name
        yield recording_of(root, path, "speech/vctk", split_of(speaker), _LICENCE, speaker=speaker)


CORPUS = Corpus(
    name="vctk",
    title=_TITLE,
    contents="Read English from 110 speakers with many accents, 48 kHz",
    licence=_LICENCE,
    url="https://datashare.ed.ac.uk/handle/10283/3443",
    how_to_get="Free.",
    layout="wav48_silence_trimmed/<speaker>/<speaker>_<sentence>_mic1.flac",
    archives=(
        Archive(
            "https://datashare.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip",
            11_747_302_977,
            "md5:8a6ba2946b36fcbef0212cad601f4bfa",
        ),
    ),
    recordings=recordings,
)
