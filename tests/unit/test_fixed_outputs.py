"""Models whose outputs are always the same ones, and models that hear channels together."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch
from unbraid.dsp.stft import StftConfig, istft, stft
from unbraid.errors import ConfigError, PromptError
from unbraid.models.base import Architecture, SpectralModel
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.objectives.losses import SnrLossConfig, thresholded_snr_loss
from unbraid.separation.separator import StreamSeparator, separate_waveform
from unbraid.separation.settings import SeparationConfig
from unbraid.training.methods.supervised import supervised_loss
from unbraid.types import Waveform

STFT = StftConfig(64, 16)


@dataclass(frozen=True)
class ScaledConfig:
    """Gives the mixture times 1, 2, 3 … in its outputs."""

    num_outputs: int
    num_channels: int = 1


class Scaled(SpectralModel):
    def __init__(self, config: ScaledConfig, sample_rate: int, stft: StftConfig) -> None:
        super().__init__()
        self.query_dim = 0
        self.num_outputs = config.num_outputs
        self.num_channels = config.num_channels

    def forward(self, mixture: Tensor, queries: Tensor) -> Tensor:
        assert queries.shape[2] == 0
        assert mixture.shape[1] == 2 * self.num_channels
        factors = torch.arange(1.0, 1.0 + (self.num_outputs or 0))
        return mixture.unsqueeze(1) * factors[:, None, None, None]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled = Architecture("scaled", ScaledConfig, Scaled)
    monkeypatch.setattr("unbraid.models.waveform.find_architecture", lambda name: scaled)


def model_of(*outputs: str, num_channels: int = 1, **settings: str) -> WaveformModel:
    network = {"num_outputs": len(outputs), "num_channels": num_channels}
    return build_model(ModelConfig("scaled", 8000, STFT, network, outputs=outputs, **settings))


def factors(model: WaveformModel, *prompts: str) -> list[float]:
    """Which outputs come for these prompts, by their factor."""
    mixture = torch.randn(2, 500)
    indices = model.prompts.indices(prompts).expand(2, -1)
    sources = model(mixture, indices)
    assert sources.shape == (2, len(prompts), 500)
    ratio = (sources * mixture.unsqueeze(1)).sum(-1) / mixture.square().sum(-1, keepdim=True)
    assert torch.allclose(ratio[0], ratio[1], atol=1e-4)
    return [round(value, 3) for value in ratio[0].tolist()]


def test_each_prompt_gets_its_output_in_any_order() -> None:
    model = model_of("vocals", "drums", "bass")
    assert model.prompts.names == ("vocals", "drums", "bass")
    assert factors(model, "bass", "vocals") == [3.0, 1.0]
    assert model.num_parameters == 0


def test_equal_prompts_get_the_outputs_of_their_kind_one_after_the_other() -> None:
    model = model_of("speech", "sfx-mix", "speech")
    assert model.prompts.names == ("speech", "sfx-mix")
    assert factors(model, "speech", "speech", "sfx-mix") == [1.0, 3.0, 2.0]
    assert factors(model, "sfx-mix", "speech") == [2.0, 1.0]


def test_more_than_there_are_cannot_be_asked_for() -> None:
    model = model_of("speech", "sfx-mix", "speech")
    with pytest.raises(PromptError, match="asked for 3 times, but the model has 2 outputs"):
        model.prompts.resolve(["speech"] * 3)
    with pytest.raises(PromptError, match="the model has 1 output for it"):
        model.prompts.indices(["sfx-mix", "effects"])


def test_items_of_a_batch_may_ask_for_different_outputs() -> None:
    model = model_of("vocals", "drums", "bass")
    mixture = torch.randn(2, 300)
    sources = model(mixture, torch.tensor([[0, 1], [2, 0]]))
    for item, wanted in enumerate([(1, 2), (3, 1)]):
        for source, factor in enumerate(wanted):
            torch.testing.assert_close(sources[item, source], factor * mixture[item])


def test_the_config_must_name_every_output() -> None:
    with pytest.raises(ConfigError, match="has 3 outputs, but the config names 0"):
        build_model(ModelConfig("scaled", 8000, STFT, {"num_outputs": 3}))
    with pytest.raises(ConfigError, match="leave prompts out"):
        ModelConfig("scaled", 8000, STFT, {}, prompts=("bass",), outputs=("vocals",))


@pytest.mark.parametrize("level", ["deviation", "spectrum"])
def test_channels_go_in_and_come_out_in_their_places(level: str) -> None:
    model = model_of("vocals", "drums", num_channels=2, level=level)
    mixture = torch.randn(3, 2, 700)
    sources = model(mixture, torch.tensor([[1, 0]] * 3))
    assert sources.shape == (3, 2, 2, 700)
    torch.testing.assert_close(sources[:, 0], 2 * mixture, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sources[:, 1], mixture, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", ["deviation", "spectrum"])
def test_the_network_hears_a_normal_level(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("vocals", level=level)
    heard = []
    monkeypatch.setattr(
        model.network, "forward", lambda mixture, queries: heard.append(mixture) or mixture[:, None]
    )
    signal = torch.randn(1, 4000)
    for gain in (1e-4, 1.0, 300.0):
        model(gain * signal, torch.tensor([[0]]))
    torch.testing.assert_close(heard[0], heard[1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(heard[2], heard[1], rtol=1e-3, atol=1e-3)
    if level == "spectrum":
        # Real and imaginary part make a magnitude whose mean square is 1.
        assert heard[1].square().sum(dim=1).mean().item() == pytest.approx(1.0, abs=1e-4)
    assert torch.isfinite(model(torch.zeros(1, 100), torch.tensor([[0]]))).all()


@pytest.mark.parametrize("length", [1, 20, 33, 48, 63, 64, 65, 496, 500])
def test_padding_by_reflection_is_that_of_torch(length: int) -> None:
    config = StftConfig(64, 16, "hann", padding="reflect")
    signal = torch.randn(2, length)
    ours = stft(signal, config)
    assert ours.shape[1] == config.num_frames(length)
    if length > 32 and length % 16 == 0:
        theirs = torch.stft(signal, 64, 16, window=torch.hann_window(64), return_complex=True)
        torch.testing.assert_close(ours, theirs.transpose(1, 2))
    torch.testing.assert_close(istft(ours, config, length), signal, atol=1e-5, rtol=1e-4)


# ------------------------------------------------------------------ whole recordings


def separated(model: WaveformModel, samples: Tensor, *prompts: str) -> Tensor:
    config = SeparationConfig(segment_s=0.05, overlap_s=0.01)
    waveform = Waveform(samples, 8000)
    return separate_waveform(StreamSeparator(model, config), waveform, prompts).sources


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_goes_through_a_stereo_model(channels: int) -> None:
    model = model_of("vocals", "drums", num_channels=2)
    samples = torch.randn(channels, 1500)
    sources = separated(model, samples, "drums", "vocals")
    assert sources.shape == (2, channels, 1500)
    torch.testing.assert_close(sources[0], 2 * samples, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(sources[1], samples, rtol=1e-3, atol=1e-4)


def test_silence_needs_no_model_and_one_silent_side_does() -> None:
    model = model_of("vocals", "drums", num_channels=2)
    assert not separated(model, torch.zeros(2, 900), "drums").any()
    one_side = torch.stack([torch.randn(900), torch.zeros(900)])
    torch.testing.assert_close(
        separated(model, one_side, "drums")[0], 2 * one_side, rtol=1e-3, atol=1e-4
    )


def test_channels_that_are_heard_together_leave_nothing_to_choose() -> None:
    model = model_of("vocals", num_channels=2)
    with pytest.raises(ConfigError, match="hears 2 channels together"):
        StreamSeparator(model, SeparationConfig(stereo="shared"))


# ------------------------------------------------------------------ learning


def test_outputs_without_a_source_learn_to_be_silent() -> None:
    model = model_of("speech", "sfx-mix", "speech")
    references = torch.randn(2, 2, 400)
    # The first item has one speaker and effects, the second two speakers.
    batch = MixtureBatch(
        mixture=references.sum(dim=1),
        references=references,
        prompt_indices=torch.tensor([[1, 0], [0, 0]]),
    )
    loss = supervised_loss(model, batch, SnrLossConfig())
    silence = torch.zeros(400)
    complete = torch.stack(
        [
            torch.stack([references[0, 1], references[0, 0], silence]),
            torch.stack([references[1, 0], silence, references[1, 1]]),
        ]
    )
    scale = batch.mixture.std(dim=-1)[:, None, None]
    estimates = batch.mixture[:, None] * torch.tensor([1.0, 2.0, 3.0])[:, None]
    expected = thresholded_snr_loss(
        estimates / scale, complete / scale, torch.tensor([[0, 1, 0]] * 2), SnrLossConfig()
    )
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def test_a_model_that_names_nothing_gives_all_it_has() -> None:
    model = model_of("source", "source", "source")
    assert not model.names_sources
    assert model_of("speech", "speech").names_sources
    assert model.all_outputs.tolist() == [0, 0, 0]
    assert factors(model, "source", "source", "source") == [1.0, 2.0, 3.0]


def test_a_last_hop_that_is_not_full_does_not_click() -> None:
    # With half a window per hop, the last samples lay at the very edge of one window.
    config = StftConfig(256, 128, "hann", padding="reflect")
    signal = torch.randn(1, 128 * 20 - 1)
    changed = stft(signal, config) * torch.exp(1j * torch.rand(129))
    assert istft(changed, config, signal.shape[-1]).abs().max() < 4 * signal.abs().max()
