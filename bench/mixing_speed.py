"""What mixtures cost to make, with each augmentation: hours of them per hour of one core.

Mixtures of 6 s at 48 kHz are drawn and rendered from the evaluation split of a manifest, all by one
process with one thread, with every probability of the augmentation at 1. What is measured is the
time that the process works, so that others on the core hardly count. Prints a Markdown table.

    python bench/mixing_speed.py [--mixtures 40] [--rounds 3] [--manifest manifest.csv]
"""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from pathlib import Path

import torch

from machine import describe_machine
from material import CROP_S, has_manifest, open_evaluation, parser_of
from unbraid.data.catalogue import open_rooms
from unbraid.data.effects import EFFECTS
from unbraid.data.manifest import read_manifest
from unbraid.data.store import ClipStore
from unbraid.folders import user_cache_dir
from unbraid.mixing.augmentation import Augmentation, Codec
from unbraid.mixing.recipe import Clip, MixPlan, Planner
from unbraid.mixing.render import ClipReader, render

SAMPLE_RATE = 48_000
CODECS: tuple[Codec, ...] = ("mp3", "opus", "ogg", "m4a")


def augmentations() -> dict[str, Augmentation]:
    """One of each kind, always at work, and a recipe that uses them all now and then."""
    usual = Augmentation(
        polarity_probability=0.5,
        speed_probability=0.2,
        room_probability=0.3,
        source_codec_probability=0.05,
        clipping_probability=0.1,
        codec_probability=0.1,
        level_probability=0.5,
    )
    every = {
        "none": Augmentation(),
        "polarity": Augmentation(polarity_probability=1.0),
        "speed": Augmentation(speed_probability=1.0),
        "tempo": Augmentation(tempo_probability=1.0),
        "pitch": Augmentation(pitch_probability=1.0),
        "room, reverberant": Augmentation(room_probability=1.0),
        "room, early": Augmentation(room_probability=1.0, room_target="early"),
        "clipping": Augmentation(clipping_probability=1.0),
        "level": Augmentation(level_probability=1.0),
    }
    for codec in CODECS:
        bit_rates = {codec: Augmentation().codecs[codec]}
        every[f"{codec} of the mixture"] = Augmentation(codec_probability=1.0, codecs=bit_rates)
    every["codec of each source"] = Augmentation(source_codec_probability=1.0)
    every["all but tempo and pitch, now and then"] = usual
    if importlib.util.find_spec("python_stretch") is None:
        del every["tempo"], every["pitch"]
    return every


@dataclasses.dataclass(frozen=True)
class Stores:
    """Clips and rooms behind one reader."""

    clips: ClipStore
    rooms: ClipStore

    def read(self, key: str, start: int, count: int) -> torch.Tensor:
        """Samples of a clip or of a room."""
        return (self.clips if key in self.clips else self.rooms).read(key, start, count)


def every_room(manifest: Path) -> tuple[tuple[Clip, ...], ClipStore]:
    """The rooms of all splits: there are few."""
    recordings = [
        dataclasses.replace(recording, split="eval") for recording in read_manifest(manifest)
    ]
    return open_rooms(manifest, recordings, ["rir/*"], "eval", SAMPLE_RATE, user_cache_dir())


def seconds_of_work(plans: list[MixPlan], read_clip: ClipReader) -> float:
    started = time.process_time()
    for plan in plans:
        render(plan, read_clip, SAMPLE_RATE, EFFECTS)
    return time.process_time() - started


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--mixtures", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3, help="the fastest one counts")
    arguments = parser.parse_args()
    if not has_manifest(arguments.manifest):
        return
    torch.set_num_threads(1)
    rooms, room_store = every_room(arguments.manifest)
    recipe, clips, store = open_evaluation(arguments.manifest, SAMPLE_RATE)
    stores = Stores(store, room_store)
    plans: dict[str, list[MixPlan]] = {}
    drawing_s = {}
    for name, augmentation in augmentations().items():
        planner = Planner(dataclasses.replace(recipe, augmentation=augmentation), clips, rooms)
        started = time.process_time()
        plans[name] = [
            plan
            for number in range(arguments.mixtures)
            for plan in planner.draw_batch(1, seed=str(number))
        ]
        drawing_s[name] = time.process_time() - started
    seconds_of_work(plans["none"], stores.read)  # brings the clips into memory
    spent_s = {name: float("inf") for name in plans}
    for _ in range(arguments.rounds):
        for name in plans:
            spent_s[name] = min(spent_s[name], seconds_of_work(plans[name], stores.read))
    print(f"{describe_machine()}; {arguments.mixtures} mixtures, best of {arguments.rounds}\n")
    print("| augmentation | hours of mixtures per hour | per mixture | more than without |")
    print("|---|---|---|---|")
    for name in plans:
        total_s = spent_s[name] + drawing_s[name]
        each_ms = 1e3 * total_s / arguments.mixtures
        more_ms = each_ms - 1e3 * (spent_s["none"] + drawing_s["none"]) / arguments.mixtures
        cells = (
            name,
            f"{arguments.mixtures * CROP_S / total_s:,.0f}",
            f"{each_ms:.0f} ms",
            "" if name == "none" else f"{more_ms:+.0f} ms",
        )
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
