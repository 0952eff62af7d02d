"""FSD50K: sound events from Freesound, labelled by people.

From Zenodo. The sound comes in split zips; by hand they must be joined before they are unpacked
(``zip -s 0 FSD50K.dev_audio.zip --out dev.zip``)::

    FSD50K.dev_audio/<fname>.wav
    FSD50K.eval_audio/<fname>.wav             may be missing
    FSD50K.ground_truth/dev.csv               fname,labels,mids,split (train or val)
    FSD50K.ground_truth/eval.csv              fname,labels,mids
    FSD50K.metadata/dev_clips_info_FSD50K.json    licence of every clip; may be missing
    FSD50K.metadata/eval_clips_info_FSD50K.json

Traps: the labels of a clip are smeared, that is, every class comes with all classes above it
in the ontology, so that hardly a row has one label. A clip counts as having a single label
here if all its labels but one are implied by another one, where a label implies what all
clips of the corpus with that label also have. How TUSS itself counts is not published.
Every clip has its own licence; some forbid commercial use.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unbraid.data.corpora.base import Archive, Corpus, recording_of, require, require_files
from unbraid.data.manifest import PIECE_S, Recording
from unbraid.errors import DataError

_TITLE = "FSD50K"
_LICENCE = "CC BY 4.0 as a whole; each clip CC0, CC BY, CC BY-NC or CC Sampling+"
_FILES = "https://zenodo.org/records/4060432/files"
_SPLITS = {"train": "train", "val": "valid"}
_FULL_PART = 3_221_225_472

#: Classes whose clips, and those of all classes below them, are no effects for TUSS.
NOT_EFFECTS = frozenset({"Human_voice", "Respiratory_sounds", "Human_group_actions", "Music"})


def recordings(root: Path) -> Iterator[Recording]:
    """The clips that TUSS takes: no voices, no people, no music.

    Clips of one label shorter than 8 s are single sounds, ``sfx/<label>``. Clips of 8 s or
    longer, of one label or several, are ``sfx/ambience_<label>``, with ``+`` between labels.
    Short clips of several labels are left out. Labels are the most specific ones, in lower
    case. Splits are ``train``, ``valid`` and, where the folder is there, ``test`` (eval).

    Raises:
        DataError: If a part is missing, a list makes no sense, or a clip cannot be read.
    """
    lists = {"dev": "FSD50K.ground_truth/dev.csv", "eval": "FSD50K.ground_truth/eval.csv"}
    require(root, ["FSD50K.dev_audio", *lists.values()], _TITLE)
    rows = {part: _read_list(root / path) for part, path in lists.items()}
    if not (root / "FSD50K.eval_audio").is_dir():
        del lists["eval"]
    implied = implied_labels([labels for part in rows.values() for _, labels, _ in part])
    for part, path in lists.items():
        wanted = [row for row in rows[part] if NOT_EFFECTS.isdisjoint(row[1])]
        require_files(root, (f"FSD50K.{part}_audio/{name}.wav" for name, _, _ in wanted), path)
        licences = _read_licences(root / f"FSD50K.metadata/{part}_clips_info_FSD50K.json")
        for name, labels, split in wanted:
            specific = [label.lower() for label in most_specific(labels, implied)]
            recording = recording_of(
                root,
                root / f"FSD50K.{part}_audio" / f"{name}.wav",
                "sfx/" + specific[0],
                split,
                licences.get(name, _LICENCE),
            )
            if recording.duration_s >= PIECE_S:
                yield replace(recording, kind="sfx/ambience_" + "+".join(specific))
            elif len(specific) == 1:
                yield recording


def implied_labels(clips: Iterable[Sequence[str]]) -> dict[str, set[str]]:
    """For every label, those that all clips with that label also have.

    >>> implied = implied_labels([["Dog", "Animal"], ["Cat", "Animal"]])
    >>> implied["Dog"], implied["Animal"]
    ({'Animal'}, set())
    """
    together: dict[str, set[str]] = {}
    for labels in clips:
        for label in labels:
            together[label] = together.get(label, set(labels)) & set(labels)
    return {label: others - {label} for label, others in together.items()}


def most_specific(labels: Sequence[str], implied: Mapping[str, set[str]]) -> list[str]:
    """The labels of a clip that none of its other labels implies.

    Of two that imply each other the one listed first stays, as lists go from leaf to root.
    """
    return [
        label
        for place, label in enumerate(labels)
        if not any(
            label in implied[other] and (other not in implied[label] or other_place < place)
            for other_place, other in enumerate(labels)
        )
    ]


def _read_list(path: Path) -> list[tuple[str, list[str], str]]:
    """Name, labels and split of every clip of a list."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                (row["fname"], row["labels"].split(","), _SPLITS[row["split"]])
                if "split" in row
                else (row["fname"], row["labels"].split(","), "test")
                for row in csv.DictReader(file)
            ]
    except (OSError, csv.Error, UnicodeDecodeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: not a list of {_TITLE} ({error}); unpack it again.") from error


def _read_licences(path: Path) -> dict[str, str]:
    """Name of a clip → its licence; none where the file is missing."""
    if not path.is_file():
        return {}
    try:
        clips = json.loads(path.read_text(encoding="utf-8"))
        return {name: clip["license"] for name, clip in clips.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: holds no licences ({error}); unpack it again.") from error


CORPUS = Corpus(
    name="fsd50k",
    title=_TITLE,
    contents="51,197 labelled clips of sound events (0.3 to 30 s) at 44.1 kHz",
    licence=_LICENCE,
    url="https://zenodo.org/records/4060432",
    how_to_get=(
        "Free. The sound comes as split zips, which --download puts together. By hand, keep the "
        "parts in one folder and join them: 'zip -s 0 FSD50K.dev_audio.zip --out dev.zip', the "
        "same for eval."
    ),
    layout=(
        "FSD50K.dev_audio/*.wav, FSD50K.eval_audio/*.wav,\n"
        "FSD50K.ground_truth/{dev,eval}.csv,\n"
        "FSD50K.metadata/{dev,eval}_clips_info_FSD50K.json"
    ),
    archives=tuple(
        Archive(f"{_FILES}/FSD50K.{name}", size_bytes, f"md5:{md5}")
        for name, size_bytes, md5 in (
            ("ground_truth.zip", 334_701, "ca27382c195e37d2269c4c866dd73485"),
            ("metadata.zip", 6_700_838, "b9ea0c829a411c1d42adb9da539ed237"),
            ("dev_audio.z01", _FULL_PART, "faa7cf4cc076fc34a44a479a5ed862a3"),
            ("dev_audio.z02", _FULL_PART, "8f9b66153e68571164fb1315d00bc7bc"),
            ("dev_audio.z03", _FULL_PART, "1196ef47d267a993d30fa98af54b7159"),
            ("dev_audio.z04", _FULL_PART, "d088ac4e11ba53daf9f7574c11cccac9"),
            ("dev_audio.z05", _FULL_PART, "81356521aa159accd3c35de22da28c7f"),
            ("dev_audio.zip", 2_306_663_327, "c480d119b8f7a7e32fdb58f3ea4d6c5a"),
            ("eval_audio.z01", _FULL_PART, "3090670eaeecc013ca1ff84fe4442aeb"),
            ("eval_audio.zip", 3_037_675_767, "6fa47636c3a3ad5c7dfeba99f2637982"),
        )
    ),
    recordings=recordings,
)
