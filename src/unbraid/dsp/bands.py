"""Tables of bands: which bins of a spectrum belong together.

A table is either one of widths, whose bands are neighbours and share no bin, or one of pairs
``(start, end)`` of bins, ``end`` not included, whose bands may overlap. Starts and ends never
fall from one band to the next, and every bin is in a band.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from unbraid.errors import ConfigError

#: Upper edge of a range in Hz, and the width of the bands inside it in bins.
_BS_ROFORMER_RANGES = ((1000, 2), (2000, 4), (4000, 12), (8000, 24), (16000, 48))

#: Frequency of the MIDI note 0, the lowest centre of a musical band, in Hz.
_MIDI_ZERO_HZ = 440.0 * 2.0 ** (-69 / 12)


def bs_roformer_bands(sample_rate: int, n_fft: int) -> tuple[int, ...]:
    """Band widths in bins as TUSS and BS-RoFormer cut them: narrow below, wide above.

    The bins that the fixed ranges leave over make four bands at 48 kHz (the last takes
    the remainder) and two bands at any other rate.

    >>> len(bs_roformer_bands(48000, 2048)), sum(bs_roformer_bands(48000, 2048))
    (61, 1025)

    Raises:
        ConfigError: If the rate or the transform is too small for the fixed ranges.

    Source: W.-T. Lu et al., "Music source separation with band-split RoPE transformer",
        ICASSP 2024; K. Saijo et al., "Task-aware unified source separation", ICASSP 2025.
    """
    bins = n_fft // 2 + 1
    # The published tables divide the Nyquist frequency in whole Hz by the number of bins.
    bin_hz = (sample_rate // 2) / bins
    widths: list[int] = []
    lower = 0
    for upper, width in _BS_ROFORMER_RANGES:
        widths += [width] * math.ceil((upper - lower) / (width * bin_hz))
        lower = upper
    rest = bins - sum(widths)
    parts = 4 if sample_rate == 48000 else 2
    if rest < parts:
        raise ConfigError(
            f"the bs-roformer band table needs more than {sum(widths)} bins, but "
            f"{sample_rate} Hz with n_fft {n_fft} has {bins}; use the mel table."
        )
    if parts == 4:
        # The last band of the published 48 kHz table takes what the division leaves over.
        widths += [rest // 4] * 3 + [rest - 3 * (rest // 4)]
    else:
        widths += [rest // 2, rest - rest // 2]
    return tuple(widths)


def mel_bands(sample_rate: int, n_fft: int, num_bands: int) -> tuple[int, ...]:
    """Band widths in bins, of equal width on the mel scale and at least one bin each.

    Raises:
        ConfigError: If there are more bands than bins.

    Source: D. O'Shaughnessy, "Speech communication", 1987, for the mel formula.
    """
    bins = _checked_bins(n_fft, num_bands)
    top_mel = 2595.0 * math.log10(1.0 + sample_rate / 2 / 700.0)
    edges = [0]
    for band in range(1, num_bands + 1):
        upper_hz = 700.0 * (10.0 ** (top_mel * band / num_bands / 2595.0) - 1.0)
        edge = round(upper_hz / (sample_rate / 2) * bins)
        # Every band keeps a bin, and leaves one for each band above it.
        edges.append(min(max(edge, edges[-1] + 1), bins - (num_bands - band)))
    return tuple(upper - lower for lower, upper in itertools.pairwise(edges))


def neighbouring_bands(widths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Turn a table of widths into one of pairs.

    >>> neighbouring_bands([2, 3])
    ((0, 2), (2, 5))
    """
    edges = itertools.accumulate(widths, initial=0)
    return tuple(itertools.pairwise(edges))


def musical_bands(sample_rate: int, n_fft: int, num_bands: int) -> tuple[tuple[int, int], ...]:
    """Overlapping bands whose centres lie at equal musical intervals.

    The centres run from the first bin above 0 Hz, or the MIDI note 0 where that is higher, to
    the highest bin. With R the ratio of the highest bin to the first, a band reaches from its
    centre by the factor R^(1 / num_bands) to both sides, and on to the next whole bin.

    >>> musical_bands(44100, 2048, 64)[:2], musical_bands(44100, 2048, 64)[-1]
    (((0, 3), (1, 3)), (918, 1025))

    Raises:
        ConfigError: If there are more bands than bins.

    Source: K. N. Watcharasupat et al., "A generalized bandsplit neural network for cinematic
        audio source separation", 2023, the bands that they call musical.
    """
    bins = _checked_bins(n_fft, num_bands)
    # All in bins and not in Hz, so that a table hardly hangs on the sampling rate.
    highest = float(bins - 1)
    lowest = min(max(1.0, _MIDI_ZERO_HZ * n_fft / sample_rate), highest)
    reach = highest ** (1.0 / num_bands)
    interval = (highest / lowest) ** (1.0 / max(num_bands - 1, 1))
    centres = [lowest * interval**band for band in range(num_bands)]
    return _reaching_both_ends([(centre / reach, centre * reach) for centre in centres], bins)


def bark_bands(sample_rate: int, n_fft: int, num_bands: int) -> tuple[tuple[int, int], ...]:
    """Overlapping bands of equal width on the Bark scale: the feet of triangular filters.

    Raises:
        ConfigError: If there are more bands than bins.

    Source: S. Wang, A. Sekey and A. Gersho, "An objective measure for predicting subjective
        quality of speech coders", 1992, for the formula.
    """
    return _triangle_bands(
        sample_rate,
        n_fft,
        num_bands,
        to_scale=lambda hz: 6.0 * math.asinh(hz / 600.0),
        to_hz=lambda bark: 600.0 * math.sinh(bark / 6.0),
    )


def erb_bands(sample_rate: int, n_fft: int, num_bands: int) -> tuple[tuple[int, int], ...]:
    """Overlapping bands of equal width on the scale of equivalent rectangular bandwidths.

    Raises:
        ConfigError: If there are more bands than bins.

    Source: B. R. Glasberg and B. C. J. Moore, "Derivation of auditory filter shapes from
        notched-noise data", 1990, for the formula.
    """
    return _triangle_bands(
        sample_rate,
        n_fft,
        num_bands,
        to_scale=lambda hz: 21.4 * math.log10(1.0 + 0.00437 * hz),
        to_hz=lambda erb: (10.0 ** (erb / 21.4) - 1.0) / 0.00437,
    )


def _triangle_bands(
    sample_rate: int,
    n_fft: int,
    num_bands: int,
    to_scale: Callable[[float], float],
    to_hz: Callable[[float], float],
) -> tuple[tuple[int, int], ...]:
    """Bands from the centre of the one below to that of the one above, equally spaced."""
    bins = _checked_bins(n_fft, num_bands)
    top = to_scale(sample_rate / 2)
    points = [to_hz(top * point / (num_bands + 1)) for point in range(num_bands + 2)]
    in_bins = [point * n_fft / sample_rate for point in points]
    return _reaching_both_ends(list(zip(in_bins, in_bins[2:], strict=False)), bins)


def _reaching_both_ends(
    ranges: list[tuple[float, float]], bins: int
) -> tuple[tuple[int, int], ...]:
    """Widen ranges, in bins with both ends included, to whole bins; the outer ones to the edges."""
    starts = [max(math.floor(lower), 0) for lower, _ in ranges]
    ends = [min(math.ceil(upper) + 1, bins) for _, upper in ranges]
    starts[0] = 0
    ends[-1] = bins
    return tuple(zip(starts, ends, strict=True))


def _checked_bins(n_fft: int, num_bands: int) -> int:
    bins = n_fft // 2 + 1
    if not 1 <= num_bands <= bins:
        raise ConfigError(f"{num_bands} bands cannot be cut from {bins} bins.")
    return bins
