"""Remixing and MixIT: what holds for every batch, every number of sources and every draw."""

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unbraid.errors import ConfigError
from unbraid.mixing.remix import (
    BatchShuffle,
    ChannelShuffle,
    RemixPlan,
    consistent,
    draw_remix,
    loudest,
    shuffle,
    unshuffle,
)
from unbraid.objectives.mixit import (
    add_up,
    best_assignment,
    least_squares_assignment,
    mixit_loss,
    sparsity_loss,
)
from unbraid.objectives.reconstruction import (
    ReconstructionConfig,
    in_best_order,
    multi_resolution_l1,
    reconstruction_loss,
)

SNR = ReconstructionConfig()
MRL1 = ReconstructionConfig("mrl1")
SEEDS = st.integers(0, 10_000)
FEW = settings(max_examples=40, deadline=None)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------ shuffles


@FEW
@given(
    st.integers(1, 9),
    st.integers(1, 5),
    SEEDS,
    st.sampled_from(["constrained", "free", "none"]),
    st.sampled_from(["all", "except_last", "none"]),
)
def test_what_was_shuffled_comes_back(
    batch: int, count: int, seed: int, items: BatchShuffle, channels: ChannelShuffle
) -> None:
    if items == "constrained" and batch < count:
        with pytest.raises(ConfigError, match="batch_shuffle: free"):
            draw_remix(batch, count, random.Random(seed))
        return
    plan = draw_remix(
        batch, count, random.Random(seed), batch_shuffle=items, channel_shuffle=channels
    )
    sources = noise(batch, count, 8, seed=seed)
    before = sources.clone()
    shuffled = shuffle(sources, plan)
    assert torch.equal(sources, before)
    assert torch.equal(unshuffle(shuffled, plan), sources)
    # Nothing is lost and nothing stands twice.
    assert torch.equal(shuffled.flatten().sort().values, sources.flatten().sort().values)
    mixtures = unshuffle(shuffled, plan).sum(dim=1)
    torch.testing.assert_close(mixtures, sources.sum(dim=1), atol=1e-6, rtol=0.0)


@FEW
@given(st.data(), st.integers(1, 9), SEEDS)
def test_two_sources_of_one_mixture_never_meet_again(
    data: st.DataObject, batch: int, seed: int
) -> None:
    count = data.draw(st.integers(1, batch))
    channels: ChannelShuffle = data.draw(st.sampled_from(["all", "except_last", "none"]))
    plan = draw_remix(batch, count, random.Random(seed), channel_shuffle=channels)
    origin = torch.arange(float(batch))[:, None, None].expand(-1, count, 1)
    for mixture in shuffle(origin, plan).squeeze(2).tolist():
        assert len(set(mixture)) == count
    assert all(sorted(items) == list(range(batch)) for items in plan.items)


def test_a_free_shuffle_lets_them_meet_and_none_moves_nothing() -> None:
    def meetings(kind: BatchShuffle) -> int:
        plans = [draw_remix(4, 2, random.Random(seed), batch_shuffle=kind) for seed in range(50)]
        return sum(one == other for plan in plans for one, other in zip(*plan.items, strict=True))

    assert meetings("constrained") == 0
    assert 0 < meetings("free") < 200
    assert meetings("none") == 200
    still = draw_remix(3, 2, random.Random(0), batch_shuffle="none", channel_shuffle="none")
    sources = noise(3, 2, 5)
    assert torch.equal(shuffle(sources, still), sources)


def test_every_permutation_of_the_items_is_drawn_as_often() -> None:
    counts = dict.fromkeys(range(6), 0)
    order = {items: place for place, items in enumerate(itertools.permutations(range(3)))}
    for seed in range(3000):
        counts[order[draw_remix(3, 3, random.Random(seed)).items[2]]] += 1
    assert all(abs(count - 500) < 90 for count in counts.values())


def test_the_last_place_can_keep_its_source_and_a_plan_depends_on_its_seed_alone() -> None:
    plans = [
        draw_remix(6, 3, random.Random(seed), channel_shuffle="except_last") for seed in range(20)
    ]
    assert all(row[-1] == 2 for plan in plans for row in plan.channels)
    assert {row[0] for plan in plans for row in plan.channels} == {0, 1}
    again = draw_remix(6, 3, random.Random(7), channel_shuffle="except_last")
    assert again == plans[7]
    assert len(set(plans)) == 20


def test_a_plan_does_what_it_says() -> None:
    plan = RemixPlan(channels=((1, 0), (0, 1)), items=((0, 1), (1, 0)))
    sources = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    assert shuffle(sources, plan).squeeze(2).tolist() == [[2.0, 4.0], [3.0, 1.0]]


# ------------------------------------------------------------------ consistency, selection


@FEW
@given(st.integers(1, 4), st.integers(1, 6), SEEDS)
def test_consistent_sources_sum_to_the_mixture_and_stay(batch: int, count: int, seed: int) -> None:
    sources, mixture = noise(batch, count, 16, seed=seed), noise(batch, 16, seed=seed + 1)
    once = consistent(sources, mixture)
    torch.testing.assert_close(once.sum(dim=1), mixture, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(consistent(once, mixture), once, atol=1e-5, rtol=0.0)


def test_the_loudest_stay_in_their_order() -> None:
    levels = torch.tensor([[1.0, 3.0, 0.0, 2.0], [4.0, 1.0, 2.0, 3.0]])
    sources = levels[:, :, None].expand(-1, -1, 3).clone().requires_grad_()
    kept = loudest(sources, 2)
    assert kept[:, :, 0].tolist() == [[3.0, 2.0], [4.0, 3.0]]
    assert loudest(sources, 4) is sources
    kept.sum().backward()
    assert sources.grad is not None
    assert sources.grad[:, :, 0].tolist() == [[0, 1, 0, 1], [1, 0, 0, 1]]


# ------------------------------------------------------------------ MixIT


def mixtures_of_orthogonal_sources(
    count: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Estimates near to orthogonal sources, the mixtures, and who belongs to which."""
    signals = torch.linalg.qr(noise(64, count, seed=seed)).Q.T
    gains = 0.5 + noise(count, 1, seed=seed + 1).abs()
    sources = (signals * gains)[None]
    assignment = torch.randint(2, (1, count), generator=torch.Generator().manual_seed(seed))
    mixtures = add_up(sources, assignment, 2)
    estimates = sources + 0.02 * noise(1, count, 64, seed=seed + 2)
    return estimates, mixtures, assignment


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), SEEDS)
def test_the_efficient_way_equals_the_exhaustive_one(count: int, seed: int) -> None:
    estimates, mixtures, assignment = mixtures_of_orthogonal_sources(count, seed)
    assert torch.equal(best_assignment(estimates, mixtures, SNR), assignment)
    assert torch.equal(least_squares_assignment(estimates, mixtures), assignment)
    gradients = []
    for search in ("efficient", "exhaustive"):
        inputs = estimates.clone().requires_grad_()
        mixit_loss(inputs, mixtures, search, SNR).backward()
        assert inputs.grad is not None
        gradients.append(inputs.grad)
    assert torch.equal(*gradients)
    assert gradients[0].abs().max() > 0


@pytest.mark.parametrize("search", ["efficient", "exhaustive"])
@pytest.mark.parametrize("config", [SNR, MRL1])
def test_true_sources_reach_the_floor_of_mixit(search: str, config: ReconstructionConfig) -> None:
    sources = noise(2, 3, 4000)
    mixtures = torch.stack([sources[:, 1], sources[:, 0] + sources[:, 2]], dim=1)
    loss = mixit_loss(sources, mixtures, search, config)
    assert loss.item() == pytest.approx(-60.0, abs=1e-3)
    wrong = mixit_loss(noise(2, 3, 4000, seed=1), mixtures, search, config)
    assert wrong.item() > -6.0


@pytest.mark.parametrize("search", ["efficient", "exhaustive"])
def test_equal_and_silent_outputs_have_an_assignment(search: str) -> None:
    mixtures = noise(1, 2, 200)
    estimates = mixtures[:, [0, 0, 1, 1]] * torch.tensor([0.5, 0.5, 1.0, 0.0])[:, None]
    loss = mixit_loss(estimates, mixtures, search, SNR)
    assert loss.item() == pytest.approx(-60.0, abs=1e-3)


def test_sparsity_has_the_values_of_the_paper_and_of_the_release() -> None:
    even = torch.ones(2, 4, 10)
    alone = even * torch.tensor([1.0, 0.0, 0.0, 0.0])[:, None]
    assert sparsity_loss(even).item() == pytest.approx(1.0)
    assert sparsity_loss(even, "count").item() == pytest.approx(0.5)
    # The silent ones count with a root mean square of 1e-4.
    assert sparsity_loss(alone).item() == pytest.approx(0.5 * 1.0003, abs=1e-5)


# ------------------------------------------------------------------ losses


def test_the_multi_resolution_loss_has_the_terms_it_says() -> None:
    reference = noise(4000)
    assert multi_resolution_l1(reference, reference).item() == 0.0
    half = multi_resolution_l1(0.5 * reference, reference).item()
    magnitudes = [
        torch.stft(
            reference, n_fft, hop, window, torch.hann_window(window),
            pad_mode="constant", return_complex=True,
        ).abs().mean().item()
        for n_fft, window, hop in ((512, 400, 160), (1024, 800, 320), (2048, 1600, 640))
    ]  # fmt: skip
    expected = 0.5 * (reference.abs().mean().item() + sum(magnitudes) / 3)
    assert half == pytest.approx(expected, rel=1e-4)
    whole = reconstruction_loss(0.5 * reference, reference, MRL1)
    snr = reconstruction_loss(0.5 * reference, reference, SNR)
    assert whole.item() == pytest.approx(snr.item() + half, rel=1e-5)


@pytest.mark.parametrize("config", [SNR, MRL1])
def test_estimates_come_in_their_best_order(config: ReconstructionConfig) -> None:
    references = noise(3, 3, 3000)
    estimates = references[:, [2, 0, 1]] + 0.1 * noise(3, 3, 3000, seed=1)
    ordered = in_best_order(estimates, references, config)
    assert torch.equal(ordered, estimates[:, [1, 2, 0]])


@pytest.mark.parametrize("config", [SNR, MRL1])
@pytest.mark.parametrize("search", ["efficient", "exhaustive"])
def test_gradients_are_finite_where_all_is_silent(
    config: ReconstructionConfig, search: str
) -> None:
    estimates = torch.zeros(2, 4, 600, requires_grad=True)
    mixtures = torch.zeros(2, 2, 600)
    loss = mixit_loss(estimates, mixtures, search, config)
    ordered = in_best_order(estimates, estimates.detach(), config)
    loss = loss + sparsity_loss(estimates)
    loss = loss + reconstruction_loss(ordered, torch.zeros_like(estimates), config).mean()
    loss.backward()
    assert estimates.grad is not None
    assert torch.isfinite(estimates.grad).all()


def test_a_loss_without_a_floor_for_powers_is_refused() -> None:
    with pytest.raises(ConfigError, match="eps must be above 0"):
        ReconstructionConfig(eps=0.0)
