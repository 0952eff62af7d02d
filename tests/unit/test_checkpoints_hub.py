"""Models on the hub, against a server on this machine that speaks the hub's protocol."""

import functools
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest

from unbraid.checkpoints import catalogue, resolve_model
from unbraid.checkpoints.bundle import CARD, CONFIG, FILES, MODEL, PROMPTS, TAGGER
from unbraid.checkpoints.hub import fetch
from unbraid.errors import CheckpointError

REPO = "someone/scene"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server holds: files it lists, and files it really sends."""

    files: dict[str, bytes]
    sent: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    endpoint: str = ""

    def listing(self, name: str) -> dict[str, object]:
        content = self.files[name]
        entry: dict[str, object] = {"size": len(content), "oid": git_hash(content)}
        if name.endswith(".safetensors"):
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
        return entry


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def handler_for(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def reply_json(self, data: object) -> None:
            self.reply(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            if REPO not in path:
                self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
            elif "/nowhere" in path:
                self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
            elif path.startswith(f"/api/models/{REPO}/tree/"):
                self.reply_json([{"type": "file", "path": n} | hub.listing(n) for n in hub.files])
            elif path.startswith(f"/api/models/{REPO}"):
                siblings = []
                for name in hub.files:
                    entry = hub.listing(name)
                    sibling = {"rfilename": name, "size": entry["size"], "blobId": entry["oid"]}
                    if isinstance(lfs := entry.get("lfs"), dict):
                        sibling["lfs"] = {
                            "sha256": lfs["oid"],
                            "size": lfs["size"],
                            "pointerSize": 130,
                        }
                    siblings.append(sibling)
                self.reply_json({"id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": siblings})
            elif path.startswith(f"/{REPO}/resolve/"):
                name = path.rsplit("/", 1)[1]
                content = hub.sent.get(name, hub.files[name])
                entry = hub.listing(name)
                lfs = entry.get("lfs")
                etag = str(lfs["oid"] if isinstance(lfs, dict) else entry["oid"])
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}
                if self.command == "HEAD":
                    headers["Content-Length"] = str(entry["size"])
                self.reply(200, content, headers)
            else:
                self.reply(404, b"", {})

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    # Whatever a developer's or a CI machine's environment says about the network.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = Hub({name: f"the content of {name}".encode() * 40 for name in FILES})
    state.files["training.log"] = b"nobody asked for this"
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(state))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_four_files_of_a_bundle_are_fetched_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    folder = fetch(f"hf:{REPO}", endpoint=hub.endpoint, cache_dir=tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (folder / name).read_bytes() == hub.files[name]
    assert not any("training.log" in request for request in hub.requests)


def test_a_tagger_is_fetched_and_checked_where_there_is_one(hub: Hub, tmp_path: Path) -> None:
    hub.files[TAGGER] = b"numbers" * 100
    hub.sent[TAGGER] = b"NUMBERS" * 100
    with pytest.raises(CheckpointError, match=rf"{TAGGER}.*wrong digest"):
        fetch(f"hf:{REPO}", endpoint=hub.endpoint, cache_dir=tmp_path)
    del hub.sent[TAGGER]
    folder = fetch(f"hf:{REPO}", endpoint=hub.endpoint, cache_dir=tmp_path)
    assert (folder / TAGGER).read_bytes() == hub.files[TAGGER]


def test_a_revision_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    fetch(f"hf:{REPO}@v1.0", endpoint=hub.endpoint, cache_dir=tmp_path)
    assert any("v1.0" in request for request in hub.requests)


def test_the_second_time_nothing_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    first = fetch(f"hf:{REPO}", endpoint=hub.endpoint, cache_dir=tmp_path)
    hub.requests.clear()
    assert fetch(f"hf:{REPO}", endpoint=hub.endpoint, cache_dir=tmp_path) == first
    assert not [request for request in hub.requests if request.startswith("GET /someone")]


@pytest.mark.parametrize("name", [MODEL, PROMPTS, CONFIG, CARD])
def test_a_file_of_the_right_size_with_another_content_is_refused(
    hub: Hub, tmp_path: Path, name: str
) -> None:
    hub.sent[name] = hub.files[name][::-1]
    with pytest.raises(CheckpointError, match=rf"{name}.*wrong digest"):
        fetch(f"hf:{REPO}", endpoint=hub.endpoint, cache_dir=tmp_path)
    # The damaged copy is not left for the next call to find.
    del hub.sent[name]
    folder = fetch(f"hf:{REPO}", endpoint=hub.endpoint, cache_dir=tmp_path)
    assert (folder / name).read_bytes() == hub.files[name]


def test_a_file_of_the_wrong_size_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.sent[MODEL] = hub.files[MODEL][:100]
    with pytest.raises(CheckpointError, match=f"hf:{REPO}: cannot be fetched"):
        fetch(f"hf:{REPO}", endpoint=hub.endpoint, cache_dir=tmp_path)


def test_an_unknown_repository_or_revision(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such model on the hub"):
        fetch("hf:no/body", endpoint=hub.endpoint, cache_dir=tmp_path)
    with pytest.raises(CheckpointError, match="no revision nowhere"):
        fetch(f"hf:{REPO}@nowhere", endpoint=hub.endpoint, cache_dir=tmp_path)


def test_a_repository_that_is_no_bundle(hub: Hub, tmp_path: Path) -> None:
    del hub.files[PROMPTS]
    with pytest.raises(CheckpointError, match=f"no {PROMPTS}"):
        fetch(f"hf:{REPO}", endpoint=hub.endpoint, cache_dir=tmp_path)


def test_a_hub_that_cannot_be_reached(hub: Hub, tmp_path: Path) -> None:
    closed = "http://127.0.0.1:9"
    with pytest.raises(CheckpointError, match="cannot be reached"):
        fetch(f"hf:{REPO}", endpoint=closed, cache_dir=tmp_path)
    cached = fetch(f"hf:{REPO}", endpoint=hub.endpoint, cache_dir=tmp_path)
    assert fetch(f"hf:{REPO}", endpoint=closed, cache_dir=tmp_path) == cached


def test_the_environment_chooses_the_hub_and_offline_use(hub: Hub, tmp_path: Path) -> None:
    def resolve(**environment: str) -> "subprocess.CompletedProcess[str]":
        program = f"from unbraid.checkpoints import resolve_model as r; print(r('hf:{REPO}'))"
        return subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"HF_HOME": str(tmp_path)} | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    online = resolve(HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="0")
    assert (Path(online.stdout.strip()) / MODEL).read_bytes() == hub.files[MODEL]
    hub.requests.clear()
    offline = resolve(HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="1")
    assert offline.stdout == online.stdout
    assert not hub.requests


def test_resolve_model_knows_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = functools.partial(fetch, endpoint=hub.endpoint, cache_dir=tmp_path)
    monkeypatch.setattr(catalogue, "fetch", here)
    assert resolve_model(f"hf:{REPO}") == here(f"hf:{REPO}")
    with pytest.raises(CheckpointError, match="no such model on the hub"):
        resolve_model("hf:no/body")


@pytest.mark.parametrize(
    "reference", ["hf:", "hf:name", "hf:a/b/c", "hf:a/b@", "hf:../..", "hf:a b/c"]
)
def test_names_that_make_no_sense(reference: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="hf:"):
        fetch(reference, endpoint="http://127.0.0.1:9", cache_dir=tmp_path)
