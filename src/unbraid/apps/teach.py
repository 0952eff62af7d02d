"""Teach a model a sound: clips of it in, a prompt of a few kilobytes out.

Clips are mixed with backgrounds, the vectors of the new prompt begin at the known prompt that
comes nearest and learn to bring the sound out of the mixtures, and clips that were held back tell
how well that went. The model stays as it is.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._version import __version__
from unbraid.apps.backgrounds import ANYTHING, Backgrounds, backgrounds_in, our_backgrounds
from unbraid.apps.example_clips import ExampleClip, ExampleClips, read_examples
from unbraid.apps.queries import query_from_clips
from unbraid.checkpoints import prompt_files
from unbraid.checkpoints.bundle import Bundle
from unbraid.checkpoints.prompt_files import PromptFile, check_prompt_name, model_fingerprint
from unbraid.data.dynamic import MixtureBatch, render_batch
from unbraid.data.fixed import fixed_plans
from unbraid.data.shelf import ClipShelf
from unbraid.errors import ConfigError, PromptError
from unbraid.mixing.recipe import Clip, MixPlan, MixRecipe, Planner, Scene, SourcePlan
from unbraid.models.inference import for_inference
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.measures import si_sdr_db
from unbraid.prompts import check_free_name
from unbraid.training.methods.checked_learning import Check
from unbraid.training.methods.prompt_tuning import (
    TuningConfig,
    nearest_prompt,
    tune_prompts,
)
from unbraid.types import Step, StepCallback

# Of the mixtures; longer ones cost time and teach little more.
_CROP_S = 2.0
_BATCH_SIZE = 2
# One clip in five is held back, and one at least.
_HELD_BACK = 5
_CHECKS_PER_SCENE = 4
# Share of batches in which nobody asks for the background, and of mixtures without the sound.
_ALONE = 0.25
_ABSENT = 0.12
# A step takes so many times as long as looking at its mixtures once: forward and backward.
_STEP_TO_LOOK = 3.0
_LOOK_BATCHES = 3
# What is kept of the time for checks and the report.
_RESERVE = 0.3


@dataclass(frozen=True)
class TeachOptions:
    """How a sound is taught.

    Attributes:
        minutes: Time that reading, learning and checking may take; the report comes on top.
        background: Folder of recordings to mix with, see ``backgrounds.backgrounds_in``; None for
            the sounds that ship with unbraid.
        vectors: What learns: one vector per ``band``, or ``one`` for all bands. Networks that
            take one vector only have one.
        start: Where it begins: at the ``nearest`` of the model's prompts, at the mean of what
            the model's tagger hears in the clips (``clips``), at ``random``, or at the prompt of
            this name. None for ``clips`` where the model has a tagger, else ``nearest``.
        tuning: How it learns; ``num_steps`` is the most.
        seed: Of everything that is drawn.
        licence: Licence of the prompt, as its file will say.
        note: A line for those who get the file.
    """

    minutes: float = 2.5
    background: Path | None = None
    vectors: Literal["band", "one"] = "band"
    start: str | None = None
    tuning: TuningConfig = field(default_factory=TuningConfig)
    seed: int = 0
    licence: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise ConfigError(f"minutes must be more than 0, not {self.minutes:g}.")
        if self.tuning.network_learning_rate is not None:
            raise ConfigError(
                "tuning.network_learning_rate must be None: a taught prompt belongs to the network "
                "as it is; use tune_prompts for joint tuning."
            )


@dataclass(frozen=True, eq=False)
class Example:
    """A mixture of the check, before and after.

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


@dataclass(frozen=True, eq=False)
class Lesson:
    """What came of teaching.

    Attributes:
        prompt: The new prompt, not yet written anywhere.
        model: The model that knows it.
        clips: What it learnt from.
        num_held_back: How many of them it was checked with instead; 0 where there was only one,
            and the check is on what it learnt.
        start: What its vectors began with.
        checks: Mean SI-SDR improvement on the check's mixtures, in dB, while it learnt.
        best: The check that the prompt is from.
        examples: The mixtures of the check.
        absent_before_db: Level of the prompt's stem relative to the mixture where its sound is
            absent, with the vectors of the start.
        absent_after_db: The same in the end.
        seconds: How long it took.
        warnings: What is odd about the clips.
    """

    prompt: PromptFile
    model: WaveformModel
    clips: ExampleClips
    num_held_back: int
    start: str
    checks: tuple[Check, ...]
    best: Check
    examples: tuple[Example, ...]
    absent_before_db: float
    absent_after_db: float
    seconds: float
    warnings: tuple[str, ...]

    @property
    def before_db(self) -> float:
        """Mean SI-SDR improvement before it learnt."""
        return self.checks[0].score

    @property
    def after_db(self) -> float:
        """Mean SI-SDR improvement of the prompt."""
        return self.best.score


def teach(
    bundle: Bundle,
    name: str,
    paths: Sequence[Path],
    options: TeachOptions = TeachOptions(),
    on_step: StepCallback = lambda step: None,
) -> Lesson:
    """Teach a model a sound.

    Args:
        bundle: The model; it stays as it is.
        name: What the new prompt is to be called.
        paths: Clips in which the sound is heard alone, or folders of them.
        options: How.
        on_step: Called as it goes on; may raise ``Cancelled``.

    Raises:
        PromptError: If the name is none for a prompt or is taken, or the model takes no prompts.
        AudioError: If the clips or backgrounds cannot be used.
        ConfigError: If the options do not fit the model.
    """
    begun = time.monotonic()
    deadline = begun + 60.0 * options.minutes
    model = bundle.model
    _check_name(name, model)
    _check_start(options.start, model)
    on_step(Step("reading the clips", 0, None, "files"))
    examples = read_examples(paths, model.sample_rate)
    learnt, held_back = _split(examples.clips, options.seed)
    shelf = ClipShelf(model.sample_rate)
    backgrounds = (
        our_backgrounds(shelf)
        if options.background is None
        else backgrounds_in(options.background, model.prompts.names, shelf)
    )
    lesson_plan = _LessonPlan(
        name,
        _shelve(learnt, shelf),
        _shelve(held_back, shelf) if held_back else (),
        backgrounds,
        model,
        shelf,
        options.seed,
    )
    on_step(Step("looking for a start", 0, None, "mixtures"))
    looks = lesson_plan.looks()
    started = _start(model, name, examples, looks, options)
    before = model.with_prompts({name: started.vectors})
    step_s = _seconds_per_step(before, looks)
    left_s = (deadline - time.monotonic()) * (1.0 - _RESERVE)
    num_steps = max(1, min(options.tuning.num_steps, int(left_s / step_s)))
    tuning = dataclasses.replace(options.tuning, num_steps=num_steps)

    def goes_on(step: int) -> bool:
        on_step(Step(f"teaching {name}", step, num_steps, "mixtures"))
        return time.monotonic() < deadline

    tuned = tune_prompts(
        model, {name: started.vectors}, lesson_plan.batches(), lesson_plan.score, tuning, goes_on
    )
    seconds = time.monotonic() - begun
    absent = [lesson_plan.level_when_absent_db(each) for each in (before, tuned.model)]
    lesson = Lesson(
        prompt=PromptFile(name, tuned.vectors[name], model_fingerprint(bundle.folder)),
        model=tuned.model,
        clips=examples,
        num_held_back=len(held_back),
        start=started.name,
        checks=tuned.checks,
        best=tuned.best,
        examples=lesson_plan.examples(before, tuned.model),
        absent_before_db=absent[0],
        absent_after_db=absent[1],
        seconds=seconds,
        warnings=(*examples.warnings, *_scarcity(examples, held_back)),
    )
    provenance = _provenance(lesson, bundle, backgrounds, options)
    return dataclasses.replace(
        lesson, prompt=dataclasses.replace(lesson.prompt, provenance=provenance)
    )


class _LessonPlan:
    """The mixtures of a lesson: an endless stream to learn from, and fixed ones to check with."""

    def __init__(
        self,
        name: str,
        learnt: tuple[Clip, ...],
        held_back: tuple[Clip, ...],
        backgrounds: Backgrounds,
        model: WaveformModel,
        shelf: ClipShelf,
        seed: int,
    ) -> None:
        self._name = name
        self._shelf = shelf
        self._seed = seed
        self._prompts = model.prompts.names
        self._rows = {prompt: row for row, prompt in enumerate((*self._prompts, name))}
        self._scenes = _scenes(name, backgrounds)
        names = {prompt for scene in self._scenes for prompt in scene.prompts}
        names |= set(backgrounds.clips)
        self._recipe = MixRecipe(
            crop_s=_CROP_S,
            scenes=self._scenes,
            gain_db=dict.fromkeys(names, (-10.0, 0.0)),
            common_bandwidth_probability=0.5,
        )
        self._planner = Planner(self._recipe, {name: learnt, **backgrounds.clips})
        checker = Planner(
            dataclasses.replace(self._recipe, common_bandwidth_probability=0.0),
            {name: held_back or learnt, **backgrounds.clips},
        )
        pairs = tuple(scene for scene in self._scenes if len(scene.prompts) == 2)
        plans = fixed_plans(checker, pairs, _CHECKS_PER_SCENE, shelf.read, shelf.sample_rate, seed)
        self._checks = [plan for some in plans.values() for plan in some]

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
        """Mean SI-SDR improvement of the sound on the mixtures of the check, in dB."""
        fast = for_inference(model)
        gains = [self._gain(self._estimate(fast, batch), batch) for batch in self._check_batches()]
        return sum(gains) / len(gains)

    def level_when_absent_db(self, model: WaveformModel) -> float:
        """Mean level of the sound's stem relative to the mixture where the sound is absent."""
        fast = for_inference(model)
        levels = []
        for plan in self._checks:
            silent = tuple(
                dataclasses.replace(source, parts=()) if source.prompt == self._name else source
                for source in plan.sources
            )
            batch = self._render((self._asked(dataclasses.replace(plan, sources=silent), False),))
            estimate = self._estimate(fast, batch)
            ratio = estimate.square().sum() / batch.mixture.square().sum().clamp_min(1e-12)
            levels.append(10.0 * float(ratio.clamp_min(1e-12).log10()))
        return sum(levels) / len(levels)

    def examples(self, before: WaveformModel, after: WaveformModel) -> tuple[Example, ...]:
        """The mixtures of the check as two models take them apart."""
        fast = [for_inference(model) for model in (before, after)]
        examples = []
        for plan, batch in zip(self._checks, self._check_batches(), strict=True):
            stems = [self._estimate(model, batch) for model in fast]
            examples.append(
                Example(
                    background=tuple(
                        source.prompt for source in plan.sources if source.prompt != self._name
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

    def _check_batches(self) -> Iterator[MixtureBatch]:
        for plan in self._checks:
            yield self._render((self._asked(plan, False),))

    def _place(self, batch: MixtureBatch) -> int:
        return int((batch.prompt_indices[0] == self._rows[self._name]).nonzero()[0])

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
                is_asked=source.prompt == self._name
                or (not is_alone and source.prompt in self._prompts),
            )
            for source in plan.sources
        )
        return dataclasses.replace(plan, sources=sources)

    def _maybe_absent(self, plan: MixPlan, rng: random.Random) -> MixPlan:
        """Now and then the sound is not there, so that its prompt learns to be silent."""
        if rng.random() >= _ABSENT:
            return plan
        sources = tuple(
            SourcePlan(source.prompt, (), source.gain_db) if source.prompt == self._name else source
            for source in plan.sources
        )
        return dataclasses.replace(plan, sources=sources)


@dataclass(frozen=True, eq=False)
class _Start:
    name: str
    vectors: Float[Tensor, "vector dim"]


def _scenes(name: str, backgrounds: Backgrounds) -> tuple[Scene, ...]:
    """The sound with one or two backgrounds; speech first and music last, as models learnt it."""
    has_music = "music-mix" in backgrounds.clips or any(
        instrument in backgrounds.clips for instrument in ("drums", "bass", "other", "vocals")
    )
    kinds = [kind for kind in ("speech", "sfx", "sfx-mix", ANYTHING) if kind in backgrounds.clips]
    kinds += ["music-mix"] if has_music else []
    after = ("music-mix", ANYTHING)
    scenes = [
        Scene((name, kind) if kind in after else (kind, name), 1.0 if kind == "sfx" else 2.0)
        for kind in kinds
    ]
    if "speech" in kinds and has_music:
        scenes.append(Scene(("speech", name, "music-mix"), 1.0))
    return tuple(scenes)


def _start(
    model: WaveformModel,
    name: str,
    examples: ExampleClips,
    looks: Sequence[MixtureBatch],
    options: TeachOptions,
) -> _Start:
    """Where the vectors begin."""
    kind = options.start or ("clips" if model.tagger is not None else "nearest")
    if kind == "clips":
        found = "the mean of the clips"
        vector = query_from_clips(model, [clip.path for clip in examples.clips])
    elif kind == "random":
        found = kind
        generator = torch.Generator().manual_seed(options.seed)
        vector = torch.randn(model.prompts.dim, generator=generator)
    else:
        found = nearest_prompt(model, name, looks, options.tuning) if kind == "nearest" else kind
        vector = model.prompts.weight[model.prompts.names.index(found)].detach()
    num_vectors = max(model.network.query_vectors) if options.vectors == "band" else 1
    return _Start(found, vector.repeat(num_vectors, 1))


def _seconds_per_step(model: WaveformModel, looks: Sequence[MixtureBatch]) -> float:
    """How long a step will take, by looking at some mixtures with a model that knows the prompt."""
    begun = time.monotonic()
    _look(model, looks)
    # A look asks for one source, a step for two in most cases.
    return _STEP_TO_LOOK * 1.5 * (time.monotonic() - begun) / len(looks)


@torch.no_grad()
def _look(model: WaveformModel, looks: Sequence[MixtureBatch]) -> None:
    for batch in looks:
        model(batch.mixture, batch.prompt_indices)


def _check_name(name: str, model: WaveformModel) -> None:
    check_prompt_name(name)
    if model.network.num_outputs is not None:
        raise PromptError(
            "this model always gives the same outputs, so it cannot be taught a prompt; choose a "
            "model that is asked with prompts, such as mini."
        )
    check_free_name(name, model.prompts.names)


def _check_start(start: str | None, model: WaveformModel) -> None:
    """Refuse a start that this model does not have."""
    known = model.prompts.names
    choices = [*["nearest"] * bool(known), *["clips"] * (model.tagger is not None), "random"]
    if start is None or start in (*choices, *known):
        return
    if start == "clips":
        problem = "this model has no tagger to hear them with"
    elif start == "nearest":
        problem = "this model has learned no prompt that could be the nearest"
    else:
        problem = "unknown"
    of_model = f", or a prompt of the model: {', '.join(known)}" if known else ""
    raise ConfigError(f"--start {start}: {problem}; choose {', '.join(choices)}{of_model}.")


def _split(
    clips: tuple[ExampleClip, ...], seed: int
) -> tuple[tuple[ExampleClip, ...], tuple[ExampleClip, ...]]:
    """Clips to learn from and clips to check with; of a single one nothing is held back."""
    if len(clips) < 2:
        return clips, ()
    order = random.Random(seed).sample(range(len(clips)), len(clips))
    num_held_back = max(1, len(clips) // _HELD_BACK)
    held_back = set(order[:num_held_back])
    return (
        tuple(clip for place, clip in enumerate(clips) if place not in held_back),
        tuple(clip for place, clip in enumerate(clips) if place in held_back),
    )


def _scarcity(examples: ExampleClips, held_back: Sequence[ExampleClip]) -> list[str]:
    if held_back:
        return []
    clip = examples.clips[0]
    return [
        f"one clip only ({examples.seconds(clip):.1f} s): nothing could be held back, so the "
        "figures are on the sound that it learnt from. Five clips make a prompt that knows others."
    ]


def _shelve(clips: Sequence[ExampleClip], shelf: ClipShelf) -> tuple[Clip, ...]:
    """Clips as the planner knows them; where none of its blocks is loud, a clip counts whole."""
    shelved = []
    for clip in clips:
        entry = shelf.add(f"example/{clip.path}", clip.samples, clip.bandwidth_hz)
        shelved.append(entry if entry.active_s else dataclasses.replace(entry, active_s=(0.0,)))
    return tuple(shelved)


def _provenance(
    lesson: Lesson, bundle: Bundle, backgrounds: Backgrounds, options: TeachOptions
) -> Mapping[str, Any]:
    facts: dict[str, Any] = {
        prompt_files.MODEL_NAME: bundle.card.name,
        prompt_files.MODEL_DIGEST: bundle.digest,
        prompt_files.UNBRAID: __version__,
        prompt_files.CREATED: datetime.now(UTC).isoformat(timespec="seconds"),
        prompt_files.CLIPS: [
            {
                "name": clip.path.name,
                "sha256": clip.sha256,
                "seconds": round(lesson.clips.seconds(clip), 2),
            }
            for clip in lesson.clips.clips
        ],
        prompt_files.BACKGROUND: backgrounds.description,
        prompt_files.SETTINGS: {
            "start": lesson.start,
            "vectors": options.vectors,
            "loss": options.tuning.loss,
            "learning_rate": options.tuning.learning_rate,
            "steps": lesson.checks[-1].step,
            "best_step": lesson.best.step,
            "held_back": lesson.num_held_back,
            "seed": options.seed,
        },
        prompt_files.BEFORE_DB: round(lesson.before_db, 2),
        prompt_files.AFTER_DB: round(lesson.after_db, 2),
    }
    if options.licence:
        facts[prompt_files.LICENCE] = options.licence
    if options.note:
        facts[prompt_files.NOTE] = options.note
    return facts
