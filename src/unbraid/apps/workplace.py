"""Where the results of one recording are made, out of sight, until all of them are whole.

A workplace is a hidden folder ``.unbraid-KEY.partial`` in the output folder; KEY stands for
the recording's results. Whoever works there holds the operating system's lock on a file in
it. The system takes the lock back when a process ends, however it ends. So a workplace
whose lock is free belongs to nobody and may be cleared away, and one whose lock is held is
left alone.

On a network share the lock usually reaches all machines, but not on every share. So what
another machine has left is cleared away only after a day without a change. Where a file
system has no locks at all, every run gets a workplace of its own, and none is ever cleared
away by others.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import secrets
import shutil
import sys
import time
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Literal

from unbraid.apps.whole_files import make_folder, remove_empty
from unbraid.errors import DiskError

_LOCK = "lock"
_PATIENCE_WITH_OTHER_MACHINES_S = 24 * 3600
_NUM_ATTEMPTS = 5
_LOCK_IS_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


class Workplace:
    """A hidden folder that belongs to this process until ``leave``.

    Attributes:
        folder: The folder.
        new_folders: The folders above it that were made for its sake.
    """

    def __init__(self, folder: Path, lock: int | None, new_folders: list[Path]) -> None:
        self.folder = folder
        self._lock = lock
        self.new_folders = new_folders

    def leave(self) -> None:
        """Remove the folder with all that is in it, and those made for its sake if empty."""
        _clear(self.folder)
        # The lock goes last: what is killed before that is found by the next run.
        if sys.platform == "win32" and self._lock is not None:
            os.close(self._lock)  # an open file cannot be removed there
        with suppress(OSError):
            (self.folder / _LOCK).unlink()
        if sys.platform != "win32" and self._lock is not None:
            os.close(self._lock)
        remove_empty([*self.new_folders, self.folder])


def enter_workplace(out_dir: Path, results: Path) -> Workplace | None:
    """Take the workplace for certain results, unless somebody living has it.

    What a process that ended has left there is removed.

    Args:
        out_dir: The output folder; made where it does not exist.
        results: What tells the results from others: a path inside ``out_dir``.

    Returns:
        The workplace; None if it is taken.

    Raises:
        AudioError: If the folder cannot be made.
    """
    name = unicodedata.normalize("NFC", results.relative_to(out_dir).as_posix()).casefold()
    key = hashlib.sha256(name.encode()).hexdigest()[:12]
    new_folders = make_folder(out_dir)
    try:
        found = _enter(out_dir / f".unbraid-{key}.partial", new_folders)
        if isinstance(found, Workplace):
            return found
        if found == "taken":
            return None
        private = out_dir / f".unbraid-{key}-{secrets.token_hex(4)}.partial"
        found = _enter(private, new_folders)
        if isinstance(found, Workplace):
            return found
        private.mkdir(parents=True, exist_ok=True)
        return Workplace(private, None, new_folders)
    except OSError as error:
        remove_empty(new_folders)
        raise DiskError(
            f"{out_dir}: cannot be written ({error.strerror}); choose another folder."
        ) from error


def _enter(folder: Path, new_folders: list[Path]) -> Workplace | Literal["taken", "unclear"]:
    """Make, lock and clear a folder; ``unclear`` where nobody can say whether it is free."""
    for _ in range(_NUM_ATTEMPTS):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = _lock(folder / _LOCK, create=True)
        except FileNotFoundError:
            continue  # its former owner has just removed the folder
        except _NoLocksHereError:
            with suppress(OSError):
                (folder / _LOCK).unlink()
                folder.rmdir()
            return "unclear"
        if lock is None:
            return "taken"
        if not _is_of_dead(folder, lock):
            os.close(lock)
            return "unclear"
        _clear(folder)
        os.truncate(lock, 0)
        os.write(lock, platform.node().encode())
        return Workplace(folder, lock, new_folders)
    return "taken"


def clear_leftovers(out_dir: Path) -> None:
    """Remove the workplaces of processes that have ended; never those of living ones."""
    for folder in out_dir.glob(".unbraid-*.partial"):
        if not folder.is_dir():
            continue
        try:
            lock = _lock(folder / _LOCK, create=False)
        except (OSError, _NoLocksHereError):
            # Without a lock it belongs to nobody only if it is empty.
            with suppress(OSError):
                folder.rmdir()
            continue
        if lock is None:
            continue
        if _is_of_dead(folder, lock):
            Workplace(folder, lock, []).leave()
        else:
            os.close(lock)


class _NoLocksHereError(Exception):
    """The file system knows no locks."""


def _lock(path: Path, *, create: bool) -> int | None:
    """Lock a file for this process alone.

    Returns:
        What to close when the lock may go; None if somebody else has it.

    Raises:
        OSError: If the file cannot be opened; FileNotFoundError also if it was removed while
            we waited for it.
        _NoLocksHereError: If the file system has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
    try:
        _lock_descriptor(descriptor)
        # Its former owner may have removed it between our opening and our locking it.
        if not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise FileNotFoundError(path)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, FileNotFoundError):
            raise
        if error.errno in _LOCK_IS_HELD:
            return None
        raise _NoLocksHereError from error
    return descriptor


if sys.platform == "win32":
    import msvcrt

    def _lock_descriptor(descriptor: int) -> None:
        # Beyond the text in the file, which others may want to read.
        os.lseek(descriptor, 1024, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock_descriptor(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_of_dead(folder: Path, lock: int) -> bool:
    """Whether the workplace that we could lock has no owner, on any machine."""
    machine = os.read(lock, 1024).decode(errors="replace")
    os.lseek(lock, 0, os.SEEK_SET)
    if machine in ("", platform.node()):
        return True
    try:
        changed_s = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return False  # somebody is at work there
    return time.time() - changed_s > _PATIENCE_WITH_OTHER_MACHINES_S


def _clear(folder: Path) -> None:
    """Remove everything in a workplace but its lock."""
    with suppress(OSError):
        for entry in folder.iterdir():
            if entry.name == _LOCK:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink()
