"""Tables that cut the bins of a spectrum into neighbouring bands."""

from __future__ import annotations

import itertools
import math

from unbraid.errors import ConfigError

#: Upper edge of a range in Hz, and the width of the bands inside it in bins.
_BS_ROFORMER_RANGES = ((1000, 2), (2000, 4), (4000, 12), (8000, 24), (16000, 48))


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
    bins = n_fft // 2 + 1
    if not 1 <= num_bands <= bins:
        raise ConfigError(f"{num_bands} bands cannot be cut from {bins} bins.")
    top_mel = 2595.0 * math.log10(1.0 + sample_rate / 2 / 700.0)
    edges = [0]
    for band in range(1, num_bands + 1):
        upper_hz = 700.0 * (10.0 ** (top_mel * band / num_bands / 2595.0) - 1.0)
        edge = round(upper_hz / (sample_rate / 2) * bins)
        # Every band keeps a bin, and leaves one for each band above it.
        edges.append(min(max(edge, edges[-1] + 1), bins - (num_bands - band)))
    return tuple(upper - lower for lower, upper in itertools.pairwise(edges))
