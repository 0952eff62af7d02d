"""Files and folders that appear under their name only when they are whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unbraid.errors import AudioError


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary name in the same folder, then rename it to ``path``.

    An existing file is replaced in one step. Whatever fails, the temporary file is removed
    and an existing ``path`` stays as it was.

    Raises:
        AudioError: If the folder does not exist or cannot be written, or the disk is full.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise _cannot_write(path, error) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def publish_folder(folder: Path) -> Iterator[Path]:
    """Fill a temporary folder; when the block ends well, its files move into ``folder``.

    Files of the same name are replaced, others in ``folder`` stay. Files of the top level
    move last, so that a page never stands before what it shows. If the block raises,
    ``folder`` is left as it was.

    Yields:
        The temporary folder, inside ``folder`` where that exists and beside it otherwise.

    Raises:
        AudioError: If ``folder`` is a file, or it or its parent cannot be written.
    """
    folder = folder.absolute()
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(None, "it is a file")
        folder.parent.mkdir(parents=True, exist_ok=True)
        # An existing folder may be a disk of its own, and files cannot be renamed to
        # another disk; nor need its parent be writable.
        nearest = folder if folder.is_dir() else folder.parent
        staging = tempfile.TemporaryDirectory(dir=nearest, prefix=f".{folder.name}.")
    except OSError as error:
        raise _cannot_write(folder, error) from error
    with staging as name:
        yield Path(name)
        try:
            _move_files(Path(name), folder)
        except OSError as error:
            raise _cannot_write(folder, error) from error


def _move_files(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    entries = sorted(source.iterdir(), key=lambda entry: (entry.is_file(), entry.name))
    for entry in entries:
        if entry.is_dir():
            _move_files(entry, target / entry.name)
        else:
            entry.replace(target / entry.name)


def _cannot_write(path: Path, error: OSError) -> AudioError:
    return AudioError(
        f"{path}: cannot be written ({error.strerror}); choose another folder or make room."
    )


def _umask() -> int:
    # The only way to read the mask is to set it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
