"""WSJ0: read newspaper sentences at 16 kHz, those of them that WSJ0-2mix mixes.

Layout: the discs of LDC93S6A, or any folder with their files below it, and the lists of
WSJ0-2mix beside them::

    11-1.1/wsj0/si_tr_s/01t/01to030v.wv1
    mix_2_spk_tr.txt
    mix_2_spk_cv.txt
    mix_2_spk_tt.txt

A line of a list is two files and their levels in dB, for example
``wsj0/si_tr_s/40n/40na010x.wav 1.9857 wsj0/si_tr_s/01x/01xo031a.wav -1.9857``. The lists come
with the scripts of WSJ0-2mix. Utterances are found by set, speaker and name, so it does not
matter on which disc they lie, or whether they were converted: of ``.wav``, ``.flac``, ``.sph``
and ``.wv1`` the first in this order is taken.

Traps: ``.wv1`` files are NIST SPHERE, often packed by Shorten, which FFmpeg decodes.
``.wv2`` is a second microphone, which nobody mixes. The test list is of other speakers
(``si_dt_05``, ``si_et_05``); the validation list is not, and an utterance that is in the
training list too counts as training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unbraid.data.corpora.base import Corpus, recording_of, require
from unbraid.data.manifest import Recording
from unbraid.errors import DataError, in_brief

_TITLE = "WSJ0"
_LICENCE = "LDC User Agreement"
_SUFFIXES = (".wav", ".flac", ".sph", ".wv1")

#: Lists of WSJ0-2mix, and the split that each stands for; an earlier list wins.
LISTS = {
    "mix_2_spk_tr.txt": "train",
    "mix_2_spk_cv.txt": "valid",
    "mix_2_spk_tt.txt": "test",
}


def recordings(root: Path) -> Iterator[Recording]:
    """The utterances that WSJ0-2mix mixes.

    Raises:
        DataError: If a list is missing or makes no sense, an utterance that it names is
            nowhere below the folder, or a file cannot be read.
    """
    require(root, list(LISTS), _TITLE)
    splits: dict[str, str] = {}
    for name, split in LISTS.items():
        for utterance in _utterances(root / name):
            splits.setdefault(utterance, split)
    found = _files_by_utterance(root)
    if missing := sorted(splits.keys() - found.keys()):
        raise DataError(
            f"{root}: {len(missing)} of {len(splits)} utterances of {_TITLE} are nowhere below "
            f"it: {in_brief(missing, limit=5)}; copy the missing discs there."
        )
    for utterance in sorted(splits):
        yield recording_of(
            root,
            found[utterance],
            "speech/wsj0",
            splits[utterance],
            _LICENCE,
            speaker=utterance.split("/")[1],
        )


def _utterances(path: Path) -> Iterator[str]:
    """``set/speaker/name`` of all utterances that a list of mixtures names."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        # file, level, file, level
        words = line.split()
        if not words:
            continue
        files = [_utterance_of(Path(word)) for word in words[::2]]
        if len(words) != 4 or None in files:
            raise DataError(
                f"{path}, line {number}: not two files and their levels; take the list from the "
                "scripts of WSJ0-2mix."
            )
        yield from (file for file in files if file is not None)


def _files_by_utterance(root: Path) -> dict[str, Path]:
    """Where each utterance lies, preferring what was converted."""
    found: dict[str, Path] = {}
    paths = [path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES]
    for path in sorted(paths, key=lambda path: (_SUFFIXES.index(path.suffix.lower()), path)):
        if utterance := _utterance_of(path.relative_to(root)):
            found.setdefault(utterance, path)
    return found


def _utterance_of(path: Path) -> str | None:
    """``set/speaker/name`` in small letters, since some copies of the discs have capitals."""
    parts = path.with_suffix("").parts[-3:]
    return "/".join(parts).lower() if len(parts) == 3 else None


CORPUS = Corpus(
    name="wsj0",
    title=_TITLE,
    contents="Read newspaper sentences, those that WSJ0-2mix mixes, 16 kHz",
    licence=_LICENCE,
    url="https://catalog.ldc.upenn.edu/LDC93S6A",
    how_to_get=(
        "Sold by the LDC (LDC93S6A). Copy its discs into one folder, and into it mix_2_spk_tr.txt, "
        "mix_2_spk_cv.txt and mix_2_spk_tt.txt of "
        "http://www.merl.com/demos/deep-clustering/create-speaker-mixtures.zip."
    ),
    layout=(
        "mix_2_spk_tr.txt, mix_2_spk_cv.txt, mix_2_spk_tt.txt\n"
        "<anywhere>/si_tr_s/<speaker>/<utterance>.wv1 or .wav, and si_dt_05, si_et_05"
    ),
    recordings=recordings,
)
