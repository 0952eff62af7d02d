"""A model that is asked by example, of a few thousand numbers."""

import dataclasses

import torch

from unbraid.config import dump
from unbraid.dsp.mel import MelConfig
from unbraid.dsp.stft import StftConfig
from unbraid.models.architectures.query_unet import QueryUnetConfig
from unbraid.models.taggers.htsat import EXAMPLE
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model

RATE = 16_000
TAGGER = dataclasses.replace(
    EXAMPLE, mel=MelConfig(RATE, StftConfig(256, 80, "hann", "reflect"), 8, 50.0, 7_000.0)
)


def tiny_query_model(**changes: object) -> WaveformModel:
    """Fresh, in training mode, the same at every call."""
    torch.manual_seed(0)
    config = ModelConfig(
        architecture="query_unet",
        sample_rate=RATE,
        stft=StftConfig(64, 32, "hann", "reflect"),
        network=dump(QueryUnetConfig((4, 6, 8), TAGGER.embedding_dim)),
        prompts=(),
        tagger=TAGGER,
    )
    return build_model(dataclasses.replace(config, **changes))
