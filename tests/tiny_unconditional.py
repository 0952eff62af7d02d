"""A separator that always gives the same outputs, small enough that a step takes milliseconds."""

from typing import Any

import torch

from unbraid.dsp.stft import StftConfig
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model

RATE = 8000


def tiny_unconditional_config(
    num_outputs: int, *, sample_rate: int = RATE, **network: Any
) -> ModelConfig:
    """A config for sources of any kind."""
    stack = {
        "num_blocks": 1,
        "dim": 8,
        "num_groups": 2,
        "num_heads": 2,
        "attention_dim": 8,
        "freq_feed_forward": [{"hidden_dim": 16, "kernel_size": 3}],
        "frame_feed_forward": [{"hidden_dim": 16, "kernel_size": 1}],
    }
    codec = {"bands": "mel", "num_bands": 12, "decoder_expansion": 1, "initial_mask": "gate"}
    settings = {"codec": codec, "first": stack, "second": stack, "num_outputs": num_outputs}
    return ModelConfig(
        "unconditional",
        sample_rate,
        StftConfig(256, 128),
        settings | network,
        outputs=("source",) * num_outputs,
    )


def tiny_unconditional(num_outputs: int, **network: Any) -> WaveformModel:
    """A model with the same fresh weights at every call."""
    torch.manual_seed(0)
    return build_model(tiny_unconditional_config(num_outputs, **network))
