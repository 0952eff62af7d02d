"""How time and memory grow with what is separated: a table, and a picture with ``--picture``.

Four things grow, one at a time, from three prompts and one chunk of 8 s of one channel:

- the chunk: one chunk through the model alone;
- the prompts: the same;
- the channels: a recording of one chunk through ``Separator.separate_stream``;
- the recording: the same, in one channel; finished samples are let go.

Every point is a process of its own, imports and weights included in its memory, not in its
time. The picture draws seconds of work per second of audio, so a flat line is a cost that
grows just as the audio does.

    python bench/growth.py [--models mini medium] [--threads 2] [--runs 3] [--picture growth.png]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workers import OURS, Worker, repeated

CHUNK_S = 8.0
NUM_PROMPTS = 3

#: What grows → the axis of the picture, and its values.
AXES = {
    "chunk": ("length of the chunk, s", (2, 4, 8, 15, 30)),
    "prompts": ("prompts", (1, 2, 4, 8)),
    "channels": ("channels", (1, 2, 4, 6)),
    "recording": ("length of the recording, s", (8, 15, 30, 120, 480)),
}
#: What takes a minute with mini takes ten with the published sizes.
_LONGEST_OF_OTHER_MODELS_S = 30

#: Another run of a point is not begun once its runs took so long.
_AT_MOST_S = 8.0


@dataclass(frozen=True)
class Point:
    """One measured point: the median of the runs and the peak of memory.

    Attributes:
        model: Name of the model.
        axis: What grows, a key of ``AXES``.
        value: How much of it there is.
        audio_s: Seconds that were separated.
        wall_s: Seconds that it took.
        peak_mib: Of the whole process.
    """

    model: str
    axis: str
    value: float
    audio_s: float
    wall_s: float
    peak_mib: float

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio."""
        return self.wall_s / self.audio_s

    def __str__(self) -> str:
        return (
            f"| {self.model} | {self.axis} | {self.value:g} | {self.wall_s:.2f} s "
            f"| {self.real_time_factor:.3f} | {self.peak_mib:.0f} MiB |"
        )


def measure(model: str, axis: str, value: float, threads: int, runs: int, precision: str) -> Point:
    """One point, in a process of its own."""
    with Worker(OURS, threads) as worker:
        audio_s = CHUNK_S
        if axis in ("chunk", "prompts"):
            audio_s = value if axis == "chunk" else CHUNK_S
            num_prompts = int(value) if axis == "prompts" else NUM_PROMPTS
            worker.ask(
                "prepare_chunk",
                model=model,
                path="fast",
                precision=precision,
                seconds=audio_s,
                num_prompts=num_prompts,
            )
        else:
            audio_s = value if axis == "recording" else CHUNK_S
            num_channels = int(value) if axis == "channels" else 1
            worker.ask(
                "prepare_stream",
                model=model,
                seconds=audio_s,
                num_channels=num_channels,
                num_prompts=NUM_PROMPTS,
            )
        walls = repeated(lambda: float(worker.ask("run")), runs, _AT_MOST_S)
        return Point(model, axis, value, audio_s, statistics.median(walls), worker.peak_mib)


def values_of(axis: str, model: str) -> tuple[float, ...]:
    """The values that one model is measured at."""
    _, values = AXES[axis]
    if axis == "recording" and model != "mini":
        return tuple(value for value in values if value <= _LONGEST_OF_OTHER_MODELS_S)
    return values


def draw(points: Sequence[Point], title: str, path: Path) -> None:
    """A column for each thing that grows: time above, memory below."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot, ticker

    models = list(dict.fromkeys(point.model for point in points))
    grown = list(dict.fromkeys(point.axis for point in points))
    figure, rows = pyplot.subplots(
        2,
        len(grown),
        figsize=(1 + 3 * len(grown), 5.6),
        sharex="col",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for column, axis in enumerate(grown):
        label, _ = AXES[axis]
        time_axes, memory_axes = rows[0][column], rows[1][column]
        for color, model in enumerate(models):
            line = [point for point in points if (point.model, point.axis) == (model, axis)]
            at = [point.value for point in line]
            style = {"marker": "o", "markersize": 4, "color": f"C{color}", "label": model}
            time_axes.plot(at, [point.real_time_factor for point in line], **style)
            memory_axes.plot(at, [point.peak_mib for point in line], **style)
        if axis == "recording":
            time_axes.set_xscale("log")
        ticks = sorted({point.value for point in points if point.axis == axis})
        memory_axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
        memory_axes.xaxis.set_minor_locator(ticker.NullLocator())
        memory_axes.set_xlabel(label)
        for axes in (time_axes, memory_axes):
            axes.grid(alpha=0.3)
    # The models are a factor of ten and more apart in time, not in memory.
    first_time, first_memory = rows[0][0], rows[1][0]
    first_time.set_yscale("log")
    first_time.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    first_time.yaxis.set_major_formatter("{x:g}")
    first_time.yaxis.set_minor_locator(ticker.NullLocator())
    first_memory.set_ylim(bottom=0)
    first_time.set_ylabel("seconds of work\nper second of audio")
    first_memory.set_ylabel("peak memory, MiB")
    first_time.legend()
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["mini", "medium"])
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=AXES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--precision", default="float32", help="of the model on single chunks")
    parser.add_argument("--picture", type=Path, help="where to draw the table")
    arguments = parser.parse_args()
    with Worker(OURS, arguments.threads) as worker:
        machine = worker.ask("describe_machine")
    print(f"{machine}\n{arguments.threads} threads, median of up to {arguments.runs} runs\n")
    print("| model | what grows | to | wall | RTF | peak memory |")
    print("|---|---|---|---|---|---|")
    points = []
    for model in arguments.models:
        for axis in arguments.axes:
            for value in values_of(axis, model):
                point = measure(
                    model, axis, value, arguments.threads, arguments.runs, arguments.precision
                )
                points.append(point)
                print(point, flush=True)
    if arguments.picture is not None:
        title = f"{machine}; threads: {arguments.threads}"
        draw(points, title, arguments.picture)
        print(f"drawn to {arguments.picture}", file=sys.stderr)


if __name__ == "__main__":
    main()
