"""The client of ``unbraid serve``. It needs no other package, so not PyTorch either.

>>> from unbraid.serve.client import Client
>>> client = Client("http://127.0.0.1:8000")  # doctest: +SKIP
>>> files = client.separate("film.mkv", ["speech", "music-mix"], "stems")  # doctest: +SKIP
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from unbraid import errors
from unbraid.errors import ConfigError, ServiceError, UnbraidError

_BLOCK_BYTES = 2**18
_LONGEST_WAIT_S = 1.0
_TOO_MANY = (429, 503)
_ENDED = ("done", "failed", "cancelled", "expired")


@dataclass(frozen=True)
class JobStatus:
    """Where a job stood when the server was asked.

    Attributes:
        id: Its name.
        state: ``queued``, ``running``, ``done``, ``failed``, ``cancelled`` or ``expired``.
        progress: From 0 to 1.
        done_s: Seconds of the recording that are separated.
        total_s: Seconds of the recording.
        position: How many jobs come before it; None if it does not wait.
        stems: The names of the stems; empty unless it is done.
        answer: All that the server said.
    """

    id: str
    state: str
    progress: float
    done_s: float
    total_s: float
    position: int | None
    stems: tuple[str, ...]
    answer: Mapping[str, Any]

    @property
    def is_finished(self) -> bool:
        """Whether nothing will change any more, but that stems are deleted."""
        return self.state in _ENDED


class Client:
    """Talks to one server. May be used from several threads at the same time.

    Args:
        address: Of the server, as it printed it.
        token: Its token; None for what ``UNBRAID_TOKEN`` says, if anything.
        timeout_s: How long one answer may take to begin, and to go on.
        patience_s: How long to try again while the server is full, or, once there is a job, cannot
            be reached.

    Attributes:
        num_refused: How often the server was full.

    Raises:
        ConfigError: For an address that is none, or a token that no header can carry.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8000",
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        patience_s: float = 600.0,
    ) -> None:
        try:
            parts = urlsplit(address)
            host, self._port = parts.hostname or "", parts.port
            # What cannot be looked up would end the first request in an error of Python's.
            host.encode("idna")
        except ValueError as error:
            raise _no_address(address, f" ({error})") from error
        if parts.scheme not in ("http", "https") or not host:
            raise _no_address(address)
        self._parts = parts
        self._host = host
        self._path = quote(parts.path.rstrip("/"), safe="/%")
        # Whoever reads a token from a file has a line.
        self._token = (token or os.environ.get("UNBRAID_TOKEN") or "").strip()
        if not (self._token.isascii() and self._token.isprintable()) or " " in self._token:
            raise ConfigError(
                "the token must be plain ASCII without blanks; give the one that the server was "
                "started with."
            )
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self.num_refused = 0

    def offer(self) -> dict[str, Any]:
        """What the server separates with: model, prompts, limits.

        Raises:
            ServiceError: If the server cannot be reached or turns the request away.
        """
        return self._asked("GET", "/v1/offer")

    def submit(self, recording: str | Path, prompts: Sequence[str], **options: Any) -> JobStatus:
        """Upload a recording, and queue it.

        While the queue is full this waits as long as the server says, and tries again.

        Args:
            recording: The file.
            prompts: What to separate it into; names may repeat. One text is taken for names with
                commas between them.
            options: Further fields of the form: ``format``, ``depth``, ``residual``, ...

        Raises:
            PromptError, AudioError, ConfigError: What ``unbraid separate`` would have said.
            ServiceError: If the server cannot be reached, or does not take the upload.
        """
        path = Path(recording)
        fields = {"prompts": prompts if isinstance(prompts, str) else ",".join(prompts)}
        fields |= {name: _text(value) for name, value in options.items() if value is not None}
        ends = time.monotonic() + self._patience_s
        while True:
            try:
                return _status(self._uploaded(path, fields))
            except ServiceError as error:
                wait_s = error.retry_after_s if isinstance(error, _Full) else None
                if wait_s is None or time.monotonic() + wait_s > ends:
                    raise
                self.num_refused += 1
                time.sleep(wait_s)

    def status(self, job_id: str) -> JobStatus:
        """Where a job stands.

        Raises:
            ServiceError: If there is no such job, or the server cannot be reached.
        """
        return _status(self._asked("GET", f"/v1/jobs/{quote(job_id, safe='')}"))

    def cancel(self, job_id: str) -> JobStatus:
        """Cancel a job; delete the stems of one that is done.

        Raises:
            ServiceError: If there is no such job, or the server cannot be reached.
        """
        return _status(self._asked("DELETE", f"/v1/jobs/{quote(job_id, safe='')}"))

    def wait(
        self,
        job_id: str,
        on_status: Callable[[JobStatus], None] | None = None,
        every_s: float = 0.1,
    ) -> JobStatus:
        """Ask until a job is done, more and more rarely, at last once a second.

        Args:
            job_id: Which.
            on_status: Called with each answer.
            every_s: How soon to ask for the second time.

        Raises:
            AudioError, ConfigError, ...: Why the job failed.
            ServiceError: If the job was cancelled or expired, or the server cannot be reached for
                as long as ``patience_s``.
        """
        ends = time.monotonic() + self._patience_s
        while True:
            try:
                status = self.status(job_id)
            except _Unreachable:
                if time.monotonic() > ends:
                    raise
                time.sleep(every_s)
                continue
            ends = time.monotonic() + self._patience_s
            if on_status is not None:
                on_status(status)
            if status.state == "done":
                return status
            if status.state == "failed":
                failure = status.answer["failure"]
                raise _error_of(failure["kind"], failure["detail"])
            if status.is_finished:
                raise ServiceError(f"job {job_id} is {status.state}; send the recording again.")
            time.sleep(every_s)
            every_s = min(1.5 * every_s, _LONGEST_WAIT_S)

    def download(self, job_id: str, folder: str | Path) -> dict[str, Path]:
        """Fetch the stems of a job that is done.

        Files appear when they are whole, and replace what was there.

        Returns:
            Stem → file.

        Raises:
            ServiceError: If there are no stems, or the server breaks off.
            AudioError: If the folder cannot be made, or a file not be written.
        """
        status = self.status(job_id)
        if status.state != "done":
            raise ServiceError(f"job {job_id} is {status.state}, so there are no stems to fetch.")
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.AudioError(
                f"{folder}: no folder can be made there ({error.strerror}); choose another one."
            ) from error
        extension = status.answer["format"]
        files = {}
        for stem in status.answer["stems"]:
            # A server is not trusted with the names of our files.
            name = "".join(
                each if each.isalnum() or each in "-_ " else "_" for each in stem["name"]
            )
            files[stem["name"]] = folder / f"{name}.{extension}"
            self._fetch(stem["path"], files[stem["name"]])
        return files

    def separate(
        self,
        recording: str | Path,
        prompts: Sequence[str],
        folder: str | Path,
        *,
        on_status: Callable[[JobStatus], None] | None = None,
        **options: Any,
    ) -> dict[str, Path]:
        """Upload, wait, fetch, and delete the stems on the server.

        Args:
            recording: The file.
            prompts: What to separate it into, as for ``submit``.
            folder: Where the stems go.
            on_status: Called now and then with where the job stands.
            options: As for ``submit``.

        Returns:
            Stem → file.

        Raises:
            UnbraidError: As ``submit``, ``wait`` and ``download``.
        """
        job = self.submit(recording, prompts, **options)
        try:
            self.wait(job.id, on_status)
            return self.download(job.id, folder)
        finally:
            with suppress(ServiceError):
                self.cancel(job.id)

    # HTTP -----------------------------------------------------------------------------------

    def _uploaded(self, path: Path, fields: Mapping[str, str]) -> dict[str, Any]:
        boundary = secrets.token_hex(16)
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        # The name of the file is nobody's business.
        head += (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            'name="file"; filename="recording"\r\n\r\n'
        )
        tail = f"\r\n--{boundary}--\r\n".encode()
        try:
            file = path.open("rb")
        except OSError as error:
            raise _unreadable(path, error) from error
        with file:
            size = os.fstat(file.fileno()).st_size
            headers = {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(len(head.encode()) + size + len(tail)),
            }

            def body() -> Iterator[bytes]:
                yield head.encode()
                try:
                    while block := file.read(_BLOCK_BYTES):
                        yield block
                except OSError as error:
                    raise _unreadable(path, error) from error
                yield tail

            return self._asked("POST", "/v1/jobs", headers, body())

    def _asked(
        self,
        method: str,
        address: str,
        headers: Mapping[str, str] | None = None,
        body: Iterator[bytes] | None = None,
    ) -> dict[str, Any]:
        with self._answer(method, address, headers, body) as response:
            return _json(self._read(response))

    def _fetch(self, address: str, path: Path) -> None:
        temporary = path.with_name(f".unbraid-{secrets.token_hex(4)}.partial")
        try:
            with self._answer("GET", address) as response, temporary.open("xb") as file:
                expected = response.length
                while block := self._read(response, _BLOCK_BYTES):
                    file.write(block)
                num_bytes = file.tell()
            if expected not in (None, num_bytes):
                raise _Unreachable(f"{self._host}: the server broke off; fetch the stems again.")
            temporary.replace(path)
        except OSError as error:
            raise errors.AudioError(f"{path}: cannot be written ({error.strerror}).") from error
        finally:
            with suppress(OSError):
                temporary.unlink()

    @contextmanager
    def _answer(
        self,
        method: str,
        address: str,
        headers: Mapping[str, str] | None = None,
        body: Iterator[bytes] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection()
        sent = dict(headers or {})
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        try:
            # It may not want all of it, and perhaps it has said why.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, self._path + address, body, sent)
            response = connection.getresponse()
            if response.status >= 400:
                raise _refusal(response.status, response.headers["Retry-After"], response.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _Unreachable(
                f"{self._parts.scheme}://{self._parts.netloc}: no answer ({error}); is the server "
                "running, and is the upload within its limits?"
            ) from error
        except BaseException:
            connection.close()
            raise
        try:
            yield response
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse, num_bytes: int | None = None) -> bytes:
        """So much of an answer, or all of it."""
        try:
            return response.read(num_bytes)
        except (OSError, http.client.HTTPException) as error:
            raise _Unreachable(
                f"{self._host}: the server broke off ({error}); try again."
            ) from error

    def _connection(self) -> http.client.HTTPConnection:
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)


class _Unreachable(ServiceError):
    """No answer, or half of one."""


class _Full(ServiceError):
    """The server asks to come again later."""

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


def _no_address(address: str, why: str = "") -> ConfigError:
    return ConfigError(f"{address}: no address{why}; write it like http://127.0.0.1:8000.")


def _unreadable(path: Path, error: OSError) -> errors.AudioError:
    return errors.AudioError(f"{path}: cannot be read ({error.strerror}).")


def _status(answer: Mapping[str, Any]) -> JobStatus:
    return JobStatus(
        answer["id"],
        answer["state"],
        answer["progress"],
        answer["done_s"],
        answer["total_s"],
        answer["position"],
        tuple(stem["name"] for stem in answer["stems"]),
        answer,
    )


def _json(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise ServiceError("the answer is none of `unbraid serve`; check the address.") from error
    return found if isinstance(found, dict) else {}


def _refusal(status: int, retry_after: str | None, content: bytes) -> UnbraidError:
    answer = _json(content)
    detail = str(answer.get("detail", f"the server answered with status {status}."))
    if status in _TOO_MANY and retry_after is not None and retry_after.isdigit():
        return _Full(detail, float(retry_after))
    return _error_of(str(answer.get("kind")), detail)


def _error_of(kind: str, detail: str) -> UnbraidError:
    """The error that the command line would have shown, if there is one of this name."""
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, UnbraidError):
        return found(detail)
    return ServiceError(detail)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
