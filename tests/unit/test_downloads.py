"""Fetching files, against a server on this machine that misbehaves as asked."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from file_server import FileServer, running_file_server
from unbraid import downloads
from unbraid.downloads import fetch, is_whole, size_in_words
from unbraid.errors import Cancelled, DownloadError

CONTENT = bytes(number * number % 251 for number in range(5000))
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
VERSION = {"ETag": '"first"'}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "_WAITS_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(downloads, "_BLOCK_BYTES", 1000)
    with running_file_server() as running:
        yield running


def leave_a_part(server: FileServer, url: str, path: Path, num_bytes: int) -> None:
    """Fetch the beginning of a file, and stop there."""

    def stop(done: int, total: int | None) -> None:
        if done >= num_bytes:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        fetch(url, path, progress=stop)
    server.ranges.clear()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("digest", [SHA256, MD5, ""])
def test_a_file_is_fetched_whole_and_nothing_else_is_left(
    server: FileServer, tmp_path: Path, digest: str
) -> None:
    path = tmp_path / "new" / "folder" / "model.bin"
    seen: list[tuple[int, int | None]] = []
    fetch(
        server.serve("model.bin", CONTENT),
        path,
        size_bytes=5000,
        digest=digest,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert path.read_bytes() == CONTENT
    assert names_in(path.parent) == ["model.bin"]
    assert seen[0] == (0, 5000)
    assert seen[-1] == (5000, 5000)
    assert seen == sorted(seen)
    assert all(agent.startswith("unbraid/") for agent in server.agents)


def test_what_is_there_and_right_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(CONTENT)
    fetch(server.serve("model.bin", b"other"), path, size_bytes=5000, digest=SHA256)
    assert server.ranges == []
    assert path.read_bytes() == CONTENT


def test_what_is_there_and_wrong_is_replaced(server: FileServer, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(CONTENT[::-1])
    fetch(server.serve("model.bin", CONTENT), path, size_bytes=5000, digest=SHA256)
    assert path.read_bytes() == CONTENT


def test_a_connection_that_breaks_goes_on_where_it_stopped(
    server: FileServer, tmp_path: Path
) -> None:
    # More often than it is allowed to bring nothing.
    url = server.serve("model.bin", CONTENT, headers=VERSION, breaks=[900] * 5)
    fetch(url, tmp_path / "model.bin", size_bytes=5000, digest=SHA256)
    assert server.ranges == ["", *(f"bytes={900 * number}-" for number in range(1, 6))]
    assert (tmp_path / "model.bin").read_bytes() == CONTENT


def test_the_next_call_goes_on_where_the_last_one_stopped(
    server: FileServer, tmp_path: Path
) -> None:
    path = tmp_path / "model.bin"
    url = server.serve("model.bin", CONTENT, headers=VERSION)
    leave_a_part(server, url, path, 2000)
    assert names_in(tmp_path) == ["model.bin.part", "model.bin.part.json"]
    seen: list[int] = []
    fetch(url, path, progress=lambda done, total: seen.append(done))
    assert server.ranges == ["bytes=2000-"]
    assert seen[0] == 2000
    assert path.read_bytes() == CONTENT


def test_a_server_that_knows_no_ranges_sends_it_all_again(
    server: FileServer, tmp_path: Path
) -> None:
    url = server.serve("model.bin", CONTENT, knows_ranges=False, headers=VERSION, breaks=[3000])
    fetch(url, tmp_path / "model.bin", digest=MD5)
    assert server.ranges == ["", "bytes=3000-"]
    assert (tmp_path / "model.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"ETag": '"first"'}, {"ETag": '"second"'}),
        ({"ETag": 'W/"first"'}, {"ETag": 'W/"second"'}),
        (
            {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"},
            {"Last-Modified": "Tue, 02 Jan 2024 00:00:00 GMT"},
        ),
    ],
)
def test_versions_of_a_file_are_never_joined(
    server: FileServer,
    tmp_path: Path,
    heeds_if_range: bool,
    before: dict[str, str],
    after: dict[str, str],
) -> None:
    path = tmp_path / "model.bin"
    url = server.serve("model.bin", CONTENT[::-1], headers=before)
    leave_a_part(server, url, path, 2000)
    server.serve("model.bin", CONTENT, headers=after, heeds_if_range=heeds_if_range)
    fetch(url, path)
    assert path.read_bytes() == CONTENT


def test_a_part_from_elsewhere_or_without_notes_is_not_used(
    server: FileServer, tmp_path: Path
) -> None:
    path = tmp_path / "model.bin"
    leave_a_part(server, server.serve("a", CONTENT[::-1], headers=VERSION), path, 2000)
    url = server.serve("b", CONTENT, headers=VERSION)
    fetch(url, path, size_bytes=5000)
    assert path.read_bytes() == CONTENT
    path.unlink()
    for notes in ("", "[]", '{"unknown": 1}'):
        (tmp_path / "model.bin.part").write_bytes(b"somebody else's")
        (tmp_path / "model.bin.part.json").write_text(notes)
        fetch(url, path)
        assert path.read_bytes() == CONTENT
        path.unlink()
    assert set(server.ranges) == {""}


def test_where_nothing_tells_versions_apart_only_a_digest_allows_to_go_on(
    server: FileServer, tmp_path: Path
) -> None:
    path = tmp_path / "model.bin"
    url = server.serve("model.bin", CONTENT)
    leave_a_part(server, url, path, 2000)
    fetch(url, path, size_bytes=5000)
    assert server.ranges == [""]
    path.unlink()
    leave_a_part(server, url, path, 2000)
    fetch(url, path, digest=SHA256)
    assert server.ranges == ["bytes=2000-"]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("size_bytes", [5000, None])
def test_a_part_that_is_complete_is_taken_as_it_is(
    server: FileServer, tmp_path: Path, size_bytes: int | None
) -> None:
    path = tmp_path / "model.bin"
    url = server.serve("model.bin", CONTENT, headers=VERSION)
    leave_a_part(server, url, path, 5000)
    fetch(url, path, size_bytes=size_bytes, digest=SHA256)
    assert path.read_bytes() == CONTENT
    # Without a size, the server is asked and has nothing more.
    assert server.ranges == ([] if size_bytes else ["bytes=5000-"])


def test_a_part_that_is_longer_than_the_file_begins_anew(
    server: FileServer, tmp_path: Path
) -> None:
    path = tmp_path / "model.bin"
    url = server.serve("model.bin", CONTENT + b"more", headers=VERSION)
    leave_a_part(server, url, path, 5004)
    server.serve("model.bin", CONTENT, headers=VERSION)
    fetch(url, path)
    assert server.ranges == ["bytes=5004-", ""]
    assert path.read_bytes() == CONTENT


def test_a_wrong_digest_is_refused_and_thrown_away(server: FileServer, tmp_path: Path) -> None:
    url = server.serve("model.bin", CONTENT[::-1])
    with pytest.raises(DownloadError, match="not what its publisher promised") as caught:
        fetch(url, tmp_path / "model.bin", size_bytes=5000, digest=SHA256)
    assert url in str(caught.value)
    assert SHA256 in str(caught.value)
    assert names_in(tmp_path) == []


def test_a_wrong_digest_leaves_what_was_there_before(server: FileServer, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"the former model")
    with pytest.raises(DownloadError, match="thrown away"):
        fetch(server.serve("model.bin", CONTENT[::-1]), path, digest=SHA256)
    assert path.read_bytes() == b"the former model"


@pytest.mark.parametrize("size_bytes", [4999, 5001])
def test_a_wrong_size_is_refused_before_anything_comes(
    server: FileServer, tmp_path: Path, size_bytes: int
) -> None:
    with pytest.raises(DownloadError, match=f"5000 bytes there, but should have {size_bytes}"):
        fetch(server.serve("m", CONTENT), tmp_path / "m", size_bytes=size_bytes)
    assert not (tmp_path / "m").exists()
    assert (tmp_path / "m.part").stat().st_size == 0


def test_too_much_from_a_server_that_tells_no_length_is_refused(
    server: FileServer, tmp_path: Path
) -> None:
    url = server.serve("m", CONTENT, says_length=False)
    with pytest.raises(DownloadError, match="instead of 4000, and was thrown away"):
        fetch(url, tmp_path / "m", size_bytes=4000)
    assert names_in(tmp_path) == []


def test_too_little_from_a_server_that_tells_no_length_goes_on(
    server: FileServer, tmp_path: Path
) -> None:
    url = server.serve("m", CONTENT, says_length=False, headers=VERSION, breaks=[3000])
    fetch(url, tmp_path / "m", size_bytes=5000)
    assert server.ranges == ["", "bytes=3000-"]
    assert (tmp_path / "m").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "there is no such file"),
        (403, "asks? for an account"),
        (418, "gives no file"),
    ],
)
def test_a_refusal_is_explained_and_not_repeated(
    server: FileServer, tmp_path: Path, status: int, message: str
) -> None:
    url = server.serve("m", CONTENT, statuses=[(status, {})])
    with pytest.raises(DownloadError, match=rf"{message}.*HTTP {status}"):
        fetch(url, tmp_path / "m")
    assert len(server.ranges) == 1


def test_a_server_that_is_busy_is_asked_again_when_it_says(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(downloads.time, "sleep", waited.append)
    statuses = [(503, {}), (429, {"Retry-After": "7"}), (429, {"Retry-After": "86400"})]
    fetch(server.serve("m", CONTENT, statuses=statuses), tmp_path / "m")
    assert waited == [0.0, 7.0, 60.0]
    assert (tmp_path / "m").read_bytes() == CONTENT


def test_a_server_that_stays_broken_is_given_up_and_what_came_is_kept(
    server: FileServer, tmp_path: Path
) -> None:
    path = tmp_path / "m"
    url = server.serve("m", CONTENT, headers=VERSION, breaks=[2000, 0, 0, 0, 0])
    with pytest.raises(DownloadError, match=r"broke after 2000 of 5000.*the 2\.0 kB that came"):
        fetch(url, path)
    assert len(server.ranges) == 1 + 3
    server.files["m"].breaks.clear()
    fetch(url, path, digest=SHA256)
    assert server.ranges[-1] == "bytes=2000-"


def test_a_server_that_always_begins_anew_and_breaks_is_given_up(
    server: FileServer, tmp_path: Path
) -> None:
    url = server.serve("m", CONTENT, knows_ranges=False, breaks=[2000] * 50)
    with pytest.raises(DownloadError, match="broke after 2000"):
        fetch(url, tmp_path / "m")
    assert len(server.ranges) == 4


def test_nobody_at_the_address(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match=r"127\.0\.0\.1:9/m: cannot be fetched.*refused.*try again\.$"
    ):
        fetch("http://127.0.0.1:9/m", tmp_path / "m")


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "ftp://host/m", "model.bin", "http://"])
def test_only_web_addresses_are_fetched(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="not an address"):
        fetch(url, tmp_path / "m")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("digest", ["abc", "md5:abc", "crc:0000", f"sha256:{'G' * 64}"])
def test_a_digest_that_is_none(tmp_path: Path, digest: str) -> None:
    with pytest.raises(DownloadError, match="no digest"):
        fetch("http://127.0.0.1:9/m", tmp_path / "m", digest=digest)


def test_a_disk_without_room_is_seen_before_anything_comes(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m"
    url = server.serve("m", CONTENT, headers=VERSION)
    leave_a_part(server, url, path, 2000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9000, 6001, 2999))
    with pytest.raises(DownloadError, match=r"needs 3\.0 kB more, but only 3\.0 kB are free"):
        fetch(url, path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9000, 6000, 3000))
    fetch(url, path)
    assert path.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(server.serve("m", CONTENT), tmp_path / "file" / "m")


def test_the_event_stops_a_transfer_and_a_wait(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m"
    cancel = threading.Event()

    def stop_at_2000(done: int, total: int | None) -> None:
        if done == 2000:
            cancel.set()

    url = server.serve("m", CONTENT, headers=VERSION)
    with pytest.raises(Cancelled, match="kept for the next time"):
        fetch(url, path, progress=stop_at_2000, cancel=cancel)
    assert (tmp_path / "m.part").read_bytes() == CONTENT[:2000]

    monkeypatch.setattr(downloads, "_WAITS_S", (3600.0,))
    server.files["m"].statuses = [(503, {})]
    waiting = threading.Event()
    threading.Timer(0.1, waiting.set).start()
    with pytest.raises(Cancelled):
        fetch(url, path, cancel=waiting)


def test_a_process_that_is_killed_leaves_a_part_to_go_on_from(
    server: FileServer, tmp_path: Path
) -> None:
    content = CONTENT * 1000
    url = server.serve("m", content, headers=VERSION)
    code = (
        "import os, signal, sys; from pathlib import Path; from unbraid.downloads import fetch\n"
        "def die(done, total):\n"
        "    if done > 2_000_000: os.kill(os.getpid(), signal.SIGTERM)\n"
        "fetch(sys.argv[1], Path(sys.argv[2]), progress=die)"
    )
    path = tmp_path / "m"
    killed = subprocess.run([sys.executable, "-c", code, url, str(path)], check=False)
    assert killed.returncode != 0
    assert not path.exists()
    fetch(url, path, digest=f"md5:{hashlib.md5(content).hexdigest()}")
    assert int(server.ranges[-1].removeprefix("bytes=").rstrip("-")) > 1_500_000


def test_a_file_that_another_process_is_fetching_is_waited_for(
    server: FileServer, tmp_path: Path
) -> None:
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / "m"
    url = server.serve("m", CONTENT)
    part = path.with_name("m.part")
    with part.open("a+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiter = threading.Thread(target=fetch, args=(url, path))
        waiter.start()
        waiter.join(0.5)
        assert waiter.is_alive()
        assert server.ranges == []
        other.write(CONTENT)
        other.flush()
        part.rename(path)
    waiter.join(10)
    assert not waiter.is_alive()
    assert server.ranges == []
    assert path.read_bytes() == CONTENT
    assert names_in(tmp_path) == ["m"]


def test_two_at_once_fetch_it_once(server: FileServer, tmp_path: Path) -> None:
    url = server.serve("m", CONTENT)
    threads = [threading.Thread(target=fetch, args=(url, tmp_path / "m")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert server.ranges == [""]
    assert (tmp_path / "m").read_bytes() == CONTENT
    assert names_in(tmp_path) == ["m"]


def test_the_notes_say_which_version_a_part_is_of(server: FileServer, tmp_path: Path) -> None:
    url = server.serve("m", CONTENT, headers=VERSION)
    leave_a_part(server, url, tmp_path / "m", 1000)
    notes = json.loads((tmp_path / "m.part.json").read_text())
    assert notes == {"url": url, "etag": '"first"', "last_modified": ""}


def test_a_file_is_whole_if_size_and_digest_are_right(tmp_path: Path) -> None:
    path = tmp_path / "m"
    assert not is_whole(path)
    path.write_bytes(CONTENT)
    assert is_whole(path)
    assert is_whole(path, 5000, MD5)
    assert not is_whole(path, 4999)
    assert not is_whole(path, 5000, f"md5:{'0' * 32}")


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (2 * 10**12, "2.0 TB")],
)
def test_sizes_in_words(num_bytes: int, words: str) -> None:
    assert size_in_words(num_bytes) == words
