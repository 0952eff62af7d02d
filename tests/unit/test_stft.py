"""The STFT and its inverse."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unbraid.dsp.matrix_stft import MatrixTransform
from unbraid.dsp.stft import FftTransform, StftConfig, istft, stft
from unbraid.errors import ConfigError

CONFIGS = [
    StftConfig(),
    StftConfig(3072, 1536),
    StftConfig(512, 128, "hann"),
    StftConfig(512, 80, "hann", "reflect"),
]


@settings(deadline=None, max_examples=60)
@given(length=st.integers(0, 5000), config=st.sampled_from(CONFIGS))
def test_the_inverse_gives_every_sample_back(length: int, config: StftConfig) -> None:
    signal = torch.randn(2, length, generator=torch.Generator().manual_seed(length))
    spectrogram = stft(signal, config)
    assert spectrogram.shape == (2, config.num_frames(length), config.num_bins)
    torch.testing.assert_close(istft(spectrogram, config, length), signal, atol=2e-6, rtol=0)


@settings(deadline=None, max_examples=30)
@given(
    length=st.integers(1, 5000),
    config=st.sampled_from(
        [*CONFIGS, StftConfig(14, 7), StftConfig(90, 15, "hann"), StftConfig(90, 16)]
    ),
)
def test_matrix_products_compute_the_same(length: int, config: StftConfig) -> None:
    generator = torch.Generator().manual_seed(length)
    signal = torch.randn(2, length, generator=generator)
    by_fft, by_matrices = FftTransform(config), MatrixTransform(config)
    spectrogram = by_fft.analyse(signal)
    assert spectrogram.shape == (2, 2, config.num_frames(length), config.num_bins)
    torch.testing.assert_close(by_matrices.analyse(signal), spectrogram, atol=1e-4, rtol=1e-5)
    # Of any numbers, also where no signal has such a spectrogram.
    numbers = torch.randn(spectrogram.shape, generator=generator)
    expected = by_fft.synthesise(numbers, length)
    torch.testing.assert_close(
        by_matrices.synthesise(numbers, length), expected, atol=1e-5, rtol=1e-5
    )


def test_six_seconds_have_the_published_number_of_frames() -> None:
    assert StftConfig().num_frames(288000) == 564


def test_a_frame_is_centred_on_its_sample() -> None:
    config = StftConfig()
    signal = torch.zeros(1, 48000)
    signal[0, 20 * config.hop_length] = 1.0
    assert int(stft(signal, config).abs().sum(dim=-1).argmax()) == 20


def test_too_few_frames_are_refused() -> None:
    config = StftConfig()
    with pytest.raises(ConfigError, match="frames hold at most"):
        istft(stft(torch.zeros(1, 1000), config), config, 5000)


@pytest.mark.parametrize("bad", [{"n_fft": 7}, {"n_fft": 512, "hop_length": 300}])
def test_settings_that_lose_samples_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must"):
        StftConfig(**bad)
