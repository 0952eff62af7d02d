"""Files and folders that appear under their name only when they are whole."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from unbraid.errors import AudioError, DiskError

_NUM_ATTEMPTS = 5


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary name in the same folder, then rename it to ``path``.

    An existing file is replaced in one step. Whatever fails, the temporary file is removed
    and an existing ``path`` stays as it was.

    Raises:
        AudioError: If the folder does not exist or cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".unbraid-{secrets.token_hex(4)}.partial")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # some disks report 'full' only now
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it that are missing.

    Others may remove empty folders meanwhile, as ``remove_empty`` does after a failure.

    Returns:
        The folders that were made, the outermost first.

    Raises:
        AudioError: If that cannot be done.
    """
    made: list[Path] = []
    for attempt in range(_NUM_ATTEMPTS):
        missing = [above for above in (folder, *folder.parents) if not above.exists()]
        try:
            for above in reversed(missing):
                above.mkdir(exist_ok=True)
                made.append(above)
        except FileNotFoundError as error:
            if attempt == _NUM_ATTEMPTS - 1:
                raise _cannot_write(folder, error) from error
        except OSError as error:
            remove_empty(made)
            raise _cannot_write(folder, error) from error
        else:
            return made
    raise AssertionError("unreachable")


def check_writable(folder: Path) -> None:
    """Make sure that a folder can be made and written, before work goes into what it will hold.

    Nothing stays behind, neither the folder nor those above it that were missing.

    Raises:
        AudioError: If it is a file, or cannot be made or written.
    """
    made = make_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".unbraid-"):
            pass
    except OSError as error:
        raise _cannot_write(folder, error) from error
    finally:
        remove_empty(made)


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of these folders that hold nothing, the last one first."""
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()


def rename(new: Path, final: Path) -> None:
    """Let a whole file appear under its name, replacing what was there.

    Raises:
        AudioError: If it cannot be renamed.
    """
    try:
        new.replace(final)
    except OSError as error:
        raise _cannot_write(final, error) from error


def replace_together(
    moves: Sequence[tuple[Path, Path]], last: tuple[Path, Path], aside: Path
) -> None:
    """Rename several files, all or none.

    Args:
        moves: Pairs of a whole file and the name under which it shall appear.
        last: Another pair. Its file is replaced in one step, so there always is one.
        aside: A folder for the other files that have these names now; they come back if
            anything fails, and stay there otherwise.

    Raises:
        AudioError: If a file cannot be renamed; then everything is as it was.
    """
    former: list[tuple[Path, Path]] = []
    placed: list[Path] = []
    try:
        for new, final in moves:
            if os.path.lexists(final):
                kept = aside / str(len(former))
                rename(final, kept)
                former.append((kept, final))
            rename(new, final)
            placed.append(final)
        rename(*last)
    except BaseException:
        for final in placed:
            with suppress(OSError):
                final.unlink()
        for kept, final in former:
            kept.replace(final)
        raise


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
    return DiskError(
        f"{path}: cannot be written ({error.strerror}); choose another folder or make room."
    )
