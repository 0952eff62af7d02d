"""The arithmetic of the cost model."""

import importlib
from pathlib import Path

import pytest

from unbraid.cluster.table import Summary, WorkerReport

BENCH = Path(__file__).resolve().parents[2] / "bench"


def test_the_cost_of_many_hours_is_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    cluster = importlib.import_module("cluster")
    workers = tuple(
        WorkerReport(name, "m", 1, audio_s, 10.0, 5.0, 10.0 / audio_s)
        for name, audio_s in (("a", 100.0), ("b", 300.0))
    )
    summary = Summary(2, 2, 0, 0, 0, 400.0 / 3600, 20.0, workers, {})
    assert cluster.rate_of(summary) == 40.0
    assert cluster.undisturbed_rate_of(summary, num_cores=2) == 80.0
    found = cluster.plan(1_000_000, 40.0, lost_share=0.2, num_nodes=100, price_per_node_hour=0.5)
    assert found.node_hours == pytest.approx(31_250)
    assert found.days == pytest.approx(31_250 / 2400)
    assert found.price == pytest.approx(15_625)
