"""What is peculiar to TUSS."""

import pytest
import torch

from unbraid.config import dump
from unbraid.dsp.stft import StftConfig
from unbraid.errors import ConfigError
from unbraid.models.architectures.tuss import ARCHITECTURE, TussConfig
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.objectives.losses import thresholded_snr_loss
from unbraid.objectives.measures import si_sdr_db


@pytest.mark.parametrize(("size", "count"), [("medium", 11_132_352), ("large", 38_210_112)])
def test_published_sizes_have_the_published_counts(size: str, count: int) -> None:
    network = dump(ARCHITECTURE.presets[size])
    with torch.device("meta"):
        model = build_model(ModelConfig("tuss", 48000, StftConfig(), network))
    assert model.num_parameters == count


def test_order_of_prompts_matters_a_little(tiny_model: WaveformModel) -> None:
    mixture = torch.randn(1, 24000, generator=torch.Generator().manual_seed(0))
    forward = tiny_model(mixture, torch.tensor([[0, 3]]))
    backward = tiny_model(mixture, torch.tensor([[3, 0]])).flip(1)
    difference = (forward - backward).norm() / forward.norm()
    assert 0 < difference < 0.1


def test_equal_prompts_give_different_sources(tiny_model: WaveformModel) -> None:
    mixture = torch.randn(1, 24000, generator=torch.Generator().manual_seed(0))
    first, second = tiny_model(mixture, torch.tensor([[0, 0]]))[0]
    assert (first - second).abs().max() > 1e-6


def test_prompts_reach_the_frames_through_attention_alone() -> None:
    # With pointwise nets along frames and attention silenced, no frame knows the prompts.
    preset = ARCHITECTURE.presets["medium"]
    stack = dump(preset.cross_prompt) | {"num_blocks": 2, "dim": 8, "num_groups": 2}
    network = {
        "codec": {"bands": "mel", "num_bands": 8},
        "cross_prompt": stack,
        "extraction": {**stack, "num_blocks": 1},
    }
    torch.manual_seed(0)
    model = build_model(ModelConfig("tuss", 48000, StftConfig(2048, 1024), network)).network
    features = torch.randn(1, 12, 8, 8)
    changed = features.clone()
    changed[:, 0] += 1.0  # the first prompt
    assert (model.cross_prompt(changed) - model.cross_prompt(features))[:, 1:].abs().max() > 1e-5
    for block in model.cross_prompt.blocks:
        torch.nn.init.zeros_(block.frame_path.attention.output.weight)
    assert (model.cross_prompt(changed) - model.cross_prompt(features))[:, 1:].abs().max() == 0


def test_stacks_of_different_width_are_refused() -> None:
    preset = ARCHITECTURE.presets
    with pytest.raises(ConfigError, match="must be equal"):
        TussConfig(
            preset["medium"].codec, preset["medium"].cross_prompt, preset["large"].extraction
        )


def _scenes() -> tuple[torch.Tensor, torch.Tensor]:
    """Four mixtures of a warbling tone and a beating hiss, and their references."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(16000) / 16000
    references = []
    for number in range(4):
        pitch = 200 + 70 * number
        tone = torch.sin(6.283 * pitch * time + 3 * torch.sin(6.283 * (2 + number) * time))
        beat = (0.5 + 0.5 * torch.sin(6.283 * (3 + number) * time)).round()
        hiss = torch.randn(16000, generator=generator) * beat
        references.append(torch.stack([tone, 0.7 * hiss]))
    stacked = torch.stack(references)
    return stacked.sum(dim=1), stacked


@pytest.mark.slow
def test_four_mixtures_are_learnt_by_heart_and_outputs_follow_the_prompts() -> None:
    torch.manual_seed(0)
    stack = {
        "num_blocks": 1, "dim": 24, "num_groups": 4, "num_heads": 2, "attention_dim": 24,
        "freq_feed_forward": [{"hidden_dim": 48, "kernel_size": 3}],
        "frame_feed_forward": [{"hidden_dim": 48, "kernel_size": 3}],
    }  # fmt: skip
    network = {
        "codec": {"bands": "mel", "num_bands": 20, "compression": 0.5, "magnitude_input": True},
        "cross_prompt": stack,
        "extraction": stack,
    }
    config = ModelConfig("tuss", 16000, StftConfig(512, 256), network, ("speech", "sfx"))
    model = build_model(config)
    mixture, references = _scenes()
    prompts = torch.tensor([[0, 1]]).expand(4, -1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(600):
        order = [0, 1] if step % 2 else [1, 0]
        estimates = model(mixture, prompts[:, order])
        loss = thresholded_snr_loss(estimates, references[:, order], prompts[:, order])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
    model.eval()
    with torch.inference_mode():
        ahead = si_sdr_db(model(mixture, prompts), references)
        swapped = si_sdr_db(model(mixture, prompts.flip(1)), references.flip(1))
    assert ahead.mean() > 20
    assert swapped.mean() > 20
