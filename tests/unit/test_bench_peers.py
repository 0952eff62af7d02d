"""The comparison with others: who is left out, and what the table says of them."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("peers")


class FakeWorker:
    """Takes so many seconds for each run, or fails."""

    peak_mib = 123.4

    def __init__(self, wall_s: float, failure: Exception | None = None) -> None:
        self.wall_s = wall_s
        self.failure = failure

    def ask(self, request: str) -> Any:
        assert request == "run"
        if self.failure is not None:
            raise self.failure
        return self.wall_s


def test_slow_and_failing_contenders_are_left_out(peers: ModuleType) -> None:
    fast = peers.Contender("fast", FakeWorker(2.0), num_parameters=1_500_000)
    slow = peers.Contender("slow", FakeWorker(30.0), num_parameters=42_000_000)
    reason = peers.WorkerFailed("ModuleNotFoundError: No module named 'torchaudio'")
    broken = peers.Contender("broken", FakeWorker(1.0, reason))
    peers.measure([fast, slow, broken], runs=3, at_most_s=20.0)
    assert fast.row(10.0, 2.0) == "| fast | 1.5 M | 2.00 s (3) | 0.200 | 1.0 | 123 MiB |"
    assert slow.row(10.0, 2.0) == "| slow | 42.0 M | 30.00 s (1) | 3.000 | 15.0 | 123 MiB |"
    assert "No module named 'torchaudio'" in broken.row(10.0, 2.0)


def test_an_environment_is_kept_until_what_it_is_made_of_changes(
    peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[Any]] = []

    class Finished:
        stdout = str(tmp_path)

    def run(command: list[Any], **_: Any) -> Finished:
        commands.append(command)
        return Finished()

    monkeypatch.setattr(peers.subprocess, "run", run)
    folder = tmp_path / "environment"
    folder.mkdir()
    python = peers.make_environment(folder)
    made = len(commands)
    assert any("venv" in command for command in commands)
    assert peers.make_environment(folder) == python
    assert len(commands) == made
    monkeypatch.setattr(peers, "_WITHOUT_DEPENDENCIES", "openunmix==9.9.9")
    peers.make_environment(folder)
    assert len(commands) == 2 * made
