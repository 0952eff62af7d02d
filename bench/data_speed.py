"""How fast mixtures are made: rendered hours per hour of a core, for each way of reading.

Recordings are read from the cache (all decoded into one file), directly (each crop decoded when
it is asked for), and from shards that ``unbraid data pack`` writes, as FLAC and as 16-bit samples.
Mixtures of 6 s, the published length, are drawn by the recipe of the default model from the
training split of the manifest, at 48 kHz; a batch is four of them. Opening (decoding into the
cache, taking notes, packing) is timed beside it: it is paid once, before the first step.

Prints a Markdown table. ``alone`` means that batches are made in the process that asks for them.
The first figure counts the time that cores worked, in all processes, so that it does not suffer
from what runs beside; the one in brackets is what came out by the clock, from all cores together.

    taskset -c 0 python bench/data_speed.py [--seconds 30] [--every 20] [--manifest manifest.csv]
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader, IterableDataset

from machine import describe_machine
from material import CROP_S, RECIPE, has_manifest, parser_of
from unbraid.apps.pack_corpus import PackSettings, pack_corpus
from unbraid.data.access import Access, ClipSource
from unbraid.data.catalogue import open_splits
from unbraid.data.dynamic import DynamicMixtures, MixtureBatch, MixtureStream
from unbraid.data.manifest import format_manifest, read_manifest
from unbraid.data.shards import ShardFormat
from unbraid.mixing.recipe import Clip, Planner
from unbraid.training.config import TrainConfig
from unbraid.training.recipe_files import load_recipe

BATCH_SIZE = 4
SEED = 2026
WARMUP_BATCHES = 2


@dataclass(frozen=True)
class Opened:
    """A way of reading that is ready.

    Attributes:
        clips: Clips by prompt.
        source: Reads them.
        opening_s: How long a core worked to get there from the recordings.
        disk_bytes: What it keeps on the disk.
    """

    clips: dict[str, tuple[Clip, ...]]
    source: ClipSource
    opening_s: float
    disk_bytes: int


def thinned(manifest: Path, every: int, folder: Path) -> Path:
    """A manifest of every so-many-th recording of each kind and split."""
    kept = []
    seen: Counter[tuple[str, str]] = Counter()
    for row in read_manifest(manifest):
        if seen[row.kind, row.split] % every == 0:
            kept.append(dataclasses.replace(row, path=str(manifest.parent.absolute() / row.path)))
        seen[row.kind, row.split] += 1
    path = folder / "manifest.csv"
    path.write_text(format_manifest(kept), encoding="utf-8")
    return path


def open_in(
    folder: Path, manifest: Path, config: TrainConfig, access: Access, storage: ShardFormat
) -> Opened:
    start = time.process_time()
    where = manifest
    if access == "shards":
        where = folder / "packed"
        pack_corpus(manifest, where, PackSettings(config.model.sample_rate, 64, storage))
    ((clips, source),) = open_splits(
        str(where),
        Path(),
        config.data.pools,
        [config.data.train_split],
        config.model.sample_rate,
        folder,
        access,
    )
    opening_s = time.process_time() - start
    disk_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Opened(clips, source, opening_s, disk_bytes)


class Timed(IterableDataset[tuple[MixtureBatch, float, float]]):
    """Makes mixtures; tells how long they are and how long a core worked on them."""

    def __init__(self, stream: MixtureStream, sample_rate: int) -> None:
        self._stream = stream
        self._sample_rate = sample_rate

    def __iter__(self) -> Iterator[tuple[MixtureBatch, float, float]]:
        batches = iter(self._stream)
        while True:
            start = time.process_time()
            batch = next(batches)
            made_s = batch.mixture.numel() / self._sample_rate
            yield batch, made_s, time.process_time() - start


@dataclass(frozen=True)
class Speed:
    """Seconds of mixture that are made in a second of a core, and in a second of the clock."""

    per_core: float
    by_the_clock: float


def measure(opened: Opened, config: TrainConfig, workers: int, seconds: float) -> Speed:
    prompts = sorted({*config.model.prompts, *config.data.pools, *config.recipe.composed})
    source = DynamicMixtures(
        Planner(config.recipe, opened.clips),
        opened.source.read,
        config.model.sample_rate,
        {name: number for number, name in enumerate(prompts)},
        BATCH_SIZE,
        SEED,
    )
    timed = Timed(MixtureStream(source), config.model.sample_rate)
    batches = iter(DataLoader(timed, batch_size=None, num_workers=workers))
    # What workers made ahead while nobody counted is used up before.
    for _ in range(WARMUP_BATCHES * max(1, workers)):
        next(batches)
    start, own_start = time.perf_counter(), time.process_time()
    made_s = worked_s = 0.0
    while time.perf_counter() - start < seconds:
        _, length_s, core_s = next(batches)
        made_s += length_s
        worked_s += core_s if workers else 0.0
    worked_s += time.process_time() - own_start
    return Speed(made_s / worked_s, made_s / (time.perf_counter() - start))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each figure")
    parser.add_argument("--every", type=int, default=1, help="take every so-many-th recording")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    if not has_manifest(arguments.manifest):
        return
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    config = load_recipe(RECIPE)
    config = dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, crop_s=CROP_S))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(describe_machine())
    print(f"{cores} core(s) at hand; mixtures of {config.recipe.crop_s:g} s")
    names = [
        "alone" if workers == 0 else f"{workers} worker" + "s" * (workers > 1)
        for workers in arguments.workers
    ]
    print(f"| read from | to open | on disk | {' | '.join(names)} |")
    print("|---|---|---|" + "---|" * len(names))
    ways: tuple[tuple[str, Access, ShardFormat], ...] = (
        ("cache", "cache", "flac"),
        ("direct", "direct", "flac"),
        ("shards, flac", "shards", "flac"),
        ("shards, int16", "shards", "int16"),
    )
    for title, access, storage in ways:
        with tempfile.TemporaryDirectory() as beside, tempfile.TemporaryDirectory() as folder:
            manifest = thinned(arguments.manifest, arguments.every, Path(beside))
            opened = open_in(Path(folder), manifest, config, access, storage)
            speeds = []
            for workers in arguments.workers:
                speed = measure(opened, config, workers, arguments.seconds)
                speeds.append(f"{speed.per_core:.0f} ({speed.by_the_clock:.0f})")
            cells = (
                title,
                f"{opened.opening_s:.0f} s",
                f"{opened.disk_bytes / 1e6:,.0f} MB",
                *speeds,
            )
            print(f"| {' | '.join(cells)} |", flush=True)
            del opened


if __name__ == "__main__":
    main()
