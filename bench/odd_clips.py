"""How well clips of another sound are noticed among those that somebody wants to teach with.

Clips are those of ESC-10 in a manifest, which the tagger has not heard. The threshold is the one
that one lesson in ten of a single class falls below, on folds 1 to 3; what it finds is measured
on folds 4 and 5.

    python bench/odd_clips.py [--manifest manifest.csv] [--draws 1000]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from apt import FOLD
from material import SHARED, has_manifest
from unbraid.apps.example_clips import read_clip
from unbraid.apps.odd_clips import UNLIKE, Parting, least_alike, likeness, our_tagger
from unbraid.data.manifest import read_manifest

#: Of the models that people teach; the tagger has a rate of its own.
RATE = 48_000
#: So many clips of one class and so many of another.
ALIKE = ((3, 0), (5, 0), (10, 0))
MIXED = ((4, 1), (9, 1), (3, 2), (3, 3), (5, 5))
FALSE_ALARMS = 0.1

#: Class → places of its clips.
Places = Mapping[str, Sequence[int]]


def clips_of(manifest: Path) -> tuple[list[Path], list[Places]]:
    """All clips; those of folds 1 to 3, and those of folds 4 and 5, by class."""
    paths: list[Path] = []
    parts: list[dict[str, list[int]]] = [{}, {}]
    for row in read_manifest(manifest):
        if fold := FOLD.search(row.path):
            parts[int(fold[1]) > 3].setdefault(row.kind, []).append(len(paths))
            paths.append(manifest.parent / row.path)
    return paths, list(parts)


def lessons(
    alike: torch.Tensor, classes: Places, counts: tuple[int, int], draws: int
) -> list[Parting]:
    """Clips of a class, with some of another one behind them, parted in two."""
    rng = random.Random(f"{counts}")
    parted = []
    for _ in range(draws):
        drawn = zip(rng.sample(sorted(classes), 2), counts, strict=True)
        places = [place for kind, count in drawn for place in rng.sample(classes[kind], count)]
        parted.append(least_alike(alike[places][:, places]))
    return parted


def share(flags: Sequence[bool]) -> str:
    return f"{100 * sum(flags) / len(flags):.0f} %"


def measure(manifest: Path, draws: int) -> None:
    paths, (chosen_on, measured_on) = clips_of(manifest)
    clips = [read_clip(path, RATE).samples for path in paths]
    begun = time.perf_counter()
    tagger = our_tagger()
    loaded = time.perf_counter()
    alike = likeness(clips, RATE, tagger)
    each = 1000 * (time.perf_counter() - loaded) / len(clips)
    print(f"{len(clips)} clips; tagger loaded in {loaded - begun:.1f} s, {each:.0f} ms a clip")
    between = [one.between for c in ALIKE for one in lessons(alike, chosen_on, c, draws)]
    found = float(torch.tensor(between).quantile(FALSE_ALARMS))
    print(f"threshold: {found:.2f} by folds 1 to 3, {UNLIKE:.2f} in the package\n")
    print("| clips of one class + another | warned | exactly these named |")
    print("|---|---|---|")
    for counts in (*ALIKE, *MIXED):
        parted = lessons(alike, measured_on, counts, draws)
        groups = {tuple(range(counts[0])), tuple(range(counts[0], sum(counts)))}
        warned = share([one.between < UNLIKE for one in parted])
        if counts[1]:
            right = share([one.between < UNLIKE and one.fewer in groups for one in parted])
        else:
            named = [len(one.fewer) * (one.between < UNLIKE) for one in parted]
            right = f"{100 * sum(named) / len(named) / counts[0]:.0f} % of clips, wrongly"
        print(f"| {counts[0]} + {counts[1]} | {warned} | {right} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, default=SHARED / "data" / "manifest.csv")
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args()
    if has_manifest(arguments.manifest):
        measure(arguments.manifest, arguments.draws)


if __name__ == "__main__":
    main()
