"""Quality of a model on five kinds of mixtures, as a Markdown table.

Mixtures are drawn from the evaluation split of a manifest, by the pools and at the levels of
the recipe of ``mini``, always the same ones. Beside the model stand the unprocessed mixture
and the oracle: ideal ratio masks at the model's own STFT.

    python bench/quality.py [--model mini] [--mixtures 40] [--manifest manifest.csv]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from pathlib import Path

import torch

import unbraid
from unbraid.checkpoints import resolve_model
from unbraid.data.catalogue import open_pools
from unbraid.data.fixed import fixed_plans
from unbraid.data.manifest import read_manifest
from unbraid.evaluation.benchmarks import SceneScore, evaluate_scenes
from unbraid.folders import user_cache_dir
from unbraid.mixing.recipe import Planner, Scene
from unbraid.training.run import load_config

RECIPE = Path(unbraid.__file__).parent / "training" / "recipes" / "mini.yaml"
SHARED = Path(os.environ.get("UNBRAID_SHARED", Path(__file__).parents[2] / "shared"))

#: The scenes of the model card, whatever a recipe trains or validates on.
SCENES = (
    Scene(("speech", "sfx-mix")),
    Scene(("speech", "music-mix")),
    Scene(("speech", "sfx-mix", "music-mix")),
    Scene(("speech", "speech")),
    Scene(("vocals", "drums", "bass", "other")),
)
SEED = 2026
CROP_S = 6.0


def measure(model_name: str, manifest: Path, per_scene: int) -> tuple[SceneScore, ...]:
    config = load_config(RECIPE)
    model = unbraid.load_bundle(resolve_model(model_name)).model
    clips, store = open_pools(
        manifest,
        read_manifest(manifest),
        config.data.pools,
        config.data.validation_split,
        model.sample_rate,
        user_cache_dir(),
    )
    # Evaluation hears the levels of training, and everything else as it was recorded.
    recipe = dataclasses.replace(
        config.recipe,
        crop_s=CROP_S,
        tone_probability=0.0,
        common_bandwidth_probability=0.0,
        random_bandwidth_probability=0.0,
        absent_probability=0.0,
        unasked_probability=0.0,
        same_song_probability=1.0,
    )
    plans = fixed_plans(
        Planner(recipe, clips), SCENES, per_scene, store.read, model.sample_rate, SEED
    )
    return evaluate_scenes(model, plans, store.read)


def print_table(scores: tuple[SceneScore, ...]) -> None:
    print("| prompts | mixtures | mixture | model | improvement | oracle | by prompt |")
    print("|---|---|---|---|---|---|---|")
    for score in scores:
        by_prompt = ", ".join(f"{name} {gain:+.1f}" for name, gain in score.by_prompt_db.items())
        print(
            f"| {score.scene} | {score.num_mixtures} | {score.mixture_db:.1f} "
            f"| {score.estimate_db:.1f} | {score.improvement_db:+.1f} | {score.oracle_db:.1f} "
            f"| {by_prompt} |"
        )
    mean = sum(score.improvement_db for score in scores) / len(scores)
    print(f"\nmean improvement {mean:+.2f} dB SI-SDR")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--manifest", type=Path, default=SHARED / "data" / "manifest.csv")
    parser.add_argument("--mixtures", type=int, default=40, help="of each kind")
    arguments = parser.parse_args()
    if not arguments.manifest.is_file():
        print(f"skipped: {arguments.manifest} is not on this machine; name one with --manifest")
        return
    torch.manual_seed(0)
    started = time.perf_counter()
    print_table(measure(arguments.model, arguments.manifest, arguments.mixtures))
    print(f"({time.perf_counter() - started:.0f} s)")


if __name__ == "__main__":
    main()
