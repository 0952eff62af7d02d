"""The command line on good input: what it writes, where, and what it says."""

import dataclasses
import functools
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from command_line import Outcome, files_below, start, unbraid, write_audio
from released_tuss import TINY, random_state, write_folder
from unbraid._version import __version__
from unbraid.apps import demo
from unbraid.audio import read
from unbraid.checkpoints import Card, load_bundle, save_bundle
from unbraid.models.waveform import WaveformModel

INTERRUPTED = 130


@pytest.fixture
def bundle(tiny_model: WaveformModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    card = Card(name="tiny", licence="Apache-2.0", source="drawn by lot", text="Knows nothing.")
    return save_bundle(tiny_model, folder, card)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return write_audio(tmp_path / "song.wav", 60_000, rate=44_100)


# ------------------------------------------------------------------ help


def test_help_is_there_at_once() -> None:
    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "unbraid", "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    assert min(once() for _ in range(3)) < 0.5


@pytest.mark.parametrize(
    "command", [[], ["separate"], ["models"], ["prompts"], ["train"], ["demo"]]
)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    program = (
        "import sys\n"
        "from unbraid.cli import app\n"
        f"try: app({[*command, '--help']!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'soundfile', 'matplotlib', 'lightning', 'safetensors',\n"
        "         'huggingface_hub', 'yaml'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


def test_help_names_commands_and_exit_codes() -> None:
    outcome = unbraid("--help")

    assert outcome.code == 0
    for word in ("separate", "models", "train", "demo", "--version", "Exit codes"):
        assert word in outcome.stdout


def test_version() -> None:
    assert unbraid("--version").stdout == f"unbraid {__version__}\n"


# ------------------------------------------------------------------ separate


def test_layout_and_form_of_the_stems(song: Path, bundle: Path, tmp_path: Path) -> None:
    outcome = unbraid(
        "separate", song, "-p", "speech,speech", "-p", "effects", "-m", bundle, "-o",
        tmp_path / "out",
    )  # fmt: skip

    assert outcome.code == 0
    folder = tmp_path / "out" / "tiny" / "song"
    assert files_below(folder) == [
        "presence.csv",
        "separation.json",
        "sfx-mix.wav",
        "speech_1.wav",
        "speech_2.wav",
    ]
    for file in folder.glob("*.wav"):
        info = soundfile.info(file)
        assert (info.frames, info.samplerate, info.channels) == (60_000, 44_100, 2)
        assert info.subtype == "PCM_16"
    assert str(folder) in outcome.stdout
    assert "speech_2" in outcome.stdout


def test_default_prompts_and_folder(
    song: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(song.parent)

    assert unbraid("separate", "song.wav", "-m", bundle).code == 0

    assert files_below(song.parent / "separated" / "tiny" / "song") == [
        "music-mix.wav",
        "presence.csv",
        "separation.json",
        "sfx-mix.wav",
        "speech.wav",
    ]


def test_sidecar_says_how_the_stems_were_made(song: Path, bundle: Path, tmp_path: Path) -> None:
    unbraid(
        "separate", song, "-p", "speech,musicbg", "-m", bundle, "-o", tmp_path / "out",
        "--segment", "1", "--overlap", "0.25", "--residual",
    )  # fmt: skip

    record = json.loads((tmp_path / "out" / "tiny" / "song" / "separation.json").read_text())
    loaded = load_bundle(bundle)
    assert record["unbraid"] == __version__
    assert record["model"] == {"name": "tiny", "digest": loaded.digest}
    assert record["prompts"] == ["speech", "music-mix"]
    assert record["source"] == {
        "path": str(song),
        "num_bytes": song.stat().st_size,
        "modified_ns": song.stat().st_mtime_ns,
    }
    assert (record["sample_rate"], record["num_channels"], record["num_samples"]) == (
        44_100,
        2,
        60_000,
    )
    assert record["format"] == {
        "container": "wav",
        "subtype": "PCM_16",
        "bitrate_kbps": None,
        "sample_rate": 44_100,
    }
    assert record["settings"]["segment_s"] == 1
    assert record["settings"]["overlap_s"] == 0.25
    assert list(record["stems"]) == ["speech", "music-mix", "residual"]
    assert record["stems"]["speech"]["file"] == "speech.wav"
    assert record["warnings"] == []


def test_levels_in_the_sidecar_are_those_of_the_files(
    song: Path, bundle: Path, tmp_path: Path
) -> None:
    unbraid("separate", song, "-m", bundle, "-o", tmp_path / "out", "--float32", "--residual")

    folder = tmp_path / "out" / "tiny" / "song"
    record = json.loads((folder / "separation.json").read_text())
    energies = {}
    for stem in record["stems"].values():
        samples = read(folder / stem["file"]).samples.double()
        energies[stem["file"]] = samples.square().sum()
        assert stem["level_dbfs"] == pytest.approx(
            float(10 * samples.square().mean().log10()), abs=0.01
        )
        assert stem["peak_dbfs"] == pytest.approx(float(20 * samples.abs().max().log10()), abs=0.01)
    mixture = read(song).samples.double().square().sum()
    expected_db = float(10 * (energies["residual.wav"] / mixture).log10())
    assert record["residual_to_mixture_db"] == pytest.approx(expected_db, abs=0.01)


def test_stems_and_residual_add_up_to_the_recording(
    song: Path, bundle: Path, tmp_path: Path
) -> None:
    unbraid("separate", song, "-m", bundle, "-o", tmp_path / "out", "--float32", "--residual")

    stems = (tmp_path / "out" / "tiny" / "song").glob("*.wav")
    total = sum(read(stem).samples for stem in stems)
    torch.testing.assert_close(total, read(song).samples, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("flags", "container", "subtype"),
    [
        ([], "WAV", "PCM_24"),
        (["--wav"], "WAV", "PCM_24"),
        (["--flac"], "FLAC", "PCM_24"),
        (["--int24"], "WAV", "PCM_24"),
        (["--flac", "--int24"], "FLAC", "PCM_24"),
        (["--float32"], "WAV", "FLOAT"),
    ],
    ids=str,
)
def test_formats(
    tmp_path: Path, bundle: Path, flags: list[str], container: str, subtype: str
) -> None:
    path = write_audio(tmp_path / "a.wav", subtype="PCM_24")

    unbraid("separate", path, "-p", "speech", "-m", bundle, "-o", tmp_path / "out", *flags)

    info = soundfile.info(tmp_path / "out" / "tiny" / "a" / f"speech.{container.lower()}")
    found = (info.format.removesuffix("EX"), info.subtype, info.frames)
    assert found == (container, subtype, 12_000)


def test_file_names_by_template(song: Path, bundle: Path, tmp_path: Path) -> None:
    unbraid(
        "separate", song, "-p", "speech", "-m", bundle, "-o", tmp_path / "out",
        "--filename", "{track} ({stem}).{ext}",
    )  # fmt: skip

    assert files_below(tmp_path / "out") == [
        "song (presence).csv",
        "song (separation).json",
        "song (speech).wav",
    ]


def test_json_is_all_that_stdout_holds(song: Path, bundle: Path, tmp_path: Path) -> None:
    outcome = unbraid(
        "separate", song, "-p", "speech", "-m", bundle, "-o", tmp_path / "out", "--json"
    )

    assert outcome.events[-1]["exit_code"] == outcome.code == 0
    (result,) = outcome.results
    assert result["status"] == "written"
    assert result["error"] is None
    assert Path(result["stems"]["speech"]).is_file()
    assert result["record"] == json.loads(Path(result["sidecar"]).read_text())


def test_quiet(song: Path, bundle: Path, tmp_path: Path) -> None:
    outcome = unbraid("separate", song, "-m", bundle, "-o", tmp_path / "out", "--quiet")

    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")


# ------------------------------------------------------------------ the second run


def status(song: Path, bundle: Path, *flags: str) -> str:
    outcome = unbraid(
        "separate", song, "-m", bundle, "-o", song.parent / "out", "--json", "-p", "speech", *flags
    )
    assert outcome.code == 0, outcome.stderr
    found: str = outcome.results[0]["status"]
    return found


def test_finished_recordings_are_skipped(song: Path, bundle: Path) -> None:
    assert status(song, bundle) == "written"
    stem = song.parent / "out" / "tiny" / "song" / "speech.wav"
    former = stem.stat().st_mtime_ns

    assert status(song, bundle) == "skipped"
    assert stem.stat().st_mtime_ns == former

    assert status(song, bundle, "--overwrite") == "written"
    assert stem.stat().st_mtime_ns > former


@pytest.mark.parametrize(
    "flags",
    [["-p", "drums"], ["--int24"], ["--residual"], ["--segment", "1", "--overlap", "0.1"]],
    ids=" ".join,
)
def test_other_wishes_are_another_separation(song: Path, bundle: Path, flags: list[str]) -> None:
    assert status(song, bundle) == "written"
    assert status(song, bundle, *flags) == "written"
    assert status(song, bundle, *flags) == "skipped"


def test_recording_that_has_changed_is_separated_again(song: Path, bundle: Path) -> None:
    assert status(song, bundle) == "written"
    write_audio(song, 30_000)

    assert status(song, bundle) == "written"
    stem = song.parent / "out" / "tiny" / "song" / "speech.wav"
    assert soundfile.info(stem).frames == 30_000


def test_missing_stem_or_damaged_sidecar_is_not_finished(song: Path, bundle: Path) -> None:
    assert status(song, bundle) == "written"
    folder = song.parent / "out" / "tiny" / "song"
    (folder / "speech.wav").unlink()
    assert status(song, bundle) == "written"

    (folder / "separation.json").write_text("{ half")
    assert status(song, bundle, "--overwrite") == "written"
    assert status(song, bundle) == "skipped"


def test_recording_that_was_moved_is_still_finished(song: Path, bundle: Path) -> None:
    assert status(song, bundle) == "written"
    other = song.parent / "elsewhere" / "song.wav"
    other.parent.mkdir()
    shutil.move(song, other)

    outcome = unbraid(
        "separate", other, "-m", bundle, "-o", song.parent / "out", "-p", "speech", "--json"
    )
    assert outcome.results[0]["status"] == "skipped"


def test_stems_of_another_recording_are_not_replaced(song: Path, bundle: Path) -> None:
    assert status(song, bundle) == "written"
    other = write_audio(song.parent / "elsewhere" / "song.wav")

    outcome = unbraid("separate", other, "-m", bundle, "-o", song.parent / "out", "-p", "speech")

    assert outcome.code == 2
    assert str(song) in outcome.error


def test_same_recording_twice_is_separated_once(song: Path, bundle: Path) -> None:
    outcome = unbraid(
        "separate", song, song, "-m", bundle, "-o", song.parent / "out", "-p", "speech", "--json"
    )

    assert outcome.code == 0
    assert len(outcome.results) == 1


# ------------------------------------------------------------------ a real process


def test_as_a_process(song: Path, bundle: Path, tmp_path: Path) -> None:
    process = start(
        "separate", song, tmp_path / "missing.wav", "-m", bundle, "-o", tmp_path / "out", "--json"
    )
    stdout, stderr = process.communicate(timeout=60)

    assert process.returncode == 4
    results = Outcome(4, stdout, stderr).results
    assert [result["status"] for result in results] == ["written", "failed"]
    assert stderr == f"error: {tmp_path / 'missing.wav'}: no such file.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_interruption_leaves_nothing(
    tmp_path: Path, bundle: Path, number: signal.Signals, code: int
) -> None:
    path = write_audio(tmp_path / "long.wav", 48_000 * 120, num_channels=1)
    process = start("separate", path, "-m", bundle, "-o", tmp_path / "out")
    deadline = time.monotonic() + 30
    while not list(tmp_path.rglob("*.partial")):
        assert process.poll() is None, "it was over before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)

    assert process.returncode == code
    assert "Traceback" not in stderr
    assert files_below(tmp_path) == ["long.wav"]


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is of POSIX")
def test_memory_does_not_grow_with_length(tmp_path: Path, bundle: Path) -> None:
    """Two minutes of stereo are 46 MB in the mixture and in each of three stems."""
    for duration_s in (10, 120):
        # Silence, because what the model needs does not depend on the length.
        silence = np.zeros((duration_s * 48_000, 2), np.float32)
        soundfile.write(tmp_path / f"{duration_s}.wav", silence, 48_000)
    program = (
        "import resource, sys\n"
        "from unbraid.cli import app\n"
        "for name in ('10.wav', '120.wav'):\n"
        "    code = app(['separate', name, '-m', sys.argv[1], '--quiet'], standalone_mode=False)\n"
        "    assert not code\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, bundle],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    unit = 2**20 if sys.platform == "darwin" else 2**10
    short_mb, long_mb = (int(peak) / unit for peak in finished.stdout.split())

    assert soundfile.info(tmp_path / "separated/tiny/120/speech.wav").frames == 120 * 48_000
    assert long_mb - short_mb < 20


# ------------------------------------------------------------------ models


@pytest.fixture
def own_model(tiny_model: WaveformModel, own_home: Path) -> Path:
    card = Card(name="mine", licence="CC-BY-NC-4.0", source="a friend", text="Not for sale.")
    return save_bundle(tiny_model, own_home / "models" / "mine", card)


def test_models_list_shows_own_models_with_their_licence(own_model: Path) -> None:
    outcome = unbraid("models", "list")

    assert outcome.code == 0
    (line,) = [line for line in outcome.stdout.splitlines() if "mine" in line]
    assert "CC-BY-NC-4.0" in line
    assert "48000 Hz" in line
    assert "user" in line


def test_models_list_as_json(own_model: Path) -> None:
    (mine,) = [
        model for model in unbraid("models", "list", "--json").json if model["name"] == "mine"
    ]

    loaded = load_bundle(own_model)
    assert mine["digest"] == loaded.digest
    assert mine["prompts"] == list(loaded.config.prompts)
    assert mine["path"] == str(own_model)


def test_models_info_shows_the_card(own_model: Path) -> None:
    outcome = unbraid("models", "info", "mine")

    for word in ("CC-BY-NC-4.0", "a friend", "Not for sale.", load_bundle(own_model).digest):
        assert word in outcome.stdout
    assert "sfx-mix" in outcome.stdout


def test_models_path(own_home: Path) -> None:
    assert unbraid("models", "path").stdout == f"{own_home / 'models'}\n"


def test_own_model_by_name(own_model: Path, song: Path, tmp_path: Path) -> None:
    assert unbraid("separate", song, "-m", "mine", "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "mine" / "song" / "speech.wav").is_file()


def test_released_checkpoint_becomes_an_own_model(song: Path, tmp_path: Path) -> None:
    released = write_folder(tmp_path / "tuss.tiny", TINY, random_state(TINY))

    imported = unbraid("models", "import", released)

    assert imported.code == 0
    assert "AGPL" in imported.stdout
    assert unbraid("separate", song, "-m", "tuss.tiny", "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "tuss.tiny" / "song" / "speech.wav").is_file()


# ------------------------------------------------------------------ demo


def test_demo_prints_a_row_per_source_and_where_the_page_is(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = dataclasses.replace(demo.SCENES[0], duration_s=0.5)
    monkeypatch.setattr(demo, "run_demo", functools.partial(demo.run_demo, scenes=[short]))

    outcome = unbraid("demo", "-m", bundle, "-o", tmp_path / "demo")

    assert outcome.code == 0
    page = tmp_path / "demo" / "index.html"
    assert page.is_file()
    assert str(page) in outcome.stdout
    for source in short.sources:
        assert f"{short.name}/{source.prompt}" in outcome.stdout
