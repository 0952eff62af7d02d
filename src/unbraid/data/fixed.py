"""Mixtures that stay the same from run to run, to measure on."""

from __future__ import annotations

import random
from collections.abc import Sequence

from unbraid.data.effects import EFFECTS
from unbraid.errors import DataError, UnreadableClip
from unbraid.mixing.recipe import MixPlan, Planner, Scene
from unbraid.mixing.render import ClipReader, render

_MAX_TRIES = 100


def fixed_plans(
    planner: Planner,
    scenes: Sequence[Scene],
    per_scene: int,
    read_clip: ClipReader,
    sample_rate: int,
    seed: int,
) -> dict[str, tuple[MixPlan, ...]]:
    """Draw the same mixtures of each scene at every call, all their sources audible.

    Returns:
        Scene, its prompts joined by `` + `` → plans.

    Raises:
        DataError: If a scene gives no mixture without a silent source, or too many recordings
            cannot be read.
    """
    plans = {}
    for scene in scenes:
        name = " + ".join(scene.prompts)
        chosen = []
        for number in range(per_scene):
            for attempt in range(_MAX_TRIES):
                rng = random.Random(f"{seed}/{name}/{number}/{attempt}")
                plan = planner.draw_mixture(scene.prompts, rng)
                try:
                    references = render(plan, read_clip, sample_rate, EFFECTS).references
                except UnreadableClip:
                    continue
                if bool((references.flatten(1).abs().amax(dim=1) > 0).all()):
                    chosen.append(plan)
                    break
            else:
                raise DataError(f"scene {name!r}: no mixture without a silent source was found.")
        plans[name] = tuple(chosen)
    return plans
