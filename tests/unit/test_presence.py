"""Presence: scores of windows, of recordings, and the gate that follows them."""

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unbraid.audio import read
from unbraid.checkpoints import load_bundle, resolve_model
from unbraid.data.manifest import read_manifest
from unbraid.models.waveform import PresenceWeights, WaveformModel
from unbraid.separation.gate import Gate
from unbraid.separation.presence import (
    GENERIC_WEIGHTS,
    WINDOW_S,
    Presence,
    PresenceMeter,
    PresenceTimeline,
    recording_score,
    window_start,
)
from unbraid.separation.separator import StreamSeparator, separate_waveform
from unbraid.separation.settings import SeparationConfig
from unbraid.types import Waveform

RATE = 8000
WINDOW = 4000

#: Every feature counts, so that a feature that goes wrong shows.
ALL_FEATURES = PresenceWeights(-0.5, 0.02, 1.0, 0.02, 0.02, 0.1, -0.2, 0.3, -0.1, 0.2, 0.1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def in_blocks(length: int, cuts: list[int]) -> list[slice]:
    edges = sorted({0, *(cut % (length + 1) for cut in cuts), length})
    return [slice(0, 0), *(slice(a, b) for a, b in itertools.pairwise(edges))]


def measured(
    mixture: torch.Tensor, sources: torch.Tensor, cuts: list[int], rate: int = RATE
) -> torch.Tensor:
    meter = PresenceMeter([ALL_FEATURES] * len(sources), rate)
    blocks = in_blocks(mixture.shape[-1], cuts)
    return torch.cat(
        [
            meter.push(mixture[:, part], sources[..., part], is_last=part is blocks[-1])
            for part in blocks
        ],
        dim=-1,
    )


@settings(deadline=None, max_examples=40)
@given(
    length=st.sampled_from([0, 1, 2, 3999, 4000, 4001, 9001, 14000]),
    channels=st.integers(1, 2),
    cuts=st.lists(st.integers(0, 14000), max_size=6),
)
@example(length=9001, channels=1, cuts=[8500])  # the last window reaches back over a cut
def test_scores_do_not_depend_on_blocks(length: int, channels: int, cuts: list[int]) -> None:
    sources = noise(2, channels, length) * torch.linspace(0, 1, length)
    mixture = sources.sum(dim=0) + 0.1 * noise(channels, length, seed=1)
    whole = measured(mixture, sources, [])
    assert whole.shape == (2, math.ceil(length / WINDOW))
    assert ((whole >= 0) & (whole <= 1)).all()
    assert torch.equal(measured(mixture, sources, cuts), whole)


@pytest.mark.parametrize("rate", [1, 2, 50, 11025, 44100, 192000])
def test_windows_cover_a_recording_at_any_rate(rate: int) -> None:
    length = max(1, int(1.3 * rate))
    mixture = noise(1, length)
    scores = measured(mixture, 0.5 * mixture[None], [length // 2], rate)
    num_windows = next(n for n in range(9) if window_start(n, rate) >= length)
    assert scores.shape == (1, num_windows)
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("factor", [1e-30, 1e-6, 0.3, 1e6, 1e30])
def test_scores_are_blind_to_level(factor: float) -> None:
    sources = noise(2, 1, 12000)
    mixture = sources.sum(dim=0) + 0.5 * noise(1, 12000, seed=1)
    louder = measured(factor * mixture, factor * sources, [])
    torch.testing.assert_close(louder, measured(mixture, sources, []), atol=1e-4, rtol=0)


def test_scores_are_zero_where_the_mixture_is_silent() -> None:
    sources = noise(1, 1, 6 * WINDOW)
    sources[..., 2 * WINDOW : 4 * WINDOW] = 0
    scores = measured(sources[0], sources, [])
    assert (scores[0] > 0).tolist() == [True, True, False, False, True, True]


def test_a_window_is_judged_with_its_neighbours() -> None:
    weights = PresenceWeights(level_db=0.1)
    sources = noise(1, 1, 5 * WINDOW)
    mixture = sources[0].clone()
    sources[..., 2 * WINDOW : 3 * WINDOW] *= 0.1  # -20 dB in the middle window
    scores = PresenceMeter([weights], RATE).push(mixture, sources, is_last=True)
    # Weights 1/2, 1, 1/2 over the levels 0, -20, 0 dB: -10 dB in the middle, -5 beside it.
    expected = torch.sigmoid(torch.tensor([[0.0, -0.5, -1.0, -0.5, 0.0]]))
    torch.testing.assert_close(scores, expected, atol=0.01, rtol=0)


def test_share_tells_a_source_from_a_leak_of_the_same_level() -> None:
    low, high = noise(2, 20000).unbind()
    spectrum = torch.fft.rfft(torch.stack([low, high]))
    spectrum[0, 5000:], spectrum[1, :5000] = 0, 0
    below, above = torch.fft.irfft(spectrum)
    above = 0.3 * above
    mixture = (below + above)[None]
    meter = PresenceMeter([PresenceWeights(share=1.0)] * 2, RATE)
    own = meter.describe(mixture, torch.stack([below, above])[:, None], is_last=True)
    meter = PresenceMeter([PresenceWeights(share=1.0)] * 2, RATE)
    leak = torch.stack([0.7 * mixture[0], 0.3 * mixture[0]])
    leaked = meter.describe(mixture, leak[:, None], is_last=True)
    share = [field.name for field in dataclasses.fields(PresenceWeights)].index("share") - 1
    assert own[1, 1, share] > 0.95
    assert leaked[1, 1, share] < 0.2


def test_a_recording_is_scored_by_its_best_two_seconds() -> None:
    timeline = torch.tensor([0.0, 0.1, 0.9, 0.9, 0.8, 1.0, 0.0, 0.0])
    assert recording_score(timeline) == pytest.approx(0.9)
    assert recording_score(timeline[:2]) == pytest.approx(0.05)
    assert recording_score(timeline[:0]) == 0.0


def test_intervals_are_the_stretches_above_a_threshold() -> None:
    timeline = torch.tensor([0.6, 0.2, 0.5, 0.9, 0.1, 0.7])
    presence = Presence("speech", 0.5, timeline)
    assert presence.intervals() == ((0.0, 0.5), (1.0, 2.0), (2.5, 3.0))
    assert presence.intervals(0.95) == ()
    assert Presence("speech", 0.0, timeline[:0]).intervals() == ()


def test_a_timeline_collects_what_a_stream_gives(tiny_model: WaveformModel) -> None:
    names = ["speech", "drums"]
    timeline = PresenceTimeline(names)
    assert [each.score for each in timeline.result()] == [0.0, 0.0]
    signal = noise(1, 150000)
    whole = separate_waveform(StreamSeparator(tiny_model), Waveform(signal, 44100), names)
    for block in StreamSeparator(tiny_model).stream(signal.split(7000, dim=1), 44100, names):
        timeline.add(block.presence)
    speech, drums = timeline.result()
    assert (speech.name, drums.name) == ("speech", "drums")
    assert speech.window_s == WINDOW_S
    torch.testing.assert_close(speech.timeline, whole.presence[0], atol=1e-4, rtol=0)
    assert drums.timeline.shape == (7,)
    assert speech.score == recording_score(speech.timeline)


def test_weights_come_from_the_models_config(tiny_model: WaveformModel) -> None:
    sure = PresenceWeights(bias=10.0)
    tiny_model.config = dataclasses.replace(tiny_model.config, presence={"speech": sure})
    result = separate_waveform(
        StreamSeparator(tiny_model), Waveform(noise(1, 48000), 48000), ["speech", "drums"]
    )
    assert (result.presence[0] > 0.999).all()
    assert (result.presence[1] < 0.999).all()
    assert GENERIC_WEIGHTS.level_db != 0


def gated(
    scores: list[list[float]], length: int, cuts: list[int], rate: int = RATE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixture and stems behind the gate; what goes in is all ones."""
    gate = Gate(rate, len(scores))
    ones = torch.ones(len(scores), 2, length)
    known = torch.tensor(scores)
    num_scored = 0
    pieces = []
    blocks = in_blocks(length, cuts)
    for part in blocks:
        is_last = part is blocks[-1]
        num_ready = known.shape[1] if is_last else max(0, part.stop * 2 // rate - 1)
        new = known[:, num_scored:num_ready]
        num_scored = max(num_scored, num_ready)
        pieces.append(gate.push(ones[0, :, part], ones[..., part], new, is_last=is_last))
    mixture, sources = (torch.cat(parts, dim=-1) for parts in zip(*pieces, strict=True))
    return mixture, sources


@settings(deadline=None, max_examples=40)
@given(
    scores=st.lists(st.floats(0, 1), max_size=9),
    missing=st.integers(0, WINDOW - 1),
    cuts=st.lists(st.integers(0, 9 * WINDOW), max_size=6),
)
def test_the_gate_keeps_the_length_and_its_mind(
    scores: list[float], missing: int, cuts: list[int]
) -> None:
    length = max(0, len(scores) * WINDOW - missing)
    both = [scores, [1 - score for score in scores]]
    mixture, sources = gated(both, length, [])
    assert torch.equal(mixture, torch.ones(2, length))
    assert sources.shape == (2, 2, length)
    assert ((sources >= 0) & (sources <= 1)).all()
    assert torch.equal(gated(both, length, cuts)[1], sources)


def windows_open(scores: list[float]) -> list[bool]:
    """Which windows sound in their middle."""
    _, sources = gated([scores], len(scores) * WINDOW, [])
    middles = sources[0, 0, WINDOW // 2 :: WINDOW]
    assert set(middles.tolist()) <= {0.0, 1.0}
    return middles.bool().tolist()


def test_the_gate_opens_closes_and_does_not_flutter() -> None:
    assert windows_open([0.9] * 5) == [True] * 5
    assert windows_open([0.1] * 5) == [False] * 5
    # One window is early and one late; a single odd window opens nothing.
    assert windows_open([0, 0, 0, 0.9, 0.9, 0, 0, 0]) == [False, False, *[True] * 4, False, False]
    assert windows_open([0, 0, 0, 0.6, 0, 0, 0]) == [False] * 7
    # What would not open stays open; a short gap is bridged.
    assert windows_open([0.9, 0.9, 0.3, 0.3, 0.3, 0, 0]) == [*[True] * 6, False]
    assert windows_open([0.9, 0.9, 0, 0, 0.9, 0.9]) == [True] * 6


def test_closed_means_digital_silence_with_smooth_edges() -> None:
    _, sources = gated([[0, 0, 0, 0, 0.9, 0.9, 0, 0, 0, 0]], 10 * WINDOW, [])
    stem = sources[0, 0]
    fade = round(0.015 * RATE)
    assert (stem[3 * WINDOW : 7 * WINDOW] == 1).all()
    assert (stem[: 3 * WINDOW - fade] == 0).all()
    assert (stem[7 * WINDOW + fade :] == 0).all()
    rising, falling = stem[3 * WINDOW - fade : 3 * WINDOW], stem[7 * WINDOW :][:fade]
    assert (rising.diff() > 0).all()
    torch.testing.assert_close(rising.flip(0), falling)
    assert stem.diff().abs().max() < 2 / fade


@pytest.mark.parametrize("length", [0, 1, 777, 48000, 130001])
def test_the_gate_zeroes_what_is_absent_and_touches_nothing_else(
    tiny_model: WaveformModel, length: int
) -> None:
    weights = {"speech": PresenceWeights(bias=9.0), "drums": PresenceWeights(bias=-9.0)}
    tiny_model.config = dataclasses.replace(tiny_model.config, presence=weights)
    waveform = Waveform(noise(2, length), 44100)
    prompts = ["speech", "drums"]
    raw = separate_waveform(StreamSeparator(tiny_model), waveform, prompts)
    gating = StreamSeparator(tiny_model, SeparationConfig(gate=True))
    result = separate_waveform(gating, waveform, prompts)
    assert torch.equal(result.mixture, waveform.samples)
    assert torch.equal(result.sources[0], raw.sources[0])
    assert result.sources[1].shape == raw.sources[1].shape
    assert not result.sources[1].any()
    assert torch.equal(result.presence, raw.presence)
    assert raw.sources[1].any() or not length


def test_mini_hears_speech_and_no_music_in_speech(shared: Path) -> None:
    folder = shared / "data"
    recordings = [
        recording
        for recording in read_manifest(folder / "manifest.csv")
        if recording.split == "eval" and recording.kind.startswith("speech/")
    ]
    recordings.sort(key=lambda recording: -recording.duration_s)
    model = load_bundle(resolve_model("mini")).model
    separator = StreamSeparator(model, SeparationConfig(gate=True))
    num_right = 0
    for recording in recordings[:4]:
        waveform = read(folder / recording.path)
        start = Waveform(waveform.samples[:1, : 8 * waveform.sample_rate], waveform.sample_rate)
        block = separate_waveform(separator, start, ["speech", "sfx-mix", "music-mix"])
        speech, _, music = (recording_score(timeline) for timeline in block.presence)
        assert block.sources[0].any()
        num_right += speech > 0.5 > music and not block.sources[2].any()
    assert num_right >= 3
