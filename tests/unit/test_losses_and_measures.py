"""Losses and measures against cases that can be computed by hand."""

import math

import pytest
import torch

from unbraid.data.dynamic import MixtureBatch
from unbraid.evaluation.batches import best_si_sdr_db, mixture_si_sdr_db
from unbraid.objectives.assignment import assign_freely, assign_within_equal_prompts, gather_sources
from unbraid.objectives.losses import (
    SiSnrLossConfig,
    SnrLossConfig,
    SpectralLossConfig,
    separation_loss,
    si_snr_loss,
    spectral_loss,
    thresholded_snr_loss,
)
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


def test_what_is_far_below_the_mixture_counts_as_silent() -> None:
    loud, faint = tones(40, 90).unbind(1)
    references = torch.stack([loud, faint * 10 ** (-61 / 20)], dim=1)
    estimates = torch.zeros_like(references)

    def loss(below: float | None) -> float:
        config = SnrLossConfig(silence_threshold="mixture", silent_below_db=below, eps=1e-8)
        return thresholded_snr_loss(estimates, references, DISTINCT, config).item()

    # Nothing for a source that sounds is 0 dB, and the ceiling of 30 dB hides 0.004 dB of it.
    assert loss(None) == pytest.approx(10 * math.log10(1.001), abs=1e-3)
    leak = 0.1 * 10 * math.log10(1e-3 * 2000)  # the mixture has a power of 2000
    assert loss(-60) == pytest.approx((10 * math.log10(1.001) + leak) / 2, abs=1e-3)


def test_channels_have_losses_of_their_own_and_one_order() -> None:
    references = torch.stack([tones(40, 90), tones(40, 90)], dim=2)
    estimates = references.clone()
    estimates[:, :, 1] *= 0.5
    one = thresholded_snr_loss(references[:, :, 0], references[:, :, 0], DISTINCT)
    other = thresholded_snr_loss(estimates[:, :, 1], references[:, :, 1], DISTINCT)
    both = thresholded_snr_loss(estimates, references, DISTINCT)
    assert both.item() == pytest.approx((one.item() + other.item()) / 2, abs=1e-4)
    # Swapped in one channel only, no order is right for both.
    mixed = references.clone()
    mixed[:, :, 1] = references[:, :, 1].flip(1)
    assert thresholded_snr_loss(mixed, references, EQUAL).item() > -15


def test_scale_invariant_snr_is_the_measure_and_knows_no_scale() -> None:
    references = tones(40, 90)
    noisy = references + 0.1 * tones(150, 210)
    expected = -20.0
    assert si_snr_loss(noisy, references, EQUAL).item() == pytest.approx(expected, abs=1e-2)
    louder = si_snr_loss(7 * noisy.flip(1) + 3, references, EQUAL).item()
    assert louder == pytest.approx(expected, abs=1e-2)
    assert si_snr_loss(noisy.flip(1), references, DISTINCT).item() > 20


def test_the_spectral_loss_by_hand() -> None:
    references = torch.randn(2, 1, 3000, generator=torch.Generator().manual_seed(0))
    prompts = torch.tensor([[0], [0]])
    assert spectral_loss(3 * references, references, prompts).item() == pytest.approx(0, abs=2e-2)
    estimates = references + 0.3 * torch.randn(
        2, 1, 3000, generator=torch.Generator().manual_seed(1)
    )
    scale = (estimates * references).sum(-1) / estimates.square().sum(-1)
    scaled = (estimates * scale[..., None])[:, 0]
    waveform = (scaled - references[:, 0]).abs().sum(-1)
    spectra = []
    for window in (256, 512, 768, 1024):
        first, second = (
            torch.stft(each, window, window // 2, window=torch.ones(window), return_complex=True)
            for each in (scaled, references[:, 0])
        )
        spectra.append((first.abs() - second.abs()).abs().sum(dim=(1, 2)))
    expected = (0.5 * waveform + 0.5 * torch.stack(spectra).mean(dim=0)).mean()
    assert spectral_loss(estimates, references, prompts).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


@pytest.mark.parametrize("config", [SnrLossConfig(), SiSnrLossConfig(), SpectralLossConfig()])
def test_every_loss_has_finite_gradients_at_silence(config: object) -> None:
    for reference in (torch.zeros(1, 1, 2000), tones(40)[..., :2000]):
        estimate = torch.zeros(1, 1, 2000, requires_grad=True)
        separation_loss(estimate, reference, torch.tensor([[0]]), config).backward()  # type: ignore[arg-type]
        assert estimate.grad is not None
        assert bool(estimate.grad.isfinite().all())


def test_estimates_answer_their_own_prompts_only() -> None:
    references = tones(40, 90)
    batch = MixtureBatch(references.sum(dim=1), references, torch.tensor([[0, 1]]))
    noise = tones(150)
    # Three outputs for speech, effects, speech; each source is on the wrong one of two.
    estimates = torch.cat([noise + 0.1 * tones(7), references[:, 1:], references[:, :1]], dim=1)
    right = best_si_sdr_db(estimates, batch, torch.tensor([[0, 1, 0]]))
    assert bool((right > 40).all())
    wrong = best_si_sdr_db(estimates, batch, torch.tensor([[1, 0, 1]]))
    assert bool((wrong < 0).all())
    assert bool((best_si_sdr_db(estimates, batch) > 40).all())


def test_channels_count_together() -> None:
    references = torch.stack([tones(40, 90), 0.5 * tones(40, 90)], dim=2)
    batch = MixtureBatch(references.sum(dim=1), references, EQUAL)
    estimates = references.flip(1).clone()
    assert bool((best_si_sdr_db(estimates, batch) > 40).all())
    # The other source is as loud as this one.
    assert mixture_si_sdr_db(batch).flatten().tolist() == pytest.approx([0.0, 0.0], abs=1e-2)
    estimates[:, :, 1] *= -1  # a channel that is upside down, of a fifth of the power
    scale = 0.6
    expected = 10 * math.log10(scale**2 / (0.8 * (1 - scale) ** 2 + 0.2 * (1 + scale) ** 2))
    found = best_si_sdr_db(estimates, batch).flatten().tolist()
    assert found == pytest.approx([expected] * 2, abs=1e-2)
