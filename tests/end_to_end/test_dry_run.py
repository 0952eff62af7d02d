"""``unbraid train --dry-run``: what is well, and what is not, before hours are spent."""

import os
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from command_line import Outcome, files_below, unbraid
from synthetic_pool import make_pool
from training_recipe import write_by_example, write_recipe
from unbraid.models.waveform import WaveformModel, build_model
from unbraid.training import dry_run, lightning, run


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture
def recipe(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(dry_run, "_NUM_STEPS", 8)
    scenes = [{"prompts": ["speech", "sfx"]}]
    return write_recipe(
        tmp_path,
        pool,
        recipe={"crop_s": 0.5, "scenes": scenes},
        validation={"every_steps": 3, "mixtures_per_scene": 1, "scenes": scenes},
    )


def try_out(recipe: Path, *arguments: str) -> Outcome:
    return unbraid("train", recipe, "--dry-run", "--out", recipe.parent / "out", *arguments)


def failed(outcome: Outcome) -> dict[str, str]:
    """What went wrong → what was said about it."""
    checks = outcome.json["stages"][0]["checks"]
    return {check["name"]: check["detail"] for check in checks if not check["passed"]}


def test_a_run_that_is_well_passes_and_leaves_nothing(
    recipe: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = files_below(recipe.parent)
    outcome = try_out(recipe)
    assert outcome.code == 0, outcome.stdout
    assert files_below(recipe.parent) == before
    lines = outcome.stdout.splitlines()
    names = ["memory", "loss", "parameters", "validation", "resume", "disk"]
    assert [line.split()[:2] for line in lines[:6]] == [["✓", name] for name in names]
    assert "2 + 2 steps give the weights of 4, to the last bit" in lines[4]
    assert re.search(r"; about \d+\.\d s in all$", lines[6])
    assert outcome.stderr.splitlines() == [
        "reading the recordings",
        "mixing",
        "memory, loss and parameters",
        "validation",
        "resume",
    ]
    assert not [each for each in caplog.records if each.name.startswith("lightning")]


def test_a_parameter_that_does_not_move_is_named(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_idle_parts(config: Any) -> WaveformModel:
        model = build_model(config)
        model.network.forgotten = nn.Parameter(torch.ones(3))
        model.network.cut_off = nn.Parameter(torch.ones(3))
        return model

    original = lightning.supervised_loss

    def loss(model: WaveformModel, *rest: Any) -> Tensor:
        return original(model, *rest) + 0.0 * model.network.cut_off.sum()

    monkeypatch.setattr(run, "build_model", with_idle_parts)
    monkeypatch.setattr(lightning, "supervised_loss", loss)
    outcome = try_out(recipe, "--json")
    assert outcome.code == 9
    assert not outcome.json["passed"]
    assert list(failed(outcome)) == ["parameters"]
    detail = failed(outcome)["parameters"]
    assert "without a gradient: model.network.forgotten, model.network.cut_off" in detail
    figures = outcome.json["stages"][0]["figures"]
    assert figures["step_s"] > 0
    assert figures["checkpoint_bytes"] > 10_000
    assert figures["expected_s"] == pytest.approx(
        6 * (figures["step_s"] + figures["mixing_s"]) + 2 * figures["validation_s"]
    )


def test_what_is_not_well_is_found(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original_loss, original_gain = lightning.supervised_loss, lightning.best_si_sdr_db
    drawn = iter(range(1_000_000))

    def rising_loss(*arguments: Any) -> Tensor:
        # Depends on how often it was asked, which no seed brings back.
        count = next(drawn)
        return original_loss(*arguments) * (1 + 0.01 * count) + count

    def random_gain(*arguments: Any) -> Tensor:
        return original_gain(*arguments) + next(drawn)

    monkeypatch.setattr(lightning, "supervised_loss", rising_loss)
    monkeypatch.setattr(lightning, "best_si_sdr_db", random_gain)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    outcome = try_out(recipe, "--json", "--set", "learns=[prompts.weight]")
    assert outcome.code == 9
    details = {check["name"]: check["detail"] for check in outcome.json["stages"][0]["checks"]}
    assert details["parameters"] == "the only tensor gets a gradient and moves"
    assert set(failed(outcome)) == {"loss", "validation", "resume", "disk"}
    assert "1 KB are free" in failed(outcome)["disk"]


def test_a_batch_that_does_not_fit_is_said_so(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*arguments: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(lightning, "supervised_loss", too_large)
    outcome = try_out(recipe, "--json")
    assert outcome.code == 9
    assert failed(outcome) == {"memory": "2 mixtures at a time do not fit; lower batch_size"}
    assert outcome.json["stages"][0]["figures"] is None


def test_a_loss_that_is_no_number_is_found(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = lightning.supervised_loss
    monkeypatch.setattr(
        lightning, "supervised_loss", lambda *arguments: original(*arguments) * float("nan")
    )
    outcome = try_out(recipe, "--json")
    assert outcome.code == 9
    assert failed(outcome) == {"loss": "the loss of step 1 is nan"}
    memory = outcome.json["stages"][0]["checks"][0]
    assert memory["name"] == "memory"
    assert memory["detail"].endswith("B at most on cpu up to there")


@pytest.mark.parametrize("call", [2, 13])
def test_ctrl_c_says_that_nothing_is_kept(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """In the steps on one batch, and in the run that is to be stopped and to go on."""
    original = lightning.supervised_loss
    calls: list[int] = []

    def pressing(*arguments: Any) -> Tensor:
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(lightning, "supervised_loss", pressing)
    outcome = try_out(recipe)
    assert outcome.code == 130
    assert outcome.stderr.splitlines()[-1] == "error: stopped; a dry run keeps nothing."
    assert "sav" not in outcome.stderr


def test_both_stages_of_a_model_by_example_are_tried_out(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "_NUM_STEPS", 8)
    outcome = try_out(write_by_example(tmp_path, pool), "--json")
    assert "tagger: resume\nnetwork: mixing" in outcome.stderr
    stages = outcome.json["stages"]
    assert [stage["stage"] for stage in stages] == ["tagger", "network"]
    assert [stage["figures"]["batch_size"] for stage in stages] == [3, 2]
    assert outcome.code == 0, outcome.stdout


def test_json_belongs_to_a_dry_run(recipe: Path) -> None:
    assert "--json is for --dry-run" in unbraid("train", recipe, "--json").error
