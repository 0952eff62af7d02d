"""Ready-made mixtures: what is read, in which order, whatever was read before."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from unbraid.data.catalogue import open_together
from unbraid.data.corpora.base import MixtureFiles, ReferenceFiles, Track
from unbraid.data.manifest import Recording, format_manifest
from unbraid.data.mixture_lists import format_mixtures, read_mixtures
from unbraid.data.ready_made import (
    MixtureSet,
    ReadyMixtures,
    SegmentBatches,
    ValidationSegments,
    open_mixtures,
)
from unbraid.errors import ConfigError, DataError

RATE = 8000
ROWS = {"speech": 0, "sfx-mix": 1}


def ramp(path: Path, level: float, length: int = 1000, channels: int = 1) -> None:
    """A line from 0 to a level, so that a sample tells its place; other channels are its half."""
    samples = np.linspace(0, level, length)[:, None] * np.array([1.0, 0.5][:channels])
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def source(prompt: str, *names: str, subtract: tuple[str, ...] = ()) -> ReferenceFiles:
    return ReferenceFiles(prompt, tuple(map(Track, names)), tuple(map(Track, subtract)))


@pytest.fixture
def entries(tmp_path: Path) -> list[MixtureFiles]:
    """Five of two speakers, the sum of which is the mixture, and two of speech in noise."""
    found = []
    for number in range(5):
        names = [f"{number}-{who}.wav" for who in ("a", "b")]
        ramp(tmp_path / names[0], 0.5 + 0.05 * number)
        ramp(tmp_path / names[1], 0.1)
        references = (source("speech", names[0]), source("speech", names[1]))
        found.append(MixtureFiles(f"two/{number}", "tr", references))
    for number in range(2):
        ramp(tmp_path / f"{number}-noisy.wav", 0.9, 900)
        ramp(tmp_path / f"{number}-clean.wav", 0.6, 900)
        references = (
            source("speech", f"{number}-clean.wav"),
            source("sfx-mix", f"{number}-noisy.wav", subtract=(f"{number}-clean.wav",)),
        )
        noisy = Track(f"{number}-noisy.wav")
        found.append(MixtureFiles(f"noisy/{number}", "tr", references, mixture=noisy))
    return found


def test_a_list_is_read_as_it_was_written(entries: list[MixtureFiles], tmp_path: Path) -> None:
    ragged = MixtureFiles("é", "cv", (source("speech"),), group="g", is_ragged=True)
    path = tmp_path / "list.jsonl"
    path.write_text(format_mixtures([*entries, ragged]), encoding="utf-8")
    assert read_mixtures(path) == (*entries, ragged)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no mixtures"),
        ("{", "line 1: does not describe a mixture"),
        ('{"name": "a"}', "line 1: does not describe a mixture"),
        ("[1]", "line 1: does not describe a mixture"),
    ],
)
def test_a_damaged_list_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.jsonl").write_text(text)
    with pytest.raises(DataError, match=rf"list\.jsonl.*{message}"):
        read_mixtures(tmp_path / "list.jsonl")
    with pytest.raises(DataError, match="unbraid data prepare"):
        read_mixtures(tmp_path / "nowhere.jsonl")


def test_stretches_hold_the_right_samples(entries: list[MixtureFiles], tmp_path: Path) -> None:
    ready = ReadyMixtures(tmp_path, entries, RATE, tmp_path / "cache")
    whole, references = ready.stretch(ready.mixtures[0], 300, 200)
    place = torch.arange(300, 500) / 999
    torch.testing.assert_close(
        references, torch.stack([0.5 * place, 0.1 * place]), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(whole, references.sum(dim=0))
    noisy, parts = ready.stretch(ready.mixtures[5], 800, 200)
    place = torch.arange(800, 900) / 899
    torch.testing.assert_close(noisy[:100], 0.9 * place, atol=1e-4, rtol=0)
    torch.testing.assert_close(parts[1, :100], 0.3 * place, atol=1e-4, rtol=0)
    # Behind the end is silence.
    assert not noisy[100:].any()
    assert not parts[:, 100:].any()


def test_an_epoch_hears_every_mixture_and_starts_anywhere(
    entries: list[MixtureFiles], tmp_path: Path
) -> None:
    ready = ReadyMixtures(tmp_path, entries, RATE, tmp_path / "cache")
    batches = SegmentBatches([ready], 200, ROWS, 2, seed=3)
    # Seven mixtures of two sources: four batches, one of them heard twice.
    assert batches.batches_per_epoch == 4
    first = [batches.batch(number) for number in range(8)]
    again = SegmentBatches([ready], 200, ROWS, 2, seed=3)
    for number in (7, 0, 5, 2):
        torch.testing.assert_close(again.batch(number).mixture, first[number].mixture)
    other = SegmentBatches([ready], 200, ROWS, 2, seed=4)
    assert not torch.equal(other.batch(0).mixture, first[0].mixture)
    for epoch in (first[:4], first[4:]):
        # Steepness tells the mixture, whatever segment it is.
        slopes: Counter[int] = Counter()
        for batch in epoch:
            steps = batch.mixture[:, -1] - batch.mixture[:, 0]
            slopes.update((1000 * steps).round().int().tolist())
        assert sum(slopes.values()) == 8
        # Of the two in noise, which are equal, there are two or three.
        assert len(slopes) == 6
    assert not torch.equal(first[0].mixture, first[4].mixture)
    # Devices hear shares of one batch.
    shares = [again.batch(5, rank, 2) for rank in (0, 1)]
    torch.testing.assert_close(torch.cat([each.mixture for each in shares]), first[5].mixture)
    assert [plan.num_asked for plan in again.plans(5)] == [2, 2]


def test_mixtures_of_one_batch_have_equally_many_sources(
    entries: list[MixtureFiles], tmp_path: Path
) -> None:
    ready = ReadyMixtures(tmp_path, entries, RATE, tmp_path / "cache")
    batches = SegmentBatches([ready], 200, {"speech": 0}, 2, seed=0)
    shapes = Counter(batches.batch(number).references.shape[1] for number in range(4))
    # The noise is heard but not asked for.
    assert shapes == {2: 3, 1: 1}
    for number in range(4):
        batch = batches.batch(number)
        rest = batch.mixture - batch.references.sum(dim=1)
        assert (rest.abs().max() > 1e-3) == (batch.references.shape[1] == 1)


def test_absent_sources_are_taken_out_of_their_mixture(
    entries: list[MixtureFiles], tmp_path: Path
) -> None:
    ready = ReadyMixtures(tmp_path, entries[:5], RATE, tmp_path / "cache")
    batches = SegmentBatches([ready], 400, ROWS, 2, seed=0, absent_probability=0.5)
    absent = 0
    for number in range(60):
        batch = batches.batch(number)
        torch.testing.assert_close(batch.references.sum(dim=1), batch.mixture, atol=1e-6, rtol=0)
        silent = ~batch.references.any(dim=-1)
        assert not silent.all(dim=1).any()
        absent += int(silent.sum())
    # Half of the 120 segments lack one of two sources; where both would be absent, none is.
    assert 38 < absent < 82


def test_validation_hears_the_same_segments_and_looks_for_sound(tmp_path: Path) -> None:
    samples = np.zeros(4000)
    samples[3000:] = 0.5
    soundfile.write(tmp_path / "late.wav", samples, RATE)
    ramp(tmp_path / "always.wav", 0.5, 4000)
    entry = MixtureFiles("a", "cv", (source("speech", "late.wav"), source("sfx-mix", "always.wav")))
    ready = ReadyMixtures(tmp_path, [entry], RATE, tmp_path / "cache")
    segments = ValidationSegments(ready, 500, ROWS, seed=1, per_mixture=5)
    assert len(segments) == 5
    assert all(batch.references.any(dim=-1).all() for batch in segments)
    assert torch.equal(segments[3].mixture, segments[3].mixture)
    assert not torch.equal(segments[3].mixture, segments[4].mixture)
    whole = ValidationSegments(ready, None, ROWS, seed=1)
    assert whole[0].mixture.shape == (1, 4000)
    assert whole[0].prompt_indices.tolist() == [[0, 1]]


def test_a_set_takes_what_it_names(entries: list[MixtureFiles], tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text(format_mixtures(entries))

    def names(**wanted: object) -> list[str]:
        chosen = MixtureSet("list.jsonl", "tr", **wanted)  # type: ignore[arg-type]
        found = open_mixtures(tmp_path, chosen, RATE, tmp_path / "cache")
        return [each.files.name for each in found.mixtures]

    assert len(names()) == 7
    assert names(names="noisy/*") == ["noisy/0", "noisy/1"]
    assert names(names="two/*", most=2) == ["two/0", "two/2"]
    assert names(names="two/*", most=50) == [f"two/{number}" for number in range(5)]
    with pytest.raises(DataError, match="no mixtures of 3 sources of the split 'tr'"):
        names(num_sources=3)
    with pytest.raises(DataError, match="split 'dev'"):
        open_mixtures(tmp_path, MixtureSet("list.jsonl", "dev"), RATE, tmp_path / "cache")
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        MixtureSet("list.jsonl", "tr", most=0)


def test_channels_stay_apart_and_mono_is_put_on_all(tmp_path: Path) -> None:
    ramp(tmp_path / "stereo.wav", 0.8, channels=2)
    ramp(tmp_path / "mono.wav", 0.4)
    entry = MixtureFiles("a", "tr", (source("speech", "stereo.wav"), source("sfx-mix", "mono.wav")))
    ready = ReadyMixtures(tmp_path, [entry], RATE, tmp_path / "cache", num_channels=2)
    whole, references = ready.stretch(ready.mixtures[0], 100, 50)
    place = torch.arange(100, 150) / 999
    left, right = torch.tensor([0.8, 0.4]), torch.tensor([0.4, 0.4])
    expected = torch.stack([left, right], dim=1)[..., None] * place
    torch.testing.assert_close(references, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(whole, expected.sum(dim=0), atol=1e-4, rtol=0)
    batches = SegmentBatches([ready], 50, ROWS, 3, seed=0)
    assert batches.batch(0).mixture.shape == (3, 2, 50)


def test_several_manifests_are_read_as_one(tmp_path: Path) -> None:
    for folder, level, kind in (("first", 0.2, "speech/a"), ("second", 0.4, "speech/b")):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "x.wav", np.full(RATE, level), RATE)
        row = Recording("x.wav", kind, "train", 1.0, RATE / 2, "same", "", RATE, song="tune")
        (tmp_path / folder / "manifest.csv").write_text(format_manifest([row]))
    where = [f"{folder}/manifest.csv" for folder in ("first", "second")]
    pools = {"speech": ["speech/*"], "sfx": ["speech/b"]}
    found = open_together(where, tmp_path, pools, "train", RATE, tmp_path / "cache")
    clips = found.clips
    assert [len(clips[name]) for name in pools] == [2, 1]
    levels = [float(found.read(clip.key, 10, 5).mean()) for clip in clips["speech"]]
    assert levels == pytest.approx([0.2, 0.4], abs=1e-4)
    # The same name in another corpus is another speaker, and another song.
    assert len({clip.performer for clip in clips["speech"]}) == 2
    assert len({clip.song for clip in clips["speech"]}) == 2
    with pytest.raises(DataError, match=r"'music/\*' matches no recording"):
        open_together(where, tmp_path, {"music-mix": ["music/*"]}, "train", RATE, tmp_path)
    with pytest.raises(ConfigError, match=r"2 channels.*set it to cache"):
        open_together(where, tmp_path, pools, "train", RATE, tmp_path, "direct", num_channels=2)
