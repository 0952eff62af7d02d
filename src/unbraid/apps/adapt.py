"""Adapt a model to recordings whose sources nobody knows: one microphone, one room, one genre.

The model separates the recordings, its sources change places, and it learns to separate what that
makes. Two things that it does not learn from tell whether that was good: recordings that were
held back, and mixtures of other sounds that it is not to forget.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.example_clips import files_in
from unbraid.apps.known_mixtures import known_mixtures
from unbraid.apps.separator import best_device
from unbraid.checkpoints.bundle import Bundle
from unbraid.data.unlabelled import Parts, UnlabelledRecordings, hold_back
from unbraid.errors import AudioError, ConfigError, PromptError, TrainingError, in_brief
from unbraid.folders import user_cache_dir
from unbraid.mixing.recipe import ACTIVE_BLOCK_S, Clip
from unbraid.mixing.remix import check_batch_size
from unbraid.models.inference import for_inference
from unbraid.models.waveform import WaveformModel
from unbraid.training.methods.adapting import REMIXING, RemixedCheck, SelfTeaching
from unbraid.training.methods.checked_learning import timed
from unbraid.training.methods.fine_tuning import FineTuningConfig, TunedModel, Tuning, What
from unbraid.training.methods.remixing import RemixingConfig
from unbraid.types import Step, StepCallback

#: Steps between two checks.
CHECK_EVERY = 20
# One recording in five is held back, and one at least.
_HELD_BACK = 0.2
_CHECK_BATCHES = 6
#: Less sound than this teaches nothing.
LEAST_SOUND_S = 10.0
_NUM_EXAMPLES = 2
_LONGEST_EXAMPLE_S = 6.0


def learning_rate_for(what: What) -> float:
    """The rate where nobody names one: a third of that with references, which say more."""
    return FineTuningConfig(what).rate / 3.0


@dataclass(frozen=True)
class AdaptOptions:
    """How a model is adapted.

    Attributes:
        prompts: What the recordings hold, all of it: a prompt for each source.
        minutes: Time that learning and checks may take, after the recordings were read.
        tuning: What learns, and how; ``num_steps`` is the most.
        remixing: What is remixed, and what it is held against.
        crop_s: Length of the crops that it learns from; cut to what suits the model.
        batch_size: Crops in a step; at least as many as prompts.
        tolerance_db: How far SI-SDR on the mixtures that are not to be forgotten may fall.
        keeps_last: Take the weights of the last check, whatever the checks say.
        device: Where it learns, as torch names it; None for a GPU if there is one.
        seed: Of everything that is drawn.
        cache_dir: Where notes about the recordings are kept; None for the user's cache folder.
    """

    prompts: tuple[str, ...]
    minutes: float = 10.0
    tuning: FineTuningConfig = field(
        default_factory=lambda: FineTuningConfig(
            "network", learning_rate_for("network"), num_steps=60, check_every=CHECK_EVERY
        )
    )
    remixing: RemixingConfig = REMIXING
    crop_s: float = 2.0
    batch_size: int = 4
    tolerance_db: float = 0.5
    keeps_last: bool = False
    device: str | None = None
    seed: int = 0
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.minutes < math.inf:
            raise ConfigError(f"minutes must be more than 0, not {self.minutes:g}.")
        if not ACTIVE_BLOCK_S <= self.crop_s < math.inf:
            raise ConfigError(f"crop_s must be at least {ACTIVE_BLOCK_S}, not {self.crop_s:g}.")
        if not 0 <= self.tolerance_db < math.inf:
            raise ConfigError(f"tolerance_db may not be negative, and is {self.tolerance_db:g}.")
        if len(self.prompts) < 2:
            raise ConfigError(
                "prompts: name all sources that the recordings hold, two or more of them, such as "
                "speech,sfx-mix: one source alone leaves nothing to remix."
            )
        check_batch_size(self.batch_size, len(self.prompts), "raise the batch size")


@dataclass(frozen=True)
class AdaptingCheck:
    """What was found at a check.

    Attributes:
        step: Steps done before it; the first check comes before all steps.
        held_back_loss: Of remixing, on recordings that it does not learn from; lower is better.
        known_db: SI-SDR on the mixtures that are not to be forgotten; None if there are none.
    """

    step: int
    held_back_loss: float
    known_db: float | None


@dataclass(frozen=True, eq=False)
class AdaptedExample:
    """A piece of a recording that was held back, before and after.

    Attributes:
        mixture: The piece.
        before: What the model as it was makes of it.
        after: What the adapted one makes of it.
    """

    mixture: Float[Tensor, "time"]
    before: Float[Tensor, "source time"]
    after: Float[Tensor, "source time"]


@dataclass(frozen=True, eq=False)
class Adapted:
    """What came of adapting.

    Attributes:
        model: The adapted model, not yet written anywhere.
        tuned: How it learnt.
        options: With which options; prompts by their canonical names.
        num_recordings: How many recordings were used.
        num_held_back: How many of them were held back; 0 if it was the end of the only one.
        hours: How long they are together.
        checks: All of them, in order.
        examples: What there is to hear.
        seconds: How long it took.
        warnings: What is odd.
    """

    model: WaveformModel
    tuned: TunedModel
    options: AdaptOptions
    num_recordings: int
    num_held_back: int
    hours: float
    checks: tuple[AdaptingCheck, ...]
    examples: tuple[AdaptedExample, ...]
    seconds: float
    warnings: tuple[str, ...]

    @property
    def before(self) -> AdaptingCheck:
        """The model as it was."""
        return self.checks[0]

    @property
    def kept(self) -> AdaptingCheck:
        """The check that the model is from."""
        return next(check for check in self.checks if check.step == self.tuned.best.step)


def adapt(
    bundle: Bundle,
    recordings: Sequence[Path],
    options: AdaptOptions,
    on_step: StepCallback = lambda step: None,
) -> Adapted:
    """Adapt a model; the bundle stays as it is.

    Args:
        bundle: The model.
        recordings: Files, or folders of them.
        options: How.
        on_step: Called as it goes on; may raise ``Cancelled``.

    Raises:
        PromptError: If the model is not asked with prompts, or does not know one of these.
        AudioError: If the recordings cannot be used.
        ConfigError: If the options do not fit the model.
        MissingExtra: If adapters are wanted and peft is not installed.
        TrainingError: If nothing came of it that is worth keeping.
    """
    begun = time.monotonic()
    model = bundle.model
    prompts = _resolved(bundle, options.prompts)
    crop_s = min(options.crop_s, model.config.segment_s)
    on_step(Step("reading the recordings", 0, None, "files"))
    found = UnlabelledRecordings(
        _files(recordings), model.sample_rate, options.cache_dir or user_cache_dir()
    )
    parts = _parts(found, crop_s, options)

    device = torch.device(options.device or best_device())
    rows = model.prompts.indices(prompts)
    tuning = Tuning(model, options.tuning, device, options.seed)
    original = for_inference(copy.deepcopy(model).to(device))

    def batches(clips: Sequence[Clip], label: str) -> Iterator[Tensor]:
        return found.batches(clips, crop_s, options.batch_size, f"{options.seed}/{label}")

    def teaching(label: str) -> SelfTeaching:
        crops = batches(parts.learnt_from, label)
        return SelfTeaching(
            model, rows, crops, options.remixing, device, tuning.plain_copy, options.seed
        )

    crops = tuple(islice(batches(parts.held_back, "held back"), _CHECK_BATCHES))
    held_back = RemixedCheck(original, rows, crops, options.remixing, options.seed)
    known = known_mixtures(model.prompts.names, model.sample_rate)

    deadline = time.monotonic() + 60.0 * options.minutes
    on_step(Step("measuring the model as it is", 0, None, "mixtures"))
    checks: list[AdaptingCheck] = []

    def look_at(state: WaveformModel) -> AdaptingCheck:
        return AdaptingCheck(0, held_back.loss(state), known.si_sdr_db(state, device))

    start, check_s = timed(lambda: look_at(model))
    look = teaching("look")
    _, step_s = timed(lambda: look(tuning.model).backward())
    end = deadline - check_s
    step_s += check_s / options.tuning.check_every
    affordable = max(1, int((end - time.monotonic()) / step_s))
    num_steps = min(options.tuning.num_steps, affordable)

    def goes_on(step: int) -> bool:
        on_step(Step("adapting", step, num_steps, "mixtures"))
        return time.monotonic() < end

    def score(state: WaveformModel) -> float:
        # The first check is of the model as it is, which was looked at already.
        check = look_at(state) if checks else start
        checks.append(check)
        values = (check.held_back_loss, check.known_db or 0.0)
        if not all(map(math.isfinite, values)):
            return -math.inf
        if options.keeps_last:
            return float(len(checks))
        return -math.inf if _forgets(check, start, options) else -check.held_back_loss

    tuned = tuning.learn(teaching("learn"), score, num_steps, goes_on)
    numbered = tuple(
        AdaptingCheck(at.step, check.held_back_loss, check.known_db)
        for at, check in zip(tuned.checks, checks, strict=True)
    )
    if tuned.best.step == 0:
        raise TrainingError(_why_not(numbered, options, bundle.card.name))
    on_step(Step("making examples", 0, None, "mixtures"))
    clips = {clip.key: clip for clip in (*parts.learnt_from, *parts.held_back)}
    return Adapted(
        model=tuned.model,
        tuned=tuned,
        options=replace(options, prompts=prompts),
        num_recordings=len(clips),
        num_held_back=0 if parts.is_one else len(parts.held_back),
        hours=sum(clip.duration_s for clip in clips.values()) / 3600.0,
        checks=numbered,
        examples=_examples(found, parts, original, tuned.model.to(device), rows, options),
        seconds=time.monotonic() - begun,
        warnings=(*_oddities(found, parts), *_doubts(tuned, numbered, options)),
    )


def _resolved(bundle: Bundle, prompts: Sequence[str]) -> tuple[str, ...]:
    """The canonical names, once it is sure that the model can be asked for them."""
    model = bundle.model
    is_asked = model.tagger is None and model.network.num_outputs is None
    if not is_asked or model.network.num_channels > 1:
        raise PromptError(
            f"{bundle.card.name} is not a model of one channel that is asked with prompts, so it "
            "cannot tell which of its sources may change places; adapt one such as mini, or learn "
            "without prompts with `unbraid train` (method: remixing)."
        )
    return model.prompts.resolve(prompts)


def _files(recordings: Sequence[Path]) -> list[Path]:
    """All recordings that are meant, each once."""
    for path in recordings:
        if not path.exists():
            raise AudioError(f"{path}: no such file or folder.")
    files = {file.resolve(): None for path in recordings for file in files_in(path)}
    if not files:
        raise AudioError(
            f"{in_brief(map(str, recordings)) or 'no recordings'}: no recordings there; give "
            "files, or folders with some, of the kind that the model is to become better at."
        )
    return list(files)


def _parts(found: UnlabelledRecordings, crop_s: float, options: AdaptOptions) -> Parts:
    if not found.clips:
        if found.silent:
            raise AudioError(
                f"{in_brief(map(str, found.silent))}: silent; give recordings in which something "
                "is heard."
            )
        raise AudioError(f"{in_brief(map(str, found.unreadable))}: cannot be read.")
    sound_s = ACTIVE_BLOCK_S * sum(len(clip.active_s) for clip in found.clips)
    parts = hold_back(found.clips, _HELD_BACK, crop_s, options.seed)
    if sound_s < LEAST_SOUND_S or not (parts.learnt_from and parts.held_back):
        raise AudioError(
            f"{in_brief(clip.key for clip in found.clips)}: too short: {sound_s:.1f} s of sound "
            f"in all, at least {LEAST_SOUND_S:g} s are needed, better some minutes, and a part of "
            "them has to be held back; give more or longer recordings."
        )
    return parts


def _forgets(check: AdaptingCheck, start: AdaptingCheck, options: AdaptOptions) -> bool:
    """Whether a model does worse than it may on the mixtures that are not to be forgotten."""
    if check.known_db is None or start.known_db is None:
        return False
    return check.known_db < start.known_db - options.tolerance_db


def _why_not(checks: Sequence[AdaptingCheck], options: AdaptOptions, name: str) -> str:
    """Why nothing is kept, and what could help."""
    start, later = checks[0], checks[1:]
    found = [value for each in checks for value in (each.held_back_loss, each.known_db or 0.0)]
    if not all(map(math.isfinite, found)):
        why = "the loss became infinite; lower --learning-rate"
    elif better := [check for check in later if check.held_back_loss < start.held_back_loss]:
        lost = max((check.known_db or 0.0) - (start.known_db or 0.0) for check in better)
        why = (
            f"it became better on these recordings but forgot too much of others ({lost:+z.1f} dB, "
            f"{-options.tolerance_db:+z.1f} dB are allowed); lower --learning-rate, or allow more "
            "with --tolerance"
        )
    else:
        best = min(check.held_back_loss for check in later)
        why = (
            "no check was better on the recordings held back than the model as it is "
            f"({start.held_back_loss:.2f} dB before, {best:.2f} dB at best); give more recordings "
            "or more --minutes, or see whether --prompts names all that is in them"
        )
    # Weights that are no numbers are not kept even then.
    way_out = "" if options.keeps_last else " --keep-last keeps the last state regardless."
    return f"nothing was kept, {name} stays as it is: {why}.{way_out}"


def _examples(
    found: UnlabelledRecordings,
    parts: Parts,
    before: WaveformModel,
    after: WaveformModel,
    rows: Tensor,
    options: AdaptOptions,
) -> tuple[AdaptedExample, ...]:
    """Pieces of the recordings held back as the two models take them apart."""
    length_s = min(_LONGEST_EXAMPLE_S, after.config.segment_s)
    device = next(after.parameters()).device
    models = [before, for_inference(after)]
    examples = []
    for number in range(_NUM_EXAMPLES):
        rng = random.Random(f"{options.seed}/example/{number}")
        mixture = found.draw(parts.held_back, length_s, rng)
        with torch.no_grad():
            estimates = [
                model(mixture[None].to(device), rows[None].to(device))[0].cpu() for model in models
            ]
        examples.append(AdaptedExample(mixture, estimates[0], estimates[1]))
    return tuple(examples)


def _oddities(found: UnlabelledRecordings, parts: Parts) -> list[str]:
    oddities = [f"{path} is silent and was left out." for path in found.silent]
    oddities += [f"{path} cannot be read to its end and was left out." for path in found.unreadable]
    if parts.is_one:
        oddities.append(
            "there is one recording only: its end was held back, so the figures are on a recording "
            "that it knows."
        )
    return oddities


def _doubts(tuned: TunedModel, checks: Sequence[AdaptingCheck], options: AdaptOptions) -> list[str]:
    doubts = []
    num_steps, start, last = options.tuning.num_steps, checks[0], checks[-1]
    if last.step < num_steps and not tuned.is_over:
        doubts.append(
            f"{options.minutes:g} minutes were enough for {last.step} of {num_steps} steps; "
            "give more --minutes, or fewer --steps."
        )
    if not all(math.isfinite(check.loss or 0.0) for check in tuned.checks):
        doubts.append("the loss became infinite and learning stopped; lower --learning-rate.")
    if start.known_db is None:
        doubts.append(
            "this model knows none of the prompts of the sounds that ship with unbraid, so nobody "
            "checked what it forgot."
        )
    kept = next(check for check in checks if check.step == tuned.best.step)
    if options.keeps_last and kept.held_back_loss >= start.held_back_loss:
        doubts.append("it was kept although it is no better on the recordings held back.")
    if options.keeps_last and _forgets(kept, start, options):
        doubts.append("it was kept although it forgot more of other sounds than was allowed.")
    return doubts
