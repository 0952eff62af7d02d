"""Example clips as queries: what sounds like this?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.example_clips import ReadingRule, read_clip
from unbraid.audio import safe_name
from unbraid.dsp.resample import resample
from unbraid.errors import AudioError, PromptError
from unbraid.models.taggers.htsat import Htsat
from unbraid.models.waveform import WaveformModel
from unbraid.prompts import ALIASES

#: Name of a query → the clips that show its sound.
Queries: TypeAlias = Mapping[str, Sequence[str | Path]]

# A tagger would hear pauses, too: they are left out, but not what dies away slowly. Nothing is
# too quiet that is no digital silence.
_RULE = ReadingRule(
    longest_s=math.inf,
    silence_dbfs=-115.0,
    silence_below_loudest_db=60.0,
    stretch_s=0.1,
    keeps_pauses=False,
)


def query_from_clips(model: WaveformModel, paths: Sequence[str | Path]) -> Float[Tensor, "dim"]:
    """The query for the sound that clips have in common: the mean of their embeddings.

    The loudest channel is taken, as by ``read_examples``, silence is left out, and what is longer
    than the tagger can hear as a whole is heard in pieces. Every clip counts the same, whatever
    its length.

    Args:
        model: A model with a tagger.
        paths: Recordings or videos in which the sound is heard alone, at least one.

    Raises:
        PromptError: If the model has no tagger, or no clip is given.
        AudioError: If a clip cannot be read, or is silent.

    Source: Y. Liu et al., "Audio prompt tuning for universal sound separation", ICASSP 2024,
        arXiv 2311.18399, the first stage.
    """
    tagger = tagger_of(model)
    if not paths:
        raise PromptError("a query needs at least one clip in which its sound is heard.")
    clips = []
    for path in paths:
        clip = read_clip(Path(path), tagger.sample_rate, _RULE)
        if not clip.samples.numel():
            raise AudioError(f"{path}: is silent; give a clip in which the sound is heard.")
        clips.append(clip.samples)
    return mean_embedding(tagger, clips, tagger.sample_rate)


def tagger_of(model: WaveformModel) -> Htsat:
    """What lets a model be asked by example.

    Raises:
        PromptError: If the model has none.
    """
    if model.tagger is None:
        raise PromptError(
            "this model cannot be asked by example, for it has no tagger; teach it a prompt from "
            "your clips with `unbraid teach`, or choose a model with a tagger."
        )
    return model.tagger


def mean_embedding(
    tagger: Htsat, clips: Sequence[Float[Tensor, "_"]], sample_rate: int
) -> Float[Tensor, "dim"]:
    """The mean of what a tagger hears in clips, each as a whole.

    Args:
        tagger: The tagger; it hears as in evaluation.
        clips: Mono, at least one.
        sample_rate: Of the clips, in Hz.
    """
    device = next(tagger.parameters()).device
    with torch.inference_mode():
        embeddings = [
            tagger.eval().embed(resample(clip[None], sample_rate, tagger.sample_rate)[0].to(device))
            for clip in clips
        ]
    # A copy, because what was made in inference mode can never be trained.
    return torch.stack(embeddings).mean(dim=0).clone()


def with_queries(model: WaveformModel, queries: Queries) -> WaveformModel:
    """A model that also knows what the clips sound like; it shares the network.

    Args:
        model: A model with a tagger.
        queries: Name of each query → its clips.

    Raises:
        PromptError: As ``query_from_clips``, or if a name is taken.
        AudioError: As ``query_from_clips``.
    """
    vectors = {name: query_from_clips(model, paths)[None] for name, paths in queries.items()}
    return model.with_prompts(vectors)


def name_queries(clips: Iterable[str | Path], taken: Iterable[str]) -> dict[str, Path]:
    """A name for each clip: that of its file or folder, and a number where it is taken.

    Args:
        clips: The clips, or folders of them.
        taken: Names that mean something else, the model's prompts for example.

    Returns:
        Name → clip, in order.

    >>> list(name_queries(["a/dog.wav", "b/dog.flac", "speech.mp3"], ["speech"]))
    ['dog', 'dog-2', 'speech-2']
    """
    # Some file systems take upper and lower case for one.
    used = {name.casefold() for name in (*taken, *ALIASES)}
    named = {}
    for clip in map(Path, clips):
        # Where names are listed, commas stand between them.
        whole = clip.resolve().name if clip.is_dir() else clip.stem
        wanted = safe_name(whole.replace(",", "_")).strip()
        name, number = wanted, 1
        while name.casefold() in used:
            number += 1
            name = f"{wanted}-{number}"
        used.add(name.casefold())
        named[name] = clip
    return named
