"""Whatever the rate, the length, the chunks and the blocks: no sample is lost or moved."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from unbraid.separation.separator import StreamSeparator
from unbraid.separation.settings import SeparationConfig

if TYPE_CHECKING:
    from unbraid.models.waveform import WaveformModel

RATES = [8000, 11025, 16000, 22050, 32000, 44100, 48000, 88200, 96000, 176400, 192000]


@pytest.fixture(scope="module")
def passing(built_tiny_model: WaveformModel) -> StreamSeparator:
    """A separator whose first source is three quarters of the mixture, the second the rest."""

    def forward(mixture: Tensor, _: Tensor) -> Tensor:
        return torch.stack([0.75 * mixture, 0.25 * mixture], dim=1)

    model = copy.deepcopy(built_tiny_model)
    model.network.forward = forward
    return StreamSeparator(model, SeparationConfig(segment_s=0.5, overlap_s=0.125))


def separated(separator: StreamSeparator, signal: Tensor, rate: int, block: int) -> Tensor:
    blocks = signal.split(block, dim=1) if signal.shape[1] else [signal]
    pieces = [torch.zeros(2, *signal.shape[:1], 0)]
    for piece in separator.stream(blocks, rate, ["speech", "sfx"]):
        assert piece.sources.shape[1:] == piece.mixture.shape
        pieces.append(piece.sources)
    return torch.cat(pieces, dim=-1)


@settings(deadline=None, max_examples=25)
@given(
    rate=st.sampled_from(RATES),
    length=st.integers(0, 40000),
    block=st.integers(1, 50000),
    channels=st.integers(1, 3),
)
@example(rate=44100, length=1, block=1, channels=1)
# Rates without common factors take another path, whose filters are slow to make.
@example(rate=44101, length=12345, block=1000, channels=1)
@example(rate=191999, length=40000, block=40000, channels=2)
def test_as_many_samples_come_out_as_went_in(
    passing: StreamSeparator, rate: int, length: int, block: int, channels: int
) -> None:
    signal = torch.randn(channels, length, generator=torch.Generator().manual_seed(length))
    block = max(block, length // 20)  # a thousand blocks of one sample show nothing more
    result = separated(passing, signal, rate, block)
    assert result.shape == (2, channels, length)
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("rate", RATES)
def test_clicks_stay_where_they_are(passing: StreamSeparator, rate: int) -> None:
    positions = [rate // 10, rate // 2 + 7, rate // 2 + rate // 16, rate, 2 * rate - rate // 9]
    signal = torch.zeros(2, 2 * rate)
    signal[0, positions] = 1.0
    signal[1, [position + 5 for position in positions]] = -0.5
    first, second = separated(passing, signal, rate, block=rate // 3)
    torch.testing.assert_close(second, first / 3, atol=1e-4, rtol=0)
    reach = rate // 50
    for channel, shift in ((0, 0), (1, 5)):
        for position in positions:
            around = first[channel, position + shift - reach : position + shift + reach].abs()
            assert int(around.argmax()) == reach
    # Between the clicks there is nothing but the ringing of the filters.
    quiet = first[:, rate // 5 : rate // 5 + rate // 10]
    assert quiet.abs().max() < 1e-3


@pytest.mark.parametrize("rate", RATES)
def test_what_the_model_can_hold_comes_back_unchanged(passing: StreamSeparator, rate: int) -> None:
    time = torch.arange(rate, dtype=torch.float64) / rate
    tones = [torch.sin(2 * torch.pi * hz * time) for hz in (110.0, 997.0, 0.4 * min(rate, 48000))]
    signal = 0.2 * torch.stack(tones).sum(dim=0).float()[None]
    first, _ = separated(passing, signal, rate, block=4321)
    inside = slice(rate // 10, -rate // 10)
    error = (first / 0.75 - signal)[:, inside]
    error_db = 20 * torch.log10(error.norm() / signal[:, inside].norm())
    assert error_db < -90
