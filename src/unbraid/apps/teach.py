"""Teach a model a sound: clips of it in, a prompt of a few kilobytes out.

Clips are mixed with backgrounds, the vectors of the new prompt begin at the known prompt that
comes nearest and learn to bring the sound out of the mixtures, and clips and backgrounds that were
held back tell how well that went. The model stays as it is.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._version import __version__
from unbraid.apps.backgrounds import Backgrounds, backgrounds_in, our_backgrounds
from unbraid.apps.example_clips import ExampleClip, ExampleClips, read_examples
from unbraid.apps.lesson_plan import Example, LessonPlan, part_backgrounds
from unbraid.apps.queries import mean_embedding, tagger_of
from unbraid.checkpoints import prompt_files
from unbraid.checkpoints.bundle import Bundle
from unbraid.checkpoints.prompt_files import PromptFile, check_prompt_name, model_fingerprint
from unbraid.data.dynamic import MixtureBatch
from unbraid.data.shelf import ClipShelf
from unbraid.errors import ConfigError, PromptError
from unbraid.mixing.recipe import Clip
from unbraid.models.waveform import WaveformModel
from unbraid.prompts import check_free_name
from unbraid.training.methods.checked_learning import Check
from unbraid.training.methods.prompt_tuning import (
    TunedPrompts,
    TuningConfig,
    nearest_prompt,
    tune_prompts,
)
from unbraid.types import Step, StepCallback

# One clip in five is held back, and one at least.
_HELD_BACK = 5
# A step takes so many times as long as looking at its mixtures once: forward and backward.
_STEP_TO_LOOK = 3.0
# What is kept of the time for checks and the report.
_RESERVE = 0.3
# A week.
_MOST_MINUTES = 7 * 24 * 60
# A gain of less than so many standard errors can be chance.
_CLEAR = 2.0


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
        fills_time: Take as many steps as fit into the time instead, whatever the checks say;
            between two of these there are more steps in proportion.
        seed: Of everything that is drawn.
        licence: Licence of the prompt, as its file will say.
        note: A line for those who get the file.
    """

    minutes: float = 2.5
    background: Path | None = None
    vectors: Literal["band", "one"] = "band"
    start: str | None = None
    tuning: TuningConfig = field(default_factory=TuningConfig)
    fills_time: bool = False
    seed: int = 0
    licence: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.minutes <= _MOST_MINUTES:
            raise ConfigError(
                f"minutes must be more than 0 and at most {_MOST_MINUTES} (a week), not "
                f"{self.minutes:g}."
            )
        if self.tuning.network_learning_rate is not None:
            raise ConfigError(
                "tuning.network_learning_rate must be None: a taught prompt belongs to the network "
                "as it is; use tune_prompts for joint tuning."
            )


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
        checks: Mean SI-SDR improvement on the mixtures to choose with, in dB, while it learnt.
        best: The check that the prompt is from.
        ended: Why it learnt no longer.
        examples: The mixtures that it is reported with; no state was chosen on them.
        absent_before_db: Level of the prompt's stem relative to each of these mixtures without
            the sound, with the vectors of the start.
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
    ended: str
    examples: tuple[Example, ...]
    absent_before_db: tuple[float, ...]
    absent_after_db: tuple[float, ...]
    seconds: float
    warnings: tuple[str, ...]

    @property
    def before_db(self) -> float:
        """Mean SI-SDR improvement of the start."""
        return fmean(example.before_db for example in self.examples)

    @property
    def after_db(self) -> float:
        """Mean SI-SDR improvement of the prompt."""
        return fmean(example.after_db for example in self.examples)

    @property
    def gain_error_db(self) -> float:
        """Standard error of what it gained, see ``gain_error_db``."""
        return gain_error_db(self.examples)

    @property
    def verdict(self) -> str:
        """What it gained, in words: no clear gain where that is less than two standard errors."""
        gain_db = self.after_db - self.before_db
        # Nobody wants to read -0.0.
        figures = f"{round(gain_db, 1) + 0.0:+.1f} ± {self.gain_error_db:.1f} dB"
        if abs(gain_db) <= _CLEAR * self.gain_error_db:
            return f"no clear gain: {figures}"
        return f"{'gain' if gain_db > 0 else 'loss'} of {figures}"


def gain_error_db(examples: Sequence[Example]) -> float:
    """Standard error of the mean gain, in dB: how much it would vary with other mixtures.

    The clips and backgrounds are the same in all of them, and what others would change is not in
    it.

    Args:
        examples: Two or more.
    """
    gains = [example.after_db - example.before_db for example in examples]
    return stdev(gains) / math.sqrt(len(gains))


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
    parts = part_backgrounds(backgrounds.clips, shelf, options.seed)
    lesson_plan = LessonPlan(
        _shelve(learnt, shelf), _shelve(held_back, shelf), parts, model, shelf, options.seed
    )
    on_step(Step("looking for a start", 0, None, "mixtures"))
    looks = lesson_plan.looks()
    started = _start(model, name, learnt, looks, options)
    before = model.with_prompts({name: started.vectors})
    step_s = _seconds_per_step(before, looks)
    left_s = (deadline - time.monotonic()) * (1.0 - _RESERVE)
    tuning = _within(options, max(1, int(left_s / step_s)))
    num_steps = tuning.num_steps

    def goes_on(step: int) -> bool:
        on_step(Step(f"teaching {name}", step, num_steps, "mixtures"))
        return time.monotonic() < deadline

    tuned = tune_prompts(
        model, {name: started.vectors}, lesson_plan.batches(), lesson_plan.score, tuning, goes_on
    )
    seconds = time.monotonic() - begun
    lesson = Lesson(
        prompt=PromptFile(name, tuned.vectors[name], model_fingerprint(bundle.folder)),
        model=tuned.model,
        clips=examples,
        num_held_back=len(held_back),
        start=started.name,
        checks=tuned.checks,
        best=tuned.best,
        ended=_why_it_ended(tuned, tuning, options),
        examples=lesson_plan.examples(before, tuned.model),
        absent_before_db=lesson_plan.levels_when_absent_db(before),
        absent_after_db=lesson_plan.levels_when_absent_db(tuned.model),
        seconds=seconds,
        warnings=(*examples.warnings, *_scarcity(examples, held_back, parts.shared)),
    )
    provenance = _provenance(lesson, bundle, backgrounds, options)
    return dataclasses.replace(
        lesson, prompt=dataclasses.replace(lesson.prompt, provenance=provenance)
    )


def _within(options: TeachOptions, most_steps: int) -> TuningConfig:
    """How it learns if no more steps than these fit into the time."""
    tuning = options.tuning
    if not options.fills_time:
        return dataclasses.replace(tuning, num_steps=min(tuning.num_steps, most_steps))
    check_every = round(tuning.check_every * most_steps / tuning.num_steps)
    return dataclasses.replace(
        tuning,
        num_steps=most_steps,
        check_every=max(tuning.check_every, check_every),
        # Most is gained while the learning rate falls, near the end.
        patience=most_steps,
    )


def _why_it_ended(tuned: TunedPrompts, tuning: TuningConfig, options: TeachOptions) -> str:
    last = tuned.checks[-1]
    done = f"{last.step} step{'' if last.step == 1 else 's'}"
    if last.loss is not None and not math.isfinite(last.loss):
        return f"after {done}: its loss was no finite number any more"
    if tuned.is_over:
        return f"after {done}: {tuning.patience} checks brought nothing better"
    if last.step < tuning.num_steps:
        return f"after {done}: the time of {options.minutes:g} min was over"
    if options.fills_time or tuning.num_steps < options.tuning.num_steps:
        return f"after {done}, as many as were planned for {options.minutes:g} min"
    return f"after {done}, the most it was to take"


@dataclass(frozen=True, eq=False)
class _Start:
    name: str
    vectors: Float[Tensor, "vector dim"]


def _start(
    model: WaveformModel,
    name: str,
    learnt: Sequence[ExampleClip],
    looks: Sequence[MixtureBatch],
    options: TeachOptions,
) -> _Start:
    """Where the vectors begin."""
    kind = options.start or ("clips" if model.tagger is not None else "nearest")
    if kind == "clips":
        found = "the mean of the clips"
        vector = mean_embedding(
            tagger_of(model), [clip.samples for clip in learnt], model.sample_rate
        )
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


def _scarcity(
    examples: ExampleClips, held_back: Sequence[ExampleClip], shared: Sequence[str]
) -> list[str]:
    found = []
    if not held_back:
        clip = examples.clips[0]
        found.append(
            f"one clip only ({examples.seconds(clip):.1f} s): nothing could be held back, so the "
            "figures are on the sound that it learnt from. Five clips make a prompt that knows "
            "others."
        )
    if shared:
        found.append(
            f"background {', '.join(shared)}: too few and too short recordings to hold some back, "
            "so the figures are on those that it learnt with; give four of each, or longer ones."
        )
    return found


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
            "ended": lesson.ended,
            "held_back": lesson.num_held_back,
            "mixtures": len(lesson.examples),
            "seed": options.seed,
        },
        prompt_files.BEFORE_DB: round(lesson.before_db, 2),
        prompt_files.AFTER_DB: round(lesson.after_db, 2),
        prompt_files.GAIN_ERROR_DB: round(lesson.gain_error_db, 2),
        prompt_files.VERDICT: lesson.verdict,
        prompt_files.ABSENT_DB: round(median(lesson.absent_after_db), 2),
        prompt_files.ABSENT_WORST_DB: round(max(lesson.absent_after_db), 2),
    }
    if options.licence:
        facts[prompt_files.LICENCE] = options.licence
    if options.note:
        facts[prompt_files.NOTE] = options.note
    return facts
