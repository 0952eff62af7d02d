"""How a server bears a crowd: many small jobs at once, over loopback. Prints Markdown tables.

Starts ``unbraid serve`` as a process of its own. As many clients as there are jobs upload at the
same moment; those that are turned away (429) come again, as the server says. Every job must come
back with its stems; the run fails if one is lost. Latency is what a client waits, from its first
attempt to its last stem. The server's memory is read from outside, before and after.

A second table compares rows of short recordings one by one and in one batch on this device; batches
are what the server makes on a GPU.

    python bench/serving.py [--jobs 200] [--seconds 1] [--queue 50] [--workers 2] [--rounds 4]
"""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from machine import describe_machine
from scene import write_scene
from unbraid import load_separator
from unbraid.models.inference import for_inference
from unbraid.serve.client import Client

PROMPTS = ("speech", "sfx-mix", "music-mix")
_RATE = 48_000
_KIB = 2**10
_STARTING_S = 180
_PATIENCE_S = 900.0
_REPEATS = 5


@dataclass(frozen=True)
class Served:
    """What one client saw."""

    wall_s: float
    num_refused: int


@contextmanager
def server(arguments: Sequence[str]) -> Iterator[tuple[str, int]]:
    """A server as a process of its own; its address and its number."""
    command = [sys.executable, "-m", "unbraid", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+:\d+", line)
        if found is None:
            raise SystemExit("the server did not start")
        yield found[0], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STARTING_S)


def resident_mib(pid: int) -> float:
    """The memory of a process that is in use now."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) / _KIB


def crowd(address: str, recording: Path, num_jobs: int, folder: Path) -> list[Served]:
    """Send as many jobs as there are, all at once; every one must come back."""
    begin = threading.Barrier(num_jobs)
    served: list[Served] = []
    failures: list[BaseException] = []

    def one(number: int) -> None:
        client = Client(address, patience_s=_PATIENCE_S, timeout_s=_PATIENCE_S)
        begin.wait()
        started = time.perf_counter()
        try:
            files = client.separate(recording, PROMPTS, folder / str(number))
            assert len(files) == len(PROMPTS)
        except BaseException as error:
            failures.append(error)
            return
        served.append(Served(time.perf_counter() - started, client.num_refused))
        for file in files.values():
            file.unlink()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(num_jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(
            f"{len(failures)} of {num_jobs} jobs were lost, the first: {failures[0]!r}"
        )
    return served


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share does not exceed."""
    return sorted(values)[max(0, min(len(values) - 1, round(share * len(values)) - 1))]


def show_crowds(options: argparse.Namespace) -> None:
    """The table of latencies."""
    print(
        f"{options.jobs} jobs at once, {options.seconds:g} s of mono each, {len(PROMPTS)} stems; "
        f"queue of {options.queue}, {options.workers} at a time\n"
    )
    print("| round | lost | p50 | p95 | p99 | jobs/s | audio | refused | memory before → after |")
    print("|---|---|---|---|---|---|---|---|---|")
    arguments = ["--max-queue", str(options.queue), "--jobs", str(options.workers)]
    with (
        tempfile.TemporaryDirectory() as name,
        server([*arguments, "--device", "cpu"]) as (
            address,
            pid,
        ),
    ):
        folder = Path(name)
        recording = folder / "scene.wav"
        write_scene(recording, options.seconds, _RATE, 1)
        # What is loaded and grown once is no leak.
        crowd(address, recording, min(options.jobs, 2 * options.workers), folder)
        for number in range(1, options.rounds + 1):
            before = resident_mib(pid)
            started = time.perf_counter()
            served = crowd(address, recording, options.jobs, folder)
            wall_s = time.perf_counter() - started
            walls = [each.wall_s for each in served]
            marks = " | ".join(f"{percentile(walls, share):.1f} s" for share in (0.5, 0.95, 0.99))
            print(
                f"| {number} | {options.jobs - len(served)} | {marks} | "
                f"{options.jobs / wall_s:.2f} | "
                f"{options.jobs * options.seconds / wall_s:.1f} times real time | "
                f"{sum(each.num_refused for each in served)} | {before:.0f} → "
                f"{resident_mib(pid):.0f} MiB |",
                flush=True,
            )


def show_batches(seconds: float) -> None:
    """The table of rows one by one and together, on one thread, in processor time."""
    torch.set_num_threads(1)
    separator = load_separator("mini", device="cpu")
    model = for_inference(separator.model)
    indices = separator.model.prompts.indices(PROMPTS)

    def work(batch: torch.Tensor) -> torch.Tensor:
        return model(batch, indices.expand(len(batch), -1))

    print(f"\nRows of {seconds:g} s through the network, one thread, processor time\n")
    print("| rows | one by one | in one batch | gain | difference |")
    print("|---|---|---|---|---|")
    for num_rows in (2, 4, 8):
        rows = 0.1 * torch.randn(num_rows, round(seconds * _RATE))
        alone_s, alone = timed(work, rows.split(1))
        together_s, together = timed(work, [rows])
        error = float((together - alone).square().sum() / alone.square().sum())
        level = "none" if error == 0 else f"{10 * math.log10(error):.0f} dB"
        print(
            f"| {num_rows} | {alone_s:.2f} s | {together_s:.2f} s | "
            f"{alone_s / together_s:.2f} times | {level} |",
            flush=True,
        )


def timed(
    work: Callable[[torch.Tensor], torch.Tensor], batches: Sequence[torch.Tensor]
) -> tuple[float, torch.Tensor]:
    """How long it takes to work on all batches, at best, and what comes out."""
    durations_s = []
    with torch.inference_mode():
        outputs = torch.cat([work(batch) for batch in batches])
        for _ in range(_REPEATS):
            started = time.process_time()
            for batch in batches:
                work(batch)
            durations_s.append(time.process_time() - started)
    return min(durations_s), outputs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--queue", type=int, default=50)
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    print(f"{describe_machine()}, load {statistics.mean(os.getloadavg()):.1f}\n")
    show_crowds(options)
    show_batches(options.seconds)


if __name__ == "__main__":
    main()
