"""Wall time and peak memory of ``unbraid separate``, measured from outside.

The recording is the package's own demo scene, repeated to length, in stereo. Every run is a
process of its own, imports and model loading included, separated into three prompts. Prints
a Markdown table and can draw it.

    python bench/speed.py [--model mini] [--seconds 60 600] [--threads 1 2] [--runs 3]
    python bench/speed.py --seconds 60 180 600 3600 10800 --threads 2 --runs 1 --picture long.png
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from machine import describe_machine
from scene import write_scene


@dataclass(frozen=True)
class Measured:
    """The runs on one recording: median wall time and the largest peak of memory."""

    seconds: float
    threads: int
    wall_s: float
    peak_mib: float

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio."""
        return self.wall_s / self.seconds


def run_once(recording: Path, model: str, threads: int, out: Path) -> tuple[float, float]:
    """Seconds and MiB of one run."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "unbraid", "separate", str(recording), "--model", model]
    command += ["--out", str(out), "--overwrite", "--quiet", "--device", "cpu"]
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return wall, usage.ru_maxrss / scale


def draw(measured: Sequence[Measured], path: Path) -> None:
    """Real-time factor and peak memory over the length of the recording."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, sharex=True, figsize=(7, 5.5), layout="tight")
    for threads in sorted({run.threads for run in measured}):
        runs = [run for run in measured if run.threads == threads]
        minutes = [run.seconds / 60 for run in runs]
        label = f"{threads} thread{'s' if threads > 1 else ''}"
        above.plot(minutes, [run.real_time_factor for run in runs], "o-", label=label)
        below.plot(minutes, [run.peak_mib for run in runs], "o-", label=label)
    above.set_ylabel("seconds of work\nper second of stereo")
    below.set_ylabel("peak memory, MiB")
    below.set_xlabel("length of the recording, minutes")
    below.set_xscale("log")
    ticks = sorted({run.seconds / 60 for run in measured})
    below.set_xticks(ticks, [f"{minutes:g}" for minutes in ticks])
    for axes in (above, below):
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0, 600.0])
    parser.add_argument("--rate", type=int, default=48000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--picture", type=Path, help="where to draw the table")
    arguments = parser.parse_args()
    print(f"{describe_machine()}\n")
    print("| audio | threads | wall, median of runs | per second of audio | peak memory |")
    print("|---|---|---|---|---|")
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        recording, out = Path(folder) / "recording.wav", Path(folder) / "out"
        for seconds in arguments.seconds:
            write_scene(recording, seconds, arguments.rate, num_channels=2)
            for threads in arguments.threads:
                runs = [
                    run_once(recording, arguments.model, threads, out)
                    for _ in range(arguments.runs)
                ]
                shutil.rmtree(out)
                measured.append(
                    Measured(
                        seconds,
                        threads,
                        statistics.median(run[0] for run in runs),
                        max(run[1] for run in runs),
                    )
                )
                print(
                    f"| {seconds / 60:g} min stereo | {threads} | {measured[-1].wall_s:.1f} s "
                    f"| {measured[-1].real_time_factor:.3f} s "
                    f"| {measured[-1].peak_mib:.0f} MiB |",
                    flush=True,
                )
    if arguments.picture is not None:
        draw(measured, arguments.picture)


if __name__ == "__main__":
    main()
