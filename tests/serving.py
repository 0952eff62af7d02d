"""Servers for tests: in this process, on a free port of this machine."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlsplit

from unbraid.apps.separator import Separator
from unbraid.errors import Cancelled
from unbraid.models.waveform import WaveformModel
from unbraid.serve.api import Service
from unbraid.serve.client import Client
from unbraid.serve.jobs import Limits, Offer
from unbraid.serve.server import ServeOptions, listening, opened_service

DIGEST = "0" * 64


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    service: Service
    address: str
    client: Client

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        is_chunked: bool = False,
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, content (plain data where it is JSON) and headers of an answer."""
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=10)
        try:
            connection.request(method, path, body, dict(headers or {}), encode_chunked=is_chunked)
            response = connection.getresponse()
            content: Any = response.read()
            if response.headers.get_content_type() == "application/json":
                content = json.loads(content)
            return response.status, content, response.headers
        finally:
            connection.close()

    def post(self, form: Form, **headers: str) -> tuple[int, Any, Mapping[str, str]]:
        """Send a form."""
        return self.ask("POST", "/v1/jobs", form.headers | headers, form.body)


@dataclass(frozen=True)
class Form:
    """A form as it travels."""

    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": "multipart/form-data; boundary=limit"}


def form(recording: bytes | None, *, file_field: str = "file", **fields: str) -> Form:
    """A form with these fields and this recording."""
    parts = [
        f'--limit\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    if recording is not None:
        parts.append(
            f'--limit\r\nContent-Disposition: form-data; name="{file_field}"; '
            f'filename="../../etc/passwd"\r\n\r\n'.encode()
            + recording
            + b"\r\n"
        )
    return Form(b"".join(parts) + b"--limit--\r\n")


@contextmanager
def running(
    model: WaveformModel, limits: Limits | None = None, **options: Any
) -> Iterator[Running]:
    """A server with one worker, until the end of the block."""
    separator = Separator(model)
    offer = Offer("tiny", DIGEST, separator.prompts, separator.sample_rate, limits or Limits())
    chosen = ServeOptions(**{"port": 0, "num_jobs": 1, "grace_s": 0.0, **options})
    with (
        opened_service([separator], offer, chosen) as service,
        listening(service, chosen) as address,
    ):
        yield Running(service, address, Client(address, chosen.token, timeout_s=10, patience_s=10))


class Brake:
    """Stands in for ``separate_file``: begins a job, and ends it when told to, or cancelled."""

    def __init__(self) -> None:
        self.begun: list[PurePath] = []
        self.go_on = threading.Event()

    def __call__(self, separator: Any, recording: Any, *rest: Any) -> Any:
        cancel = rest[-1]
        self.begun.append(recording.path)
        while not self.go_on.wait(0.005):
            if cancel.is_set():
                raise Cancelled("the separation was cancelled.")
        raise RuntimeError("let go")

    def wait_for(self, count: int) -> None:
        """Until so many jobs have begun."""
        ends = time.monotonic() + 10
        while len(self.begun) < count:
            assert time.monotonic() < ends, "no job began"
            time.sleep(0.005)


def wav(path: Path, num_samples: int = 6000, **settings: Any) -> bytes:
    """The bytes of a recording of noise."""
    from command_line import write_audio

    return write_audio(path, num_samples, **settings).read_bytes()
