"""Flags, prompts, models and configs that make no sense.

Each gives one clear line, the documented exit code, no traceback, no half-written file.
"""

import sys
from pathlib import Path

import pytest

from command_line import files_below, unbraid, write_audio

CONFIG_ERROR = 2
PROMPT_ERROR = 3
CHECKPOINT_ERROR = 5
MISSING_EXTRA = 7


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_audio(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-p", "spech"], PROMPT_ERROR, "did you mean speech"),
        (["-p", "zebra"], PROMPT_ERROR, "unknown prompt 'zebra'"),
        (["-p", ""], PROMPT_ERROR, "no prompt"),
        (["-p", " , "], PROMPT_ERROR, "no prompt"),
        (["-d", "gpu"], CONFIG_ERROR, "this machine has cpu"),
        (["-d", "cuda:99"], CONFIG_ERROR, "this machine has cpu"),
        (["--segment", "0"], CONFIG_ERROR, "segment"),
        (["--segment", "-1"], CONFIG_ERROR, "segment"),
        (["--segment", "nan"], CONFIG_ERROR, "segment"),
        (["--segment", "inf"], CONFIG_ERROR, "segment"),
        (["--overlap", "-1"], CONFIG_ERROR, "overlap"),
        (["--segment", "2", "--overlap", "2"], CONFIG_ERROR, "overlap"),
        (["--overlap", "nan"], CONFIG_ERROR, "overlap"),
        (["--wav", "--flac"], CONFIG_ERROR, "exclude each other"),
        (["--mp3", "--opus"], CONFIG_ERROR, "--opus and --mp3 exclude each other"),
        (["--flac", "--float32"], CONFIG_ERROR, "--flac cannot hold --float32"),
        (["--int24", "--float32"], CONFIG_ERROR, "exclude each other"),
        (["--int16", "--int24"], CONFIG_ERROR, "exclude each other"),
        (["--mp3", "--int16"], CONFIG_ERROR, "--int16 and --mp3 exclude each other"),
        (["--bitrate", "128"], CONFIG_ERROR, "loses nothing"),
        (["--mp3", "--bitrate", "999"], CONFIG_ERROR, "--bitrate 999"),
        (["--mp3", "--mp3-bitrate", "0"], CONFIG_ERROR, "--bitrate 0"),
        (["--jobs", "0"], CONFIG_ERROR, "--jobs 0"),
        (["-j", "-3"], CONFIG_ERROR, "--jobs -3"),
        (["-d", "cpu,"], CONFIG_ERROR, "unknown device"),
        (["-d", "cpu,auto"], CONFIG_ERROR, "unknown device"),
        (["-d", "cpu,cuda:99"], CONFIG_ERROR, "this machine has cpu"),
        (["--track", "0"], CONFIG_ERROR, "counted from 1"),
        (["--track", "-1"], CONFIG_ERROR, "counted from 1"),
        (["--peak", "1"], CONFIG_ERROR, "--peak 1"),
        (["--peak", "nan"], CONFIG_ERROR, "--peak nan"),
        (["--peak", "-inf"], CONFIG_ERROR, "--peak -inf"),
        (["--remux", "vocals"], CONFIG_ERROR, "no such stem; there are speech, sfx-mix"),
        (["--remux", "residual"], CONFIG_ERROR, "no such stem"),
        (["--stereo", "wide"], CONFIG_ERROR, "wide"),
        (["--consistency", "yes"], CONFIG_ERROR, "yes"),
        (["--residual", "--consistency", "project"], CONFIG_ERROR, "exclude each other"),
        (["--filename", "{track}.{ext}"], CONFIG_ERROR, "needs {stem}"),
        (["--filename", "../{stem}.{ext}"], CONFIG_ERROR, "inside the output folder"),
        (["--filename", "{artist}/{stem}.{ext}"], CONFIG_ERROR, "unknown field {artist}"),
    ],
    ids=str,
)
def test_flags_that_make_no_sense(
    recording: Path, bundle: Path, arguments: list[str], code: int, words: str
) -> None:
    folder = recording.parent

    outcome = unbraid("separate", recording, "-m", bundle, "-o", folder / "out", *arguments)

    assert outcome.code == code
    assert words in outcome.error
    assert outcome.stdout == ""
    assert files_below(folder) == ["a.wav"]


def test_usage_errors_have_the_same_code_as_settings(bundle: Path) -> None:
    for arguments in (["separate"], ["separate", "a.wav", "--segment", "long"], ["separat"]):
        outcome = unbraid(*arguments)
        assert outcome.code == CONFIG_ERROR
        assert "Traceback" not in outcome.stderr


def test_two_recordings_that_would_share_stems(tmp_path: Path, bundle: Path) -> None:
    first = write_audio(tmp_path / "a" / "x.wav")
    second = write_audio(tmp_path / "b" / "x.wav")

    outcome = unbraid("separate", first, second, "-m", bundle, "-o", tmp_path / "out")

    assert outcome.code == CONFIG_ERROR
    assert str(first) in outcome.error
    assert str(second) in outcome.error
    assert not (tmp_path / "out").exists()


def test_stem_that_would_replace_its_recording(tmp_path: Path, bundle: Path) -> None:
    path = write_audio(tmp_path / "speech.wav")
    before = path.read_bytes()

    outcome = unbraid(
        "separate", path, "-m", bundle, "-o", tmp_path, "--filename", "{stem}.{ext}", "--overwrite"
    )

    assert outcome.code == CONFIG_ERROR
    assert "would replace the recording" in outcome.error
    assert path.read_bytes() == before
    assert files_below(tmp_path) == ["speech.wav"]


def test_files_of_others_are_not_replaced(recording: Path, bundle: Path) -> None:
    folder = recording.parent
    stem = folder / "out" / "tiny" / "a" / "speech.wav"
    stem.parent.mkdir(parents=True)
    stem.write_text("dear diary")

    outcome = unbraid("separate", recording, "-m", bundle, "-o", folder / "out")
    assert outcome.code == CONFIG_ERROR
    assert "--overwrite" in outcome.error
    assert stem.read_text() == "dear diary"

    outcome = unbraid("separate", recording, "-m", bundle, "-o", folder / "out", "--overwrite")
    assert outcome.code == 0
    assert stem.read_bytes()[:4] == b"RIFF"


def nowhere(folder: Path) -> str:
    return "no-such-model"


def foreign_file(folder: Path) -> str:
    path = folder / "model.pth"
    path.write_bytes(b"PK\x03\x04 somebody's pickle")
    return str(path)


def foreign_folder(folder: Path) -> str:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"hidden_size": 768}')
    return str(folder / "model")


@pytest.mark.parametrize("make", [nowhere, foreign_file, foreign_folder])
def test_models_that_are_none(recording: Path, make) -> None:
    folder = recording.parent
    name = make(folder)
    before = files_below(folder)

    outcome = unbraid("separate", recording, "-m", name, "-o", folder / "out")

    assert outcome.code == CHECKPOINT_ERROR
    assert name in outcome.error
    assert files_below(folder) == before


@pytest.mark.parametrize("file", ["model.safetensors", "prompts.safetensors", "config.json"])
def test_corrupt_model(recording: Path, bundle: Path, file: str) -> None:
    folder = recording.parent
    content = (bundle / file).read_bytes()
    (bundle / file).write_bytes(content[: len(content) // 2])

    outcome = unbraid("separate", recording, "-m", bundle, "-o", folder / "out")

    assert outcome.code == CHECKPOINT_ERROR
    assert file in outcome.error
    assert files_below(folder) == ["a.wav"]


@pytest.mark.parametrize("make", [nowhere, foreign_file, foreign_folder])
def test_checkpoints_that_cannot_be_imported(tmp_path: Path, make) -> None:
    path = make(tmp_path)
    before = files_below(tmp_path)

    outcome = unbraid("models", "import", path, "--out", tmp_path / "bundle")

    assert outcome.code == CHECKPOINT_ERROR
    assert path in outcome.error
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("command", ["info", "import"])
def test_models_commands_on_nothing(command: str) -> None:
    outcome = unbraid("models", command, "no-such-model")

    assert outcome.code == CHECKPOINT_ERROR
    assert "no-such-model" in outcome.error


def test_demo_without_its_model(tmp_path: Path) -> None:
    outcome = unbraid("demo", "-m", "no-such-model", "-o", tmp_path / "demo")

    assert outcome.code == CHECKPOINT_ERROR
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("no: [closing bracket", "not valid yaml"),
        ("- a list", "must be a mapping"),
        ("mdoel: {}\n", "mdoel"),
    ],
)
def test_recipe_that_makes_no_sense(tmp_path: Path, content: str | None, words: str) -> None:
    pytest.importorskip("lightning")
    recipe = tmp_path / "recipe.yaml"
    if content is not None:
        recipe.write_text(content)
    before = files_below(tmp_path)

    outcome = unbraid("train", recipe, "--out", tmp_path / "run")

    assert outcome.code == CONFIG_ERROR
    assert words in outcome.error
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_training_without_its_extra(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("unbraid.training")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lightning"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning", None)

    outcome = unbraid("train", tmp_path / "recipe.yaml", *flags)

    assert outcome.code == MISSING_EXTRA
    assert "pip install 'unbraid[train]'" in outcome.error
