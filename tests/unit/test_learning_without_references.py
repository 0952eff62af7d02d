"""MixIT, RemixIT and Self-Remixing as methods: what they see, what they give, who learns."""

import copy
import dataclasses
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny_unconditional import RATE, tiny_unconditional, tiny_unconditional_config
from unbraid.data.dynamic import MixtureBatch
from unbraid.errors import ConfigError
from unbraid.evaluation.batches import best_si_sdr_db, mixture_si_sdr_db
from unbraid.objectives.reconstruction import ReconstructionConfig
from unbraid.training.config import DataConfig, TrainConfig
from unbraid.training.methods.mixit import MixitConfig, mixture_invariant_loss
from unbraid.training.methods.remixing import (
    RemixingConfig,
    Teacher,
    TeacherConfig,
    remixing_loss,
)

LENGTH = 4000
LOW_HZ, HIGH_HZ = (100, 1500), (2000, 3800)


def band_noise(batch: int, seed: int) -> Tensor:
    """For each item, noise in a low band and noise in a high one, each between -15 and 15 dB."""
    generator = torch.Generator().manual_seed(seed)
    spectra = torch.fft.rfft(torch.randn(batch, 2, LENGTH, generator=generator))
    hz = torch.arange(LENGTH // 2 + 1) * (RATE / LENGTH)
    bands = torch.stack([(hz > low) & (hz < high) for low, high in (LOW_HZ, HIGH_HZ)])
    sources = torch.fft.irfft(spectra * bands, n=LENGTH)
    level_db = 30.0 * torch.rand(batch, 2, 1, generator=generator) - 15.0
    return sources / sources.std(dim=-1, keepdim=True) * 10.0 ** (level_db / 20.0)


def split_bands(mixture: Tensor) -> Tensor:
    """The true separator of these mixtures."""
    spectrum = torch.fft.rfft(mixture)
    hz = torch.arange(LENGTH // 2 + 1) * (RATE / LENGTH)
    halves = torch.stack([spectrum * (hz < 1750), spectrum * (hz >= 1750)], dim=1)
    return torch.fft.irfft(halves, n=LENGTH)


def silence(mixture: Tensor) -> Tensor:
    return torch.zeros(len(mixture), 2, mixture.shape[1])


def loss_of(
    student: Callable[[Tensor], Tensor],
    teacher: Callable[[Tensor], Tensor] = split_bands,
    *,
    seed: int = 0,
    batch: int = 6,
    **settings: Any,
) -> float:
    mixtures = band_noise(batch, seed=1).sum(dim=1)
    config = RemixingConfig(**settings)
    return remixing_loss(student, teacher, mixtures, config, random.Random(seed)).item()


ONLY_REMIXIT = {"remixit_weight": 1.0, "self_remixing_weight": 0.0}


# ------------------------------------------------------------------ remixing


@pytest.mark.parametrize("weights", [{}, ONLY_REMIXIT])
@pytest.mark.parametrize("kind", ["snr", "mrl1"])
@pytest.mark.parametrize("normalises", [False, True])
def test_true_sources_reach_the_floor(
    weights: dict[str, float], kind: Any, normalises: bool
) -> None:
    # Both of a pseudo-mixture can be told apart only where a low and a high band meet.
    found = loss_of(
        split_bands,
        channel_shuffle="none",
        loss=ReconstructionConfig(kind),
        normalises_pseudo_mixtures=normalises,
        **weights,
    )
    assert found == pytest.approx(-30.0, abs=1e-2)


def test_the_two_losses_are_summed_by_their_weights() -> None:
    def student(mixture: Tensor) -> Tensor:
        return split_bands(mixture) + 0.3 * mixture.unsqueeze(1)

    remixit, self_remixing = loss_of(student, **ONLY_REMIXIT), loss_of(student)
    assert abs(remixit - self_remixing) > 0.1
    both = loss_of(student, remixit_weight=0.5, self_remixing_weight=2.0)
    assert both == pytest.approx(0.5 * remixit + 2.0 * self_remixing, rel=1e-5)


@pytest.mark.parametrize("weights", [{}, ONLY_REMIXIT])
def test_the_order_of_the_students_outputs_does_not_matter(weights: dict[str, float]) -> None:
    def student(mixture: Tensor) -> Tensor:
        return split_bands(mixture) + 0.1 * mixture.unsqueeze(1)

    # The same for all items, and one that depends on the item.
    def swapped(mixture: Tensor) -> Tensor:
        return student(mixture).flip(1)

    def shuffled(mixture: Tensor) -> Tensor:
        outputs = student(mixture)
        return torch.stack(
            [each.flip(0) if item % 2 else each for item, each in enumerate(outputs)]
        )

    expected = loss_of(student, channel_shuffle="none", **weights)
    for other in (swapped, shuffled):
        assert loss_of(other, channel_shuffle="none", **weights) == pytest.approx(
            expected, abs=1e-4
        )


def test_a_source_in_the_wrong_mixture_costs() -> None:
    # Without its partner to make the sum right again, an error in one source is one in x.
    found = loss_of(lambda mixture: split_bands(mixture) * torch.tensor([[[1.0], [0.0]]]))
    assert found > -15.0


def test_the_loudest_of_many_outputs_go_on() -> None:
    def five(mixture: Tensor) -> Tensor:
        weak = 1e-4 * mixture.unsqueeze(1).expand(-1, 3, -1)
        low, high = split_bands(mixture).split(1, dim=1)
        return torch.cat([weak[:, :1], low, weak[:, 1:], high], dim=1)

    found = loss_of(five, five, num_sources=2, channel_shuffle="none")
    assert found == pytest.approx(-30.0, abs=1e-2)


def test_a_consistent_student_leaves_nothing_of_the_pseudo_mixture() -> None:
    # Self-Remixing sums what it left: with a shuffle that moves nothing, exactly the mixture.
    settings = {"batch_shuffle": "none", "channel_shuffle": "none"}
    assert loss_of(silence, **settings) == pytest.approx(0.0, abs=1e-2)
    found = loss_of(silence, student_is_consistent=True, **settings)
    assert found == pytest.approx(-30.0, abs=1e-2)


def test_no_gradient_goes_to_the_teacher_and_one_to_the_student() -> None:
    model = tiny_unconditional(2).train()
    teacher = Teacher(model)
    loss = remixing_loss(
        model.separate_all,
        teacher,
        band_noise(4, seed=0).sum(dim=1),
        RemixingConfig(remixit_weight=1.0),
        random.Random(0),
    )
    loss.backward()
    assert all(each.grad is None for each in teacher.parameters())
    learns = [each for each in model.parameters() if each.requires_grad and each.numel()]
    assert all(each.grad is not None and bool(each.grad.any()) for each in learns)


@pytest.mark.parametrize(
    "method", [MixitConfig(sparsity_weight=1.0), RemixingConfig(remixit_weight=1.0)]
)
@pytest.mark.parametrize("kind", ["snr", "mrl1"])
def test_gradients_are_finite_where_all_is_silent(
    method: MixitConfig | RemixingConfig, kind: Any
) -> None:
    model = tiny_unconditional(2).train()
    method = dataclasses.replace(method, loss=ReconstructionConfig(kind))
    mixtures = torch.zeros(4, LENGTH)
    mixtures[0] = band_noise(1, seed=0).sum(dim=1)[0]
    if isinstance(method, MixitConfig):
        loss = mixture_invariant_loss(model.separate_all, mixtures, method)
    else:
        loss = remixing_loss(model.separate_all, Teacher(model), mixtures, method, random.Random(0))
    loss.backward()
    for each in model.parameters():
        assert each.grad is None or torch.isfinite(each.grad).all()


def test_the_level_of_a_recording_does_not_matter() -> None:
    mixtures = band_noise(4, seed=3).sum(dim=1)
    levels = torch.tensor([[1.0], [10.0], [0.1], [3.0]])
    for louder in (mixtures, mixtures * levels):
        remixed = remixing_loss(split_bands, silence, louder, RemixingConfig(), random.Random(0))
        mixed = mixture_invariant_loss(split_bands, louder, MixitConfig())
        if louder is mixtures:
            expected = remixed, mixed
    torch.testing.assert_close((remixed, mixed), expected, atol=1e-3, rtol=0.0)


# ------------------------------------------------------------------ the teacher


@pytest.mark.parametrize(
    ("every", "epochs"), [("epoch", 1), ("epoch", 3), ("step", 1), ("step", 3)]
)
def test_the_average_has_its_closed_form(every: Any, epochs: int) -> None:
    student = tiny_unconditional(2)
    teacher = Teacher(student)
    start = copy.deepcopy(student)
    with torch.no_grad():
        for each in student.parameters():
            each.add_(1.0)
    config = TeacherConfig(decay=0.8, every=every, steps_per_epoch=10)
    for step in range(10 * epochs):
        teacher.follow(student, config.decay_at(step + 1))
    # What stands still is met by 1 - a^k of the way.
    for mine, its, first in zip(
        teacher.model.parameters(), student.parameters(), start.parameters(), strict=True
    ):
        expected = 0.8**epochs * first + (1.0 - 0.8**epochs) * its
        torch.testing.assert_close(mine, expected, atol=1e-4, rtol=0.0)


def test_statistics_are_averaged_and_counts_taken_over() -> None:
    model = tiny_unconditional(2)
    model.network.extra = nn.BatchNorm1d(2)
    teacher = Teacher(model)
    model.network.extra.running_mean.fill_(10.0)
    model.network.extra.num_batches_tracked.fill_(7)
    teacher.follow(model, 0.8)
    extra = teacher.model.network.extra
    torch.testing.assert_close(extra.running_mean, torch.full((2,), 2.0))
    assert extra.num_batches_tracked == 7


def test_the_teacher_stays_in_evaluation_mode_and_gives_no_gradient() -> None:
    model = tiny_unconditional(2).train()
    teacher = Teacher(model)
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(each.requires_grad for each in teacher.parameters())
    assert model.training
    assert not teacher(torch.randn(1, 500)).requires_grad


# ------------------------------------------------------------------ MixIT


def test_item_i_is_added_to_item_i_plus_half_the_batch() -> None:
    heard: list[Tensor] = []

    def separate(mixture: Tensor) -> Tensor:
        heard.append(mixture)
        return split_bands(mixture)

    low, high = band_noise(2, seed=0).unbind(1)
    mixtures = torch.cat([low, high])
    loss = mixture_invariant_loss(separate, mixtures, MixitConfig())
    assert loss.item() == pytest.approx(-60.0, abs=1e-2)
    normalised = mixtures / mixtures.std(dim=1, keepdim=True)
    expected = normalised[:2] + normalised[2:]
    torch.testing.assert_close(heard[0], expected / expected.std(dim=1, keepdim=True))


def test_a_mixture_without_a_partner_is_refused() -> None:
    with pytest.raises(ConfigError, match="in pairs, but 3 of a batch"):
        mixture_invariant_loss(split_bands, torch.zeros(3, LENGTH), MixitConfig())


def test_the_sparsity_is_added_by_its_weight() -> None:
    mixtures = band_noise(4, seed=0).sum(dim=1)
    losses = [
        mixture_invariant_loss(split_bands, mixtures, MixitConfig(sparsity_weight=weight)).item()
        for weight in (0.0, 1.0, 2.0)
    ]
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], abs=1e-4)
    assert 0.7 < losses[1] - losses[0] <= 1.0


# ------------------------------------------------------------------ learning


def learnt_db(method: MixitConfig | RemixingConfig, steps: int, batch: int) -> float:
    """SI-SDR improvement of a model that learnt from mixtures of a low and a high band."""
    model = tiny_unconditional(2).train()
    teacher = Teacher(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(steps):
        mixtures = band_noise(batch, seed=step).sum(dim=1)
        if isinstance(method, MixitConfig):
            loss = mixture_invariant_loss(model.separate_all, mixtures, method)
        else:
            rng = random.Random(step)
            loss = remixing_loss(model.separate_all, teacher, mixtures, method, rng)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        if isinstance(method, RemixingConfig):
            teacher.follow(model, method.teacher.decay_at(step + 1))
    sources = band_noise(32, seed=1_000_000)
    heard = MixtureBatch(sources.sum(dim=1), sources, torch.zeros(32, 2, dtype=torch.long))
    with torch.no_grad():
        estimates = model.eval().separate_all(heard.mixture)
    return float((best_si_sdr_db(estimates, heard) - mixture_si_sdr_db(heard)).mean())


FAST_TEACHER = TeacherConfig(0.8, "step", steps_per_epoch=20)


@pytest.mark.slow
def test_two_bands_are_told_apart_without_ever_being_heard_alone() -> None:
    assert learnt_db(RemixingConfig(teacher=FAST_TEACHER), 100, 8) > 10.0
    assert learnt_db(MixitConfig(), 100, 32) > 10.0


@pytest.mark.slow
@pytest.mark.parametrize("batch_shuffle", ["constrained", "none"])
def test_nothing_is_learnt_where_sources_stay_in_place(batch_shuffle: Any) -> None:
    method = RemixingConfig(
        batch_shuffle=batch_shuffle, channel_shuffle="none", teacher=FAST_TEACHER
    )
    assert learnt_db(method, 50, 8) < 3.0


# ------------------------------------------------------------------ settings


def run_config(num_outputs: int = 2, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "name": "x",
        "model": tiny_unconditional_config(num_outputs),
        "data": DataConfig("x.csv", {"any": ("*",)}),
        "batch_size": 4,
    }
    return TrainConfig(**(settings | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": MixitConfig(), "batch_size": 3}, "must be even, not 3"),
        ({"method": RemixingConfig(), "num_outputs": 5}, "needs a batch of 5 mixtures or more"),
        ({"method": RemixingConfig(num_sources=3)}, "num_sources is 3, but the model gives 2"),
        ({"method": RemixingConfig(), "num_outputs": 1}, "gives two sources or more of any kind"),
        ({"method": MixitConfig(supervised_weight=1.0)}, "mixtures of one source"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_config(**changes)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="not both be 0"):
        RemixingConfig(self_remixing_weight=0.0)
    with pytest.raises(ConfigError, match="num_sources must be at least 2, not 1"):
        RemixingConfig(num_sources=1)
    with pytest.raises(ConfigError, match=r"teacher\.decay must be .* at most 1"):
        TeacherConfig(decay=1.5)
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        TeacherConfig(steps_per_epoch=0)
    with pytest.raises(ConfigError, match="must be at least 0, not -1"):
        MixitConfig(sparsity_weight=-1.0)


def test_a_free_shuffle_works_with_a_batch_that_is_smaller() -> None:
    method = RemixingConfig(batch_shuffle="free")
    assert run_config(5, method=method).learning_method is method
