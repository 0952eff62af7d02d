"""Stems that add up to the mixture, to the rounding of float32."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unbraid.models.waveform import PresenceWeights, WaveformModel
from unbraid.separation.consistency import Projector
from unbraid.separation.separator import StreamSeparator, separate_waveform
from unbraid.separation.settings import SeparationConfig
from unbraid.types import Waveform


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def level_db(left: torch.Tensor, whole: torch.Tensor) -> float:
    return float(10 * torch.log10(left.square().sum() / whole.square().sum() + 1e-30))


def projected(
    mixture: torch.Tensor, sources: torch.Tensor, rate: int = 8000, cuts: tuple[int, ...] = ()
) -> torch.Tensor:
    length = mixture.shape[-1]
    edges = sorted({0, *(cut % (length + 1) for cut in cuts), length})
    blocks = [slice(0, 0), *(slice(a, b) for a, b in itertools.pairwise(edges))]
    projector = Projector(rate)
    pieces = [
        projector.push(mixture[:, part], sources[..., part], is_last=part is blocks[-1])
        for part in blocks
    ]
    passed, stems = (torch.cat(parts, dim=-1) for parts in zip(*pieces, strict=True))
    assert torch.equal(passed, mixture)
    return stems


@settings(deadline=None, max_examples=40)
@given(
    length=st.sampled_from([0, 1, 2, 159, 160, 161, 320, 5001, 30000]),
    channels=st.integers(1, 2),
    num_sources=st.integers(1, 3),
    rate=st.sampled_from([1, 8000, 11025, 44100]),
    cuts=st.lists(st.integers(0, 30000), max_size=6),
)
def test_stems_add_up_however_they_come(
    length: int, channels: int, num_sources: int, rate: int, cuts: list[int]
) -> None:
    length = min(length, 200) if rate == 1 else length
    mixture = noise(channels, length)
    sources = noise(num_sources, channels, length, seed=1)
    whole = projected(mixture, sources, rate)
    assert whole.shape == sources.shape
    if length:
        assert level_db(mixture - whole.sum(dim=0), mixture) < -130
    torch.testing.assert_close(projected(mixture, sources, rate, tuple(cuts)), whole)


def test_what_adds_up_already_stays() -> None:
    sources = noise(3, 1, 20000)
    torch.testing.assert_close(projected(sources.sum(dim=0), sources), sources)


def test_the_residual_goes_to_the_stem_that_sounds_in_its_bins() -> None:
    time = torch.arange(16000) / 8000
    low, high = torch.sin(2 * torch.pi * 300 * time), torch.sin(2 * torch.pi * 2500 * time)
    sources = torch.stack([0.5 * low, 0.8 * high])[:, None]
    stems = projected((low + high)[None], sources)[..., 400:-400]
    assert level_db(stems[0, 0] - low[400:-400], low) < -35
    assert level_db(stems[1, 0] - high[400:-400], high) < -35


def test_silent_stems_and_stretches_get_nothing() -> None:
    mixture = noise(2, 24000)
    sources = noise(3, 2, 24000, seed=1)
    sources[1] = 0
    sources[2, :, 5001:17003] = 0
    stems = projected(mixture, sources)
    assert not stems[1].any()
    assert not stems[2, :, 5001:17003].any()
    assert stems[2, :, :5001].ne(sources[2, :, :5001]).float().mean() > 0.9
    assert level_db(mixture - stems.sum(dim=0), mixture) < -130


def test_where_all_stems_are_silent_a_residual_stays() -> None:
    mixture = noise(1, 9000)
    sources = noise(2, 1, 9000, seed=1)
    sources[..., 3000:6000] = 0
    stems = projected(mixture, sources)
    assert not stems[..., 3000:6000].any()
    left = mixture - stems.sum(dim=0)
    assert torch.equal(left[:, 3000:6000], mixture[:, 3000:6000])
    assert level_db(left[:, :3000], mixture) < -130


@pytest.mark.parametrize("factor", [1e-15, 1e-4, 1e4, 1e15])
def test_levels_pass_through(factor: float) -> None:
    mixture, sources = noise(1, 9000), noise(2, 1, 9000, seed=1)
    stems = projected(factor * mixture, factor * sources)
    torch.testing.assert_close(stems / factor, projected(mixture, sources), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("length", [0, 1, 777, 130001])
@pytest.mark.parametrize("rate", [8000, 96000])
def test_a_separation_adds_up_at_any_rate(
    tiny_model: WaveformModel, rate: int, length: int
) -> None:
    config = SeparationConfig(consistency="project")
    waveform = Waveform(0.1 * noise(2, length), rate)
    prompts = ["speech", "speech", "drums"]
    result = separate_waveform(StreamSeparator(tiny_model, config), waveform, prompts)
    assert result.sources.shape == (3, 2, length)
    assert torch.equal(result.mixture, waveform.samples)
    if length:
        assert level_db(result.residual, result.mixture) < -120


def test_gated_stems_get_no_share(tiny_model: WaveformModel) -> None:
    weights = {"speech": PresenceWeights(bias=9.0), "drums": PresenceWeights(bias=-9.0)}
    tiny_model.config = dataclasses.replace(tiny_model.config, presence=weights)
    config = SeparationConfig(gate=True, consistency="project")
    separator = StreamSeparator(tiny_model, config)
    waveform = Waveform(0.1 * noise(1, 100000), 44100)
    result = separate_waveform(separator, waveform, ["speech", "drums"])
    assert not result.sources[1].any()
    torch.testing.assert_close(result.sources[0], waveform.samples, atol=1e-5, rtol=0)
    all_gated = separate_waveform(separator, waveform, ["drums"])
    assert torch.equal(all_gated.residual, waveform.samples)
