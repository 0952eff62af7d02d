"""Prompt tuning on small networks: what learns, what stays, and that it does learn."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from unbraid.config import dump
from unbraid.data.dynamic import MixtureBatch
from unbraid.dsp.stft import StftConfig
from unbraid.errors import Cancelled, ConfigError, PromptError
from unbraid.models.registry import find_architecture
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.training.methods.prompt_tuning import TuningConfig, nearest_prompt, tune_prompts

RATE = 16_000
LENGTH = 800


@pytest.fixture
def model() -> WaveformModel:
    torch.manual_seed(3)
    example = find_architecture("tuss").examples["band-split"]
    built = build_model(ModelConfig("tuss", RATE, StftConfig(256, 128), dump(example)))
    return built.eval()


def batches(
    model: WaveformModel, secret: Tensor, with_known: bool = True
) -> Iterator[MixtureBatch]:
    """Noise, and as references what the model itself gives for a prompt that nobody knows."""
    teacher = model.with_prompts({"secret": secret})
    new = len(model.prompts.names)
    rows = torch.tensor([[0, new]] if with_known else [[new]]).expand(2, -1)
    generator = torch.Generator().manual_seed(5)
    while True:
        mixture = torch.randn(2, LENGTH, generator=generator)
        # A generator that stops inside no_grad would leave gradients off for its caller.
        yield MixtureBatch(mixture, teacher(mixture, rows).detach(), rows)


def distance_to(model: WaveformModel, secret: Tensor) -> object:
    """How well a student does what the teacher does on noise of its own."""
    mixture = torch.randn(1, LENGTH, generator=torch.Generator().manual_seed(9))
    rows = torch.tensor([[0, len(model.prompts.names)]])
    with torch.no_grad():
        wanted = model.with_prompts({"secret": secret})(mixture, rows)[:, 1]

    @torch.no_grad()
    def measure(student: WaveformModel) -> float:
        error = student(mixture, rows)[:, 1] - wanted
        return float(10 * (wanted.square().sum() / error.square().sum().clamp_min(1e-12)).log10())

    return measure


@pytest.mark.parametrize("loss", ["snr", "l1"])
@pytest.mark.parametrize("vectors", [1, 8])
def test_a_secret_prompt_is_found_from_a_random_start(
    model: WaveformModel, loss: str, vectors: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    secret = torch.randn(1, 8, generator=generator)
    start = torch.randn(vectors, 8, generator=generator)
    config = TuningConfig(loss=loss, learning_rate=0.1, num_steps=80, check_every=40)
    measure = distance_to(model, secret)
    tuned = tune_prompts(model, {"new": start}, batches(model, secret), measure, config)
    assert tuned.best.score > tuned.checks[0].score + 10
    assert tuned.vectors["new"].shape == (vectors, 8)
    # What is handed out is what was measured.
    assert measure(model.with_prompts(tuned.vectors)) == pytest.approx(tuned.best.score, abs=1e-3)


def test_nothing_but_the_new_prompt_changes(model: WaveformModel) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wants = {name: weight.requires_grad for name, weight in model.named_parameters()}
    secret = torch.ones(1, 8)
    config = TuningConfig(num_steps=3, check_every=1)
    steps: list[int] = []
    tuned = tune_prompts(
        model,
        {"new": torch.zeros(1, 8)},
        batches(model, secret),
        lambda m: 0.0,
        config,
        lambda step: steps.append(step) is None,
    )
    assert steps == [1, 2, 3]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == wants
    assert all(weight.grad is None for weight in model.parameters())
    mixture = torch.randn(1, LENGTH)
    asked = torch.tensor([[0, 3]])
    assert torch.equal(tuned.model(mixture, asked), model(mixture, asked))
    assert tuned.model.network is model.network


def test_only_as_many_numbers_learn_as_the_prompts_have(model: WaveformModel) -> None:
    seen: list[int] = []
    original = torch.optim.Adam.__init__

    def spy(self: torch.optim.Adam, groups: list[dict[str, list[Tensor]]]) -> None:
        seen.append(sum(weight.numel() for group in groups for weight in group["params"]))
        original(self, groups)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "__init__", spy)
        secret = torch.ones(1, 8)
        names = {"a": torch.zeros(1, 8), "b": torch.zeros(1, 8)}
        config = TuningConfig(num_steps=1)
        tune_prompts(model, names, batches(model, secret), lambda m: 0.0, config)
    assert seen == [16]


def test_the_best_check_is_kept_and_patience_ends_it(model: WaveformModel) -> None:
    scores = iter([1.0, 5.0, 3.0, 2.0, 4.0])
    config = TuningConfig(num_steps=50, check_every=2, patience=2)
    tuned = tune_prompts(
        model,
        {"new": torch.zeros(1, 8)},
        batches(model, torch.ones(1, 8)),
        lambda m: next(scores),
        config,
    )
    assert [check.step for check in tuned.checks] == [0, 2, 4, 6]
    assert (tuned.best.step, tuned.best.score) == (2, 5.0)
    assert tuned.checks[0].loss is None
    assert tuned.checks[1].loss is not None


def test_a_start_that_cannot_be_beaten_is_kept(model: WaveformModel) -> None:
    scores = iter([1.0, 0.5])
    start = torch.full((1, 8), 0.25)
    tuned = tune_prompts(
        model,
        {"new": start},
        batches(model, torch.ones(1, 8)),
        lambda m: next(scores),
        TuningConfig(num_steps=2),
    )
    assert torch.equal(tuned.vectors["new"], start)


def test_joint_tuning_changes_a_copy_of_the_network_and_reaches_further(
    model: WaveformModel,
) -> None:
    torch.manual_seed(11)
    other = build_model(model.config).eval()
    secret = torch.ones(1, 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores = {}
    for rate in (None, 3e-3):
        config = TuningConfig(
            num_steps=40, check_every=40, learning_rate=0.05, network_learning_rate=rate
        )
        tuned = tune_prompts(
            model,
            {"new": torch.zeros(1, 8)},
            batches(other, secret),
            distance_to(other, secret),
            config,
        )
        scores[rate] = tuned.best.score
        assert (tuned.model.network is model.network) == (rate is None)
    assert scores[3e-3] > scores[None] + 1
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_time_that_runs_out_ends_it_with_a_check(model: WaveformModel) -> None:
    scores = iter([1.0, 2.0])
    tuned = tune_prompts(
        model,
        {"new": torch.zeros(1, 8)},
        batches(model, torch.ones(1, 8)),
        lambda m: next(scores),
        TuningConfig(num_steps=50, check_every=40),
        lambda step: step < 3,
    )
    assert [check.step for check in tuned.checks] == [0, 3]
    assert tuned.best.score == 2.0


def test_it_can_be_stopped(model: WaveformModel) -> None:
    def stop(step: int) -> bool:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        tune_prompts(
            model,
            {"new": torch.zeros(1, 8)},
            batches(model, torch.ones(1, 8)),
            lambda m: 0.0,
            goes_on=stop,
        )


@pytest.mark.parametrize("known", ["drums", "speech"])
def test_the_nearest_prompt_is_the_one_that_does_the_same(model: WaveformModel, known: str) -> None:
    row = model.prompts.names.index(known)
    secret = model.prompts.weight[row].detach()[None] + 0.01
    some = [
        batch for batch, _ in zip(batches(model, secret, with_known=False), range(2), strict=False)
    ]
    assert nearest_prompt(model, "new", some) == known


def test_a_model_without_prompts_has_no_nearest_one(model: WaveformModel) -> None:
    empty = build_model(
        ModelConfig("tuss", RATE, StftConfig(256, 128), model.config.network, prompts=())
    )
    with pytest.raises(PromptError, match="begin with"):
        nearest_prompt(empty, "new", [])


@pytest.mark.parametrize(
    "changes",
    [{"num_steps": 0}, {"check_every": 0}, {"patience": -1}, {"learning_rate": float("nan")}],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        TuningConfig(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0.01, 100.0])
def test_steps_are_as_large_as_the_vectors_are(model: WaveformModel, size: float) -> None:
    start = size * torch.randn(1, 8, generator=torch.Generator().manual_seed(1))
    config = TuningConfig(learning_rate=0.1, num_steps=1)
    scores = iter([0.0, 1.0])  # so that the one step counts as better
    tuned = tune_prompts(
        model, {"new": start}, batches(model, torch.ones(1, 8)), lambda _: next(scores), config
    )
    # Adam's first step is the learning rate for every number that has a gradient at all.
    moved = (tuned.vectors["new"] - start).abs()
    scale = float(start.square().mean().sqrt())
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1 * scale), rtol=0.01, atol=0.0)
