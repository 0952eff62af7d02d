"""``unbraid prompts``, and prompt files wherever prompts are named."""

import csv
import json
from pathlib import Path

import pytest
import torch

from command_line import unbraid, write_audio
from handmade_prompts import PROVENANCE, write_copy
from unbraid.audio import read
from unbraid.checkpoints import Card, resolve_model, save_bundle
from unbraid.checkpoints.prompt_files import ENDING
from unbraid.models.waveform import WaveformModel


@pytest.fixture
def tiny(tiny_model: WaveformModel, own_home: Path) -> Path:
    """One of the user's models."""
    return save_bundle(tiny_model, own_home / "models" / "tiny", Card("tiny", "CC0-1.0"))


@pytest.fixture
def bell(tiny: Path, tmp_path: Path) -> Path:
    return write_copy(tmp_path / "files", tiny, "speech", "door-bell", num_vectors=8)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return write_audio(tmp_path / "song.wav", 40_000, rate=44_100, subtype="FLOAT")


def rows(*more: str) -> dict[str, dict[str, object]]:
    listed = unbraid("prompts", "list", "-m", "tiny", "--json", *more).json
    return {row["name"]: row for row in listed}


# ------------------------------------------------------------------ list, show, install, remove


def test_a_shared_prompt_is_installed_listed_shown_and_removed(bell: Path, own_home: Path) -> None:
    assert "door-bell" not in rows()
    installed = unbraid("prompts", "install", bell, "-m", "tiny")
    assert (installed.code, installed.stderr) == (0, "")
    assert installed.stdout.startswith("door-bell: installed for tiny, CC0-1.0\nwritten to ")

    learned, taught = rows()["speech"], rows()["door-bell"]
    assert learned.keys() == taught.keys()
    assert (learned["kind"], learned["num_vectors"], learned["digest"]) == ("learned", 1, "")
    assert (taught["kind"], taught["num_vectors"], taught["num_clips"]) == ("taught", 8, 3)
    assert (taught["before_db"], taught["after_db"]) == (1.25, 7.5)
    assert (taught["absent_db"], taught["absent_worst_db"]) == (-23.5, -11.25)
    table = unbraid("prompts", "list", "-m", "tiny").stdout
    for word in ("speech", "learned", "door-bell", "taught", "1.2 -> 7.5 (± 0.5)", "rings twice"):
        assert word in table

    shown = unbraid("prompts", "show", "door-bell", "-m", "tiny").stdout
    absent = "-23.5 dB relative to the mixture (median), -11.2 dB at worst"
    words = ("8 of 8 numbers", "1.2 -> 7.5", "gain of +6.2 ± 0.5 dB", absent, "ding.wav")
    for word in (*words, '"after_db": 7.5', taught["digest"]):
        assert str(word) in shown
    whole = unbraid("prompts", "show", "door-bell", "-m", "tiny", "--json").json
    assert whole["provenance"] == json.loads(json.dumps(dict(PROVENANCE)))
    assert whole["is_for_model"] is True
    assert "1 prompt (door-bell)" in unbraid("models", "info", "tiny").stdout

    removed = unbraid("prompts", "remove", "door-bell", "-m", "tiny")
    assert removed.code == 0
    assert "door-bell" not in rows()
    assert "0 prompts" in unbraid("models", "info", "tiny").stdout


def test_a_file_can_be_shown_without_its_model(bell: Path) -> None:
    shown = unbraid("prompts", "show", bell)
    assert shown.code == 0
    assert "another model than mini" in shown.stdout
    assert "learned by mini" in unbraid("prompts", "show", "speech").stdout
    assert unbraid("prompts", "show", "speech", "--json").json["kind"] == "learned"


def test_a_damaged_prompt_is_listed_as_such(bell: Path, own_home: Path) -> None:
    unbraid("prompts", "install", bell, "-m", "tiny")
    (file,) = (own_home / "prompts").rglob(f"*{ENDING}")
    file.write_bytes(b"{")
    assert "not a whole prompt file" in str(rows()["door-bell"]["problem"])
    assert "damaged" in unbraid("prompts", "list", "-m", "tiny").stdout
    assert unbraid("prompts", "show", "door-bell", "-m", "tiny").code == 5
    assert unbraid("prompts", "remove", "door-bell", "-m", "tiny").code == 0


def test_what_a_file_says_does_not_reach_the_terminal_as_a_command(
    tiny: Path, tmp_path: Path
) -> None:
    evil = "\x1b]0;owned\x07 \x9b2J \ud800"
    path = write_copy(
        tmp_path / "files", tiny, "speech", "bell", note=evil, licence=evil, model=evil, clips=evil
    )
    assert unbraid("prompts", "install", path, "-m", "tiny").code == 0
    outcomes = [
        unbraid("prompts", "list", "-m", "tiny"),
        unbraid("prompts", "show", "bell", "-m", "tiny"),
        unbraid("prompts", "install", path, "-m", "tiny", "--overwrite"),
        unbraid("prompts", "install", path, "-m", "mini"),
    ]
    assert [outcome.code for outcome in outcomes] == [0, 0, 0, 3]
    for outcome in outcomes:
        assert not set(outcome.stdout + outcome.stderr) & set("\x1b\x07\x9b")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["install", "none.prompt.safetensors"], 5, "there is no such file"),
        (["remove", "speech"], 3, "learned by the model"),
        (["remove", "bell"], 3, "no such prompt is installed for 'mini'"),
        (["show", "bell"], 3, "no such prompt is installed for 'mini'"),
        (["list", "-m", "nonsense"], 5, "there is no such model"),
    ],
)
def test_errors_are_one_line(arguments: list[str], code: int, says: str) -> None:
    outcome = unbraid("prompts", *arguments)
    assert outcome.code == code
    assert says in outcome.error


def test_a_prompt_is_not_replaced_unless_asked(bell: Path) -> None:
    assert unbraid("prompts", "install", bell, "-m", "tiny").code == 0
    refused = unbraid("prompts", "install", bell, "-m", "tiny")
    assert (refused.code, "installed already" in refused.error) == (5, True)
    assert unbraid("prompts", "install", bell, "-m", "tiny", "--overwrite").code == 0
    assert unbraid("prompts", "install", bell, "-m", "tiny", "--as", "ding").code == 0
    assert {"ding", "door-bell"} <= rows().keys()
    for taken in ("music", "Speech", "Residual", "background"):
        refused = unbraid("prompts", "install", bell, "-m", "tiny", "--as", taken)
        assert (refused.code, "means something already" in refused.error) == (3, True)


def test_what_is_not_there_is_said_and_other_names_are_followed() -> None:
    assert "--query CLIP" in unbraid("prompts", "list", "-m", "query-mini").stdout
    shown = unbraid("prompts", "show", "music", "-m", "mini").stdout
    assert "music-mix" in shown
    assert "music, another name of it" in shown
    assert unbraid("prompts", "show", "music", "-m", "mini", "--json").json["name"] == "music-mix"


# ------------------------------------------------------------------ separate


def separated(song: Path, out: Path, prompts: str, model: str = "tiny") -> dict[str, object]:
    outcome = unbraid(
        "separate", song, "-p", prompts, "-m", model, "-o", out, "--device", "cpu", "--json"
    )
    assert outcome.code == 0, outcome.stderr
    (result,) = outcome.results
    return result


@pytest.mark.parametrize("num_vectors", [1, 24])
def test_a_copy_of_a_learned_vector_gives_bit_identical_stems(
    song: Path, tmp_path: Path, num_vectors: int
) -> None:
    voice = write_copy(
        tmp_path / "files", resolve_model("mini"), "speech", "voice", num_vectors=num_vectors
    )
    taught = separated(song, tmp_path / "taught", f"{voice},sfx-mix", "mini")
    learned = separated(song, tmp_path / "learned", "speech,sfx-mix", "mini")
    assert list(taught["stems"]) == ["voice", "sfx-mix"]
    pairs = zip(taught["stems"].values(), learned["stems"].values(), strict=True)
    for mine, theirs in pairs:
        assert torch.equal(read(mine).samples, read(theirs).samples)
        assert read(mine).samples.any()


def test_an_installed_prompt_is_found_by_its_name(bell: Path, song: Path, tmp_path: Path) -> None:
    unbraid("prompts", "install", bell, "-m", "tiny")
    result = separated(song, tmp_path / "out", "drums,door-bell,door-bell")
    assert list(result["stems"]) == ["drums", "door-bell_1", "door-bell_2"]
    assert result["record"]["prompts"] == ["drums", "door-bell", "door-bell"]
    assert result["record"]["taught"] == {"door-bell": rows()["door-bell"]["digest"]}


def test_another_prompt_file_means_another_separation(
    tiny: Path, song: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    bell = write_copy(tmp_path / "files", tiny, "speech", "bell")
    asked = f"speech,{bell}"
    assert separated(song, out, asked)["status"] == "written"
    assert separated(song, out, asked)["status"] == "skipped"
    # The same prompt from another place is the same prompt.
    unbraid("prompts", "install", bell, "-m", "tiny")
    assert separated(song, out, "speech,bell")["status"] == "skipped"
    first = read(out / "tiny" / "song" / "bell.wav").samples
    write_copy(tmp_path / "files", tiny, "speech", "bell", gain=0.5)
    assert separated(song, out, asked)["status"] == "written"
    assert not torch.equal(read(out / "tiny" / "song" / "bell.wav").samples, first)
    assert separated(song, out, "speech,bell")["status"] == "written"


def test_what_was_separated_before_there_were_prompt_files_stays_finished(
    tiny: Path, song: Path, tmp_path: Path
) -> None:
    sidecar = Path(str(separated(song, tmp_path / "out", "speech")["sidecar"]))
    record = json.loads(sidecar.read_text())
    assert record.pop("taught") == {}
    sidecar.write_text(json.dumps(record))
    assert separated(song, tmp_path / "out", "speech")["status"] == "skipped"


def test_prompts_that_cannot_be_used_are_refused_before_any_work(
    bell: Path, song: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    unbraid("prompts", "install", bell, "-m", "tiny")
    for prompts, model, code, says in [
        (str(bell), "mini", 3, "was made for another model ('tiny', fingerprint "),
        ("door-bell", "mini", 3, "is installed for another model (tiny)"),
        ("dor-bell", "tiny", 3, "did you mean door-bell?"),
        (f"{tmp_path}/none{ENDING}", "tiny", 5, "there is no such file"),
    ]:
        outcome = unbraid("separate", song, "-p", prompts, "-m", model, "-o", out)
        assert outcome.code == code
        assert says in outcome.error
    assert not out.exists()


# ------------------------------------------------------------------ evaluate


def test_stems_can_be_measured_with_a_taught_prompt(tiny: Path, bell: Path, tmp_path: Path) -> None:
    for name in ("ding", "drums"):
        write_audio(tmp_path / "songs" / "one" / f"{name}.wav", 9000, num_channels=1)

    def measured(prompt: str | Path, out: str) -> tuple[dict[str, object], list[dict[str, str]]]:
        outcome = unbraid(
            *("evaluate", "--folder", tmp_path / "songs", "--stem", f"ding={prompt}", "-m", "tiny"),
            *("--no-oracles", "--cases", "0", "--json", "-o", tmp_path / out),
        )
        with Path(outcome.json["folder"], "sources.csv").open() as file:
            return outcome.json["run"]["protocol"], list(csv.DictReader(file))

    with_file, by_file = measured(bell, "by-file")
    without, by_name = measured("speech", "by-name")
    assert with_file["taught"].keys() == {"door-bell"}
    assert "taught" not in without
    assert [row["prompt"] for row in by_file] == ["door-bell", "drums"]
    for mine, theirs in zip(by_file, by_name, strict=True):
        differing = {key for key in mine if mine[key] != theirs[key]}
        assert differing <= {"stem", "prompt", "elapsed_s"}


# ------------------------------------------------------------------ map


def test_a_map_is_drawn_of_learned_and_installed_prompts(bell: Path, tmp_path: Path) -> None:
    unbraid("prompts", "install", bell, "-m", "tiny")
    out = tmp_path / "map.png"
    drawn = unbraid("prompts", "map", "-m", "tiny", "-o", out)
    assert (drawn.code, drawn.stderr) == (0, "")
    learned = len(rows()) - 1
    assert drawn.stdout == f"{learned + 8 + 1} points; written to {out}\n"
    assert out.read_bytes().startswith(b"\x89PNG")
    without = unbraid("prompts", "map", "-m", "tiny", "-o", tmp_path / "2.png", "-p", "speech")
    assert without.stdout.startswith(f"{learned} points")

    again = unbraid("prompts", "map", "-m", "tiny", "-o", out)
    assert again.code != 0
    assert "exists already" in again.stderr
    assert unbraid("prompts", "map", "-m", "tiny", "-o", out, "--overwrite").code == 0
    jpeg = unbraid("prompts", "map", "-m", "tiny", "-o", tmp_path / "map.jpg")
    assert (jpeg.code, "end in .png" in jpeg.error) == (2, True)
    unknown = unbraid("prompts", "map", "-m", "tiny", "-o", tmp_path / "3.png", "-p", "gong")
    assert "unknown prompt 'gong'" in unknown.stderr
    for seed in ("-1", str(2**32)):
        refused = unbraid("prompts", "map", "-m", "tiny", "-o", tmp_path / "4.png", "--seed", seed)
        assert refused.code == 2
        assert "--seed" in refused.stderr
