"""From distributions to a plan: what to mix, from which stretch, how loud.

A plan is plain data. It depends on the recipe, the clips at hand and a seed, and on
nothing else: not on the number of workers, not on what was drawn before. So a run that
stops can go on exactly where it was, and a mixture can be looked at before it is heard.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from unbraid.config import check_number, check_weights
from unbraid.errors import ConfigError, DataError
from unbraid.mixing.augmentation import (
    UNWARPED,
    Augmentation,
    Coding,
    Room,
    Warp,
    draw_coding,
    draw_warp,
    draw_width,
    generator_beside,
)

Choice = TypeVar("Choice")

_INSTRUMENTS = ("bass", "drums", "vocals", "other")

#: Which prompt may follow which, from the TUSS release. A zero forbids the pair.
_FOLLOWING: dict[str, dict[str, float]] = {
    "speech": {
        "speech": 0.4, "sfx": 0.1, "sfx-mix": 0.2, "music-mix": 0.2,
        **dict.fromkeys(_INSTRUMENTS, 0.025),
    },
    "sfx": {
        "speech": 0.2, "sfx": 0.5, "sfx-mix": 0.0, "music-mix": 0.2,
        **dict.fromkeys(_INSTRUMENTS, 0.025),
    },
    "sfx-mix": {
        "speech": 0.5, "sfx": 0.0, "sfx-mix": 0.0, "music-mix": 0.4,
        **dict.fromkeys(_INSTRUMENTS, 0.025),
    },
    "music-mix": {
        "speech": 1 / 3, "sfx": 1 / 3, "sfx-mix": 1 / 3, "music-mix": 0.0,
        **dict.fromkeys(_INSTRUMENTS, 0.0),
    },
    **{
        instrument: {
            "speech": 1 / 30, "sfx": 1 / 30, "sfx-mix": 1 / 30, "music-mix": 0.0,
            **{name: 0.0 if name == instrument else 0.3 for name in _INSTRUMENTS},
        }
        for instrument in _INSTRUMENTS
    },
}  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """A recording that sources can be cut from.

    Attributes:
        key: What the renderer's reader knows it by.
        duration_s: Its length.
        bandwidth_hz: The highest frequency that it can hold.
        performer: Who speaks or plays; two sources of one prompt never share one.
        song: Recordings of the same song run in time with each other; empty for none.
        active_s: Start of each stretch of ``ACTIVE_BLOCK_S`` seconds that is not silent.
        num_pieces: How many clips it counts as when one is drawn.
    """

    key: str
    duration_s: float
    bandwidth_hz: float
    performer: str = ""
    song: str = ""
    active_s: tuple[float, ...] = (0.0,)
    num_pieces: int = 1


#: So often a clip is drawn again when it was taken; then its pool counts as used up.
_MAX_DRAWS = 1000

#: Resolution at which activity is known, in seconds.
ACTIVE_BLOCK_S = 0.5


@dataclass(frozen=True)
class PartPlan:
    """One stretch of one clip; a source is the sum of one or more parts.

    Attributes:
        clip: Key of the clip.
        start_s: Where the crop begins; negative where silence stands before the clip.
        gain_db: Level of the part, whose root mean square is brought to 1 before.
        tone_db: Gain at ``TONE_HZ``, log-frequency interpolated between; empty for none.
        warp: How its time and pitch change.
    """

    clip: str
    start_s: float
    gain_db: float = 0.0
    tone_db: tuple[float, ...] = ()
    warp: Warp = UNWARPED


#: Frequencies at which a part's tone is set.
TONE_HZ = (60.0, 250.0, 1000.0, 4000.0, 16000.0)


@dataclass(frozen=True)
class SourcePlan:
    """One source of a mixture.

    Attributes:
        prompt: Canonical name of its prompt.
        parts: What it is the sum of; none for a prompt whose sound is absent.
        gain_db: Its level, after its root mean square was brought to 1.
        is_asked: False where the sound is in the mixture but nobody asks for it.
        coding: The codec that it went through; None for none.
        is_inverted: Whether its polarity is turned around.
        room: The room that it is heard in; None for none.
        width: What the difference of its two channels is multiplied by.
    """

    prompt: str
    parts: tuple[PartPlan, ...]
    gain_db: float
    is_asked: bool = True
    coding: Coding | None = None
    is_inverted: bool = False
    room: Room | None = None
    width: float = 1.0


@dataclass(frozen=True)
class MixPlan:
    """One mixture.

    Attributes:
        crop_s: Its length.
        sources: What it is made of.
        bandwidth_hz: Every source is cut above this frequency; None for no cut.
        clipping_db: How far the loudest sample stands above the limit at which the mixture is
            clipped; None for no limit.
        coding: The codec that the mixture then went through; None for none.
        has_damaged_references: Whether references suffer from both as well.
        level_db: What mixture and references are turned up by at last.
    """

    crop_s: float
    sources: tuple[SourcePlan, ...]
    bandwidth_hz: float | None = None
    clipping_db: float | None = None
    coding: Coding | None = None
    has_damaged_references: bool = False
    level_db: float = 0.0

    @property
    def num_asked(self) -> int:
        """How many sources are asked for."""
        return sum(source.is_asked for source in self.sources)


@dataclass(frozen=True)
class Scene:
    """A fixed list of prompts, and how often it is drawn beside the other scenes."""

    prompts: tuple[str, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class MixRecipe:
    """Distributions that mixtures are drawn from; the defaults are those of TUSS.

    Attributes:
        crop_s: Length of a mixture.
        num_sources: How many sources a mixture has → how often. One number per batch.
        first: How often a prompt is drawn first. Empty, with ``following`` empty as well, for
            drawing all prompts that have clips alike, none twice.
        following: Last prompt → how often each prompt follows it. A zero in the row of
            any prompt drawn so far forbids the pair.
        repeatable: Prompts that may stand more than once in a mixture.
        scenes: If given, draw one of these lists of prompts in place of the chain above.
        gain_db: Prompt → lowest and highest level, drawn evenly in dB.
        other_gain_db: The same for prompts that are not named there.
        composed: Prompt → prompts whose clips it can be put together from.
        composed_probability: How often it is, also when it has clips of its own.
        composed_parts: How many parts it then has → how often.
        same_song_probability: How often the instruments of a mixture are cut from one
            song at one time, where the clips allow it.
        common_bandwidth_probability: How often all sources are cut to the narrowest
            bandwidth among them and their rooms, so that bandwidth does not give a source away.
        random_bandwidth_probability: How often a mixture is cut at a random frequency.
        tone_probability: How often a part gets a random tone.
        tone_db: Largest boost or cut of that tone.
        absent_probability: How often a source is silent though its prompt is asked.
        unasked_probability: How often not all prompts of a mixture are asked, drawn once for a
            batch: the prompt dropout of TUSS. Their sounds stay in the mixture.
        most_unasked: So many prompts at most are then not asked; how many is drawn evenly, once
            for a batch. None for as many as can be: only prompts that stand once in their
            mixture are left out, and one is always asked.
        never_asked: Prompts whose sounds are in mixtures but are not asked for, and that the
            model need not know: noise that is to be removed.
        clip_weight_exponent: A clip is drawn in proportion to its active seconds to this
            power: 0 draws all files alike, 1 all seconds alike. Each piece of a recording that is
            cut into pieces counts as a file.
        augmentation: What else happens to sounds and mixtures.

    Source: K. Saijo et al., "Task-aware unified source separation", ICASSP 2025, and its
        released code, for the default values.
    """

    crop_s: float = 6.0
    num_sources: Mapping[int, float] = field(default_factory=lambda: {2: 1.0, 3: 1.0, 4: 1.0})
    first: Mapping[str, float] = field(
        default_factory=lambda: {
            **dict.fromkeys(("speech", "sfx", "sfx-mix", "music-mix"), 0.2),
            **dict.fromkeys(_INSTRUMENTS, 0.05),
        }
    )
    following: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: _FOLLOWING)
    repeatable: tuple[str, ...] = ("speech", "sfx")
    scenes: tuple[Scene, ...] = ()
    gain_db: Mapping[str, tuple[float, float]] = field(
        default_factory=lambda: {
            **dict.fromkeys(("speech", *_INSTRUMENTS), (-10.0, 0.0)),
            **dict.fromkeys(("sfx", "sfx-mix", "music-mix"), (-20.0, 0.0)),
        }
    )
    other_gain_db: tuple[float, float] = (-10.0, 0.0)
    composed: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"sfx-mix": ("sfx",), "music-mix": _INSTRUMENTS}
    )
    composed_probability: float = 0.25
    composed_parts: Mapping[int, float] = field(
        default_factory=lambda: {1: 0.1, 2: 0.4, 3: 0.4, 4: 0.1}
    )
    same_song_probability: float = 0.0
    common_bandwidth_probability: float = 1.0
    random_bandwidth_probability: float = 0.0
    tone_probability: float = 0.0
    tone_db: float = 6.0
    absent_probability: float = 0.0
    unasked_probability: float = 0.0
    most_unasked: int | None = 1
    never_asked: tuple[str, ...] = ()
    clip_weight_exponent: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        check_number("recipe.crop_s", self.crop_s, above=0)
        check_number("recipe.tone_db", self.tone_db, least=0)
        check_number("recipe.clip_weight_exponent", self.clip_weight_exponent, least=0)
        check_number("recipe.most_unasked", self.most_unasked, least=1)
        for name in ("num_sources", "composed_parts"):
            check_weights(f"recipe.{name}", getattr(self, name))
            for count in getattr(self, name):
                check_number(f"a key of recipe.{name}", count, least=1)
        if self.first:
            check_weights("recipe.first", self.first)
        for name, row in self.following.items():
            for follower, weight in row.items():
                check_number(f"recipe.following.{name}.{follower}", weight, least=0)
        if self.scenes:
            weights = {number: scene.weight for number, scene in enumerate(self.scenes)}
            check_weights("recipe.scenes", weights)
        levels = {f"gain_db.{name}": levels for name, levels in self.gain_db.items()}
        for name, (low, high) in {**levels, "other_gain_db": self.other_gain_db}.items():
            check_number(f"recipe.{name}: the higher level", high)
            check_number(f"recipe.{name}: the lower level, which stands first,", low, most=high)
        if bool(self.first) != bool(self.following):
            raise ConfigError(
                "recipe.first and recipe.following belong together: give both, or leave both empty."
            )
        for name in (
            "composed_probability",
            "same_song_probability",
            "common_bandwidth_probability",
            "random_bandwidth_probability",
            "tone_probability",
            "absent_probability",
            "unasked_probability",
        ):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"recipe.{name} is a probability, not {getattr(self, name)}.")
        if self.never_asked and not self.scenes:
            raise ConfigError(
                "recipe.never_asked needs recipe.scenes, so that mixtures of a batch ask for as "
                "many sources as each other."
            )


@dataclass(frozen=True)
class _Song:
    """Where the instruments of a mixture are cut from a song together."""

    name: str
    start_s: float
    warp: Warp


@dataclass(frozen=True)
class _Cut:
    """Where a part is cut from its clip."""

    clip: Clip
    start_s: float
    warp: Warp


class Planner:
    """Draws plans from a recipe and the clips of each prompt.

    Args:
        recipe: The distributions.
        clips: Prompt → its clips. A prompt without clips must be one that is composed.
        rooms: Room impulse responses.

    Raises:
        DataError: If a prompt that the recipe can draw has nothing to be made from, or the
            recipe puts sources into rooms and there are none.
    """

    def __init__(
        self,
        recipe: MixRecipe,
        clips: Mapping[str, Sequence[Clip]],
        rooms: Sequence[Clip] = (),
    ) -> None:
        self._recipe = recipe
        self._rooms = tuple(rooms)
        if recipe.augmentation.room_probability > 0 and not rooms:
            raise DataError(
                "the recipe puts sources into rooms, but there is no room impulse response: name "
                "some with data.rooms, or set augmentation.room_probability to 0."
            )
        self._clips = {prompt: tuple(pool) for prompt, pool in clips.items() if pool}
        self._weights = {
            prompt: list(
                itertools.accumulate(
                    clip.num_pieces
                    * (len(clip.active_s) * ACTIVE_BLOCK_S / clip.num_pieces)
                    ** recipe.clip_weight_exponent
                    for clip in pool
                )
            )
            for prompt, pool in self._clips.items()
        }
        drawable = {name for scene in recipe.scenes for name in scene.prompts}
        if not recipe.scenes:
            drawable = {name for name, weight in recipe.first.items() if weight > 0}
            most = max(recipe.num_sources)
            if not drawable and len(self._clips) < most:
                raise DataError(
                    f"a mixture of {most} prompts, none twice, needs as many with clips; only "
                    f"{len(self._clips)} have any."
                )
        for prompt in sorted(drawable):
            made_of = (prompt, *recipe.composed.get(prompt, ()))
            if not any(name in self._clips for name in made_of):
                raise DataError(
                    f"no clips for the prompt {prompt!r}: add some to the manifest, or take "
                    "the prompt out of the recipe."
                )

    def draw_batch(self, batch_size: int, seed: str) -> tuple[MixPlan, ...]:
        """Draw mixtures that ask for the same number of sources.

        Equal arguments give equal plans, on every machine and in every order of calls.
        """
        rng = random.Random(seed)
        recipe = self._recipe
        count = _choose(rng, recipe.num_sources)
        if recipe.scenes:
            lengths: dict[int, float] = {}
            for scene in recipe.scenes:
                asked = self._num_asked(scene)
                lengths[asked] = lengths.get(asked, 0.0) + scene.weight
            count = _choose(rng, lengths)
        drops_prompts = rng.random() < recipe.unasked_probability
        plans: list[MixPlan] = []
        dropped: list[list[int]] = []
        for _ in range(batch_size):
            plans.append(self.draw_mixture(self._draw_prompts(count, rng), rng))
            places = _droppable(plans[-1]) if drops_prompts else []
            dropped.append([rng.choice(places)] if places else [])
        if drops_prompts:
            plans = _leave_some_unasked(plans, dropped, recipe.most_unasked, rng)
        return tuple(plans)

    def draw_mixture(self, prompts: Sequence[str], rng: random.Random) -> MixPlan:
        """Draw clips, crops and levels for the given prompts.

        Raises:
            DataError: If the clips are too few for that many different performers.
        """
        recipe = self._recipe
        beside = generator_beside(rng)
        song = self._draw_song(prompts, rng, beside)
        taken: set[str] = set()
        sources = []
        bandwidths = []
        for prompt in prompts:
            low, high = recipe.gain_db.get(prompt, recipe.other_gain_db)
            gain_db = rng.uniform(low, high)
            is_asked = prompt not in recipe.never_asked
            if len(prompts) > 1 and rng.random() < recipe.absent_probability:
                sources.append(SourcePlan(prompt, (), gain_db, is_asked))
                continue
            parts = []
            for cut, part_gain_db in self._draw_parts(prompt, song, taken, rng, beside):
                tone_db = self._draw_tone(rng)
                parts.append(PartPlan(cut.clip.key, cut.start_s, part_gain_db, tone_db, cut.warp))
                bandwidths.append(cut.clip.bandwidth_hz * cut.warp.frequency_ratio)
            source = SourcePlan(prompt, tuple(parts), gain_db, is_asked)
            room = self._draw_room(beside)
            if room is not None:
                bandwidths.append(room.bandwidth_hz)
            sources.append(self._augment(source, room, beside))
        if not any(source.parts for source in sources):
            return self.draw_mixture(prompts, rng)
        bandwidth_hz = self._draw_bandwidth(bandwidths, rng)
        return self._damage(MixPlan(recipe.crop_s, tuple(sources), bandwidth_hz), beside)

    def _num_asked(self, scene: Scene) -> int:
        return sum(prompt not in self._recipe.never_asked for prompt in scene.prompts)

    def _draw_prompts(self, count: int, rng: random.Random) -> tuple[str, ...]:
        recipe = self._recipe
        if recipe.scenes:
            fitting = [scene for scene in recipe.scenes if self._num_asked(scene) == count]
            weights = [scene.weight for scene in fitting]
            return rng.choices(fitting, weights)[0].prompts
        if not recipe.first:
            return tuple(rng.sample(sorted(self._clips), count))
        while True:  # a chain that ran into a corner starts again
            prompts = [_choose(rng, recipe.first)]
            while len(prompts) < count:
                allowed = {
                    name: weight
                    for name, weight in recipe.following[prompts[-1]].items()
                    if all(recipe.following[chosen].get(name, 0.0) > 0 for chosen in prompts)
                    and (name not in prompts or name in recipe.repeatable)
                }
                if not allowed:
                    break
                prompts.append(_choose(rng, allowed))
            else:
                return tuple(prompts)

    def _draw_room(self, rng: random.Random) -> Clip | None:
        if rng.random() >= self._recipe.augmentation.room_probability:
            return None
        return rng.choice(self._rooms)

    def _augment(self, source: SourcePlan, room: Clip | None, rng: random.Random) -> SourcePlan:
        """Draw what happens to a source as a whole."""
        settings = self._recipe.augmentation
        early_s = settings.early_s if settings.room_target == "early" else None
        return replace(
            source,
            coding=draw_coding(settings, settings.source_codec_probability, rng),
            is_inverted=rng.random() < settings.polarity_probability,
            room=None if room is None else Room(room.key, room.duration_s, early_s),
            width=draw_width(settings, rng),
        )

    def _damage(self, plan: MixPlan, rng: random.Random) -> MixPlan:
        """Draw what happens to a mixture as a whole."""
        settings = self._recipe.augmentation
        clipping_db = None
        if rng.random() < settings.clipping_probability:
            clipping_db = rng.uniform(*settings.clipping_db)
        coding = draw_coding(settings, settings.codec_probability, rng)
        is_damaged = clipping_db is not None or coding is not None
        level_db = 0.0
        if rng.random() < settings.level_probability:
            level_db = rng.uniform(*settings.level_db)
        return replace(
            plan,
            clipping_db=clipping_db,
            coding=coding,
            has_damaged_references=is_damaged and settings.damage_target == "damaged",
            level_db=level_db,
        )

    def _draw_song(
        self, prompts: Sequence[str], rng: random.Random, beside: random.Random
    ) -> _Song | None:
        """A song and a time in it at which the instruments of a mixture are cut together."""
        wanted = [name for name in prompts if any(clip.song for clip in self._clips.get(name, ()))]
        for prompt in prompts:
            wanted += [
                name
                for name in self._recipe.composed.get(prompt, ())
                if any(clip.song for clip in self._clips.get(name, ()))
            ]
        if len(wanted) < 2 or rng.random() >= self._recipe.same_song_probability:
            return None
        lead = rng.choice([clip for clip in self._clips[rng.choice(wanted)] if clip.song])
        warp = draw_warp(self._recipe.augmentation, beside)
        return _Song(lead.song, draw_start(lead, self._recipe.crop_s * warp.pace, rng), warp)

    def _draw_parts(
        self,
        prompt: str,
        song: _Song | None,
        taken: set[str],
        rng: random.Random,
        beside: random.Random,
    ) -> list[tuple[_Cut, float]]:
        """Cuts and levels of the parts of one source."""
        recipe = self._recipe
        kinds = [name for name in recipe.composed.get(prompt, ()) if name in self._clips]
        composes = bool(kinds) and (
            prompt not in self._clips or rng.random() < recipe.composed_probability
        )
        if not composes:
            drawn = self._draw_clip(prompt, song, taken, rng, beside)
            if drawn is None:
                raise DataError(
                    f"the {len(self._clips[prompt])} clips for {prompt!r} are too few to draw "
                    "another one of a different performer; add recordings."
                )
            return [(drawn, 0.0)]
        count = _choose(rng, recipe.composed_parts)
        # Parts of several kinds are of distinct kinds: no band has two drummers.
        distinct = len(kinds) > 1
        chosen = rng.sample(kinds, min(count, len(kinds))) if distinct else kinds * count
        parts = []
        for name in chosen:
            drawn = self._draw_clip(name, song, taken, rng, beside)
            if drawn is not None:  # a small pool makes a source of fewer parts
                low, high = recipe.gain_db.get(name, recipe.other_gain_db)
                parts.append((drawn, rng.uniform(low, high)))
        return parts

    def _draw_clip(
        self,
        prompt: str,
        song: _Song | None,
        taken: set[str],
        rng: random.Random,
        beside: random.Random,
    ) -> _Cut | None:
        """A clip that was not taken and where to cut it; None if all are taken."""
        pool = self._clips[prompt]
        if song is not None:
            for clip in pool:
                if clip.song == song.name and clip.key not in taken:
                    taken.add(clip.key)
                    return _Cut(clip, song.start_s, song.warp)
        for _ in range(_MAX_DRAWS):
            clip = rng.choices(pool, cum_weights=self._weights[prompt])[0]
            # A recording is used once, and two sources never share a speaker.
            if clip.key not in taken and (not clip.performer or clip.performer not in taken):
                taken.update({clip.key, clip.performer} - {""})
                warp = draw_warp(self._recipe.augmentation, beside)
                start_s = draw_start(clip, self._recipe.crop_s * warp.pace, rng)
                return _Cut(clip, start_s, warp)
        return None

    def _draw_tone(self, rng: random.Random) -> tuple[float, ...]:
        if rng.random() >= self._recipe.tone_probability:
            return ()
        limit = self._recipe.tone_db
        return tuple(round(rng.uniform(-limit, limit), 2) for _ in TONE_HZ)

    def _draw_bandwidth(self, bandwidths: Sequence[float], rng: random.Random) -> float | None:
        cut: float | None = None
        if rng.random() < self._recipe.common_bandwidth_probability:
            cut = min(bandwidths)
        if rng.random() < self._recipe.random_bandwidth_probability:
            random_cut = 3400.0 * (20000.0 / 3400.0) ** rng.random()
            cut = min(cut or random_cut, random_cut)
        return cut


def draw_start(clip: Clip, crop_s: float, rng: random.Random) -> float:
    """A crop that holds one of the clip's active stretches, as a whole where it can."""
    block = rng.choice(clip.active_s) if clip.active_s else 0.0
    earliest = block - max(0.0, crop_s - ACTIVE_BLOCK_S)
    start = rng.uniform(earliest, block)
    slack = clip.duration_s - crop_s  # negative where the clip is shorter than the crop
    return min(max(start, min(0.0, slack)), max(0.0, slack))


def _leave_some_unasked(
    plans: Sequence[MixPlan], dropped: Sequence[list[int]], most: int | None, rng: random.Random
) -> list[MixPlan]:
    """Turn prompts that stand once into sounds that nobody asks for: equally many in each plan.

    Args:
        plans: A batch.
        dropped: Of each plan, the place of the first prompt to leave out; none where none can be.
        most: So many at most.
        rng: Draws the others.
    """
    limit = min(min(len(_droppable(plan)), plan.num_asked - 1) for plan in plans)
    limit = limit if most is None else min(limit, most)
    # Where one mixture has no prompt to leave out, none of its batch leaves one out.
    if limit < 1:
        return list(plans)
    count = rng.randint(1, limit) if limit > 1 else 1
    unasked = []
    for plan, first in zip(plans, dropped, strict=True):
        others = [place for place in _droppable(plan) if place not in first]
        more = rng.sample(others, count - 1) if count > 1 else []
        unasked.append(_without_asking(plan, [*first, *more]))
    return unasked


def _droppable(plan: MixPlan) -> list[int]:
    """Places of the sources whose prompt stands once, and which are there to be heard.

    None where that would leave nothing to ask for.
    """
    if plan.num_asked < 2:
        return []
    names = [source.prompt for source in plan.sources]
    return [
        place
        for place, source in enumerate(plan.sources)
        if source.is_asked and source.parts and names.count(source.prompt) == 1
    ]


def _without_asking(plan: MixPlan, places: Sequence[int]) -> MixPlan:
    sources = tuple(
        replace(source, is_asked=source.is_asked and place not in places)
        for place, source in enumerate(plan.sources)
    )
    return replace(plan, sources=sources)


def _choose(rng: random.Random, weights: Mapping[Choice, float]) -> Choice:
    return rng.choices(list(weights), list(weights.values()))[0]
