"""Band tables."""

import pytest

from unbraid.dsp.bands import bs_roformer_bands, mel_bands
from unbraid.errors import ConfigError


def test_the_published_tables() -> None:
    at_48k = bs_roformer_bands(48000, 2048)
    expected = [2] * 22 + [4] * 11 + [12] * 8 + [24] * 8 + [48] * 8 + [66, 66, 66, 67]
    assert list(at_48k) == expected
    at_44k = bs_roformer_bands(44100, 2048)
    assert len(at_44k) == 62
    assert at_44k[-2:] == (128, 129)
    assert sum(at_48k) == sum(at_44k) == 1025


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("n_fft", [512, 2048, 3072])
@pytest.mark.parametrize("num_bands", [1, 8, 24, 64])
def test_mel_bands_cover_every_bin_and_grow(rate: int, n_fft: int, num_bands: int) -> None:
    widths = mel_bands(rate, n_fft, num_bands)
    assert len(widths) == num_bands
    assert sum(widths) == n_fft // 2 + 1
    assert min(widths) >= 1
    assert widths[-1] >= widths[0]


def test_tables_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="use the mel table"):
        bs_roformer_bands(8000, 512)
    with pytest.raises(ConfigError, match="cannot be cut"):
        mel_bands(48000, 16, 20)
