"""What speed is measured on: the package's own demo scene, repeated to length."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.demo import SCENES, mix_scene
from unbraid.audio import AtomicWriter, AudioFormat
from unbraid.dsp.resample import resample

_BLOCK_S = 1.0


def scene_blocks(
    seconds: float, rate: int, num_channels: int
) -> Iterator[Float[Tensor, "channel _"]]:
    """The scene in blocks of a second, in memory that does not depend on its length.

    Every channel hears it a little later and softer than the one before.
    """
    mixture, _ = mix_scene(SCENES[0])
    mono = resample(mixture.samples[0][None], mixture.sample_rate, rate)[0]
    scene = torch.stack(
        [0.7**channel * mono.roll(channel * rate // 2) for channel in range(num_channels)]
    )
    missing = round(seconds * rate)
    for second in itertools.cycle(scene.split(round(_BLOCK_S * rate), dim=1)):
        if missing <= 0:
            return
        yield second[:, :missing]
        missing -= second.shape[1]


def scene_samples(seconds: float, rate: int, num_channels: int) -> Float[Tensor, "channel time"]:
    """The scene in one piece."""
    return torch.cat(list(scene_blocks(seconds, rate, num_channels)), dim=1)


def write_scene(path: Path, seconds: float, rate: int, num_channels: int) -> None:
    """The scene as a WAV file of 16 bits."""
    wav = AudioFormat("wav", "PCM_16")
    with AtomicWriter(path, wav, rate, num_channels=num_channels) as writer:
        for block in scene_blocks(seconds, rate, num_channels):
            writer.write(block)
