"""Prompts for classes: which clips, which mixtures, and what tuning does."""

import itertools
import math

import pytest
import torch

from tiny_query_model import RATE, tiny_query_model
from unbraid.apps.class_prompts import (
    ClassClips,
    class_mixtures,
    few_shots,
    mean_embeddings,
    tune_classes,
)
from unbraid.errors import DataError, PromptError
from unbraid.models.waveform import WaveformModel
from unbraid.training.methods.prompt_tuning import TuningConfig

ROWS = {"low": 0, "middle": 1, "high": 2}


def tones(count: int = 6, length: int = 3200) -> ClassClips:
    time = torch.arange(length) / RATE
    pitches = {"low": 300.0, "middle": 1500.0, "high": 5000.0}
    return {
        name: [
            0.1 * (1 + take) * torch.sin(2 * math.pi * pitch * (1 + 0.02 * take) * time)
            for take in range(count)
        ]
        for name, pitch in pitches.items()
    }


@pytest.fixture
def model() -> WaveformModel:
    return tiny_query_model().eval()


def test_fewer_clips_are_among_the_more() -> None:
    clips = tones(12)
    one, five, ten = (few_shots(clips, count) for count in (1, 5, 10))
    for name in clips:
        keys = [[id(clip) for clip in shots[name]] for shots in (one, five, ten)]
        assert [len(each) for each in keys] == [1, 5, 10]
        assert keys[0] == keys[1][:1]
        assert keys[1] == keys[2][:5]
        assert len(set(keys[2])) == 10
    other = few_shots(clips, 1, seed=3)
    assert any(other[name][0] is not one[name][0] for name in clips)
    with pytest.raises(DataError, match="has 12 clips, fewer than 13"):
        few_shots(clips, 13)


def test_a_query_is_the_mean_over_clips(model: WaveformModel) -> None:
    tagger = model.tagger
    assert tagger is not None
    clips = tones(3)
    queries = mean_embeddings(tagger, clips, RATE)
    with torch.no_grad():
        heard = [tagger.embed(clip) for clip in clips["low"]]
    torch.testing.assert_close(queries["low"], torch.stack(heard).mean(dim=0)[None])


def test_songs_are_heard_in_audible_pieces_and_each_counts_once(model: WaveformModel) -> None:
    tagger = model.tagger
    assert tagger is not None
    piece = 1600
    loud = [tones(1, piece)[name][0] for name in ROWS]
    # Three audible pieces, one of silence, and a rest; and a song of one piece.
    long = torch.cat([loud[0], torch.zeros(piece), loud[1], loud[1], loud[0][:100]])
    queries = mean_embeddings(tagger, {"x": [long, loud[2], torch.zeros(4000)]}, RATE, 0.1)
    with torch.no_grad():
        low, middle, high = (tagger.embed(each) for each in loud)
    expected = (torch.stack([low, middle, middle]).mean(dim=0) + high) / 2
    torch.testing.assert_close(queries["x"][0], expected)
    with pytest.raises(PromptError, match="'quiet': nothing is heard in its 1 clips"):
        mean_embeddings(tagger, {"quiet": [torch.zeros(4000)]}, RATE, 0.1)


def test_mixtures_are_sums_of_two_classes_as_they_were_recorded() -> None:
    clips = tones()
    loudest = {name: max(float(clip.abs().max()) for clip in pool) for name, pool in clips.items()}
    seen: set[tuple[int, ...]] = set()
    for batch in itertools.islice(class_mixtures(clips, ROWS, 1600, 4, seed=0), 20):
        torch.testing.assert_close(batch.mixture, batch.references.sum(dim=1))
        assert batch.references.shape == (4, 2, 1600)
        for rows, sources in zip(batch.prompt_indices.tolist(), batch.references, strict=True):
            assert rows[0] != rows[1]
            seen.add(tuple(rows))
            for row, source in zip(rows, sources, strict=True):
                name = list(ROWS)[row]
                pitch = float(torch.fft.rfft(source).abs().argmax()) * RATE / 1600
                assert {"low": 300, "middle": 1500, "high": 5000}[name] * 1.15 > pitch
                assert float(source.abs().max()) <= loudest[name] + 1e-6
    assert len(seen) == 6


def test_one_class_can_be_asked_for_and_levels_made_equal() -> None:
    stream = class_mixtures(tones(), ROWS, 1600, 4, 0, targets=["middle"], equal_energy=True)
    batch = next(stream)
    assert batch.prompt_indices.tolist() == [[1]] * 4
    partner = batch.mixture - batch.references[:, 0]
    for source in (partner, batch.references[:, 0]):
        torch.testing.assert_close(source.square().mean(dim=1), torch.ones(4))


def test_crops_hold_sound_and_short_clips_are_filled_up() -> None:
    late = torch.zeros(20_000)
    late[15_000:] = 1.0
    clips = {"late": [late], "short": [torch.ones(100)]}
    rows = {"late": 0, "short": 1}
    for batch in itertools.islice(class_mixtures(clips, rows, 1600, 2, 0), 10):
        assert batch.references.abs().amax(dim=2).min() == 1.0
    assert all(
        float(source.sum()) == 100
        for row, source in zip(
            batch.prompt_indices.flatten(), batch.references.flatten(0, 1), strict=True
        )
        if row == 1
    )
    with pytest.raises(DataError, match="need two; there are 1"):
        next(class_mixtures({"late": [late]}, rows, 1600, 2, 0))


def test_tuning_learns_the_prompts_and_joint_tuning_the_network_too(model: WaveformModel) -> None:
    tagger = model.tagger
    assert tagger is not None
    clips = tones()
    starts = mean_embeddings(tagger, clips, RATE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = TuningConfig(loss="l1", learning_rate=0.1, num_steps=40, check_every=10)
    tuned = tune_classes(model, starts, clips, config, crop_samples=1600)
    assert set(tuned.vectors) == set(clips)
    assert tuned.best.score > tuned.checks[0].score + 0.1
    assert tuned.model.network is model.network
    joint = TuningConfig(
        loss="l1", learning_rate=0.1, num_steps=40, check_every=10, network_learning_rate=1e-2
    )
    together = tune_classes(model, starts, clips, joint, crop_samples=1600)
    assert together.best.score > tuned.best.score + 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
