"""Which prompts suit a recording that nobody has described: sets of them are tried.

A model that is asked for everything it knows explains each sound several times, and gives what is
absent a stem as well. So nine small sets are tried on a stretch of a few seconds: the three wholes
(speech, effects, music) together, two at a time and alone, and the parts of a song. What tells
them apart is less how a stem looks than what a set leaves over: where speech alone leaves nothing,
there is nothing else. A logistic regression for each whole, whose weights stand in the model's
config, turns the answers into how sure it is that its sound is there. Models without such weights
are asked for all they know, and the prompt whose stem looks most like a leak is left out until
none does.

Where there is nothing but music, its parts are asked for if it is several sounds. Presence does not
tell that: a cello by itself has a vocal stem that looks like one. But there one part, asked for
alone, leaves little, as it does not where several play.

A prompt that was added to the model is tried beside those that were found; a second voice by
asking for one more. A recording is heard in stretches, and what one of them holds, it holds.

How often this is right depends on the model; ``bench/discover.py`` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dsp.levels import power_db
from unbraid.models.waveform import DiscoveryWeights
from unbraid.separation.presence import recording_score
from unbraid.types import SeparatedBlock, equal_prompt_groups

#: Prompts that no other contains, in the order in which models like to be asked.
WHOLES = ("speech", "sfx-mix", "music-mix")
#: What ``music-mix`` is made of.
PARTS = ("vocals", "drums", "bass", "other")
#: Contained in one of the wholes; not candidates where there are wholes.
_FINER = ("sfx", *PARTS)

#: The prompt whose sounds are counted, and the most that are.
_COUNTED = "speech"
_MOST_EQUAL = 2
#: From this presence score on, the weaker of two equal prompts is another sound; a part of the
#: music is there; and a prompt that was added to the model is.
#: The first two were chosen on mixtures of the training split (``bench/discover.py --calibrate``).
_ANOTHER = 0.55
_PART = 0.5
_ADDED = 0.6
#: Music is several sounds where each part by itself leaves more than this; where there are drums,
#: which other instruments seldom feign and which hide what is soft, more than that. Chosen on
#: instruments by themselves and songs of the training split.
_ONE_LEAVES_DB = -6.0
_ONE_LEAVES_OF_DRUMS_DB = -20.0

#: What is nowhere louder than this holds no sound that could be told from noise.
SILENT_DBFS = -80.0

_LOWEST_DB, _HIGHEST_DB = -40.0, 10.0
_LEAST_LEFT_DB = -30.0
_SUREST = 0.99
#: A rest shorter than this share of a stretch is left out.
_SHORTEST_SHARE = 0.25
#: Scales decibels to the size of the other features, for the penalty on large weights.
_DB_UNIT = 10.0


@dataclass(frozen=True)
class Trial:
    """How a stretch of a recording answered to a set of prompts.

    Attributes:
        scores: Presence of each stem, see ``Presence.score``.
        levels_db: Energy of each stem relative to the mixture, at least -40 dB.
        left_db: Energy of what the stems leave, likewise, at least -30 dB.
    """

    scores: tuple[float, ...]
    levels_db: tuple[float, ...]
    left_db: float


#: Tries a set of prompts on a stretch; cheap where the set was tried before.
Attempt: TypeAlias = Callable[[tuple[str, ...]], Trial]


def trial_of(block: SeparatedBlock) -> Trial:
    """What a stretch that is no silence, separated with a set of prompts, says about the set."""
    whole = block.mixture.double().square().sum()
    levels = power_db(block.sources.double().square().sum(dim=(1, 2)) / whole)
    left = power_db(block.residual.double().square().sum() / whole)
    return Trial(
        tuple(recording_score(timeline) for timeline in block.presence),
        tuple(levels.clamp(_LOWEST_DB, _HIGHEST_DB).tolist()),
        float(left.clamp(_LEAST_LEFT_DB, _HIGHEST_DB)),
    )


@dataclass(frozen=True)
class Heard:
    """What is there, and how sure that is.

    Attributes:
        sureness: Prompt → from 0 (absent) to 1 (there), of all prompts that were weighed.
        counts: Prompt → how many of it, of those that are there.
        parts: Part of the music → its presence score; empty where the model knows none.
        is_song: Whether there is nothing but music, and that is several sounds.
    """

    sureness: Mapping[str, float]
    counts: Mapping[str, int]
    parts: Mapping[str, float]
    is_song: bool = False

    @property
    def prompts(self) -> tuple[str, ...]:
        """What to ask for: music in its parts where it is all there is, and has several."""
        if tuple(self.counts) == ("music-mix",) and self.is_song:
            parts = tuple(name for name, score in self.parts.items() if score >= _PART)
            if len(parts) > 1:
                return parts
        return tuple(name for name, count in self.counts.items() for _ in range(count))


#: Of a recording without a sound.
NOTHING = Heard({}, {}, {})


def hear(
    attempt: Attempt,
    prompts: Sequence[str],
    weights: Mapping[str, DiscoveryWeights],
    threshold: float,
) -> Heard:
    """Find what a stretch holds; at least one sound, for it is no silence.

    Args:
        attempt: Tries sets of prompts on it.
        prompts: All that the model knows.
        weights: Prompt → weights, from the model's config.
        threshold: How sure it must be.
    """
    has_parts = set(PARTS) <= set(prompts)
    song = attempt(PARTS) if has_parts else None
    if song is not None and set(WHOLES) <= set(prompts) and set(WHOLES) <= set(weights):
        sureness = weigh(attempt, weights)
        found = [name for name in WHOLES if sureness[name] >= threshold]
        found = found or [max(WHOLES, key=sureness.__getitem__)]
        added = [name for name in prompts if name not in (*WHOLES, *_FINER)]
    else:
        candidates = [name for name in prompts if name not in _FINER] or list(prompts)
        found, sureness = _eliminate(attempt, candidates, threshold)
        added = []
    for name in added:
        sureness[name] = attempt((*found, name)).scores[-1]
    found += [name for name in added if sureness[name] >= _ADDED]
    counts = {name: _count(attempt, name, found) for name in found}
    parts = {} if song is None else dict(zip(PARTS, song.scores, strict=True))
    is_song = tuple(counts) == ("music-mix",) and _has_several(attempt, parts)
    return Heard(sureness, counts, parts, is_song)


def weigh(attempt: Attempt, weights: Mapping[str, DiscoveryWeights]) -> dict[str, float]:
    """How sure it is of each whole that its sound is there, from 0 to 1.

    Args:
        attempt: Tries sets of prompts on a stretch, of a model that knows ``WHOLES`` and ``PARTS``.
        weights: Those of each whole.
    """
    features = describe(attempt)
    return {name: _sureness(weights[name], features) for name in WHOLES}


def joined(stretches: Sequence[Heard]) -> Heard:
    """What a recording holds of which stretches were heard; nothing if there is none."""

    def most(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
        names = dict.fromkeys(name for table in tables for name in table)
        return {name: max(table.get(name, 0.0) for table in tables) for name in names}

    counts = most([each.counts for each in stretches])
    order = [*(name for name in WHOLES if name in counts), *counts]
    return Heard(
        most([each.sureness for each in stretches]),
        {name: int(counts[name]) for name in dict.fromkeys(order)},
        most([each.parts for each in stretches]),
        any(each.is_song for each in stretches),
    )


def describe(attempt: Attempt) -> Float[Tensor, "feature"]:
    """What ``DiscoveryWeights`` weighs, in its order."""
    together = attempt(WHOLES)
    alone = [attempt((name,)) for name in WHOLES]
    others = [attempt(tuple(each for each in WHOLES if each != name)) for name in WHOLES]
    return torch.tensor(
        [
            *map(_logit, together.scores),
            *(level / _DB_UNIT for level in together.levels_db),
            *(_logit(trial.scores[0]) for trial in alone),
            *(trial.levels_db[0] / _DB_UNIT for trial in alone),
            *(trial.left_db / _DB_UNIT for trial in alone),
            *(trial.left_db / _DB_UNIT for trial in others),
            *map(_logit, attempt(PARTS).scores),
        ]
    )


def _sureness(weights: DiscoveryWeights, features: Float[Tensor, "feature"]) -> float:
    slopes = torch.tensor(weights.slopes)
    return float(torch.sigmoid(weights.bias + (slopes * features).sum()))


def _logit(score: float) -> float:
    score = min(max(score, 1.0 - _SUREST), _SUREST)
    return math.log(score / (1.0 - score))


def _eliminate(
    attempt: Attempt, candidates: Sequence[str], threshold: float
) -> tuple[list[str], dict[str, float]]:
    """Leave out the prompt that looks most like a leak, until none does or one is left."""
    found = list(candidates)
    sureness: dict[str, float] = {}
    while True:
        scores = dict(zip(found, attempt(tuple(found)).scores, strict=True))
        sureness |= scores
        faintest = min(found, key=scores.__getitem__)
        if scores[faintest] >= threshold or len(found) == 1:
            return found, sureness
        found.remove(faintest)


def _count(attempt: Attempt, name: str, found: Sequence[str]) -> int:
    """How many sounds of one kind there are, if they are counted."""
    count = 1
    while name == _COUNTED and count < _MOST_EQUAL:
        asked = (*[name] * (count + 1), *(each for each in found if each != name))
        scores = attempt(asked).scores
        if min(scores[place] for place in equal_prompt_groups(asked)[0]) < _ANOTHER:
            break
        count += 1
    return count


def _has_several(attempt: Attempt, parts: Mapping[str, float]) -> bool:
    """Whether music is several sounds, which have these scores as its parts."""
    if sum(score >= _PART for score in parts.values()) < 2:
        return False
    least_db = min(attempt((name,)).left_db for name in parts)
    has_drums = parts["drums"] >= _PART
    return least_db > (_ONE_LEAVES_OF_DRUMS_DB if has_drums else _ONE_LEAVES_DB)


# ------------------------------------------------------------------ which stretches to hear


@dataclass(frozen=True, eq=False)
class Stretch:
    """A few seconds of a recording.

    Attributes:
        number: Which one, counted from 0.
        samples: Its samples.
        scores: Presence of each prompt that the recording was asked for.
    """

    number: int
    samples: Float[Tensor, "channel time"]
    scores: tuple[float, ...]


class StretchPicker:
    """Keeps the stretches of a stream in which each prompt seems to be there most.

    Memory does not grow with the stream. A recording of a few stretches is kept whole. Silent
    stretches are never kept: those of which no window is above ``SILENT_DBFS``, its constant part
    left out.

    Args:
        num_prompts: How many prompts the stream is asked for.
        stretch_windows: Length of a stretch, in windows of ``Presence``.
        window_start: Number of a window → its first sample.
    """

    def __init__(
        self, num_prompts: int, stretch_windows: int, window_start: Callable[[int], int]
    ) -> None:
        self._num_prompts = num_prompts
        self._windows = stretch_windows
        self._start = window_start
        self._mixture: Tensor | None = None
        self._scores = torch.zeros(num_prompts, 0)
        self._number = 0
        self._kept: list[Stretch] = []

    @property
    def most(self) -> int:
        """How many stretches are kept at most."""
        return 2 * self._num_prompts + 1

    def add(self, block: SeparatedBlock) -> None:
        """Take the next block of a separation without a gate."""
        mixture = block.mixture
        self._mixture = mixture if self._mixture is None else torch.cat([self._mixture, mixture], 1)
        self._scores = torch.cat([self._scores, block.presence], dim=1)
        while self._mixture.shape[1] >= self._length and self._scores.shape[1] >= self._windows:
            self._take(self._length)

    def finish(self) -> list[Stretch]:
        """The stretches that are kept, in the order of time; the last may be shorter."""
        left = 0 if self._mixture is None else self._mixture.shape[1]
        # A short rest says little, and is all there is of a short recording.
        if left >= _SHORTEST_SHARE * self._length or (left and not self._kept):
            self._take(left)
        return sorted(self._kept, key=lambda stretch: stretch.number)

    @property
    def _length(self) -> int:
        first = self._number * self._windows
        return self._start(first + self._windows) - self._start(first)

    def _take(self, length: int) -> None:
        assert self._mixture is not None, "there are samples"
        samples, self._mixture = self._mixture[:, :length].clone(), self._mixture[:, length:]
        scores, self._scores = self._scores[:, : self._windows], self._scores[:, self._windows :]
        if not self._is_silent(samples):
            found = tuple(recording_score(timeline) for timeline in scores)
            self._kept.append(Stretch(self._number, samples, found))
        self._number += 1
        if len(self._kept) > self.most:
            self._kept.remove(self._least_wanted())

    def _is_silent(self, samples: Float[Tensor, "channel time"]) -> bool:
        windows = samples.double().split(max(1, self._length // self._windows), dim=1)
        powers = [window.var(dim=1, correction=0).mean() for window in windows]
        return bool(power_db(torch.stack(powers)).max() < SILENT_DBFS)

    def _least_wanted(self) -> Stretch:
        """One that is neither among the two best of any prompt nor the loudest."""
        wanted = {max(self._kept, key=lambda each: float(each.samples.square().mean())).number}
        for place in range(self._num_prompts):
            best = sorted(self._kept, key=lambda each: each.scores[place], reverse=True)
            wanted |= {stretch.number for stretch in best[:2]}
        return next(each for each in self._kept if each.number not in wanted)
