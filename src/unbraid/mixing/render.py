"""From a plan to audio: a mixture and its references."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dsp.levels import db_to_gain, rms
from unbraid.dsp.resample import resample
from unbraid.mixing.augmentation import UNWARPED, Coding, Warp
from unbraid.mixing.recipe import TONE_HZ, MixPlan, PartPlan, SourcePlan
from unbraid.mixing.rooms import reverberate

#: Reads samples of a clip: key, first sample (may be negative), number of samples → audio at
#: the mixture's rate, zeros where the clip has none. Mono has no axis for channels; all clips of
#: a mixture have as many channels as each other; see ``Augmentation.check_channels``.
#: Raises ``UnreadableClip`` for one that cannot be read.
ClipReader: TypeAlias = Callable[[str, int, int], Float[Tensor, "*channel time"]]

#: Level of the loudest sample on its way through a codec: some turn down what is louder.
_CODED_PEAK = 0.9


@dataclass(frozen=True)
class Effects:
    """Operations that need more than torch, for those who render plans that ask for them.

    Attributes:
        code: Signal, its sampling rate and a coding → what the codec leaves of it, as long as
            before and in time with it. Full scale is ±1.
        stretch: Signal, its sampling rate, tempo and semitones → the signal at another tempo
            and pitch; about ``1 / tempo`` as long, to be cut or filled up by whoever asked.
    """

    code: Callable[[Float[Tensor, "time"], int, Coding], Float[Tensor, "time"]]
    stretch: Callable[[Float[Tensor, "time"], int, float, float], Float[Tensor, "stretched"]]


@dataclass(frozen=True, eq=False)
class RenderedMix:
    """A mixture and what it is made of.

    Attributes:
        mixture: The sum of everything in the plan, asked for or not, with all its damage.
        references: The sources that are asked for, in the order of the plan; what the table in
            ``augmentation`` leaves out of them is missing in their sum.
        prompts: Their prompts.
    """

    mixture: Float[Tensor, "*channel time"]
    references: Float[Tensor, "source *channel time"]
    prompts: tuple[str, ...]


def render(
    plan: MixPlan, read_clip: ClipReader, sample_rate: int, effects: Effects | None = None
) -> RenderedMix:
    """Turn a plan into audio.

    Every source is brought to a root mean square of 1, silence around it and its room included
    and over all channels, and then to its level. A source without parts, or whose crop is silent,
    is zero.

    Args:
        plan: What to render.
        read_clip: Reads clips and room impulse responses.
        sample_rate: Of the clips and the mixture.
        effects: Needed for plans with codecs, another tempo or another pitch.

    Raises:
        ValueError: If the plan needs effects and there are none.
    """
    length = round(plan.crop_s * sample_rate)
    cut = _low_pass(plan.bandwidth_hz, length, sample_rate)
    scene = _Scene(read_clip, sample_rate, effects)
    parts = [
        [_render_part(part, length, cut, scene) for part in source.parts] for source in plan.sources
    ]
    silence = torch.zeros_like(next((part for each in parts for part in each), torch.zeros(length)))
    rendered = [
        _render_source(source, sum(each, silence), scene)
        for source, each in zip(plan.sources, parts, strict=True)
    ]
    asked = [position for position, source in enumerate(plan.sources) if source.is_asked]
    mixture = torch.stack([heard for heard, _ in rendered]).sum(dim=0)
    references = torch.stack([reference for _, reference in rendered])[asked]
    if plan.clipping_db is not None and mixture.any():
        mixture, references = _clip(plan, plan.clipping_db, mixture, references)
    if plan.coding is not None and mixture.any():
        mixture, references = _code(plan, plan.coding, mixture, references, scene)
    if plan.level_db != 0.0:
        gain = db_to_gain(plan.level_db)
        mixture, references = gain * mixture, gain * references
    return RenderedMix(
        mixture=mixture,
        references=references,
        prompts=tuple(plan.sources[position].prompt for position in asked),
    )


@dataclass(frozen=True)
class _Scene:
    """What every source of a mixture is rendered with."""

    read_clip: ClipReader
    sample_rate: int
    effects: Effects | None

    @property
    def needed_effects(self) -> Effects:
        if self.effects is None:
            raise ValueError("this plan needs effects: hand in ``data.effects.EFFECTS``")
        return self.effects

    def coded(
        self, signal: Float[Tensor, "time"], coding: Coding, gain: float
    ) -> Float[Tensor, "time"]:
        """What a codec leaves of a signal that is turned up by ``gain`` on the way."""
        if not signal.any():
            return signal
        return self.needed_effects.code(gain * signal, self.sample_rate, coding) / gain


def _render_source(
    source: SourcePlan, signal: Float[Tensor, "*channel time"], scene: _Scene
) -> tuple[Float[Tensor, "*channel time"], Float[Tensor, "*channel time"]]:
    """A source, the sum of its parts, as it is heard in the mixture and as it is wanted back."""
    if source.coding is not None and signal.any():
        signal = scene.coded(signal, source.coding, _coding_gain(signal))
    if source.is_inverted:
        signal = -signal
    if source.width != 1.0:
        middle = signal.mean(dim=0)
        signal = middle + source.width * (signal - middle)
    wanted = signal
    if source.room is not None:
        taps = round(source.room.duration_s * scene.sample_rate)
        response = scene.read_clip(source.room.clip, 0, taps)
        signal, wanted = reverberate(signal, response, scene.sample_rate, source.room.early_s)
    gain = _level_gain(signal, source.gain_db)
    heard = signal * gain
    return heard, heard if wanted is signal else wanted * gain


def _render_part(
    part: PartPlan, length: int, cut: Float[Tensor, "bin"] | None, scene: _Scene
) -> Float[Tensor, "*channel time"]:
    start = round(part.start_s * scene.sample_rate)
    if part.warp == UNWARPED:
        signal = scene.read_clip(part.clip, start, length)
    else:
        signal = _warped(part.clip, start, length, part.warp, scene)
    response = cut
    if part.tone_db:
        tone = _tone(part.tone_db, length, scene.sample_rate)
        response = tone if response is None else response * tone
    if response is not None:
        signal = torch.fft.irfft(torch.fft.rfft(signal) * response, n=length)
    return signal * _level_gain(signal, part.gain_db)


def _warped(clip: str, start: int, length: int, warp: Warp, scene: _Scene) -> Float[Tensor, "time"]:
    """So much of a clip as gives ``length`` samples at its new speed, tempo and pitch."""
    # Played at 110 % of its speed, a clip lasts as long as one of 110 samples in place of 100.
    percent = round(100 * warp.speed)
    fast_length = -(-length * percent // 100)
    signal = scene.read_clip(clip, start, math.ceil(fast_length * warp.tempo))
    if warp.tempo != 1.0 or warp.pitch_semitones != 0.0:
        stretch = scene.needed_effects.stretch
        signal = stretch(signal, scene.sample_rate, warp.tempo, warp.pitch_semitones)
        # Rounded lengths of the stretch differ by a sample or two.
        signal = torch.nn.functional.pad(signal, (0, fast_length - signal.numel()))
    return resample(signal[None], percent, 100)[0, :length]


def _clip(
    plan: MixPlan,
    clipping_db: float,
    mixture: Float[Tensor, "*channel time"],
    references: Float[Tensor, "source *channel time"],
) -> tuple[Float[Tensor, "*channel time"], Float[Tensor, "source *channel time"]]:
    limit = mixture.abs().max() / db_to_gain(clipping_db)
    if plan.has_damaged_references:
        # Turned down together, so that references that added up still do.
        references = references * (limit / mixture.abs().clamp_min(limit))
    return mixture.clamp(-limit, limit), references


def _code(
    plan: MixPlan,
    coding: Coding,
    mixture: Float[Tensor, "*channel time"],
    references: Float[Tensor, "source *channel time"],
    scene: _Scene,
) -> tuple[Float[Tensor, "*channel time"], Float[Tensor, "source *channel time"]]:
    gain = _coding_gain(mixture)
    if plan.has_damaged_references:
        # All at one gain, since codecs leave out what is too soft to be heard. References that
        # cancel each other in part are louder than the mixture.
        gain = _coding_gain(mixture, references)
        references = torch.stack([scene.coded(each, coding, gain) for each in references])
    return scene.coded(mixture, coding, gain), references


def _coding_gain(*signals: Float[Tensor, "..."]) -> float:
    """What brings the loudest sample of all, which must not be 0, to ``_CODED_PEAK``."""
    return _CODED_PEAK / max(float(signal.abs().max()) for signal in signals)


def _level_gain(signal: Float[Tensor, "*channel time"], gain_db: float) -> float:
    """What brings a signal to a level; 0 where there is nothing to bring there."""
    level = float(rms(signal.flatten()))
    return db_to_gain(gain_db) / level if level > 1e-8 else 0.0


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
