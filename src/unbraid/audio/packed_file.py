"""Packed HDF5 files: many clips of one length in one file, as AudioSet is often kept.

The tools of PANNs (audioset_tagging_cnn), which the query-based base model
(Zero_Shot_Audio_Source_Separation) takes over, pack clips into data sets whose rows belong
together::

    waveform     [clip, time]    16-bit integers, or floats in early versions
    audio_name   [clip]          "Y<id>.wav"
    target       [clip, class]   whether a class is heard
    attribute sample_rate        samples per second; 32000 where it is missing

Each row is an audio track here, counted from 1. All tracks are mono and equally long: shorter
clips were filled up with zeros. The row of a clip that was missing when the file was packed
has zeros and an empty name; it is refused, not read as silence.

HDF5 is read by h5py, which is optional and imported only when such a file is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from unbraid.audio.info import AudioInfo
from unbraid.audio.limits import check_plausible
from unbraid.errors import AudioError, MissingExtra

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_USUAL_RATE = 32_000
# What a sample of 1.0 was multiplied by when it was packed.
_FULL_SCALE = 32_767.0
# Data set → its dimensions, NumPy's codes for what it may hold, and that in words.
_DATA_SETS = {
    "audio_name": ("[clip]", "S", "names"),
    "hdf5_path": ("[clip]", "S", "paths"),
    "index_in_hdf5": ("[clip]", "iu", "whole numbers"),
    "target": ("[clip, class]", "biuf", "yes or no"),
    "waveform": ("[clip, time]", "if", "samples"),
}
# What h5py raises for damaged files, depending on which part is damaged.
_FAILURES = (OSError, RuntimeError, LookupError, ValueError, TypeError)


@dataclass(frozen=True)
class PackedShape:
    """What all tracks of a packed file have in common.

    Attributes:
        num_tracks: Rows, empty ones counted.
        num_samples: Samples in each.
        sample_rate: Samples per second.
    """

    num_tracks: int
    num_samples: int
    sample_rate: int


def is_packed(head: bytes) -> bool:
    """Say from a file's first bytes whether it is an HDF5 file."""
    return head.startswith(_SIGNATURE)


class PackedFileReader:
    """One track of an open packed file.

    Opening reads headers and a name, however many tracks there are and however long they are.

    Attributes:
        sample_rate: Samples per second, the same for all tracks.
        num_channels: Always one.
    """

    def __init__(self, path: Path, track: int | None) -> None:
        """Open ``path`` at a track, from 1; None for the first.

        Raises:
            AudioError: If it is damaged, holds no packed waveforms, has no such track, or the
                track is empty.
            MissingExtra: If h5py is not installed.
        """
        with ExitStack() as stack:
            self._file = stack.enter_context(_open(path))
            self._waveforms, self._shape = _waveforms(path, self._file)
            self._path = path
            self._track = 1 if track is None else track
            num_tracks = self._shape.num_tracks
            if not 1 <= self._track <= num_tracks:
                raise AudioError(
                    f"{path}: has no audio track {self._track}; it has {num_tracks} "
                    f"track{'' if num_tracks == 1 else 's'}, one for each packed clip."
                )
            self._name = self._checked_name()
            stack.pop_all()
        self.sample_rate = self._shape.sample_rate
        self.num_channels = 1

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def info(self) -> AudioInfo:
        """Say what the track holds; its samples are not read."""
        return AudioInfo(
            sample_rate=self.sample_rate,
            num_channels=self.num_channels,
            num_samples=self._shape.num_samples,
            format="HDF5",
            subtype="PCM_16" if self._waveforms.dtype.kind == "i" else "FLOAT",
            tags={"title": self._name} if self._name else {},
            track=self._track,
            num_tracks=self._shape.num_tracks,
        )

    def blocks(self, block_length: int) -> Iterator[np.ndarray]:
        """Yield float32 blocks ``[time, channel]`` to the end of the track.

        Raises:
            AudioError: With the time, if the file is damaged there.
        """
        for first in range(0, self._shape.num_samples, block_length):
            yield self.span(first, block_length)

    def span(self, first: int, count: int) -> np.ndarray:
        """Samples ``[time, channel]`` of the middle; fewer than ``count`` where the track ends.

        Raises:
            AudioError: If the file is damaged there.
        """
        try:
            samples = self._waveforms[self._track - 1, first : first + count]
        except _FAILURES as error:
            raise AudioError(
                f"{self._path}: track {self._track} is damaged at about "
                f"{first / self.sample_rate:.2f} s ({_reason(error)}); fetch the file again, "
                "or pack it again."
            ) from error
        is_integer = samples.dtype.kind == "i"
        with np.errstate(over="ignore"):  # infinity is refused by whoever asked
            block: np.ndarray = samples.astype(np.float32)
        return (block / np.float32(_FULL_SCALE) if is_integer else block)[:, np.newaxis]

    def _checked_name(self) -> str:
        """The clip's name without its extension; empty where the file holds no names."""
        try:
            if "audio_name" not in self._file:
                return ""
            found = self._file["audio_name"][self._track - 1]
        except _FAILURES as error:
            raise _damaged(self._path, error) from error
        name = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
        if not name:
            raise AudioError(
                f"{self._path}: track {self._track} is empty, since its clip was missing when the "
                "file was packed; choose another track."
            )
        return PurePosixPath(name).stem


def packed_shape(path: Path) -> PackedShape:
    """How many tracks a packed file has, and how long they are; no track is read.

    Raises:
        AudioError: If it is damaged or holds no packed waveforms.
        MissingExtra: If h5py is not installed.
    """
    with _open(path) as file:
        return _waveforms(path, file)[1]


def read_columns(
    path: Path, names: Sequence[str], num_rows: int = 4096
) -> Iterator[tuple[np.ndarray, ...]]:
    """Data sets of a packed file, or of an index of such files, side by side.

    Args:
        path: The file.
        names: Which data sets, of those that packed files and their indexes have.
        num_rows: Rows that are read at a time.

    Yields:
        The same rows of each, at most ``num_rows`` of them; text as bytes.

    Raises:
        AudioError: If the file is damaged, lacks a data set, or they differ in length.
        MissingExtra: If h5py is not installed.
    """
    with _open(path) as file:
        columns = [_data_set(path, file, name) for name in names]
        lengths = [int(column.shape[0]) for column in columns]
        if len(set(lengths)) > 1:
            found = ", ".join(f"{n} of {name}" for name, n in zip(names, lengths, strict=True))
            raise AudioError(f"{path}: its rows do not belong together ({found}); pack it again.")
        for first in range(0, lengths[0], num_rows):
            try:
                rows = tuple(column[first : first + num_rows] for column in columns)
            except _FAILURES as error:
                raise _damaged(path, error) from error
            yield rows


def _open(path: Path) -> Any:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{path}: reading HDF5 files needs the package {error.name}; install it with: "
            "pip install 'unbraid[hdf5]'"
        ) from error
    try:
        # Corpora lie on shared disks, and not all of those can lock files.
        return h5py.File(path, "r", locking="best-effort")
    except _FAILURES as error:
        raise _damaged(path, error) from error


def _waveforms(path: Path, file: Any) -> tuple[Any, PackedShape]:
    waveforms = _data_set(path, file, "waveform")
    if waveforms.dtype.kind == "i" and waveforms.dtype.itemsize != 2:
        raise AudioError(
            f"{path}: its waveforms are {waveforms.dtype}, not 16-bit integers or floats; pack it "
            "again."
        )
    try:
        sample_rate = int(np.asarray(file.attrs.get("sample_rate", _USUAL_RATE)).item())
    except _FAILURES as error:
        raise AudioError(
            f"{path}: its attribute sample_rate is not a number ({_reason(error)}); pack it again."
        ) from error
    check_plausible(path, sample_rate, 1)
    num_tracks, num_samples = map(int, waveforms.shape)
    return waveforms, PackedShape(num_tracks, num_samples, sample_rate)


def _data_set(path: Path, file: Any, name: str) -> Any:
    dimensions, codes, content = _DATA_SETS[name]
    try:
        if name in file:
            found = file[name]
            shape = getattr(found, "shape", None) or ()
            if len(shape) == len(dimensions.split(",")) and found.dtype.kind in codes:
                return found
    except _FAILURES as error:
        raise _damaged(path, error) from error
    raise AudioError(
        f"{path}: has no data set {name} {dimensions} with {content}, so it is no HDF5 file that "
        "the tools of PANNs packed; choose another file, or convert it to wav."
    )


def _damaged(path: Path, error: Exception) -> AudioError:
    return AudioError(
        f"{path}: cannot be read as HDF5 ({_reason(error)}); the file is damaged or still being "
        "written. Fetch it again, or pack it again."
    )


def _reason(error: Exception) -> str:
    """What h5py says, without the call that failed."""
    text = " ".join(str(error.args[0] if error.args else error).split())
    found = re.search(r"\((.+)\)$", text)
    return found[1] if found else text
