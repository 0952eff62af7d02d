"""Tune a model on songs whose stems are known, and measure it before and after on others.

Songs, or films, or whatever is the sum of stems. One in five is held back. Of its pieces one half
decides when the model is at its best, and the other half, which decides nothing, tells what that
has brought.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.separator import best_device
from unbraid.checkpoints.bundle import Bundle
from unbraid.config import nearest
from unbraid.data.corpora.base import MixtureFiles
from unbraid.data.songs import SongStore, is_heard, song_batches
from unbraid.errors import ConfigError, DataError, PromptError, TrainingError, in_brief
from unbraid.evaluation.items import Item, Protocol
from unbraid.evaluation.results import ItemResult
from unbraid.evaluation.runner import measure_item
from unbraid.evaluation.stem_folders import list_mixtures
from unbraid.evaluation.tasks import evenly_spread
from unbraid.folders import user_cache_dir
from unbraid.mixing.recipe import ACTIVE_BLOCK_S
from unbraid.mixing.songs import Song, SongPlanner
from unbraid.models.inference import for_inference
from unbraid.models.waveform import WaveformModel
from unbraid.training.methods.checked_learning import Check, timed
from unbraid.training.methods.fine_tuning import (
    FineTuningConfig,
    TunedModel,
    Tuning,
    from_references,
)
from unbraid.types import Step, StepCallback, Waveform

#: What is measured; the first one decides.
MEASURES = ("si_sdr_db", "sdr_v4_db")

# One song in five is held back, and one at least.
_HELD_BACK = 5
# Of the pieces that are measured; models are often not made for longer ones.
_LONGEST_PIECE_S = 6.0
_SHORTEST_S = 1.0
_SAME_SONG = 0.5
# Estimates of one prompt are tried in every order.
_MOST_EQUAL = 4
# A split of a list of mixtures that others are not meant to be learnt from.
_TRAIN = "train"


@dataclass(frozen=True)
class FinetuneOptions:
    """How a model is tuned on songs.

    Attributes:
        tuning: What learns, and how; ``num_steps`` is the most.
        minutes: Time that measuring and learning may take, after the songs were read.
        stems: Stem name → prompt, for names that are no prompts; ``-`` leaves a stem out.
        crop_s: Length of the mixtures that it learns from; cut to what suits the model.
        batch_size: Mixtures in a step.
        num_pieces: How many pieces of the songs that are held back are measured.
        keeps_last: Take the weights of the last check, whatever the checks say.
        device: Where it learns, as torch names it; None for a GPU if there is one.
        seed: Of everything that is drawn.
        cache_dir: Where decoded songs are kept; None for the user's cache folder.
    """

    tuning: FineTuningConfig = field(default_factory=FineTuningConfig)
    minutes: float = 15.0
    stems: Mapping[str, str] = field(default_factory=dict)
    crop_s: float = 4.0
    batch_size: int = 2
    num_pieces: int = 24
    keeps_last: bool = False
    device: str | None = None
    seed: int = 0
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.minutes < math.inf:
            raise ConfigError(f"minutes must be more than 0, not {self.minutes:g}.")
        if not 0.1 <= self.crop_s < math.inf:
            raise ConfigError(f"crop_s must be at least 0.1, not {self.crop_s:g}.")
        for name in ("batch_size", "num_pieces"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}.")


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece of a song that was held back, before and after.

    Attributes:
        item: The piece; references too soft to be heard are silent.
        before: The estimates of the model as it was.
        after: Those of the tuned one.
        before_result: What was measured of the first.
        after_result: What was measured of the second.
    """

    item: Item
    before: Float[Tensor, "source channel time"]
    after: Float[Tensor, "source channel time"]
    before_result: ItemResult
    after_result: ItemResult


@dataclass(frozen=True)
class Gain:
    """What tuning has done to a prompt, or to all of them; in dB.

    Attributes:
        prompt: Its name; ``all`` for the mean over the prompts.
        num_pieces: In how many pieces it is heard.
        mixture: Measure → with the mixture itself as the estimate.
        before: Measure → of the model as it was.
        after: Measure → of the tuned model.
    """

    prompt: str
    num_pieces: int
    mixture: Mapping[str, float]
    before: Mapping[str, float]
    after: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Finetuned:
    """What came of tuning.

    Attributes:
        model: The tuned model, not yet written anywhere.
        tuned: How it learnt.
        checks: Checks while it learnt, in order; their score is the mean SI-SDR in dB over the
            prompts, on the pieces that decide.
        options: With which options.
        data: The songs' folder.
        learnt_from: Names of the songs that it learnt from.
        held_back: Names of those that it was checked and measured with.
        prompts: Those that it learnt, each once.
        num_chosen_by: On how many pieces the best state was chosen.
        is_chosen_by_others: Whether these are other pieces than those that are measured.
        pieces: The pieces that it was measured on.
        gains: What was measured: for all prompts first, then for each that is heard in the pieces.
        seconds: How long it took.
        warnings: What is odd about the songs.
    """

    model: WaveformModel
    tuned: TunedModel
    checks: tuple[Check, ...]
    options: FinetuneOptions
    data: Path
    learnt_from: tuple[str, ...]
    held_back: tuple[str, ...]
    prompts: tuple[str, ...]
    num_chosen_by: int
    is_chosen_by_others: bool
    pieces: tuple[Piece, ...]
    gains: tuple[Gain, ...]
    seconds: float
    warnings: tuple[str, ...]

    @property
    def kept(self) -> Check:
        """The check that the model is from."""
        return next(check for check in self.checks if check.step == self.tuned.best.step)

    @property
    def is_better(self) -> bool:
        """Whether the mean over the prompts is higher than before, on the pieces measured."""
        total = self.gains[0]
        return total.after[MEASURES[0]] > total.before[MEASURES[0]]


def finetune(
    bundle: Bundle,
    data: Path,
    options: FinetuneOptions = FinetuneOptions(),
    on_step: StepCallback = lambda step: None,
) -> Finetuned:
    """Tune a model; the bundle stays as it is.

    Args:
        bundle: The model.
        data: Songs and their stems, in any layout of ``evaluation.stem_folders``. Of a list of
            mixtures with a split ``train`` only that is taken.
        options: How.
        on_step: Called as it goes on; may raise ``Cancelled``.

    Raises:
        PromptError: If the model is not asked with prompts, or not with those of the songs.
        DataError: If the songs cannot be used.
        ConfigError: If the options do not fit the model.
        MissingExtra: If adapters are wanted and peft is not installed.
        TrainingError: If nothing came of it that is worth keeping.
    """
    begun = time.monotonic()
    model = bundle.model
    root, mixtures = _listed(bundle, data, options)
    on_step(Step("reading the songs", 0, None, "files"))
    store = SongStore(
        root,
        mixtures,
        model.sample_rate,
        model.network.num_channels,
        options.cache_dir or user_cache_dir(),
    )
    songs = _Songs.of(store.songs, data, options.seed)
    pieces = songs.pieces(store, model, options.num_pieces)
    # Songs take turns in the list, so both halves have pieces of all of them.
    chosen_by, measured_on = pieces[::2], pieces[1::2] or pieces

    device = torch.device(options.device or best_device())
    tuning = Tuning(model, options.tuning, device, options.seed)
    crop_s = min(options.crop_s, model.config.segment_s)
    rows = {name: row for row, name in enumerate(model.prompts.names)}
    planner = SongPlanner(songs.learnt_from, crop_s, _SAME_SONG)

    deadline = time.monotonic() + 60.0 * options.minutes
    on_step(Step("measuring the model as it is", 0, None, "mixtures"))
    before, check_s = timed(lambda: _measure(model, measured_on, device))
    batches = song_batches(planner, store, rows, crop_s, options.batch_size, options.seed)
    look = from_references(batches, device)
    _, step_s = timed(lambda: look(tuning.model).backward())
    end = deadline - check_s
    step_s += check_s / options.tuning.check_every
    affordable = max(1, int((end - time.monotonic() - 2 * check_s) / step_s))
    num_steps = min(options.tuning.num_steps, affordable)

    def goes_on(step: int) -> bool:
        on_step(Step("tuning", step, num_steps, "mixtures"))
        return time.monotonic() < end

    scores: list[float] = []

    def score(state: WaveformModel) -> float:
        try:
            results = [result for result, _ in _measure(state, chosen_by, device)]
        except DataError:  # the estimates are no numbers any more
            scores.append(-math.inf)
            return -math.inf
        scores.append(_mean_over_prompts(results, MEASURES[0]))
        return float(len(scores)) if options.keeps_last else scores[-1]

    batches = song_batches(planner, store, rows, crop_s, options.batch_size, options.seed)
    tuned = tuning.learn(from_references(batches, device), score, num_steps, goes_on)
    checks = tuple(
        Check(at.step, value, at.loss) for at, value in zip(tuned.checks, scores, strict=True)
    )
    if tuned.best.step == 0:
        raise TrainingError(_why_not(checks, options, bundle.card.name))
    on_step(Step("measuring the tuned model", 0, None, "mixtures"))
    after = _measure(tuned.model, measured_on, device)
    measured = tuple(
        Piece(item, old[1], new[1], old[0], new[0])
        for item, old, new in zip(measured_on, before, after, strict=True)
    )
    learnt = {stem.prompt for song in songs.learnt_from for stem in song.stems}
    finetuned = Finetuned(
        model=tuned.model,
        tuned=tuned,
        checks=checks,
        options=options,
        data=data,
        learnt_from=tuple(song.name for song in songs.learnt_from),
        held_back=tuple(song.name for song in songs.held_back),
        prompts=tuple(name for name in model.prompts.names if name in learnt),
        num_chosen_by=len(chosen_by),
        is_chosen_by_others=len(pieces) > 1,
        pieces=measured,
        gains=_gains(measured),
        seconds=time.monotonic() - begun,
        warnings=songs.warnings,
    )
    doubts = _doubts(finetuned, pieces)
    return dataclasses.replace(finetuned, warnings=(*songs.warnings, *doubts))


def _listed(
    bundle: Bundle, data: Path, options: FinetuneOptions
) -> tuple[Path, list[MixtureFiles]]:
    """The songs in a folder, once it is sure that the model can be asked for their stems."""
    model, name = bundle.model, bundle.card.name
    if model.tagger is not None or not model.prompts.names:
        raise PromptError(
            f"{name} is asked by example and not by prompts, so stems do not say what to ask it "
            "for; it can learn a sound with `unbraid teach`, or be trained anew with `unbraid "
            "train`."
        )
    stems = {}
    for stem, prompt in options.stems.items():
        try:
            stems[stem] = prompt if prompt == "-" else model.prompts.resolve([prompt])[0]
        except PromptError as error:
            raise PromptError(
                f"--stem {stem}={prompt}: {name} has no such prompt; "
                f"{nearest(prompt, model.prompts.names)} A new one is made with `unbraid teach`."
            ) from error
    root, mixtures = list_mixtures(data, model.prompts.names, stems)
    mixtures = [files for files in mixtures if files.split == _TRAIN] or mixtures
    for files in mixtures:
        prompts = [reference.prompt for reference in files.references]
        try:
            model.prompts.resolve(prompts)
        except PromptError as error:
            raise PromptError(f"{data}, {files.name}: {error}") from error
        prompt, count = Counter(prompts).most_common(1)[0]
        if count > _MOST_EQUAL:
            raise DataError(
                f"{data}, {files.name}: has {count} stems for the prompt {prompt!r}, more than "
                f"the {_MOST_EQUAL} that can be told apart; add them up, or leave some out with "
                "--stem NAME=-."
            )
    return root, mixtures


@dataclass(frozen=True)
class _Songs:
    """Songs to learn from and songs to check with.

    Attributes:
        learnt_from: The first.
        held_back: The second.
        from_s: Where in these the check begins: not at 0 where there is only one song.
        warnings: What is odd about them.
    """

    learnt_from: tuple[Song, ...]
    held_back: tuple[Song, ...]
    from_s: float
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, songs: Sequence[Song], data: Path, seed: int) -> _Songs:
        """Hold one song in five back, or the end of an only one."""
        heard = [song for song in songs if any(stem.clip.active_s for stem in song.stems)]
        silent = [song.name for song in songs if song not in heard]
        if not heard:
            raise DataError(
                f"{data}: all stems are silent ({in_brief(silent)}); nothing can be learnt."
            )
        warnings = [f"{name} is silent and was left out." for name in silent]
        if len(heard) == 1:
            song, from_s = heard[0], (1 - 1 / _HELD_BACK) * _duration_s(heard[0])
            parts = cls((_until(song, from_s),), (song,), from_s, ())
            warnings.append(
                f"{song.name} is the only song: its last fifth was held back, so the figures are "
                "on a song that it knows. Give more songs to know what it does to others."
            )
        else:
            order = random.Random(seed).sample(range(len(heard)), len(heard))
            held_back = set(order[: max(1, len(heard) // _HELD_BACK)])
            parts = cls(
                tuple(song for place, song in enumerate(heard) if place not in held_back),
                tuple(song for place, song in enumerate(heard) if place in held_back),
                0.0,
                (),
            )
        parts._check_sound(data)
        return dataclasses.replace(parts, warnings=tuple(warnings))

    def _check_sound(self, data: Path) -> None:
        """Make sure that there is enough to learn from and to check with."""
        learnt_s = sum(_duration_s(song) for song in self.learnt_from)
        check_s = max(_duration_s(song) for song in self.held_back) - self.from_s
        if min(learnt_s, check_s) < _SHORTEST_S:
            raise DataError(
                f"{data}: too short: {learnt_s:.1f} s to learn from and {check_s:.1f} s to check "
                f"with, at least {_SHORTEST_S:g} s of each are needed; give more or longer songs."
            )
        active = {
            stem.prompt for song in self.learnt_from for stem in song.stems if stem.clip.active_s
        }
        silent = {stem.prompt for song in self.learnt_from for stem in song.stems} - active
        if silent:
            prompts = ", ".join(sorted(silent))
            raise DataError(
                f"{data}: nothing is to be heard of {prompts} in the songs to learn from; leave "
                "these stems out with --stem NAME=-, or give songs that have them."
            )

    def pieces(self, store: SongStore, model: WaveformModel, most: int) -> list[Item]:
        """Pieces of the songs that are held back, evenly spread; the songs take turns."""
        lengths = [_duration_s(song) - self.from_s for song in self.held_back]
        piece_s = min(_LONGEST_PIECE_S, model.config.segment_s, max(lengths))
        per_song = math.ceil(most / len(self.held_back))
        by_song = [
            evenly_spread(_pieces(store, song, self.from_s, piece_s, model), per_song)
            for song in self.held_back
        ]
        turns = [
            pieces[turn] for turn in range(per_song) for pieces in by_song if turn < len(pieces)
        ]
        if not turns:
            raise DataError(
                f"{in_brief(song.name for song in self.held_back)}: held back to check with, but "
                "nothing is to be heard there; choose another --seed, or give other songs."
            )
        return turns[:most]


def _pieces(
    store: SongStore, song: Song, from_s: float, piece_s: float, model: WaveformModel
) -> list[Item]:
    """All pieces of a song in which as many stems as possible, two at best, are heard."""
    # In the order in which people read of prompts, and ask for them.
    stems = sorted(song.stems, key=lambda stem: model.prompts.names.index(stem.prompt))
    length = round(piece_s * store.sample_rate)
    items = []
    for number in range(math.floor((_duration_s(song) - from_s) / piece_s + 1e-6)):
        start_s = from_s + number * piece_s
        start = round(start_s * store.sample_rate)
        sources = torch.stack([store.read(stem.clip.key, start, length) for stem in stems])
        mixture = sources.sum(dim=0)
        heard = is_heard(sources[None], mixture[None])[0]
        if heard.sum() < min(2, len(stems)):
            continue
        references = sources * heard
        if mixture.ndim == 1:
            mixture, references = mixture[None], references[:, None]
        items.append(
            Item(
                f"{song.name} @ {start_s:g} s",
                Waveform(mixture, store.sample_rate),
                references,
                tuple(stem.prompt for stem in stems),
                group=song.name,
            )
        )
    return items


def _measure(
    model: WaveformModel, items: Sequence[Item], device: torch.device
) -> list[tuple[ItemResult, Float[Tensor, "source channel time"]]]:
    fast = for_inference(copy.deepcopy(model).to(device))

    def separate(item: Item, prompts: tuple[str, ...]) -> Float[Tensor, "source channel time"]:
        samples = item.mixture.samples.to(device)
        # A model that does not say what its sources are gives them all.
        asked = model.prompts.indices(prompts) if model.names_sources else model.all_outputs
        asked = asked[None].to(device)
        with torch.no_grad():
            if model.network.num_channels > 1:
                return fast(samples[None], asked)[0].cpu()
            return fast(samples, asked)[0].unsqueeze(1).cpu()

    protocol = Protocol(chunks="whole", measures=MEASURES)
    return [measure_item(item, separate, protocol, with_oracles=False) for item in items]


def _gains(pieces: Sequence[Piece]) -> tuple[Gain, ...]:
    """The mean over pieces for each prompt, and over all prompts alike."""
    befores = [piece.before_result for piece in pieces]
    afters = [piece.after_result for piece in pieces]
    names = dict.fromkeys(source.prompt for result in befores for source in result.sources)
    gains = []
    for name in names:
        heard = _values(befores, name, MEASURES[0])
        if heard:
            gains.append(
                Gain(
                    name,
                    len(heard),
                    {each: fmean(_values(befores, name, each, "mixture")) for each in MEASURES},
                    {each: fmean(_values(befores, name, each)) for each in MEASURES},
                    {each: fmean(_values(afters, name, each)) for each in MEASURES},
                )
            )

    def mean(part: str) -> dict[str, float]:
        return {each: fmean(getattr(gain, part)[each] for gain in gains) for each in MEASURES}

    total = Gain("all", len(pieces), mean("mixture"), mean("before"), mean("after"))
    return (total, *gains)


def _values(
    results: Sequence[ItemResult], prompt: str, measure: str, part: str = "estimate"
) -> list[float]:
    """What was measured of a prompt, wherever it is heard."""
    return [
        getattr(source, part)[measure]
        for result in results
        for source in result.sources
        if source.prompt == prompt and not source.is_silent
    ]


def _mean_over_prompts(results: Sequence[ItemResult], measure: str) -> float:
    names = sorted({source.prompt for result in results for source in result.sources})
    values = [_values(results, name, measure) for name in names]
    return fmean(fmean(each) for each in values if each)


def _why_not(checks: Sequence[Check], options: FinetuneOptions, name: str) -> str:
    """Why nothing is kept, and what could help."""
    start, later = checks[0], checks[1:]
    if not all(math.isfinite(check.score) for check in checks):
        why = "the loss became infinite; lower --learning-rate"
    else:
        best = max(check.score for check in later)
        why = (
            "no check was better than the model as it is "
            f"(SI-SDR {start.score:.2f} dB before, {best:.2f} dB at best); give more songs, more "
            "time, or a lower --learning-rate"
        )
    way_out = "" if options.keeps_last else " --keep-last keeps the last state regardless."
    return f"nothing was kept, {name} stays as it is: {why}.{way_out}"


def _doubts(finetuned: Finetuned, pieces: Sequence[Item]) -> list[str]:
    doubts = []
    tuned, options, checks = finetuned.tuned, finetuned.options, finetuned.checks
    num_steps, last = options.tuning.num_steps, checks[-1].step
    if last < num_steps and not tuned.is_over:
        doubts.append(
            f"{options.minutes:g} minutes were enough for {last} of {num_steps} steps; "
            "give more --minutes, or fewer --steps."
        )
    if any(not math.isfinite(check.loss or 0.0) for check in checks):
        doubts.append("the loss became infinite and learning stopped; lower --learning-rate.")
    if finetuned.kept.score <= checks[0].score:
        doubts.append(
            "it was kept although no better than the model as it was, on the pieces that decide "
            f"({checks[0].score:.2f} dB before, {finetuned.kept.score:.2f} dB after)."
        )
    worse = [
        f"{gain.prompt} ({before:.2f} dB before, {after:.2f} dB after)"
        for gain in finetuned.gains
        if round((after := gain.after[MEASURES[0]]) - (before := gain.before[MEASURES[0]]), 2) < 0
    ]
    if worse:
        doubts.append(
            f"SI-SDR fell on the pieces that are measured: {', '.join(worse)}; listen to the "
            "report before you use it."
        )
    heard = {
        prompt
        for item in pieces
        for prompt, reference in zip(item.prompts, item.references, strict=True)
        if bool(reference.any())
    }
    known, measured = finetuned.prompts, {gain.prompt for gain in finetuned.gains[1:]}
    if unseen := sorted(heard - {*known}):
        doubts.append(f"no song to learn from has {', '.join(unseen)}; only songs held back have.")
    if unheard := [name for name in known if name not in measured]:
        doubts.append(
            f"{', '.join(unheard)}: not heard in the pieces that are measured, so there are no "
            "figures."
        )
    return doubts


def _until(song: Song, end_s: float) -> Song:
    """The beginning of a song."""
    return Song(
        song.name,
        tuple(
            dataclasses.replace(
                stem,
                clip=dataclasses.replace(
                    stem.clip,
                    duration_s=min(end_s, stem.clip.duration_s),
                    active_s=tuple(
                        start for start in stem.clip.active_s if start + ACTIVE_BLOCK_S <= end_s
                    ),
                ),
            )
            for stem in song.stems
        ),
    )


def _duration_s(song: Song) -> float:
    return max(stem.clip.duration_s for stem in song.stems)
