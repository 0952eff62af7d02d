"""The measuring of slot models: oracles on synthetic voices, and every way to stitch."""

import importlib
import math
import random
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from unbraid.checkpoints import Card, save_bundle
from unbraid.config import dump
from unbraid.models.architectures.audio_slots import AudioSlotsConfig
from unbraid.models.waveform import ModelConfig, build_model

BENCH = Path(__file__).resolve().parents[2] / "bench"
RATE = 16_000


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("slots")


def two_voices(seconds: float = 3.0) -> Tensor:
    """Harmonics on a gliding pitch, with pauses: sources that share few bins."""
    time = torch.arange(round(seconds * RATE)) / RATE
    voices = []
    for pitch_hz, syllables_hz, colour in ((110.0, 2.3, 1.0), (205.0, 3.1, 0.6)):
        phase = 2 * math.pi * (pitch_hz * time + 4.0 * torch.sin(1.7 * time))
        tones = sum(torch.sin(k * phase) / k**colour for k in range(1, 16))
        voices.append(tones * torch.sin(math.pi * syllables_hz * time).clamp_min(0.0))
    sources = torch.stack(voices)
    return 0.1 * sources / sources.std(dim=-1, keepdim=True)


def test_oracles_separate_and_longer_chunks_separate_better(slots: ModuleType) -> None:
    references = [two_voices(), two_voices().flip(1)]
    scores = {
        (kind, length): slots.score_of(
            [slots.in_the_papers_way(slots.oracle, each, length, kind) for each in references],
            references,
        ).si_snri_db
        for kind in slots.MASKS
        for length in (8000, 16000)
    }
    assert min(scores.values()) > 10.0
    for kind in slots.MASKS:
        assert scores[kind, 16000] >= scores[kind, 8000]


def test_scores_are_those_of_the_best_order(slots: ModuleType) -> None:
    references = two_voices(1.0)
    mixture = references.sum(dim=0).expand(2, -1)
    assert slots.score_of([mixture], [references]).si_snri_db == pytest.approx(0.0, abs=1e-4)
    noisy = references.flip(0) + 0.01 * torch.randn(2, RATE)
    assert slots.score_of([noisy], [references]).si_snr_db == pytest.approx(20.0, abs=1.0)


def test_stitching_puts_shuffled_chunks_in_order_without_references(slots: ModuleType) -> None:
    references = two_voices()

    def with_true_slots(batch, kind):  # type: ignore[no-untyped-def]
        slots_of_source = torch.tensor([[[1.0, 0.2], [-0.3, 1.0]]]).expand(len(batch.mixture), 2, 2)
        return slots.oracle(batch, kind)[0], slots_of_source

    bound = slots.in_the_papers_way(slots.oracle, references, 8000, "wiener")
    best = slots.score_of([bound], [references]).si_snr_db
    ways = slots.without_references(with_true_slots, references, 8000, random.Random(1))
    assert list(ways) == ["overlap", "overlap, voices", "slots", "overlap, slots"]
    for joined in ways.values():
        assert joined.shape == references.shape
        assert slots.score_of([joined], [references]).si_snr_db > best - 0.5


def test_bundles_are_measured_in_every_way(
    slots: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = AudioSlotsConfig(
        channels=(4, 4, 4, 4), depths=(1, 1, 1, 1), norm_groups=2, dim=8, num_heads=2,
        hidden_dim=8, num_layers=1, decoder_dim=4, decoder_layers=2,
    )  # fmt: skip
    bundles = []
    for name, count in (("two", 2), ("one", 1)):
        network = dump(sizes) | {"num_slots": count}
        config = ModelConfig(
            "audio_slots", RATE, slots.STFT, network, outputs=("speech",) * count, segment_s=0.5,
            overlap_s=0.25,
        )  # fmt: skip
        folder = save_bundle(build_model(config), tmp_path / name, Card(name, "CC0-1.0", "a seed"))
        bundles.append(str(folder))
    slots.measure([two_voices(1.2)], bundles)
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line]
    assert [row[:2] for row in rows[2:6]] == [
        ["oracle", "0.5 s"], ["oracle", "1 s"], ["two", "0.5 s"], ["one", "0.5 s"],
    ]  # fmt: skip
    assert [row[2] for row in rows if row[0] == "two"][2:] == [
        "oracle order", "overlap", "overlap, voices", "slots", "overlap, slots", "sequential",
    ]  # fmt: skip
    bands = next(place for place, row in enumerate(rows) if row[-1] == "4 to 8 kHz")
    for first in (2, bands + 2):
        cells = [cell.split()[0] for row in rows[first : first + 4] for cell in row[2:]]
        assert all(math.isfinite(float(cell)) for cell in cells)
    (difference,) = [row for row in rows if row[0] == "one" and len(row) == 3]
    gains = {row[0]: float(row[5].split()[0]) for row in rows[4:6]}
    assert float(difference[2].split()[0]) == pytest.approx(gains["one"] - gains["two"], abs=0.011)


def test_bands_hold_what_lies_in_them(slots: ModuleType) -> None:
    time = torch.arange(RATE) / RATE
    tones = torch.stack([torch.sin(2 * math.pi * hz * time) for hz in (500.0, 1000.0, 5000.0)])
    for low_hz, high_hz, kept in ((0, 1000, 0), (1000, 2000, 1), (4000, 8000, 2)):
        inside = slots.within(tones, low_hz, high_hz)
        torch.testing.assert_close(inside[kept], tones[kept], atol=5e-3, rtol=0.0)
        assert inside.square().sum() == pytest.approx(RATE / 2, rel=1e-3)
