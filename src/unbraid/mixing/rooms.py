"""Sources in rooms: convolution with an impulse response, in time with the direct path."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

#: The direct path is the first peak at least so high, relative to the highest.
_DIRECT_SHARE = 0.5
#: A peak is over after so long.
_PEAK_S = 0.001
#: The lobes that a band limit puts before the direct path are kept for so long.
_BEFORE_DIRECT_S = 0.0025


def direct_path(response: Float[Tensor, "tap"], sample_rate: int) -> int:
    """At which tap of an impulse response the sound arrives first.

    That is the first peak at least half as high as the highest one: a reflection may be stronger
    than the direct path, and noise that comes before it is not.

    Raises:
        ValueError: If the response is silent or empty.
    """
    size = response.abs()
    if size.numel() == 0 or not bool(size.max() > 0):
        raise ValueError("a silent impulse response has no direct path")
    first = int((size >= _DIRECT_SHARE * size.max()).int().argmax())
    peak = size[first : first + max(1, round(_PEAK_S * sample_rate))]
    return first + int(peak.argmax())


def reverberate(
    signal: Float[Tensor, "time"],
    response: Float[Tensor, "tap"],
    sample_rate: int,
    early_s: float | None,
) -> tuple[Float[Tensor, "time"], Float[Tensor, "time"]]:
    """Put a signal into a room.

    The response is divided by its direct path, which so becomes 1 and arrives without a delay:
    what comes out runs in time with what came in, at its polarity. Sound from before the
    beginning leaves no reverberation.

    Args:
        signal: Dry.
        response: Room impulse response at the same rate; a silent one leaves the signal as it is.
        sample_rate: Of both.
        early_s: How long after the direct path the reference ends.

    Returns:
        The whole reverberant signal, and the reference: direct path and reflections up to
        ``early_s``, that tap included, or all of it for None.
    """
    if not response.any():
        return signal, signal
    direct = direct_path(response, sample_rate)
    before = min(direct, round(_BEFORE_DIRECT_S * sample_rate))
    # What arrives after the end of the signal is not heard.
    taps = response[direct - before : direct + signal.numel()] / response[direct]
    if early_s is None:
        (whole,) = _convolve(signal, taps[None], before)
        return whole, whole
    early = taps.clone()
    early[before + round(early_s * sample_rate) + 1 :] = 0.0
    whole, wanted = _convolve(signal, torch.stack([taps, early]), before)
    return whole, wanted


def _convolve(
    signal: Float[Tensor, "time"], responses: Float[Tensor, "response tap"], before: int
) -> Float[Tensor, "response time"]:
    """As many samples as the signal has, from the tap number ``before`` on."""
    length = signal.numel()
    size = _fast_length(length + responses.shape[1] - 1)
    product = torch.fft.rfft(signal, n=size) * torch.fft.rfft(responses, n=size)
    return torch.fft.irfft(product, n=size)[:, before : before + length]


def _fast_length(shortest: int) -> int:
    """The next length that FFTs are fast at: a power of two times 1, 3, 5, 9 or 15."""
    return min(odd << max(0, -(-shortest // odd) - 1).bit_length() for odd in (1, 3, 5, 9, 15))
