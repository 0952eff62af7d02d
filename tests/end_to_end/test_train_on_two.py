"""Training on two processes: the same as on one, and an end for all when one has to stop."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ROOT
from synthetic_pool import make_pool
from training_recipe import write_recipe
from unbraid.checkpoints import load_bundle
from unbraid.errors import ConfigError
from unbraid.training import lightning, run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")


def run_on_two(folder: Path, *scenarios: str) -> Path:
    """Train on two processes, once for each scenario."""
    recipe = write_recipe(folder, make_pool(folder / "pool"), batch_size=4)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    subprocess.run(
        [sys.executable, ROOT / "tests" / "two_ranks.py", recipe, folder, str(port), *scenarios],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return folder


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes ended before their time, for three reasons."""
    return run_on_two(tmp_path_factory.mktemp("two"), "nan", "lost", "stopped")


def told(folder: Path, scenario: str, rank: int) -> dict[str, Any]:
    """What a process left behind."""
    return json.loads((folder / f"{scenario}-{rank}.json").read_text())


def test_two_processes_learn_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_on_two(tmp_path, "whole")
    losses: list[float] = []
    original = lightning.supervised_loss

    def watched(*arguments: Any) -> torch.Tensor:
        loss = original(*arguments)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(lightning, "supervised_loss", watched)
    alone = run.train(folder / "small.yaml", ["max_steps=3"], tmp_path / "one", resume=False)
    shares = [told(folder, "whole", rank)["losses"] for rank in (0, 1)]
    assert shares[0] != pytest.approx(shares[1], abs=1e-2)
    means = [sum(share) / 2 for share in zip(*shares, strict=True)]
    assert len(losses) == 3
    assert means == pytest.approx(losses, abs=1e-4)
    expected = dict(load_bundle(alone).model.state_dict())
    shared = dict(load_bundle(folder / "whole" / "bundle").model.state_dict())
    assert shared.keys() == expected.keys()
    for name, weights in expected.items():
        torch.testing.assert_close(shared[name], weights, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_loss_that_is_none_on_one_stops_both(failed: Path) -> None:
    ends = [told(failed, "nan", rank) for rank in (0, 1)]
    assert [end["kind"] for end in ends] == ["TrainingError"] * 2
    assert "on another device" in ends[0]["message"]
    batch = failed / "nan" / "not-finite" / "step-2-rank-1.pt"
    assert str(batch) in ends[1]["message"]
    assert torch.load(batch, weights_only=True)["world_size"] == 2


@pytest.mark.slow
def test_a_request_to_end_that_reaches_one_stops_both_and_saves(failed: Path) -> None:
    ends = [told(failed, "stopped", rank) for rank in (0, 1)]
    assert [end["kind"] for end in ends] == ["Cancelled", "Terminated"]
    saved = torch.load(run.last_checkpoint(failed / "stopped"), weights_only=False)
    assert saved["global_step"] == 2


@pytest.mark.slow
def test_a_lost_process_ends_the_other(failed: Path) -> None:
    assert not (failed / "lost-1.json").exists()
    end = told(failed, "lost", 0)
    assert end["kind"] == "TrainingError"
    assert "another device was lost" in end["message"]


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, make_pool(tmp_path / "pool"))
    with pytest.raises(ConfigError, match=r"batch_size .* multiple of 2, not 3; for example 4"):
        run.train(recipe, ["devices=2", "batch_size=3"], tmp_path / "out", resume=False)
    assert not (tmp_path / "out").exists()
