"""RemixIT and Self-Remixing: a student separates what its teacher's sources are remixed to.

=====================  ==========================  ==============================================
paper                  here                        what it is
=====================  ==========================  ==============================================
x                      mixtures                    recordings that nobody has the sources of
shuffler, teacher      Teacher                     an average of the student over time
s                      sources                     what the teacher makes of the mixtures
s~, x~                 remixed, pseudo_mixtures    its sources at other places, and their sums
solver, student        the model                   what learns
y                      estimates                   what it makes of the pseudo-mixtures
x^                     made_again                  estimates back at their places, summed
L_RemixIT              between y and s~            the teacher's sources are the references
L_Self-Remixing        between x^ and x            the recordings themselves are the references
=====================  ==========================  ==============================================

Source: E. Tzinis et al., "RemixIT: continual self-training of speech enhancement models via
    bootstrapped remixing", JSTSP 2022; K. Saijo, T. Ogawa, "Self-Remixing: unsupervised speech
    separation via separation and remixing", ICASSP 2023, arXiv 2211.10194; K. Saijo, T. Ogawa,
    "Remixing-based unsupervised source separation from scratch", Interspeech 2023,
    arXiv 2309.00376.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unbraid.config import check_number
from unbraid.dsp.levels import scale_of
from unbraid.errors import ConfigError
from unbraid.mixing.remix import (
    BatchShuffle,
    ChannelShuffle,
    consistent,
    draw_remix,
    loudest,
    shuffle,
    unshuffle,
)
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.losses import SnrLossConfig, thresholded_snr_loss
from unbraid.objectives.reconstruction import (
    ReconstructionConfig,
    in_best_order,
    reconstruction_loss,
)
from unbraid.training.methods.mixit import Separate

# A prompt is asked for whether its sound is there or not. What a teacher gives for one that is not
# are remains, which are to be as soft as possible and not to be copied.
_REMAINS_DB = -40.0


@dataclass(frozen=True)
class TeacherConfig:
    """How the teacher follows its student: theta_T = a theta_T + (1 - a) theta_S.

    Attributes:
        decay: What of the teacher is left after an epoch (a).
        every: When it follows: after each ``epoch``, or after each ``step`` by a share so that
            as much of it is left after an epoch: a^(1 / steps_per_epoch).
        steps_per_epoch: How many steps count as an epoch; the stream of mixtures has none.
    """

    decay: float = 0.8
    every: Literal["epoch", "step"] = "epoch"
    steps_per_epoch: int = 1000

    def __post_init__(self) -> None:
        check_number("teacher.decay", self.decay, least=0, most=1)
        check_number("teacher.steps_per_epoch", self.steps_per_epoch, least=1)

    def decay_at(self, step: int) -> float:
        """What of the teacher is left behind step ``step``, counted from 1; 1 for all of it."""
        if self.every == "step":
            return self.decay ** (1.0 / self.steps_per_epoch)
        return 1.0 if step % self.steps_per_epoch else self.decay


@dataclass(frozen=True)
class RemixingConfig:
    """How a model learns by RemixIT, Self-Remixing or both.

    Attributes:
        kind: What tells it from the other methods.
        remixit_weight: Of the loss against the teacher's sources.
        self_remixing_weight: Of the loss against the recordings.
        num_sources: How many of the teacher's and the student's sources go on, the loudest of
            each; None for all.
        batch_shuffle: How sources change items. From scratch nothing is learnt without.
        channel_shuffle: How sources change places before that; the papers do it when they train
            from scratch, and not when they go on from MixIT.
        student_is_consistent: Make the student's sources sum to the pseudo-mixture, as those of
            the teacher always sum to the mixture.
        normalises_pseudo_mixtures: Bring them to a standard deviation of 1 again.
        teacher: How it follows.
        loss: The loss between a signal and what it is to be.
        supervised_weight: Of the supervised loss; see ``TrainConfig.method``.
    """

    kind: Literal["remixing"] = "remixing"
    remixit_weight: float = 0.0
    self_remixing_weight: float = 1.0
    num_sources: int | None = None
    batch_shuffle: BatchShuffle = "constrained"
    channel_shuffle: ChannelShuffle = "all"
    student_is_consistent: bool = False
    normalises_pseudo_mixtures: bool = False
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    loss: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    supervised_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("remixit_weight", "self_remixing_weight", "supervised_weight"):
            check_number(f"method.{name}", getattr(self, name), least=0)
        if not self.remixit_weight and not self.self_remixing_weight:
            raise ConfigError(
                "method.remixit_weight and method.self_remixing_weight may not both be 0."
            )
        check_number("method.num_sources", self.num_sources, least=2)


class Teacher(nn.Module):
    """An average of a model over time, which learns in no other way.

    Starts as a copy, stays in evaluation mode and has no gradient.
    """

    def __init__(self, student: WaveformModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(student).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode, whatever the student is set to."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, mixtures: Float[Tensor, "batch time"]) -> Float[Tensor, "batch source time"]:
        """All sources of the mixtures."""
        return self.model.separate_all(mixtures)

    @torch.no_grad()
    def follow(self, student: WaveformModel, decay: float) -> None:
        """Move towards the student, in place; ``decay`` of the teacher is left.

        Running statistics are averaged as the weights are; counts, whole numbers, are taken over.
        """
        for mine, its in zip(_tensors(self.model), _tensors(student), strict=True):
            if mine.is_floating_point():
                mine.lerp_(its, 1.0 - decay)
            else:
                mine.copy_(its)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Weights, running statistics and counts, each once."""
    return itertools.chain(model.parameters(), model.buffers())


def remixing_loss(
    student: Separate,
    teacher: Separate,
    mixtures: Float[Tensor, "batch time"],
    config: RemixingConfig,
    rng: random.Random,
    prompt_indices: Int[Tensor, "source"] | None = None,
) -> Float[Tensor, ""]:
    """The weighted sum of RemixIT and Self-Remixing.

    A model that is asked with prompts is asked with the same ones for every mixture, and its
    sources keep their places when they change mixtures: what comes out for a prompt meets what
    came out of other recordings for the other prompts. Only the order of sources with equal
    prompts is left to be found by trying.

    Args:
        student: What learns.
        teacher: Gives what is remixed; no gradient goes there.
        mixtures: Each is brought to a standard deviation of 1.
        config: How.
        rng: What the shuffles are drawn with.
        prompt_indices: Which prompt each source answers, the same for all mixtures; needs
            ``channel_shuffle`` none and no ``num_sources``. None for a model that gives sources of
            any kind.

    Returns:
        The mean over sources, or mixtures, and the batch.

    Raises:
        ConfigError: If the shuffle is constrained and there are more sources than mixtures, or
            sources that answer prompts are to change places.
    """
    if prompt_indices is not None and (config.channel_shuffle != "none" or config.num_sources):
        raise ConfigError(
            "sources that answer prompts keep their places: set channel_shuffle: none, and leave "
            "num_sources out."
        )
    mixtures = mixtures / scale_of(mixtures)
    with torch.no_grad():
        sources = teacher(mixtures)
        count = config.num_sources or sources.shape[1]
        sources = consistent(loudest(sources, count), mixtures)
        plan = draw_remix(
            len(sources),
            sources.shape[1],
            rng,
            batch_shuffle=config.batch_shuffle,
            channel_shuffle=config.channel_shuffle,
        )
        remixed = shuffle(sources, plan)
        pseudo_mixtures = remixed.sum(dim=1)
        scale = pseudo_mixtures.new_ones(len(mixtures), 1)
        if config.normalises_pseudo_mixtures:
            scale = scale_of(pseudo_mixtures)
        pseudo_mixtures, remixed = pseudo_mixtures / scale, remixed / scale.unsqueeze(1)

    estimates = loudest(student(pseudo_mixtures), count)
    if config.student_is_consistent:
        estimates = consistent(estimates, pseudo_mixtures)
    rows = None if prompt_indices is None else prompt_indices.expand(len(mixtures), -1)
    estimates = in_best_order(estimates, remixed, config.loss, rows)
    loss = estimates.new_zeros(())
    if config.remixit_weight and rows is None:
        loss = loss + config.remixit_weight * (
            reconstruction_loss(estimates, remixed, config.loss).mean()
        )
    elif config.remixit_weight and rows is not None:
        snr = SnrLossConfig(
            max_snr_db=config.loss.max_snr_db,
            silence_threshold="mixture",
            silent_below_db=_REMAINS_DB,
        )
        loss = loss + config.remixit_weight * thresholded_snr_loss(estimates, remixed, rows, snr)
    if config.self_remixing_weight:
        made_again = unshuffle(estimates * scale.unsqueeze(1), plan).sum(dim=1)
        loss = loss + config.self_remixing_weight * (
            reconstruction_loss(made_again, mixtures, config.loss).mean()
        )
    return loss
