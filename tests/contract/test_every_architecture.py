"""What every file in ``models/architectures`` must keep; a new file is found by itself."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unbraid.config import dump, parse
from unbraid.dsp.stft import StftConfig
from unbraid.models.base import SpectralModel
from unbraid.models.registry import architectures
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.prompts import ANY_SOURCE

RATE = 16_000
STFT = StftConfig(256, 128)

EXAMPLES = [(name, each) for name, known in architectures().items() for each in known.examples]

#: Architecture and example → digest of the names and shapes in its state dict.
NAMES = json.loads((Path(__file__).parent / "state_dict_names.json").read_text())


def build(name: str, example: str) -> WaveformModel:
    known = architectures()[name]
    config = known.examples[example]
    num_outputs = known.build(config, RATE, STFT).num_outputs or 0
    torch.manual_seed(1)
    outputs = (ANY_SOURCE,) * num_outputs
    return build_model(ModelConfig(name, RATE, STFT, dump(config), outputs=outputs))


@pytest.fixture(params=EXAMPLES, ids=[f"{name}: {each}" for name, each in EXAMPLES])
def model(request: pytest.FixtureRequest) -> WaveformModel:
    return build(*request.param).eval()


def mixtures(model: WaveformModel, batch: int = 2, length: int = 3001) -> Tensor:
    channels = (model.network.num_channels,) if model.network.num_channels > 1 else ()
    return torch.randn(batch, *channels, length, generator=torch.Generator().manual_seed(0))


def asked(model: WaveformModel, batch: int = 2, count: int = 2) -> Tensor:
    """Rows of different prompts, or as many fixed outputs."""
    if model.network.num_outputs is not None:
        return torch.zeros(batch, min(count, model.network.num_outputs), dtype=torch.long)
    return torch.arange(count).expand(batch, -1)


def test_every_architecture_shows_its_variants() -> None:
    assert {name for name, _ in EXAMPLES} == set(architectures())


def test_examples_are_small(model: WaveformModel) -> None:
    assert 0 < model.num_parameters < 100_000


def test_configs_survive_a_round_trip(model: WaveformModel) -> None:
    assert dump(parse(ModelConfig, dump(model.config))) == dump(model.config)
    known = architectures()[model.config.architecture]
    for name, preset in {**known.presets, **known.examples}.items():
        assert parse(known.config_type, dump(preset), where=name) == preset


def test_outputs_have_the_length_and_the_type_of_the_input(model: WaveformModel) -> None:
    assert isinstance(model.network, SpectralModel)
    for length in (1, 2, 127, 128, 3001):
        signal = mixtures(model, 1, length)
        sources = model(signal, asked(model, 1))
        assert sources.shape == (1, 2, *signal.shape[1:])
        assert sources.dtype == torch.float32
        assert torch.isfinite(sources).all()


def test_level_goes_through(model: WaveformModel) -> None:
    base = model(mixtures(model), asked(model))
    for factor in (1e-3, 40.0):
        scaled = model(mixtures(model) * factor, asked(model))
        torch.testing.assert_close(scaled, base * factor, rtol=1e-3, atol=1e-4 * factor)


def test_items_of_a_batch_do_not_see_each_other(model: WaveformModel) -> None:
    together = model(mixtures(model), asked(model))
    for item in range(2):
        alone = model(mixtures(model)[item : item + 1], asked(model, 1))
        torch.testing.assert_close(together[item], alone[0], atol=1e-5, rtol=1e-4)


def test_outputs_follow_what_is_asked_for(model: WaveformModel) -> None:
    if model.network.num_outputs is None:
        one = model(mixtures(model, 1), torch.tensor([[0, 2]]))[:, 1]
        other = model(mixtures(model, 1), torch.tensor([[0, 5]]))[:, 1]
    else:
        one, other = model(mixtures(model, 1), asked(model, 1)).unbind(1)
    assert (one - other).abs().max() > 1e-5


def test_silence_and_constants_give_finite_numbers(model: WaveformModel) -> None:
    for signal in (torch.zeros_like(mixtures(model)), torch.full_like(mixtures(model), 0.3)):
        assert torch.isfinite(model(signal, asked(model))).all()


def test_the_same_input_gives_the_same_output(model: WaveformModel) -> None:
    first = model(mixtures(model), asked(model))
    assert torch.equal(first, model(mixtures(model), asked(model)))


def test_arguments_are_left_alone(model: WaveformModel) -> None:
    signal = mixtures(model)
    model(signal, asked(model))
    assert torch.equal(signal, mixtures(model))


def test_every_weight_gets_a_gradient(model: WaveformModel) -> None:
    everything = model.all_outputs if model.config.outputs else torch.arange(8)
    model(mixtures(model), everything.expand(2, -1)).square().sum().backward()
    idle = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
        if parameter.numel()
    ]
    assert idle == []


def test_the_same_seed_builds_the_same_model(model: WaveformModel) -> None:
    torch.manual_seed(1)
    again = build_model(model.config)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_names_that_bundles_hold_do_not_change(name: str, example: str) -> None:
    state = build(name, example).state_dict()
    lines = sorted(f"{key} {list(tensor.shape)}" for key, tensor in state.items())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    # Another digest means that bundles of users cannot be loaded any more.
    assert NAMES.get(f"{name}: {example}") == digest


def test_the_network_can_be_exported(model: WaveformModel) -> None:
    network = model.network
    spectrogram = torch.randn(1, 2 * network.num_channels, 9, STFT.num_bins)
    assert network.query_vectors[0] == 1
    for num_vectors in network.query_vectors:
        queries = torch.randn(1, network.num_outputs or 2, num_vectors * network.query_dim)
        program = torch.export.export(network, (spectrogram, queries))
        expected = network(spectrogram, queries)
        torch.testing.assert_close(program.module()(spectrogram, queries), expected)


def test_one_vector_is_the_same_as_equal_ones(model: WaveformModel) -> None:
    spectrogram = torch.randn(1, 2 * model.network.num_channels, 9, STFT.num_bins)
    queries = torch.randn(1, model.network.num_outputs or 2, model.network.query_dim)
    expected = model.network(spectrogram, queries)
    for num_vectors in model.network.query_vectors:
        assert torch.equal(model.network(spectrogram, queries.repeat(1, 1, num_vectors)), expected)
