"""``bench/labels.py`` from clips to a table, on a miniature of two steps each."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from synthetic_pool import make_pool
from unbraid.errors import ConfigError

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    module = importlib.import_module("labels")
    monkeypatch.setattr(module, "CROP_S", 0.25)
    monkeypatch.setattr(module, "LONG_S", 0.5)
    return module


@pytest.mark.slow
def test_from_clips_to_a_table_and_only_once(
    labels: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, out = make_pool(tmp_path / "pool"), tmp_path / "out"
    where = ["--manifest", str(manifest), "--out", str(out)]
    small = ["--shares", "0.5", "--pretraining-steps", "2", "--recordings", "4", "--mixtures", "1"]
    what = [*where, *small, "--starts", "scratch", "self-remixing"]
    labels.main([*where, "--tables"])
    assert "nothing is finished yet" in capsys.readouterr().out

    labels.main([*what, "--steps", "2"])
    printed = capsys.readouterr().out
    assert "4 recordings hold" in printed
    begun = [line.removeprefix("begins: ") for line in printed.splitlines() if "begins" in line]
    assert begun == [
        "recordings",
        "self-remixing",
        "self-remixing-filters",
        "self-remixing-start-0",
        "scratch-50-seed-0",
        "self-remixing-50-seed-0",
    ]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()]
    assert [row[1] for row in rows if row and row[0] == "50 %"] == ["scratch", "Self-Remixing"]
    # Three scenes of one mixture of two sources, for the body and two of TUSS.
    scores = labels.read_scores(out / "labels.csv")
    assert [each.run for each in scores] == [
        name for name in sorted(begun) if name in {begun[1], *begun[4:]} for _ in range(6)
    ]
    gains = {name: [each.si_sdri_db for each in scores if each.run == name] for name in begun[4:]}
    assert len(set(map(tuple, gains.values()))) == 2, "both began with the same weights"
    assert (out / "labels.png").is_file()

    labels.main([*what, "--steps", "2"])
    assert "begins" not in capsys.readouterr().out
    (out / "runs" / begun[4] / "scores.csv").unlink()
    with pytest.raises(ConfigError, match="holds a run with other settings; choose another --out"):
        labels.main([*what, "--steps", "3"])
