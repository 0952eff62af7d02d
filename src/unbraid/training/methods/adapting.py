"""A model that is asked with prompts learns from recordings by remixing what it makes of them.

The unconditional method does not know which source is which. Here prompts say it, so the sources
of a batch change recordings prompt by prompt: the speech of one meets the noise of another, in
the same room, through the same microphone. What the model is then held against are the teacher's
sources (RemixIT), the recordings (Self-Remixing), or both.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.dsp.levels import scale_of
from unbraid.models.inference import for_inference
from unbraid.models.waveform import WaveformModel
from unbraid.training.methods.mixit import Separate
from unbraid.training.methods.remixing import (
    RemixingConfig,
    Teacher,
    TeacherConfig,
    remixing_loss,
)

#: What adapting does where nobody says otherwise; ``bench/adapting.py`` compares it with others.
REMIXING = RemixingConfig(
    remixit_weight=1.0,
    self_remixing_weight=0.0,
    channel_shuffle="none",
    teacher=TeacherConfig(decay=0.8, steps_per_epoch=20),
)


class SelfTeaching:
    """The loss of a model on recordings, for ``fine_tuning.Tuning.learn``; one step at a call.

    Args:
        model: Where the teacher starts; it stays as it is.
        prompt_indices: What the recordings hold; they are asked for the same prompts, all of them.
        batches: Crops of recordings, on any device.
        config: How.
        device: Where the student is.
        current: The student as a plain model, which the teacher follows.
        seed: Of the shuffles.
    """

    def __init__(
        self,
        model: WaveformModel,
        prompt_indices: Int[Tensor, "source"],
        batches: Iterable[Float[Tensor, "batch time"]],
        config: RemixingConfig,
        device: torch.device,
        current: Callable[[], WaveformModel],
        seed: int,
    ) -> None:
        self._rows = prompt_indices.to(device)
        self._stream = iter(batches)
        self._config = config
        self._device = device
        self._current = current
        self._rng = random.Random(f"{seed}/shuffles")
        self._num_steps = 0
        self._teacher = Teacher(model).to(device)
        self._fast = for_inference(self._teacher.model)

    def __call__(self, student: WaveformModel) -> Tensor:
        """The loss on the next batch, after the teacher has moved where it is its turn."""
        decay = self._config.teacher.decay_at(self._num_steps) if self._num_steps else 1.0
        if decay < 1.0:
            self._teacher.follow(self._current(), decay)
            self._fast = for_inference(self._teacher.model)
        self._num_steps += 1
        return remixing_loss(
            _asked(student, self._rows),
            _asked(self._fast, self._rows),
            next(self._stream).to(self._device),
            self._config,
            self._rng,
            self._rows,
        )


class RemixedCheck:
    """New mixtures of what a model made of recordings that were held back; always the same.

    The model as it was makes them, whoever is checked: a model that took its own sources would
    find it easiest to give everything to one prompt.

    Args:
        model: The model as it was, ready for inference, on the device where it is to compute.
        prompt_indices: What it is asked for.
        batches: Crops of recordings.
        config: The loss.
        seed: Of the shuffles.
    """

    def __init__(
        self,
        model: WaveformModel,
        prompt_indices: Int[Tensor, "source"],
        batches: Sequence[Float[Tensor, "batch time"]],
        config: RemixingConfig,
        seed: int,
    ) -> None:
        self._device = next(model.parameters()).device
        self._rows = prompt_indices.to(self._device)
        self._config = config
        self._seed = seed
        self._batches = [batch.to(self._device) for batch in batches]
        original = _asked(model, self._rows)
        with torch.no_grad():
            self._sources = [original(batch / scale_of(batch)) for batch in self._batches]

    @torch.no_grad()
    def loss(self, model: WaveformModel) -> float:
        """Mean loss of a model; it is not changed, and not finite if its weights are not."""
        fast = for_inference(copy.deepcopy(model).to(self._device))
        rng = random.Random(self._seed)
        losses = [
            remixing_loss(
                _asked(fast, self._rows), _already(sources), batch, self._config, rng, self._rows
            ).item()
            for batch, sources in zip(self._batches, self._sources, strict=True)
        ]
        return math.fsum(losses) / len(losses)


def _asked(model: WaveformModel, prompt_indices: Int[Tensor, "source"]) -> Separate:
    return lambda mixtures: model(mixtures, prompt_indices.expand(len(mixtures), -1))


def _already(sources: Float[Tensor, "batch source time"]) -> Separate:
    return lambda mixtures: sources
