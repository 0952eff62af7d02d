"""Resampling against closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unbraid.dsp.resample import Resampler, resample, resampled_length
from unbraid.errors import ConfigError

RATES = [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000]


def tone(frequency_hz: float, rate: int, seconds: float) -> torch.Tensor:
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return torch.sin(2 * math.pi * frequency_hz * time).float()[None]


@pytest.mark.parametrize("from_rate", RATES)
@pytest.mark.parametrize("to_rate", [8000, 44100, 48000, 192000])
def test_a_tone_stays_the_same_tone(from_rate: int, to_rate: int) -> None:
    frequency = 0.4 * min(from_rate, to_rate)  # 0.8 of the lower Nyquist frequency
    result = resample(tone(frequency, from_rate, 0.2), from_rate, to_rate)
    expected = tone(frequency, to_rate, 0.2)[:, : result.shape[1]]
    inside = slice(result.shape[1] // 4, 3 * result.shape[1] // 4)
    error = (result - expected)[:, inside].square().mean() / expected[:, inside].square().mean()
    assert 10 * math.log10(error + 1e-20) < -100


def test_what_would_alias_is_removed() -> None:
    result = resample(tone(20000.0, 48000, 0.2), 48000, 16000)
    assert result[:, 800:2400].abs().max() < 1e-5


def test_rates_without_common_factors_agree_with_the_dense_filters() -> None:
    # 44101 Hz is prime to 48000 Hz: its outputs are gathered one by one.
    rate = 44101
    result = resample(tone(3000.0, rate, 0.2), rate, 48000)
    expected = tone(3000.0, 48000, 0.2)[:, : result.shape[1]]
    assert (result - expected)[:, 2400:7200].abs().max() < 1e-5


@settings(deadline=None, max_examples=40)
@given(
    from_rate=st.sampled_from(RATES),
    to_rate=st.sampled_from(RATES),
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=5),
)
def test_block_sizes_do_not_matter(from_rate: int, to_rate: int, sizes: list[int]) -> None:
    torch.manual_seed(0)
    signal = torch.randn(2, sum(sizes))
    whole = resample(signal, from_rate, to_rate)
    resampler = Resampler(from_rate, to_rate)
    pieces = [resampler.push(block) for block in signal.split(sizes, dim=1)]
    tail = resampler.finish()
    joined = torch.cat([*pieces, *([tail] if tail is not None else [])], dim=1)
    assert whole.shape == joined.shape == (2, resampled_length(sum(sizes), from_rate, to_rate))
    torch.testing.assert_close(joined, whole, atol=1e-5, rtol=0)


def test_a_click_stays_where_it_was_there_and_back() -> None:
    for rate in RATES:
        signal = torch.zeros(1, 5000)
        signal[0, 2345] = 1.0
        back = resample(resample(signal, rate, 48000), 48000, rate)[:, :5000]
        assert back.shape == signal.shape
        assert int(back.abs().argmax()) == 2345


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot resample"):
        resample(torch.zeros(1, 10), 0, 48000)
