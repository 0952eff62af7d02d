"""Band tables."""

import re
from collections.abc import Callable

import pytest

from unbraid.dsp.bands import (
    bark_bands,
    bs_roformer_bands,
    erb_bands,
    mel_bands,
    musical_bands,
    neighbouring_bands,
)
from unbraid.errors import ConfigError

Table = Callable[[int, int, int], tuple[tuple[int, int], ...]]

#: 64 musical bands at 44.1 kHz with a transform of 2048, as published.
MUSICAL = """
(0,3)(1,3)(1,3)(1,3)(1,3)(1,3)(1,4)(1,4)(2,4)(2,4)(2,5)(3,5)(3,6)(3,6)(4,7)(4,7)(5,8)(5,9)(6,10)
(7,11)(8,12)(9,13)(10,14)(11,15)(12,17)(14,19)(15,21)(17,23)(19,26)(21,29)(24,32)(27,35)(30,39)
(33,44)(37,48)(42,54)(47,60)(52,67)(58,74)(65,83)(73,92)(81,103)(91,115)(101,128)(113,143)
(126,159)(141,177)(158,198)(176,221)(196,246)(219,275)(245,306)(273,342)(305,381)(341,425)
(381,475)(425,530)(474,591)(530,660)(591,736)(660,822)(737,917)(823,1024)(918,1025)
"""


def test_the_published_tables() -> None:
    at_48k = bs_roformer_bands(48000, 2048)
    expected = [2] * 22 + [4] * 11 + [12] * 8 + [24] * 8 + [48] * 8 + [66, 66, 66, 67]
    assert list(at_48k) == expected
    at_44k = bs_roformer_bands(44100, 2048)
    assert len(at_44k) == 62
    assert at_44k[-2:] == (128, 129)
    assert sum(at_48k) == sum(at_44k) == 1025


@pytest.mark.parametrize("rate", [44100, 48000])
def test_the_published_musical_table_holds_at_both_rates(rate: int) -> None:
    published = [(int(start), int(end)) for start, end in re.findall(r"\((\d+),(\d+)\)", MUSICAL)]
    assert list(musical_bands(rate, 2048, 64)) == published
    assert sum(end - start for start, end in published) == 2142


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("n_fft", [512, 2048, 3072])
@pytest.mark.parametrize("num_bands", [1, 8, 24, 64])
def test_mel_bands_cover_every_bin_and_grow(rate: int, n_fft: int, num_bands: int) -> None:
    widths = mel_bands(rate, n_fft, num_bands)
    assert len(widths) == num_bands
    assert sum(widths) == n_fft // 2 + 1
    assert min(widths) >= 1
    assert widths[-1] >= widths[0]


@pytest.mark.parametrize("table", [musical_bands, bark_bands, erb_bands])
@pytest.mark.parametrize(("rate", "n_fft"), [(8000, 128), (44100, 2048), (48000, 16384)])
@pytest.mark.parametrize("num_bands", [1, 2, 31, 32, 48, 64])
def test_overlapping_bands_ascend_and_cover_every_bin(
    table: Table, rate: int, n_fft: int, num_bands: int
) -> None:
    bands = table(rate, n_fft, num_bands)
    bins = n_fft // 2 + 1
    assert len(bands) == num_bands
    assert (bands[0][0], bands[-1][1]) == (0, bins)
    assert all(0 <= start < end <= bins for start, end in bands)
    starts, ends = zip(*bands, strict=True)
    assert list(starts) == sorted(starts)
    assert list(ends) == sorted(ends)
    assert {bin_ for start, end in bands for bin_ in range(start, end)} == set(range(bins))


def test_a_bark_and_an_erb_band_by_hand() -> None:
    # The middle one of three bands is centred on half of the scale at the Nyquist frequency
    # and reaches a quarter of the scale to both sides, then on to whole bins of 15.625 Hz.
    # Bark: 6 asinh(4000 / 600) = 15.58; a quarter 417 Hz = bin 26.7; three quarters 2059 Hz.
    assert bark_bands(8000, 512, 3)[1] == (26, 133)
    # ERB: 21.4 log10(1 + 17.48) = 27.11; a quarter 246 Hz = bin 15.7; three quarters 1811 Hz.
    assert erb_bands(8000, 512, 3)[1] == (15, 117)


def test_widths_become_pairs() -> None:
    assert neighbouring_bands([2, 3, 1]) == ((0, 2), (2, 5), (5, 6))


def test_tables_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="use the mel table"):
        bs_roformer_bands(8000, 512)
    for table in (mel_bands, musical_bands, bark_bands, erb_bands):
        with pytest.raises(ConfigError, match="cannot be cut"):
            table(48000, 16, 20)
