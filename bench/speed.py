"""Wall time and peak memory of ``unbraid separate``, measured from outside, as a table.

The recording is the package's own demo scene, repeated to length, in stereo at 44.1 kHz.
Every run is a process of its own, imports and model loading included.

    python bench/speed.py [--model mini] [--seconds 60 600] [--threads 1 2] [--runs 3]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from unbraid.apps.demo import SCENES, mix_scene
from unbraid.audio import AtomicWriter, AudioFormat
from unbraid.dsp.resample import resample

RATE = 44100


def make_recording(path: Path, seconds: float) -> None:
    mixture, _ = mix_scene(SCENES[0])
    left = resample(mixture.samples[:1], mixture.sample_rate, RATE)
    right = 0.7 * left.roll(RATE // 2, dims=1)
    stereo = torch.cat([left, right])
    # In blocks: a process inherits the peak memory of the one that starts it.
    with AtomicWriter(path, AudioFormat("wav", "PCM_16"), RATE, num_channels=2) as writer:
        while (missing := round(seconds * RATE) - writer.num_samples) > 0:
            writer.write(stereo[:, :missing])


def run_once(recording: Path, model: str, threads: int, out: Path) -> tuple[float, float]:
    """Seconds and MiB of one run."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_PROC_BIND": "true"}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0, 600.0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}")
    print("| audio | threads | wall, median of runs | per second of audio | peak memory |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for seconds in arguments.seconds:
            recording = Path(folder) / f"{seconds:g}s.wav"
            make_recording(recording, seconds)
            for threads in arguments.threads:
                runs = [
                    run_once(recording, arguments.model, threads, Path(folder) / "out")
                    for _ in range(arguments.runs)
                ]
                wall = statistics.median(run[0] for run in runs)
                peak = max(run[1] for run in runs)
                print(
                    f"| {seconds:g} s stereo | {threads} | {wall:.1f} s "
                    f"| {wall / seconds:.3f} s | {peak:.0f} MiB |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
