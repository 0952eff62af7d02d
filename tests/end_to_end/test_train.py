"""``unbraid train`` on a small pool: it learns, it stops, it goes on exactly."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from conftest import tiny_config
from synthetic_pool import POOLS, make_pool
from tiny_unconditional import tiny_unconditional_config
from training_recipe import BY_EXAMPLE, TAGGER, write_by_example, write_recipe
from unbraid.apps.pack_corpus import PackSettings, pack_corpus
from unbraid.apps.queries import with_queries
from unbraid.apps.separator import Separator
from unbraid.checkpoints import load_bundle
from unbraid.config import dump
from unbraid.errors import CheckpointError, ConfigError, DataError, TrainingError
from unbraid.models.waveform import build_model
from unbraid.training import lightning, run
from unbraid.training.recipe_files import load_recipe
from unbraid.types import Step


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


def lose_power(monkeypatch: pytest.MonkeyPatch, loss: str, call: int) -> list[int]:
    """Let a loss fail once, when it is computed for that time; what is given grows with each."""
    original = getattr(lightning, loss)
    calls: list[int] = []

    def failing(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == call:
            raise RuntimeError("the power went out")
        return original(*arguments)

    monkeypatch.setattr(lightning, loss, failing)
    return calls


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


def fail(monkeypatch: pytest.MonkeyPatch, module: type, step: str, number: int) -> Any:
    """Let the so-many-th batch fail; give what puts things right again."""
    original = getattr(module, step)
    calls: list[int] = []

    def failing(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == number:
            raise RuntimeError("the power went out")
        return original(*arguments)

    monkeypatch.setattr(module, step, failing)
    return lambda: monkeypatch.setattr(module, step, original)


#: All that validation can change, in a run whose steps learn from two batches each.
BY_THE_BOOK: dict[str, Any] = {
    "recipe": {
        "crop_s": 0.5,
        "scenes": [{"prompts": ["speech", "sfx-mix"]}, {"prompts": ["speech", "sfx", "vocals"]}],
        "unasked_probability": 0.5,
        "most_unasked": None,
    },
    "optimiser": {
        "warmup_steps": 2,
        "decayed": "all",
        "average_decay": 0.5,
        "average_best": 2,
        "plateau": {"patience": 0},
    },
    "validation": {
        "every_steps": 2,
        "mixtures_per_scene": 1,
        "scenes": [{"prompts": ["speech", "sfx-mix"]}],
    },
    "batches_per_step": 2,
    "max_steps": 8,
    "checkpoint_every_steps": 3,
}


@pytest.fixture
def learning_rates(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Step → its learning rate, as the optimiser had it."""
    seen: dict[int, float] = {}
    original = lightning.SeparationModule.training_step

    def recording(module: Any, *arguments: Any) -> torch.Tensor:
        (rate,) = {group["lr"] for group in module.trainer.optimizers[0].param_groups}
        seen[module.global_step] = rate
        return original(module, *arguments)

    monkeypatch.setattr(lightning.SeparationModule, "training_step", recording)
    return seen


def test_schedules_and_best_weights_go_on_to_the_last_bit(
    pool: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    learning_rates: dict[int, float],
) -> None:
    recipe = write_recipe(tmp_path, pool, **BY_THE_BOOK)
    # A rate so high that the loss rises, too.
    fast = ["optimiser.learning_rate=1"]
    run.train(recipe, fast, tmp_path / "whole", resume=False)
    whole = dict(learning_rates)
    assert whole[0] == 0.0
    assert min(whole[step] for step in range(2, 8)) < 1, "the plateau was met"

    # In the middle of the fourth step, in its first batch, and while that step is validated.
    for what, number in (("training", 8), ("training", 7), ("validation", 2)):
        learning_rates.clear()
        out = tmp_path / f"{what}-{number}"
        mend = fail(monkeypatch, lightning.SeparationModule, f"{what}_step", number)
        with pytest.raises(RuntimeError, match="power"):
            run.train(recipe, fast, out, resume=False)
        mend()
        run.train(recipe, fast, out, resume=True)
        assert learning_rates == whole
        assert_same_end(out, tmp_path / "whole")


def assert_same_end(run_dir: Path, expected_dir: Path) -> None:
    """That two runs have validated, kept and learnt the same."""
    found, expected = (
        torch.load(run.last_checkpoint(folder), weights_only=False)
        for folder in (run_dir, expected_dir)
    )
    assert [step for step, _ in expected["validations"]] == [2, 4, 6, 8]
    assert found["validations"] == expected["validations"]
    kept = [sorted(run.best_weights(folder).iterdir()) for folder in (run_dir, expected_dir)]
    assert [file.name for file in kept[0]] == [file.name for file in kept[1]]
    after, before = weights(run_dir / "bundle"), weights(expected_dir / "bundle")
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_bundle_is_the_mean_of_the_best_weights(pool: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, pool, **BY_THE_BOOK)
    fast = ["optimiser.learning_rate=0.05"]
    bundle = weights(run.train(recipe, fast, tmp_path / "out", resume=False))
    checkpoint = torch.load(run.last_checkpoint(tmp_path / "out"), weights_only=False)
    losses = dict(checkpoint["validations"])
    best = sorted(losses, key=losses.__getitem__)[:2]
    assert len(list(run.best_weights(tmp_path / "out").iterdir())) <= 3
    kept = [torch.load(run.best_weights(tmp_path / "out") / f"step-{step:08d}.pt") for step in best]
    for name, tensor in bundle.items():
        mean = (kept[0][name].double() + kept[1][name].double()) / 2
        torch.testing.assert_close(tensor, mean.float())
    # What was validated last are averages over steps, as the checkpoint has them.
    if max(losses) in best:
        averaged = kept[best.index(max(losses))]
        for name, tensor in averaged.items():
            torch.testing.assert_close(tensor, checkpoint["state_dict"][f"model.{name}"])
    (run.best_weights(tmp_path / "out") / f"step-{best[0]:08d}.pt").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        run.export(tmp_path / "out")


def test_a_step_learns_from_all_its_batches(pool: Path, tmp_path: Path) -> None:
    scenes = [{"prompts": ["speech", "sfx-mix"]}]
    alike = {
        "recipe": {"crop_s": 0.5, "scenes": scenes},
        "optimiser": {"warmup_steps": 0, "average_decay": None},
        "max_steps": 1,
    }
    recipe = write_recipe(tmp_path, pool, **alike)
    found = []
    for name, size, number in (("one", 1, 1), ("two", 1, 2)):
        settings = [f"batch_size={size}", f"batches_per_step={number}"]
        run.train(recipe, settings, tmp_path / name, resume=False)
        checkpoint = torch.load(run.last_checkpoint(tmp_path / name), weights_only=False)
        moments = checkpoint["optimizer_states"][0]["state"]
        found.append([moments[key]["exp_avg"] for key in moments])
        assert checkpoint["global_step"] == 1
    # The second batch has changed the gradient.
    assert any(not torch.allclose(one, two) for one, two in zip(*found, strict=True))


def test_a_run_ends_when_validation_no_longer_gets_better(
    pool: Path, tmp_path: Path, learning_rates: dict[int, float]
) -> None:
    recipe = write_recipe(tmp_path, pool, **BY_THE_BOOK)
    # Nothing is learnt, so that the loss stays.
    still = ["optimiser.learning_rate=0", "validation.patience=2", "max_steps=100"]
    run.train(recipe, still, tmp_path / "out", resume=False)
    assert max(learning_rates) == 5
    learning_rates.clear()
    run.train(recipe, still, tmp_path / "out", resume=True)
    assert not learning_rates


def test_weights_can_be_drawn_by_glorots_rule(pool: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, pool)
    still = ["max_steps=1", "optimiser.warmup_steps=1", "initial_weights=xavier"]
    drawn = weights(run.train(recipe, still, tmp_path / "out", resume=False))
    matrices = [name for name in drawn if name.startswith("network.") and drawn[name].ndim == 2]
    for name in matrices:
        limit = (6 / sum(drawn[name].shape)) ** 0.5
        assert 0.8 * limit < drawn[name].abs().max() <= limit, name
    biases = [name for name in drawn if name.endswith("bias")]
    assert biases
    assert not any(drawn[name].any() for name in biases)


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
    lose_power(monkeypatch, stage, call=4)
    with pytest.raises(RuntimeError, match="power"):
        run.train(recipe, [], tmp_path / "stopped", resume=False)
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
        (
            {"validation": {"scenes": [], "mixtures": {"a": {"list": "a.jsonl", "split": "cv"}}}},
            "validated on mixtures of validation.scenes",
        ),
        ({"method": {"kind": "supervised"}}, "not by method: supervised"),
    ],
)
def test_a_tagger_that_does_not_fit_the_run_is_refused(
    pool: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run.train(write_by_example(tmp_path, pool, **changes), [], tmp_path / "out", resume=False)


WITHOUT_REFERENCES = {
    "model": dump(tiny_unconditional_config(3)),
    "recipe": {"crop_s": 0.25, "scenes": [{"prompts": ["speech", "sfx-mix"]}]},
    "validation": {
        "every_steps": 4,
        "mixtures_per_scene": 1,
        "scenes": [{"prompts": ["speech", "sfx-mix"]}],
    },
    "batch_size": 4,
}
METHODS: dict[str, dict[str, Any]] = {
    "mixit": {"kind": "mixit", "sparsity_weight": 1.0},
    "remixing": {
        "kind": "remixing",
        "remixit_weight": 0.5,
        "teacher": {"decay": 0.5, "steps_per_epoch": 2},
    },
    "remixing by step": {
        "kind": "remixing",
        "num_sources": 2,
        "teacher": {"decay": 0.5, "every": "step", "steps_per_epoch": 4},
    },
}


@pytest.mark.parametrize(
    ("method", "average_decay"),
    [("mixit", 0.5), ("remixing", None), ("remixing", 0.5), ("remixing by step", None)],
)
def test_a_run_without_references_goes_on_to_the_last_bit(
    pool: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    average_decay: float | None,
) -> None:
    optimiser = {"warmup_steps": 2, "average_decay": average_decay}
    recipe = write_recipe(
        tmp_path, pool, **WITHOUT_REFERENCES, method=METHODS[method], optimiser=optimiser
    )
    run.train(recipe, [], tmp_path / "whole", resume=False)
    name = "mixture_invariant_loss" if method == "mixit" else "remixing_loss"
    calls = lose_power(monkeypatch, name, call=4)
    with pytest.raises(RuntimeError, match="power"):
        run.train(recipe, [], tmp_path / "stopped", resume=False)
    run.train(recipe, [], tmp_path / "stopped", resume=True)
    assert len(calls) == 7

    states = [
        torch.load(run.last_checkpoint(tmp_path / folder), weights_only=False)
        for folder in ("whole", "stopped")
    ]
    for key in ("state_dict", "current_model_state"):
        expected, resumed = (state.get(key, {}) for state in states)
        assert all(torch.equal(resumed[each], expected[each]) for each in expected)
    state = states[0]["current_model_state" if average_decay else "state_dict"]
    teacher = {each for each in state if each.startswith("teacher.model.")}
    assert bool(teacher) == (method != "mixit")
    # It lags behind, and has left its start.
    student = "network.codec.decoders.0.first.weight"
    if teacher:
        assert not torch.equal(state[f"teacher.model.{student}"], state[f"model.{student}"])
    bundle = load_bundle(tmp_path / "stopped/bundle")
    assert bundle.model.prompts.names == ("source",)
    assert len(bundle.model.separate_all(torch.randn(1, 999))[0]) == 3


def test_references_are_not_looked_at_without_a_weight(
    pool: Path, tmp_path: Path, every_loss: list[float]
) -> None:
    method = METHODS["remixing"]
    recipe = write_recipe(tmp_path, pool, **WITHOUT_REFERENCES, method=method)
    run.train(recipe, ["max_steps=2"], tmp_path / "out", resume=False)
    assert every_loss == []


def test_recordings_and_mixtures_with_references_are_learnt_side_by_side(
    pool: Path, tmp_path: Path, every_loss: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        **WITHOUT_REFERENCES,
        "recipe": {
            "crop_s": 0.25,
            "scenes": [{"prompts": ["music-mix"]}, {"prompts": ["speech", "sfx-mix"]}],
        },
        "method": {**METHODS["remixing"], "supervised_weight": 2.0},
    }
    heard: list[torch.Tensor] = []
    original = lightning.remixing_loss

    def recording(*arguments: Any) -> torch.Tensor:
        heard.append(arguments[2])
        return original(*arguments)

    monkeypatch.setattr(lightning, "remixing_loss", recording)
    recipe = write_recipe(tmp_path, pool, **settings)
    run.train(recipe, ["max_steps=8"], tmp_path / "out", resume=False)
    assert len(every_loss) + len(heard) == 8
    assert every_loss
    assert heard


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"kind": "mixt"}, r"method\.kind: there is no kind 'mixt', only 'supervised', .*'mixit'"),
        ({"sparsity_weight": 2}, "method: has to be a group of settings with a kind"),
        ({"kind": "mixit", "sparsity": 2}, "did you mean sparsity_weight"),
        ({"kind": "mixit", "teacher": {}}, "unknown key 'teacher'"),
        ({"kind": "supervised", "sparsity_weight": 2}, "unknown key 'sparsity_weight'"),
        ({"kind": "by_example"}, "for a model with a tagger"),
        ({"kind": "slots"}, "for model.architecture audio_slots"),
        ({"kind": "mixit"}, "two sources or more of any kind"),
    ],
)
def test_a_method_that_makes_no_sense_is_refused(
    pool: Path, tmp_path: Path, method: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(write_recipe(tmp_path, pool, method=method))


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("mini", 1_575_418),
        ("query-mini", 1_395_067),
        ("audioslots-mini", 1_609_817),
        ("audioslots-libri2mix", 39_276_737),
    ],
)
def test_the_recipes_that_ship_make_sense(name: str, num_parameters: int) -> None:
    config = load_recipe(name)
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
    "method": {"kind": "slots", "drawn_share": 0.5},
    "recipe": {"crop_s": 0.1, "scenes": [{"prompts": ["speech", "speech"]}]},
    "validation": {
        "every_steps": 2, "mixtures_per_scene": 1, "scenes": [{"prompts": ["speech", "speech"]}],
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("num_slots", "method", "num_supervised"),
    [(2, SLOTS["method"], 0), (1, SLOTS["method"], 0), (2, {"kind": "supervised"}, 2)],
)
def test_slots_are_learnt_validated_and_kept(
    num_slots: int,
    method: dict[str, Any],
    num_supervised: int,
    pool: Path,
    tmp_path: Path,
    every_loss: list[float],
) -> None:
    speech = {"data": {"manifest": str(pool), "pools": {"speech": POOLS["speech"]},
                       "cache_dir": str(pool.parent / "cache")}}  # fmt: skip
    recipe = write_recipe(tmp_path, pool, **{**SLOTS, "method": method}, **speech)
    overrides = [f"model.network.num_slots={num_slots}", "max_steps=2"]
    overrides.append(f"model.outputs={['speech'] * num_slots}")
    bundle = load_bundle(run.train(recipe, overrides, tmp_path / "out", resume=False))
    assert bundle.model.network.num_outputs == num_slots
    rows = list(
        csv.DictReader((tmp_path / "out/log/version_0/metrics.csv").read_text().splitlines())
    )
    assert any(row["valid/si_sdri_db/mean"] for row in rows)
    assert len(every_loss) == num_supervised


@pytest.mark.parametrize(
    ("name", "kind", "num_outputs"),
    [
        ("fuss-mixit", "mixit", 8),
        ("fuss-self-remixing", "remixing", 4),
        ("self-remixing", "remixing", 4),
    ],
)
def test_the_recipes_without_references_make_sense(name: str, kind: str, num_outputs: int) -> None:
    config = load_recipe(name)
    assert config.learning_method.kind == kind
    assert config.data.pools["recording"]
    with torch.device("meta"):
        model = build_model(config.model)
    assert model.config.outputs == ("source",) * num_outputs
    # Each mixture is one whole recording at the level at which it is.
    assert [scene.prompts for scene in config.recipe.scenes] == [("recording",)]
    assert all(set(scene.prompts) <= set(config.data.pools) for scene in config.validation.scenes)


def test_the_start_for_tuss_has_the_body_of_the_model_that_ships() -> None:
    start, mini = (load_recipe(name) for name in ("self-remixing", "mini"))
    assert start.model.network["codec"] == mini.model.network["codec"]
    assert start.model.network["first"] == mini.model.network["cross_prompt"]
    assert start.model.network["second"] == mini.model.network["extraction"]
    assert start.model.stft == mini.model.stft


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


def test_shards_train_as_the_cache_does(
    pool: Path, tmp_path: Path, every_loss: list[float]
) -> None:
    pack_corpus(pool, tmp_path / "packed", PackSettings(tiny_config().sample_rate))
    validation = {"every_steps": 100}
    cached = write_recipe(tmp_path, pool, validation=validation)
    run.train(cached, ["max_steps=2"], tmp_path / "cached", resume=False)
    packed = ["data.access=shards", f"data.manifest={tmp_path / 'packed'}"]
    run.train(cached, ["max_steps=2", *packed], tmp_path / "from-shards", resume=False)
    assert every_loss[2:] == every_loss[:2]


def test_what_comes_out_is_a_model_with_a_log(
    pool: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = write_recipe(tmp_path, pool, licence="CC0-1.0", weights_dtype="float16")
    told: list[Step] = []
    out = tmp_path / "out"
    bundle = load_bundle(run.train(recipe, [], out, resume=False, on_step=told.append))
    assert told[:2] == [
        Step("reading the recordings", 0, None, "files"),
        Step("training", 0, 6, "steps"),
    ]
    assert Step("training", 4, 6, "steps", "validating") in told
    assert (told[-1].done, told[-1].detail[:8]) == (6, "loss_db ")
    assert math.isfinite(float(told[-1].detail[8:]))
    assert not [each for each in caplog.records if each.name.startswith("lightning")]
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
    config = tmp_path / "out/config.yaml"
    before = config.read_text()
    with pytest.raises(ConfigError, match=r"holds another run \(model\.segment_s was"):
        run.train(recipe, ["model.segment_s=7"], tmp_path / "out", resume=True)
    assert config.read_text() == before
    last = run.last_checkpoint(tmp_path / "out")
    whole = last.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no checkpoint at all"):
        last.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"last\.ckpt: cannot be read"):
            run.train(recipe, ["max_steps=2"], tmp_path / "out", resume=True)
        with pytest.raises(CheckpointError, match=r"last\.ckpt: cannot be read"):
            run.export(tmp_path / "out")


YAML = {"nan": ".nan", "inf": ".inf"}

#: Setting → numbers that nobody can want.
OUT_OF_RANGE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "batch_size",
            "batches_per_step",
            "max_steps",
            "checkpoint_every_steps",
            "num_nodes",
            "num_threads",
            "devices",
            "validation.every_steps",
            "validation.mixtures_per_scene",
            "validation.segments_per_mixture",
            "validation.patience",
            "recipe.most_unasked",
            "optimiser.average_best",
        ),
        ("0", "-1"),
    ),
    **dict.fromkeys(
        (
            "optimiser.learning_rate",
            "optimiser.weight_decay",
            "recipe.tone_db",
            "recipe.clip_weight_exponent",
            "loss.silence_weight",
        ),
        ("-1", "nan", "inf"),
    ),
    **dict.fromkeys(
        (
            "recipe.crop_s",
            "optimiser.eps",
            "optimiser.max_grad_norm",
            "validation.segment_s",
            "loss.eps",
        ),
        ("-3", "0", "nan", "inf"),
    ),
    "optimiser.warmup_steps": ("-1",),
    "optimiser.decay_steps": ("-3",),
    "optimiser.average_decay": ("2", "1", "-0.5", "nan"),
    "loss.max_snr_db": ("nan",),
    "loss.silent_below_db": ("3",),
    "data.max_unreadable": ("2", "-1", "nan"),
    "num_workers": ("-1",),
    "seed": ("-1", "4294967296"),
}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_step=5", "did you mean max_steps"),
        ("recipe.crop=1", "did you mean crop_s"),
        ("max_steps", "write it as key=value"),
        ("optimiser.learning_rate=fast", "optimiser.learning_rate"),
        ("data.access=tape", "data.access"),
        ("model.architecture=tus", "did you mean tuss"),
        *(
            (f"{setting}={YAML.get(value, value)}", f"^{setting} must be .*, not {value}")
            for setting, values in OUT_OF_RANGE.items()
            for value in values
        ),
        ("recipe.tone_probability=3", "is a probability"),
        ("recipe.tone_probability=.nan", "is a probability"),
        ("recipe.gain_db.speech=[0, -10]", "gain_db.speech: the lower .* at most -10, not 0"),
        ("recipe.gain_db.speech=[-10, .inf]", "gain_db.speech: the higher"),
        ("recipe.other_gain_db=[.nan, 0]", "other_gain_db: the lower"),
        ("recipe.num_sources={}", "recipe.num_sources needs something"),
        ("recipe.num_sources={2: 0}", "recipe.num_sources needs something"),
        ("recipe.num_sources={2: -1}", "num_sources.2 must be at least 0, not -1"),
        ("recipe.num_sources={0: 1}", "a key of recipe.num_sources"),
        ("recipe.composed_parts={-1: 1}", "a key of recipe.composed_parts"),
        ("recipe.first={speech: .nan}", "first.speech must be a number"),
        ("recipe.following.speech.sfx=-1", "following.speech.sfx must be"),
        ("recipe.scenes=[{prompts: [speech], weight: 0}]", "recipe.scenes needs something"),
        ("optimiser.plateau={patience: -1}", "plateau.patience"),
        ("optimiser.step_decay={from_step: 0, every_steps: 0, factor: 1}", "every_steps"),
        ("tagging={batch_size: 0}", "tagging.batch_size"),
        ("tagging={num_sounds: {0: 1}}", "a key of tagging.num_sounds"),
        ("loss.kind=snrr", r"loss\.kind: there is no kind 'snrr', only 'snr', 'si_snr', 'spec"),
        ("loss=3", "loss: has to be a group of settings with a kind"),
        ("loss={kind: si_snr, max_snr_db: 3}", "unknown key 'max_snr_db'"),
        ("loss={kind: spectral, windows: []}", "loss.windows needs a window"),
        ("loss={kind: spectral, windows: [0]}", "a length in loss.windows"),
        ("loss={kind: spectral, time_weight: 2}", "loss.time_weight"),
        ("loss={kind: si_snr, eps: -1}", "loss.eps"),
        ("method={kind: mixit, sparsity_weight: .nan}", "method.sparsity_weight"),
        ("method={kind: mixit, loss: {max_snr_db: .inf}}", "loss.max_snr_db"),
        ("method={kind: remixing, remixit_weight: .nan}", "method.remixit_weight"),
        ("method={kind: remixing, teacher: {decay: 2}}", "teacher.decay"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(small: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(small, [override])


@pytest.fixture(scope="module")
def small(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), pool)


def test_missing_recordings_are_named(tmp_path: Path) -> None:
    manifest = make_pool(tmp_path / "pool")
    (tmp_path / "pool/speech/train/en/song0__en.wav").unlink()
    with pytest.raises(DataError, match="song0__en"):
        run.train(write_recipe(tmp_path, manifest), [], tmp_path / "out", resume=False)
    recipe = write_recipe(tmp_path, tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="cannot be read"):
        run.train(recipe, [], tmp_path / "out", resume=False)
    assert not (tmp_path / "out").exists(), "a run that does not start leaves no folder"


def test_a_folder_that_cannot_be_made_is_named(pool: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, pool)
    with pytest.raises(TrainingError, match=r"small\.yaml/out/config\.yaml: cannot be written"):
        run.train(recipe, [], recipe / "out", resume=False)


def test_a_run_keeps_its_heap(
    pool: Path, tmp_path: Path, every_loss: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses_before: list[int] = []
    monkeypatch.setattr(run, "keep_heap", lambda: losses_before.append(len(every_loss)))
    run.train(write_recipe(tmp_path, pool), ["max_steps=1"], tmp_path / "out", resume=False)
    assert losses_before == [0]
    assert len(every_loss) == 1
