"""The benchmark of few labels: shares of clips, statistics, tables and the order of the work."""

import importlib
import json
import math
import random
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch
from unbraid.data.manifest import Recording
from unbraid.errors import ConfigError

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("labels")


# ------------------------------------------------------------------ shares


def recordings(**counts: int) -> list[Recording]:
    return [
        Recording(f"{name}{number}.wav", f"sfx/{name}", "train", 1.0, 4000.0, "", "", 8000)
        for name, count in counts.items()
        for number in range(count)
    ]


def test_shares_are_nested_and_even_over_classes(labels: ModuleType) -> None:
    pool = recordings(dog=200, rain=100, bell=40)
    chosen = {share: labels.labelled_share(pool, share, 0) for share in (0.05, 0.2, 1.0)}
    assert [len(each) for each in chosen.values()] == [17, 68, 340]
    assert {*chosen[0.05]} < {*chosen[0.2]} < {*chosen[1.0]}
    for share, some in chosen.items():
        counts = Counter(each.kind for each in some)
        for kind, count in Counter(each.kind for each in pool).items():
            assert abs(counts[kind] - share * count) <= 1.0


def test_small_classes_are_drawn_as_often_as_large_ones(labels: ModuleType) -> None:
    pool = recordings(dog=100) + recordings(**{f"rare{number}": 1 for number in range(100)})
    few = labels.labelled_share(pool, 0.2, 0)
    assert 12 <= sum(each.kind == "sfx/dog" for each in few) <= 28


def test_a_share_depends_on_the_seed_and_not_on_the_order(labels: ModuleType) -> None:
    pool = recordings(dog=30, rain=30)
    shuffled = random.Random(1).sample(pool, len(pool))
    assert labels.labelled_share(pool, 0.2, 0) == labels.labelled_share(shuffled, 0.2, 0)
    assert labels.labelled_share(pool, 0.2, 0) != labels.labelled_share(pool, 0.2, 1)
    assert len(labels.labelled_share(pool, 0.001, 0)) == 1


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan])
def test_what_is_no_share_is_refused(labels: ModuleType, share: float) -> None:
    with pytest.raises(ConfigError, match="above 0 and is at most 1"):
        labels.labelled_share(recordings(dog=3), share, 0)


# ------------------------------------------------------------------ statistics


def scores(labels: ModuleType, start: str, gains: list[float], **changes: Any) -> list[Any]:
    """Two sources of each mixture."""
    about = {"run": "a-run", "start": start, "share": 0.05, "seed": 0, "scene": "speech + sfx"}
    return [
        labels.Score(**{**about, **changes}, mixture=number // 2, prompt=prompt, si_sdri_db=gain)
        for number, gain in enumerate(gains)
        for prompt in (("speech", "sfx")[number % 2],)
    ]


def test_differences_are_those_of_the_same_sources(labels: ModuleType) -> None:
    gains = [random.Random(number).gauss(3.0, 10.0) for number in range(60)]
    scratch = scores(labels, "scratch", gains)
    better = scores(labels, "mixit", [gain + 1.0 for gain in gains])
    found = labels.difference(better[::-1], scratch)
    assert found.value == pytest.approx(1.0)
    # Mixtures differ by far more than the two starts do.
    assert (found.low, found.high) == pytest.approx((1.0, 1.0))
    wide = labels.mean_of(scratch)
    assert wide.high - wide.low > 2.0
    assert wide.low < sum(gains) / 60 < wide.high


def test_differences_leave_out_seeds_that_scratch_was_not_trained_with(labels: ModuleType) -> None:
    scratch = scores(labels, "scratch", [0.0] * 4)
    others = scores(labels, "mixit", [2.0] * 4) + scores(labels, "mixit", [9.0] * 4, seed=1)
    assert labels.difference(others, scratch).value == 2.0
    assert labels.difference(others, scratch).count == 4
    assert math.isnan(labels.difference(others, []).value)


def test_mixtures_are_resampled_and_not_sources(labels: ModuleType) -> None:
    """The sources of a mixture, and the seeds, say the same again."""
    gains = [float(number // 2) for number in range(40)]
    once = labels.mean_of(scores(labels, "scratch", gains))
    twice = labels.mean_of(
        scores(labels, "scratch", gains) + scores(labels, "scratch", gains, seed=1)
    )
    assert (once.low, once.high) == pytest.approx((twice.low, twice.high))


def test_scores_come_back_from_their_file(labels: ModuleType, tmp_path: Path) -> None:
    some = scores(labels, "mixit", [1.25, -3.5])
    path = tmp_path / "scores.csv"
    path.write_text(labels.format_scores(some))
    assert labels.read_scores(path) == some


def test_time_makes_up_for_a_session_that_was_killed(labels: ModuleType, tmp_path: Path) -> None:
    assert math.isnan(labels.cpu_minutes(tmp_path, 100))
    lines = [{"steps": 40, "cpu_s": 60.0}, {"steps": 0, "cpu_s": 6.0}, {"steps": 20, "cpu_s": 24.0}]
    (tmp_path / "sessions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert labels.cpu_minutes(tmp_path, 100) == pytest.approx(90.0 / 60 * 100 / 60)


def test_a_body_that_goes_on_counts_the_time_of_the_one_before(
    labels: ModuleType, tmp_path: Path
) -> None:
    experiment = labels.Experiment(tmp_path, tmp_path / "manifest.csv", pretraining_steps=10)
    for name, seconds in (("mixit", 60.0), ("mixit-self-remixing", 120.0)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        session = {"steps": 10, "cpu_s": seconds}
        (tmp_path / "runs" / name / "sessions.jsonl").write_text(json.dumps(session))
    assert labels.pretraining_minutes(experiment, "mixit-self-remixing") == pytest.approx(3.0)
    with pytest.raises(ConfigError, match="mixit-self-remixing goes on from mixit"):
        labels.Experiment(tmp_path, tmp_path / "m.csv", starts=("mixit-self-remixing", "mixit"))


def test_the_table_has_a_line_for_each_start_and_share(labels: ModuleType, tmp_path: Path) -> None:
    experiment = labels.Experiment(tmp_path, tmp_path / "manifest.csv", steps=100)
    (tmp_path / "runs/mixit").mkdir(parents=True)
    session = {"steps": experiment.pretraining_steps, "cpu_s": 120.0}
    (tmp_path / "runs/mixit/sessions.jsonl").write_text(json.dumps(session))
    fixed = json.dumps({"likeness_db": 12.34, "si_sdri_db": 0.5})
    (tmp_path / "runs/mixit/fixed-filters.json").write_text(fixed)
    (tmp_path / "runs/mixit-5-seed-0").mkdir()
    (tmp_path / "runs/mixit-5-seed-0/sessions.jsonl").write_text('{"steps": 50, "cpu_s": 30.0}')
    some = [
        *scores(labels, "mixit", [1.0] * 4, share=0.0),
        *scores(labels, "mixit", [3.0, 5.0] * 4),
        *scores(labels, "mixit", [4.0, 6.0] * 4, seed=1),
        *scores(labels, "scratch", [2.0, 4.0] * 4),
        *scores(labels, "scratch", [7.0, 9.0] * 4, share=0.2),
    ]
    lines = [line for line in labels.tables(experiment, some).splitlines() if "(" in line]
    assert "| MixIT | 1.00 (1.00 to 1.00) | 12.3 | 0.50 | 2.0 |" in lines
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if " % " in line]
    assert rows == [
        ["5 %", "scratch", "2.0", "4.0", "nan", "3.00 (3.00 to 3.00)", "", "3.00", "nan"],
        ["5 %", "MixIT", "3.5", "5.5", "nan", "4.50 (4.50 to 4.50)", "+1.00 (+1.00 to +1.00)",
         "4.00, 5.00", "3.0"],
        ["20 %", "scratch", "7.0", "9.0", "nan", "8.00 (8.00 to 8.00)", "", "8.00", "nan"],
    ]  # fmt: skip
    picture = tmp_path / "labels.png"
    labels.draw(some, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------ filters


class TwoOutputs:
    """Separates with a function of the mixture; the rest of it is the other output."""

    def __init__(self, low_of: Any) -> None:
        self.low_of = low_of
        self.config = SimpleNamespace(outputs=("source", "source"))

    def separate_all(self, mixture: Tensor) -> Tensor:
        low = self.low_of(mixture)
        return torch.stack([low, mixture - low], dim=1)


def test_a_crossover_is_a_fixed_filter_and_a_separation_is_not(labels: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    sources = torch.randn(8, 2, 8000, generator=generator)
    batches = [
        MixtureBatch(each.sum(dim=0)[None], each[None], torch.zeros(1, 2, dtype=torch.long))
        for each in sources
    ]

    def crossover(mixture: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(mixture)
        spectrum[:, 1500:] = 0.0
        return torch.fft.irfft(spectrum, n=mixture.shape[-1])

    by_mixture = {tuple(each.sum(dim=0)[:4].tolist()): each[:1] for each in sources}
    perfect = TwoOutputs(lambda mixture: by_mixture[tuple(mixture[0, :4].tolist())])
    found = labels.fixed_filters(TwoOutputs(crossover), batches)
    assert found.likeness_db > 20.0
    # What it gets by being a filter is all that it gets.
    gains = [
        gain
        for batch in batches
        for gain in labels.improvements(
            TwoOutputs(crossover), TwoOutputs(crossover).separate_all(batch.mixture), batch
        )
    ]
    assert found.si_sdri_db == pytest.approx(sum(gains) / len(gains), abs=0.1)
    # Both sources are white: half of the mixture is as near to one as a filter comes.
    found = labels.fixed_filters(perfect, batches)
    assert found.likeness_db == pytest.approx(3.0, abs=0.3)
    assert found.si_sdri_db == pytest.approx(0.0, abs=0.3)


# ------------------------------------------------------------------ the work


def test_runs_differ_in_nothing_but_their_start(labels: ModuleType, tmp_path: Path) -> None:
    from unbraid.config import dump

    experiment = labels.Experiment(tmp_path, tmp_path / "manifest.csv")
    runs = {
        name: dump(labels.with_references(experiment, name, 0.05, 3))
        for name in ("scratch", "mixit", "remixit")
    }
    for name in ("mixit", "remixit"):
        differs = {key for key in runs[name] if runs[name][key] != runs["scratch"][key]}
        assert differs == {"name", "start"}
    longer = labels.with_references(experiment, "scratch-longer", 0.05, 3)
    assert longer.max_steps == experiment.steps + experiment.pretraining_steps
    assert {labels.pretraining(experiment, name).max_steps for name in ("mixit", "remixit")} == {
        experiment.pretraining_steps
    }


def test_stages_wait_for_what_they_need_and_are_done_once(
    labels: ModuleType, tmp_path: Path
) -> None:
    done: list[str] = []

    def stage(name: str, *needs: str) -> Any:
        def run() -> None:
            done.append(name)
            (tmp_path / name).touch()

        return labels.Stage(name, tmp_path / name, tuple(tmp_path / each for each in needs), run)

    (tmp_path / "there").touch()
    todo = [stage("last", "second"), stage("there"), stage("second", "first"), stage("first")]
    labels.work(todo, tmp_path / "locks", wait_s=0.0)
    assert done == ["first", "second", "last"]
    labels.work(todo, tmp_path / "locks", wait_s=0.0)
    assert len(done) == 3


def test_a_stage_that_somebody_is_at_is_left_to_them(
    labels: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unbraid.downloads import try_lock

    locks = tmp_path / "locks"
    locks.mkdir()
    theirs = (locks / "theirs.lock").open("ab")
    assert try_lock(theirs)
    waited: list[float] = []

    def they_finish(seconds: float) -> None:
        waited.append(seconds)
        (tmp_path / "theirs").touch()

    monkeypatch.setattr(labels.time, "sleep", they_finish)
    stages = [
        labels.Stage("theirs", tmp_path / "theirs", (), lambda: pytest.fail("done twice")),
        labels.Stage("ours", tmp_path / "ours", (), (tmp_path / "ours").touch),
    ]
    labels.work(stages, locks)
    theirs.close()
    assert (tmp_path / "ours").is_file()
    assert len(waited) == 1
