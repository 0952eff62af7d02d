"""Ideal masks and the estimates that they make: by hand, and against their limits."""

from __future__ import annotations

import math

import pytest
import torch

from unbraid.dsp.masks import (
    ideal_binary_masks,
    ideal_ratio_masks,
    phase_sensitive_masks,
    wiener_like_masks,
)
from unbraid.dsp.stft import StftConfig, istft, stft
from unbraid.errors import ConfigError
from unbraid.evaluation import oracles
from unbraid.evaluation.oracles import ORACLES, in_oracle_order, oracle_estimates, oracle_stft
from unbraid.objectives.measures import si_sdr_db, snr_db

RATE = 8000

#: Two sources in four bins: 3 beside -4j, equals, one alone, and silence.
REFERENCES = torch.tensor([[3.0, 1.0, 5.0, 0.0], [-4.0j, 1.0, 0.0, 0.0]])[None, :, None]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bursts(num_samples: int) -> torch.Tensor:
    """Two stereo sources that are seldom loud at once."""
    time = torch.arange(num_samples) / RATE
    turns = (2 * math.pi * 5 * time).sin()
    levels = torch.stack([turns.clamp_min(0.02), (-turns).clamp_min(0.02)])
    return levels[:, None] * noise(2, 2, num_samples)


def test_masks_by_hand() -> None:
    mixture = REFERENCES.sum(dim=1)
    for masks, expected in (
        (ideal_binary_masks(REFERENCES), [[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]),
        (ideal_ratio_masks(REFERENCES), [[3 / 7, 0.5, 1.0, 0.0], [4 / 7, 0.5, 0.0, 0.0]]),
        (wiener_like_masks(REFERENCES), [[9 / 25, 0.5, 1.0, 0.0], [16 / 25, 0.5, 0.0, 0.0]]),
        # 3 along 3-4j is 9/25 of it, -4j is 16/25: orthogonal sources share by power.
        (
            phase_sensitive_masks(REFERENCES, mixture),
            [[9 / 25, 0.5, 1.0, 0.0], [16 / 25, 0.5, 0.0, 0.0]],
        ),
    ):
        assert torch.allclose(masks[0, :, 0], torch.tensor(expected), atol=1e-6)


def test_phase_sensitive_masks_stay_between_0_and_1() -> None:
    references = torch.tensor([3.0 + 0j, -1.0 + 0j])[None, :, None, None]
    masks = phase_sensitive_masks(references, references.sum(dim=1))
    assert masks.flatten().tolist() == [1.0, 0.0]  # 3/2 and -1/2 without the limits


@pytest.mark.parametrize("name", ORACLES)
def test_masks_of_any_sources_lie_between_0_and_1(name: str) -> None:
    references = torch.complex(noise(2, 3, 4, 5), noise(2, 3, 4, 5, seed=1))
    references[0, 1] = 0
    masks = ORACLES[name](references, references.sum(dim=1))
    assert float(masks.min()) >= 0.0
    assert float(masks.max()) <= 1.0
    assert not masks[0, 1].any()


def test_shares_add_up_to_the_whole() -> None:
    references = torch.complex(noise(2, 3, 4, 5), noise(2, 3, 4, 5, seed=1))
    for make in (ideal_binary_masks, ideal_ratio_masks, wiener_like_masks):
        assert torch.allclose(make(references).sum(dim=1), torch.ones(2, 4, 5), atol=1e-6)


@pytest.mark.parametrize(
    ("sample_rate", "n_fft"),
    [
        (8000, 256),
        (16000, 512),
        (22050, 1024),
        (32000, 1024),
        (44100, 2048),
        (48000, 2048),
        (96000, 4096),
    ],
)
def test_windows_last_as_long_at_any_rate(sample_rate: int, n_fft: int) -> None:
    assert oracle_stft(sample_rate) == StftConfig(n_fft, n_fft // 4)


@pytest.mark.parametrize("name", ORACLES)
def test_oracles_separate_what_hardly_overlaps(name: str) -> None:
    references = bursts(2 * RATE)
    mixture = references.sum(dim=0)
    estimates = oracle_estimates(name, references, mixture, RATE)
    assert estimates.shape == references.shape
    gain = si_sdr_db(estimates, references) - si_sdr_db(mixture.expand_as(references), references)
    assert float(gain.min()) > 8.0


def test_an_estimate_is_the_masked_mixture() -> None:
    references = noise(2, 1, 1500)
    mixture = references.sum(dim=0)
    config = StftConfig(256, 64, "hann")
    masks = wiener_like_masks(stft(references[:, 0], config)[None])
    expected = istft(masks[0] * stft(mixture, config), config, 1500)
    estimates = oracle_estimates("wiener_like", references, mixture, RATE, config)
    assert torch.allclose(estimates[:, 0], expected, atol=1e-5)


def test_a_source_alone_comes_out_as_it_is() -> None:
    reference = noise(1, 2, RATE)
    for name in ORACLES:
        estimate = oracle_estimates(name, reference, reference[0], RATE)
        assert float(snr_db(estimate, reference).min()) > 90.0, name


def test_what_no_reference_holds_takes_its_share() -> None:
    references = noise(1, 1, RATE)
    rest = 3.0 * noise(1, RATE, seed=1)
    mixture = references[0] + rest
    both = torch.stack([references[0], rest])
    for name in ORACLES:
        alone = oracle_estimates(name, references, mixture, RATE)
        as_source = oracle_estimates(name, both, mixture, RATE)[:1]
        assert torch.allclose(alone, as_source, atol=1e-4), name


def test_channels_are_masked_each_by_itself() -> None:
    references = noise(2, 2, RATE)
    mixture = references.sum(dim=0)
    estimates = oracle_estimates("ideal_ratio", references, mixture, RATE)
    second = oracle_estimates("ideal_ratio", references[:, 1:], mixture[1:], RATE)
    assert torch.allclose(estimates[:, 1:], second, atol=1e-6)


@pytest.mark.parametrize("num_samples", [20_000, 16_384, 16_385])
def test_long_recordings_are_masked_in_stretches_without_a_trace(
    num_samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = bursts(num_samples)
    mixture = references.sum(dim=0)
    whole = oracle_estimates("wiener_like", references, mixture, RATE)
    monkeypatch.setattr(oracles, "_STRETCH_S", 0.5)
    in_stretches = oracle_estimates("wiener_like", references, mixture, RATE)
    assert torch.allclose(in_stretches, whole, atol=1e-6)


@pytest.mark.parametrize("num_samples", [0, 1, 100])
def test_silence_and_shortness_are_no_special_cases(num_samples: int) -> None:
    for references in (torch.zeros(2, 1, num_samples), noise(2, 1, num_samples)):
        for name in ORACLES:
            estimates = oracle_estimates(name, references, references.sum(dim=0), RATE)
            assert estimates.shape == references.shape
            assert estimates.isfinite().all()
            assert bool(estimates.any()) == bool(references.any())


def test_an_unknown_oracle_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"'wiener'.*did you mean wiener_like"):
        oracle_estimates("wiener", noise(1, 1, 9), noise(1, 9), RATE)


def test_chunks_are_joined_in_the_order_that_is_right_for_each() -> None:
    references = noise(4, 3, 50)
    orders = [[0, 1, 2], [2, 0, 1], [1, 0, 2], [2, 1, 0]]
    shuffled = torch.stack([each[order] for each, order in zip(references, orders, strict=True)])
    estimates = shuffled + 0.3 * noise(4, 3, 50, seed=1)
    ordered = in_oracle_order(estimates, references)
    assert float(snr_db(ordered, references).min()) > 5.0
    torch.testing.assert_close(in_oracle_order(references, references), references)
