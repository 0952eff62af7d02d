"""Example clips as queries: what sounds like this?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.audio import probe, read_blocks, safe_name
from unbraid.dsp.levels import power_db, rms
from unbraid.dsp.resample import Resampler
from unbraid.errors import AudioError, PromptError
from unbraid.models.waveform import WaveformModel
from unbraid.prompts import ALIASES

#: Name of a query → the clips that show its sound.
Queries: TypeAlias = Mapping[str, Sequence[str | Path]]

#: Stretches of this length that are this far below the loudest one are taken for silence.
_STRETCH_S = 0.1
_SILENCE_DB = -60.0


def query_from_clips(model: WaveformModel, paths: Sequence[str | Path]) -> Float[Tensor, "dim"]:
    """The query for the sound that clips have in common: the mean of their embeddings.

    Channels are averaged, silence is left out, and what is longer than the tagger can hear as a
    whole is heard in pieces. Every clip counts the same, whatever its length.

    Args:
        model: A model with a tagger.
        paths: Recordings or videos in which the sound is heard alone, at least one.

    Raises:
        PromptError: If the model has no tagger, or no clip is given.
        AudioError: If a clip cannot be read, or is silent.

    Source: Y. Liu et al., "Audio prompt tuning for universal sound separation", ICASSP 2024,
        arXiv 2311.18399, the first stage.
    """
    if model.tagger is None:
        raise PromptError(
            "this model cannot be asked by example, for it has no tagger; teach it a prompt from "
            "your clips with `unbraid teach`, or choose a model with a tagger."
        )
    if not paths:
        raise PromptError("a query needs at least one clip in which its sound is heard.")
    device = next(model.tagger.parameters()).device
    embeddings = []
    with torch.inference_mode():
        for path in paths:
            clip = _without_silence(path, model.tagger.sample_rate)
            embeddings.append(model.tagger.eval().embed(clip.to(device)))
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


def digest_of_clip(path: str | Path) -> str:
    """SHA-256 of a clip, in hexadecimal digits.

    Raises:
        AudioError: If it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}).") from error


def _read_mono(path: str | Path, sample_rate: int) -> Float[Tensor, "time"]:
    resampler = Resampler(probe(path).sample_rate, sample_rate)
    parts = [resampler.push(block.mean(dim=0, keepdim=True)) for block in read_blocks(path)]
    if (tail := resampler.finish()) is not None:
        parts.append(tail)
    return torch.cat(parts, dim=1)[0] if parts else torch.zeros(0)


def _without_silence(path: str | Path, sample_rate: int) -> Float[Tensor, "time"]:
    clip = _read_mono(path, sample_rate)
    if not bool(clip.any()):
        raise AudioError(f"{path}: is silent; give a clip in which the sound is heard.")
    stretches = clip.split(round(_STRETCH_S * sample_rate))
    levels_db = power_db(torch.stack([rms(stretch) for stretch in stretches]).square())
    is_loud = levels_db > levels_db.max() + _SILENCE_DB
    return torch.cat([part for part, loud in zip(stretches, is_loud, strict=True) if loud])
