"""Several files as one zip that is made while it is sent; it never lies on the disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_BLOCK_BYTES = 2**18
#: Every zip says a date; it must not tell when a job was done on whose clock.
_NO_DATE = (1980, 1, 1, 0, 0, 0)


class _Pipe(io.RawIOBase):
    """What was written since it was last emptied."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: ReadableBuffer) -> int:
        self._written += memoryview(content)
        return memoryview(content).nbytes

    def emptied(self) -> bytes:
        """All of it."""
        content = bytes(self._written)
        self._written.clear()
        return content


def zipped(files: Mapping[str, Path]) -> Iterator[bytes]:
    """A zip of files under other names, in pieces. Sound hardly packs, so it is only stored.

    All files are opened before the first piece: what is deleted after that is still sent.

    Args:
        files: Name in the zip → the file.

    Raises:
        FileNotFoundError: If a file is not there; from this call, not from the first piece.
    """
    with ExitStack() as stack:
        opened = {name: stack.enter_context(path.open("rb")) for name, path in files.items()}
        keep = stack.pop_all()

    def pieces() -> Iterator[bytes]:
        pipe = _Pipe()
        with keep, zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
            for name, file in opened.items():
                entry = zipfile.ZipInfo(name, _NO_DATE)
                # Its size is not said beforehand; without this, 2 GiB would be the end.
                with archive.open(entry, "w", force_zip64=True) as packed:
                    while block := file.read(_BLOCK_BYTES):
                        packed.write(block)
                        yield pipe.emptied()
            archive.close()
            yield pipe.emptied()

    return pieces()
