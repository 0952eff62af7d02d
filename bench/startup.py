"""How soon ``unbraid separate`` gives its first samples, and how much memory it takes.

Measured from outside: every run is a process of its own. It is asked to say when it has passed
each phase, which costs nothing that could be measured. Prints a Markdown table with medians; the
floor is Python with PyTorch and nothing else. Files that the system has not read lately take
longer, so a first run is thrown away.

    python bench/startup.py [--model mini] [--seconds 60] [--threads 2] [--runs 5]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROMPTS = "speech,sfx,music-mix"

#: Run in the measured process: the command line, with a note of the time at each phase.
_NOTED = """
import gc, json, sys, time
phases = {"interpreter": time.time()}
gc.set_threshold(50_000)  # as the program does, but its imports come first here
def note(phase):
    phases.setdefault(phase, time.time())
def noting(owner, name, phase):
    inner = getattr(owner, name)
    def noted(*arguments, **keywords):
        result = inner(*arguments, **keywords)
        note(phase)
        return result
    setattr(owner, name, noted)
from unbraid.cli import main
note("command line")
import torch
note("torch")
import unbraid.apps.batch, unbraid.apps.separator, unbraid.audio.encode
from unbraid.separation.separator import StreamSeparator
note("unbraid")
noting(unbraid.apps.separator, "load_separator", "model loaded")
noting(unbraid.apps.separator.Separator, "separate_stream", "recording opened")
noting(unbraid.audio.encode.AtomicWriter, "write", "first samples written")
try:
    main()
finally:
    note("all written")
    with open(NOTES, "w") as file:
        json.dump(phases, file)
"""

#: The same in Python, up to the first block.
_IN_PYTHON = """
import itertools, json, time
phases = {"interpreter": time.time()}
import unbraid
from unbraid.audio import read_blocks, probe
separator = unbraid.load_separator(MODEL, device="cpu")
phases["model loaded"] = time.time()
rate = probe(RECORDING).sample_rate
next(iter(separator.separate_stream(read_blocks(RECORDING), rate, PROMPTS)))
phases["first SeparatedBlock"] = time.time()
with open(NOTES, "w") as file:
    json.dump(phases, file)
"""


@dataclass(frozen=True)
class Run:
    """What one process took: seconds since its start by phase, seconds of CPU, peak memory."""

    phases: Mapping[str, float]
    wall_s: float
    cpu_s: float
    peak_mib: float


def run(code: str, arguments: Sequence[str], notes: Path | None, threads: int) -> Run:
    """Run Python code in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    began = time.time()
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.time() - began
    if status:
        raise SystemExit(f"the measured process failed: {' '.join(arguments)}")
    noted = json.loads(notes.read_text()) if notes is not None else {}
    scale = 2**20 if sys.platform == "darwin" else 2**10
    phases = {phase: moment - began for phase, moment in noted.items()}
    return Run(phases, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale)


def make_recording(path: Path, seconds: float) -> None:
    """Write a recording in a process of its own: the memory of a parent counts for its child."""
    code = (
        "import sys; from pathlib import Path; from scene import write_scene; "
        "write_scene(Path(sys.argv[1]), float(sys.argv[2]), 48000, 2)"
    )
    command = [sys.executable, "-c", code, str(path), str(seconds)]
    subprocess.run(command, check=True, cwd=Path(__file__).parent)


def show(title: str, runs: Sequence[Run]) -> None:
    """Print the rows of one measured program."""
    for phase in runs[0].phases:
        moment = statistics.median(each.phases[phase] for each in runs)
        print(f"| {title}: {phase} | {moment:.2f} s | | |")
    wall = statistics.median(each.wall_s for each in runs)
    cpu = statistics.median(each.cpu_s for each in runs)
    peak = max(each.peak_mib for each in runs)
    print(f"| {title}: end | {wall:.2f} s | {cpu:.2f} s | {peak:.0f} MiB |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print("| phase | since the start of the process, median | CPU time, median | peak memory |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        recording, notes = Path(folder) / "recording.wav", Path(folder) / "notes.json"
        make_recording(recording, arguments.seconds)
        command = ["separate", str(recording), "--model", arguments.model, "--prompts", PROMPTS]
        command += ["--out", str(Path(folder) / "out"), "--overwrite", "--quiet", "--device", "cpu"]
        in_python = (
            _IN_PYTHON.replace("MODEL", repr(arguments.model))
            .replace("RECORDING", repr(str(recording)))
            .replace("PROMPTS", repr(PROMPTS.split(",")))
            .replace("NOTES", repr(str(notes)))
        )
        programs: list[tuple[str, str, list[str], Path | None]] = [
            ("import torch", "import torch", [], None),
            ("unbraid --help", "from unbraid.cli import main; main()", ["--help"], None),
            ("unbraid separate", _NOTED.replace("NOTES", repr(str(notes))), command, notes),
            ("Python", in_python, [], notes),
        ]
        for title, code, given, noted in programs:
            runs = [run(code, given, noted, arguments.threads) for _ in range(arguments.runs + 1)]
            show(title, runs[1:])


if __name__ == "__main__":
    main()
