"""Spectrogram pictures: the right level at the right place, for any input."""

import math
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from unbraid.apps.pictures import spectrogram_picture, spectrogram_row
from unbraid.dsp.log_spectrogram import HIGHEST_HZ, LOWEST_HZ, log_spectrogram_db
from unbraid.errors import AudioError
from unbraid.types import Waveform


def sine(frequency_hz: float, sample_rate: int = 48_000, duration_s: float = 1.0) -> Waveform:
    t = torch.arange(round(duration_s * sample_rate)) / sample_rate
    return Waveform(torch.sin(2 * math.pi * frequency_hz * t)[None], sample_rate)


def row_hz(row: int, num_rows: int) -> float:
    return LOWEST_HZ * (HIGHEST_HZ / LOWEST_HZ) ** (row / (num_rows - 1))


@pytest.mark.parametrize("frequency_hz", [80.0, 440.0, 3000.0, 12_000.0])
def test_sine_stands_at_its_frequency(frequency_hz: float) -> None:
    level_db = log_spectrogram_db(sine(frequency_hz)).median(dim=0).values
    loudest = int(level_db.argmax())
    # At low pitches the bins of the transform, 14 Hz apart, are wider than the rows.
    assert row_hz(loudest, len(level_db)) == pytest.approx(frequency_hz, rel=0.03, abs=7.5)


def test_full_scale_sine_is_near_0_db_where_rows_are_narrow() -> None:
    # Between two bins a Hann window loses up to 1.4 dB, interpolation a little more.
    assert log_spectrogram_db(sine(440.0)).median(dim=0).values.max() == pytest.approx(0, abs=3)


def test_sample_rate_does_not_move_the_sine() -> None:
    rows = [
        int(log_spectrogram_db(sine(1000.0, rate)).median(dim=0).values.argmax())
        for rate in (8000, 22_050, 44_100, 96_000)
    ]
    assert max(rows) - min(rows) <= 3


def test_silence_and_everything_above_nyquist_are_dark() -> None:
    silent = log_spectrogram_db(Waveform(torch.zeros(1, 48_000), 48_000))
    assert silent.max() == -200
    noise = log_spectrogram_db(Waveform(torch.randn(1, 8000), 8000))
    above = [row for row in range(noise.shape[1]) if row_hz(row, noise.shape[1]) > 4100]
    assert noise[:, above].max() == -200
    assert noise[:, : above[0] - 10].mean() > -60


def test_long_recordings_do_not_make_wide_pictures() -> None:
    assert log_spectrogram_db(Waveform(torch.zeros(1, 8000 * 600), 8000)).shape[0] < 2500


@pytest.mark.parametrize("num_samples", [0, 1, 3])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_tiny_waveforms_have_a_picture(tmp_path: Path, num_samples: int, num_channels: int) -> None:
    path = tmp_path / "tiny.png"
    spectrogram_picture(Waveform(torch.ones(num_channels, num_samples), 44_100), path, "Tiny")
    assert imread(path).shape[2] == 4


def test_panels_stand_side_by_side(tmp_path: Path) -> None:
    spectrogram_picture(sine(440.0), tmp_path / "one.png", "One")
    spectrogram_row([("One", sine(440.0)), ("Two", sine(880.0))], tmp_path / "two.png")
    one, two = imread(tmp_path / "one.png"), imread(tmp_path / "two.png")
    assert two.shape[0] == one.shape[0]
    assert two.shape[1] > 1.5 * one.shape[1]


def test_missing_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"picture\.png: cannot be written"):
        spectrogram_picture(sine(440.0), tmp_path / "nowhere" / "picture.png", "Lost")


def test_nothing_stays_when_the_target_cannot_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "picture.png").mkdir()
    with pytest.raises(AudioError):
        spectrogram_picture(sine(440.0), tmp_path / "picture.png", "Folder")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
