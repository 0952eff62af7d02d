"""Learning by example: the reference is its own query, and the tagger stays as it is."""

import dataclasses

import pytest
import torch

from tiny_query_model import RATE, TAGGER, tiny_query_model
from unbraid.data.dynamic import MixtureBatch
from unbraid.models.waveform import WaveformModel
from unbraid.training.methods.by_example import by_example_loss, estimates_by_example


@pytest.fixture
def model() -> WaveformModel:
    return tiny_query_model()


def low_and_high(seed: int = 0) -> MixtureBatch:
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(1600) / RATE
    pitches = torch.tensor([[300.0], [5000.0]]) * (
        1 + 0.2 * torch.rand(4, 2, 1, generator=generator)
    )
    sources = torch.sin(6.28 * pitches * time)
    return MixtureBatch(sources.sum(dim=1), sources, torch.zeros(4, 2, dtype=torch.long))


def test_each_reference_is_asked_for_by_its_own_embedding(model: WaveformModel) -> None:
    model.eval()
    batch = low_and_high()
    assert model.tagger is not None
    with torch.no_grad():
        estimates = estimates_by_example(model, batch)
        query = model.tagger(batch.references[1, :1]).embedding
        asked = model.with_prompts({"low": query})
        expected = asked(batch.mixture[1:2], torch.tensor([[0]]))
    torch.testing.assert_close(estimates[1:2, :1], expected, atol=1e-5, rtol=1e-4)


def test_the_loss_does_not_depend_on_the_level() -> None:
    blind = dataclasses.replace(TAGGER, level_db=-25.0)
    model = tiny_query_model(tagger=blind).eval()
    batch = low_and_high()
    quiet = MixtureBatch(0.01 * batch.mixture, 0.01 * batch.references, batch.prompt_indices)
    torch.testing.assert_close(
        by_example_loss(model, quiet), by_example_loss(model, batch), rtol=1e-3, atol=0.0
    )


def test_high_and_low_are_told_apart_and_the_tagger_stays(model: WaveformModel) -> None:
    assert model.tagger is not None
    before = {name: value.clone() for name, value in model.tagger.state_dict().items()}
    model.train()
    assert not model.tagger.training
    learns = [each for each in model.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(learns, lr=1e-2)
    first = by_example_loss(model, low_and_high(1000)).item()
    for step in range(60):
        optimiser.zero_grad()
        by_example_loss(model, low_and_high(step)).backward()
        optimiser.step()
    assert by_example_loss(model, low_and_high(1000)).item() < 0.4 * first
    after = model.tagger.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
