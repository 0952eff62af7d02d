"""What every file in ``models/architectures`` must keep, found by itself."""

import pytest
import torch

from conftest import tiny_config
from unbraid.config import dump, parse
from unbraid.dsp.stft import StftConfig
from unbraid.models.base import SpectralModel
from unbraid.models.registry import architectures
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model

#: One small network per architecture; a new file adds a line here and nothing else.
SMALL = {"tuss": tiny_config().network}

STFT = StftConfig(2048, 1024)


def test_every_architecture_is_tested() -> None:
    assert set(SMALL) == set(architectures())


@pytest.fixture(params=sorted(SMALL))
def model(request: pytest.FixtureRequest) -> WaveformModel:
    torch.manual_seed(1)
    return build_model(ModelConfig(request.param, 48000, STFT, SMALL[request.param])).eval()


def mixtures(batch: int = 2, length: int = 12345) -> torch.Tensor:
    return torch.randn(batch, length, generator=torch.Generator().manual_seed(0))


def test_configs_survive_a_round_trip(model: WaveformModel) -> None:
    assert dump(parse(ModelConfig, dump(model.config))) == dump(model.config)
    for name, preset in architectures()[model.config.architecture].presets.items():
        kind = architectures()[model.config.architecture].config_type
        assert parse(kind, dump(preset), where=name) == preset


def test_outputs_have_the_length_of_the_input(model: WaveformModel) -> None:
    assert isinstance(model.network, SpectralModel)
    for length in (1, 2, 1023, 1024, 12345):
        sources = model(mixtures(1, length), torch.tensor([[0, 2, 0]]))
        assert sources.shape == (1, 3, length)
        assert torch.isfinite(sources).all()


def test_level_goes_through(model: WaveformModel) -> None:
    prompts = torch.tensor([[0, 2], [0, 2]])
    base = model(mixtures(), prompts)
    for factor in (1e-3, 40.0):
        scaled = model(mixtures() * factor, prompts)
        torch.testing.assert_close(scaled, base * factor, rtol=1e-3, atol=1e-4 * factor)


def test_items_of_a_batch_do_not_see_each_other(model: WaveformModel) -> None:
    prompts = torch.tensor([[0, 2], [4, 4]])
    together = model(mixtures(), prompts)
    for item in range(2):
        alone = model(mixtures()[item : item + 1], prompts[item : item + 1])
        torch.testing.assert_close(together[item], alone[0], atol=1e-5, rtol=1e-4)


def test_outputs_follow_the_prompts(model: WaveformModel) -> None:
    one = model(mixtures(1), torch.tensor([[0, 2]]))
    other = model(mixtures(1), torch.tensor([[0, 5]]))
    assert (one - other).abs().max() > 1e-5


def test_silence_and_constants_give_finite_numbers(model: WaveformModel) -> None:
    for signal in (torch.zeros(1, 5000), torch.full((1, 5000), 0.3)):
        assert torch.isfinite(model(signal, torch.tensor([[0, 1]]))).all()


def test_arguments_are_left_alone(model: WaveformModel) -> None:
    signal = mixtures()
    model(signal, torch.tensor([[0, 2], [0, 2]]))
    assert torch.equal(signal, mixtures())


def test_every_weight_gets_a_gradient(model: WaveformModel) -> None:
    prompts = torch.arange(8).reshape(2, 4)
    model(mixtures(), prompts).square().sum().backward()
    idle = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert idle == []


def test_the_same_seed_builds_the_same_model(model: WaveformModel) -> None:
    torch.manual_seed(1)
    again = build_model(model.config)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
