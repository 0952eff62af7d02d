"""Bytes from the middle of files: on a disk, from a web server, from a store such as S3."""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from unbraid.checkpoints.network import offline_switch
from unbraid.downloads import fetch, fetch_range
from unbraid.errors import DataError, DownloadError, MissingExtra

_MOST_OPEN_FILES = 32
#: What is fetched from afar comes in blocks, and the last ones are kept: 32 MiB of them.
_BLOCK_BYTES = 2**17
_MOST_BLOCKS = 256

#: What fsspec calls the memory and the disk.
NOT_AFAR = ("file", "memory")


@runtime_checkable
class Ranges(Protocol):
    """Files in one place. May be sent to the workers of a loader."""

    def read(self, name: str, first: int, count: int, file_bytes: int) -> bytes:
        """Bytes of a file.

        Args:
            name: The file.
            first: The first byte.
            count: How many; the file must have them.
            file_bytes: How long the file is.

        Raises:
            DownloadError: If they cannot be had.
        """
        ...

    def read_whole(self, name: str) -> bytes:
        """All of a file.

        Raises:
            DownloadError: If it cannot be had.
        """
        ...


def open_ranges(where: str, base: Path) -> Ranges:
    """Files in a folder, or at an address.

    Args:
        where: A folder; ``http://`` or ``https://``; or an address that fsspec knows, such as
            ``s3://bucket/folder``.
        base: What a relative folder is relative to.

    Raises:
        DataError: If the network is forbidden.
        MissingExtra: If a package is missing that knows such an address.
    """
    scheme = urlsplit(where).scheme
    if "://" not in where:
        return DiskRanges(base / Path(where).expanduser())
    if switch := offline_switch() if scheme not in NOT_AFAR else "":
        raise DataError(
            f"{where}: {switch} forbids the network; unset it, or copy the shards here."
        )
    if scheme in ("http", "https"):
        return WebRanges(where)
    return StoreRanges(where)


def connect(address: str, **options: Any) -> tuple[Any, str]:
    """A store that fsspec knows, and what it calls the file or folder at an address.

    Args:
        address: Such as ``s3://bucket/folder``.
        options: What the store is opened with.

    Raises:
        MissingExtra: If a package is missing that knows such an address.
    """
    try:
        import fsspec

        store, path = fsspec.url_to_fs(address, **options)
    except (ImportError, ValueError) as error:
        raise MissingExtra(
            f"{address}: {str(error).rstrip('.')}; for S3 the command is: pip install 'unbraid[s3]'"
        ) from error
    return store, path


class DiskRanges:
    """Files in a folder; those that were read last stay open.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: OrderedDict[str, IO[bytes]] = OrderedDict()
        self._owner = os.getpid()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": OrderedDict()}

    def __del__(self) -> None:
        self._close()

    def read(self, name: str, first: int, count: int, file_bytes: int) -> bytes:
        """Bytes of a file; see ``Ranges.read``."""
        try:
            file = self._open(name)
            file.seek(first)
            found = file.read(count)
        except OSError as error:
            raise self._failure(name, str(error.strerror)) from error
        if len(found) < count:
            raise self._failure(name, f"it has no bytes {first} to {first + count}")
        return found

    def read_whole(self, name: str) -> bytes:
        """All of a file; see ``Ranges.read_whole``."""
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise self._failure(name, str(error.strerror)) from error

    def _close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()

    def _failure(self, name: str, why: str) -> DownloadError:
        return DownloadError(f"{self._folder / name}: cannot be read ({why}).")

    def _open(self, name: str) -> IO[bytes]:
        if self._owner != os.getpid():
            # Processes that were forked share the position in a file.
            self._owner = os.getpid()
            self._close()
        if name in self._files:
            self._files.move_to_end(name)
            return self._files[name]
        file = (self._folder / name).open("rb", buffering=0)
        self._files[name] = file
        if len(self._files) > _MOST_OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        return file


class _Blocks:
    """Fetches in blocks, and keeps the last ones."""

    def __init__(self, fetch: Callable[[str, int, int], bytes]) -> None:
        self._fetch = fetch
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": OrderedDict()}

    def read(self, name: str, first: int, count: int, file_bytes: int) -> bytes:
        numbers = range(first // _BLOCK_BYTES, -(-(first + count) // _BLOCK_BYTES))
        found = {each: self._kept[name, each] for each in numbers if (name, each) in self._kept}
        missing = [each for each in numbers if each not in found]
        if missing:
            # One request for all, even if some in the middle are here.
            begin = missing[0] * _BLOCK_BYTES
            end = min((missing[-1] + 1) * _BLOCK_BYTES, file_bytes)
            fetched = self._fetch(name, begin, end - begin)
            for each in range(missing[0], missing[-1] + 1):
                at = each * _BLOCK_BYTES - begin
                found[each] = fetched[at : at + _BLOCK_BYTES]
        for each in numbers:
            self._kept[name, each] = found[each]
            self._kept.move_to_end((name, each))
        while len(self._kept) > _MOST_BLOCKS:
            self._kept.popitem(last=False)
        skipped = first - numbers.start * _BLOCK_BYTES
        return b"".join(found[each] for each in numbers)[skipped : skipped + count]


class WebRanges:
    """Files of a web server that gives parts of them.

    Args:
        address: Where they lie, without the names of the files.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        self._blocks = _Blocks(self._fetch)

    def read(self, name: str, first: int, count: int, file_bytes: int) -> bytes:
        """Bytes of a file; see ``Ranges.read``."""
        return self._blocks.read(name, first, count, file_bytes)

    def read_whole(self, name: str) -> bytes:
        """All of a file; see ``Ranges.read_whole``."""
        url = f"{self._address}/{name}"
        # A server that gives no parts is told apart now, not after an index was read.
        fetch_range(url, 0, 1)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            fetch(url, path)
            return path.read_bytes()

    def _fetch(self, name: str, first: int, count: int) -> bytes:
        return fetch_range(f"{self._address}/{name}", first, count)


class StoreRanges:
    """Files of a store that fsspec knows, such as S3.

    Args:
        address: Where they lie, without the names of the files.

    Raises:
        MissingExtra: If a package is missing that knows such an address.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        self._blocks = _Blocks(self._fetch)
        self._owner = 0
        self._connect()

    def __getstate__(self) -> dict[str, object]:
        return {"address": self._address}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["address"])  # type: ignore[misc]

    def read(self, name: str, first: int, count: int, file_bytes: int) -> bytes:
        """Bytes of a file; see ``Ranges.read``."""
        return self._blocks.read(name, first, count, file_bytes)

    def read_whole(self, name: str) -> bytes:
        """All of a file; see ``Ranges.read_whole``."""
        return self._get(name, None, None)

    def _fetch(self, name: str, first: int, count: int) -> bytes:
        found = self._get(name, first, first + count)
        if len(found) < count:
            raise DownloadError(
                f"{self._address}/{name}: has no bytes {first} to {first + count}; the shards "
                "differ from their index."
            )
        return found

    def _get(self, name: str, first: int | None, end: int | None) -> bytes:
        if self._owner != os.getpid():
            # The connections of a process do not work in those that were forked from it.
            self._connect()
        path = f"{self._address}/{name}"
        try:
            found: bytes = self._store.cat_file(path, start=first, end=end)
            return found
        except Exception as error:  # each store has errors of its own
            raise DownloadError(f"{path}: cannot be fetched ({error}).") from error

    def _connect(self) -> None:
        self._store = connect(self._address, skip_instance_cache=True)[0]
        self._owner = os.getpid()
