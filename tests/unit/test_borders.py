"""Chunks must not be heard: no excess error where they are joined."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import unbraid
from unbraid.audio import read
from unbraid.checkpoints import resolve_model
from unbraid.dsp.resample import resample
from unbraid.models.waveform import WaveformModel
from unbraid.separation.separator import StreamSeparator, separate_waveform
from unbraid.separation.settings import SeparationConfig
from unbraid.types import Waveform

RATE = 48000
#: Speech and music of the evaluation split that sound all the way through.
VOICE = "speech/eval"
SONG = "music_stems/eval/other/everythingisfree__7.Francium__other.ogg"


#: Longer than any recording here.
ONE_PASS = SeparationConfig(segment_s=60.0, overlap_s=0.0)


def separated(
    model: WaveformModel, mixture: torch.Tensor, prompts: list[str], config: SeparationConfig
) -> torch.Tensor:
    separator = StreamSeparator(model, config)
    return separate_waveform(separator, Waveform(mixture, RATE), prompts).sources


def difference(
    model: WaveformModel, mixture: torch.Tensor, prompts: list[str], config: SeparationConfig
) -> torch.Tensor:
    """Power of the difference between chunks and one pass, sample by sample."""
    whole = separated(model, mixture, prompts, ONE_PASS)
    return (separated(model, mixture, prompts, config) - whole).square().mean(dim=(0, 1))


def relative_db(error: torch.Tensor, signal: torch.Tensor) -> float:
    return float(10.0 * torch.log10(error.square().sum() / signal.square().sum()))


def places(length: int, config: SeparationConfig, near_s: float) -> tuple[torch.Tensor, ...]:
    """Which samples lie near a join, which in a cross-fade, and which in neither."""
    assert config.segment_s is not None
    assert config.overlap_s is not None
    hop_s = config.segment_s - config.overlap_s
    seconds = torch.arange(length) / RATE
    joins = torch.arange(hop_s + config.overlap_s / 2, length / RATE, hop_s)
    distance = (seconds[:, None] - joins).abs().amin(dim=1)
    near = distance < near_s
    fade = distance < config.overlap_s / 8
    return near, fade, ~(near | fade)


@pytest.fixture(scope="module")
def mini() -> WaveformModel:
    return unbraid.load_bundle(resolve_model("mini")).model


@pytest.fixture(scope="module")
def recording(shared: Path) -> torch.Tensor:
    """26 s of speech over music, both without pauses of any length."""

    def mono(path: Path) -> torch.Tensor:
        waveform = read(path)
        return resample(waveform.samples[:1], waveform.sample_rate, RATE)[0]

    length = 26 * RATE
    voice = torch.cat(
        [mono(path) for path in sorted((shared / "data" / VOICE).rglob("*.ogg"))[:12]]
    )
    music = mono(shared / "data" / SONG)[10 * RATE :]
    assert len(voice) >= length
    return (voice[:length] / voice[:length].std() + music[:length] / music[:length].std())[None]


def test_no_excess_at_the_borders_of_a_real_recording(
    mini: WaveformModel, recording: torch.Tensor
) -> None:
    prompts = ["speech", "music-mix"]
    config = SeparationConfig(segment_s=8.0, overlap_s=2.0)
    whole = separated(mini, recording, prompts, ONE_PASS)
    error = separated(mini, recording, prompts, config) - whole
    near, fade, elsewhere = places(recording.shape[1], config, near_s=0.25)
    usual_db = relative_db(error[..., elsewhere], whole[..., elsewhere])
    assert usual_db < -9.0
    assert relative_db(error[..., near], whole[..., near]) < usual_db + 1.0
    assert relative_db(error[..., fade], whole[..., fade]) < usual_db + 1.0


@pytest.mark.slow
def test_estimates_next_to_the_edge_of_a_chunk_are_worse(
    mini: WaveformModel, recording: torch.Tensor
) -> None:
    # So there is something to be left out, and the test above can fail. The same places are
    # measured twice: next to the edge of one chunk, and in the middle of another.
    prompts = ["speech", "music-mix"]
    whole = separated(mini, recording, prompts, ONE_PASS)
    reach = RATE // 10
    at_edges, inside = [], []
    errors = {
        start: separated(mini, recording[:, start * RATE : (start + 4) * RATE], prompts, ONE_PASS)
        - whole[..., start * RATE : (start + 4) * RATE]
        for start in range(23)
    }
    for start in range(2, 21):
        middle = slice(2 * RATE, 2 * RATE + reach)
        at_edges.append(errors[start][..., :reach])
        inside.append(errors[start - 2][..., middle])
        middle = slice(2 * RATE - reach, 2 * RATE)
        at_edges.append(errors[start][..., -reach:])
        inside.append(errors[start + 2][..., middle])
    assert relative_db(torch.cat(at_edges), torch.cat(inside)) > 4.0


@pytest.fixture
def local_model(tiny_model: WaveformModel, monkeypatch: pytest.MonkeyPatch) -> WaveformModel:
    """A model that looks 50 ms around and not beyond, so that more context changes nothing."""
    reach = RATE // 20

    def smooth(mixture: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(mixture.double().abs(), (reach + 1, reach))
        sums = padded.cumsum(dim=-1)
        envelope = (sums[:, 2 * reach + 1 :] - sums[:, : -2 * reach - 1]) / (2 * reach + 1)
        return (mixture * envelope.float())[:, None].expand(-1, indices.shape[1], -1)

    monkeypatch.setattr(tiny_model, "forward", smooth)
    return tiny_model


@pytest.mark.parametrize(("overlap_s", "is_exact"), [(0.25, True), (0.0, False)])
@pytest.mark.parametrize("make", [torch.randn, torch.rand])
def test_estimates_without_context_are_left_out(
    local_model: WaveformModel,
    make: Callable[..., torch.Tensor],
    overlap_s: float,
    is_exact: bool,
) -> None:
    mixture = make(1, 5 * RATE, generator=torch.Generator().manual_seed(0))
    config = SeparationConfig(segment_s=1.0, overlap_s=overlap_s)
    error = difference(local_model, mixture, ["speech", "drums"], config)
    near, _, elsewhere = places(len(error), config, near_s=0.06)
    assert error[elsewhere].max() < 1e-9
    assert (error[near].max() < 1e-9) == is_exact


def test_a_mean_over_edges_shows_an_excess(local_model: WaveformModel) -> None:
    # Same overlap; only the estimates next to the edges are used as well.
    mixture = torch.randn(1, 5 * RATE, generator=torch.Generator().manual_seed(0))
    for join, is_exact in (("crossfade", True), ("mean", False)):
        config = SeparationConfig(segment_s=1.0, overlap_s=0.25, join=join)
        error = difference(local_model, mixture, ["speech"], config)
        assert bool(error[: 4 * RATE].max() < 1e-9) == is_exact


def test_an_untrained_model_shows_no_excess_either(tiny_model: WaveformModel) -> None:
    generator = torch.Generator().manual_seed(1)
    mixture = 0.1 * torch.randn(1, 6 * RATE, generator=generator)
    config = SeparationConfig(segment_s=2.0, overlap_s=0.5)
    error = difference(tiny_model, mixture, ["speech", "sfx-mix"], config)
    near, fade, elsewhere = places(len(error), config, near_s=0.1)
    assert error[near].mean() < 2.0 * error[elsewhere].mean()
    assert error[fade].mean() < 2.0 * error[elsewhere].mean()
