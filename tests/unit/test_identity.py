"""What a source sounds like: level does not matter, pauses do not either, leakage is left out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unbraid.dsp.resample import resample
from unbraid.separation import identity
from unbraid.separation.identity import (
    Impression,
    Level,
    Memory,
    audibility,
    cepstra_of,
    frame_length,
    frames_of,
    impression_of,
    merged,
)

RATE = 16000


def coloured(seed: int, seconds: float, slope: float) -> torch.Tensor:
    """Noise whose spectrum rises or falls, one row."""
    generator = torch.Generator().manual_seed(seed)
    length = round(seconds * RATE)
    spectrum = torch.fft.rfft(torch.randn(1, length, generator=generator))
    frequency_hz = torch.fft.rfftfreq(length, 1 / RATE).clamp_min(50.0)
    sound = torch.fft.irfft(spectrum * (frequency_hz / 1000.0) ** slope, n=length)
    return 0.1 * sound / sound.abs().max()


def impression(samples: torch.Tensor) -> Impression:
    frames = frames_of(samples, RATE)
    audible = torch.ones_like(frames.amplitudes)
    return impression_of(cepstra_of(frames), audible, frames.frame_s)


@settings(deadline=None, max_examples=25)
@given(exponent=st.integers(-60, 60))
def test_level_does_not_change_what_is_heard(exponent: int) -> None:
    samples = torch.cat([coloured(0, 0.5, -1.0), coloured(1, 0.5, 0.5)])
    gain = 2.0**exponent
    plain, changed = frames_of(samples, RATE), frames_of(gain * samples, RATE)
    assert torch.equal(cepstra_of(plain), cepstra_of(changed))
    usual = float(plain.amplitudes.mean()) * plain.scale
    assert torch.equal(audibility(plain, usual), audibility(changed, gain * usual))


@pytest.mark.parametrize("rate", [100, 8000, 44100, 48000, 192000])
@pytest.mark.parametrize("length", [0, 1, 5000])
def test_any_rate_and_length_gives_finite_numbers(rate: int, length: int) -> None:
    for samples in (torch.zeros(2, 3, length), torch.ones(2, 3, length)):
        frames = frames_of(samples, rate)
        assert frames.amplitudes.shape == (2, 3, max(1, length // frame_length(rate)))
        assert torch.isfinite(cepstra_of(frames)).all()
        mean = impression_of(cepstra_of(frames)[0], frames.amplitudes[0] * 0, frames.frame_s)
        assert mean.heard_s.eq(0).all()
        assert torch.isfinite(mean.cepstra).all()


def test_a_sound_is_the_same_at_every_rate() -> None:
    sound = coloured(0, 3.0, -0.5)
    low = cepstra_of(frames_of(sound, RATE)).mean(dim=1)
    high = cepstra_of(frames_of(resample(sound, RATE, 48000), 48000)).mean(dim=1)
    distance = (low - high).square() / torch.tensor(identity._BETWEEN)
    assert float(distance.mean()) < 0.1


def test_evidence_is_the_ratio_of_the_two_joint_densities() -> None:
    # The textbook form: densities of both means together, with one source or with two.
    generator = torch.Generator().manual_seed(3)
    size = len(identity._CENTRE)
    centre, between, within, lasting = (
        torch.tensor(row)
        for row in (identity._CENTRE, identity._BETWEEN, identity._WITHIN, identity._LASTING)
    )
    first = centre + torch.randn(size, generator=generator)
    second = first + 0.3 * torch.randn(size, generator=generator)
    memory = Memory(1)
    memory.learn(Impression(torch.tensor([7.0]), first[None]))
    found = memory.recognise(Impression(torch.tensor([2.0]), second[None]))
    expected = 0.0
    for feature in range(size):
        own = torch.tensor(
            [within[feature] / 7 + lasting[feature], within[feature] / 2 + lasting[feature]]
        )
        apart = torch.diag(own + between[feature])
        together = torch.diag(own) + between[feature]
        pair = torch.stack([first[feature], second[feature]])
        mean = centre[feature].expand(2)
        normal = torch.distributions.MultivariateNormal
        expected += float(
            normal(mean, together).log_prob(pair) - normal(mean, apart).log_prob(pair)
        )
    odd = identity._LEFTOVERS_S / (identity._LEFTOVERS_S + 7.0)
    ratio = math.exp(identity._INDEPENDENT_SHARE * expected)
    assert float(found) == pytest.approx(math.log((1 - odd) * ratio + odd), rel=1e-3)


def test_sources_are_recognised() -> None:
    memory = Memory(3)
    heard = torch.cat([coloured(0, 4.0, -1.5), coloured(1, 4.0, 0.0)])
    learned = impression(heard)
    nothing = torch.zeros(1)
    memory.learn(
        Impression(
            torch.cat([learned.heard_s, nothing]),
            torch.cat([learned.cepstra, torch.zeros(1, learned.cepstra.shape[1])]),
        )
    )
    now = impression(torch.cat([coloured(2, 1.0, -1.5), coloured(3, 1.0, 0.0)]))
    evidence = memory.recognise(now)
    assert evidence[0, 0] > 1 > -1 > evidence[0, 1]
    assert evidence[1, 1] > 1 > -1 > evidence[1, 0]
    assert evidence[2].eq(0).all()  # never heard: as likely as not
    silent = memory.recognise(Impression(torch.zeros(2), torch.zeros_like(now.cepstra)))
    assert silent.eq(0).all()


def test_silence_is_not_forgetting_and_memory_is_bounded() -> None:
    memory = Memory(2)
    voice = impression(torch.cat([coloured(0, 4.0, -1.5), coloured(1, 4.0, 0.0)]))
    memory.learn(voice)
    before = memory.recognise(voice)
    for _ in range(1000):
        memory.learn(Impression(torch.zeros(2), voice.cepstra))
    assert torch.equal(memory.recognise(voice), before)
    for _ in range(1000):
        memory.learn(voice)
    assert memory.heard_s.max() < 2 * identity._MEMORY_S


def test_leakage_and_noise_are_not_heard() -> None:
    loud = coloured(0, 1.0, -1.0)
    leaked, own, noise = 0.5 * loud, 0.98 * loud, 0.01 * coloured(1, 1.0, 0.0)
    frames = frames_of(torch.cat([loud, leaked, own, noise]), RATE)
    level = Level()
    level.hear(frames.amplitudes[0], frames.scale, frames.frame_s)
    audible = audibility(frames, level.usual)
    assert audible[0].mean() > 0.9
    assert audible[2].mean() > 0.9
    assert audible[1].eq(0).all()
    assert audible[3].eq(0).all()


def test_breath_and_hiss_in_a_free_place_are_not_heard() -> None:
    whole = coloured(0, 4.0, -1.0)
    is_hiss = torch.arange(whole.shape[1]) % (RATE // 2) < RATE // 10
    frames = frames_of(torch.cat([whole * ~is_hiss, whole * is_hiss]), RATE)
    level = Level()
    level.hear(frames.amplitudes.amax(dim=0), frames.scale, frames.frame_s)
    voice, hiss = audibility(frames, level.usual).mean(dim=1).tolist()
    assert voice > 0.6
    assert hiss < 0.02


def test_evidence_against_a_place_is_limited_by_what_was_heard_of_it() -> None:
    voice = impression(coloured(0, 4.0, -1.5))
    other = impression(coloured(1, 4.0, 2.0))
    against = []
    for seconds in (0.3, 3.0, 30.0):
        memory = Memory(1)
        memory.learn(Impression(torch.tensor([seconds]), voice.cepstra))
        against.append(float(memory.recognise(other)))
    assert 0.0 > against[0] > against[1] > against[2] > -6.0


def test_pauses_do_not_lower_the_usual_level() -> None:
    level = Level()
    assert level.usual == 0.0
    level.hear(torch.ones(100), 2.0, 0.04)
    assert level.usual == pytest.approx(2.0)
    level.hear(torch.full((1000,), 0.001), 2.0, 0.04)
    assert level.usual == pytest.approx(2.0, rel=0.02)
    level.hear(torch.ones(100_000), 0.1, 0.04)  # but an hour at another level is the new level
    assert level.usual == pytest.approx(0.1, rel=0.02)


def test_channels_are_weighted_by_what_is_heard_in_them() -> None:
    first = Impression(torch.tensor([3.0, 0.0]), torch.tensor([[1.0], [9.0]]))
    second = Impression(torch.tensor([1.0, 0.0]), torch.tensor([[5.0], [9.0]]))
    both = merged([first, second])
    assert both.heard_s.tolist() == [3.0, 0.0]
    assert both.cepstra.tolist() == [[2.0], [0.0]]


def test_fainter_past_counts_for_less() -> None:
    memory = Memory(1)
    memory.learn(Impression(torch.tensor([10.0]), torch.zeros(1, len(identity._CENTRE))))
    memory.fade(0.1)
    assert memory.heard_s.tolist() == pytest.approx([1.0])
