"""``bench/apt.py`` from the files of a corpus to tables, on miniatures."""

import csv
import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch

from sound_miniatures import make_musdb18
from tiny_query_model import tiny_query_model
from unbraid.checkpoints import Card, save_bundle

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("apt")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_bundle(tiny_query_model().eval(), tmp_path / "tiny", Card("tiny", "CC0-1.0"))


def make_esc(folder: Path) -> Path:
    """Two classes, two clips in each of the five folds."""
    home = folder / "ESC-50-master"
    (home / "audio").mkdir(parents=True)
    (home / "meta").mkdir()
    rows = []
    for fold in range(1, 6):
        for number, category in enumerate(("dog", "rain")):
            for take in range(2):
                name = f"{fold}-{number}{take}-A-{number}.wav"
                time = np.arange(8000) / 16_000
                pitch = (400 if category == "dog" else 3000) * (1 + 0.01 * fold + 0.003 * take)
                soundfile.write(home / "audio" / name, 0.3 * np.sin(6.28 * pitch * time), 16_000)
                rows.append([name, fold, number, category, True, "x", "A"])
    with (home / "meta/esc50.csv").open("w", newline="") as file:
        columns = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
        csv.writer(file).writerows([columns, *rows])
    return folder


def test_esc_in_all_systems(
    apt: ModuleType,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(apt, "CROP_S", 0.05)
    monkeypatch.setattr(apt, "CLIP_S", 0.25)
    root = make_esc(tmp_path / "esc")
    table = tmp_path / "apt.csv"
    where = ["--corpus", "esc50", "--root", str(root), "--model", str(model)]
    how = ["--shots", "1", "all", "--steps", "4", "--joint", "0.01", "--csv", str(table)]
    apt.main([*where, *how])
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["shots"], row["system"]) for row in rows} == {
        (shots, system) for shots in ("1", "all") for system in ("baseline", "APT", "joint")
    }
    values = {
        (row["shots"], row["system"], row["class"]): float(row["median_sdr_db"]) for row in rows
    }
    # Four clips to measure per class, both sources of each mixture: the median lies between.
    for shots in ("1", "all"):
        for system in ("baseline", "APT", "joint"):
            ofs = [values[shots, system, name] for name in ("dog", "rain")]
            assert min(ofs) <= values[shots, system, "all"] <= max(ofs)
    assert values["1", "joint", "all"] != values["1", "baseline", "all"]
    printed = capsys.readouterr().out
    assert "| clips of each class | baseline | APT | joint |" in printed
    assert f"| all | {values['all', 'baseline', 'all']:.2f} (" in printed


def test_songs_are_learnt_from_highlights_and_measured_in_pieces(
    apt: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "HIGHLIGHT_S", 0.5)
    experiment = apt.of_songs(make_musdb18(tmp_path / "musdb", 4.5, 44_100), 32_000)
    assert {name: len(pool) for name, pool in experiment.clips.items()} == {
        "drums": 2, "bass": 2, "other": 2, "vocals": 2,
    }  # fmt: skip
    assert all(len(clip) == 16_000 for pool in experiment.clips.values() for clip in pool)
    items = list(experiment.items())
    assert [item.mixture.num_samples for item in items] == [64_000, 64_000]
    assert experiment.pieces_s == 2.0
    assert experiment.protocol.wiener


def test_the_highlight_is_the_loudest_stretch(apt: ModuleType) -> None:
    song = torch.ones(1000)
    song[600:700] = 3.0
    assert 600 <= apt.loudest_start(song, 100) <= 600
    assert 500 <= apt.loudest_start(song, 200) <= 600
    assert apt.loudest_start(song, 2000) == 0
