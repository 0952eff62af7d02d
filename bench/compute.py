"""How near our models come to what the machine can do, as a Markdown table.

One chunk of one channel goes through the model alone, on its plain path (``models.waveform``,
as it is trained) and on its fast one (``models.inference``). The columns:

- operations: multiplications and additions of convolutions, matrix products and attention, as
  the PLAIN model does them. The fast path gets the same sums with fewer multiplications, so
  its rate of nominal operations may pass the peak;
- wall: the median of the runs, after a warm-up; RTF: per second of audio;
- of peak: against what PyTorch's best kernels reach on large products and convolutions in
  float32, measured before and after every single run, since machines drift;
- peak memory: of the whole process, imports and weights included, one process for each row;
- SNR: of what the fast path gives, against the plain path.

Medium and large are the published sizes of TUSS at 48 kHz with random weights: they cost what
trained ones do.

    python bench/compute.py [--cases mini:8 medium:6] [--threads 2] [--runs 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from workers import OURS, Worker

#: Model and seconds of a chunk: what suits ``mini``, and the lengths TUSS is published with.
CASES = ("mini:8", "medium:6", "medium:12", "medium:30", "large:6")

#: No other run of a path is begun once its runs took so long.
_AT_MOST_S = 40.0


@dataclass(frozen=True)
class Run:
    """One run and the peak of the machine around it."""

    wall_s: float
    peak_gflops: float


@dataclass(frozen=True)
class Row:
    """One path of one model on one length of chunk."""

    model: str
    seconds: float
    path: str
    operations: int
    runs: tuple[Run, ...]
    peak_mib: float
    snr_db: float | None = None

    @property
    def wall_s(self) -> float:
        """The median of the runs."""
        return statistics.median(run.wall_s for run in self.runs)

    @property
    def gflops(self) -> float:
        """Nominal operations per second, in billions."""
        return self.operations / self.wall_s / 1e9

    @property
    def share_of_peak(self) -> float:
        """The median of what each run reached of the peak around it."""
        return statistics.median(
            self.operations / run.wall_s / 1e9 / run.peak_gflops for run in self.runs
        )

    def __str__(self) -> str:
        snr = "" if self.snr_db is None else f"{self.snr_db:.0f} dB"
        return (
            f"| {self.model} | {self.seconds:g} s | {self.path} "
            f"| {self.operations / 1e9:,.0f} G | {self.wall_s:.2f} s "
            f"| {self.wall_s / self.seconds:.3f} | {self.gflops:.0f} "
            f"| {100 * self.share_of_peak:.0f} % | {self.peak_mib:.0f} MiB | {snr} |"
        )


def measure(
    machine: Worker, model: str, seconds: float, runs: int, threads: int, options: dict[str, object]
) -> tuple[Row, Row]:
    """The plain and the fast path in turn, the peak before and after every run."""
    operations = machine.ask(
        "count_operations", name=model, seconds=seconds, num_prompts=options["num_prompts"]
    )
    measured: dict[str, list[Run]] = {"plain": [], "fast": []}
    with (
        Worker(OURS, threads, is_bound=True) as plain,
        Worker(OURS, threads, is_bound=True) as fast,
        tempfile.TemporaryDirectory() as folder,
    ):
        workers = {"plain": plain, "fast": fast}
        for path, worker in workers.items():
            worker.ask("prepare_chunk", model=model, path=path, seconds=seconds, **options)
        before = machine.ask("measured_peak_gflops")
        for _ in range(runs):
            for path, worker in workers.items():
                if sum(run.wall_s for run in measured[path]) > _AT_MOST_S:
                    continue
                wall_s = worker.ask("run")
                after = machine.ask("measured_peak_gflops")
                measured[path].append(Run(wall_s, (before + after) / 2))
                before = after
        peaks = {path: worker.peak_mib for path, worker in workers.items()}
        result = str(Path(folder) / "plain.pt")
        plain.ask("save_result", file=result)
        snr_db = fast.ask("snr_db", file=result)
    plain_row, fast_row = (
        Row(model, seconds, path, operations, tuple(measured[path]), peaks[path], snr)
        for path, snr in (("plain", None), ("fast", snr_db))
    )
    return plain_row, fast_row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="MODEL:SECONDS")
    parser.add_argument("--prompts", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--precision", default="float32", help="of the fast path")
    arguments = parser.parse_args()
    options = {"num_prompts": arguments.prompts, "precision": arguments.precision}
    cases = [case.rpartition(":") for case in arguments.cases]
    with Worker(OURS, arguments.threads, is_bound=True) as machine:
        print(machine.ask("describe_machine"))
        print(
            f"{arguments.prompts} prompts, one channel, {arguments.threads} threads, fast path in "
            f"{arguments.precision}, median of up to {arguments.runs} runs\n"
        )
        print(
            "| model | chunk | path | operations | wall | RTF | GFLOP/s | of peak "
            "| peak memory | SNR |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|")
        peaks = []
        for model, _, seconds in cases:
            rows = measure(
                machine, model, float(seconds), arguments.runs, arguments.threads, options
            )
            print(*rows, sep="\n", flush=True)
            peaks += [run.peak_gflops for row in rows for run in row.runs]
    print(
        f"\nMeasured peak {statistics.median(peaks):.0f} GFLOP/s (median; "
        f"{min(peaks):.0f} to {max(peaks):.0f}). Operations are those of the plain path."
    )


if __name__ == "__main__":
    main()
