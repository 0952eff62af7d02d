"""Prompt tuning: learn the vectors of new prompts, and leave the network as it is.

=====================  ==========================  ============================================
paper                  here                        what it is
=====================  ==========================  ============================================
U                      network                     the separator; never changed
p_k                    taught rows                 the vectors of a new prompt, all that learns
E(x) averaged          starts                      where they begin (stage 1)
mean |U(y, p) - x|     loss: l1                    waveform L1 (stage 2)
Joint-Tune             network_learning_rate       the separator learns, too: the upper bound
=====================  ==========================  ============================================

The same lines teach any network that is asked with queries, TUSS or the query-conditioned U-Net.

Source: Y. Liu et al., "Audio prompt tuning for universal sound separation", ICASSP 2024,
    arXiv 2311.18399.
Differs: A larger learning rate that falls to zero, early stopping on mixtures that are not
    learnt from, and the loss of TUSS beside L1. Prompts that the model knows already may be asked
    for beside the new ones, so that these learn to live with them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.data.dynamic import MixtureBatch
from unbraid.dsp.stft import FftTransform
from unbraid.errors import ConfigError, PromptError
from unbraid.models.waveform import WaveformModel, separate
from unbraid.objectives.losses import SnrLossConfig
from unbraid.training.methods.checked_learning import Check, Pace, learn_with_checks
from unbraid.training.methods.supervised import loss_of_estimates


@dataclass(frozen=True)
class TuningConfig:
    """How prompts are tuned.

    Attributes:
        loss: ``snr``, the thresholded one of TUSS, which also teaches silence; or ``l1``, the
            mean distance of the waveforms, as in the paper.
        learning_rate: Of Adam, at the beginning, relative to the root mean square of the vectors
            that the prompts begin with; it falls to zero along a cosine.
        num_steps: Steps in all, one batch each.
        check_every: Steps between two checks.
        patience: Checks without a better one after which it is enough.
        network_learning_rate: Of the network's weights, for joint tuning; None leaves the
            network alone, to the last bit.
    """

    loss: Literal["snr", "l1"] = "snr"
    learning_rate: float = 0.2
    num_steps: int = 200
    check_every: int = 25
    patience: int = 4
    network_learning_rate: float | None = None

    def __post_init__(self) -> None:
        for name in ("num_steps", "check_every", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0.0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be positive, not {self.learning_rate}.")


@dataclass(frozen=True, eq=False)
class TunedPrompts:
    """What came of it.

    Attributes:
        vectors: Name → vectors, those of the best check.
        model: A model that knows them: the network of the one that was given, or after joint
            tuning a network of its own.
        checks: All checks in order.
        best: The check that the vectors are from: never worse than the first.
        is_over: Whether checks or a broken loss ended it, and not the number of steps or
            whoever may stop it.
    """

    vectors: Mapping[str, Float[Tensor, "vector dim"]]
    model: WaveformModel
    checks: tuple[Check, ...]
    best: Check
    is_over: bool


#: Measures a model that knows the new prompts; higher is better.
Measure = Callable[[WaveformModel], float]

#: Silence is held against the mixture: a prompt whose sound is absent is alone in its group.
_SNR_LOSS = SnrLossConfig(silence_threshold="mixture")


def tune_prompts(
    model: WaveformModel,
    starts: Mapping[str, Float[Tensor, "vector dim"]],
    batches: Iterable[MixtureBatch],
    measure: Measure,
    config: TuningConfig = TuningConfig(),
    goes_on: Callable[[int], bool] = lambda step: True,
) -> TunedPrompts:
    """Learn prompts by what they bring out of mixtures.

    The model that is given stays as it is, and no other random numbers are drawn than those of
    the batches.

    Args:
        model: What is to know new prompts.
        starts: Name → where its vectors begin.
        batches: Mixtures and what they are made of. Their rows are those of
            ``model.with_prompts(starts)``: the model's own prompts, then the new ones.
        measure: What is to be high: is asked before the first step and at every check.
        config: How.
        goes_on: Called after every step with the number of steps done: whether there is to be
            another one. May raise.

    Raises:
        PromptError: If a start does not fit the model.
    """
    known = model.with_prompts(starts)
    trains_network = config.network_learning_rate is not None
    network = copy.deepcopy(model.network).eval().requires_grad_(trains_network)
    num_known = len(model.prompts.names)
    old, new = known.prompts.weight.detach().split([num_known, len(starts)])
    taught = nn.Parameter(new.clone())
    # Prompts of TUSS have values around 1, what a tagger hears may have others.
    scale = float(new.square().mean().sqrt()) or 1.0
    groups: list[dict[str, object]] = [{"params": [taught], "lr": scale * config.learning_rate}]
    if trains_network:
        groups.append({"params": list(network.parameters()), "lr": config.network_learning_rate})
    optimiser = torch.optim.Adam(groups)
    transform = FftTransform(model.config.stft)

    def state() -> tuple[dict[str, Tensor], WaveformModel]:
        vectors = {
            name: row.clone().unflatten(0, (-1, model.prompts.dim))[: len(starts[name])]
            for name, row in zip(starts, taught.detach(), strict=True)
        }
        trained = model
        if trains_network:
            trained = WaveformModel(
                model.config, copy.deepcopy(network), model.prompts, model.tagger
            )
        return vectors, trained.with_prompts(vectors)

    stream = iter(batches)

    def loss_of_next() -> Tensor:
        batch = next(stream)
        queries = nn.functional.embedding(batch.prompt_indices, torch.cat([old, taught]))
        estimates = separate(batch.mixture, queries, network, transform, level=model.config.level)
        return _loss(estimates, batch, config)

    learnt = learn_with_checks(
        loss_of_next,
        optimiser,
        state,
        lambda now: measure(now[1]),
        Pace(config.num_steps, config.check_every, config.patience),
        goes_on,
    )
    vectors, best_model = learnt.state
    return TunedPrompts(vectors, best_model, learnt.checks, learnt.best, learnt.is_over)


def nearest_prompt(
    model: WaveformModel,
    name: str,
    batches: Iterable[MixtureBatch],
    config: TuningConfig = TuningConfig(),
) -> str:
    """The prompt of the model that already comes nearest to a new one, by its loss.

    Args:
        model: The model.
        name: The new prompt.
        batches: Mixtures in which the new prompt stands in the row behind those of the model.
        config: Whose loss.

    Raises:
        PromptError: If the model has no prompts to choose from.
    """
    if not model.prompts.names:
        raise PromptError(f"prompt {name!r}: the model knows no prompt that it could begin with.")
    batches = tuple(batches)

    @torch.no_grad()
    def loss_of(known: str) -> float:
        row = model.prompts.names.index(known)
        twin = model.with_prompts({name: model.prompts.weight[row].detach()[None]})
        return sum(
            _loss(twin(batch.mixture, batch.prompt_indices), batch, config).item()
            for batch in batches
        )

    return min(model.prompts.names, key=loss_of)


def _loss(
    estimates: Float[Tensor, "batch source time"], batch: MixtureBatch, config: TuningConfig
) -> Float[Tensor, ""]:
    if config.loss == "l1":
        return (estimates - batch.references).abs().mean()
    return loss_of_estimates(batch, estimates, _SNR_LOSS)
