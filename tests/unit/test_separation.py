"""Chunks, their joins, and the separator around them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unbraid.dsp.overlap_add import trapezoid
from unbraid.errors import AudioError, Cancelled, ConfigError, PromptError
from unbraid.models.waveform import WaveformModel
from unbraid.separation.chunking import ChunkPlan, cut, make_plan
from unbraid.separation.separator import StreamSeparator, separate_waveform
from unbraid.separation.settings import SeparationConfig
from unbraid.separation.stitching import Stitcher
from unbraid.types import Waveform


def noise(channels: int, length: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(channels, length, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=100)
@given(
    length=st.integers(0, 400),
    segment=st.integers(1, 60),
    overlap=st.integers(0, 59),
    join=st.sampled_from(["crossfade", "mean"]),
    block=st.integers(1, 90),
)
def test_cutting_and_joining_gives_every_sample_back(
    length: int, segment: int, overlap: int, join: str, block: int
) -> None:
    plan = ChunkPlan(segment, min(overlap, segment - 1), join)
    signal = noise(2, length)
    stitcher = Stitcher(plan, ["speech", "drums", "bass"], sample_rate=48000)
    pieces = [torch.zeros(3, 2, 0)]
    for chunk in cut(signal.split(block, dim=1) if length else [], plan):
        assert chunk.samples.shape[1] <= segment
        pieces.append(stitcher.add(chunk.samples.expand(3, -1, -1).clone(), chunk))
    joined = torch.cat(pieces, dim=-1)
    torch.testing.assert_close(joined, signal.expand(3, -1, -1), atol=1e-6, rtol=0)


def test_neighbouring_weights_sum_to_one_and_leave_the_edges_out() -> None:
    left = trapezoid(100, 40, 10, first=True, last=False)
    right = trapezoid(100, 40, 10, first=False, last=True)
    torch.testing.assert_close(left[60:] + right[:40], torch.ones(40))
    assert left[:75].eq(1).all()
    assert left[85:].eq(0).all()


def test_sources_with_equal_prompts_keep_their_places() -> None:
    # Two voices; the "model" swaps them in every other chunk, and in the right channel.
    rate = 8000
    plan = make_plan(1.0, 0.25, rate)
    time = torch.arange(6 * rate) / rate
    first = torch.sin(2 * math.pi * 300 * time) * (1 + 0.5 * torch.sin(2 * math.pi * 3 * time))
    second = torch.sin(2 * math.pi * 900 * time) * (1 + 0.5 * torch.sin(2 * math.pi * 5 * time))
    truth = torch.stack([first, second, 0.3 * noise(1, len(time))[0]])
    stitcher = Stitcher(plan, ["speech", "speech", "music-mix"], sample_rate=rate)
    pieces = []
    start = 0
    for number, chunk in enumerate(cut([first[None].expand(2, -1)], plan)):
        part = truth[:, None, start : start + chunk.samples.shape[1]].repeat(1, 2, 1)
        part[:, 1] *= 0.6
        if number % 2:
            part[:2] = part[:2].flip(0)
        part[:2, 1] = part[:2, 1].flip(0)
        pieces.append(stitcher.add(part, chunk))
        start += plan.hop
    joined = torch.cat(pieces, dim=-1)
    torch.testing.assert_close(joined[:, 0], truth, atol=1e-5, rtol=0)
    torch.testing.assert_close(joined[:, 1], 0.6 * truth, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 192000])
@pytest.mark.parametrize("length", [0, 1, 3, 1000, 130000])
def test_out_comes_exactly_what_went_in(tiny_model: WaveformModel, rate: int, length: int) -> None:
    mixture = Waveform(noise(2, length), rate)
    prompts = ["speech", "speech", "musicbg"]
    result = separate_waveform(StreamSeparator(tiny_model), mixture, prompts)
    assert result.sources.shape == (3, 2, length)
    assert torch.equal(result.mixture, mixture.samples)
    assert torch.isfinite(result.sources).all()
    total = result.sources.sum(dim=0) + result.residual
    torch.testing.assert_close(total, mixture.samples, atol=1e-6, rtol=0)


def test_blocks_of_any_size_give_the_same_result(tiny_model: WaveformModel) -> None:
    separator = StreamSeparator(tiny_model)
    signal = noise(1, 150000)
    prompts = ["speech", "sfx-mix"]
    whole = separate_waveform(separator, Waveform(signal, 44100), prompts).sources
    blocks = signal.split([1, 0, 70000, 5, 79994], dim=1)
    pieces = list(separator.stream(blocks, 44100, prompts))
    joined = torch.cat([piece.sources for piece in pieces], dim=-1)
    torch.testing.assert_close(joined, whole, atol=1e-5, rtol=0)
    assert torch.equal(torch.cat([piece.mixture for piece in pieces], dim=-1), signal)


def test_level_passes_through(tiny_model: WaveformModel) -> None:
    separator = StreamSeparator(tiny_model)
    signal = noise(1, 48000)
    loud = separate_waveform(separator, Waveform(signal, 48000), ["speech"]).sources
    quiet = separate_waveform(separator, Waveform(signal * 0.001, 48000), ["speech"]).sources
    torch.testing.assert_close(quiet * 1000, loud, atol=1e-5, rtol=1e-3)


def test_silence_gives_silence_and_no_model_call(
    tiny_model: WaveformModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the model was called for silence")

    monkeypatch.setattr(tiny_model, "forward", refuse)
    silence = Waveform(torch.zeros(2, 200000), 48000)
    result = separate_waveform(StreamSeparator(tiny_model), silence, ["drums"])
    assert result.sources.shape == (1, 2, 200000)
    assert not result.sources.any()


def test_the_callers_samples_are_left_alone(tiny_model: WaveformModel) -> None:
    signal = noise(2, 60000)
    before = signal.clone()
    separate_waveform(StreamSeparator(tiny_model), Waveform(signal, 48000), ["speech", "sfx"])
    assert torch.equal(signal, before)


def test_cancelling_stops_before_the_next_piece_of_work(tiny_model: WaveformModel) -> None:
    is_cancelled = False
    separator = StreamSeparator(tiny_model, SeparationConfig(segment_s=1.0, overlap_s=0.25))
    stream = separator.stream([noise(1, 48000 * 5)], 48000, ["speech"], lambda: is_cancelled)
    assert len([next(stream), next(stream)]) == 2
    is_cancelled = True
    with pytest.raises(Cancelled, match="cancelled"):
        next(stream)


def test_what_makes_no_sense_is_refused(tiny_model: WaveformModel) -> None:
    separator = StreamSeparator(tiny_model)
    good = Waveform(noise(1, 1000), 48000)
    with pytest.raises(PromptError, match="did you mean speech"):
        separate_waveform(separator, good, ["spech"])
    with pytest.raises(PromptError, match="no prompt given"):
        separate_waveform(separator, good, [])
    broken = noise(1, 48000)
    broken[0, 24000] = math.nan
    with pytest.raises(AudioError, match=r"at 0\.500 s"):
        separate_waveform(separator, Waveform(broken, 48000), ["speech"])
    with pytest.raises(ConfigError, match="same channels"):
        list(separator.stream(iter([noise(1, 10), noise(2, 10)]), 48000, ["speech"]))
    with pytest.raises(ConfigError, match="at least one"):
        separate_waveform(separator, Waveform(torch.zeros(0, 10), 48000), ["speech"])
    for segment_s, overlap_s in [(0.0, 0.0), (1.0, 1.0), (1.0, -0.1), (math.nan, 0.0)]:
        with pytest.raises(ConfigError, match="segment"):
            StreamSeparator(tiny_model, SeparationConfig(segment_s, overlap_s))


def test_prompts_are_checked_before_a_block_is_read(tiny_model: WaveformModel) -> None:
    def blocks() -> object:
        raise AssertionError("a block was read")
        yield

    with pytest.raises(PromptError):
        StreamSeparator(tiny_model).stream(blocks(), 48000, ["nonsense"])
