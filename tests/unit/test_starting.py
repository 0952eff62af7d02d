"""A run that starts from a model, and one in which only a part learns."""

import dataclasses
from pathlib import Path

import pytest
import torch

from conftest import tiny_config
from tiny_query_model import tiny_query_model
from unbraid.checkpoints.bundle import Bundle
from unbraid.checkpoints.card import Card
from unbraid.errors import ConfigError
from unbraid.models.waveform import WaveformModel, build_model
from unbraid.nn.norms import BatchNorm
from unbraid.training.starting import choose_learning, take_weights


def bundle_of(model: WaveformModel) -> Bundle:
    return Bundle(model, model.config, Card("source", "CC0-1.0"), Path("source"), "0" * 64)


def other(**changes: object) -> WaveformModel:
    torch.manual_seed(9)
    return build_model(dataclasses.replace(tiny_config(), **changes))


def test_weights_and_prompts_are_taken_by_name(tiny_model: WaveformModel) -> None:
    model = other(prompts=("drums", "speech"))
    take_weights(model, bundle_of(tiny_model))
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, tiny_model.network.state_dict()[name])
    for name, row in zip(model.prompts.names, model.prompts.weight, strict=True):
        assert torch.equal(row, tiny_model.prompts.weight[tiny_model.prompts.names.index(name)])


def test_what_does_not_fit_is_named(tiny_model: WaveformModel) -> None:
    network = dict(tiny_config().network)
    for changes, words in [
        ({"prompts": ("speech", "drum")}, "no prompt 'drum'; did you mean drums"),
        ({"sample_rate": 44_100}, "model.sample_rate 48000, but this run has 44100"),
        ({"level": "none"}, "model.level"),
        (
            {"network": network | {"extraction": network["extraction"] | {"num_blocks": 2}}},
            "is another one",
        ),
    ]:
        with pytest.raises(ConfigError, match=words):
            take_weights(other(**changes), bundle_of(tiny_model))


def test_patterns_say_what_learns(tiny_model: WaveformModel) -> None:
    learnable = {name for name, each in tiny_model.named_parameters() if each.requires_grad}
    assert set(choose_learning(tiny_model, ())) == learnable
    chosen = choose_learning(tiny_model, ("prompts.*", "network.codec.*"))
    assert "prompts.weight" in chosen
    assert 1 < len(chosen) < len(learnable)
    for name, parameter in tiny_model.named_parameters():
        assert parameter.requires_grad == (name in chosen)


def test_what_never_learns_is_not_woken(tiny_model: WaveformModel) -> None:
    frozen = {name for name, each in tiny_model.named_parameters() if not each.requires_grad}
    assert any("rotary" in name for name in frozen)
    choose_learning(tiny_model, ("*",))
    assert frozen == {
        name for name, each in tiny_model.named_parameters() if not each.requires_grad
    }
    with pytest.raises(ConfigError, match="rotary"):
        choose_learning(tiny_model, ("*rotary*",))


def test_a_pattern_without_a_parameter_is_refused(tiny_model: WaveformModel) -> None:
    with pytest.raises(ConfigError, match=r"'network\.codex\.\*'.*did you mean network\.codec"):
        choose_learning(tiny_model, ("prompts.*", "network.codex.*"))


def test_statistics_of_what_does_not_learn_stay() -> None:
    model = tiny_query_model().train()
    norms = [name for name, each in model.network.named_modules() if isinstance(each, BatchNorm)]
    choose_learning(model, (f"network.{norms[-1]}.*",))
    training = [name for name in norms if model.network.get_submodule(name).training]
    assert training == [norms[-1]]
