"""DEMAND: noise of eighteen places, recorded with sixteen microphones.

From Zenodo, one zip per place and rate. Each unpacks into a folder named after the place alone::

    DKITCHEN/ch01.wav ... ch16.wav
    ...
    TMETRO/ch01.wav ... ch16.wav

Traps: the zips of 16 kHz and of 48 kHz unpack into the same folders, and the later one
overwrites the earlier. SCAFE is published at 48 kHz only. Only the first microphone is listed,
as TUSS takes it. Five places are the test noises of VCTK-DEMAND and are no training material.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from unbraid.data.activity import all_pieces_s
from unbraid.data.corpora.base import Archive, Corpus, recording_of, require, require_files
from unbraid.data.manifest import Recording
from unbraid.errors import DataError

_TITLE = "DEMAND"
_LICENCE = "CC BY 4.0 (Zenodo); the document inside says CC BY-SA 3.0"
_SAMPLE_RATE = 48000
_TEST_PLACES = ("DLIVING", "OOFFICE", "TBUS", "PCAFETER", "SPSQUARE")
#: Place → size and MD5 of its zip of 48 kHz, where they could be learned.
_ZIPS: dict[str, tuple[int | None, str]] = {
    "DKITCHEN": (336_992_458, "md5:b4d38241fbd50d8a17f8742ca6870c10"),
    "DLIVING": (None, ""),
    "DWASHING": (306_101_499, "md5:ecf765f12b8d3ada7ef0ec664b8f8d73"),
    "NFIELD": (None, ""),
    "NPARK": (None, ""),
    "NRIVER": (None, ""),
    "OHALLWAY": (252_905_617, "md5:cb9227a75d2c1342de0b6548da4bbb1b"),
    "OMEETING": (None, ""),
    "OOFFICE": (277_643_831, "md5:6f87edf8a6b03f17b3f693af1754aab4"),
    "PCAFETER": (None, ""),
    "PRESTO": (None, ""),
    "PSTATION": (None, ""),
    "SCAFE": (None, ""),
    "SPSQUARE": (None, ""),
    "STRAFFIC": (None, ""),
    "TBUS": (None, ""),
    "TCAR": (373_520_251, "md5:8550f03e8356d8054ae845e8b4b6c773"),
    "TMETRO": (367_513_573, "md5:00d895020233f94348aafce7140d671f"),
}
PLACES = tuple(_ZIPS)


def recordings(root: Path) -> Iterator[Recording]:
    """The first channel of every place, with all pieces of 8 s; five places are ``test``.

    Raises:
        DataError: If a place is missing, or is not the copy of 48 kHz.
    """
    require(root, PLACES, _TITLE)
    require_files(root, (f"{place}/ch01.wav" for place in PLACES), _TITLE)
    for place in PLACES:
        path = root / place / "ch01.wav"
        split = "test" if place in _TEST_PLACES else "train"
        recording = recording_of(root, path, f"sfx/ambience_{place.lower()}", split, _LICENCE)
        if recording.sample_rate != _SAMPLE_RATE:
            raise DataError(
                f"{path}: {recording.sample_rate} Hz, but {_SAMPLE_RATE} Hz are needed; unpack "
                f"{place}_48k.zip over it."
            )
        yield replace(recording, pieces_s=all_pieces_s(recording.duration_s))


CORPUS = Corpus(
    name="demand",
    title=_TITLE,
    contents="Noise of 18 indoor and outdoor places, 5 minutes each, 16 channels at 48 kHz",
    licence=_LICENCE,
    url="https://zenodo.org/records/1227121",
    how_to_get=(
        "Free: one zip of 48 kHz per place. Sizes and digests of twelve of them could not be "
        "verified and are not checked."
    ),
    layout="<PLACE>/ch01.wav, for 18 places from DKITCHEN to TMETRO, at 48 kHz",
    archives=tuple(
        Archive(f"https://zenodo.org/records/1227121/files/{place}_48k.zip", size_bytes, digest)
        for place, (size_bytes, digest) in _ZIPS.items()
    ),
    recordings=recordings,
)
