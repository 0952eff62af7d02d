"""What a run may change when it goes on, and what would make another run of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import tiny_config
from unbraid.errors import CheckpointError, ConfigError
from unbraid.training.config import DataConfig, TrainConfig
from unbraid.training.recipe_files import write_config
from unbraid.training.resuming import check_same_run
from unbraid.training.schedule import OptimiserConfig, PlateauConfig

CONFIG = TrainConfig(
    "small", tiny_config(), DataConfig("a.csv", {"speech": ("speech/*",)}, root="/recordings")
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(write_config(CONFIG))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": replace(CONFIG.model, level="none")}, 'model.level was "deviation", not "none"'),
        ({"start": "mini"}, 'start was "", not "mini"'),
        ({"learns": ("prompts.*",)}, "learns was"),
        ({"batches_per_step": 2}, "batches_per_step was 1, not 2"),
        ({"optimiser": OptimiserConfig(decayed="all")}, "optimiser.decayed"),
        ({"optimiser": OptimiserConfig(average_best=3)}, "average_best was null, not 3"),
        ({"optimiser": OptimiserConfig(average_decay=None)}, "average_decay was 0.999, not null"),
    ],
)
def test_another_run_is_refused(written: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match="holds another run") as error:
        check_same_run(replace(CONFIG, **changes), written)
    assert message in str(error.value)


def test_other_settings_are_named(written: Path, caplog: pytest.LogCaptureFixture) -> None:
    optimiser = OptimiserConfig(learning_rate=2e-3, average_decay=0.99, plateau=PlateauConfig(3))
    check_same_run(replace(CONFIG, seed=1, optimiser=optimiser), written)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for changed in ("learning_rate was 0.001, not 0.002", "average_decay was 0.999, not 0.99"):
        assert f"optimiser.{changed}" in record.message
    assert "seed was 0, not 1" in record.message
    assert 'plateau was null, not {"patience": 3' in record.message


def test_more_steps_on_another_machine_need_no_word(
    written: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_same_run(replace(CONFIG, max_steps=200_000, devices=2, num_workers=3), written)
    assert not caplog.records


def test_a_folder_that_does_not_say_what_its_run_is_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(CheckpointError, match=r"no config\.yaml to say of what"):
        check_same_run(CONFIG, path)
    path.write_text("name: small\nsteps: 3\n")
    with pytest.raises(ConfigError, match=r"cannot be read any more.*unknown key 'steps'"):
        check_same_run(CONFIG, path)
