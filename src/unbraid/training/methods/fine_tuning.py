"""Fine-tuning: a trained model learns on, all of it or a part, on mixtures of one kind."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch
from unbraid.errors import ConfigError
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.losses import SnrLossConfig
from unbraid.training.methods.checked_learning import Check, Pace, learn_with_checks
from unbraid.training.methods.low_rank import add_adapters
from unbraid.training.methods.supervised import supervised_loss
from unbraid.training.starting import choose_learning

#: What learns: all weights and prompts; all weights, prompts kept; prompts, entry and exit; or
#: adapters on the attention.
What: TypeAlias = Literal["all", "network", "prompts-and-codec", "lora"]

_PATTERNS: Mapping[What, tuple[str, ...]] = {
    "all": (),
    "network": ("network.*",),
    "prompts-and-codec": ("prompts.*", "network.codec.*"),
}

#: The fewer numbers learn, the faster each of them may.
_LEARNING_RATES: Mapping[What, float] = {
    "all": 3e-4,
    "network": 3e-4,
    "prompts-and-codec": 1e-3,
    "lora": 3e-3,
}

# A reference that is silent alone in its group is held against the mixture.
_LOSS = SnrLossConfig(silence_threshold="mixture")
_WARMUP_SHARE = 0.1
_MAX_GRAD_NORM = 5.0


@dataclass(frozen=True)
class FineTuningConfig:
    """How a model is tuned.

    Attributes:
        what: What learns, see ``What``.
        learning_rate: Of Adam, at its highest; it rises over the first tenth of the steps and
            falls to zero along a cosine. None for what suits ``what``.
        rank: Of the adapters.
        num_steps: Steps in all, one batch each.
        check_every: Steps between two checks.
        patience: Checks without a better one after which it is enough.
    """

    what: What = "all"
    learning_rate: float | None = None
    rank: int = 8
    num_steps: int = 1000
    check_every: int = 50
    patience: int = 5

    def __post_init__(self) -> None:
        for name in ("rank", "num_steps", "check_every", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0.0 < self.rate < math.inf:
            raise ConfigError(f"learning_rate must be positive, not {self.learning_rate}.")

    @property
    def rate(self) -> float:
        """The learning rate."""
        return _LEARNING_RATES[self.what] if self.learning_rate is None else self.learning_rate


@dataclass(frozen=True, eq=False)
class TunedModel:
    """What came of it.

    Attributes:
        model: The model at the best check; what did not learn is equal to the last bit.
        num_learning: How many numbers learnt.
        checks: All checks in order.
        best: The best one: never worse than the first.
        is_over: Whether checks ended it, and not the number of steps or whoever may stop it.
    """

    model: WaveformModel
    num_learning: int
    checks: tuple[Check, ...]
    best: Check
    is_over: bool


def from_references(
    batches: Iterable[MixtureBatch], device: torch.device
) -> Callable[[WaveformModel], Tensor]:
    """The loss on one batch after the other, for ``Tuning.learn``.

    Args:
        batches: Mixtures and what they are made of, by the rows of the model's prompts.
        device: Where the model is.
    """
    stream = iter(batches)
    return lambda model: supervised_loss(model, next(stream).to(device), _LOSS)


class Tuning:
    """A copy of a model that learns.

    Args:
        model: Where it starts; it stays as it is.
        config: How it learns.
        device: Where it learns.
        seed: Of adapters.

    Raises:
        ConfigError: If the model has nothing of what is to learn.
        MissingExtra: If adapters are wanted and peft is not installed.
    """

    def __init__(
        self,
        model: WaveformModel,
        config: FineTuningConfig,
        device: torch.device,
        seed: int = 0,
    ) -> None:
        self._start = model
        self._config = config
        self._device = device
        # Running statistics of the material that the model learnt from are kept.
        self._model = copy.deepcopy(model).eval().to(device)
        self._merged: Callable[[], dict[str, Tensor]] | None = None
        if config.what == "lora":
            self._model.prompts.requires_grad_(False)
            self._merged = add_adapters(self._model.network, config.rank, seed)
        else:
            choose_learning(self._model, _PATTERNS[config.what])
        self._learning = [each for each in self._model.parameters() if each.requires_grad]

    @property
    def model(self) -> WaveformModel:
        """What learns, with its adapters; later steps change it."""
        return self._model

    def learn(
        self,
        loss_of_next: Callable[[WaveformModel], Tensor],
        measure: Callable[[WaveformModel], float],
        num_steps: int,
        goes_on: Callable[[int], bool] = lambda step: True,
    ) -> TunedModel:
        """Learn.

        Args:
            loss_of_next: The loss of the model, such as it is now, on the next batch; see
                ``from_references``.
            measure: What is to be high; asked before the first step and at every check.
            num_steps: How many steps to take, one batch each.
            goes_on: Called after every step with the number of steps done: whether there is to
                be another one. May raise.
        """
        pace = Pace(
            num_steps,
            self._config.check_every,
            self._config.patience,
            warmup_steps=round(_WARMUP_SHARE * num_steps),
            max_grad_norm=_MAX_GRAD_NORM,
        )
        learnt = learn_with_checks(
            lambda: loss_of_next(self._model),
            torch.optim.Adam(self._learning, lr=self._config.rate),
            self.plain_copy,
            measure,
            pace,
            goes_on,
        )
        num_learning = sum(each.numel() for each in self._learning)
        return TunedModel(
            learnt.state.cpu(), num_learning, learnt.checks, learnt.best, learnt.is_over
        )

    def plain_copy(self) -> WaveformModel:
        """The model as it is now, adapters merged."""
        network = self._model.network.state_dict() if self._merged is None else self._merged()
        plain = copy.deepcopy(self._start).to(self._device)
        plain.network.load_state_dict(network)
        plain.prompts.load_state_dict(self._model.prompts.state_dict())
        return plain
