"""The client where something is wrong: with its address, the way to the server, or files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import unbraid
from unbraid.errors import AudioError, ConfigError, ServiceError
from unbraid.serve.client import Client

TOKEN = "a-token-for-this-test"


@pytest.fixture
def answer() -> Iterator[Callable[[bytes], Client]]:
    """Clients of servers that send this, and then keep the line."""
    lines: list[socket.socket] = []

    def serve(listener: socket.socket, content: bytes) -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            lines.append(line)
            line.recv(2**16)
            line.sendall(content)

    def client(content: bytes) -> Client:
        listener = socket.create_server(("127.0.0.1", 0))
        lines.append(listener)
        threading.Thread(target=serve, args=(listener, content), daemon=True).start()
        port = listener.getsockname()[1]
        return Client(f"http://127.0.0.1:{port}", TOKEN, timeout_s=0.1, patience_s=0.3)

    yield client
    for line in lines:
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)  # what waits for it wakes up
        line.close()


def whole(text: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


STALLED = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
DONE = whole(
    '{"id": "a", "state": "done", "progress": 1, "done_s": 1, "total_s": 1, "position": null, '
    '"format": "wav", "stems": [{"name": "speech", "path": "/speech"}]}'
)


def test_it_needs_no_other_package() -> None:
    # Without ``site`` there are no packages but what the path says.
    code = (
        "import sys, unbraid.serve.client; "
        "sys.exit(', '.join({'torch', 'numpy', 'fastapi', 'pydantic'} & set(sys.modules)) or 0)"
    )
    place = Path(unbraid.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(place)}
    subprocess.run([sys.executable, "-S", "-c", code], check=True, env=environment)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:8000", "http://h:abc", "http://h:99999", "http://[::1", "http://.h", "ftp://h"],
)
def test_an_address_that_is_none_is_refused_at_once(address: str) -> None:
    with pytest.raises(ConfigError, match="no address"):
        Client(address)


def test_a_token_may_end_a_line_and_is_never_told() -> None:
    Client(token=f"{TOKEN}\n")
    for wrong in ("sec\nret-of-mine", "sec ret-of-mine", "sécret-of-mine"):
        with pytest.raises(ConfigError, match="plain ASCII") as caught:
            Client(token=wrong)
        assert "of-mine" not in str(caught.value)


def test_a_server_that_stalls_is_at_fault_not_the_recording(
    tmp_path: Path, answer: Callable[[bytes], Client]
) -> None:
    recording = tmp_path / "short.wav"
    recording.write_bytes(b"RIFF")
    client = answer(STALLED)
    actions: list[Callable[[], object]] = [
        lambda: client.submit(recording, ["speech"]),
        lambda: client.wait("a", every_s=0.01),  # it asks again, for as long as it has patience
        client.offer,
    ]
    for act in actions:
        with pytest.raises(ServiceError, match=r"the server broke off \(timed out\)"):
            act()


def test_a_text_is_taken_for_names_with_commas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    def uploaded(self: Client, path: Path, fields: dict[str, str]) -> object:
        sent.append(fields["prompts"])
        raise ConfigError("enough.")

    monkeypatch.setattr(Client, "_uploaded", uploaded)
    for prompts in ("speech, sfx", ["speech", " sfx"]):
        with pytest.raises(ConfigError, match="enough"):
            Client().submit(tmp_path / "a.wav", prompts)
    assert sent == ["speech, sfx"] * 2


@pytest.mark.parametrize("blocked", ["out", "out/speech.wav"])
def test_what_stands_where_the_stems_go_is_named(
    tmp_path: Path, answer: Callable[[bytes], Client], blocked: str
) -> None:
    out = tmp_path / "out"
    if blocked == "out":
        out.write_text("a file")
    else:
        (tmp_path / blocked).mkdir(parents=True)
    with pytest.raises(AudioError, match=blocked) as caught:
        answer(DONE).download("a", out)
    assert ".partial" not in str(caught.value)
    assert [path.name for path in tmp_path.glob("out/*")] == ["speech.wav"] * out.is_dir()


def test_what_cannot_be_read_is_no_recording(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.wav", tmp_path):
        with pytest.raises(AudioError, match="cannot be read"):
            Client().submit(path, ["speech"])
