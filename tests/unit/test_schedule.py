"""The learning rate step by step, and what a run learns from its validations."""

import math

import pytest

from unbraid.errors import ConfigError
from unbraid.training.schedule import (
    OptimiserConfig,
    PlateauConfig,
    StepDecayConfig,
    Validated,
    best_steps,
    has_stalled,
    learning_rate,
)


def validations(*losses: float, every: int = 100) -> tuple[Validated, ...]:
    return tuple(Validated(every * (number + 1), loss) for number, loss in enumerate(losses))


def test_it_rises_stays_and_falls_to_zero() -> None:
    settings = OptimiserConfig(learning_rate=2e-3, warmup_steps=100, decay_steps=200)
    rates = [learning_rate(step, settings, 1000) for step in (0, 50, 100, 799, 900, 1000)]
    assert rates == pytest.approx([0.0, 1e-3, 2e-3, 2e-3, 1e-3, 0.0], abs=1e-9)


def test_it_falls_by_steps() -> None:
    # As SFC on songs: constant up to step 60,500, then times 0.98 every 220 steps.
    settings = OptimiserConfig(
        warmup_steps=5000, step_decay=StepDecayConfig(60_500, 220, 0.98), decay_steps=0
    )
    for step, falls in (
        (5000, 0),
        (60_719, 0),
        (60_720, 1),
        (60_939, 1),
        (60_940, 2),
        (99_000, 175),
    ):
        assert learning_rate(step, settings, 99_000) == pytest.approx(1e-3 * 0.98**falls)


def test_it_halves_where_validation_stays_on_a_plateau() -> None:
    settings = OptimiserConfig(warmup_steps=0, plateau=PlateauConfig(patience=2))

    def falls(*losses: float) -> float:
        return -math.log2(learning_rate(10**6, settings, 10**7, validations(*losses)) / 1e-3)

    assert falls() == 0
    assert falls(-1.0, -2.0, -2.0, -1.0) == 0  # two that are no better
    assert falls(-1.0, -2.0, -2.0, -1.0, -1.5) == 1
    assert falls(-1.0, -2.0, -2.0, -1.0, -1.5, -1.0, -1.0) == 1  # counting starts again
    assert falls(-1.0, -2.0, -2.0, -1.0, -1.5, -1.0, -1.0, -1.0) == 2
    assert falls(-1.0, -2.0, -2.0, -1.0, -3.0, -1.0, -1.0) == 0


def test_validations_before_the_plateau_do_not_count() -> None:
    settings = OptimiserConfig(warmup_steps=0, plateau=PlateauConfig(1, 0.5, from_step=300))
    early = validations(-9.0, -1.0, -1.0)  # the last one is at step 300
    assert learning_rate(300, settings, 1000, early) == 1e-3
    assert learning_rate(500, settings, 1000, validations(-9.0, -1.0, -1.0, -1.0)) == 1e-3
    late = validations(-9.0, -1.0, -1.0, -1.0, 0.0)
    assert learning_rate(500, settings, 1000, late) == 5e-4


def test_the_best_validations_are_those_of_lowest_loss() -> None:
    losses = validations(3.0, 1.0, 2.0, 1.0, 5.0)
    assert best_steps(losses, 3) == (200, 400, 300)
    assert best_steps(losses, 9) == (200, 400, 300, 100, 500)
    assert best_steps((), 3) == ()


def test_a_run_has_stalled_after_so_many_validations_without_a_lower_loss() -> None:
    assert not has_stalled((), 2)
    assert not has_stalled(validations(3.0, 2.0, 2.5), 2)
    assert has_stalled(validations(3.0, 2.0, 2.5, 2.0), 2)
    assert not has_stalled(validations(3.0, 2.0, 2.5, 1.9), 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PlateauConfig(patience=-1),
        lambda: PlateauConfig(patience=1, factor=1.0),
        lambda: StepDecayConfig(0, 0, 0.5),
        lambda: StepDecayConfig(0, 1, 1.5),
        lambda: OptimiserConfig(average_best=0),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ConfigError):
        make()
