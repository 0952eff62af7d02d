"""Fine-tuning on small networks: what learns, what stays, and that it does learn."""

import copy
import importlib.util
import sys
from collections.abc import Iterator
from itertools import islice

import pytest
import torch

from unbraid.config import dump
from unbraid.data.dynamic import MixtureBatch
from unbraid.dsp.stft import StftConfig
from unbraid.errors import ConfigError, MissingExtra
from unbraid.models.registry import find_architecture
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.objectives.measures import si_sdr_db
from unbraid.training.methods.fine_tuning import (
    FineTuningConfig,
    TunedModel,
    Tuning,
    from_references,
)
from unbraid.training.methods.low_rank import add_adapters

RATE, LENGTH = 16_000, 800
CPU = torch.device("cpu")


def needs_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        pytest.skip("needs peft: pip install 'unbraid[lora]'")


@pytest.fixture
def model() -> WaveformModel:
    torch.manual_seed(3)
    example = find_architecture("tuss").examples["band-split"]
    return build_model(ModelConfig("tuss", RATE, StftConfig(256, 128), dump(example))).eval()


def batches(seed: int = 5) -> Iterator[MixtureBatch]:
    """A low tone as the first prompt, noise as the second."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(LENGTH) / RATE
    while True:
        pitch = torch.empty(2, 1).uniform_(200, 400, generator=generator)
        tone = torch.sin(2 * torch.pi * pitch * time)
        noise = torch.randn(2, LENGTH + 1, generator=generator).diff(dim=1)
        references = torch.stack([tone, noise], 1)
        yield MixtureBatch(references.sum(1), references, torch.tensor([[0, 1]]).expand(2, -1))


@torch.no_grad()
def score(model: WaveformModel) -> float:
    batch = next(batches(9))
    estimates = model(batch.mixture, batch.prompt_indices)
    return float(si_sdr_db(estimates, batch.references).mean())


def tuned(model: WaveformModel, what: str, steps: int = 12, **changes: object) -> TunedModel:
    config = FineTuningConfig(what=what, check_every=4, learning_rate=1e-2, **changes)  # type: ignore[arg-type]
    return Tuning(model, config, CPU).learn(from_references(batches(), CPU), score, steps)


def changed_by(done: TunedModel, model: WaveformModel) -> set[str]:
    """What differs, once it is sure that names and flags do not."""
    after = done.model.state_dict()
    assert list(after) == list(model.state_dict())
    assert [(name, each.requires_grad) for name, each in done.model.named_parameters()] == [
        (name, each.requires_grad) for name, each in model.named_parameters()
    ]
    return {name for name, each in model.state_dict().items() if not torch.equal(after[name], each)}


@pytest.mark.parametrize("what", ["all", "prompts-and-codec"])
def test_it_learns_and_leaves_the_rest_to_the_last_bit(model: WaveformModel, what: str) -> None:
    before = copy.deepcopy(model.state_dict())
    done = tuned(model, what)
    assert done.best.score > done.checks[0].score + 1
    assert done.best.score == pytest.approx(score(done.model), abs=1e-3)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    changed = changed_by(done, model)
    assert changed
    if what == "all":
        assert not any("rotary" in name for name in changed)
    else:
        assert all(name.startswith(("prompts.", "network.codec.")) for name in changed)
    assert done.num_learning < model.num_parameters


def test_adapters_learn_what_another_attention_does(model: WaveformModel) -> None:
    needs_peft()
    teacher = copy.deepcopy(model)
    with torch.no_grad():
        for name, each in teacher.named_parameters():
            if ".attention.output" in name:
                each.mul_(-2)

    def taught(seed: int = 5) -> Iterator[MixtureBatch]:
        for batch in batches(seed):
            estimates = teacher(batch.mixture, batch.prompt_indices).detach()
            yield MixtureBatch(batch.mixture, estimates, batch.prompt_indices)

    held_back = next(taught(9))

    @torch.no_grad()
    def likeness(student: WaveformModel) -> float:
        estimates = student(held_back.mixture, held_back.prompt_indices)
        return float(si_sdr_db(estimates, held_back.references).mean())

    config = FineTuningConfig(what="lora", rank=4, check_every=5, learning_rate=3e-2)
    done = Tuning(model, config, CPU).learn(from_references(taught(), CPU), likeness, 20)
    assert done.best.score > done.checks[0].score + 0.5
    assert done.best.score == pytest.approx(likeness(done.model), abs=1e-3)
    changed = changed_by(done, model)
    assert changed
    assert all(".attention." in name for name in changed)


def test_equal_seeds_learn_alike(model: WaveformModel) -> None:
    first, again = (tuned(model, "all", 3).model.state_dict() for _ in "ab")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_it_is_never_worse_than_its_start(model: WaveformModel) -> None:
    config = FineTuningConfig(check_every=1, patience=2, learning_rate=10.0)
    done = Tuning(model, config, CPU).learn(
        from_references(batches(), CPU), lambda state: -(score(state) ** 2), 9
    )
    worst = Tuning(model, config, CPU).learn(from_references(batches(), CPU), lambda state: 0.0, 9)
    assert done.best.score >= done.checks[0].score
    assert worst.best.step == 0
    assert [check.step for check in worst.checks] == [0, 1, 2]
    before = model.state_dict()
    assert all(torch.equal(each, before[n]) for n, each in worst.model.state_dict().items())


def test_a_loss_without_an_end_stops_it(model: WaveformModel) -> None:
    def broken() -> Iterator[MixtureBatch]:
        yield from islice(batches(), 2)
        batch = next(batches())
        yield MixtureBatch(batch.mixture * torch.nan, batch.references, batch.prompt_indices)

    config = FineTuningConfig(check_every=2)
    done = Tuning(model, config, CPU).learn(from_references(broken(), CPU), score, 9)
    assert done.checks[-1].step == 3
    assert done.best.step < 3
    assert all(bool(each.isfinite().all()) for each in done.model.state_dict().values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"check_every": 0}, "check_every"),
        ({"rank": 0}, "rank"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FineTuningConfig(**changes)  # type: ignore[arg-type]


def test_adapters_begin_as_nothing_and_merge_into_a_plain_network(model: WaveformModel) -> None:
    needs_peft()
    batch = next(batches())
    with torch.no_grad():
        before = model(batch.mixture, batch.prompt_indices)
        adapted = copy.deepcopy(model)
        merged = add_adapters(adapted.network, 2, seed=1)
        assert torch.allclose(adapted(batch.mixture, batch.prompt_indices), before, atol=1e-6)
        for name, each in adapted.network.named_parameters():
            if "lora_B" in name:
                each.normal_()
        after = adapted(batch.mixture, batch.prompt_indices)
        assert not torch.allclose(after, before, atol=1e-3)
        plain = copy.deepcopy(model)
        plain.network.load_state_dict(merged())
        assert torch.allclose(plain(batch.mixture, batch.prompt_indices), after, atol=1e-4)


def test_without_peft_it_is_said_how_to_get_it(
    model: WaveformModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"unbraid\[lora\]"):
        add_adapters(model.network, 4)
