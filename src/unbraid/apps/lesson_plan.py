"""The mixtures of a lesson: those that a sound is learnt from, and those that tell how well.

Clips and backgrounds are split: what the checks are made of is never learnt from. The checks
themselves are two halves. One chooses between the states of a prompt while it learns, the other
tells how good the chosen one is: the best of many scores would flatter it.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.backgrounds import ANYTHING
from unbraid.data.dynamic import MixtureBatch, render_batch
from unbraid.data.fixed import fixed_plans
from unbraid.data.shelf import ClipShelf
from unbraid.mixing.recipe import Clip, MixPlan, MixRecipe, Planner, Scene, SourcePlan
from unbraid.models.inference import for_inference
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.measures import si_sdr_db

# Of the mixtures; longer ones cost time and teach little more.
_CROP_S = 2.0
_BATCH_SIZE = 2
# To choose with and to report with, of each background.
_CHECKS_PER_SCENE = 6
# Share of batches in which nobody asks for the background, and of mixtures without the sound.
_ALONE = 0.25
_ABSENT = 0.12
_LOOK_BATCHES = 6
# Of so many recordings of a background one in three is held back, of fewer the end of each,
# unless that is shorter than the least.
_ENOUGH_RECORDINGS = 4
_HELD_BACK_RECORDINGS = 3
_HELD_BACK_TIME = 0.25
_LEAST_END_S = 1.0
# What the sound is called here, whatever its prompt is called: all draws depend on names.
_SOUND = "(the sound)"


@dataclass(frozen=True, eq=False)
class Example:
    """A mixture that a prompt is reported with, before and after.

    Attributes:
        background: The prompts of what the sound is mixed with.
        mixture: What the model hears.
        reference: The sound alone.
        before: What the prompt brings out at the start.
        after: What it brings out in the end.
        before_db: SI-SDR improvement of ``before``.
        after_db: The same of ``after``.
    """

    background: tuple[str, ...]
    mixture: Float[Tensor, "time"]
    reference: Float[Tensor, "time"]
    before: Float[Tensor, "time"]
    after: Float[Tensor, "time"]
    before_db: float
    after_db: float


@dataclass(frozen=True)
class BackgroundParts:
    """Backgrounds to learn with, and others to check with.

    Attributes:
        learnt: Prompt that brings a sound out → recordings.
        held_back: The same prompts → other recordings, or other parts of the same.
        shared: Prompts whose few recordings are too short to be parted: both have all of them.
    """

    learnt: Mapping[str, tuple[Clip, ...]]
    held_back: Mapping[str, tuple[Clip, ...]]
    shared: tuple[str, ...]


def part_backgrounds(
    clips: Mapping[str, tuple[Clip, ...]], shelf: ClipShelf, seed: int
) -> BackgroundParts:
    """Hold some of the backgrounds back.

    Of four recordings or more of a prompt one in three is held back; of fewer the last quarter of
    each, if it is at least a second long and something is heard in both parts.

    Args:
        clips: Prompt that brings a sound out → its recordings.
        shelf: Where they are kept; the ends that are held back are added to it.
        seed: Of what is held back.
    """
    learnt: dict[str, tuple[Clip, ...]] = {}
    held_back: dict[str, tuple[Clip, ...]] = {}
    shared = []
    for prompt, pool in clips.items():
        if len(pool) >= _ENOUGH_RECORDINGS:
            order = random.Random(f"{seed}/{prompt}").sample(pool, len(pool))
            count = len(pool) // _HELD_BACK_RECORDINGS
            held_back[prompt], learnt[prompt] = tuple(order[:count]), tuple(order[count:])
            continue
        parted = [_beginning_and_end(clip, shelf) for clip in pool]
        whole = [parts for parts in parted if parts is not None]
        if len(whole) < len(pool):
            learnt[prompt] = held_back[prompt] = pool
            shared.append(prompt)
        else:
            learnt[prompt] = tuple(beginning for beginning, _ in whole)
            held_back[prompt] = tuple(end for _, end in whole)
    return BackgroundParts(learnt, held_back, tuple(shared))


def _beginning_and_end(clip: Clip, shelf: ClipShelf) -> tuple[Clip, Clip] | None:
    """Two parts of a recording, as recordings of their own; None where it cannot be parted."""
    rate = shelf.sample_rate
    length = round(clip.duration_s * rate)
    cut = round((1.0 - _HELD_BACK_TIME) * length)
    if length - cut < _LEAST_END_S * rate:
        return None
    parts = (("beginning", 0, cut), ("end", cut, length))
    beginning, end = (
        shelf.add(
            f"{clip.key}/{name}", shelf.read(clip.key, start, stop - start), clip.bandwidth_hz
        )
        for name, start, stop in parts
    )
    return (beginning, end) if beginning.active_s and end.active_s else None


class LessonPlan:
    """An endless stream of mixtures to learn from, and fixed ones to choose and to report with.

    Prompt indices are those of a model that knows the new prompt behind its own ones.

    Args:
        learnt: Clips of the sound to learn from.
        held_back: Clips to check with; where there are none, these are the same.
        backgrounds: What to mix them with.
        model: Whose prompts the backgrounds are known by.
        shelf: Where all of them are kept.
        seed: Of everything that is drawn. The name of the new prompt takes no part in it.
    """

    def __init__(
        self,
        learnt: tuple[Clip, ...],
        held_back: tuple[Clip, ...],
        backgrounds: BackgroundParts,
        model: WaveformModel,
        shelf: ClipShelf,
        seed: int,
    ) -> None:
        self._shelf = shelf
        self._seed = seed
        self._prompts = model.prompts.names
        self._rows = {prompt: row for row, prompt in enumerate((*self._prompts, _SOUND))}
        self._scenes = _scenes(backgrounds.learnt)
        names = {prompt for scene in self._scenes for prompt in scene.prompts}
        names |= set(backgrounds.learnt)
        recipe = MixRecipe(
            crop_s=_CROP_S,
            scenes=self._scenes,
            gain_db=dict.fromkeys(names, (-10.0, 0.0)),
            common_bandwidth_probability=0.5,
        )
        self._planner = Planner(recipe, {_SOUND: learnt, **backgrounds.learnt})
        checker = Planner(
            dataclasses.replace(recipe, common_bandwidth_probability=0.0),
            {_SOUND: held_back or learnt, **backgrounds.held_back},
        )
        pairs = tuple(scene for scene in self._scenes if len(scene.prompts) == 2)
        drawn = fixed_plans(
            checker, pairs, 2 * _CHECKS_PER_SCENE, shelf.read, shelf.sample_rate, seed
        ).values()
        self._choosing = [
            self._render((self._asked(plan, False),))
            for plans in drawn
            for plan in plans[:_CHECKS_PER_SCENE]
        ]
        self._reporting = [plan for plans in drawn for plan in plans[_CHECKS_PER_SCENE:]]

    def batches(self, label: str = "learn") -> Iterator[MixtureBatch]:
        """Mixtures to learn from; equal labels give equal ones."""
        number = 0
        while True:
            rng = random.Random(f"{self._seed}/{label}/{number}")
            scene = rng.choices(self._scenes, [each.weight for each in self._scenes])[0]
            is_alone = rng.random() < _ALONE
            plans = tuple(
                self._asked(
                    self._maybe_absent(self._planner.draw_mixture(scene.prompts, rng), rng),
                    is_alone,
                )
                for _ in range(_BATCH_SIZE)
            )
            yield self._render(plans)
            number += 1

    def looks(self) -> tuple[MixtureBatch, ...]:
        """A few mixtures that are asked for the sound alone."""
        stream = self.batches("look")
        looks: list[MixtureBatch] = []
        while len(looks) < _LOOK_BATCHES:
            batch = next(stream)
            place = self._place(batch)
            only = slice(place, place + 1)
            looks.append(
                MixtureBatch(
                    batch.mixture, batch.references[:, only], batch.prompt_indices[:, only]
                )
            )
        return tuple(looks)

    def score(self, model: WaveformModel) -> float:
        """Mean SI-SDR improvement of the sound, in dB, on the mixtures to choose with."""
        fast = for_inference(model)
        gains = [self._gain(self._estimate(fast, batch), batch) for batch in self._choosing]
        return sum(gains) / len(gains)

    def examples(self, before: WaveformModel, after: WaveformModel) -> tuple[Example, ...]:
        """The mixtures to report with as two models take them apart."""
        fast = [for_inference(model) for model in (before, after)]
        examples = []
        for plan in self._reporting:
            batch = self._render((self._asked(plan, False),))
            stems = [self._estimate(model, batch) for model in fast]
            examples.append(
                Example(
                    background=tuple(
                        source.prompt for source in plan.sources if source.prompt != _SOUND
                    ),
                    mixture=batch.mixture[0],
                    reference=batch.references[0, self._place(batch)],
                    before=stems[0],
                    after=stems[1],
                    before_db=self._gain(stems[0], batch),
                    after_db=self._gain(stems[1], batch),
                )
            )
        return tuple(examples)

    def levels_when_absent_db(self, model: WaveformModel) -> tuple[float, ...]:
        """Level of the sound's stem relative to the mixture where the sound is absent.

        These are the mixtures to report with, without the sound.
        """
        fast = for_inference(model)
        levels = []
        for plan in self._reporting:
            batch = self._render((self._asked(_without_the_sound(plan), False),))
            estimate = self._estimate(fast, batch)
            ratio = estimate.square().sum() / batch.mixture.square().sum().clamp_min(1e-12)
            levels.append(10.0 * float(ratio.clamp_min(1e-12).log10()))
        return tuple(levels)

    def _place(self, batch: MixtureBatch) -> int:
        return int((batch.prompt_indices[0] == self._rows[_SOUND]).nonzero()[0])

    def _estimate(self, model: WaveformModel, batch: MixtureBatch) -> Float[Tensor, "time"]:
        with torch.no_grad():
            return model(batch.mixture, batch.prompt_indices)[0, self._place(batch)]

    def _gain(self, estimate: Float[Tensor, "time"], batch: MixtureBatch) -> float:
        reference = batch.references[0, self._place(batch)]
        return float(si_sdr_db(estimate, reference) - si_sdr_db(batch.mixture[0], reference))

    def _render(self, plans: tuple[MixPlan, ...]) -> MixtureBatch:
        return render_batch(plans, self._shelf.read, self._shelf.sample_rate, self._rows)

    def _asked(self, plan: MixPlan, is_alone: bool) -> MixPlan:
        """Ask for the sound, and for what is beside it where a prompt is known for that."""
        sources = tuple(
            dataclasses.replace(
                source,
                is_asked=source.prompt == _SOUND
                or (not is_alone and source.prompt in self._prompts),
            )
            for source in plan.sources
        )
        return dataclasses.replace(plan, sources=sources)

    def _maybe_absent(self, plan: MixPlan, rng: random.Random) -> MixPlan:
        """Now and then the sound is not there, so that its prompt learns to be silent."""
        return _without_the_sound(plan) if rng.random() < _ABSENT else plan


def _without_the_sound(plan: MixPlan) -> MixPlan:
    sources = tuple(
        SourcePlan(source.prompt, (), source.gain_db) if source.prompt == _SOUND else source
        for source in plan.sources
    )
    return dataclasses.replace(plan, sources=sources)


def _scenes(backgrounds: Mapping[str, tuple[Clip, ...]]) -> tuple[Scene, ...]:
    """The sound with one or two backgrounds; speech first and music last, as models learnt it."""
    has_music = "music-mix" in backgrounds or any(
        instrument in backgrounds for instrument in ("drums", "bass", "other", "vocals")
    )
    kinds = [kind for kind in ("speech", "sfx", "sfx-mix", ANYTHING) if kind in backgrounds]
    kinds += ["music-mix"] if has_music else []
    after = ("music-mix", ANYTHING)
    scenes = [
        Scene((_SOUND, kind) if kind in after else (kind, _SOUND), 1.0 if kind == "sfx" else 2.0)
        for kind in kinds
    ]
    if "speech" in kinds and has_music:
        scenes.append(Scene(("speech", _SOUND, "music-mix"), 1.0))
    return tuple(scenes)
