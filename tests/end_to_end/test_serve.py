"""The server, asked over HTTP: results, refusals, limits, tokens, cancelling, stopping."""

from __future__ import annotations

import io
import struct
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs unbraid[serve]")
pytest.importorskip("uvicorn", reason="needs unbraid[serve]")
pytest.importorskip("prometheus_client", reason="needs unbraid[serve]")

from command_line import files_below, unbraid, write_audio
from serving import Brake, Running, form, running, wav
from unbraid.checkpoints import save_bundle
from unbraid.checkpoints.card import Card
from unbraid.errors import AudioError, ConfigError, PromptError, ServiceError
from unbraid.models.waveform import WaveformModel
from unbraid.serve.client import Client, JobStatus
from unbraid.serve.jobs import Limits, Offer
from unbraid.serve.spool import Spool

LIMITS = Limits(upload_bytes=200_000, upload_s=5, audio_s=2, channels=2, stems=3, queued_jobs=2)
UNKNOWN = "0" * 32


@pytest.fixture(scope="module")
def server(built_tiny_model: WaveformModel) -> Iterator[Running]:
    """One server for all tests that leave it as it was."""
    with running(built_tiny_model, LIMITS) as it:
        yield it


@pytest.fixture
def brake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Brake]:
    it = Brake()
    monkeypatch.setattr("unbraid.serve.engine.separate_file", it)
    yield it
    it.go_on.set()


# Results ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (("--consistency", "project"), {"consistency": "project"}),
        (
            ("--flac", "--int24", "--residual", "--gate", "--peak", "-3"),
            {"format": "flac", "depth": "int24", "residual": True, "gate": True, "peak_dbfs": -3},
        ),
    ],
)
def test_stems_are_those_of_the_command_line(
    server: Running,
    tiny_model: WaveformModel,
    tmp_path: Path,
    flags: tuple[str, ...],
    options: dict,
) -> None:
    recording = write_audio(tmp_path / "street.wav", 40_000, rate=44_100)
    save_bundle(tiny_model, tmp_path / "tiny", Card("tiny", "CC0-1.0", "a test"))
    out = tmp_path / "local"
    outcome = unbraid(
        *("separate", recording, "-m", tmp_path / "tiny", "-p", "speech,music,speech"),
        *("-d", "cpu", "-o", out, "--filename", "{stem}.{ext}", *flags),
    )
    assert outcome.code == 0, outcome.stderr
    seen: list[JobStatus] = []
    files = server.client.separate(
        recording, ["speech", "music", "speech"], tmp_path / "far", on_status=seen.append, **options
    )
    residual = ["residual"] if options.get("residual") else []
    assert list(files) == ["speech_1", "music-mix", "speech_2", *residual]
    for file in files.values():
        assert file.read_bytes() == (out / file.name).read_bytes()
    assert seen[-1].state == "done"
    assert seen[-1].progress == 1.0
    assert seen[-1].done_s == seen[-1].total_s == 40_000 / 44_100


def test_a_job_says_all_about_its_stems_and_gives_them_as_a_zip(
    server: Running, tmp_path: Path
) -> None:
    recording = write_audio(tmp_path / "a.wav")
    job = server.client.submit(recording, ["speech", "sfx-mix"])
    status = server.client.wait(job.id, every_s=0.01)
    answer = status.answer
    assert status.stems == ("speech", "sfx-mix")
    assert answer["sample_rate"] == 48_000
    assert answer["num_channels"] == 2
    assert answer["residual_to_mixture_db"] is not None
    assert answer["created"] <= answer["started"] <= answer["finished"] < answer["expires"]
    for stem in answer["stems"]:
        code, content, headers = server.ask("GET", stem["path"])
        assert code == 200
        assert headers["Content-Type"] == "audio/wav"
        assert len(content) == stem["num_bytes"]
        assert 0 <= stem["presence"] <= 1
    code, content, headers = server.ask("GET", answer["archive"])
    assert (code, headers["Content-Type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["speech.wav", "sfx-mix.wav", "presence.csv"]
        packed = archive.read("speech.wav")
    assert packed == server.ask("GET", answer["stems"][0]["path"])[1]
    assert server.ask("GET", f"/v1/jobs/{job.id}/stems/drums")[0] == 404
    with pytest.raises(PromptError, match="did you mean speech"):
        server.client.submit(recording, ["spech"])
    # Nothing of the server's disk is told, and of the upload nothing is left.
    assert str(server.service.spool.folder) not in str(answer)
    assert not server.service.spool.recording(job.id).exists()
    deleted = server.client.cancel(job.id)
    assert (deleted.state, deleted.stems) == ("expired", ())
    assert server.ask("GET", answer["archive"])[0] == 410
    assert files_below(server.service.spool.folder / job.id) == ["job.json"]


def test_a_recording_without_samples_is_separated_like_any_other(
    server: Running, tmp_path: Path
) -> None:
    files = server.client.separate(write_audio(tmp_path / "a.wav", 0), ["speech"], tmp_path / "o")
    assert files["speech"].is_file()


# What is turned away ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"prompts": "spech"}, "PromptError", "did you mean speech"),
        ({"prompts": " , "}, "PromptError", "no prompt given"),
        ({}, "PromptError", "no prompt given"),
        ({"prompts": "/etc/door.prompt.safetensors"}, "PromptError", "unknown prompt"),
        ({"prompts": "speech", "url": "http://example.org/a.wav"}, "ConfigError", "'url'"),
        ({"prompts": "speech", "path": "/etc/passwd"}, "ConfigError", "'path'"),
        ({"prompts": "speech", "format": "aiff"}, "ConfigError", "format"),
        (
            {"prompts": "speech", "format": "flac", "depth": "float32"},
            "ConfigError",
            "format=flac cannot hold depth=float32; write format=wav, or format=flac with depth",
        ),
        ({"prompts": "speech", "bitrate_kbps": "64"}, "ConfigError", "bitrate_kbps 64: WAV"),
        ({"prompts": "speech", "peak_dbfs": "7"}, "ConfigError", "peak_dbfs 7: must be"),
        ({"prompts": "speech", "peak_dbfs": "nan"}, "ConfigError", "peak_dbfs nan: must be"),
        ({"prompts": "speech", "track": "0"}, "ConfigError", "track 0: tracks"),
        ({"prompts": "speech", "track": "2"}, "AudioError", "no audio track 2"),
        ({"prompts": "speech", "gate": "perhaps"}, "ConfigError", "gate"),
    ],
)
def test_what_makes_no_sense_is_refused_in_the_words_of_the_form(
    server: Running, tmp_path: Path, fields: dict[str, str], kind: str, words: str
) -> None:
    code, answer, _ = server.post(form(wav(tmp_path / "a.wav"), **fields))
    assert (code, answer["kind"]) == (422, kind)
    assert words in answer["detail"]
    assert "--" not in answer["detail"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"no sound at all", "not an audio file"),
        (b"#EXTM3U\n#EXTINF:9\nfile:///etc/passwd\n", "not an audio file"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not an audio file"),
        (b"http://example.org/a.wav", "not an audio file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(2000), "HDF5 is not taken"),
        (b"RIFF" + bytes(40), "not an audio file"),
    ],
)
def test_only_what_decodes_is_a_recording_whatever_it_is_called(
    server: Running, content: bytes, words: str
) -> None:
    code, answer, _ = server.post(form(content, prompts="speech"))
    assert (code, answer["kind"]) == (422, "AudioError")
    assert words in answer["detail"]
    assert str(server.service.spool.folder) not in answer["detail"]


def test_a_recording_with_a_sample_that_is_no_number_is_refused_at_once(
    server: Running, tmp_path: Path
) -> None:
    content = bytearray(wav(tmp_path / "a.wav", 6000, subtype="FLOAT"))
    content[-4:] = struct.pack("<f", float("nan"))
    code, answer, _ = server.post(form(bytes(content), prompts="speech"))
    assert (code, answer["kind"]) == (422, "AudioError")
    assert "not a finite number" in answer["detail"]


@pytest.mark.parametrize(
    ("settings", "prompts", "kind"),
    [
        ({"num_samples": 20_000, "rate": 8000, "num_channels": 1}, "speech", "TooLong"),
        ({"num_channels": 3}, "speech", "TooManyChannels"),
        ({}, "speech,speech,speech,speech", "TooManyStems"),
        ({"num_samples": 60_000}, "speech", "TooLarge"),
    ],
)
def test_what_is_too_much_is_refused(
    server: Running, tmp_path: Path, settings: dict[str, int], prompts: str, kind: str
) -> None:
    code, answer, _ = server.post(form(wav(tmp_path / "a.wav", **settings), prompts=prompts))
    assert (code, answer["kind"]) == (413, kind)
    assert " bytes" not in answer["detail"]  # flags and people count in MiB


def test_an_upload_is_refused_for_its_size_before_it_is_read(server: Running) -> None:
    headers = form(b"").headers | {"Content-Length": str(10**12)}
    code, answer, _ = server.ask("POST", "/v1/jobs", headers)  # and no body follows
    assert (code, answer["kind"]) == (413, "TooLarge")


def test_an_upload_without_a_length_is_counted_while_it_comes(server: Running) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield form(b"RIFF", prompts="speech").body[:-20]
        while True:
            sent += 50_000
            yield bytes(50_000)

    headers = form(b"").headers | {"Transfer-Encoding": "chunked"}
    try:
        code, answer, _ = server.ask("POST", "/v1/jobs", headers, endless(), is_chunked=True)
        assert (code, answer["kind"]) == (413, "TooLarge")
    except ConnectionError:  # it hung up before it had heard all that was on its way
        pass
    assert sent < 50_000_000


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"Content-Type": "application/json"}, b"{}", 415),
        ({}, b"", 415),
        ({"Content-Type": "multipart/form-data"}, b"x", 400),
        ({"Content-Type": "multipart/form-data; boundary=limit"}, b"no boundary here", 400),
        (
            {"Content-Type": "multipart/form-data; boundary=limit"},
            form(None, prompts="a").body,
            422,
        ),
        (
            {"Content-Type": "multipart/form-data; boundary=limit"},
            form(b"x", file_field="recording").body,
            422,
        ),
    ],
)
def test_a_body_that_is_no_form_with_a_recording_is_refused(
    server: Running, headers: dict[str, str], body: bytes, code: int
) -> None:
    found, answer, _ = server.ask("POST", "/v1/jobs", headers, body)
    assert found == code
    assert answer["detail"]


def test_what_does_not_exist_is_not_found(server: Running) -> None:
    for path in ("", "/stems/speech", "/stems.zip"):
        code, answer, _ = server.ask("GET", f"/v1/jobs/{UNKNOWN}{path}")
        assert (code, answer["kind"]) == (404, "UnknownJob")
    assert server.ask("DELETE", f"/v1/jobs/{UNKNOWN}")[0] == 404
    assert server.ask("GET", "/v1/jobs/..%2F..%2Fetc")[0] in (404, 422)
    assert server.ask("GET", "/nowhere")[:2] == (
        404,
        {"kind": "NotFound", "detail": "Not Found.", "retry_after_s": None},
    )
    assert server.ask("PUT", "/v1/jobs")[0] == 405


def test_after_all_that_nothing_is_left_of_uploads_that_were_refused(
    server: Running, tmp_path: Path
) -> None:
    server.post(form(b"no sound at all", prompts="speech"))
    hidden = [name for name in files_below(server.service.spool.folder) if name.startswith(".")]
    assert [name for name in hidden if "/" in name and not name.endswith("/lock")] == []


# Who may ask ------------------------------------------------------------------------------


def test_pages_of_others_cannot_ask_a_server_without_a_token(server: Running) -> None:
    host = server.address.removeprefix("http://")
    assert server.ask("GET", "/v1/offer", {"Host": "rebound.example.org"})[0] == 403
    assert server.ask("GET", "/v1/offer", {"Origin": "https://example.org"})[0] == 403
    assert server.ask("GET", "/v1/offer", {"Origin": f"http://{host}"})[0] == 200
    assert server.ask("GET", "/v1/offer", {"Host": "localhost:80"})[0] == 200


def test_with_a_token_nobody_gets_in_without_it(tiny_model: WaveformModel, tmp_path: Path) -> None:
    token = "a-token-for-this-test"
    with running(tiny_model, token=token) as server:
        paths = ["/v1/offer", "/metrics", f"/v1/jobs/{UNKNOWN}", f"/v1/jobs/{UNKNOWN}/stems.zip"]
        for path in paths:
            for given in (None, "Bearer wrong", f"Basic {token}", "Bearer", f"Bearer {token}x"):
                headers = {} if given is None else {"Authorization": given}
                code, answer, headers = server.ask("GET", path, headers)
                assert (code, answer["kind"]) == (401, "Unauthorized")
                assert headers["WWW-Authenticate"] == "Bearer"
        assert server.post(form(wav(tmp_path / "a.wav"), prompts="speech"))[0] == 401
        assert server.ask("GET", "/healthz")[0] == 200
        assert server.client.offer()["model"] == "tiny"
        with pytest.raises(ServiceError, match="send the token"):
            Client(server.address, "another-token-entirely").offer()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--host", "0.0.0.0"), "a token is needed"),
        (("--host", "192.168.1.7"), "a token is needed"),
        (("--port", "70000"), "--port 70000"),
        (("--jobs", "0"), "--jobs 0"),
        (("--token-file", "nowhere.txt"), "nowhere.txt"),
        (("--max-queue", "0"), "--max-queue 0: must be"),
        (("--keep", "nan"), "--keep nan: must be"),
        (("--max-upload", "0"), "--max-upload 0: must be"),
        (("--max-disk", "inf"), "--max-disk inf: must be"),
    ],
)
def test_a_server_that_makes_no_sense_does_not_start(
    arguments: tuple[str, ...], words: str
) -> None:
    outcome = unbraid("serve", *arguments)
    assert outcome.code == ConfigError.exit_code
    assert words in outcome.error


def test_a_server_that_has_nothing_to_offer_does_not_start() -> None:
    with pytest.raises(PromptError, match=r"query-mini: has learned no prompts.*--prompts"):
        Offer("query-mini", "0" * 64, (), 48_000)


def test_a_file_in_the_place_of_the_spool_is_named(tmp_path: Path) -> None:
    file = tmp_path / "spool"
    file.write_text("mine")
    with pytest.raises(AudioError, match=r"spool: .*; choose another folder") as refused:
        Spool(file)
    assert "--out" not in str(refused.value)


def test_a_short_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNBRAID_TOKEN", "secret")
    assert "at least 16 characters" in unbraid("serve").error


def test_without_its_packages_the_server_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "unbraid.serve.server", raising=False)
    outcome = unbraid("serve")
    assert outcome.code == 7
    assert "pip install 'unbraid[serve]'" in outcome.error


# Back-pressure, cancelling, stopping ------------------------------------------------------


def test_a_full_queue_turns_away_and_says_when_to_come_again(
    built_tiny_model: WaveformModel, tmp_path: Path, brake: Brake
) -> None:
    recording = write_audio(tmp_path / "a.wav")
    with running(built_tiny_model, LIMITS) as server:
        first = server.client.submit(recording, ["speech"])
        brake.wait_for(1)
        waiting = [server.client.submit(recording, ["speech"]) for _ in range(2)]
        assert [job.position for job in waiting] == [0, 1]
        assert server.client.status(first.id).state == "running"
        code, answer, headers = server.post(form(recording.read_bytes(), prompts="speech"))
        assert (code, answer["kind"]) == (429, "QueueFull")
        assert int(headers["Retry-After"]) == answer["retry_after_s"] >= 1
        with pytest.raises(ServiceError, match="2 jobs are waiting"):
            Client(server.address, patience_s=0).submit(recording, ["speech"])
        # One that waits is cancelled: there is a place, and a patient client gets it.
        later = threading.Timer(0.2, lambda: server.client.cancel(waiting[0].id))
        later.start()
        accepted = server.client.submit(recording, ["speech"])
        later.join()
        assert accepted.position == 1
        assert server.client.status(waiting[0].id).state == "cancelled"
        with pytest.raises(ServiceError, match="is cancelled"):
            server.client.wait(waiting[0].id)
        assert server.ask("GET", f"/v1/jobs/{waiting[0].id}/stems.zip")[0] == 409
        assert server.client.cancel(first.id).state in ("running", "cancelled")
        brake.wait_for(2)
        assert server.client.status(first.id).state == "cancelled"
        text = server.ask("GET", "/metrics")[1].decode()
        assert 'unbraid_requests_refused_total{status="429"}' in text
        assert "unbraid_jobs_queued 1.0" in text
        assert 'unbraid_jobs_finished_total{state="cancelled"} 2.0' in text


def test_what_fails_says_why_and_the_next_job_goes_on(
    built_tiny_model: WaveformModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recording = write_audio(tmp_path / "a.wav")
    problems: list[Exception] = [AudioError("PATH: is odd."), ValueError("a mistake of ours")]

    def failing(separator: object, source: object, *rest: object) -> None:
        problem = problems.pop(0)
        raise type(problem)(str(problem).replace("PATH", str(source.path)))

    with running(built_tiny_model) as server:
        with monkeypatch.context() as patch:
            patch.setattr("unbraid.serve.engine.separate_file", failing)
            with pytest.raises(AudioError, match=r"^the recording: is odd\.$"):
                server.client.separate(recording, ["speech"], tmp_path / "out")
            with pytest.raises(ServiceError, match="the server failed"):
                server.client.separate(recording, ["speech"], tmp_path / "out")
        assert "a mistake of ours" in caplog.text
        assert server.client.separate(recording, ["speech"], tmp_path / "out")
        assert not (tmp_path / "out" / "job.json").exists()


def test_jobs_outlive_the_server_in_a_spool(
    built_tiny_model: WaveformModel, tmp_path: Path, brake: Brake, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = write_audio(tmp_path / "a.wav")
    spool = tmp_path / "spool"
    with running(built_tiny_model, spool=spool) as server:
        jobs = [server.client.submit(recording, ["speech"]).id for _ in range(2)]
        brake.wait_for(1)
        with (
            pytest.raises(ConfigError, match="another server"),
            running(built_tiny_model, spool=spool),
        ):
            pass
    # The server has stopped without patience: the one that ran was put back.
    assert sorted(name for name in files_below(spool) if "/" not in name) == sorted(jobs)
    monkeypatch.undo()
    (spool / ("f" * 32)).mkdir()  # not a job
    with running(built_tiny_model, spool=spool) as server:
        for job in jobs:
            assert server.client.wait(job, every_s=0.01).stems == ("speech",)
        assert server.client.download(jobs[0], tmp_path / "out")["speech"].is_file()
    with running(built_tiny_model, spool=spool) as server:
        assert server.client.status(jobs[1]).state == "done"


def test_a_server_that_stops_lets_its_job_end_and_takes_no_other(
    built_tiny_model: WaveformModel, tmp_path: Path, brake: Brake
) -> None:
    recording = write_audio(tmp_path / "a.wav")
    with running(built_tiny_model) as server:
        job = server.client.submit(recording, ["speech"]).id
        brake.wait_for(1)
        stopping = threading.Thread(target=server.service.engine.stop, args=(10.0,))
        stopping.start()
        while not server.service.book.is_closed:
            time.sleep(0.001)
        assert server.ask("GET", "/healthz")[0] == 503
        code, answer, headers = server.post(form(recording.read_bytes(), prompts="speech"))
        assert (code, answer["kind"]) == (503, "Stopping")
        assert headers["Retry-After"]
        assert server.client.status(job).state == "running"
        brake.go_on.set()
        stopping.join()
        assert server.client.status(job).is_finished


def test_stems_are_kept_for_their_time(built_tiny_model: WaveformModel, tmp_path: Path) -> None:
    recording = write_audio(tmp_path / "a.wav")
    with running(built_tiny_model, Limits(kept_s=0.5)) as server:
        job = server.client.submit(recording, ["speech"]).id
        assert server.client.wait(job, every_s=0.01).state == "done"
        folder = server.service.spool.folder
        states = set()
        ends = time.monotonic() + 10
        while (folder / job).exists() and time.monotonic() < ends:
            code, answer, _ = server.ask("GET", f"/v1/jobs/{job}")
            states.add(answer["state"] if code == 200 else code)
            time.sleep(0.05)
        assert server.ask("GET", f"/v1/jobs/{job}")[0] == 404
        assert "done" in states
    assert not folder.exists()


def test_no_more_is_kept_than_the_disk_shall_hold(
    built_tiny_model: WaveformModel, tmp_path: Path, brake: Brake
) -> None:
    recording = write_audio(tmp_path / "a.wav", 6000)  # 24 kB, and 48 kB for a stem
    with running(built_tiny_model, Limits(disk_bytes=100_000)) as server:
        server.client.submit(recording, ["speech"])
        code, answer, _ = server.post(form(recording.read_bytes(), prompts="speech"))
        assert (code, answer["kind"]) == (429, "DiskFull")
        code, answer, _ = server.post(form(recording.read_bytes(), prompts="speech,sfx"))
        assert (code, answer["kind"]) == (413, "TooLarge")


def test_a_client_without_a_server_says_so() -> None:
    client = Client("http://127.0.0.1:9", patience_s=0)
    with pytest.raises(ServiceError, match="is the server running"):
        client.status(UNKNOWN)


def test_the_description_has_examples_and_names_every_refusal(server: Running) -> None:
    code, schema, _ = server.ask("GET", "/openapi.json")
    assert code == 200
    submit = schema["paths"]["/v1/jobs"]["post"]
    assert "multipart/form-data" in submit["requestBody"]["content"]
    assert {"202", "400", "401", "413", "415", "422", "429", "503"} <= set(submit["responses"])
    assert schema["components"]["schemas"]["JobAnswer"]["examples"]
    assert server.ask("GET", "/docs")[0] == 200
    code, _, headers = server.ask("GET", "/")  # the address that is printed
    assert (code, headers["Location"]) == (307, "docs")
