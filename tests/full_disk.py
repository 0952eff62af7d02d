"""A disk that is full, for tests: files that take so many bytes and no more."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO, Any

import pytest


class LimitedFile:
    """A file on a disk that takes so many bytes and no more."""

    def __init__(self, file: IO[bytes], num_bytes: int, complains: bool) -> None:
        self._file = file
        self._left = num_bytes
        self._complains = complains

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def __enter__(self) -> "LimitedFile":
        return self

    def __exit__(self, *unused: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        if len(data) > self._left:
            if self._complains:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._file.write(data[: self._left])
            self._left = 0
            return len(data)
        self._left -= len(data)
        return self._file.write(data)


def limit_files(monkeypatch: pytest.MonkeyPatch, num_bytes: int, complains: bool = True) -> None:
    """Let every new file end after ``num_bytes``, with an error or without a word."""
    opened = Path.open

    def open_limited(self: Path, mode: str = "r", *rest: Any, **options: Any) -> object:
        file = opened(self, mode, *rest, **options)
        return LimitedFile(file, num_bytes, complains) if mode == "xb" else file

    monkeypatch.setattr(Path, "open", open_limited)
