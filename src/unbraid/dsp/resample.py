"""Changing the sampling rate of a stream by any ratio, to the exact sample.

A signal sampled at rate ``a`` is rebuilt between its samples by a windowed sinc and
read at rate ``b``:

    y[n] = sum_k x[k] h(n a / b - k),    h(t) = c sinc(c t) w(t / W),   c = min(1, b / a) r

``c`` lowers the cut-off to the smaller of both Nyquist frequencies, with ``r`` just below
one so that the roll-off ends where aliasing begins; ``w`` is a Kaiser window that ends at
``W`` input samples. With ``a / b`` in lowest terms, the positions ``n a / b`` repeat their
fraction every ``b`` outputs, so ``b`` short filters are all there is.

Source: J. O. Smith, "Digital audio resampling", CCRMA, 2002, for the method.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.errors import ConfigError

#: Zero crossings of the sinc on either side, cut-off relative to Nyquist, Kaiser shape:
#: 0.1 dB flat up to 0.9 of Nyquist, images below -120 dB.
_ZERO_CROSSINGS = 64
_ROLLOFF = 0.9475937167399596
_KAISER_BETA = 14.769656459379492

#: Up to this many filters the stream is convolved by all of them at once; beyond, as for
#: rates with few common factors, each output sample gathers its own window.
_MAX_CONVOLVED_PHASES = 1000


class Resampler:
    """State of one stream on its way from one rate to another.

    ``push`` blocks of any size, then ``finish`` once. All that comes out, joined, has
    ``resampled_length`` samples and does not depend on the block sizes. Memory is bounded
    by the block size. Equal rates pass through untouched.

    Args:
        from_rate: Samples per second that come in.
        to_rate: Samples per second that go out.

    Raises:
        ConfigError: If a rate is not positive.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        if from_rate < 1 or to_rate < 1:
            raise ConfigError(f"cannot resample from {from_rate} Hz to {to_rate} Hz.")
        divisor = math.gcd(from_rate, to_rate)
        self._down = from_rate // divisor
        self._up = to_rate // divisor
        self._half_width = _half_width(self._down, self._up)
        self._buffer: Tensor | None = None
        self._num_in = 0
        self._num_out = 0

    def push(self, block: Float[Tensor, "channel time"]) -> Float[Tensor, "channel out"]:
        """Take the next samples, give those that are finished (possibly none)."""
        self._num_in += block.shape[-1]
        if self._down == self._up:
            return block
        if self._buffer is None:
            self._buffer = block.new_zeros(block.shape[0], self._half_width)
        self._buffer = torch.cat([self._buffer, block], dim=-1)
        return self._take_finished()

    def finish(self) -> Float[Tensor, "channel out"] | None:
        """Give the samples that are left; None if nothing was ever pushed."""
        if self._down == self._up or self._buffer is None:
            return None
        wanted = resampled_length(self._num_in, self._down, self._up) - self._num_out
        tail = self._buffer.new_zeros(self._buffer.shape[0], 2 * self._half_width + 2 * self._down)
        self._buffer = torch.cat([self._buffer, tail], dim=-1)
        return self._take_finished()[:, :wanted]

    def _take_finished(self) -> Float[Tensor, "channel out"]:
        """Turn whole periods (``down`` samples in, ``up`` out) of the buffer into output."""
        assert self._buffer is not None
        usable = self._buffer.shape[-1] - 2 * self._half_width
        periods = max(0, usable // self._down)
        if periods == 0:
            return self._buffer.new_zeros(self._buffer.shape[0], 0)
        span = periods * self._down + 2 * self._half_width
        block = self._buffer[:, :span]
        self._buffer = self._buffer[:, periods * self._down :]
        if self._up <= _MAX_CONVOLVED_PHASES:
            finished = _convolve(block, self._down, self._up)
        else:
            finished = _gather(block, self._down, self._up, periods)
        self._num_out += finished.shape[-1]
        return finished


def resample(
    waveform: Float[Tensor, "channel time"], from_rate: int, to_rate: int
) -> Float[Tensor, "channel out"]:
    """Resample a whole waveform; ``resampled_length`` samples come out.

    Raises:
        ConfigError: If a rate is not positive.
    """
    resampler = Resampler(from_rate, to_rate)
    body = resampler.push(waveform)
    tail = resampler.finish()
    return body if tail is None else torch.cat([body, tail], dim=-1)


def input_span(start: int, count: int, from_rate: int, to_rate: int) -> tuple[int, int, int]:
    """What to resample for some samples from the middle of the result.

    Output ``n`` reads inputs up to ``W`` to either side of ``n a / b``. The span begins on a
    whole period before all of them, so that the filters fall on it as they fall on the whole.

    Args:
        start: First sample that is wanted of the resampled whole.
        count: How many.
        from_rate: Samples per second of the whole.
        to_rate: Samples per second of what is wanted.

    Returns:
        The first input sample (it may lie before the beginning, the last one behind the end: put
        zeros there), how many, and how many samples to skip of what ``resample`` makes of them.
    """
    if from_rate == to_rate:
        return start, count, 0
    divisor = math.gcd(from_rate, to_rate)
    down, up = from_rate // divisor, to_rate // divisor
    half = _half_width(down, up)
    period = start // up - -(-half // down)
    first = period * down
    end = -(-(start + count) * down // up) + half
    return first, end - first, start - period * up


def resampled_length(num_samples: int, from_rate: int, to_rate: int) -> int:
    """Samples that cover the same duration at the other rate, rounded up.

    Going there and back gives at least the original number, so that a caller can trim
    to it and lose nothing.
    """
    return -(-num_samples * to_rate // from_rate)


def _half_width(down: int, up: int) -> int:
    """Reach of the filter to either side, in input samples."""
    return math.ceil(_ZERO_CROSSINGS * max(1.0, down / up) / _ROLLOFF)


def _impulse_response(time: Float[Tensor, "*axes"], down: int, up: int) -> Float[Tensor, "*axes"]:
    """The filter h at ``time`` input samples from its centre, computed in float64."""
    cutoff = min(1.0, up / down) * _ROLLOFF
    position = time * (cutoff / _ZERO_CROSSINGS)
    inside = (1.0 - position.square()).clamp_min(0.0)
    beta = torch.tensor(_KAISER_BETA, dtype=time.dtype)
    window = torch.special.i0(beta * inside.sqrt()) / torch.special.i0(beta)
    window = torch.where(position.abs() <= 1.0, window, torch.zeros_like(window))
    return cutoff * torch.sinc(cutoff * time) * window


@lru_cache(maxsize=8)
def _dense_filters(down: int, up: int) -> Float[Tensor, "up 1 tap"]:
    """One filter per output of a period, all over the same input window."""
    half = _half_width(down, up)
    taps = torch.arange(-half, down + half, dtype=torch.float64)
    centres = torch.arange(up, dtype=torch.float64) * down / up
    return _impulse_response(centres[:, None] - taps[None, :], down, up).float().unsqueeze(1)


@lru_cache(maxsize=2)
def _short_filters(down: int, up: int) -> Float[Tensor, "up tap"]:
    """One filter per output of a period, each over the window around its own centre."""
    half = _half_width(down, up)
    taps = torch.arange(-half, half + 1, dtype=torch.float64)
    fractions = (torch.arange(up, dtype=torch.int64) * down % up).double() / up
    return _impulse_response(fractions[:, None] - taps[None, :], down, up).float()


def _convolve(
    block: Float[Tensor, "channel span"], down: int, up: int
) -> Float[Tensor, "channel out"]:
    filters = _dense_filters(down, up).to(block)
    outputs = torch.nn.functional.conv1d(block.unsqueeze(1), filters, stride=down)
    return outputs.transpose(1, 2).reshape(block.shape[0], -1)


def _gather(
    block: Float[Tensor, "channel span"], down: int, up: int, periods: int
) -> Float[Tensor, "channel out"]:
    filters = _short_filters(down, up).to(block)
    windows = block.unfold(-1, filters.shape[-1], 1)
    pieces = []
    outputs = torch.arange(periods * up, device=block.device)
    for part in outputs.split(1 << 14):  # bounds the memory of the gathered windows
        starts = part * down // up
        pieces.append((windows[:, starts] * filters[part % up]).sum(dim=-1))
    return torch.cat(pieces, dim=-1)
