"""A web server on this machine that gives files whole, in parts, broken off or not at all."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class ServedFile:
    """A file, and what goes wrong when somebody asks for it.

    Attributes:
        content: What it holds.
        headers: Sent with every answer, such as ``ETag`` and ``Last-Modified``.
        knows_ranges: Whether ``Range`` is heeded.
        heeds_if_range: Whether another version is sent whole although a part was asked for.
        says_length: Whether the length of an answer is told.
        breaks: How many bytes of the next answers are sent before the connection breaks; None
            for all of them.
        statuses: The next answers are these statuses, with these headers, instead.
    """

    content: bytes
    headers: dict[str, str] = field(default_factory=dict)
    knows_ranges: bool = True
    heeds_if_range: bool = True
    says_length: bool = True
    breaks: list[int | None] = field(default_factory=list)
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)


@dataclass
class FileServer:
    """Files by path, and the ``Range`` of every request that came (empty for none)."""

    files: dict[str, ServedFile] = field(default_factory=dict)
    ranges: list[str] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    address: str = ""

    def serve(self, path: str, content: bytes, **options: object) -> str:
        """Add a file, and return where it lies."""
        self.files[path] = ServedFile(content, **options)  # type: ignore[arg-type]
        return f"{self.address}/{path}"


def _handler_for(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            server.ranges.append(wanted)
            server.agents.add(self.headers.get("User-Agent", ""))
            file = server.files.get(self.path.lstrip("/"))
            if file is None:
                self.send_error(404)
                return
            if file.statuses:
                status, headers = file.statuses.pop(0)
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.end_headers()
                return
            start, end = self.part_of(file, wanted)
            if start is not None and start >= len(file.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(file.content)}")
                self.end_headers()
                return
            body = file.content[start or 0 : end]
            self.send_response(200 if start is None else 206)
            if start is not None:
                last, total = start + len(body) - 1, len(file.content)
                self.send_header("Content-Range", f"bytes {start}-{last}/{total}")
            if file.says_length:
                self.send_header("Content-Length", str(len(body)))
            for key, value in file.headers.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body[: file.breaks.pop(0) if file.breaks else None])

        def part_of(self, file: ServedFile, wanted: str) -> tuple[int | None, int | None]:
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
            condition = self.headers.get("If-Range")
            is_other = file.heeds_if_range and condition not in (None, *file.headers.values())
            if match is None or not file.knows_ranges or is_other:
                return None, None
            return int(match[1]), int(match[2]) + 1 if match[2] else None

    return Handler


@contextmanager
def running_file_server() -> Iterator[FileServer]:
    """A server that runs as long as the block."""
    state = FileServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(state))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
