"""Many recordings: folders, several at a time, processes that die or meet, lines for machines."""

import errno
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from command_line import files_below, start, unbraid, write_audio
from unbraid import SeparationConfig, Separator
from unbraid.apps import batch, workplace
from unbraid.apps.batch import separate_files
from unbraid.apps.separate_files import SeparateOptions, separate_file
from unbraid.apps.workplace import clear_leftovers, enter_workplace
from unbraid.audio import DEFAULT_TEMPLATE, read
from unbraid.checkpoints import Card, save_bundle
from unbraid.cli.json_lines import JsonLines
from unbraid.errors import Cancelled, ConfigError, PromptError
from unbraid.models.waveform import WaveformModel
from unbraid.types import Progress, SeparatedBlock, StereoMode

OPTIONS = SeparateOptions(model_name="tiny", model_digest="0" * 64)
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and fork are of POSIX")


@pytest.fixture
def separator(tiny_model: WaveformModel) -> Separator:
    return Separator(tiny_model, SeparationConfig(segment_s=1.0, overlap_s=0.25))


@pytest.fixture
def bundle(tiny_model: WaveformModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return save_bundle(tiny_model, folder, Card(name="tiny", licence="Apache-2.0"))


def recordings(folder: Path, names: str, num_samples: int = 12_000) -> list[Path]:
    return [write_audio(folder / f"{name}.wav", num_samples) for name in names]


def digests(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in files_below(folder)
        if (folder / name).is_file()
    }


def events(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


def lets_stream(
    separator: Separator, monkeypatch: pytest.MonkeyPatch, before: Callable[[], None]
) -> None:
    """Call ``before`` in front of each separation, in its thread."""
    stream = separator.separate_stream

    def streaming(
        blocks: Iterable[Tensor],
        sample_rate: int,
        prompts: Sequence[str],
        *,
        cancel: threading.Event | None = None,
    ) -> Iterator[SeparatedBlock]:
        before()
        return stream(blocks, sample_rate, prompts, cancel=cancel)

    monkeypatch.setattr(separator, "separate_stream", streaming)


# ------------------------------------------------------------------ folders


def test_folder_with_sub_folders(tmp_path: Path, bundle: Path) -> None:
    for name in ("x.wav", "a/x.wav", "b/x.wav", "b/x.flac"):
        write_audio(tmp_path / "in" / name, 1000)
    (tmp_path / "in" / "notes.txt").write_text("not a recording")
    wishes = ["-p", "speech", "-m", bundle, "-o", tmp_path / "in" / "out"]

    outcome = unbraid("separate", tmp_path / "in", "--recursive", *wishes)

    assert outcome.code == 0
    stems = ["a/x", "b/x.flac", "b/x.wav", "x"]
    folder = tmp_path / "in" / "out" / "tiny"
    assert sorted(
        path.parent.relative_to(folder).as_posix() for path in folder.rglob("speech.wav")
    ) == (stems)
    # The results lie among the recordings and are none.
    again = unbraid("separate", tmp_path / "in", "--recursive", *wishes)
    assert again.stdout.count("finished already") == 4
    assert "0 written, 4 skipped, 0 failed." in again.stdout


def test_input_without_recordings_fails_and_the_others_go_on(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "empty").mkdir()
    (path,) = recordings(tmp_path, "a")

    outcome = unbraid(
        "separate", tmp_path / "empty", tmp_path / "*.mp3", path, "-p", "speech", "-m", bundle,
        "-o", tmp_path / "out", "--json",
    )  # fmt: skip

    assert outcome.code == 4
    results = [event for event in events(outcome.stdout) if event["event"] == "result"]
    assert [result["status"] for result in results] == ["failed", "failed", "written"]
    assert results[0]["error"]["exit_code"] == 4


def test_what_would_meet_is_refused_before_any_work(tmp_path: Path, separator: Separator) -> None:
    paths = [write_audio(tmp_path / name) for name in ("a/x.wav", "b/x.wav")]

    with pytest.raises(ConfigError, match="same stems"):
        separate_files(separator, paths, ["speech"], tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_prompts_and_options_are_checked_before_any_work(
    tmp_path: Path, separator: Separator
) -> None:
    missing = [tmp_path / "missing.wav"]
    other = SeparateOptions("tiny", "0" * 64, remux=("drums",))
    with pytest.raises(PromptError):
        separate_files(separator, missing, [], tmp_path / "out", OPTIONS)
    with pytest.raises(ConfigError, match="there are speech, or all"):
        separate_files(separator, missing, ["speech"], tmp_path / "out", other)
    with pytest.raises(ConfigError, match="at least 1"):
        separate_files(separator, missing, ["speech"], tmp_path / "out", OPTIONS, num_jobs=0)


# ------------------------------------------------------------------ several at a time


@pytest.mark.parametrize("num_devices", [1, 2])
def test_several_at_a_time_give_the_same(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch, num_devices: int
) -> None:
    paths = recordings(tmp_path, "abcdef", 60_000)
    paths.insert(2, tmp_path / "missing.wav")
    separate_files(separator, paths, ["speech"], tmp_path / "one", OPTIONS)
    devices = [Separator(separator.model, separator.engine.config) for _ in range(num_devices)]
    both_at_work = threading.Barrier(2)

    def meet() -> None:
        both_at_work.wait(timeout=20)  # breaks unless two work at the same time
        shares.append(torch.get_num_threads())

    for device in devices:
        lets_stream(device, monkeypatch, meet)
    finished: list[Path] = []

    shares: list[int] = []
    latest = [6]  # what new threads begin with
    own = threading.local()

    def set_own(number: int) -> None:
        own.number = latest[0] = number

    monkeypatch.setattr(torch, "get_num_threads", lambda: getattr(own, "number", latest[0]))
    monkeypatch.setattr(torch, "set_num_threads", set_own)
    result = separate_files(
        devices,
        paths,
        ["speech"],
        tmp_path / "two",
        OPTIONS,
        num_jobs=2 if num_devices == 1 else 1,  # there is one for each device anyhow
        on_result=lambda result: finished.append(result.path),
    )

    assert [file.path for file in result.files] == paths
    assert [file.status for file in result.files] == ["written"] * 2 + ["failed"] + ["written"] * 4
    assert sorted(finished) == sorted(paths)
    assert result.counts == {"written": 6, "skipped": 0, "failed": 1}
    assert result.exit_code == 4
    assert result.audio_s == pytest.approx(6 * 60_000 / 48_000)
    assert set(shares) == {3}, "each has its share of the processor"
    assert latest == [torch.get_num_threads()] == [6], "and then all is as before"
    for name in "abcdef":
        one, two = (read(tmp_path / out / "tiny" / name / "speech.wav") for out in ("one", "two"))
        torch.testing.assert_close(one.samples, two.samples, atol=2 / 2**15, rtol=0)


def test_callbacks_never_come_two_at_a_time(tmp_path: Path, separator: Separator) -> None:
    paths = recordings(tmp_path, "abcd", 60_000)
    inside = threading.Lock()
    num_calls = 0

    def called(*unused: object) -> None:
        nonlocal num_calls
        assert inside.acquire(blocking=False)
        time.sleep(0.005)
        num_calls += 1
        inside.release()

    separate_files(
        separator, paths, ["speech"], tmp_path / "out", OPTIONS, num_jobs=4, on_progress=called,
        on_result=called,
    )  # fmt: skip
    assert num_calls >= 12


@pytest.mark.parametrize("reason", [Cancelled("enough"), KeyboardInterrupt()], ids=repr)
def test_stopping_keeps_what_is_finished_and_nothing_else(
    tmp_path: Path, separator: Separator, reason: BaseException
) -> None:
    paths = recordings(tmp_path, "abc", 2 * 48_000)

    def stop_at_b(path: Path, progress: Progress) -> None:
        if path.name == "b.wav":
            raise reason

    with pytest.raises(type(reason)):
        separate_files(
            separator, paths, ["speech"], tmp_path / "out", OPTIONS, on_progress=stop_at_b
        )

    assert files_below(tmp_path / "out") == [
        "tiny",
        "tiny/a",
        "tiny/a/presence.csv",
        "tiny/a/separation.json",
        "tiny/a/speech.wav",
    ]


def test_unforeseen_error_stops_all_and_comes_out(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = recordings(tmp_path, "abcd", 20 * 48_000)
    calls: list[None] = []

    def break_the_third() -> None:
        calls.append(None)
        if len(calls) == 2:
            raise ZeroDivisionError("ours to mend")

    lets_stream(separator, monkeypatch, break_the_third)
    with pytest.raises(ZeroDivisionError, match="ours to mend"):
        separate_files(separator, paths, ["speech"], tmp_path / "out", OPTIONS, num_jobs=2)
    assert len(calls) == 2
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ processes that die


@posix
def test_killed_in_the_middle_and_run_again(tmp_path: Path, bundle: Path) -> None:
    write_audio(tmp_path / "in" / "a.wav")
    write_audio(tmp_path / "in" / "b.wav", 15 * 48_000)
    write_audio(tmp_path / "in" / "c.wav")

    def wishes(out: str) -> list[str | Path]:
        return [
            "separate", tmp_path / "in", "-m", bundle, "-p", "speech", "-o", tmp_path / out,
            "--peak", "-1",
        ]  # fmt: skip

    assert unbraid(*wishes("whole")).code == 0
    process = start(*wishes("out"))
    deadline = time.monotonic() + 60
    done = tmp_path / "out" / "tiny" / "a" / "separation.json"
    while not (done.exists() and list((tmp_path / "out").glob(".unbraid-*.partial/spool"))):
        assert process.poll() is None, "it was over before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=30)
    assert any(".partial" in name for name in files_below(tmp_path / "out"))
    assert files_below(tmp_path / "out" / "tiny") == [
        "a", "a/presence.csv", "a/separation.json", "a/speech.wav", "b",
    ]  # fmt: skip
    former = done.stat().st_mtime_ns

    outcome = unbraid(*wishes("out"), "--json")

    results = [event for event in events(outcome.stdout) if event["event"] == "result"]
    assert [result["status"] for result in results] == ["skipped", "written", "written"]
    assert done.stat().st_mtime_ns == former
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


@posix
def test_killed_between_any_two_renames(tmp_path: Path, bundle: Path) -> None:
    """One process forks and dies, once at each point, while former results are replaced."""
    path = write_audio(tmp_path / "a.wav")
    program = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from unbraid.apps.separate_files import SeparateOptions, separate_file
        from unbraid.apps.separator import load_separator

        path, bundle, out = map(Path, sys.argv[1:])
        separator = load_separator(bundle, device="cpu")
        options = SeparateOptions("tiny", "0" * 64)
        replace = Path.replace

        def run(number):
            separate_file(separator, path, ["speech", "drums"], out / str(number), options)

        for number in range(9):
            run(number)
        path.write_bytes(path.read_bytes()[:-400])
        for number in range(9):
            if os.fork() == 0:
                num_renames = 0

                def dying(self, target):
                    global num_renames
                    if "a" in (self.parent.name, Path(target).parent.name):
                        if num_renames == number:
                            os._exit(9)
                        num_renames += 1
                    return replace(self, target)

                Path.replace = dying
                run(number)
                os._exit(0)
            else:
                print(os.waitstatus_to_exitcode(os.wait()[1]))
    """)
    finished = subprocess.run(
        [sys.executable, "-c", program, path, bundle, tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    # A mark, two stems and a table set aside and replaced, the sidecar.
    assert finished.stdout.split() == ["9"] * 8 + ["0"]

    digest = []
    for number in range(9):
        wishes = ["-m", bundle, "-p", "speech,drums", "-o", tmp_path / "out" / str(number)]
        outcome = unbraid("separate", path, *wishes, "--json")
        assert outcome.code == 0, outcome.stderr
        assert events(outcome.stdout)[-1]["num_written"] == 1
        digest.append(digests(tmp_path / "out" / str(number)))
    assert all(other == digest[0] for other in digest)
    assert len(digest[0]) == 4


@posix
def test_two_processes_share_the_work(tmp_path: Path, bundle: Path) -> None:
    paths = recordings(tmp_path / "in", "abcdef", 3 * 48_000)
    wishes = ["separate", tmp_path / "in", "-m", bundle, "-p", "speech"]
    processes = [start(*wishes, "-o", tmp_path / "out", "--json") for _ in range(2)]
    outputs = [process.communicate(timeout=100) for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    written = [
        event["path"]
        for stdout, _ in outputs
        for event in events(stdout)
        if event["event"] == "result" and event["status"] == "written"
    ]
    assert sorted(written) == sorted(map(str, paths))
    unbraid(*wishes, "-o", tmp_path / "alone")
    assert list(digests(tmp_path / "out")) == list(digests(tmp_path / "alone"))
    assert not any(".unbraid" in name for name in files_below(tmp_path))


# ------------------------------------------------------------------ the place to work at


def leftover(out: Path, machine: str, age_s: float = 0.0) -> Path:
    folder = out / ".unbraid-0123456789ab.partial"
    folder.mkdir(parents=True)
    (folder / "lock").write_text(machine)
    (folder / "speech.wav").write_text("half")
    then_s = time.time() - age_s
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then_s, then_s))
    return folder


def test_leftovers_of_the_dead_are_cleared_away(tmp_path: Path, separator: Separator) -> None:
    out = tmp_path / "out"
    folder = leftover(out, platform.node())
    (path,) = recordings(tmp_path, "a", 1000)

    separate_files(separator, [path], ["speech"], out, OPTIONS)

    assert not folder.exists()


def test_leftovers_of_other_machines_are_cleared_away_when_old(tmp_path: Path) -> None:
    clear_leftovers(tmp_path / "out")
    folder = leftover(tmp_path / "out", "elsewhere", age_s=3600)
    clear_leftovers(tmp_path / "out")
    assert (folder / "speech.wav").exists()

    os.utime(folder / "speech.wav", (0, 0))
    os.utime(folder / "lock", (0, 0))
    clear_leftovers(tmp_path / "out")
    assert folder.exists(), "its own time counts, too"

    os.utime(folder, (0, 0))
    clear_leftovers(tmp_path / "out")
    assert not folder.exists()


def test_what_others_work_at_is_left_alone_and_waited_for(
    tmp_path: Path, separator: Separator
) -> None:
    (path,) = recordings(tmp_path, "a", 1000)
    out = tmp_path / "out"
    sidecar = out / "tiny" / "a" / "separation.json"
    held = enter_workplace(out, sidecar)
    (held.folder / "speech.wav").write_text("half")

    assert enter_workplace(out, sidecar) is None
    clear_leftovers(out)
    assert (held.folder / "speech.wav").exists()
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Cancelled):
        separate_file(separator, path, ["speech"], out, OPTIONS, cancel=stop)
    threading.Timer(0.3, held.leave).start()
    assert separate_file(separator, path, ["speech"], out, OPTIONS).status == "written"
    assert not any(".unbraid" in name for name in files_below(tmp_path))


def test_what_others_work_at_comes_last(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = recordings(tmp_path, "abc", 1000)
    held = enter_workplace(tmp_path / "out", tmp_path / "out" / "tiny" / "a" / "separation.json")
    monkeypatch.setattr(batch, "_PATIENCE_S", 0.01)
    order: list[str] = []

    def leave_after_c(result: Any) -> None:
        order.append(result.path.stem)
        if result.path.stem == "c":
            held.leave()

    result = separate_files(
        separator, paths, ["speech"], tmp_path / "out", OPTIONS, on_result=leave_after_c
    )

    assert order == ["b", "c", "a"]
    assert [file.path for file in result.files] == paths


@pytest.mark.parametrize("kind", [errno.ENOLCK, errno.ENOTSUP])
def test_file_system_without_locks(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(kind, os.strerror(kind))

    monkeypatch.setattr(workplace, "_lock_descriptor", refuse)
    (path,) = recordings(tmp_path, "a", 1000)
    other = enter_workplace(tmp_path / "out", tmp_path / "out" / "tiny" / "a" / "separation.json")
    (other.folder / "speech.wav").write_text("half")

    result = separate_files(separator, [path], ["speech"], tmp_path / "out", OPTIONS)

    assert result.files[0].status == "written"
    assert (other.folder / "speech.wav").exists()
    other.leave()
    assert not any(".unbraid" in name for name in files_below(tmp_path))


# ------------------------------------------------------------------ what it says


def test_lines_for_machines(tmp_path: Path, bundle: Path) -> None:
    paths = recordings(tmp_path, "ab", 3 * 48_000)
    bad = tmp_path / "bad.wav"
    bad.write_text("these are the lyrics")
    wishes = ["-p", "speech,effects", "-m", bundle, "-o", tmp_path / "out", "--json", "-j", "2"]
    unbraid("separate", paths[0], *wishes)

    outcome = unbraid("separate", *paths, bad, *wishes)

    start, *between, summary = events(outcome.stdout)
    assert start["event"] == "start"
    assert start["prompts"] == ["speech", "effects"]
    assert start["model"]["name"] == "tiny"
    assert start["num_recordings"] == 3
    progress = [event for event in between if event["event"] == "progress"]
    assert {event["path"] for event in progress} == {str(paths[1])}
    assert progress[0]["done_s"] == 0
    assert progress[0]["total_s"] == 3
    results = {event["path"]: event for event in between if event["event"] == "result"}
    assert {Path(path).name: event["status"] for path, event in results.items()} == {
        "a.wav": "skipped",
        "b.wav": "written",
        "bad.wav": "failed",
    }
    written = results[str(paths[1])]
    assert written["record"] == json.loads(Path(written["sidecar"]).read_text())
    assert list(written["stems"]) == ["speech", "sfx-mix"]
    assert Path(written["presence"]).name == "presence.csv"
    assert results[str(bad)]["error"]["kind"] == "AudioError"
    assert results[str(bad)]["record"] is None
    wall_s = summary.pop("wall_s")
    assert 0 < wall_s < 60
    assert summary == {
        "event": "summary",
        "num_written": 1,
        "num_skipped": 1,
        "num_failed": 1,
        "exit_code": 4,
        "audio_s": 3.0,
    }
    assert outcome.code == 4


def test_progress_is_not_told_too_often(capsys: pytest.CaptureFixture[str]) -> None:
    lines = JsonLines()
    for number in range(100):
        lines.progress(Path("a.wav"), Progress(number / 10, 10.0))
        lines.progress(Path("b.wav"), Progress(number / 10, None))

    told = events(capsys.readouterr().out)
    assert [event["path"] for event in told] == ["a.wav", "b.wav"]
    assert told[1] == {"event": "progress", "path": "b.wav", "done_s": 0.0, "total_s": None}


def test_summary_for_people(tmp_path: Path, bundle: Path) -> None:
    (path,) = recordings(tmp_path, "a", 48_000)
    wishes = ["-p", "speech", "-m", bundle, "-o", tmp_path / "out"]

    first = unbraid("separate", path, tmp_path / "missing.wav", *wishes)
    assert re.search(
        r"^1 written, 0 skipped, 1 failed; 1\.0 s of audio in .* times real time\.$",
        first.stdout,
        re.MULTILINE,
    )
    second = unbraid("separate", path, *wishes)
    assert second.stdout.splitlines()[-1] == "0 written, 1 skipped, 0 failed."


def test_help_says_what_the_core_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(re.sub("[│┃|]", " ", unbraid("separate", "--help").stdout).split())

    for mode in get_args(StereoMode):
        assert mode in re.search(r"How channels are put together: [^.]*", shown)[0]
    defaults = SeparationConfig()
    assert f"[default: ({defaults.consistency})]" in shown
    assert f"[default: {DEFAULT_TEMPLATE}]" in shown


def test_two_devices_of_the_command_line(tmp_path: Path, bundle: Path) -> None:
    paths = recordings(tmp_path, "abc", 1000)

    outcome = unbraid(
        "separate", *paths, "-p", "speech", "-m", bundle, "-o", tmp_path / "out", "-d", "cpu,cpu"
    )

    assert outcome.code == 0
    assert "3 written" in outcome.stdout


def test_mini_on_files_of_different_kinds(tmp_path: Path) -> None:
    """The model that ships, from the command line, with most of the wishes at once."""
    write_audio(tmp_path / "in" / "a.wav", 60_000)
    write_audio(tmp_path / "in" / "b.flac", 40_000, rate=44_100, num_channels=1)

    outcome = unbraid(
        "separate", tmp_path / "in", "-p", "speech,sfx-mix", "-o", tmp_path / "out", "--residual",
        "--gate", "--stereo", "mid-side", "--peak", "-1", "--flac", "--int16", "--jobs", "2",
    )  # fmt: skip

    assert outcome.code == 0, outcome.stderr
    for track, num_samples in (("a", 60_000), ("b", 40_000)):
        folder = tmp_path / "out" / "mini" / track
        peaks = [float(read(path).samples.abs().max()) for path in folder.glob("*.flac")]
        assert max(peaks) == pytest.approx(10 ** (-1 / 20), abs=1e-4)
        assert {read(path).num_samples for path in folder.glob("*.flac")} == {num_samples}
        assert len(peaks) == 3
