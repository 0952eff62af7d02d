"""Codecs and stretches that mixtures are sent through: in time, as long as before, at the pitch."""

import importlib.util
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from unbraid.audio.formats import AudioFormat
from unbraid.audio.lossy import through_codec
from unbraid.data import effects
from unbraid.data.effects import EFFECTS
from unbraid.errors import AudioError, MissingExtra
from unbraid.mixing.augmentation import CODEC_KBPS, Augmentation, Coding
from unbraid.types import Waveform

BIT_RATES = Augmentation().codecs


def bursts(rate: int, seconds: float = 1.3) -> torch.Tensor:
    """Noise between 200 Hz and 2 kHz that comes and goes, with a peak of 0.9."""
    generator = torch.Generator().manual_seed(0)
    length = round(seconds * rate) + 77
    spectrum = torch.fft.rfft(torch.randn(length, generator=generator))
    hertz = torch.arange(len(spectrum)) * rate / length
    noise = torch.fft.irfft(spectrum * ((hertz > 200) & (hertz < 2000)), n=length)
    noise = noise * (0.1 + torch.sin(torch.arange(length) * (12.0 / rate)).square())
    return 0.9 * noise / noise.abs().max()


def lag_of(late: torch.Tensor, signal: torch.Tensor) -> int:
    """By how many samples ``late`` comes after ``signal``."""
    size = 2 * len(signal)
    product = torch.fft.rfft(signal, n=size).conj() * torch.fft.rfft(late, n=size)
    lag = int(torch.fft.irfft(product, n=size).argmax())
    return lag if lag < len(signal) else lag - size


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("codec", sorted(BIT_RATES))
def test_what_a_codec_leaves_is_as_long_and_in_time(codec: Any, rate: int) -> None:
    signal = bursts(rate)
    kept = signal.clone()
    errors = []
    for kbps in BIT_RATES[codec]:
        coded = EFFECTS.code(signal, rate, Coding(codec, kbps))
        assert coded.shape == signal.shape
        assert lag_of(coded, signal) == 0
        assert torch.equal(coded, EFFECTS.code(signal, rate, Coding(codec, kbps)))
        errors.append(float((coded - signal).square().mean() / signal.square().mean()))
    assert torch.equal(signal, kept)
    # Heard as the same sound, better with more bits, and never without loss.
    assert 1e-6 < errors[1] < 0.05
    assert errors[1] < errors[0] < 0.6


@pytest.mark.parametrize("codec", sorted(CODEC_KBPS))
def test_bit_rates_at_both_ends_are_taken(codec: Any) -> None:
    for kbps in CODEC_KBPS[codec]:
        coded = EFFECTS.code(bursts(16000, 0.2), 16000, Coding(codec, kbps))
        assert bool(coded.isfinite().all())
        assert coded.any()


@pytest.mark.parametrize("codec", sorted(CODEC_KBPS))
@pytest.mark.parametrize("length", [1, 100])
def test_short_sounds_keep_their_length(codec: Any, length: int) -> None:
    coded = EFFECTS.code(torch.full((length,), 0.5), 44100, Coding(codec, 64))
    assert coded.shape == (length,)
    assert bool(coded.isfinite().all())


def test_channels_that_a_codec_cannot_hold_are_refused() -> None:
    with pytest.raises(AudioError, match="mp3 holds 2 channels at most"):
        through_codec(Waveform(torch.zeros(3, 100), 48000), AudioFormat("mp3", "MPEG_LAYER_III"))


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "_can_stretch", lambda: False)
    effects.check_extras(replace(Augmentation(), speed_probability=1.0, codec_probability=1.0))
    for name in ("tempo_probability", "pitch_probability"):
        with pytest.raises(MissingExtra, match=r"pip install 'unbraid\[augment\]'"):
            effects.check_extras(Augmentation(**{name: 0.1}))


@pytest.mark.skipif(
    importlib.util.find_spec("python_stretch") is None, reason="needs the extra augment"
)
@pytest.mark.parametrize(("tempo", "semitones"), [(1.1, 0.0), (0.9, 0.0), (1.0, 2.0), (0.95, -1.5)])
def test_tempo_and_pitch_change_by_themselves(tempo: float, semitones: float) -> None:
    rate, length = 16000, 32000
    click = torch.zeros(length)
    click[12000] = 1.0
    clicked = EFFECTS.stretch(click, rate, tempo, semitones)
    assert len(clicked) == pytest.approx(length / tempo, abs=2)
    assert int(clicked.abs().argmax()) == pytest.approx(12000 / tempo, abs=0.02 * rate)
    tone = torch.sin(2 * math.pi * 440 / rate * torch.arange(length))
    stretched = EFFECTS.stretch(tone, rate, tempo, semitones)
    assert torch.equal(stretched, EFFECTS.stretch(tone, rate, tempo, semitones))
    middle = stretched[8000:24000]
    spectrum = torch.fft.rfft(middle * torch.hann_window(16000)).abs()
    assert int(spectrum.argmax()) == pytest.approx(440 * 2 ** (semitones / 12), abs=1.5)
    assert float(middle.square().mean()) == pytest.approx(0.5, rel=0.1)
