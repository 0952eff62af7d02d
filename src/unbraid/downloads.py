"""Fetching files over HTTP, so that a broken connection costs nothing and a wrong file never stays.

A file that is on its way lies beside its place as ``NAME.part``. ``NAME.part.json`` says which
version of it that is, as the server tells versions apart, so that no two are ever joined. The
file appears under its name when its size and digest are right, and not before.
"""

from __future__ import annotations

import errno
import hashlib
import http
import http.client
import json
import os
import re
import shutil
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import IO, TypeAlias
from urllib.parse import urlsplit

from unbraid._version import __version__
from unbraid.errors import Cancelled, DownloadError

#: Called with the bytes that are there and, where it is known, how many there will be. May raise
#: ``errors.Cancelled``.
ByteProgress: TypeAlias = Callable[[int, int | None], None]

_BLOCK_BYTES = 2**18
_TIMEOUT_S = 60.0

#: What to wait before each new attempt. That many attempts in a row that bring nothing new are
#: made before it is given up; whatever brings something begins the row anew.
_WAITS_S = (1.0, 2.0, 4.0, 8.0)
_LONGEST_WAIT_S = 60.0
_PATIENCE_WITH_OTHERS_S = 0.2

_PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_DIGEST = re.compile(r"md5:[0-9a-f]{32}|sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64}")
_CONTENT_RANGE = re.compile(r"bytes (?:(?P<start>\d+)-\d+|\*)/(?P<total>\d+|\*)")


def fetch(
    url: str,
    path: Path,
    *,
    size_bytes: int | None = None,
    digest: str = "",
    progress: ByteProgress | None = None,
    cancel: threading.Event | None = None,
) -> None:
    """Fetch a file, unless it is there already.

    What an earlier call has left of it is used, as long as the server still has the same
    version. A connection that breaks is made again and goes on where it stopped; where the
    server cannot do that, the file begins anew. Several processes may ask for one file: one
    of them fetches it, the others wait for it.

    Args:
        url: Where it lies; ``http`` or ``https``.
        path: Where it shall be. A file there that has another size or digest is replaced.
        size_bytes: Its size; None where nobody knows. Without it and ``digest``, a file that a
            server sends without a length cannot be told from one that was cut short.
        digest: ``md5:…``, ``sha1:…`` or ``sha256:…`` in lower case; empty where nobody knows.
        progress: Called with every block; may raise ``Cancelled``.
        cancel: Set it to stop, from whatever thread; it is heeded while waiting, too.

    Raises:
        DownloadError: If it is not there, cannot be reached or kept, or is not what it should
            be. What is wrong is thrown away; what is only incomplete stays for the next call.
        Cancelled: If it was stopped. What has come stays for the next call.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise DownloadError(f"{url!r}: not an address to fetch from; it begins with https://.")
    if digest and not _DIGEST.fullmatch(digest):
        raise DownloadError(
            f"{url}: {digest!r} is no digest; write md5:, sha1: or sha256: and hex."
        )
    job = _Job(url, path, size_bytes, digest, progress, cancel)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while not is_whole(path, size_bytes, digest):
            with job.part.open("a+b") as file:
                if job.own(file):
                    return job.run(file)
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise DownloadError(
            f"{path}: cannot be written ({why}); make room or choose another folder, "
            "then try again: what has come is kept."
        ) from error


def is_whole(path: Path, size_bytes: int | None = None, digest: str = "") -> bool:
    """Whether a file is there and has that size and digest, as far as they are given."""
    if not path.is_file() or size_bytes not in (None, path.stat().st_size):
        return False
    return not digest or _digest_of(path, digest, None) == digest


def size_in_words(num_bytes: int) -> str:
    """A size for people, in decimal units.

    >>> size_in_words(999), size_in_words(17_654_321_000), size_in_words(1_200_000)
    ('999 B', '17.7 GB', '1.2 MB')
    """
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if round(size, 1) < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


# ------------------------------------------------------------------ one file


@dataclass(frozen=True)
class _Version:
    """What tells one version of a file from the next.

    Attributes:
        url: Where it came from.
        etag: As the server gave it; empty if it did not.
        last_modified: The same.
    """

    url: str = ""
    etag: str = ""
    last_modified: str = ""

    @property
    def condition(self) -> str:
        """What ``If-Range`` takes: weak tags are of no use for parts of a file."""
        return self.last_modified if self.etag.startswith("W/") or not self.etag else self.etag

    def is_other_than(self, newer: _Version) -> bool:
        """Whether the server's words say that it is another version."""
        return any(
            kept and now and kept != now
            for kept, now in (
                (self.etag, newer.etag),
                (self.last_modified, newer.last_modified),
            )
        )


class _BrokenOffError(Exception):
    """The connection failed in a way that may pass."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


@dataclass(frozen=True)
class _Job:
    """One file that is to be fetched."""

    url: str
    path: Path
    size_bytes: int | None
    digest: str
    progress: ByteProgress | None
    cancel: threading.Event | None

    @property
    def part(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def notes(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part.json")

    def own(self, file: IO[bytes]) -> bool:
        """Wait until no other process writes to the part.

        Returns:
            Whether it still is the part: its last owner may have made it a whole file.
        """
        while not try_lock(file):
            self.wait(_PATIENCE_WITH_OTHERS_S)
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.part.stat())
        except FileNotFoundError:
            return False

    def run(self, file: IO[bytes]) -> None:
        """Fill the part, check it, and give it its name."""
        self._fill(file)
        file.flush()
        os.fsync(file.fileno())  # some disks report 'full' only now
        self._check(file)
        if sys.platform == "win32":
            file.close()  # an open file cannot be renamed there
        self.part.replace(self.path)
        self.notes.unlink(missing_ok=True)

    def wait(self, seconds: float) -> None:
        """Wait, but not longer than the caller has patience."""
        if self.cancel is None:
            time.sleep(seconds)
        else:
            self.cancel.wait(seconds)
        self.heed_cancel()

    def heed_cancel(self) -> None:
        """Stop if the caller wants that."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled(f"{self.url}: stopped; what has come is kept for the next time.")

    # -------------------------------------------------------------- the way there

    def _fill(self, file: IO[bytes]) -> None:
        """Attempt until the part is complete."""
        most = _size(file)
        num_failures = 0
        while True:
            try:
                return self._attempt(file)
            except _BrokenOffError as error:
                num_failures = 1 if _size(file) > most else num_failures + 1
                most = max(most, _size(file))
                if num_failures > len(_WAITS_S):
                    kept = f": the {size_in_words(_size(file))} that came are kept"
                    raise DownloadError(
                        f"{self.url}: cannot be fetched ({error}); look to the connection and "
                        f"try again{kept if _size(file) else ''}."
                    ) from error
                self.wait(min(max(_WAITS_S[num_failures - 1], error.wait_s), _LONGEST_WAIT_S))

    def _attempt(self, file: IO[bytes]) -> None:
        """Ask for what is missing, and take what comes.

        Raises:
            _BrokenOffError: If not all of it came.
        """
        self.heed_cancel()
        kept = self._kept_version()
        offset = _size(file)
        if offset and offset == self.size_bytes and kept.url == self.url:
            return
        is_same_for_sure = bool(kept.condition or self.digest)
        is_too_long = self.size_bytes is not None and offset > self.size_bytes
        if kept.url != self.url or not is_same_for_sure or is_too_long:
            offset = 0
        try:
            response = self._open(kept, offset)
        except _NothingMissingError:
            return
        with response:
            offered = _version_of(self.url, response.headers)
            start, total = _extent(response)
            if start and (start != offset or kept.is_other_than(offered)):
                # Of no use, as it does not fit what is there; the next attempt begins anew.
                file.truncate(0)
                raise _BrokenOffError("the server sent what does not fit the beginning")
            offset = start
            self._check_promise(total, offset)
            if not offset:
                file.truncate(0)
                self.notes.write_text(json.dumps(asdict(offered)), encoding="utf-8")
            self._take(response, file, offset, self.size_bytes if total is None else total)

    def _open(self, kept: _Version, offset: int) -> http.client.HTTPResponse:
        headers = {}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if kept.condition:
                headers["If-Range"] = kept.condition
        try:
            return _request(self.url, headers)
        except _NothingThereError as error:
            raise self._range_refused(error.headers, offset) from error

    def _range_refused(self, headers: Message, offset: int) -> Exception:
        """What it means that a server has nothing from ``offset`` on."""
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if match and match["total"] == str(offset):
            return _NothingMissingError()
        # The next attempt finds no notes, and so begins anew.
        self.notes.unlink(missing_ok=True)
        return _BrokenOffError("the server has less of it than came before")

    def _check_promise(self, total: int | None, offset: int) -> None:
        """See before anything comes that it is of the right size and finds room."""
        if None not in (total, self.size_bytes) and total != self.size_bytes:
            raise DownloadError(
                f"{self.url}: has {total} bytes there, but should have {self.size_bytes}; it is "
                "another version of the file. Look at its publisher's page."
            )
        expected = self.size_bytes if total is None else total
        missing = 0 if expected is None else expected - offset
        free = shutil.disk_usage(self.path.parent).free
        if missing > free:
            raise DownloadError(
                f"{self.path}: needs {size_in_words(missing)} more, but only "
                f"{size_in_words(free)} are free on that disk; make room or choose another folder."
            )

    def _take(
        self,
        response: http.client.HTTPResponse,
        file: IO[bytes],
        offset: int,
        total: int | None,
    ) -> None:
        """Write to the part what comes."""
        done = offset
        try:
            while True:
                if self.progress is not None:
                    self.progress(done, total)
                self.heed_cancel()
                try:
                    block = response.read1(_BLOCK_BYTES)
                except (OSError, http.client.HTTPException) as error:
                    raise _network_failure(self.url, error) from error
                if not block:
                    break
                file.write(block)
                done += len(block)
                if total is not None and done > total:
                    break  # the digest of more than was promised cannot be right
        finally:
            file.flush()
        if total is not None and done < total:
            raise _BrokenOffError(f"the connection broke after {done} of {total} bytes")

    def _kept_version(self) -> _Version:
        """The version that the part is of; an empty one where nothing says so."""
        try:
            return _Version(**json.loads(self.notes.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return _Version()

    # -------------------------------------------------------------- the check

    def _check(self, file: IO[bytes]) -> None:
        """Throw the part away unless it is what it should be."""
        size_bytes = _size(file)
        if self.size_bytes not in (None, size_bytes):
            self._throw_away(file)
            raise DownloadError(
                f"{self.url}: gave {size_bytes} bytes instead of {self.size_bytes}, and was thrown "
                "away; try again, and look at its publisher's page if it happens again."
            )
        if not self.digest:
            return
        found = _digest_of(self.part, self.digest, self.heed_cancel)
        if found != self.digest:
            self._throw_away(file)
            raise DownloadError(
                f"{self.url}: is not what its publisher promised ({found}, but {self.digest} was "
                "expected), and was thrown away; try again, and do not use it if it happens again."
            )

    def _throw_away(self, file: IO[bytes]) -> None:
        if sys.platform == "win32":
            file.close()
        self.part.unlink()
        self.notes.unlink(missing_ok=True)


# ------------------------------------------------------------------ a part of a file


def fetch_range(url: str, first: int, count: int) -> bytes:
    """Fetch some bytes of a file; a connection that breaks is made again and goes on.

    Args:
        url: Where the file lies; ``http`` or ``https``.
        first: The first byte that is wanted.
        count: How many; at least one.

    Raises:
        DownloadError: If it is not there, cannot be reached, is shorter, or the server gives
            files as a whole only.
    """
    came = bytearray()
    num_failures = 0
    while True:
        most = len(came)
        try:
            _take_range(url, first, count, came)
            return bytes(came)
        except _BrokenOffError as error:
            num_failures = 1 if len(came) > most else num_failures + 1
            if num_failures > len(_WAITS_S):
                raise DownloadError(
                    f"{url}: bytes {first} to {first + count} cannot be fetched ({error}); look to "
                    "the connection and try again."
                ) from error
            time.sleep(min(max(_WAITS_S[num_failures - 1], error.wait_s), _LONGEST_WAIT_S))


def _take_range(url: str, first: int, count: int, came: bytearray) -> None:
    """Add to ``came`` what is missing of a range.

    Raises:
        _BrokenOffError: If not all of it comes; what comes is kept.
    """
    start, last = first + len(came), first + count - 1
    try:
        response = _request(url, {"Range": f"bytes={start}-{last}"})
    except _NothingThereError as error:
        raise DownloadError(f"{url}: is too short to have the bytes {start} to {last}.") from error
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            raise DownloadError(
                f"{url}: the server gives files as a whole only (no range requests); copy them to "
                "a disk, or have them served by a server that gives parts."
            )
        if _extent(response)[0] != start:
            raise _BrokenOffError("the server sent another part than was asked for")
        while len(came) < count:
            try:
                block = response.read1(min(_BLOCK_BYTES, count - len(came)))
            except (OSError, http.client.HTTPException) as error:
                raise _network_failure(url, error) from error
            if not block:
                raise _BrokenOffError(f"the connection broke after {len(came)} of {count} bytes")
            came += block


class _NothingThereError(Exception):
    """The server has nothing in the range that it was asked for."""

    def __init__(self, headers: Message) -> None:
        super().__init__("nothing in that range")
        self.headers = headers


def _request(url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    """Ask a server for a file.

    Raises:
        _NothingThereError: If only a range was wanted, and the file has nothing there.
        _BrokenOffError: If it fails in a way that may pass.
        DownloadError: If it fails in another way.
    """
    named = {"User-Agent": f"unbraid/{__version__}", **headers}
    request = urllib.request.Request(url, headers=named)
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        return response
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and "Range" in headers:
                raise _NothingThereError(error.headers) from error
            raise _refusal(url, error) from error
    except (OSError, http.client.HTTPException) as error:
        raise _network_failure(url, error) from error


def _refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    """What an HTTP status that is no success means."""
    if error.code in _PASSING_STATUSES:
        retry_after = error.headers.get("Retry-After", "")
        wait_s = float(retry_after) if retry_after.isdigit() else 0.0
        return _BrokenOffError(f"HTTP {error.code} {error.reason}", wait_s)
    if error.code in (404, 410):
        why = "there is no such file; it may have moved, look at its publisher's page"
    elif error.code in (401, 403):
        why = "the server refuses it; it may ask for an account or an agreement first"
    else:
        why = "the server gives no file; look at its publisher's page"
    return DownloadError(f"{url}: {why} (HTTP {error.code} {error.reason}).")


def _network_failure(url: str, error: Exception) -> Exception:
    """What an exception of the network means."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadError(
            f"{url}: the server cannot prove who it is ({reason.verify_message}); "
            "nothing was fetched. Look to the certificates and the clock of this machine."
        )
    if isinstance(reason, http.client.InvalidURL):
        return DownloadError(f"{url!r}: not an address to fetch from ({reason}).")
    return _BrokenOffError(str(reason) or type(reason).__name__)


class _NothingMissingError(Exception):
    """The part is the whole file."""


# ------------------------------------------------------------------ small parts


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _digest_of(path: Path, like: str, heed: Callable[[], None] | None) -> str:
    """The digest of a file, of the kind of another digest."""
    kind = like.partition(":")[0]
    digest = hashlib.new(kind, usedforsecurity=kind == "sha256")
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            if heed is not None:
                heed()
            digest.update(block)
    return f"{kind}:{digest.hexdigest()}"


def _version_of(url: str, headers: Message) -> _Version:
    return _Version(url, headers.get("ETag", ""), headers.get("Last-Modified", ""))


def _extent(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where in the file an answer begins, and how long the whole file is."""
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or match["start"] is None:
            raise _BrokenOffError("the server does not say which part of the file it sent")
        return int(match["start"]), None if match["total"] == "*" else int(match["total"])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


if sys.platform == "win32":
    import msvcrt

    #: Far beyond any file: the lock must not keep others from reading the bytes themselves.
    _LOCK_AT = 2**62

    def try_lock(file: IO[bytes]) -> bool:
        """Take the file for this process; False while another one has it."""
        position = file.tell()
        file.seek(_LOCK_AT)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            file.seek(position)
        return True

else:
    import fcntl

    def try_lock(file: IO[bytes]) -> bool:
        """Take the file for this process; False while another one has it."""
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Where a file system has no locks, the digest finds out what two have written at once.
            return error.errno not in (errno.EAGAIN, errno.EACCES)
        return True
