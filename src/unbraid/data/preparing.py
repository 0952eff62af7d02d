"""From the archives that a corpus is published as to the folder that it is read from.

Archives come from strangers: nothing in them may lie outside the folder that they are unpacked
in, and links and devices are refused. What an archive holds appears when all of it is unpacked.
"""

from __future__ import annotations

import io
import json
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from unbraid.data.corpora.base import Archive
from unbraid.data.split_zip import JoinedFile, Segment, join_split_zip
from unbraid.downloads import ByteProgress, size_in_words
from unbraid.errors import DataError

#: Folder, inside that of a corpus, for archives and for the notes on which are unpacked.
ARCHIVES_FOLDER = "unbraid-archives"

_ZIP = re.compile(r".+\.zip", re.IGNORECASE)
_TAR = re.compile(r".+\.(tar(\.(gz|bz2|xz))?|tgz|tbz2?|txz)", re.IGNORECASE)
_PART_OF_ZIP = re.compile(r"(?P<stem>.+)\.z\d\d+", re.IGNORECASE)
_PART = re.compile(r"(?P<whole>.+)\.(part)?(\d{1,3}|[a-z]{2})", re.IGNORECASE)
_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class Package:
    """One archive, in one file or in several parts; or a file that is none.

    Attributes:
        name: The archive's name without numbers of parts.
        parts: Its files, in the order in which they are put together.
    """

    name: str
    parts: tuple[Archive, ...]

    @property
    def folder(self) -> str:
        """Where it is unpacked, below the corpus's folder."""
        return self.parts[-1].folder

    @property
    def is_archive(self) -> bool:
        """Whether it has to be unpacked; other files are used as they come."""
        return bool(_ZIP.fullmatch(self.name) or _TAR.fullmatch(self.name))


def packages_of(archives: Sequence[Archive]) -> tuple[Package, ...]:
    """Put the parts of archives together, in the order in which archives appear.

    ``a.z01`` and ``a.z02`` belong to ``a.zip``; ``b.tar.gz.00``, ``b.tar.gz.partaa`` and the
    like to ``b.tar.gz``.
    """
    parts: dict[str, list[Archive]] = {}
    for archive in archives:
        parts.setdefault(_whole_name(archive.name), []).append(archive)
    return tuple(
        Package(name, tuple(sorted(group, key=lambda part: _place(part.name))))
        for name, group in parts.items()
    )


def _place(name: str) -> tuple[bool, int, str]:
    """What sorts the parts of an archive: the ``.zip`` of a split one last, 9 before 10."""
    return bool(_ZIP.fullmatch(name)), len(name), name


def _whole_name(name: str) -> str:
    if _ZIP.fullmatch(name) or _TAR.fullmatch(name):
        return name
    if match := _PART_OF_ZIP.fullmatch(name):
        return f"{match['stem']}.zip"
    match = _PART.fullmatch(name)
    if match and (_ZIP.fullmatch(match["whole"]) or _TAR.fullmatch(match["whole"])):
        return match["whole"]
    return name


# ------------------------------------------------------------------ notes


def is_unpacked(root: Path, package: Package) -> bool:
    """Whether just this archive was unpacked in a corpus's folder, to the end."""
    try:
        noted = json.loads(_note(root, package).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(noted == _plain(package))


def note_unpacked(root: Path, package: Package) -> None:
    """Remember that an archive is unpacked."""
    note = _note(root, package)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(_plain(package), indent=2), encoding="utf-8")


def _note(root: Path, package: Package) -> Path:
    return root / ARCHIVES_FOLDER / f"{package.name}.unpacked.json"


def _plain(package: Package) -> list[dict[str, object]]:
    return [asdict(part) for part in package.parts]


# ------------------------------------------------------------------ unpacking


def unpack(
    files: Sequence[Path], folder: Path, name: str, progress: ByteProgress | None = None
) -> int:
    """Unpack an archive: zip, also split, or tar, also compressed, also in parts.

    Files of the same name are replaced, others in ``folder`` stay. If anything fails, ``folder``
    is left as it was.

    Args:
        files: The archive, or its parts in order.
        folder: Where its content goes; made where it does not exist.
        name: The archive's name, which says what kind it is.
        progress: Called with bytes of the archive that are done; may raise ``Cancelled``.

    Returns:
        How many files it held.

    Raises:
        DataError: If it is damaged or incomplete, has a password, would write outside of
            ``folder``, holds a link, or does not find room.
    """
    staging = folder / f".{name}.partial"
    try:
        # What a run that was killed has left.
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, staging, ignore_errors=True)
            segments = [
                Segment(stack.enter_context(file.open("rb")), file.stat().st_size) for file in files
            ]
            num_files = 0
            with closing(_members(segments, name, folder)) as members:
                for member in members:
                    _write_member(member, staging, progress)
                    num_files += not member.is_folder
            _move_into(staging, folder)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise DataError(
            f"{files[-1]}: the archive is damaged or incomplete ({error}); fetch it again."
        ) from error
    except OSError as error:
        raise DataError(
            f"{files[-1]}: cannot be unpacked into {folder} ({error.strerror or error}); "
            "make room, or fetch it again if it is damaged."
        ) from error
    return num_files


@dataclass(frozen=True)
class _Member:
    """One entry of an archive.

    Attributes:
        path: Where it goes, relative to the folder.
        read: Gives so many bytes of it, in the end none; None for a folder.
        done: How many bytes of the archive lie before its end, and how many there are.
    """

    path: PurePosixPath
    read: Callable[[int], bytes] | None
    done: tuple[int, int]

    @property
    def is_folder(self) -> bool:
        return self.read is None


def _members(
    segments: Sequence[Segment], name: str, folder: Path
) -> Generator[_Member, None, None]:
    if not _ZIP.fullmatch(name):
        return _tar_members(JoinedFile(segments), name)
    # Plain zip archives may be cut into parts, too: then they begin like any other.
    is_split = len(segments) > 1 and segments[0].file.read(4) == b"PK\x07\x08"
    return _zip_members(
        join_split_zip(segments, name) if is_split else JoinedFile(segments), name, folder
    )


def _zip_members(file: JoinedFile, name: str, folder: Path) -> Generator[_Member, None, None]:
    with zipfile.ZipFile(io.BufferedReader(file)) as archive:
        entries = archive.infolist()
        _check_room(sum(entry.file_size for entry in entries), name, folder)
        total = sum(entry.compress_size for entry in entries)
        done = 0
        for entry in entries:
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _link_refused(name, entry.filename)
            done += entry.compress_size
            path = _safe_path(name, entry.filename)
            if entry.is_dir():
                yield _Member(path, None, (done, total))
                continue
            try:
                content = archive.open(entry)
            except RuntimeError as error:  # a password, or a compression that Python has not
                raise DataError(
                    f"{name}: cannot be unpacked here ({error}); unpack it into {folder} yourself."
                ) from error
            with content:
                yield _Member(path, content.read, (done, total))


def _tar_members(file: JoinedFile, name: str) -> Generator[_Member, None, None]:
    with tarfile.open(fileobj=io.BufferedReader(file, _BLOCK_BYTES), mode="r|*") as archive:
        for entry in archive:
            if not (entry.isreg() or entry.isdir()):
                raise _link_refused(name, entry.name)
            path = _safe_path(name, entry.name)
            content = archive.extractfile(entry)
            read = content.read if content is not None else None
            yield _Member(path, read, (file.tell(), file.num_bytes))


def _write_member(member: _Member, staging: Path, progress: ByteProgress | None) -> None:
    target = staging / member.path
    if member.read is None:
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            while block := member.read(_BLOCK_BYTES):
                file.write(block)
    if progress is not None:
        progress(*member.done)


def _safe_path(name: str, entry: str) -> PurePosixPath:
    """The path of an entry, if it leads nowhere but into the folder."""
    path = PurePosixPath(entry.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", entry):
        raise DataError(
            f"{name}: refused, because it would write outside of its folder ({entry!r}); "
            "it is not what its publisher made."
        )
    return path


def _link_refused(name: str, entry: str) -> DataError:
    return DataError(
        f"{name}: refused, because {entry!r} in it is a link or a device; unpack it yourself "
        "if you trust it."
    )


def _check_room(num_bytes: int, name: str, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise DataError(
            f"{folder}: {name} needs {size_in_words(num_bytes)} unpacked, but only "
            f"{size_in_words(free)} are free on that disk; make room or choose another folder."
        )


def _move_into(source: Path, target: Path) -> None:
    """Move everything in a folder into another one on the same disk; equal names are replaced."""
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        there = target / entry.name
        if entry.is_dir() and there.is_dir():
            _move_into(entry, there)
        else:
            entry.replace(there)
