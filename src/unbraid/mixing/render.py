"""From a plan to audio: references whose sum is the mixture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dsp.levels import db_to_gain, rms
from unbraid.mixing.recipe import TONE_HZ, MixPlan, PartPlan

#: Reads samples of a clip: key, first sample (may be negative), number of samples → mono
#: audio at the mixture's rate, zeros where the clip has none. Raises ``UnreadableClip`` for one
#: that cannot be read.
ClipReader: TypeAlias = Callable[[str, int, int], Float[Tensor, "time"]]


@dataclass(frozen=True, eq=False)
class RenderedMix:
    """A mixture and what it is made of.

    Attributes:
        mixture: The sum of everything in the plan, asked for or not.
        references: The sources that are asked for, in the order of the plan.
        prompts: Their prompts.
    """

    mixture: Float[Tensor, "time"]
    references: Float[Tensor, "source time"]
    prompts: tuple[str, ...]


def render(plan: MixPlan, read_clip: ClipReader, sample_rate: int) -> RenderedMix:
    """Turn a plan into audio.

    Every source is brought to a root mean square of 1, silence around it included, and
    then to its level. A source without parts, or whose crop is silent, is zero.
    """
    length = round(plan.crop_s * sample_rate)
    cut = _low_pass(plan.bandwidth_hz, length, sample_rate)
    rendered = []
    for source in plan.sources:
        signal = torch.zeros(length)
        for part in source.parts:
            signal = signal + _render_part(part, read_clip, length, sample_rate, cut)
        rendered.append(_at_level(signal, source.gain_db))
    asked = [position for position, source in enumerate(plan.sources) if source.is_asked]
    sources = torch.stack(rendered)
    return RenderedMix(
        mixture=sources.sum(dim=0),
        references=sources[asked],
        prompts=tuple(plan.sources[position].prompt for position in asked),
    )


def _render_part(
    part: PartPlan,
    read_clip: ClipReader,
    length: int,
    sample_rate: int,
    cut: Float[Tensor, "bin"] | None,
) -> Float[Tensor, "time"]:
    signal = read_clip(part.clip, round(part.start_s * sample_rate), length)
    response = cut
    if part.tone_db:
        tone = _tone(part.tone_db, length, sample_rate)
        response = tone if response is None else response * tone
    if response is not None:
        signal = torch.fft.irfft(torch.fft.rfft(signal) * response, n=length)
    return _at_level(signal, part.gain_db)


def _at_level(signal: Float[Tensor, "time"], gain_db: float) -> Float[Tensor, "time"]:
    level = float(rms(signal))
    return signal * (db_to_gain(gain_db) / level) if level > 1e-8 else torch.zeros_like(signal)


def _frequencies(length: int, sample_rate: int) -> Float[Tensor, "bin"]:
    return torch.arange(length // 2 + 1) * (sample_rate / length)


def _low_pass(
    bandwidth_hz: float | None, length: int, sample_rate: int
) -> Float[Tensor, "bin"] | None:
    """Gains that fall from 1 to 0 as a raised cosine over the last 5 % below the cut."""
    if bandwidth_hz is None or bandwidth_hz >= sample_rate / 2:
        return None
    position = (_frequencies(length, sample_rate) / bandwidth_hz - 0.95) / 0.05
    return 0.5 + 0.5 * torch.cos(math.pi * position.clamp(0.0, 1.0))


def _tone(tone_db: tuple[float, ...], length: int, sample_rate: int) -> Float[Tensor, "bin"]:
    """Gains at all frequencies, straight lines in dB over log-frequency between ``TONE_HZ``."""
    knots = torch.tensor(TONE_HZ).log()
    levels = torch.tensor(tone_db)
    place = _frequencies(length, sample_rate).clamp(TONE_HZ[0], TONE_HZ[-1]).log().contiguous()
    upper = torch.searchsorted(knots, place).clamp(1, len(TONE_HZ) - 1)
    share = (place - knots[upper - 1]) / (knots[upper] - knots[upper - 1])
    return 10.0 ** ((levels[upper - 1] + share * (levels[upper] - levels[upper - 1])) / 20.0)
