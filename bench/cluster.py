"""How many hours of audio a node separates in an hour, and what a million hours would take.

Recordings of the demo scene go through ``separate-many``: with processes of this machine, with a
Ray cluster of one node, and from and into a store (``file://``: fetched, claimed, put). A node is
this machine with one worker for each core. The rate as it was is the sum over its workers of audio
per work, with decoding, fetching, writing and putting, without the start, which only the wall has.
The rate undisturbed is what the same processor time gives where no other work is on the cores.

Then it extrapolates: node-hours and, for a price per node-hour that you give, money. That is
arithmetic on the measured rate, with the assumptions printed beside it.

    python bench/cluster.py [--recordings 8] [--seconds 60] [--model mini] [--price 0.10]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from machine import describe_machine
from scene import write_scene
from unbraid.apps.separate_files import SeparateOptions
from unbraid.checkpoints import model_info
from unbraid.cluster.crew import Crew
from unbraid.cluster.local_crew import LocalCrew
from unbraid.cluster.ray_crew import RayCrew
from unbraid.cluster.separate_many import ManyOptions, separate_many
from unbraid.cluster.table import Summary
from unbraid.cluster.worker import Setup
from unbraid.separation.settings import SeparationConfig

PROMPTS = ("speech", "sfx-mix", "music-mix")
HOURS = 1_000_000
NODES = 1000


@dataclass(frozen=True)
class Plan:
    """What so much audio takes.

    Attributes:
        node_hours: Hours of one node.
        days: How long that is on so many nodes.
        price: What it costs, in the unit of the price of a node-hour.
    """

    node_hours: float
    days: float
    price: float


def plan(
    audio_hours: float,
    rate: float,
    *,
    lost_share: float,
    num_nodes: int,
    price_per_node_hour: float,
) -> Plan:
    """Extrapolate in proportion.

    Args:
        audio_hours: How much audio.
        rate: Hours of audio that a node separates in an hour.
        lost_share: The share of node-hours in which nothing is separated: starts, what is done
            again after losses, waiting for the last recordings.
        num_nodes: How many nodes work at a time.
        price_per_node_hour: In any unit.
    """
    node_hours = audio_hours / rate / (1 - lost_share)
    return Plan(node_hours, node_hours / num_nodes / 24, node_hours * price_per_node_hour)


def rate_of(summary: Summary) -> float:
    """Hours of audio per hour of the node that all workers are on."""
    return sum(worker.audio_s / worker.work_s for worker in summary.workers)


def undisturbed_rate_of(summary: Summary, num_cores: int) -> float:
    """The same, if each core did nothing else."""
    audio_s = sum(worker.audio_s for worker in summary.workers)
    return num_cores * audio_s / sum(worker.cpu_s for worker in summary.workers)


def measure(
    model: str, manifest: str, out: str, open_crew: Callable[[Setup, int], Crew]
) -> Summary:
    info = model_info(model)
    result = separate_many(
        model,
        SeparationConfig(),
        SeparateOptions(info.name, info.digest),
        ManyOptions(manifest, PROMPTS, out),
        open_crew,
    )
    if result.exit_code:
        sys.exit(f"a recording failed; see {result.table}")
    return result.summary


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mini")
    parser.add_argument("--recordings", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--lost", type=float, default=0.1, help="share of node-hours")
    parser.add_argument("--price", type=float, default=0.10, help="of a node-hour")
    given = parser.parse_args()
    # Ray's workers give way to all others; beside other work that would be what is measured.
    os.environ.setdefault("RAY_worker_niceness", "0")

    def local(setup: Setup, _: int) -> Crew:
        return LocalCrew(setup, ["cpu"] * given.workers, 1)

    def ray(setup: Setup, _: int) -> Crew:
        return RayCrew(setup, "local", uses_gpus=False, num_workers=given.workers)

    print(describe_machine())
    load = f"{os.getloadavg()[0]:.1f}"
    print(f"{given.workers} workers; load before the first run, from others: {load}\n")
    print(
        "| road | audio | wall with start | processor time per second of audio "
        "| hours of audio per node-hour, as it was | undisturbed |"
    )
    print("|---|---|---|---|---|---|")
    rates = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(given.recordings):
            write_scene(folder / "in" / f"{number}.wav", given.seconds, 48_000, 2)
        names = [f"{number}.wav" for number in range(given.recordings)]
        (folder / "in" / "list.txt").write_text("\n".join(names))
        here = str(folder / "in" / "list.txt")
        roads = {
            "processes": (here, str(folder / "out"), local),
            "processes, through a store": (f"file://{here}", f"file://{folder}/there", local),
        }
        if importlib.util.find_spec("ray") is not None:
            roads["Ray"] = (here, str(folder / "ray"), ray)
        for road, (manifest, out, crew) in roads.items():
            summary = measure(given.model, manifest, out, crew)
            rates[road] = undisturbed_rate_of(summary, given.workers)
            cpu_s = sum(worker.cpu_s for worker in summary.workers)
            print(
                f"| {road} | {summary.audio_hours * 60:.1f} min | {summary.wall_s:.1f} s "
                f"| {cpu_s / summary.audio_hours / 3600:.3f} s | {rate_of(summary):.1f} "
                f"| {rates[road]:.1f} |",
                flush=True,
            )
    rate = min(rates.values())
    found = plan(
        HOURS,
        rate,
        lost_share=given.lost,
        num_nodes=NODES,
        price_per_node_hour=given.price,
    )
    print(
        f"\n{HOURS:,} hours at the lowest undisturbed rate, {rate:.1f}, with {given.lost:.0%} of "
        f"the node-hours lost: {found.node_hours:,.0f} node-hours, {found.days:.1f} days on "
        f"{NODES:,} nodes, {found.price:,.0f} at {given.price:g} per node-hour."
    )


if __name__ == "__main__":
    main()
