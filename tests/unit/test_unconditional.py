"""What is peculiar to the unconditional baseline."""

from typing import Any

import pytest
import torch

from unbraid.config import dump, parse
from unbraid.dsp.stft import StftConfig
from unbraid.errors import ConfigError
from unbraid.models.architectures import tuss
from unbraid.models.architectures.unconditional import (
    ARCHITECTURE,
    SPECIALISTS,
    UnconditionalConfig,
)
from unbraid.models.base import SpectralModel
from unbraid.models.inference import for_inference
from unbraid.models.waveform import ModelConfig, build_model

STFT = StftConfig(128, 64)

STACK: dict[str, Any] = {
    "num_blocks": 1,
    "dim": 8,
    "num_groups": 2,
    "num_heads": 2,
    "attention_dim": 8,
    "freq_feed_forward": [{"hidden_dim": 6, "kernel_size": 3}] * 2,
    "frame_feed_forward": [{"hidden_dim": 6, "kernel_size": 1}] * 2,
}

CODECS: dict[str, dict[str, Any]] = {
    "band-split": {"bands": "mel", "num_bands": 8},
    "compression": {"inner_dim": 8, "bands": "musical", "num_bands": 8, "num_heads": 2},
    "adaptive": {
        "inner_dim": 8, "bands": "musical", "num_bands": 8, "num_heads": 2, "queries": "adaptive",
    },
}  # fmt: skip


def network_data(codec: str, **changes: Any) -> dict[str, Any]:
    return {
        "codec": CODECS[codec],
        "first": STACK,
        "second": STACK | {"attention_dim": 12},
        "num_outputs": 3,
    } | changes


def build(codec: str, **changes: Any) -> SpectralModel:
    torch.manual_seed(0)
    config = parse(UnconditionalConfig, network_data(codec, **changes))
    return ARCHITECTURE.build(config, 16000, STFT).eval()


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("medium-2", 12_185_476),
        ("medium-3", 13_239_176),
        ("medium-4", 14_292_876),
        ("released-large", 42_549_440),
    ],
)
def test_published_sizes_have_the_published_counts(preset: str, count: int) -> None:
    with torch.device("meta"):
        network = ARCHITECTURE.build(ARCHITECTURE.presets[preset], 48000, StftConfig())
    assert sum(weight.numel() for weight in network.parameters()) == count


@pytest.mark.parametrize("size", ["medium", "large"])
@pytest.mark.parametrize("outputs", [2, 3, 4])
def test_it_is_tuss_without_prompts_but_with_a_wider_decoder(size: str, outputs: int) -> None:
    preset = tuss.ARCHITECTURE.presets[size]
    with torch.device("meta"):
        ours = ARCHITECTURE.build(ARCHITECTURE.presets[f"{size}-{outputs}"], 48000, StftConfig())
        theirs = tuss.ARCHITECTURE.build(preset, 48000, StftConfig())
    dim = preset.cross_prompt.dim
    # Four numbers (value and gate of both parts) per bin and further output, from 4 D and a bias.
    decoder = (outputs - 1) * 4 * 1025 * (4 * dim + 1)
    counts = [sum(weight.numel() for weight in net.parameters()) for net in (ours, theirs)]
    assert counts[0] == counts[1] - dim + decoder


@pytest.mark.parametrize("codec", CODECS)
@torch.no_grad()
def test_all_outputs_come_whatever_was_asked(codec: str) -> None:
    network = build(codec)
    mixture = torch.randn(2, 2, 9, STFT.num_bins)
    outputs = network(mixture, torch.empty(2, 1, 0))
    assert outputs.shape == (2, 3, 2, 9, STFT.num_bins)
    assert torch.equal(network(mixture, torch.empty(2, 4, 0)), outputs)
    assert (outputs[:, 0] - outputs[:, 1]).abs().max() > 1e-4
    mixture[..., 20] = 0.0
    assert not network(mixture, torch.empty(2, 1, 0))[..., 20].any()


@pytest.mark.parametrize("place", ["first", "second"])
@torch.no_grad()
def test_both_stacks_count(place: str) -> None:
    network = build("band-split")
    mixture = torch.randn(1, 2, 9, STFT.num_bins)
    before = network(mixture, torch.empty(1, 1, 0))
    attention = network.get_submodule(f"{place}.blocks.0.frame_path.attention.output")
    attention.get_parameter("weight").mul_(-1.0)
    assert (network(mixture, torch.empty(1, 1, 0)) - before).abs().max() > 1e-4


def test_stacks_of_different_width_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"first\.dim \(8\) and second\.dim \(16\)"):
        build("band-split", second=STACK | {"dim": 16})


def test_there_is_at_least_one_output() -> None:
    with pytest.raises(ConfigError, match="num_outputs must be positive, not 0"):
        build("band-split", num_outputs=0)


@pytest.mark.parametrize("codec", CODECS)
def test_a_model_survives_its_config_and_its_twin_separates_alike(codec: str) -> None:
    outputs = ("speech", "speech", "sfx-mix")
    config = ModelConfig("unconditional", 16000, STFT, network_data(codec), outputs=outputs)
    torch.manual_seed(0)
    model = build_model(parse(ModelConfig, dump(config))).eval()
    mixture, prompts = torch.randn(2, 3001), torch.tensor([[0, 0, 1], [1, 0, 0]])
    with torch.inference_mode():
        ours, fast = model(mixture, prompts), for_inference(model)(mixture, prompts)
    assert ours.shape == (2, 3, 3001)
    assert float((fast - ours).norm() / ours.norm()) < 1e-5


@pytest.mark.parametrize("size", ["medium", "large"])
@pytest.mark.parametrize("benchmark", list(SPECIALISTS))
def test_specialists_are_models_whose_outputs_have_names(size: str, benchmark: str) -> None:
    network = ARCHITECTURE.presets[f"{size}-{benchmark}"]
    outputs = SPECIALISTS[benchmark]
    config = ModelConfig("unconditional", 48000, StftConfig(), dump(network), outputs=outputs)
    with torch.device("meta"):
        model = build_model(config)
        plain = ARCHITECTURE.build(
            ARCHITECTURE.presets[f"{size}-{len(outputs)}"], 48000, StftConfig()
        )
    assert model.num_parameters == sum(weight.numel() for weight in plain.parameters())
    # What the benchmark asks for is what it gives, in any order.
    assert sorted(model.prompts.resolve(outputs[::-1])) == sorted(outputs)
    assert list(outputs) == sorted(outputs)
