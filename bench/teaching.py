"""How well a sound is taught from a few clips: vectors, losses and starts compared.

Sounds are classes of effects of a manifest; clips to teach with come from its train split, and
what is taught is measured on recordings of its eval split: other clips of the sound, mixed with
speech, effects and music that nobody taught or was taught with. ``mini`` has heard the train
split, the clips to teach with among them, as ``sfx`` among hundreds of other effects.

    python bench/teaching.py [--manifest manifest.csv] [--clips 5] [--steps 200] [--sounds ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import random
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from material import SHARED, has_manifest
from unbraid.apps.teach import TeachOptions, teach
from unbraid.checkpoints import Bundle, load_bundle, resolve_model
from unbraid.data.catalogue import open_pools
from unbraid.data.dynamic import MixtureBatch, render_batch
from unbraid.data.fixed import fixed_plans
from unbraid.data.manifest import Recording, read_manifest
from unbraid.folders import user_cache_dir
from unbraid.mixing.recipe import MixRecipe, Planner, Scene
from unbraid.models.inference import for_inference
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.measures import si_sdr_db

SOUNDS = ("rooster", "dog_bark", "clock_tick")
NEW = "taught"
SCENES = (("speech", NEW), ("sfx", NEW), (NEW, "music-mix"))
PER_SCENE = 8

#: What is compared → options that differ from the default.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "one vector": {"vectors": "one"},
    "l1": {"loss": "l1"},
    "random start": {"start": "random"},
}


def checks(
    manifest: Path, recordings: list[Recording], sound: str, model: WaveformModel
) -> list[MixtureBatch]:
    """Mixtures of the eval split with the sound in them."""
    kind = f"sfx/{sound}"
    pools = {
        NEW: [kind],
        "speech": ["speech/*"],
        "sfx": ["sfx/*", f"!{kind}", "!sfx/ambience_*", "!sfx/*crowd*"],
        "music-mix": ["music/mix*"],
    }
    rate = model.sample_rate
    clips, store = open_pools(manifest, recordings, pools, "eval", rate, user_cache_dir())
    recipe = MixRecipe(
        crop_s=3.0,
        gain_db=dict.fromkeys(pools, (-10.0, 0.0)),
        composed={},
        scenes=tuple(Scene(prompts) for prompts in SCENES),
    )
    plans = fixed_plans(Planner(recipe, clips), recipe.scenes, PER_SCENE, store.read, rate, 0)
    rows = {name: row for row, name in enumerate((*model.prompts.names, NEW))}
    return [
        render_batch((plan,), store.read, rate, rows) for some in plans.values() for plan in some
    ]


@torch.no_grad()
def gain_db(model: WaveformModel, batches: list[MixtureBatch]) -> float:
    """Mean SI-SDR improvement of the sound."""
    fast = for_inference(model)
    gains = []
    for batch in batches:
        place = int((batch.prompt_indices[0] == len(model.prompts.names) - 1).nonzero()[0])
        estimate = fast(batch.mixture, batch.prompt_indices)[0, place]
        reference = batch.references[0, place]
        before = si_sdr_db(batch.mixture[0], reference)
        gains.append(float(si_sdr_db(estimate, reference) - before))
    return fmean(gains)


def options(changes: Mapping[str, Any], steps: int) -> TeachOptions:
    changes = dict(changes)
    tuning = dataclasses.replace(
        TeachOptions().tuning, num_steps=steps, loss=changes.pop("loss", "snr")
    )
    return TeachOptions(minutes=60.0, tuning=tuning, **changes)


def measure(bundle: Bundle, manifest: Path, sounds: list[str], clips: int, steps: int) -> None:
    recordings = list(read_manifest(manifest))
    print(f"| {clips} clips of | prompt | mixture + dB | {' | '.join(VARIANTS)} | seconds |")
    print("|---" * (len(VARIANTS) + 4) + "|", flush=True)
    for sound in sounds:
        batches = checks(manifest, recordings, sound, bundle.model)
        pool = [row for row in recordings if row.kind == f"sfx/{sound}" and row.split == "train"]
        chosen = random.Random(0).sample(pool, clips)
        paths = [manifest.parent / row.path for row in chosen]
        cells = []
        seconds = []
        start = ""
        first_db = float("nan")
        for name, changes in VARIANTS.items():
            lesson = teach(bundle, NEW, paths, options(changes, steps))
            cells.append(f"{gain_db(lesson.model, batches):+.1f}")
            seconds.append(lesson.seconds)
            if name == "default":
                start = lesson.start
                row = bundle.model.prompts.names.index(start)
                vector = bundle.model.prompts.weight[row].detach()[None]
                first_db = gain_db(bundle.model.with_prompts({NEW: vector}), batches)
        print(
            f"| {sound} | {start} | {first_db:+.1f} | {' | '.join(cells)} | {fmean(seconds):.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, default=SHARED / "data" / "manifest.csv")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--clips", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--sounds", nargs="*", default=list(SOUNDS))
    arguments = parser.parse_args()
    if not has_manifest(arguments.manifest):
        return
    bundle = load_bundle(resolve_model(arguments.model))
    measure(bundle, arguments.manifest, arguments.sounds, arguments.clips, arguments.steps)


if __name__ == "__main__":
    main()
