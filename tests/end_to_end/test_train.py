"""``unbraid train`` on a small pool: it learns, it stops, it goes on exactly."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from synthetic_pool import make_pool
from training_recipe import BY_EXAMPLE, TAGGER, write_by_example, write_recipe
from unbraid.apps.queries import with_queries
from unbraid.apps.separator import Separator
from unbraid.checkpoints import load_bundle
from unbraid.errors import ConfigError, DataError
from unbraid.models.waveform import build_model
from unbraid.training import lightning, run


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pool(tmp_path_factory.mktemp("pool"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_bundle(folder).model.state_dict())


@pytest.fixture
def every_loss(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """All training losses, in the order in which they were computed."""
    seen: list[float] = []
    original = lightning.supervised_loss

    def recording(*arguments: Any) -> torch.Tensor:
        loss = original(*arguments)
        seen.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(lightning, "supervised_loss", recording)
    return seen


def test_a_stopped_run_goes_on_to_the_last_bit(
    pool: Path, tmp_path: Path, every_loss: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, pool)
    run.train(recipe, [], tmp_path / "whole", resume=False)
    whole = list(every_loss)
    assert len(whole) == 6
    assert len(set(whole)) == 6

    every_loss.clear()
    recording = lightning.supervised_loss

    def failing(*arguments: Any) -> torch.Tensor:
        if len(every_loss) == 3:
            raise RuntimeError("the power went out")
        return recording(*arguments)

    monkeypatch.setattr(lightning, "supervised_loss", failing)
    with pytest.raises(RuntimeError, match="power"):
        run.train(recipe, [], tmp_path / "stopped", resume=False)
    monkeypatch.setattr(lightning, "supervised_loss", recording)
    run.train(recipe, [], tmp_path / "stopped", resume=True)

    assert every_loss == whole
    expected, resumed = weights(tmp_path / "whole/bundle"), weights(tmp_path / "stopped/bundle")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_a_run_with_rooms_codecs_and_clipping_goes_on_to_the_last_bit(
    tmp_path: Path, every_loss: list[float]
) -> None:
    manifest = make_pool(tmp_path)
    with manifest.open("a") as file:  # two rooms to train in, none to validate in
        for name, echo in (("near", 0.5), ("far", 0.2)):
            response = np.zeros(2000)
            response[[50, 1500]] = 1.0, echo
            soundfile.write(tmp_path / f"{name}.wav", response, 16000)
            file.write(f"{name}.wav,rir,hall,train,0.125,16000,16000,,CC0\n")
    augmentation = {
        "speed_probability": 0.5,
        "room_probability": 0.5,
        "room_target": "early",
        "clipping_probability": 0.5,
        "codec_probability": 0.5,
        "codecs": {"mp3": [32, 64]},
    }
    settings = {"crop_s": 0.25, "augmentation": augmentation}
    recipe = write_recipe(tmp_path, manifest, recipe=settings, max_steps=4)
    with_rooms = ["data.rooms=[rir/*]"]
    run.train(recipe, with_rooms, tmp_path / "whole", resume=False)
    whole = list(every_loss)
    run.train(recipe, [*with_rooms, "max_steps=2"], tmp_path / "stopped", resume=False)
    run.train(recipe, with_rooms, tmp_path / "stopped", resume=True)
    assert every_loss[4:] == whole
    assert all(math.isfinite(loss) for loss in whole)
    with pytest.raises(DataError, match=r"data\.rooms"):
        run.train(recipe, [], tmp_path / "roomless", resume=False)
    heard = [*with_rooms, "validation.is_augmented=true"]
    with pytest.raises(DataError, match="no room impulse response"):
        run.train(recipe, heard, tmp_path / "heard", resume=False)


def test_a_model_by_example_is_trained_in_two_stages(pool: Path, tmp_path: Path) -> None:
    recipe = write_by_example(tmp_path, pool)
    bundle = load_bundle(run.train(recipe, [], tmp_path / "out", resume=False))
    assert bundle.model.prompts.names == ()
    assert bundle.model.tagger is not None
    # It was in training mode: its norm has seen levels far from 0 dB.
    assert bundle.model.tagger.mel_norm.running_mean.max() < -1.0
    logs = [tmp_path / "out/tagger/log", tmp_path / "out/log"]
    for log, measure in zip(logs, ("accuracy", "si_sdri_db"), strict=True):
        with (log / "version_0/metrics.csv").open() as file:
            values = [row.get(f"valid/{measure}/mean") for row in csv.DictReader(file)]
        assert any(values)
    clip = pool.parent / "sfx/eval/rain/song0__rain.wav"
    model = with_queries(bundle.model, {"rain": [clip]})
    stems = Separator(model).separate(clip, ["rain"])
    assert stems["rain"].abs().max() > 0


@pytest.mark.parametrize("stage", ["tagging_loss", "by_example_loss"])
def test_both_stages_go_on_to_the_last_bit(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    recipe = write_by_example(tmp_path, pool)
    run.train(recipe, [], tmp_path / "whole", resume=False)
    original = getattr(lightning, stage)
    calls: list[int] = []

    def failing(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("the power went out")
        return original(*arguments)

    monkeypatch.setattr(lightning, stage, failing)
    with pytest.raises(RuntimeError, match="power"):
        run.train(recipe, [], tmp_path / "stopped", resume=False)
    monkeypatch.setattr(lightning, stage, original)
    with pytest.raises(ConfigError, match="holds a run already"):
        run.train(recipe, [], tmp_path / "stopped", resume=False)
    run.train(recipe, [], tmp_path / "stopped", resume=True)
    expected, resumed = weights(tmp_path / "whole/bundle"), weights(tmp_path / "stopped/bundle")
    assert any(name.startswith("tagger.") for name in expected)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tagging": None}, "trained by example"),
        ({"model": {**BY_EXAMPLE["model"], "prompts": ["speech"]}}, "trained by example"),
        (
            {"model": {**BY_EXAMPLE["model"], "tagger": {**TAGGER, "num_classes": 5}}},
            "num_classes must be 4, not 5",
        ),
        ({"model": {**BY_EXAMPLE["model"], "sample_rate": 32000}}, "must be 32000"),
    ],
)
def test_a_tagger_that_does_not_fit_the_run_is_refused(
    pool: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run.train(write_by_example(tmp_path, pool, **changes), [], tmp_path / "out", resume=False)


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("mini", 1_575_418),
        ("query-mini", 1_395_067),
        ("audioslots-mini", 1_287_985),
        ("audioslots-libri2mix", 39_276_737),
    ],
)
def test_the_recipes_that_ship_make_sense(name: str, num_parameters: int) -> None:
    config = run.load_config(Path(run.__file__).parent / "recipes" / f"{name}.yaml")
    with torch.device("meta"):
        assert build_model(config.model).num_parameters == num_parameters


SLOTS = {
    "model": {
        "architecture": "audio_slots",
        "sample_rate": 8000,
        "stft": {"n_fft": 128, "hop_length": 50, "window": "hann", "padding": "reflect"},
        "outputs": ["speech", "speech"],
        "segment_s": 0.1,
        "overlap_s": 0.05,
        "network": {
            "frames": 16, "channels": [4, 4, 4, 8], "depths": [1, 1, 1, 1], "norm_groups": 2,
            "dim": 8, "num_heads": 2, "hidden_dim": 8, "num_layers": 1, "decoder_dim": 8,
            "decoder_layers": 2,
        },
    },
    "recipe": {"crop_s": 0.1, "scenes": [{"prompts": ["speech", "speech"]}]},
    "validation": {
        "every_steps": 2, "mixtures_per_scene": 1, "scenes": [{"prompts": ["speech", "speech"]}],
    },
}  # fmt: skip


@pytest.mark.parametrize("num_slots", [2, 1])
def test_slots_are_learnt_validated_and_kept(num_slots: int, pool: Path, tmp_path: Path) -> None:
    speech = {"data": {"manifest": str(pool), "pools": {"speech": POOLS["speech"]},
                       "cache_dir": str(pool.parent / "cache")}}  # fmt: skip
    recipe = write_recipe(tmp_path, pool, **SLOTS, **speech)
    overrides = [f"model.network.num_slots={num_slots}", "max_steps=2"]
    overrides.append(f"model.outputs={['speech'] * num_slots}")
    bundle = load_bundle(run.train(recipe, overrides, tmp_path / "out", resume=False))
    assert bundle.model.network.num_outputs == num_slots
    rows = list(
        csv.DictReader((tmp_path / "out/log/version_0/metrics.csv").read_text().splitlines())
    )
    assert any(row["valid/si_sdri_db/mean"] for row in rows)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_make_the_same_mixtures(
    pool: Path, tmp_path: Path, every_loss: list[float]
) -> None:
    recipe = write_recipe(tmp_path, pool, validation={"every_steps": 100})
    run.train(recipe, ["max_steps=3"], tmp_path / "alone", resume=False)
    alone = list(every_loss)
    every_loss.clear()
    run.train(recipe, ["max_steps=3", "num_workers=2"], tmp_path / "helped", resume=False)
    # Workers compute on one thread, which may round a sum another way.
    assert every_loss == pytest.approx(alone, abs=1e-3)
    assert len(set(alone)) == 3


def test_what_comes_out_is_a_model_with_a_log(pool: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, pool, licence="CC0-1.0", weights_dtype="float16")
    bundle = load_bundle(run.train(recipe, [], tmp_path / "out", resume=False))
    assert bundle.card.licence == "CC0-1.0"
    assert "6 steps" in bundle.card.source
    with (tmp_path / "out/log/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    validated = [row for row in rows if row.get("valid/si_sdri_db/mean")]
    assert len(validated) == 1
    scenes = [name for name in validated[0] if name.startswith("valid/si_sdri_db/")]
    assert len(scenes) == 6
    mean = sum(float(validated[0][name]) for name in scenes if not name.endswith("mean")) / 5
    assert float(validated[0]["valid/si_sdri_db/mean"]) == pytest.approx(mean, abs=1e-4)
    assert list((tmp_path / "out/tensorboard").glob("events*"))


def test_the_log_of_a_session_survives_the_next(pool: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, pool)
    run.train(recipe, ["max_steps=4"], tmp_path / "out", resume=False)
    before = (tmp_path / "out/log/version_0/metrics.csv").read_text()
    run.train(recipe, ["max_steps=8"], tmp_path / "out", resume=True)
    assert (tmp_path / "out/log/version_0/metrics.csv").read_text() == before
    assert (tmp_path / "out/log/version_1/metrics.csv").is_file()


def test_a_finished_folder_is_not_trained_over(pool: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, pool)
    run.train(recipe, ["max_steps=1"], tmp_path / "out", resume=False)
    with pytest.raises(ConfigError, match="holds a run already"):
        run.train(recipe, ["max_steps=1"], tmp_path / "out", resume=False)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_step=5", "did you mean max_steps"),
        ("recipe.crop=1", "did you mean crop_s"),
        ("max_steps", "write it as key=value"),
        ("max_steps=0", "at least 1"),
        ("optimiser.learning_rate=fast", "optimiser.learning_rate"),
        ("recipe.tone_probability=3", "is a probability"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(
    pool: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run.train(write_recipe(tmp_path, pool), [override], tmp_path / "out", resume=False)


def test_missing_recordings_are_named(tmp_path: Path) -> None:
    manifest = make_pool(tmp_path / "pool")
    (tmp_path / "pool/speech/train/en/song0__en.wav").unlink()
    with pytest.raises(DataError, match="song0__en"):
        run.train(write_recipe(tmp_path, manifest), [], tmp_path / "out", resume=False)
    recipe = write_recipe(tmp_path, tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="cannot be read"):
        run.train(recipe, [], tmp_path / "out", resume=False)


def test_a_run_keeps_its_heap(
    pool: Path, tmp_path: Path, every_loss: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses_before: list[int] = []
    monkeypatch.setattr(run, "keep_heap", lambda: losses_before.append(len(every_loss)))
    run.train(write_recipe(tmp_path, pool), ["max_steps=1"], tmp_path / "out", resume=False)
    assert losses_before == [0]
    assert len(every_loss) == 1
