"""``unbraid evaluate`` as a user runs it: on stems of one's own, on a pool, on a corpus."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from command_line import unbraid
from synthetic_pool import make_pool
from unbraid.apps.evaluate import Evaluated, EvaluateOptions, evaluate
from unbraid.checkpoints import save_bundle
from unbraid.checkpoints.card import Card
from unbraid.errors import ConfigError
from unbraid.evaluation.items import Item
from unbraid.evaluation.results import read_run
from unbraid.evaluation.tasks import folder_task
from unbraid.models.waveform import WaveformModel
from unbraid.prompts import STANDARD_PROMPTS

RATE = 16000


def stems(folder: Path, *songs: str, channels: int = 1) -> Path:
    """Songs of a voice (a low tone that beats) and drums (noise), 1.5 s each."""
    for number, song in enumerate(songs):
        time = np.arange(3 * RATE // 2) / RATE
        voice = 0.3 * np.sin(2 * np.pi * (200 + 50 * number) * time) * np.cos(2 * np.pi * time)
        noise = 0.1 * np.random.default_rng(number).standard_normal(len(time))
        for name, samples in {"vocals": voice, "drums": noise}.items():
            path = folder / song / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            columns = np.stack([samples * (1 - 0.5 * each) for each in range(channels)], axis=1)
            soundfile.write(path, columns, RATE, subtype="FLOAT")
    return folder


@pytest.fixture
def tiny(tiny_model: WaveformModel, tmp_path: Path) -> Path:
    """A bundle of the tiny model."""
    return save_bundle(tiny_model, tmp_path / "tiny", Card("tiny", "CC0-1.0", "a test"))


def halves(item: Item, prompts: tuple[str, ...]) -> torch.Tensor:
    """A separator that is 6.02 dB off and never wrong otherwise."""
    return item.references / 2


def task_of(folder: Path, *, limit: int | None = None):  # type: ignore[no-untyped-def]
    return folder_task(folder, STANDARD_PROMPTS, {}, limit)


def known(separate=halves, name: str = "halves") -> Evaluated:  # type: ignore[no-untyped-def]
    return Evaluated(name, "", None, lambda protocol: separate)


def test_a_folder_of_stems_gives_results_a_table_and_a_page(tiny: Path, tmp_path: Path) -> None:
    songs = stems(tmp_path / "songs", "first", "second", channels=2)
    outcome = unbraid("evaluate", "--folder", songs, "--model", tiny, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    assert "SI-SDR" in outcome.stdout
    assert "vocals" in outcome.stdout
    folder = tmp_path / "out" / "tiny" / "songs"
    run = read_run(folder)
    assert [item.item for item in run.items] == ["first", "second"]
    assert {source.prompt for item in run.items for source in item.sources} == {"vocals", "drums"}
    with (folder / "sources.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert float(rows[0]["si_sdr_db"]) == run.items[0].sources[0].estimate["si_sdr_db"]
    page = (folder / "report.html").read_text()
    assert "data:audio/" in page
    assert "data:image/png" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_numbers_are_right(tmp_path: Path) -> None:
    done = evaluate(task_of(stems(tmp_path / "songs", "one")), known(), EvaluateOptions(tmp_path))
    for source in done.run.items[0].sources:
        assert source.estimate["snr_db"] == pytest.approx(6.0206, abs=1e-3)
        assert source.estimate["level_error"] == pytest.approx(-6.0206, abs=1e-2)
        assert source.estimate["si_sdr_db"] == 100.0
    [everything] = [row for row in done.summary.rows if row.kind == "all"]
    assert everything.estimate["snr_db"].value == pytest.approx(6.0206, abs=1e-3)


def test_what_is_finished_is_not_measured_again(tmp_path: Path) -> None:
    task = task_of(stems(tmp_path / "songs", "one", "two"))
    evaluate(task, known(), EvaluateOptions(tmp_path / "out"))

    def never(item: Item, prompts: tuple[str, ...]) -> torch.Tensor:
        raise AssertionError("measured again")

    again = evaluate(task, known(never), EvaluateOptions(tmp_path / "out"))
    assert again.was_there
    assert len(again.run.items) == 2


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    task = task_of(stems(tmp_path / "songs", "a", "b", "c"))
    asked: list[str] = []

    def until_b(item: Item, prompts: tuple[str, ...]) -> torch.Tensor:
        if item.name == "b":
            raise KeyboardInterrupt
        return halves(item, prompts)

    def counting(item: Item, prompts: tuple[str, ...]) -> torch.Tensor:
        asked.append(item.name)
        return halves(item, prompts)

    options = EvaluateOptions(tmp_path / "out", num_cases=0)
    with pytest.raises(KeyboardInterrupt):
        evaluate(task, known(until_b), options)
    folder = tmp_path / "out" / "halves" / "songs"
    assert not (folder / "results.jsonl").exists()
    partial = folder / "results.partial.jsonl"
    # As after a power cut in the middle of a line.
    partial.write_text(partial.read_text() + '{"item": "b", "part"')
    done = evaluate(task, known(counting), options)
    assert asked == ["b", "c"]
    assert [item.item for item in done.run.items] == ["a", "b", "c"]
    assert not partial.exists()
    whole = evaluate(task, known(), EvaluateOptions(tmp_path / "other", num_cases=0))
    assert [item.sources for item in whole.run.items] == [item.sources for item in done.run.items]


def test_results_of_something_else_are_not_overwritten(tmp_path: Path) -> None:
    songs = stems(tmp_path / "songs", "one", "two")
    options = EvaluateOptions(tmp_path / "out", num_cases=0)
    evaluate(task_of(songs), known(), options)
    with pytest.raises(ConfigError, match="items_digest"):
        evaluate(task_of(songs, limit=1), known(), options)
    again = EvaluateOptions(tmp_path / "out", num_cases=0, overwrite=True)
    assert len(evaluate(task_of(songs, limit=1), known(), again).run.items) == 1


def test_finished_stems_of_any_tool_can_be_measured(tmp_path: Path) -> None:
    songs = stems(tmp_path / "songs", "one", "two")
    for path in songs.rglob("*.wav"):
        samples, rate = soundfile.read(path)
        copy = tmp_path / "other tool" / path.relative_to(songs)
        copy.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(copy, samples / 2, rate, subtype="FLOAT")
    outcome = unbraid(
        "evaluate", "--folder", songs, "--estimates", tmp_path / "other tool",
        "--out", tmp_path / "out", "--measures", "snr_db", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    row = json.loads(outcome.stdout)["summary"]["rows"][0]
    assert row["estimate"]["snr_db"]["value"] == pytest.approx(6.0206, abs=1e-3)
    shown = unbraid(
        "evaluate", "--folder", songs, "--estimates", tmp_path / "other tool",
        "--out", tmp_path / "out", "--measures", "snr_db", "--markdown",
    )  # fmt: skip
    assert "\n| all | " in shown.stdout
    assert "| 6.0 " in shown.stdout
    assert "measured before" in shown.stdout
    (tmp_path / "other tool" / "two" / "drums.wav").unlink()
    failed = unbraid(
        "evaluate", "--folder", songs, "--estimates", tmp_path / "other tool",
        "--out", tmp_path / "out", "--overwrite",
    )  # fmt: skip
    assert failed.code == 6
    assert "holds no drums.wav" in failed.error


@pytest.mark.slow
def test_a_pool_is_asked_about_in_five_ways(tiny: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    from synthetic_pool import POOLS

    recipe.write_text(json.dumps({"data": {"pools": POOLS}}))
    outcome = unbraid(
        "evaluate", "pool", "--manifest", make_pool(tmp_path / "pool"), "--recipe", recipe,
        "--model", tiny, "--out", tmp_path / "out", "--limit", "1", "--no-oracles",
        "--cases", "0", "--measures", "si_sdr_db,leak_suppression_db",
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    assert "one prompt too many" in outcome.stdout
    runs = {
        name: read_run(tmp_path / "out" / "tiny" / name)
        for name in ("pool", "pool-single", "pool-reversed", "pool-coarser", "pool-absent")
    }
    assert len(runs["pool"].items) == 17
    silent = [source for item in runs["pool-absent"].items for source in item.sources]
    assert any(source.is_silent for source in silent)
    assert not any(source.oracles for source in silent)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "nothing to measure on"),
        (["musdb"], 6, "did you mean musdb18-hq"),
        (["wham"], 2, "--data"),
        (["pool"], 2, "--manifest"),
        (["--folder", "gone"], 6, "gone: no such folder"),
        (["--folder", "songs", "--stem", "vocals"], 2, "NAME=PROMPT"),
        (["--folder", "songs", "--measures", "si_sdr"], 2, "si_sdr_db"),
        (["--folder", "songs", "--segment", "1", "--overlap", "1"], 2, "longer than the overlap"),
        (["--folder", "songs", "--model", "gone"], 5, "gone"),
        (["--folder", "songs", "--estimates", "gone"], 6, "gone: no such folder"),
        (["--folder", "songs", "--device", "cpu,cpu"], 2, "one device"),
        (["wham", "--data", "."], 6, "unbraid data info wham"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stems(tmp_path / "songs", "one")
    outcome = unbraid("evaluate", *arguments)
    assert outcome.code == code, outcome.stderr
    assert words in outcome.error
    assert not (tmp_path / "evaluations").exists()


def test_benchmarks_and_measures_can_be_listed() -> None:
    listed = {row["name"]: row for row in unbraid("evaluate", "--list", "--json").json}
    assert {"pool", "wham", "musdb18-hq", "esc50-pairs"} <= set(listed)
    assert listed["wham"]["corpus"] == "wham"
    assert "pesq_wb" in unbraid("evaluate", "--measures", "help").stdout
