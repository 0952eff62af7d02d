"""A file that appears under its name when it is whole, and not before."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

from unbraid.errors import AudioError, DiskError

_LITTLE_SPACE_BYTES = 2**20


class PartialFile:
    """Space for a file beside the place where it will appear.

    Whoever fills it calls ``sync`` and ``publish`` in the end, and ``discard`` always: it
    does nothing to a published file.

    Attributes:
        path: Where the file will appear.
        temporary: What to write to meanwhile; in the same folder, so that publishing it is
            a renaming and neither copies nor fails halfway.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f".unbraid-{secrets.token_hex(4)}.partial")
        self._new_folders: list[Path] = []
        self._is_published = False

    def create(self) -> IO[bytes]:
        """Make the folders on the way, and the temporary file; it is open for writing.

        Raises:
            OSError: If that cannot be done.
        """
        missing = []
        folder = self.path.parent
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self._new_folders.append(folder)
        self.path.exists()  # a name that is too long shows now, not after the work
        return self.temporary.open("xb")

    def sync(self) -> None:
        """Wait until all of it is on the disk; some disks say that they are full only now.

        Raises:
            OSError: If it does not get there.
        """
        with self.temporary.open("rb+") as file:
            os.fsync(file.fileno())

    def publish(self) -> None:
        """Let the file appear under its name, replacing what was there.

        Raises:
            AudioError: If it cannot be renamed.
        """
        try:
            self.temporary.replace(self.path)
        except OSError as error:
            raise self.failure(error) from error
        self._is_published = True

    def discard(self) -> None:
        """Leave nothing half-written; does nothing to a published file."""
        with suppress(OSError):
            self.temporary.unlink()
        if not self._is_published:
            for folder in reversed(self._new_folders):
                with suppress(OSError):
                    folder.rmdir()  # only if nobody else has put something there

    def failure(self, error: Exception) -> AudioError:
        """Say in plain words why the file could not be written."""
        if isinstance(error, PermissionError):
            why = "no permission to write there"
        elif getattr(error, "strerror", None):
            why = str(error.strerror)  # type: ignore[attr-defined]
        else:
            why = " ".join(str(error).split()).removeprefix("Error : ").rstrip(".")
        if self._is_disk_full():
            why = "the disk is full"
        return DiskError(
            f"{self.path}: cannot be written ({why}); nothing half-written was kept. "
            "Choose another folder with --out or make room."
        )

    def _is_disk_full(self) -> bool:
        try:
            return shutil.disk_usage(self.path.parent).free < _LITTLE_SPACE_BYTES
        except OSError:
            return False
