"""Sounds that are computed: textures and events to mix with, where no recordings are at hand.

None of them is to be taken for a real rain or a real bird. Together they cover what real
backgrounds differ in: steady or intermittent, broad or narrow, low or high, toned or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def textures(
    duration_s: float, sample_rate: int, seed: int = 0
) -> dict[str, Float[Tensor, "time"]]:
    """Sounds that go on: name → samples with a root mean square of 0.1.

    Equal arguments give equal sounds.
    """
    return _all(_TEXTURES, duration_s, sample_rate, seed)


def events(duration_s: float, sample_rate: int, seed: int = 0) -> dict[str, Float[Tensor, "time"]]:
    """Sounds that come and go: name → samples with a root mean square of 0.1.

    Equal arguments give equal sounds.
    """
    return _all(_EVENTS, duration_s, sample_rate, seed)


Maker = Callable[[Tensor, int, torch.Generator], Tensor]


def _all(
    makers: dict[str, Maker], duration_s: float, sample_rate: int, seed: int
) -> dict[str, Tensor]:
    time = torch.arange(max(1, round(duration_s * sample_rate))) / sample_rate
    sounds = {}
    for number, (name, make) in enumerate(makers.items()):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        sound = make(time, sample_rate, generator)
        sounds[name] = 0.1 * sound / _level(sound)
    return sounds


def _noise(time: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(time.shape, generator=generator)


def _level(sound: Tensor) -> Tensor:
    return sound.square().mean().sqrt().clamp_min(1e-9)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _shaped(noise: Tensor, sample_rate: int, gain: Callable[[Tensor], Tensor]) -> Tensor:
    """Noise whose amplitude over frequency is ``gain``."""
    spectrum = torch.fft.rfft(noise)
    frequency_hz = torch.fft.rfftfreq(len(noise), 1 / sample_rate)
    return torch.fft.irfft(spectrum * gain(frequency_hz), len(noise))


def _band(centre_hz: float, octaves: float) -> Callable[[Tensor], Tensor]:
    """A bell over log-frequency."""

    def gain(frequency_hz: Tensor) -> Tensor:
        distance = (frequency_hz.clamp_min(1.0) / centre_hz).log2() / octaves
        return torch.exp(-distance.square())

    return gain


def _coloured(slope: float) -> Maker:
    """Noise whose power falls with frequency to the power of ``slope``."""

    def make(time: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
        return _shaped(
            _noise(time, generator), sample_rate, lambda hz: hz.clamp_min(30.0) ** (-slope / 2)
        )

    return make


def _hum(time: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Mains and their partials over a little noise."""
    sound = 0.05 * _noise(time, generator)
    for partial in range(1, 16):
        phase = _uniform(0, 2 * math.pi, generator)
        sound = sound + torch.sin(2 * math.pi * 50.0 * partial * time + phase) / partial
    return sound


def _wind(time: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Low noise that swells."""
    swell = sum(
        torch.sin(2 * math.pi * _uniform(0.05, 0.6, generator) * time + number)
        for number in range(4)
    )
    return _shaped(_noise(time, generator), sample_rate, _band(300.0, 1.5)) * torch.exp(
        0.6 * torch.as_tensor(swell)
    )


def _rain(time: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Many short drops over a hiss."""
    drops = (torch.rand(time.shape, generator=generator) < 300.0 / sample_rate).float()
    heights = drops * _noise(time, generator).abs()
    splash = _shaped(heights, sample_rate, _band(4000.0, 1.5))
    hiss = _shaped(_noise(time, generator), sample_rate, _band(6000.0, 1.5))
    return splash / _level(splash) + 0.7 * hiss / _level(hiss)


def _engine(time: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """A low tone with partials whose pitch wanders, and the noise of its strokes."""
    wander = torch.cumsum(
        28.0 + 6.0 * torch.sin(2 * math.pi * _uniform(0.1, 0.3, generator) * time), dim=0
    )
    phase = 2 * math.pi * wander / sample_rate
    tone = sum(torch.sin(partial * phase) / partial**0.7 for partial in range(1, 25))
    strokes = _shaped(_noise(time, generator), sample_rate, _band(900.0, 1.0))
    return tone + 2.0 * strokes * (0.5 + 0.5 * torch.sin(phase)) ** 4


def _crickets(time: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """A high tone that is chopped fast, in groups."""
    chop = (0.5 + 0.5 * torch.sin(2 * math.pi * 38.0 * time)) ** 2
    groups = (torch.sin(2 * math.pi * 1.7 * time) > -0.2).float()
    pitch_hz = min(_uniform(4200.0, 5200.0, generator), 0.4 * sample_rate)
    return torch.sin(2 * math.pi * pitch_hz * time) * chop * groups


def _repeated(sound_of: Callable[[Tensor, int, torch.Generator], Tensor], gap_s: float) -> Maker:
    """A sound again and again, each time another one, at times that are drawn."""

    def make(time: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
        track = torch.zeros(len(time))
        start_s = _uniform(0.0, 0.3 * gap_s, generator)
        while start_s < len(time) / sample_rate:
            place = round(start_s * sample_rate)
            left = torch.arange(len(time) - place) / sample_rate
            track[place:] += _uniform(0.4, 1.0, generator) * sound_of(left, sample_rate, generator)
            start_s += gap_s * _uniform(0.5, 1.5, generator)
        return track

    return make


def _knock(time: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """A wooden body that is struck: a few damped modes and the blow."""
    sound = 0.5 * _noise(time, generator) * torch.exp(-time / 0.004)
    for _ in range(4):
        mode_hz = _uniform(120.0, 1800.0, generator)
        decay_s = _uniform(0.02, 0.06, generator)
        sound = sound + torch.sin(2 * math.pi * mode_hz * time) * torch.exp(-time / decay_s)
    return sound


def _bell(time: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Partials that are no multiples of each other, and die slowly."""
    lowest_hz = _uniform(400.0, 1500.0, generator)
    sound = torch.zeros(len(time))
    for ratio in (1.0, 2.0, 2.76, 4.1, 5.4):
        if lowest_hz * ratio < sample_rate / 2:
            decay_s = _uniform(0.3, 1.2, generator) / ratio
            tone = torch.sin(2 * math.pi * lowest_hz * ratio * time)
            sound = sound + tone * torch.exp(-time / decay_s) / ratio
    return sound


def _chirp(time: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """A whistle that glides, as small birds do."""
    duration_s = _uniform(0.08, 0.3, generator)
    share = (time / duration_s).clamp(0.0, 1.0)
    first_hz, last_hz = (_uniform(2000.0, 6500.0, generator) for _ in range(2))
    pitch_hz = (first_hz + (last_hz - first_hz) * share).clamp_max(0.45 * sample_rate)
    phase = 2 * math.pi * torch.cumsum(pitch_hz, dim=0) / sample_rate
    return torch.sin(phase) * torch.sin(math.pi * share).clamp_min(0.0)


def _beep(time: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """What machines say when they are done."""
    pitch_hz = min(_uniform(800.0, 3000.0, generator), 0.3 * sample_rate)
    is_on = (time < _uniform(0.1, 0.4, generator)).float()
    tone = torch.sin(2 * math.pi * pitch_hz * time)
    return (tone + 0.3 * torch.sin(6 * math.pi * pitch_hz * time)) * is_on


def _swoosh(time: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Noise that passes by."""
    length_s = _uniform(0.3, 0.9, generator)
    rise = torch.sin(math.pi * (time / length_s).clamp(0.0, 1.0)).clamp_min(0.0) ** 2
    centre_hz = _uniform(500.0, 3000.0, generator)
    return _shaped(_noise(time, generator), sample_rate, _band(centre_hz, 1.0)) * rise


def _click(time: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Short, dry and high."""
    return _noise(time, generator) * torch.exp(-time / _uniform(0.001, 0.006, generator))


_TEXTURES: dict[str, Maker] = {
    "white noise": _coloured(0.0),
    "pink noise": _coloured(1.0),
    "brown noise": _coloured(2.0),
    "hum": _hum,
    "wind": _wind,
    "rain": _rain,
    "engine": _engine,
    "crickets": _crickets,
}

_EVENTS: dict[str, Maker] = {
    "knocks": _repeated(_knock, 0.5),
    "bells": _repeated(_bell, 1.2),
    "chirps": _repeated(_chirp, 0.4),
    "beeps": _repeated(_beep, 0.9),
    "swooshes": _repeated(_swoosh, 1.1),
    "clicks": _repeated(_click, 0.3),
}
