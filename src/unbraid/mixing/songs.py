"""Mixtures from songs whose stems are known: as they were mixed, and mixed anew.

Half of what a model is tuned on should be what it will hear, a stretch of a song with the levels
that somebody gave its stems, rests included. The other half puts stems of several songs together,
so that a few songs make many mixtures. As in ``mixing.recipe`` everything is drawn first, as plain
data that depends on the seed alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dsp.levels import db_to_gain, rms
from unbraid.mixing.recipe import Clip, draw_start

#: Reads samples of a stem: key, first sample (may be negative), number of samples → audio at the
#: mixture's rate, zeros where the stem has none. With an axis for channels, or without.
StemReader: TypeAlias = Callable[[str, int, int], Float[Tensor, "*channel time"]]

#: Levels of stems that are put together anew, as in the recipe of TUSS.
_LEVELS_DB = (-10.0, 0.0)
#: How much louder or softer a stem of a song becomes than it was mixed.
_MIXED_OTHERWISE_DB = (-2.0, 2.0)


@dataclass(frozen=True)
class Stem:
    """A stem of a song.

    Attributes:
        prompt: Canonical name of its prompt.
        clip: The recording, over the time that may be drawn from. Where nothing of it is active,
            it is never looked for, but it sounds with its song.
    """

    prompt: str
    clip: Clip


@dataclass(frozen=True)
class Song:
    """A song.

    Attributes:
        name: Unique among its like.
        stems: What it is the sum of.
    """

    name: str
    stems: tuple[Stem, ...]

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts of its stems, sorted."""
        return tuple(sorted(stem.prompt for stem in self.stems))


@dataclass(frozen=True)
class StemPlan:
    """A stretch of a stem.

    Attributes:
        prompt: Canonical name of its prompt.
        clip: Key of the clip; empty for silence.
        start_s: Where the crop begins; negative where silence stands before the clip.
        gain_db: Of the recording as it is, or of its crop at a root mean square of 1.
    """

    prompt: str
    clip: str
    start_s: float
    gain_db: float


@dataclass(frozen=True)
class SongMixPlan:
    """One mixture.

    Attributes:
        stems: What it is the sum of.
        keeps_levels: Whether gains are relative to the recordings as they are.
    """

    stems: tuple[StemPlan, ...]
    keeps_levels: bool


class SongPlanner:
    """Draws plans from songs.

    Args:
        songs: At least one, each with a stem in which something is active.
        crop_s: Length of a mixture.
        same_song_probability: How often a mixture is a stretch of one song.
    """

    def __init__(self, songs: Sequence[Song], crop_s: float, same_song_probability: float) -> None:
        self._songs = tuple(songs)
        self._crop_s = crop_s
        self._same_song_probability = same_song_probability
        self._pools: dict[str, list[Clip]] = {}
        for song in songs:
            for stem in song.stems:
                pool = self._pools.setdefault(stem.prompt, [])
                if stem.clip.active_s:
                    pool.append(stem.clip)

    def draw_batch(self, batch_size: int, seed: str) -> tuple[SongMixPlan, ...]:
        """Draw mixtures that ask for the same prompts, in the same order.

        Prompts come in every order: networks hear it, and who asks is to be free to choose.
        Equal arguments give equal plans.
        """
        rng = random.Random(seed)
        prompts = rng.choice(self._songs).prompts
        alike = [song for song in self._songs if song.prompts == prompts]
        order = rng.sample(prompts, len(prompts))
        return tuple(
            self._stretch(rng.choice(alike), order, rng)
            if rng.random() < self._same_song_probability
            else self._anew(order, rng)
            for _ in range(batch_size)
        )

    def _stretch(self, song: Song, order: Sequence[str], rng: random.Random) -> SongMixPlan:
        lead = rng.choice([stem for stem in song.stems if stem.clip.active_s])
        start_s = draw_start(lead.clip, self._crop_s, rng)
        left = rng.sample(song.stems, len(song.stems))
        plans = []
        for prompt in order:
            stem = next(stem for stem in left if stem.prompt == prompt)
            left.remove(stem)
            plans.append(
                StemPlan(prompt, stem.clip.key, start_s, rng.uniform(*_MIXED_OTHERWISE_DB))
            )
        return SongMixPlan(tuple(plans), keeps_levels=True)

    def _anew(self, order: Sequence[str], rng: random.Random) -> SongMixPlan:
        plans: list[StemPlan] = []
        for prompt in order:
            taken = {plan.clip for plan in plans}
            pool = [clip for clip in self._pools[prompt] if clip.key not in taken]
            gain_db = rng.uniform(*_LEVELS_DB)
            if pool:
                clip = rng.choice(pool)
                start_s = draw_start(clip, self._crop_s, rng)
                plans.append(StemPlan(prompt, clip.key, start_s, gain_db))
            else:
                plans.append(StemPlan(prompt, "", 0.0, gain_db))
        return SongMixPlan(tuple(plans), keeps_levels=False)


def render_stems(
    plan: SongMixPlan, read: StemReader, length: int, sample_rate: int
) -> Float[Tensor, "source *channel time"]:
    """Turn a plan into its sources, whose sum is the mixture; several channels keep their image.

    Stems that are put together anew have a root mean square of 1 before their gain, over all
    channels together; one whose crop is silent is zero.

    Args:
        plan: The plan.
        read: Reads the clips that it names.
        length: Of the mixture, in samples.
        sample_rate: Of the clips and the mixture.
    """
    heard = {
        stem.clip: read(stem.clip, round(stem.start_s * sample_rate), length)
        for stem in plan.stems
        if stem.clip
    }
    silence = torch.zeros_like(next(iter(heard.values())))
    sources = []
    for stem in plan.stems:
        sound = heard.get(stem.clip, silence)
        gain = db_to_gain(stem.gain_db)
        if not plan.keeps_levels:
            level = float(rms(sound.flatten()))
            gain = gain / level if level > 0 else 0.0
        sources.append(gain * sound)
    return torch.stack(sources)
