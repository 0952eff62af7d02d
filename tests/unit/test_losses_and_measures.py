"""Losses and measures against cases that can be computed by hand."""

import math

import pytest
import torch

from unbraid.objectives.assignment import assign_freely, assign_within_equal_prompts, gather_sources
from unbraid.objectives.losses import SnrLossConfig, thresholded_snr_loss
from unbraid.objectives.measures import LIMIT_DB, si_sdr_db, snr_db

DISTINCT = torch.tensor([[0, 1]])
EQUAL = torch.tensor([[3, 3]])


def tones(*periods: int) -> torch.Tensor:
    """Orthogonal sines of power 1/2, as one batch of sources."""
    time = torch.arange(4000) / 4000
    return torch.stack([torch.sin(2 * math.pi * period * time) for period in periods])[None]


def test_a_perfect_estimate_reaches_the_ceiling() -> None:
    references = tones(40, 90)
    loss = thresholded_snr_loss(references, references, DISTINCT)
    assert loss.item() == pytest.approx(-30.0, abs=1e-3)


def test_the_loss_is_the_negative_snr_far_from_the_ceiling() -> None:
    references = tones(40, 90)
    estimates = references * 0.5  # an error of half the amplitude: 6.02 dB
    loss = thresholded_snr_loss(estimates, references, DISTINCT)
    expected = 10 * math.log10(0.25 + 0.001)
    assert loss.item() == pytest.approx(expected, abs=1e-3)


def test_order_is_free_inside_equal_prompts_only() -> None:
    references = tones(40, 90)
    swapped = references.flip(1)
    assert thresholded_snr_loss(swapped, references, EQUAL).item() < -29
    assert thresholded_snr_loss(swapped, references, DISTINCT).item() > 2


def test_groups_of_one_item_do_not_mix_with_those_of_another() -> None:
    references = torch.cat([tones(40, 90, 140), tones(20, 60, 110)])
    prompts = torch.tensor([[5, 5, 1], [1, 5, 5]])
    estimates = references.clone()
    estimates[0, [0, 1]] = references[0, [1, 0]]
    estimates[1, [1, 2]] = references[1, [2, 1]]
    assert thresholded_snr_loss(estimates, references, prompts).item() < -29
    pairwise = (estimates.unsqueeze(2) - references.unsqueeze(1)).square().sum(-1)
    assignment = assign_within_equal_prompts(pairwise, prompts)
    assert assignment.tolist() == [[1, 0, 2], [0, 2, 1]]
    assert torch.equal(gather_sources(estimates, assignment), references)


def test_a_leak_into_silence_costs_and_silence_is_the_best_answer() -> None:
    references = tones(40, 90)
    references[0, 1] = 0
    config = SnrLossConfig(silence_threshold="mixture")

    def loss(leak: float) -> float:
        estimates = torch.stack([references[0, 0], leak * references[0, 0]])[None]
        return thresholded_snr_loss(estimates, references, DISTINCT, config).item()

    assert loss(0.0) < loss(0.1) < loss(1.0)
    # By hand: the mixture has the power 2000 over time, tau is 0.001, the weight 0.1.
    assert loss(0.0) == pytest.approx((-30.0 + 0.1 * 10 * math.log10(2.0)) / 2, abs=1e-2)


def test_gradients_are_finite_where_everything_is_silent() -> None:
    estimates = torch.zeros(1, 2, 100, requires_grad=True)
    thresholded_snr_loss(estimates, torch.zeros(1, 2, 100), DISTINCT).backward()
    assert estimates.grad is not None
    assert torch.isfinite(estimates.grad).all()


def test_measures_by_hand() -> None:
    reference, noise = tones(40, 90)[0]
    noisy = reference + 0.1 * noise
    assert snr_db(noisy, reference).item() == pytest.approx(20.0, abs=1e-3)
    assert si_sdr_db(noisy, reference).item() == pytest.approx(20.0, abs=1e-3)
    assert si_sdr_db(7 * noisy, reference).item() == pytest.approx(20.0, abs=1e-3)
    assert snr_db(0.5 * reference, reference).item() == pytest.approx(6.0206, abs=1e-3)


def test_the_mean_counts_only_if_it_is_kept() -> None:
    reference = tones(40)[0, 0]
    shifted = reference + 0.5
    assert si_sdr_db(shifted, reference).item() > 60
    assert si_sdr_db(shifted, reference, remove_mean=False).item() == pytest.approx(3.0, abs=0.05)


def test_perfect_and_silent_signals_are_defined() -> None:
    reference = tones(40)[0, 0]
    silence = torch.zeros_like(reference)
    assert snr_db(reference, reference).item() == LIMIT_DB
    for estimate, target in [(silence, reference), (reference, silence), (silence, silence)]:
        assert si_sdr_db(estimate, target).item() == -LIMIT_DB


def test_free_assignment_finds_the_best_of_all_choices() -> None:
    loss = torch.tensor(
        [[[5.0, 1.0], [0.0, 9.0], [4.0, 8.0]], [[1.0, 1.0], [2.0, 0.0], [0.0, 3.0]]]
    )
    assert assign_freely(loss).tolist() == [[1, 0], [2, 1]]
