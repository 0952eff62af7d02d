"""Our models beside those that a user would pick instead, as a Markdown table.

Four stems of one stereo recording at 44.1 kHz: the same audio, the same threads, in turn, each
model warm in a process of its own. What a number includes:

- ours: ``Separator.separate`` on a WAV file: decoding, resampling to 48 kHz and back,
  chunks, stereo, presence;
- theirs: samples in memory, chunks and the model; no decoding, no resampling.

Reading the package, loading weights and a warm-up are never included in the time, all of them
always in the memory. All models but ``mini`` have random weights in published shapes (see
``peer_worker.py``); nothing can be said here about how well they separate.

Peers are installed once, into an environment that is kept in the user's cache. It borrows our
torch, so all compute with the same kernels.

    python bench/peers.py [--seconds 29] [--threads 2] [--runs 3] [--environment FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from unbraid.folders import user_cache_dir
from workers import FOLDER, OURS, Worker, WorkerFailed

#: Name in the table → package in the environment.
PEERS = {"HTDemucs": "demucs", "Open-Unmix": "openunmix", "BS-RoFormer": "BS-RoFormer"}
STEMS = ("vocals", "drums", "bass", "other")

_THEIRS = FOLDER / "peer_worker.py"
_REQUIREMENTS = FOLDER / "peers.txt"
_CONSTRAINTS = FOLDER.parent / "constraints.txt"
# It requires torchaudio, which is only for reading files and often does not fit the torch at hand.
_WITHOUT_DEPENDENCIES = "openunmix==1.3.0"


def make_environment(folder: Path) -> Path:
    """The interpreter of an environment with the peers; it is made if it is not there yet.

    Raises:
        CalledProcessError: If pip fails; what it says is on the screen.
    """
    ours = sysconfig.get_path("purelib")
    wanted = "\n".join(
        (_REQUIREMENTS.read_text(), _WITHOUT_DEPENDENCIES, ours, version("torch"), sys.version)
    )
    finished = folder / "made-of.txt"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if finished.is_file() and finished.read_text() == wanted:
        return python
    print(f"installing the peers into {folder}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    theirs = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # After its own packages it sees ours, so torch is the same one and is not installed twice.
    (Path(theirs) / "torch-of-unbraid.pth").write_text(f"{ours}\n")
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        _CONSTRAINTS,
    ]
    subprocess.run([*pip, "--requirement", _REQUIREMENTS], check=True)
    subprocess.run([*pip, "--no-deps", _WITHOUT_DEPENDENCIES], check=True)
    finished.write_text(wanted)
    return python


@dataclass
class Contender:
    """One model and what was measured of it."""

    name: str
    worker: Worker
    num_parameters: int = 0
    walls: list[float] = field(default_factory=list)
    failure: str | None = None

    def row(self, seconds: float, reference_s: float) -> str:
        """Its line of the table."""
        if self.failure is not None:
            return f"| {self.name} | | not measured: {self.failure} | | | |"
        wall_s = statistics.median(self.walls)
        return (
            f"| {self.name} | {self.num_parameters / 1e6:.1f} M "
            f"| {wall_s:.2f} s ({len(self.walls)}) | {wall_s / seconds:.3f} "
            f"| {wall_s / reference_s:.1f} | {self.worker.peak_mib:.0f} MiB |"
        )


def measure(contenders: list[Contender], runs: int, at_most_s: float) -> None:
    """Let all run in turn; whoever took too long already, or failed, is left out."""
    for _ in range(runs):
        for contender in contenders:
            if contender.failure is None and sum(contender.walls) < at_most_s:
                try:
                    contender.walls.append(contender.worker.ask("run"))
                except WorkerFailed as error:
                    contender.failure = str(error)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ours", nargs="*", default=["mini", "medium"])
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    # So that nobody's last chunk is nearly empty: HTDemucs computes it in full length.
    parser.add_argument("--seconds", type=float, default=29.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--at-most", type=float, default=100.0, help="seconds after which none is repeated"
    )
    parser.add_argument("--environment", type=Path, default=user_cache_dir() / "bench-peers")
    arguments = parser.parse_args()
    python = make_environment(arguments.environment) if arguments.peers else sys.executable
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = {"recording": str(folder / "recording.wav"), "samples": str(folder / "samples.pt")}
        with Worker(OURS, arguments.threads) as worker:
            machine = worker.ask("describe_machine")
            for kind, file in files.items():
                worker.ask(
                    f"write_{kind}",
                    file=file,
                    seconds=arguments.seconds,
                    rate=44100,
                    num_channels=2,
                )
        contenders = []
        for name in arguments.ours:
            contender = Contender(name, stack.enter_context(Worker(OURS, arguments.threads)))
            contender.num_parameters = contender.worker.ask(
                "prepare_file", model=name, file=files["recording"], prompts=STEMS
            )
            contenders.append(contender)
        for name in arguments.peers:
            worker = stack.enter_context(Worker(_THEIRS, arguments.threads, python))
            contender = Contender(name, worker)
            try:
                contender.num_parameters = worker.ask("prepare", model=name, file=files["samples"])
            except WorkerFailed as error:
                contender.failure = str(error)
            contenders.append(contender)
        measure(contenders, arguments.runs, arguments.at_most)
        print(machine)
        print(
            f"{arguments.seconds:g} s of stereo at 44.1 kHz, {len(STEMS)} stems, "
            f"{arguments.threads} threads, median of the runs in brackets\n"
        )
        first = contenders[0]
        print(f"| model | parameters | wall | RTF | times {first.name} | peak memory |")
        print("|---|---|---|---|---|---|")
        for contender in contenders:
            print(contender.row(arguments.seconds, statistics.median(first.walls)))


if __name__ == "__main__":
    main()
