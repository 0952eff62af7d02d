"""Mixtures of sounds that ship with unbraid, their sources known: what is not to be forgotten."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from statistics import fmean

import torch

from unbraid.apps.backgrounds import our_backgrounds
from unbraid.data.dynamic import MixtureBatch, render_batch
from unbraid.data.fixed import fixed_plans
from unbraid.data.shelf import ClipShelf
from unbraid.mixing.recipe import MixRecipe, Planner, Scene
from unbraid.models.inference import for_inference
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.measures import si_sdr_db

_SCENES = (
    ("speech", "sfx-mix"),
    ("speech", "sfx"),
    ("speech", "music-mix"),
    ("sfx-mix", "music-mix"),
    ("drums", "bass", "other"),
)
_PER_SCENE = 3
_CROP_S = 2.0
_LEVELS_DB = (-10.0, 0.0)
# The same for everybody.
_SEED = 0


@dataclass(frozen=True, eq=False)
class KnownMixtures:
    """A fixed set of mixtures.

    Attributes:
        batches: A mixture each, with its sources; none where the model knows none of our prompts.
    """

    batches: tuple[MixtureBatch, ...]

    @torch.no_grad()
    def si_sdr_db(self, model: WaveformModel, device: torch.device) -> float | None:
        """Mean over the sources of all mixtures; None if there are no mixtures."""
        if not self.batches:
            return None
        fast = for_inference(copy.deepcopy(model).to(device))
        found = []
        for batch in self.batches:
            estimates = fast(batch.mixture.to(device), batch.prompt_indices.to(device)).cpu()
            found.append(float(si_sdr_db(estimates, batch.references).mean()))
        return fmean(found)


@functools.lru_cache(maxsize=1)
def known_mixtures(names: tuple[str, ...], sample_rate: int) -> KnownMixtures:
    """The mixtures for a model that knows these prompts, at its rate."""
    shelf = ClipShelf(sample_rate)
    clips = our_backgrounds(shelf).clips
    scenes = tuple(Scene(prompts) for prompts in _SCENES if set(prompts) <= set(names))
    if not scenes:
        return KnownMixtures(())
    asked = {prompt for scene in scenes for prompt in scene.prompts}
    recipe = MixRecipe(
        crop_s=_CROP_S,
        scenes=scenes,
        gain_db=dict.fromkeys({*asked, *clips}, _LEVELS_DB),
        common_bandwidth_probability=0.0,
    )
    planner = Planner(recipe, clips)
    rows = {name: row for row, name in enumerate(names)}
    plans = fixed_plans(planner, scenes, _PER_SCENE, shelf.read, shelf.sample_rate, _SEED)
    return KnownMixtures(
        tuple(
            render_batch((plan,), shelf.read, shelf.sample_rate, rows)
            for some in plans.values()
            for plan in some
        )
    )
