"""The processes that measure: answers, failures, and what they print beside."""

import importlib
import time
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"

SCRIPT = """
import os, sys
sys.path.insert(0, {bench!r})
from workers import serve

def add(left, right):
    print("chatter of a library", flush=True)
    os.write(1, b"and of its C code\\n")
    return left + right

def fill(mib):
    b"x" * (mib * 2**20)

def threads():
    return os.environ["OMP_NUM_THREADS"]

def leave():
    os._exit(3)

serve({{"add": add, "fill": fill, "threads": threads, "leave": leave}})
"""


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("workers")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "worker.py"
    path.write_text(SCRIPT.format(bench=str(BENCH)))
    return path


def test_answers_are_not_mixed_with_what_is_printed(workers: ModuleType, script: Path) -> None:
    with workers.Worker(script, threads=1) as worker:
        assert worker.ask("add", left=1, right=2) == 3
        assert worker.ask("add", left="a", right="b") == "ab"


def test_a_failure_says_why_and_the_worker_goes_on(workers: ModuleType, script: Path) -> None:
    with workers.Worker(script, threads=1) as worker:
        with pytest.raises(workers.WorkerFailed, match="TypeError: unsupported operand"):
            worker.ask("add", left=1, right=None)
        assert worker.ask("add", left=1, right=1) == 2


def test_a_worker_that_ends_is_a_failure(workers: ModuleType, script: Path) -> None:
    with (
        workers.Worker(script, threads=1) as worker,
        pytest.raises(workers.WorkerFailed, match="status 3"),
    ):
        worker.ask("leave")


def test_memory_is_that_of_the_worker(workers: ModuleType, script: Path) -> None:
    with workers.Worker(script, threads=5) as small, workers.Worker(script, threads=1) as large:
        assert small.ask("threads") == "5"
        before = small.peak_mib
        large.ask("fill", mib=300)
        small.ask("threads")
        assert large.peak_mib > before + 250
        assert small.peak_mib < before + 50


def test_no_run_is_begun_when_the_time_is_over(workers: ModuleType) -> None:
    walls = iter([0.1, 0.2, 5.0, 0.1])
    assert workers.repeated(lambda: next(walls), runs=4, at_most_s=5.0) == [0.1, 0.2, 5.0]
    started = time.perf_counter()
    assert workers.repeated(lambda: 9.0, runs=3, at_most_s=1.0) == [9.0]
    assert time.perf_counter() - started < 1.0
