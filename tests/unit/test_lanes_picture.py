"""The picture of what sounds when, and what it is drawn from."""

import struct

import pytest
import torch

from unbraid.apps.lanes_picture import Lane, lanes_png
from unbraid.dsp.log_spectrogram import log_spectrogram_db, log_spectrogram_of_stream_db
from unbraid.types import Waveform


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


@pytest.mark.parametrize("duration_s", [0.001, 3.0, 9000.0])
def test_it_grows_with_its_lanes_and_needs_none(duration_s: float) -> None:
    spectrogram = torch.full((10, 360), -60.0)
    lane = Lane("$speech_1", ((0.0, duration_s / 2),), torch.tensor([-20.0, -200.0]), 0.1)
    empty = Lane("nothing", (), torch.zeros(0), 0.1)
    none = size(lanes_png("x.wav", spectrogram, duration_s, []))
    three = size(lanes_png("$x_{.wav", spectrogram, duration_s, [lane, lane, empty]))
    assert none[0] == three[0]
    assert three[1] > none[1]


def test_a_short_stream_is_drawn_as_a_whole() -> None:
    samples = torch.rand(2, 8000)
    drawn = log_spectrogram_of_stream_db(samples.split(999, dim=1), 8000, 1.0)
    assert torch.equal(drawn, log_spectrogram_db(Waveform(samples, 8000)))
    assert log_spectrogram_of_stream_db([], 8000, 0.0).shape[1] == 360


def test_a_long_stream_keeps_its_time_and_few_columns() -> None:
    rate = 2000
    samples = torch.zeros(1, 100 * rate)
    samples[:, 70 * rate :] = 0.1 * torch.randn(1, 30 * rate)
    drawn = log_spectrogram_of_stream_db(samples.split(rate, dim=1), rate, 100.0)
    assert len(drawn) == pytest.approx(1200, abs=5)
    loud = drawn[:, 100] > -80.0
    assert int(loud.float().argmax()) / len(drawn) == pytest.approx(0.7, abs=0.005)
