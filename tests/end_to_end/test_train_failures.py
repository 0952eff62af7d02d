"""Runs that go wrong, or are asked to stop: what is kept, and what the user is told."""

import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from command_line import unbraid
from full_disk import limit_files
from synthetic_pool import make_pool
from training_recipe import write_recipe
from unbraid.checkpoints import load_bundle
from unbraid.errors import Cancelled, MissingExtra, Terminated, TrainingError
from unbraid.training import lightning, run


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pool(tmp_path_factory.mktemp("pool"))


def in_step(
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    happens: Callable[[torch.Tensor], torch.Tensor | None],
) -> None:
    """Let something happen in a step of the next run; it may take the loss and give another."""
    original = lightning.supervised_loss
    calls: list[int] = []

    def eventful(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        loss = original(*arguments)
        if len(calls) == step:
            changed = happens(loss)
            return loss if changed is None else changed
        return loss

    monkeypatch.setattr(lightning, "supervised_loss", eventful)


def saved(folder: Path) -> dict[str, Any]:
    return torch.load(run.last_checkpoint(folder), weights_only=False)


def test_a_loss_that_is_no_number_keeps_its_batch_and_the_checkpoint(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = write_recipe(tmp_path, pool), tmp_path / "out"
    in_step(monkeypatch, 4, lambda loss: loss * math.nan)
    with pytest.raises(TrainingError, match="the loss of step 4 is nan") as error:
        run.train(recipe, [], out, resume=False)
    kept = out / "not-finite" / "step-4-rank-0.pt"
    assert str(kept) in str(error.value)
    assert f"unbraid train {recipe} --out {out}" in str(error.value)
    assert saved(out)["global_step"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in saved(out)["state_dict"].values())
    batch = torch.load(kept, weights_only=True)
    assert (batch["number"], batch["seed"], batch["rank"]) == (3, 0, 0)
    assert batch["mixture"].shape == (2, 24000)
    assert batch["references"].shape == (2, batch["prompt_indices"].shape[1], 24000)
    assert len(batch["plans"]) == 2
    assert {"crop_s", "sources", "bandwidth_hz"} < set(batch["plans"][0])


def test_weights_that_are_no_numbers_are_not_saved(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = write_recipe(tmp_path, pool), tmp_path / "out"
    # The loss is finite, its gradient is not: as when numbers overflow on the way back.
    in_step(monkeypatch, 4, _Breaking.apply)
    with pytest.raises(TrainingError, match=r"no numbers after step 4 \(model\..*the checkpoint"):
        run.train(recipe, [], out, resume=False)
    assert saved(out)["global_step"] == 2
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["last.ckpt"]


class _Breaking(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * math.nan


def test_a_full_disk_leaves_the_checkpoint_before(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = write_recipe(tmp_path, pool), tmp_path / "out"
    with monkeypatch.context() as full:
        in_step(full, 3, lambda loss: limit_files(full, 1000))
        with pytest.raises(TrainingError, match=r"last.ckpt: cannot be written .the disk is full"):
            run.train(recipe, [], out, resume=False)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["last.ckpt"]
    assert saved(out)["global_step"] == 2
    run.train(recipe, [], out, resume=True)


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [(signal.SIGINT, Cancelled, 130), (signal.SIGTERM, Terminated, 143)],
)
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(
    pool: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[Cancelled],
    code: int,
) -> None:
    recipe, out = write_recipe(tmp_path, pool), tmp_path / "out"
    before = signal.getsignal(number)
    in_step(monkeypatch, 3, lambda loss: os.kill(os.getpid(), number))
    outcome = unbraid("train", recipe, "--set", "max_steps=5", "--out", out)
    assert outcome.code == code == kind.exit_code
    command = f"unbraid train {recipe} --set max_steps=5 --out {out}"
    assert "stopped after step 3; the run is saved. To go on" in outcome.stderr
    assert outcome.stderr.strip().endswith(command)
    assert saved(out)["global_step"] == 3
    assert signal.getsignal(number) == before


def test_ctrl_c_in_a_validation_loses_nothing(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, pool, checkpoint_every_steps=100)
    run.train(recipe, [], tmp_path / "whole", resume=False)
    original = lightning.best_si_sdr_db
    with monkeypatch.context() as patch:

        def stopping(*arguments: Any) -> torch.Tensor:
            os.kill(os.getpid(), signal.SIGINT)
            patch.setattr(lightning, "best_si_sdr_db", original)
            return original(*arguments)

        patch.setattr(lightning, "best_si_sdr_db", stopping)
        with pytest.raises(Cancelled, match="after step 4"):
            run.train(recipe, [], tmp_path / "stopped", resume=False)
    assert saved(tmp_path / "stopped")["global_step"] == 4
    run.train(recipe, [], tmp_path / "stopped", resume=True)
    whole, resumed = (
        load_bundle(tmp_path / name / "bundle").model.state_dict() for name in ("whole", "stopped")
    )
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_second_ctrl_c_leaves_at_once(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press_twice(loss: torch.Tensor) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    recipe, out = write_recipe(tmp_path, pool), tmp_path / "out"
    in_step(monkeypatch, 4, press_twice)
    with pytest.raises(Cancelled, match="within a step"):
        run.train(recipe, [], out, resume=False)
    assert saved(out)["global_step"] == 3


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_lost_worker_ends_the_run_and_says_so(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill_workers(loss: torch.Tensor) -> None:
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signal.SIGKILL)
        time.sleep(0.2)

    recipe, out = write_recipe(tmp_path, pool, num_workers=1), tmp_path / "out"
    in_step(monkeypatch, 3, kill_workers)
    with pytest.raises(TrainingError, match=r"makes mixtures was lost .*To go on") as error:
        run.train(recipe, [], out, resume=False)
    # PyTorch names the signal, or only the process, whichever it hears of first.
    assert "DataLoader worker" in str(error.value)
    # A batch that was ready before the loss may still be learnt from.
    assert saved(out)["global_step"] in (2, 3)
    assert not multiprocessing.active_children()


def test_tensorboard_gets_sounds_and_pictures(pool: Path, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path, pool, validation={"every_steps": 2, "scenes": [{"prompts": ["speech", "sfx"]}]}
    )
    run.train(recipe, ["max_steps=4"], tmp_path / "out", resume=False)
    events = EventAccumulator(
        str(tmp_path / "out/tensorboard"), size_guidance={"audio": 0, "images": 0}
    ).Reload()
    scene = "speech + sfx"
    assert set(events.Tags()["audio"]) == {
        f"{scene}/mixture",
        *(f"{scene}/{kind}-{n}" for kind in ("reference", "estimate") for n in (1, 2)),
    }
    assert [each.step for each in events.Audio(f"{scene}/mixture")] == [2]
    assert [each.step for each in events.Audio(f"{scene}/estimate-1")] == [2, 4]
    sound = events.Audio(f"{scene}/estimate-1")[0]
    assert (sound.sample_rate, sound.length_frames) == (48000, 24000)
    picture = events.Images(f"{scene}/reference")[0]
    assert picture.height == 180
    assert len(picture.encoded_image_string) > 1000


def test_weights_and_biases_is_called_by_name_only(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, pool, loggers=["csv", "wandb"])
    with pytest.raises(MissingExtra, match=r"unbraid\[wandb\]"):
        run.train(recipe, ["max_steps=1"], tmp_path / "without", resume=False)

    told: list[dict[str, Any]] = []
    started: list[dict[str, Any]] = []

    class Run(SimpleNamespace):
        def log(self, figures: dict[str, Any]) -> None:
            told.append(figures)

        def define_metric(self, *arguments: Any, **settings: Any) -> None:
            pass

    def init(**settings: Any) -> Run:
        started.append(settings)
        return Run(name=settings["name"], id="1")

    modules = {name: ModuleType(name) for name in ("wandb", "wandb.sdk.lib", "wandb.wandb_run")}
    modules["wandb"].init = init  # type: ignore[attr-defined]
    modules["wandb"].run = None  # type: ignore[attr-defined]
    modules["wandb.sdk.lib"].RunDisabled = Run  # type: ignore[attr-defined]
    modules["wandb.wandb_run"].Run = Run  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", True)
    run.train(recipe, ["max_steps=4"], tmp_path / "out", resume=False)
    assert len(started) == 1
    assert started[0]["project"] == "unbraid"
    assert (started[0]["name"], started[0]["group"]) == ("out", "small")
    assert any("valid/si_sdri_db/mean" in figures for figures in told)
    assert all("trainer/global_step" in figures for figures in told)
    assert (tmp_path / "out/log/version_0/metrics.csv").is_file()
    assert not (tmp_path / "out/tensorboard").exists()
