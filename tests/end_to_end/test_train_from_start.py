"""``unbraid train`` from a model's weights, with a part that learns."""

from pathlib import Path
from typing import Any

import pytest
import torch

import training_recipe
from conftest import tiny_config
from synthetic_pool import make_pool
from tiny_query_model import TAGGER
from unbraid.checkpoints import Card, load_bundle, save_bundle
from unbraid.config import dump
from unbraid.errors import Cancelled, CheckpointError, ConfigError
from unbraid.models.waveform import WaveformModel
from unbraid.training import run


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture
def start(tmp_path: Path, tiny_model: WaveformModel) -> Path:
    return save_bundle(tiny_model, tmp_path / "start", Card("start", "AGPL-3.0-or-later"))


SETTINGS: dict[str, Any] = {
    "learns": ["prompts.*", "network.codec.*"],
    "recipe": {"crop_s": 0.25},
    "optimiser": {"warmup_steps": 1, "average_decay": 0.5},
    "validation": {
        "every_steps": 4, "mixtures_per_scene": 1, "scenes": [{"prompts": ["speech", "sfx"]}],
    },
    "max_steps": 4,
}  # fmt: skip


def write_recipe(folder: Path, manifest: Path, **changes: Any) -> Path:
    return training_recipe.write_recipe(folder, manifest, **{**SETTINGS, **changes})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_bundle(folder).model.state_dict())


def test_a_part_learns_and_a_stopped_run_goes_on_to_the_last_bit(
    pool: Path, tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, pool, start=str(start))
    whole = run.train(recipe, [], tmp_path / "whole", resume=False)
    before, after = weights(start), weights(whole)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "prompts.weight" in changed
    assert any(name.startswith("network.codec.") for name in changed)
    assert all(name.startswith(("prompts.", "network.codec.")) for name in changed)
    card = load_bundle(whole).card
    assert card.licence == "AGPL-3.0-or-later"
    assert f"from {start}" in card.source

    original = run.SeparationModule.training_step

    def stops(module: run.SeparationModule, *arguments: Any) -> torch.Tensor:
        if module.global_step == 3:
            raise KeyboardInterrupt
        return original(module, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(run.SeparationModule, "training_step", stops)
        with pytest.raises(Cancelled):
            run.train(recipe, [], tmp_path / "stopped", resume=False)
    resumed = weights(run.train(recipe, [], tmp_path / "stopped", resume=True))
    assert all(torch.equal(resumed[name], after[name]) for name in after)


def test_starts_that_do_not_fit(pool: Path, tmp_path: Path, start: Path) -> None:
    recipe = write_recipe(tmp_path, pool, start=str(start))
    for override, words in [
        ("model.sample_rate=44100", "must be equal"),
        ("learns=[nothing.*]", "matches no parameter"),
    ]:
        with pytest.raises(ConfigError, match=words):
            run.train(recipe, [override], tmp_path / "run", resume=False)
    with pytest.raises(CheckpointError, match="there is no such model"):
        run.train(recipe, ["start=nowhere"], tmp_path / "other", resume=False)
    assert not (tmp_path / "other").exists()


def test_a_model_with_a_tagger_learns_as_a_whole(pool: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, pool, model=dump(tiny_config()) | {"tagger": dump(TAGGER)})
    with pytest.raises(ConfigError, match="leave them out"):
        run.train(recipe, [], tmp_path / "run", resume=False)
