"""A visitor's files as addresses that nobody else can guess: sounds, pictures, stems, a zip."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from unbraid.errors import MissingExtra
from unbraid.web.visitors import Visitors

try:
    from starlette.requests import Request
    from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route
except ModuleNotFoundError as error:
    raise MissingExtra(
        f"the page needs the package {error.name}; install it with: pip install 'unbraid[web]'"
    ) from error

#: The name in the address that stands for all stems in one file.
ARCHIVE = "stems.zip"

_BLOCK_BYTES = 1 << 20


def address(token: str, name: str) -> str:
    """The address of a visitor's file, relative to the page."""
    return f"visits/{token}/{name}"


def routes(visitors: Visitors) -> list[Route]:
    """What answers these addresses."""

    def file(request: Request) -> Response:
        visitor = visitors.with_token(request.path_params["token"])
        name = request.path_params["name"]
        if visitor is None:
            return _gone()
        if name == ARCHIVE and visitor.archive:
            return StreamingResponse(
                zip_stream(dict(visitor.archive)),
                media_type="application/zip",
                headers={"Content-Disposition": f'attachment; filename="{ARCHIVE}"'},
            )
        path = visitor.files.get(name) or visitor.lessons.get(name)
        if path is None or not path.is_file():
            return _gone()
        # A newer result may have the same address.
        return FileResponse(path, headers={"Cache-Control": "no-store"})

    return [Route("/visits/{token}/{name}", file, methods=["GET", "HEAD"])]


def zip_stream(files: Mapping[str, Path]) -> Iterator[bytes]:
    """A zip of these files, piece by piece; nothing is compressed, and nothing kept on the disk.

    Args:
        files: Name in the zip → file.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files.items():
            entry = zipfile.ZipInfo.from_file(path, name)
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while block := source.read(_BLOCK_BYTES):
                    target.write(block)
                    yield sink.take()
    yield sink.take()


class _Sink:
    """What a zip is written to that is passed on at once; it cannot go back."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Take some bytes."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing is open here."""

    def take(self) -> bytes:
        """What has come since the last time."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def _gone() -> Response:
    return PlainTextResponse("This file is not there any more.", status_code=404)
