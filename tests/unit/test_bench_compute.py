"""The counting of operations and the arithmetic of the tables in ``bench``."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

from unbraid.checkpoints import save_bundle
from unbraid.checkpoints.card import Card
from unbraid.models.waveform import WaveformModel

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(BENCH))
    return BENCH


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def locoformer_operations(frames: int, bands: int, hidden: int, dim: int, taps: int) -> int:
    """One block of the tiny model on one feature map, by hand; both attentions 8 wide."""
    positions = frames * bands
    attention = 2 * positions * (dim * 3 * dim + dim * dim)
    attention *= 2  # projections along bands and along frames
    attention += 2 * 2 * dim * positions * (bands + frames)  # queries by keys, weights by values
    padded = frames * (bands + taps - 1)
    along_freq = 2 * padded * dim * 2 * hidden * taps + 2 * positions * hidden * dim * taps
    along_frames = 2 * positions * (dim * 2 * hidden + hidden * dim)
    return attention + along_freq + along_frames


@pytest.mark.usefixtures("bench")
def test_operations_are_those_of_the_equations(tiny_model: WaveformModel, tmp_path: Path) -> None:
    folder = save_bundle(tiny_model, tmp_path / "tiny", Card("tiny", "CC0-1.0"))
    config = tiny_model.config
    frames, bands, dim = config.stft.num_frames(48000), 8, 8
    prompts = 2
    expected = locoformer_operations(frames + prompts + 1, bands, 8, dim, 3)
    expected += prompts * locoformer_operations(frames, bands, 8, dim, 3)
    widths = tiny_model.network.codec.band_widths
    for width in widths:
        expected += 2 * frames * 2 * width * dim
        expected += prompts * 2 * frames * (dim * dim + dim * dim + dim * 4 * width)
    assert module("our_worker").count_operations(str(folder), 1.0, prompts) == expected


@pytest.mark.usefixtures("bench")
def test_operations_of_the_published_size() -> None:
    counted = module("our_worker").count_operations("medium", 6.0, 3)
    assert counted == pytest.approx(694e9, rel=0.002)


@pytest.mark.usefixtures("bench")
def test_share_of_the_peak_is_taken_run_by_run() -> None:
    compute = module("compute")
    # The machine became half as fast in the second run, and so did its peak.
    runs = (compute.Run(1.0, 100.0), compute.Run(2.0, 50.0))
    row = compute.Row("mini", 8.0, "plain", 50_000_000_000, runs, 400.0)
    assert row.share_of_peak == pytest.approx(0.5)
    assert row.gflops == pytest.approx(50 / 1.5)
    assert "| 50 % |" in str(row)


@pytest.mark.usefixtures("bench")
def test_scene_is_as_long_as_asked_and_never_silent() -> None:
    samples = module("scene").scene_samples(13.37, 44100, 3)
    assert samples.shape == (3, round(13.37 * 44100))
    assert float(samples.square().mean(dim=1).min()) > 0
    assert not torch.equal(samples[0], samples[1])
