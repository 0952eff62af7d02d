"""Telling sources apart by how they sound, through pauses of any length.

A source is described by the mean of its mel cepstra over the moments in which it is heard:
the colour of a voice, blind to its level. A memory keeps that mean for every place, so that a
speaker who comes back after a pause is given the old place again.

Source: the two-covariance model of N. Brümmer and E. de Villiers, "The speaker partitioning
    problem", Odyssey 2010.
Differs: each feature by itself, and evidence against a place is limited.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

#: What is known of the cepstra c1 to c20 before a source is heard: their mean over sources, the
#: variance of sources around it, the variance of one second of a source around its own mean,
#: and what of that variance no longer listening removes. Measured by
#: ``bench/identity.py --fit`` on the speakers of the training split; effects lie wider apart.
# fmt: off
_CENTRE = (
    10.68, 1.02, 2.76, -0.64, -0.73, -1.00, -0.72, -0.31, -0.13, -0.24,
    -0.29, -0.20, -0.19, -0.52, -0.38, -0.38, -0.33, -0.31, -0.26, -0.22,
)
_BETWEEN = (
    11.50, 4.90, 2.54, 2.30, 1.21, 0.98, 0.65, 0.44, 0.42, 0.35,
    0.53, 0.21, 0.38, 0.37, 0.10, 0.17, 0.20, 0.06, 0.11, 0.09,
)
_WITHIN = (
    3.32, 1.30, 1.64, 0.71, 0.44, 0.40, 0.26, 0.22, 0.19, 0.16,
    0.14, 0.12, 0.12, 0.10, 0.10, 0.10, 0.10, 0.10, 0.10, 0.10,
)
_LASTING = (
    0.63, 0.27, 0.15, 0.13, 0.07, 0.07, 0.04, 0.03, 0.03, 0.03,
    0.03, 0.02, 0.02, 0.03, 0.02, 0.03, 0.02, 0.03, 0.02, 0.01,
)
# fmt: on

#: The model takes cepstra as independent. They are not: this share of its evidence is left.
_INDEPENDENT_SHARE = 0.5

#: Seconds of leftovers of other sources that a place may hold before its own is heard. This and
#: the shares of amplitude below were chosen on conversations that ``mini`` had separated.
_LEFTOVERS_S = 0.25

_NUM_BANDS = 32  # of the cepstra
_NUM_BANDS_ABOVE = 10  # of the same width; up to 18 kHz
_NUM_CEPSTRA = len(_CENTRE)
_LOWEST_HZ = 50.0
_HIGHEST_HZ = 7600.0  # above it recordings differ more by their bandwidth than by what sounds
_BAND_FLOOR = 1e-5  # share of a frame's power; what is below is noise and rounding

_FRAME_S = 0.043
_SILENCE = 1e-30  # amplitude, full scale being 1

#: Share of the usual amplitude from which on a frame counts, and from which on it counts fully.
_FAINT, _CLEAR = 0.05, 0.55
#: The same as shares of the loudest source of the group: what is fainter may be its leakage.
_LEAKED, _OWN = 0.6, 1.0
_OWN_S = 1.0

#: After so much more of a source was heard, what was heard before counts for 1/e.
_MEMORY_S = 150.0
#: After this time, silent or not, the level of before counts for 1/e.
_LEVEL_MEMORY_S = 300.0


@dataclass(frozen=True, eq=False)
class Frames:
    """What sources hold, frame by frame; frames do not overlap.

    Attributes:
        bands: Power in mel bands: those of the cepstra, then those above them.
        amplitudes: Square root of the power of each frame, in the same unit.
        scale: That unit: the loudest sample of all these sources.
        frame_s: Length of a frame.
    """

    bands: Float[Tensor, "*source frame band"]
    amplitudes: Float[Tensor, "*source frame"]
    scale: float
    frame_s: float

    def channel(self, index: int) -> Frames:
        """One channel of frames with the axes source, channel, frame."""
        return replace(self, bands=self.bands[:, index], amplitudes=self.amplitudes[:, index])

    def in_order(self, order: list[int]) -> Frames:
        """The same sources in another order."""
        return replace(self, bands=self.bands[order], amplitudes=self.amplitudes[order])

    def first(self, count: int) -> Frames:
        """The first frames."""
        return replace(
            self, bands=self.bands[..., :count, :], amplitudes=self.amplitudes[..., :count]
        )


def frame_length(sample_rate: int) -> int:
    """Samples of a frame: a power of two, for speed."""
    return int(2 ** max(3, round(math.log2(_FRAME_S * sample_rate))))


def frames_of(sources: Float[Tensor, "*source time"], sample_rate: int) -> Frames:
    """Analyse sources of any level and length.

    What does not fill a frame is left out, but what is shorter than one frame is filled up.
    """
    length = frame_length(sample_rate)
    num_samples = sources.shape[-1]
    if num_samples < length:
        whole = torch.nn.functional.pad(sources.float(), (0, length - num_samples))
    else:
        whole = sources[..., : num_samples - num_samples % length].float()
    lowest, highest = whole.aminmax()
    scale = max(-float(lowest), float(highest))
    # Scaled, so that the powers of no recording leave the range of the numbers.
    window = _window(length) / scale if scale > _SILENCE else torch.zeros(length)
    spectrum = torch.fft.rfft(whole.unflatten(-1, (-1, length)) * window)
    power = spectrum.real.square() + spectrum.imag.square()
    pooled = power @ _mel_bank(sample_rate, power.shape[-1])
    return Frames(pooled[..., :-1], pooled[..., -1].sqrt(), scale, length / sample_rate)


@functools.lru_cache(maxsize=8)
def _window(length: int) -> Float[Tensor, "time"]:
    return torch.hann_window(length)


class Level:
    """The amplitude that is usual where anything sounds, over the last minutes.

    The mean of the frames' amplitudes, each weighted by itself, so that pauses do not lower it.
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._sum_of_squares = 0.0

    @property
    def usual(self) -> float:
        """In the unit of the waveforms; 0 as long as nothing was heard."""
        return self._sum_of_squares / self._sum if self._sum > 0.0 else 0.0

    def hear(self, amplitudes: Float[Tensor, "frame"], scale: float, frame_s: float) -> None:
        """Take the frames that follow."""
        kept = math.exp(-amplitudes.numel() * frame_s / _LEVEL_MEMORY_S)
        exact = amplitudes.double()
        self._sum = kept * self._sum + float(exact.sum()) * scale
        self._sum_of_squares = kept * self._sum_of_squares + float(exact.square().sum()) * scale**2


def audibility(frames: Frames, usual: float) -> Float[Tensor, "source frame"]:
    """How far each frame tells what its source sounds like, from 0 to 1.

    Not at all where the source is 26 dB below the usual amplitude, or where over about a
    second it is 4 dB below another source of its group. That may be leakage of the other: of
    one voice, models put breath and hiss into the place that is free.
    """
    relative = frames.amplitudes * (frames.scale / usual if usual > 0.0 else 0.0)
    around = _around(frames.amplitudes.square(), round(_OWN_S / frames.frame_s / 2)).sqrt()
    loudest = around.amax(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
    return _ramp(relative, _FAINT, _CLEAR) * _ramp(around / loudest, _LEAKED, _OWN)


def _around(power: Float[Tensor, "source frame"], reach: int) -> Float[Tensor, "source frame"]:
    """The mean over so many frames before and behind, fewer at the edges."""
    if power.shape[-1] == 0:
        return power
    mean = torch.nn.functional.avg_pool1d(
        power[None], 2 * reach + 1, stride=1, padding=reach, count_include_pad=False
    )
    return mean[0]


def _ramp(share: Float[Tensor, "*axes"], zero: float, one: float) -> Float[Tensor, "*axes"]:
    return ((share - zero) / (one - zero)).clamp(0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Impression:
    """What was heard of some sources.

    Attributes:
        heard_s: For how long, every moment counted by its audibility.
        cepstra: Their mean over it; zeros where nothing was heard.
    """

    heard_s: Float[Tensor, "source"]
    cepstra: Float[Tensor, "source cepstrum"]


def impression_of(
    cepstra: Float[Tensor, "source frame cepstrum"],
    audible: Float[Tensor, "source frame"],
    frame_s: float,
) -> Impression:
    """Sum up frames into what was heard."""
    weights = audible / audible.sum(dim=-1, keepdim=True).clamp_min(1e-6)
    mean = torch.einsum("sf,sfc->sc", weights, cepstra)
    return Impression(audible.sum(dim=-1) * frame_s, mean)


def merged(channels: Sequence[Impression]) -> Impression:
    """Sum up what was heard in channels that are not independent: for as long as in the best."""
    heard_s = torch.stack([impression.heard_s for impression in channels])
    cepstra = torch.stack([impression.cepstra for impression in channels])
    weights = heard_s / heard_s.sum(dim=0).clamp_min(1e-6)
    return Impression(heard_s.amax(dim=0), torch.einsum("ns,nsc->sc", weights, cepstra))


def cepstra_of(frames: Frames) -> Float[Tensor, "*source frame cepstrum"]:
    """Mel cepstra without c0, and so without level."""
    bands = frames.bands[..., :_NUM_BANDS]
    shares = bands / bands.sum(dim=-1, keepdim=True).clamp_min(1e-30)
    return (shares + _BAND_FLOOR).log() @ _cosines()


@functools.lru_cache(maxsize=8)
def _mel_bank(sample_rate: int, num_bins: int) -> Float[Tensor, "bin bands_and_all"]:
    """Triangles that are equally wide on the mel scale, and at last all bins together.

    Rates too low for the highest bands of the cepstra repeat the highest band they have, so
    that all rates share one table of variances. Bands above those are empty then.
    """
    top, bottom = _mel(_HIGHEST_HZ), _mel(_LOWEST_HZ)
    num_edges = _NUM_BANDS + _NUM_BANDS_ABOVE + 2
    steps = torch.arange(num_edges, dtype=torch.float64) / (_NUM_BANDS + 1)
    edges = 700.0 * (10.0 ** ((bottom + (top - bottom) * steps) / 2595.0) - 1.0)
    bins = torch.linspace(0.0, sample_rate / 2, num_bins, dtype=torch.float64)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank = torch.minimum(rising, falling).clamp_min(0.0)
    highest = max(0, int((edges[2:] <= sample_rate / 2).sum()) - 1)
    if highest < _NUM_BANDS - 1:
        bank[:, highest + 1 : _NUM_BANDS] = bank[:, highest, None]
    return torch.cat([bank, torch.ones_like(bank[:, :1])], dim=1).float()


def _mel(frequency_hz: float) -> float:
    return 2595.0 * math.log10(1.0 + frequency_hz / 700.0)


@functools.lru_cache(maxsize=1)
def _cosines() -> Float[Tensor, "band cepstrum"]:
    """The orthonormal discrete cosine transform, without its first row."""
    centres = (torch.arange(_NUM_BANDS, dtype=torch.float64) + 0.5)[:, None]
    orders = torch.arange(1, _NUM_CEPSTRA + 1)
    return (torch.cos(math.pi / _NUM_BANDS * centres * orders) * math.sqrt(2 / _NUM_BANDS)).float()


class Memory:
    """What was heard of each place over the last minutes.

    It fades with what is heard anew, not with time: a speaker who is silent for long is not
    forgotten.
    """

    def __init__(self, num_places: int) -> None:
        self._heard_s = torch.zeros(num_places)
        self._sums = torch.zeros(num_places, _NUM_CEPSTRA)

    @property
    def heard_s(self) -> Float[Tensor, "place"]:
        """For how long each place was heard; at most the length of the memory."""
        return self._heard_s.clone()

    def learn(self, impression: Impression) -> None:
        """Take in what is now heard of each place."""
        kept = torch.exp(-impression.heard_s / _MEMORY_S)
        self._heard_s = kept * self._heard_s + impression.heard_s
        self._sums = kept[:, None] * self._sums + impression.heard_s[:, None] * impression.cepstra

    def fade(self, share: float) -> None:
        """Let everything count for less: it was fainter than what is usual now."""
        self._heard_s = self._heard_s * share
        self._sums = self._sums * share

    def recognise(self, impression: Impression) -> Float[Tensor, "place candidate"]:
        """Evidence that a candidate is the source of a place rather than one never heard.

        In nats; 0 where the place or the candidate was not heard.
        """
        # A source has a mean s ~ N(centre, between). Heard for n seconds it shows
        # x ~ N(s, v) with v = within / n + lasting. Having heard m for n1 seconds, s is
        # N(centre + g (m - centre), (1 - g) between), with g = between / (between + v1).
        # The evidence is the log of the density of x given that, over the one given nothing.
        centre, between, within, lasting = _table()
        memory_s = self._heard_s[:, None]
        gain = between * memory_s / ((between + lasting) * memory_s + within)
        mean = self._sums / memory_s.clamp_min(1e-6) - centre
        heard_s = impression.heard_s.clamp_min(1e-6)[:, None]
        variance = within / heard_s + lasting
        offset = impression.cepstra - centre
        known = (1.0 - gain)[:, None] * between + variance
        unknown = between + variance
        error = offset - (gain * mean)[:, None]
        evidence = unknown.log() - known.log() + offset.square() / unknown - error.square() / known
        total = 0.5 * _INDEPENDENT_SHARE * evidence.sum(dim=-1)
        # What was heard of a place may have been leftovers of another source, the likelier the
        # less it was; then nothing is known. So evidence against a place has a limit.
        odd = _LEFTOVERS_S / (_LEFTOVERS_S + memory_s)
        total = torch.logaddexp((1.0 - odd).log() + total, odd.log().expand_as(total))
        return torch.where((memory_s > 0.0) & (impression.heard_s > 0.0), total, 0.0)


@functools.lru_cache(maxsize=1)
def _table() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.tensor(_CENTRE),
        torch.tensor(_BETWEEN),
        torch.tensor(_WITHIN),
        torch.tensor(_LASTING),
    )
