"""Whether the sound of a prompt is there at all, from the stems alone.

A model gives every prompt a stem. Where the sound is absent the stem holds what leaked from the
others, often not much quieter than a sound that is there. But a leak looks different: it owns
few of the bins in which it sounds, and it has the timbre of something else. A window of
``WINDOW_S`` seconds is described by ten such numbers per stem, relative to mixture or stem, so
that level does not matter. A logistic regression whose weights stand in the model's config turns
them into a score, where 0.5 means that the sound is as likely there as not, if prompts are absent
half of the time.

How far the scores can be trusted depends on the model; ``bench/presence.py`` measures it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dsp.levels import power_db
from unbraid.dsp.stft import StftConfig, stft
from unbraid.models.waveform import PresenceWeights

#: Seconds from one score to the next.
WINDOW_S = 0.5

#: A recording's score is the largest mean over so many windows: two seconds in one piece.
_WINDOWS_OF_RECORDING = 4

#: How much the features of a neighbouring window count beside a window's own.
_NEIGHBOUR_WEIGHT = 0.5

#: Length of a hop of the analysis; frames are twice as long.
_HOP_S = 0.015

#: Lower edges of the bands that describe a stem's timbre; the first begins at 0 Hz.
_BAND_EDGES_HZ = (250.0, 1000.0, 4000.0)

#: Stems that are quieter, relative to the mixture, than this count as this loud.
_LOWEST_DB = -60.0

#: Frames and bands so far below the mixture's loudest say nothing.
_FAINT = 1e-3

#: For prompts that a model has no weights for: what is common to all prompts of ``mini``.
GENERIC_WEIGHTS = PresenceWeights(
    bias=0.0631,
    level_db=0.0191,
    share=0.9698,
    loudest_frames_db=0.0203,
    loudest_band_db=0.0199,
)


@dataclass(frozen=True, eq=False)
class Presence:
    """Whether, and when, the sound of one prompt is there.

    Attributes:
        name: Of the stem.
        score: Of the whole recording, from 0 (absent) to 1 (there): the largest mean of the
            timeline over two seconds, or over all of a shorter recording.
        timeline: Scores of windows, one after the other; 0 where the mixture is silent.
        window_s: Seconds from one window to the next. The last may be cut short.
    """

    name: str
    score: float
    timeline: Float[Tensor, "window"]
    window_s: float = WINDOW_S

    def intervals(self, threshold: float = 0.5) -> tuple[tuple[float, float], ...]:
        """Beginning and end, in seconds, of each stretch whose scores reach ``threshold``.

        An end may lie behind that of the recording by less than a window.
        """
        found = []
        start: int | None = None
        for position, is_there in enumerate([*(self.timeline >= threshold).tolist(), False]):
            if is_there and start is None:
                start = position
            elif not is_there and start is not None:
                found.append((start * self.window_s, position * self.window_s))
                start = None
        return tuple(found)


class PresenceTimeline:
    """Collects the scores of a stream, block by block.

    Args:
        names: Of the stems.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._scores: list[Tensor] = []

    def add(self, scores: Float[Tensor, "source window"]) -> None:
        """Take the windows of the next block."""
        self._scores.append(scores)

    def result(self) -> tuple[Presence, ...]:
        """What is known so far, one record per stem; score 0 before the first window."""
        timelines = torch.cat([torch.zeros(len(self._names), 0), *self._scores], dim=-1)
        return tuple(
            Presence(name, recording_score(timeline), timeline)
            for name, timeline in zip(self._names, timelines, strict=True)
        )


def recording_score(timeline: Float[Tensor, "window"]) -> float:
    """One score for a recording: see ``Presence.score``."""
    if timeline.numel() == 0:
        return 0.0
    length = min(_WINDOWS_OF_RECORDING, timeline.numel())
    return float(timeline.unfold(0, length, 1).mean(dim=-1).max())


def window_start(number: int, sample_rate: int) -> int:
    """First sample of a window."""
    return int(number * WINDOW_S * sample_rate)


class PresenceMeter:
    """State of one recording whose stems are being scored.

    Scores do not depend on how the recording comes in blocks, nor on its level.

    Args:
        weights: One per source.
        sample_rate: Of mixture and sources, in Hz.
    """

    def __init__(self, weights: Sequence[PresenceWeights], sample_rate: int) -> None:
        self._weights = torch.tensor([astuple(each) for each in weights])
        self._sample_rate = sample_rate
        self._signals: Tensor | None = None
        self._num_dropped = 0
        self._num_windows = 0
        self._features: list[Tensor] = []

    def push(
        self,
        mixture: Float[Tensor, "channel time"],
        sources: Float[Tensor, "source channel time"],
        *,
        is_last: bool,
    ) -> Float[Tensor, "source window"]:
        """Take the next samples; give the scores that are finished, a window behind.

        The last push gives the rest, down to a window that is cut short: it is judged by
        the last ``WINDOW_S`` seconds of the recording.
        """
        features = self.describe(mixture, sources, is_last=is_last)
        logits = self._weights[:, :1] + (self._weights[:, None, 1:] * features).sum(dim=-1)
        return torch.sigmoid(logits).nan_to_num(0.0)  # windows without features are silent

    def describe(
        self,
        mixture: Float[Tensor, "channel time"],
        sources: Float[Tensor, "source channel time"],
        *,
        is_last: bool,
    ) -> Float[Tensor, "source window feature"]:
        """As ``push``, but give the features that are weighed; NaN where the mixture is silent.

        They are those of the window and, at half the weight, of its two neighbours.
        """
        signals = torch.cat([mixture[None], sources])
        if self._signals is not None:
            signals = torch.cat([self._signals, signals], dim=-1)
        num_seen = self._num_dropped + signals.shape[-1]
        finished = [sources.new_zeros(len(sources), 0, self._weights.shape[1] - 1)]
        while True:
            start, end = (window_start(self._num_windows + i, self._sample_rate) for i in (0, 1))
            if start >= num_seen or (end > num_seen and not is_last):
                break
            if end > num_seen:
                start, end = max(0, num_seen - (end - start)), num_seen
            window = signals[..., start - self._num_dropped : end - self._num_dropped]
            self._features.append(features_of(window[0], window[1:], self._sample_rate))
            finished += self._smoothed()
            self._num_windows += 1
        if is_last and self._features:
            self._features.append(torch.full_like(self._features[-1], torch.nan))
            finished += self._smoothed()
        # The window before is kept: the last one may reach back into it.
        keep_from = window_start(max(0, self._num_windows - 1), self._sample_rate)
        self._signals = signals[..., keep_from - self._num_dropped :].clone()
        self._num_dropped = keep_from
        return torch.cat(finished, dim=1)

    def _smoothed(self) -> list[Float[Tensor, "source 1 feature"]]:
        """The last window but one, with its neighbours; none before there are two windows."""
        if len(self._features) < 2:
            return []
        self._features = self._features[-3:]
        window = self._features[-2]
        total, weight = window, 1.0
        for neighbour in (*self._features[:-2], self._features[-1]):
            if not bool(neighbour.isnan().any()):
                total = total + _NEIGHBOUR_WEIGHT * neighbour
                weight += _NEIGHBOUR_WEIGHT
        return [(total / weight)[:, None]]


def features_of(
    mixture: Float[Tensor, "channel time"],
    sources: Float[Tensor, "source channel time"],
    sample_rate: int,
) -> Float[Tensor, "source feature"]:
    """What ``PresenceWeights`` weighs, in its order; NaN where the mixture is silent.

    Powers are summed over channels. All ten numbers stay the same when mixture and sources
    are made louder or quieter together.
    """
    peak = mixture.abs().max() if mixture.numel() else mixture.new_zeros(())
    if not bool(peak > 0):
        return mixture.new_full((len(sources), len(fields(PresenceWeights)) - 1), torch.nan)
    residual = mixture - sources.sum(dim=0)
    signals = torch.cat([mixture[None], residual[None], sources]) / peak
    hop = max(1, round(_HOP_S * sample_rate))
    spectra = stft(signals.flatten(0, 1), StftConfig(2 * hop, hop, "hann"))
    squares = torch.view_as_real(spectra).square()
    power = squares[..., 0] + squares[..., 1]  # many times as fast as a sum over the last axis
    power = power.unflatten(0, signals.shape[:2]).sum(dim=1)
    whole, rest, stems = power[0], power[1], power[2:]
    tiny = 1e-9 * whole.mean()  # keeps what is empty finite, at any level

    share = stems / (stems.sum(dim=0) + rest + tiny)
    in_band, num_lowest = _bands(sample_rate, hop)
    bin_power, frame_power = power.sum(dim=1), power.sum(dim=2)
    energy = frame_power[2:].sum(dim=1) + tiny
    band_power = bin_power @ in_band
    timbre = band_power[2:] / energy[:, None]
    spectrum = bin_power[2:, num_lowest:] / len(whole) + tiny
    bins = stems[..., num_lowest:] + tiny
    return torch.cat(
        [
            _relative_db(energy, whole.sum())[:, None],
            ((stems * share).sum(dim=(1, 2)) / energy)[:, None],
            _loudest_db(frame_power[2:], frame_power[0], 0.9)[:, None],
            _loudest_db(band_power[2:], band_power[0], 1.0)[:, None],
            (bins.log().mean(dim=(1, 2)) - spectrum.mean(dim=1).log())[:, None],
            (frame_power[2:].std(dim=1, unbiased=False) / (energy / len(whole)))[:, None],
            timbre.clamp_min(1e-4).log10(),
        ],
        dim=1,
    )


@functools.lru_cache(maxsize=8)
def _bands(sample_rate: int, hop: int) -> tuple[Float[Tensor, "bin band"], int]:
    """Which bin lies in which band of the timbre, and how many lie in the lowest one."""
    frequencies = torch.arange(hop + 1) * (sample_rate / (2 * hop))
    band = torch.bucketize(frequencies, torch.tensor(_BAND_EDGES_HZ), right=True)
    in_band = torch.nn.functional.one_hot(band, len(_BAND_EDGES_HZ) + 1).float()
    return in_band, int(in_band[:, 0].sum())


def _relative_db(part: Float[Tensor, "*axes"], whole: Float[Tensor, "..."]) -> Tensor:
    return power_db(part / whole.clamp_min(1e-20)).clamp(_LOWEST_DB, -_LOWEST_DB)


def _loudest_db(
    stems: Float[Tensor, "source place"], whole: Float[Tensor, "place"], quantile: float
) -> Float[Tensor, "source"]:
    """How loud stems are, relative to the mixture, in the places where they are loudest."""
    heard = whole > _FAINT * whole.max()
    return _relative_db(stems[:, heard], whole[heard]).quantile(quantile, dim=1)
