"""AudioSet: 10-second cuts of videos, labelled weakly; as far as one has them.

Google publishes lists of videos only; the sound must be fetched video by video. The scripts of
PANNs (audioset_tagging_cnn) keep it as wav files, and pack those into HDF5 files, which the
query-based base model (Zero_Shot_Audio_Source_Separation) reads. Both are read here::

    metadata/class_labels_indices.csv          index,mid,display_name

    metadata/balanced_train_segments.csv       three lines of comments, then
    metadata/unbalanced_train_segments.csv       id, start, end, "mid,mid"
    metadata/eval_segments.csv
    audios/balanced_train_segments/Y<id>.wav
    audios/unbalanced_train_segments/unbalanced_train_segments_part00/Y<id>.wav ...
    audios/eval_segments/Y<id>.wav

    hdf5s/waveforms/balanced_train.h5          audio_name, waveform, target: a row for each clip
    hdf5s/waveforms/unbalanced_train/unbalanced_train_part00.h5 ... part40.h5
    hdf5s/waveforms/eval.h5
    hdf5s/indexes/balanced_train.h5            audio_name, target, and where the clip lies:
    hdf5s/indexes/unbalanced_train/...           hdf5_path, index_in_hdf5
    hdf5s/indexes/eval.h5
    hdf5s/indexes/full_train.h5                the rows of all training sets once more

Where ``hdf5s`` is there, it is read instead of the wav files it was packed from; PANNs keeps it
in another folder than ``metadata``, the base model beside it. An index may leave clips out; a
packed file that no index names is listed whole. Index files with ``mini`` in their name are
left out, as they are when PANNs joins indexes: they name cut copies.

Traps: videos vanish, so no two copies are equal: what is there is listed, and nothing is said
of what is missing. A packed file has an empty row for each clip that was missing, and fills up
shorter clips with zeros to 10 s. ``hdf5_path`` is the path on the machine that packed; what
follows ``waveforms`` in it counts. Labels say that a sound occurs somewhere in a clip, among
other sounds; so the category is ``weak``, which no pool of clean sounds takes in by accident.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np

from unbraid.audio.packed_file import PackedShape, packed_shape, read_columns
from unbraid.data.corpora.base import (
    Corpus,
    files_in,
    recording_of,
    relative,
    require,
    require_files,
)
from unbraid.data.manifest import Recording
from unbraid.errors import AudioError, DataError

_TITLE = "AudioSet"
_LICENCE = "labels CC BY 4.0; the sound belongs to those who uploaded the videos"
_LABEL_LIST = "metadata/class_labels_indices.csv"
#: Set of clips → split.
_SETS = {
    "balanced_train_segments": "train",
    "unbalanced_train_segments": "train",
    "eval_segments": "test",
}
_NUM_COMMENT_LINES = 3
_WAVEFORMS = "hdf5s/waveforms"
_INDEXES = "hdf5s/indexes"
#: What the name of a packed file or of an index has in it → split.
_PACKED_SETS = {"train": "train", "eval": "test"}

#: A clip's packed file below ``hdf5s/waveforms``, its row from 0, and the numbers of its classes.
_Clip: TypeAlias = tuple[str, int, tuple[int, ...]]


@dataclass(frozen=True)
class _PackedFile:
    """A packed file of which clips have been named.

    Attributes:
        path: As manifests write it.
        split: Of all its clips.
        shape: What its clips have in common.
        is_listed: For each row, whether it has been listed.
    """

    path: str
    split: str
    shape: PackedShape
    is_listed: bytearray


def recordings(root: Path) -> Iterator[Recording]:
    """The clips that are there, as ``weak/<label>`` with ``+`` between several labels.

    Labels are the display names in lower case, with ``_`` for what is no letter or digit, in
    the order of the list of labels. A packed clip is a track of its file. Its length and its
    rate are those of the file, which is opened once, so that millions are listed fast.

    Raises:
        DataError: If there is no set at all, a list or a packed file is missing or makes no
            sense, a clip is in no list, or cannot be read.
        MissingExtra: If the clips are packed and h5py is not installed.
    """
    yield from _packed_clips(root) if (root / "hdf5s").is_dir() else _wav_files(root)


# ------------------------------------------------------------------ wav files


def _wav_files(root: Path) -> Iterator[Recording]:
    present = [name for name in _SETS if (root / "audios" / name).is_dir()]
    if not present:
        require(root, ["audios/balanced_train_segments", _WAVEFORMS], _TITLE)
    require(root, [_LABEL_LIST, *(f"metadata/{name}.csv" for name in present)], _TITLE)
    classes = _read_classes(root / _LABEL_LIST)
    labels = list(classes.values())
    numbers = {mid: number for number, mid in enumerate(classes)}
    for name in present:
        clips = _read_clips(root / f"metadata/{name}.csv")
        for path in files_in(root, f"audios/{name}", "**/*.wav", _TITLE):
            identity = path.stem.removeprefix("Y")
            try:
                kind = _kind(sorted(numbers[mid] for mid in clips[identity]), labels)
            except KeyError as error:
                raise DataError(
                    f"{path}: the lists in {root / 'metadata'} do not know {error}; fetch them "
                    "again, or take the clip away."
                ) from error
            yield recording_of(root, path, kind, _SETS[name], _LICENCE)


def _read_classes(path: Path) -> dict[str, str]:
    """Machine name of a class → its display name as kinds have it; in order."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: int(row["index"]))
        return {
            row["mid"]: re.sub(r"[^a-z0-9]+", "_", row["display_name"].lower()).strip("_")
            for row in rows
        }
    except (OSError, csv.Error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not the list of labels ({error}); fetch it again.") from error


def _read_clips(path: Path) -> dict[str, list[str]]:
    """Clip → machine names of its classes."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, skipinitialspace=True))[_NUM_COMMENT_LINES:]
        return {row[0]: row[3].split(",") for row in rows if row}
    except (OSError, csv.Error, UnicodeDecodeError, IndexError) as error:
        raise DataError(f"{path}: not a list of clips ({error}); fetch it again.") from error


def _kind(classes: Sequence[int], labels: Sequence[str]) -> str:
    return "weak/" + "+".join(labels[number] for number in classes)


# ------------------------------------------------------------------ packed files


def _packed_clips(root: Path) -> Iterator[Recording]:
    require(root, [_LABEL_LIST], _TITLE)
    labels = list(_read_classes(root / _LABEL_LIST).values())
    files: dict[str, _PackedFile] = {}
    indexes = sorted((root / _INDEXES).rglob("*.h5"))
    for index in indexes:
        if "mini" not in index.name:
            clips = _clips_of_index(index, len(labels))
            yield from _unlisted(root, clips, index, labels, files)
    for path in files_in(root, _WAVEFORMS, "**/*.h5", _TITLE):
        name = relative(path, root / _WAVEFORMS)
        if name not in files:
            clips = _clips_of_packed_file(path, name, len(labels))
            yield from _unlisted(root, clips, path, labels, files)


def _unlisted(
    root: Path,
    clips: Iterator[_Clip],
    named_by: Path,
    labels: Sequence[str],
    files: dict[str, _PackedFile],
) -> Iterator[Recording]:
    """Clips that were not listed before; notes in ``files`` that now they are."""
    for name, row, classes in clips:
        file = files.get(name)
        if file is None:
            file = files[name] = _described(root, name, named_by)
        shape = file.shape
        if not 0 <= row < shape.num_tracks:
            raise DataError(
                f"{root / file.path}: has {shape.num_tracks} clips, but {named_by} names its clip "
                f"{row + 1}; make the indexes again."
            )
        if file.is_listed[row]:
            continue
        file.is_listed[row] = True
        if not classes:
            raise DataError(
                f"{named_by}: clip {row + 1} of {root / file.path} has a name but no label; "
                "pack it again."
            )
        yield Recording(
            path=file.path,
            kind=_kind(classes, labels),
            split=file.split,
            duration_s=shape.num_samples / shape.sample_rate,
            bandwidth_hz=shape.sample_rate / 2,
            speaker="",
            licence=_LICENCE,
            sample_rate=shape.sample_rate,
            track=row + 1,
        )


def _described(root: Path, name: str, named_by: Path) -> _PackedFile:
    """What a packed file holds; ``named_by`` is an index, or the file itself."""
    path = f"{_WAVEFORMS}/{name}"
    require_files(root, [path], str(named_by))
    for known in (PurePosixPath(name).name, named_by.name):
        split = next((split for part, split in _PACKED_SETS.items() if part in known), None)
        if split is not None:
            break
    else:
        raise DataError(
            f"{root / path}: neither its name nor that of its index says whether it is for "
            "training or for the test; put train or eval into its name."
        )
    try:
        shape = packed_shape(root / path)
    except AudioError as error:
        raise DataError(str(error)) from error
    return _PackedFile(path, split, shape, bytearray(shape.num_tracks))


def _clips_of_index(path: Path, num_labels: int) -> Iterator[_Clip]:
    columns = ("target", "audio_name", "hdf5_path", "index_in_hdf5")
    for targets, names, packed_paths, rows in _columns(path, columns, num_labels):
        for classes, name, packed_path, row in zip(
            _classes_of(targets), names.tolist(), packed_paths.tolist(), rows.tolist(), strict=True
        ):
            if name:
                yield _below_waveforms(path, packed_path), row, classes


def _clips_of_packed_file(path: Path, name: str, num_labels: int) -> Iterator[_Clip]:
    row = 0
    for targets, names in _columns(path, ("target", "audio_name"), num_labels):
        for classes, audio_name in zip(_classes_of(targets), names.tolist(), strict=True):
            if audio_name:
                yield name, row, classes
            row += 1


def _columns(path: Path, names: Sequence[str], num_labels: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Data sets side by side; the first of them has a column for each label."""
    try:
        for columns in read_columns(path, names):
            if columns[0].shape[1] != num_labels:
                raise DataError(
                    f"{path}: its clips are labelled with {columns[0].shape[1]} classes, but "
                    f"{_LABEL_LIST} lists {num_labels}; take the list it was packed with."
                )
            yield columns
    except AudioError as error:
        raise DataError(str(error)) from error


def _classes_of(targets: np.ndarray) -> list[tuple[int, ...]]:
    """The numbers of the classes of each row."""
    rows, classes = np.nonzero(targets)
    starts = np.searchsorted(rows, np.arange(1, len(targets)))
    return [tuple(found.tolist()) for found in np.split(classes, starts)]


@lru_cache
def _below_waveforms(index: Path, packed_path: bytes) -> str:
    """A path on the machine that packed, as it is below ``hdf5s/waveforms`` here."""
    text = packed_path.decode("utf-8", "replace").replace("\\", "/")
    parts = PurePosixPath(text).parts
    if "waveforms" not in parts[:-1] or ".." in parts:
        raise DataError(
            f"{index}: names {text!r}, which is not below a folder waveforms; make the indexes "
            "again, or take this one away."
        )
    last = max(place for place, part in enumerate(parts) if part == "waveforms")
    return "/".join(parts[last + 1 :])


CORPUS = Corpus(
    name="audioset",
    title=_TITLE,
    contents="Up to 2 million clips of 10 s of video sound with weak labels of 527 classes",
    licence=_LICENCE,
    url="https://research.google.com/audioset/download.html",
    how_to_get=(
        "By hand: the lists are there, the sound must be fetched from the videos, for example "
        "with the scripts of github.com/qiuqiangkong/audioset_tagging_cnn. The wav files are "
        "read, and the HDF5 files that those scripts pack, with pip install 'unbraid[hdf5]'; "
        "put the list of labels beside those."
    ),
    layout=(
        "metadata/class_labels_indices.csv, and either\n"
        "metadata/{balanced_train,unbalanced_train,eval}_segments.csv,\n"
        "audios/{balanced_train,unbalanced_train,eval}_segments/**/Y<id>.wav, or\n"
        "hdf5s/waveforms/{balanced_train,eval,unbalanced_train/unbalanced_train_part00}.h5 ...,\n"
        "hdf5s/indexes/**/*.h5 (may be missing)"
    ),
    recordings=recordings,
)
