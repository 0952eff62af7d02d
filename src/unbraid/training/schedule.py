"""What happens when in a run: the learning rate, the best validations, the early end.

All of it is computed from the step and from the validations so far, and nothing else is kept. So a
run that is stopped goes on exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unbraid.config import check_number


@dataclass(frozen=True)
class Validated:
    """A validation.

    Attributes:
        step: After how many steps.
        loss: The mean over its scenes.
    """

    step: int
    loss: float


@dataclass(frozen=True)
class StepDecayConfig:
    """The learning rate falls by a factor every so many steps.

    Attributes:
        from_step: Up to here it stays; it falls for the first time ``every_steps`` later.
        every_steps: From one fall to the next.
        factor: What it is multiplied by.
    """

    from_step: int
    every_steps: int
    factor: float

    def __post_init__(self) -> None:
        check_number("step_decay.from_step", self.from_step, least=0)
        check_number("step_decay.every_steps", self.every_steps, least=1)
        check_number("step_decay.factor", self.factor, above=0, most=1)


@dataclass(frozen=True)
class PlateauConfig:
    """The learning rate falls when validation no longer gets better, as PyTorch counts.

    Attributes:
        patience: So many validations in a row may be no better than the best before; one more,
            and the rate falls, and counting starts again.
        factor: What it is multiplied by.
        from_step: Validations before this step do not count.
    """

    patience: int
    factor: float = 0.5
    from_step: int = 0

    def __post_init__(self) -> None:
        check_number("plateau.patience", self.patience, least=0)
        check_number("plateau.factor", self.factor, above=0, below=1)
        check_number("plateau.from_step", self.from_step, least=0)


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW, and a learning rate that rises first and falls later in up to three ways.

    Attributes:
        learning_rate: Between rise and fall.
        weight_decay: Strength of the decay of weights.
        decayed: What it is applied to: ``matrices``, not prompts, norms, biases and other
            vectors; or ``all``, as in the papers.
        eps: Of AdamW.
        max_grad_norm: Gradients are scaled down to this norm.
        warmup_steps: Linear rise from 0.
        decay_steps: Cosine fall to 0 over the last so many steps; 0 for none.
        step_decay: Fall by steps; None for none.
        plateau: Fall when validation says so; None for never.
        average_decay: Of the exponential moving average of the weights, which is what is
            validated and kept; None for no average.
        average_best: In the end take the mean of the weights at so many validations with the
            lowest loss; None for the last weights.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    decayed: Literal["matrices", "all"] = "matrices"
    eps: float = 1e-8
    max_grad_norm: float = 5.0
    warmup_steps: int = 1000
    decay_steps: int = 0
    step_decay: StepDecayConfig | None = None
    plateau: PlateauConfig | None = None
    average_decay: float | None = 0.999
    average_best: int | None = None

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay", "warmup_steps", "decay_steps"):
            check_number(f"optimiser.{name}", getattr(self, name), least=0)
        check_number("optimiser.eps", self.eps, above=0)
        check_number("optimiser.max_grad_norm", self.max_grad_norm, above=0)
        check_number("optimiser.average_decay", self.average_decay, least=0, below=1)
        check_number("optimiser.average_best", self.average_best, least=1)


def learning_rate(
    step: int, settings: OptimiserConfig, max_steps: int, validations: Sequence[Validated] = ()
) -> float:
    """The learning rate of a step, the first one being 0."""
    factor = 1.0
    if step < settings.warmup_steps:
        factor = step / settings.warmup_steps
    left = max_steps - step
    if left < settings.decay_steps:
        factor *= 0.5 - 0.5 * math.cos(math.pi * left / settings.decay_steps)
    decay = settings.step_decay
    if decay is not None and step >= decay.from_step:
        factor *= decay.factor ** ((step - decay.from_step) // decay.every_steps)
    if settings.plateau is not None:
        factor *= settings.plateau.factor ** _num_falls(validations, settings.plateau)
    return settings.learning_rate * factor


def _num_falls(validations: Sequence[Validated], settings: PlateauConfig) -> int:
    falls = waited = 0
    best = math.inf
    for each in validations:
        if each.step < settings.from_step:
            continue
        if each.loss < best:
            best, waited = each.loss, 0
            continue
        waited += 1
        if waited > settings.patience:
            falls, waited = falls + 1, 0
    return falls


def best_steps(validations: Sequence[Validated], count: int) -> tuple[int, ...]:
    """Steps of the validations with the lowest loss, best first; of equal ones the earlier."""
    ordered = sorted(validations, key=lambda each: (each.loss, each.step))
    return tuple(each.step for each in ordered[:count])


def has_stalled(validations: Sequence[Validated], patience: int) -> bool:
    """Whether the last so many validations were all no better than the best before them."""
    if not validations:
        return False
    best = best_steps(validations, 1)[0]
    return sum(each.step > best for each in validations) >= patience
