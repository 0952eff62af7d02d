"""Learning that is checked as it goes on: the best state is kept, and it ends when none comes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

State = TypeVar("State")
T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """What was found at a check.

    Attributes:
        step: Steps done before it; the first check comes before all steps.
        score: As the caller measures it; higher is better.
        loss: Mean over the steps since the check before; None at the first one.
    """

    step: int
    score: float
    loss: float | None


@dataclass(frozen=True)
class Pace:
    """How long something learns, and how its learning rate goes.

    Attributes:
        num_steps: Steps in all; the learning rate falls to zero over them, along a cosine.
        check_every: Steps between two checks.
        patience: Checks without a better one after which it is enough.
        warmup_steps: Before it falls, the learning rate rises over so many steps.
        max_grad_norm: Gradients are scaled down to this norm; None leaves them.
    """

    num_steps: int
    check_every: int
    patience: int
    warmup_steps: int = 0
    max_grad_norm: float | None = None

    def rate(self, step: int) -> float:
        """Share of the full learning rate at a step, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        done = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        return 0.5 + 0.5 * math.cos(math.pi * min(1.0, done))


@dataclass(frozen=True, eq=False)
class Learnt(Generic[State]):
    """What came of it.

    Attributes:
        state: The state at the best check.
        checks: All checks in order.
        best: The best one: never worse than the first.
        is_over: Whether checks or a broken loss ended it, and not the number of steps or
            whoever may stop it.
    """

    state: State
    checks: tuple[Check, ...]
    best: Check
    is_over: bool


def learn_with_checks(
    loss_of_next: Callable[[], Tensor],
    optimiser: torch.optim.Optimizer,
    state: Callable[[], State],
    measure: Callable[[State], float],
    pace: Pace,
    goes_on: Callable[[int], bool] = lambda step: True,
) -> Learnt[State]:
    """Take steps, look now and then, and keep the best state.

    Args:
        loss_of_next: The loss of the next batch.
        optimiser: Holds what learns.
        state: What there is now, as a copy that later steps leave alone.
        measure: What is to be high; asked before the first step and at every check.
        pace: How long.
        goes_on: Called after every step with the number of steps done: whether there is to be
            another one. May raise.

    A loss that is no finite number ends it: what it did to the weights cannot be undone.
    """
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, pace.rate)
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    kept = state()
    checks = [Check(0, measure(kept), None)]
    best = checks[0]
    losses: list[float] = []
    is_over = False
    for step in range(1, pace.num_steps + 1):
        loss = loss_of_next()
        optimiser.zero_grad()
        loss.backward()
        if pace.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, pace.max_grad_norm)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        is_over = not math.isfinite(losses[-1])
        is_last = not goes_on(step) or step == pace.num_steps or is_over
        if step % pace.check_every and not is_last:
            continue
        now = state()
        check = Check(step, measure(now), sum(losses) / len(losses))
        checks.append(check)
        losses = []
        if check.score > best.score:
            best, kept = check, now
        is_over = is_over or sum(later.step > best.step for later in checks) >= pace.patience
        if is_last or is_over:
            break
    return Learnt(kept, tuple(checks), best, is_over)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What comes of work, and how many seconds it took."""
    begun = time.monotonic()
    return work(), time.monotonic() - begun
