"""Prompts for the classes of a corpus, by audio prompt tuning.

=====================  ==========================  ============================================
paper                  here                        what it is
=====================  ==========================  ============================================
x_{k,i}                ClassClips                  clip i of class k
p_k, stage 1           mean_embeddings             what a tagger hears in a class
y = x_{k,i} + x_{l,j}  class_mixtures              clips of two classes, as they were recorded
stage 2, Joint-Tune    tune_classes                prompts learn, or the separator with them
=====================  ==========================  ============================================

Source: Y. Liu et al., "Audio prompt tuning for universal sound separation", ICASSP 2024,
    arXiv 2311.18399; K. Chen et al., "Zero-shot audio source separation through query-based
    learning from weakly-labeled data", AAAI 2022, arXiv 2112.07891, for queries from songs.
Differs: Both sources of a mixture are asked for, since both have a prompt.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.queries import mean_embedding
from unbraid.data.dynamic import MixtureBatch
from unbraid.dsp.levels import rms
from unbraid.dsp.resample import resample
from unbraid.errors import DataError, PromptError
from unbraid.models.taggers.htsat import Htsat
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.measures import snr_db
from unbraid.training.methods.prompt_tuning import TunedPrompts, TuningConfig, tune_prompts

#: Class → its clips, mono, at the rate of the model and at the level at which they were recorded.
ClassClips: TypeAlias = Mapping[str, Sequence[Float[Tensor, "_"]]]

#: Pieces of a song whose squares sum up to less take no part in its query.
_AUDIBLE = 0.1
#: So often a crop is drawn again where it is silent.
_MAX_DRAWS = 20
_CHECK_BATCHES = 8


def few_shots(clips: ClassClips, count: int, seed: int = 0) -> ClassClips:
    """As many clips of each class; more of them hold the fewer of the same seed.

    Raises:
        DataError: If a class has too few.
    """
    chosen = {}
    for name, pool in clips.items():
        if len(pool) < count:
            raise DataError(f"class {name!r} has {len(pool)} clips, fewer than {count}.")
        order = random.Random(f"{seed}/{name}").sample(range(len(pool)), len(pool))
        chosen[name] = [pool[place] for place in order[:count]]
    return chosen


def mean_embeddings(
    tagger: Htsat, clips: ClassClips, sample_rate: int, pieces_s: float | None = None
) -> dict[str, Float[Tensor, "1 dim"]]:
    """The query of each class: the mean of what a tagger hears in its clips (stage 1).

    Args:
        tagger: The tagger.
        clips: Class → clips.
        sample_rate: Of the clips.
        pieces_s: Hear clips in pieces of this length, without a shorter rest and without those
            that are hardly audible, and take the mean for each clip first, as for songs. None
            for hearing them whole.

    Raises:
        PromptError: If no clip of a class is audible.
    """
    queries = {}
    for name, pool in clips.items():
        heard = []
        for clip in pool:
            at_rate = resample(clip[None], sample_rate, tagger.sample_rate)[0]
            pieces = [at_rate]
            if pieces_s is not None:
                whole = at_rate.unfold(0, *[round(pieces_s * tagger.sample_rate)] * 2)
                pieces = [piece for piece in whole if float(piece.square().sum()) > _AUDIBLE]
            if pieces:
                heard.append(mean_embedding(tagger, pieces, tagger.sample_rate))
        if not heard:
            raise PromptError(f"class {name!r}: nothing is heard in its {len(pool)} clips.")
        queries[name] = torch.stack(heard).mean(dim=0)[None]
    return queries


def class_mixtures(
    clips: ClassClips,
    rows: Mapping[str, int],
    crop_samples: int,
    batch_size: int,
    seed: int,
    *,
    targets: Sequence[str] | None = None,
    equal_energy: bool = False,
) -> Iterator[MixtureBatch]:
    """Endless mixtures of clips of two classes, both drawn evenly.

    Args:
        clips: Class → clips; shorter ones than a crop are filled up with silence.
        rows: Class → row of the prompt bank.
        crop_samples: Length of a mixture.
        batch_size: Mixtures in a batch.
        seed: Of everything that is drawn.
        targets: Ask for these classes only, and not for what they are mixed with.
        equal_energy: Bring both to one level instead of adding them up as they were recorded.

    Raises:
        DataError: If there are fewer than two classes.
    """
    if len(clips) < 2:
        raise DataError(f"mixtures of two classes need two; there are {len(clips)}.")
    rng = random.Random(seed)
    names = sorted(clips)
    while True:
        sources, asked = [], []
        for _ in range(batch_size):
            target = rng.choice(names if targets is None else targets)
            partner = rng.choice([name for name in names if name != target])
            pair = torch.stack(
                [_crop(clips[name], crop_samples, rng) for name in (target, partner)]
            )
            if equal_energy:
                pair = pair / rms(pair)[:, None].clamp_min(1e-8)
            sources.append(pair)
            asked.append([rows[target], rows[partner]] if targets is None else [rows[target]])
        references = torch.stack(sources)
        yield MixtureBatch(
            references.sum(dim=1),
            references if targets is None else references[:, :1],
            torch.tensor(asked),
        )


def tune_classes(
    model: WaveformModel,
    starts: Mapping[str, Float[Tensor, "vector dim"]],
    clips: ClassClips,
    config: TuningConfig,
    *,
    crop_samples: int,
    batch_size: int = 4,
    seed: int = 0,
    equal_energy: bool = False,
) -> TunedPrompts:
    """Tune the prompts of all classes together (stage 2).

    The check is on fixed mixtures of the same clips, since few shots leave none to hold back;
    so what comes out is never worse than the start on what it learnt from.

    Args:
        model: The separator; with ``config.network_learning_rate`` a copy of it learns, too.
        starts: Class → where its prompt begins.
        clips: Class → clips.
        config: How.
        crop_samples: Length of the mixtures to learn from.
        batch_size: Mixtures per step.
        seed: Of the mixtures.
        equal_energy: As in ``class_mixtures``.

    Raises:
        DataError: If there are fewer than two classes.
        PromptError: If a start does not fit the model.
    """
    first = len(model.prompts.names)
    rows = {name: first + number for number, name in enumerate(starts)}

    def mixtures(seed: int) -> Iterator[MixtureBatch]:
        return class_mixtures(
            clips, rows, crop_samples, batch_size, seed, equal_energy=equal_energy
        )

    checks = tuple(itertools.islice(mixtures(seed + 1), _CHECK_BATCHES))

    @torch.no_grad()
    def measure(tuned: WaveformModel) -> float:
        ratios = [
            snr_db(tuned(batch.mixture, batch.prompt_indices), batch.references) for batch in checks
        ]
        return float(torch.cat(ratios).mean())

    return tune_prompts(model, starts, mixtures(seed), measure, config)


def _crop(
    pool: Sequence[Float[Tensor, "_"]], length: int, rng: random.Random
) -> Float[Tensor, "crop"]:
    """A stretch of a clip with sound in it, if it is found in a few tries."""
    crop = torch.zeros(length)
    for _ in range(_MAX_DRAWS):
        clip = rng.choice(pool)
        start = rng.randint(0, max(0, len(clip) - length))
        part = clip[start : start + length]
        crop = torch.nn.functional.pad(part, (0, length - len(part)))
        if bool(crop.any()):
            break
    return crop
