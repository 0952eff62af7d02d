"""Training a tagger: what is hidden from it, what it is told, and that it learns."""

from dataclasses import replace

import pytest
import torch

from unbraid.data.dynamic import MixtureBatch
from unbraid.errors import ConfigError
from unbraid.models.taggers.htsat import EXAMPLE, Htsat
from unbraid.training.methods.tagging import (
    StripeConfig,
    striped,
    tagging_accuracy,
    tagging_loss,
)

NOTHING = StripeConfig(0, 0, 0)


def tones(classes: list[list[int]], seed: int = 0) -> MixtureBatch:
    """One or two tones per clip, at any phase; the class is the pitch."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(4000) / EXAMPLE.mel.sample_rate
    rows = torch.tensor(classes)
    phases = torch.rand(*rows.shape, 1, generator=generator) * 6.28
    sources = torch.sin(6.28 * (400.0 * 2.0 ** rows[..., None]) * time + phases)
    return MixtureBatch(sources.sum(dim=1), sources, rows)


@pytest.fixture
def tagger() -> Htsat:
    torch.manual_seed(0)
    return Htsat(EXAMPLE)


def test_the_loss_is_the_mean_cross_entropy_over_classes(tagger: Htsat) -> None:
    batch = tones([[0, 1], [3, 4]])
    tagger.eval()
    scores = tagger(batch.mixture).clip_scores
    is_heard = torch.tensor([[1.0, 1, 0, 0, 0], [0, 0, 0, 1, 1]])
    expected = -(is_heard * scores.log() + (1 - is_heard) * (1 - scores).log()).mean()
    torch.testing.assert_close(tagging_loss(tagger, batch, NOTHING), expected)


def test_a_fresh_tagger_takes_every_class_for_rare(tagger: Htsat) -> None:
    scores = tagger.eval()(tones([[0], [1]]).mixture).clip_scores
    torch.testing.assert_close(scores, torch.full_like(scores, 1 / 6), rtol=0.3, atol=0.0)


def test_pitches_are_learnt_as_classes(tagger: Htsat) -> None:
    optimiser = torch.optim.AdamW(tagger.parameters(), lr=5e-3)
    stripes = StripeConfig(1, 4, 1)
    for step in range(60):
        pairs = [[step % 5, (step + 1 + number) % 5] for number in range(4)]
        optimiser.zero_grad()
        tagging_loss(tagger.train(), tones(pairs, step), stripes).backward()
        optimiser.step()
    unheard = tones([[low, high] for low in range(5) for high in range(low)], seed=1000)
    assert tagging_accuracy(tagger.eval(), unheard) > 0.9


def test_accuracy_counts_classes_found(tagger: Htsat) -> None:
    batch = tones([[0, 1], [3, 4]])
    tagger.eval()
    best = tagger(batch.mixture).clip_scores.topk(2, dim=1).indices
    worst = tagger(batch.mixture).clip_scores.topk(2, dim=1, largest=False).indices
    mixed = torch.stack([best[:, 0], worst[:, 0]], dim=1)
    for rows, expected in ((best.flip(1), 1.0), (mixed, 0.5), (worst, 0.0)):
        found = tagging_accuracy(tagger, replace(batch, prompt_indices=rows))
        assert found == expected


def test_stripes_hide_whole_frames_and_bands_with_the_mean() -> None:
    torch.manual_seed(1)
    levels = torch.randn(50, 40, 16)
    hidden = striped(levels, StripeConfig(1, 10, 4)) != levels
    for clip, mask in zip(levels, hidden, strict=True):
        frames, bands = mask.all(dim=1), mask.all(dim=0)
        assert frames.sum() <= 10
        assert bands.sum() <= 4
        assert torch.equal(mask, frames[:, None] | bands[None, :])
        seen = striped(clip[None], NOTHING)[0]
        assert torch.equal(seen, clip)
    widths = hidden.all(dim=2).sum(dim=1)
    assert widths.unique().numel() > 5
    whole = striped(levels, StripeConfig(1, 1000, 0))
    changed = whole != levels
    means = levels.mean(dim=(1, 2))[:, None, None].expand_as(levels)
    torch.testing.assert_close(whole[changed], means[changed])


def test_stripes_of_negative_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="fewer or narrower"):
        StripeConfig(1, -1, 0)
