"""Several channels with a model that hears one."""

from collections.abc import Callable, Sequence
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unbraid.dsp.stft import StftConfig, istft, stft
from unbraid.errors import ConfigError
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.measures import si_sdr_db
from unbraid.separation.separator import StreamSeparator, separate_waveform
from unbraid.separation.settings import SeparationConfig
from unbraid.separation.stereo import plan_channels
from unbraid.types import StereoMode, Waveform

MODES = get_args(StereoMode)
STFT = StftConfig(512, 256)
GROUPS = ((0,), (1,))


def separate_channels(
    samples: torch.Tensor,
    separate_one: Callable[[torch.Tensor], torch.Tensor],
    mode: StereoMode,
    groups: Sequence[Sequence[int]],
    config: StftConfig,
) -> torch.Tensor:
    plan = plan_channels(samples, mode, groups, config)
    return plan.combine([separate_one(row) for row in plan.rows])


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Oracle:
    """A model that knows the sources: it splits a channel by ratio masks of mono references.

    It answers in turned order at every call where ``turns`` says so, and counts its calls.
    """

    def __init__(self, references: torch.Tensor, *, turns: bool = False) -> None:
        power = stft(references, STFT).abs().square()
        self.masks = (power + 1e-9) / (power + 1e-9).sum(dim=0)
        self.turns = turns
        self.calls = 0

    def __call__(self, channel: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        spectrum = stft(channel[None], STFT)
        sources = istft(self.masks * spectrum, STFT, len(channel))
        return sources.roll(self.calls, dims=0) if self.turns else sources


def scene(*gains: tuple[float, float], length: int = 16000) -> tuple[torch.Tensor, torch.Tensor]:
    """Mono sources that come and go in changing bands, and their images at some gains."""
    spectrum = stft(noise(len(gains), length), STFT)
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(len(gains), 8, 32, generator=generator)
    envelope = torch.nn.functional.interpolate(coarse[:, None], spectrum.shape[1:])[:, 0]
    sources = istft(spectrum * envelope**4, STFT, length)
    return sources, sources[:, None] * torch.tensor(gains)[:, :, None]


@pytest.mark.parametrize("mode", MODES)
def test_silent_and_repeated_channels_need_no_model(mode: StereoMode) -> None:
    sources, _ = scene((1.0, 1.0), (1.0, 1.0))
    mono = sources.sum(dim=0)
    silence = torch.zeros_like(mono)
    alone = separate_channels(mono[None], Oracle(sources), mode, GROUPS, STFT)[:, 0]

    oracle = Oracle(sources)
    nothing = separate_channels(silence.expand(2, -1), oracle, mode, GROUPS, STFT)
    assert nothing.shape == (2, 2, len(mono))
    assert not nothing.any()
    assert oracle.calls == 0

    for right, sign in ((mono, 1.0), (-mono, -1.0), (silence, 0.0)):
        oracle = Oracle(sources)
        both = separate_channels(torch.stack([mono, right]), oracle, mode, GROUPS, STFT)
        assert oracle.calls == 1
        torch.testing.assert_close(both[:, 0], alone, atol=1e-6, rtol=0)
        assert torch.equal(both[:, 1], sign * both[:, 0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_any_number_of_channels_and_any_length(mode: StereoMode, channels: int) -> None:
    def halve(channel: torch.Tensor) -> torch.Tensor:
        return torch.stack([0.5 * channel, 0.25 * channel])

    for length in (1, 100, 3000):
        samples = noise(channels, length)
        separated = separate_channels(samples, halve, mode, GROUPS, STFT)
        assert separated.shape == (2, channels, length)
        # A part is a part in every mode, whatever the number of channels.
        torch.testing.assert_close(separated[0], 0.5 * samples, atol=1e-3, rtol=0)
        torch.testing.assert_close(separated[1], 0.25 * samples, atol=1e-3, rtol=0)


@pytest.mark.parametrize("mode", MODES)
@settings(deadline=None, max_examples=15)
@given(level=st.sampled_from([1e-30, 1e-12, 1e-3, 1.0, 1e12, 1e30]), seed=st.integers(0, 99))
def test_level_passes_through(mode: StereoMode, level: float, seed: int) -> None:
    sources, images = scene((1.0, 0.2), (0.3, 0.9), length=4000)
    samples = images.sum(dim=0) + 1e-3 * noise(2, 4000, seed=seed)
    plain = separate_channels(samples, Oracle(sources), mode, GROUPS, STFT)
    scaled = separate_channels(samples * level, Oracle(sources), mode, GROUPS, STFT)
    assert torch.isfinite(scaled).all()
    torch.testing.assert_close(scaled / level, plain, atol=1e-4, rtol=0)


def test_shared_masks_keep_the_image_and_the_sum() -> None:
    sources, images = scene((1.0, 0.4), (0.4, 1.0))
    mixture = images.sum(dim=0)
    separated = separate_channels(mixture, Oracle(sources), "shared", GROUPS, STFT)
    torch.testing.assert_close(separated.sum(dim=0), mixture, atol=1e-5, rtol=0)

    # A single source that is only turned down by the model, differently on each side,
    # still comes out in its place.
    levels = iter([0.9, 0.3])

    def uneven(channel: torch.Tensor) -> torch.Tensor:
        level = next(levels)
        return torch.stack([level * channel, (1.0 - level) * channel])

    for_one = separate_channels(images[0], uneven, "shared", GROUPS, STFT)
    torch.testing.assert_close(for_one[0, 1], 0.4 * for_one[0, 0], atol=1e-6, rtol=0)


def test_the_wiener_filter_hears_from_where_a_source_comes() -> None:
    sources, images = scene((1.0, 0.1), (0.2, 1.0))
    mixture = images.sum(dim=0)

    def score(mode: StereoMode) -> float:
        separated = separate_channels(mixture, Oracle(sources), mode, GROUPS, STFT)
        return float(si_sdr_db(separated.flatten(1), images.flatten(1)).min())

    assert score("wiener") > score("channels") + 2.0
    assert score("wiener") > score("shared") + 2.0


def test_the_wiener_filter_leaves_out_what_nobody_asked_for() -> None:
    sources, images = scene((1.0, 0.3), (0.3, 1.0), (0.7, 0.7))
    mixture = images.sum(dim=0)
    oracle = Oracle(sources)
    separated = separate_channels(
        mixture, lambda channel: oracle(channel)[:2], "wiener", GROUPS, STFT
    )
    left_over = mixture - separated.sum(dim=0)
    assert si_sdr_db(left_over.flatten(), images[2].flatten()) > 5.0


@pytest.mark.parametrize("mode", ["mid-side", "shared", "wiener"])
@pytest.mark.parametrize("delay", [0, 20])
@pytest.mark.parametrize("polarity", [1.0, -1.0])
def test_equal_prompts_keep_their_places_across_channels(
    mode: StereoMode, delay: int, polarity: float
) -> None:
    # The "model" answers in another order on the right than on the left.
    sources, images = scene((1.0, 0.6), (0.5, 1.0))
    images[1, 1] = polarity * images[1, 1].roll(delay)
    mixture = images.sum(dim=0)
    straight = separate_channels(mixture, Oracle(sources), mode, ((0, 1),), STFT)
    turned = separate_channels(mixture, Oracle(sources, turns=True), mode, ((0, 1),), STFT)
    best = min((turned - straight).abs().max(), (turned.flip(0) - straight).abs().max())
    assert best < 1e-6
    # Without the knowledge that they may be exchanged they are mixed up.
    wrong = separate_channels(mixture, Oracle(sources, turns=True), mode, GROUPS, STFT)
    assert min((wrong - straight).abs().max(), (wrong.flip(0) - straight).abs().max()) > 0.01


@pytest.mark.parametrize("mode", MODES)
def test_the_callers_samples_are_left_alone(mode: StereoMode) -> None:
    sources, images = scene((1.0, 0.3), (0.3, 1.0), length=4000)
    mixture = images.sum(dim=0)
    before = mixture.clone()
    separate_channels(mixture, Oracle(sources), mode, GROUPS, STFT)
    assert torch.equal(mixture, before)


def test_the_separator_does_as_it_is_told(tiny_model: WaveformModel) -> None:
    mixture = Waveform(noise(2, 30000), 48000)
    results = {
        mode: separate_waveform(
            StreamSeparator(tiny_model, SeparationConfig(stereo=mode)), mixture, ["speech", "bass"]
        ).sources
        for mode in MODES
    }
    for mode in MODES[1:]:
        assert (results[mode] - results["channels"]).abs().max() > 1e-4


def test_an_unknown_mode_is_refused() -> None:
    config = SeparationConfig()
    # Set past the checks of shapes and types that run while tests run, and for no user.
    object.__setattr__(config, "stereo", "surround")
    with pytest.raises(ConfigError, match="mid-side"):
        config.__post_init__()


def by_the_book(samples: torch.Tensor, estimates: torch.Tensor, mode: StereoMode) -> torch.Tensor:
    """``wiener`` and ``shared`` as their formulas stand, in complex128 and with all in memory."""
    scale = samples.abs().max().double()
    mixture = stft(samples, STFT).to(torch.complex128) / scale
    spectra = torch.stack([stft(source, STFT) for source in estimates]).to(torch.complex128) / scale
    everything = torch.cat([spectra, (mixture - spectra.sum(dim=0))[None]])
    products = torch.einsum("cfb,scfb->sfb", mixture.conj(), everything)
    if mode == "shared":
        masks = products / mixture.abs().square().sum(dim=0)
        filtered = masks[:-1, None] * mixture
    else:
        signals = torch.cat([mixture[None], everything])
        outer = torch.einsum("scfb,sdfb->sbcd", signals, signals.conj())
        kernel = torch.ones(outer.shape[1], outer.shape[1], dtype=outer.dtype).tril(2).triu(-2)
        places = torch.einsum("ab,sbcd->sacd", kernel, outer)
        channels = samples.shape[0]
        power = places.diagonal(dim1=-2, dim2=-1).real.sum(dim=-1) / channels
        places = places / power.clamp_min(1e-10)[..., None, None]
        identity = torch.eye(channels, dtype=outer.dtype)
        places = 0.3 * places[0] + 0.7 * places[1:] + 1e-3 * identity
        powers = products.real.clamp_min(0.0).to(outer.dtype)
        covariance = torch.einsum("sfb,sbcd->fbcd", powers, places) + 1e-10 * identity
        whitened = torch.linalg.solve(covariance, mixture.permute(1, 2, 0))
        filtered = torch.einsum("sfb,sbcd,fbd->scfb", powers[:-1], places[:-1], whitened)
    return torch.stack(
        [istft((source * scale).to(torch.complex64), STFT, samples.shape[1]) for source in filtered]
    )


@pytest.mark.parametrize("mode", ["shared", "wiener"])
# The lengths give one frame, some, exactly as many as are worked on at once, and more.
@pytest.mark.parametrize("length", [200, 5000, 63 * 256, 40000])
@pytest.mark.parametrize("num_channels", [2, 3])
def test_channels_are_combined_by_the_book(
    mode: StereoMode, length: int, num_channels: int
) -> None:
    images = noise(3, num_channels, length, seed=3)
    mixture = images.sum(dim=0) + 0.1 * noise(num_channels, length, seed=4)
    estimates = images + 0.3 * noise(3, num_channels, length, seed=5)
    kept = mixture.clone(), estimates.clone()
    plan = plan_channels(mixture, mode, ((0,), (1,), (2,)), STFT)
    combined = plan.combine(list(estimates.unbind(1)))
    expected = by_the_book(mixture, estimates, mode)
    error = (combined - expected).double().square().sum() / expected.double().square().sum()
    assert 10 * torch.log10(error) < -100
    assert torch.equal(mixture, kept[0])
    assert torch.equal(estimates, kept[1])
