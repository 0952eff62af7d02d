"""What the quality benchmarks measure on: mixtures of the evaluation split of a manifest."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import unbraid
from unbraid.data.catalogue import open_pools
from unbraid.data.manifest import read_manifest
from unbraid.data.store import ClipStore
from unbraid.folders import user_cache_dir
from unbraid.mixing.recipe import Clip, MixRecipe, Scene
from unbraid.training.recipe_files import load_recipe

RECIPE = Path(unbraid.__file__).parent / "training" / "recipes" / "mini.yaml"
SHARED = Path(os.environ.get("UNBRAID_SHARED", Path(__file__).parents[2] / "shared"))

CROP_S = 6.0

#: The scenes that the package's constants were chosen on.
SCENES = (
    Scene(("speech", "sfx-mix")),
    Scene(("speech", "music-mix")),
    Scene(("speech", "sfx-mix", "music-mix")),
    Scene(("speech", "speech")),
    Scene(("vocals", "drums", "bass", "other")),
)
SEED = 2026

#: Evaluation hears the levels of training, and everything else as it was recorded.
_AS_RECORDED: Mapping[str, Any] = {
    "crop_s": CROP_S,
    "tone_probability": 0.0,
    "common_bandwidth_probability": 0.0,
    "random_bandwidth_probability": 0.0,
    "absent_probability": 0.0,
    "unasked_probability": 0.0,
    "same_song_probability": 1.0,
}


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The arguments that all of these benchmarks take."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mini")
    parser.add_argument("--manifest", type=Path, default=SHARED / "data" / "manifest.csv")
    return parser


def has_manifest(manifest: Path) -> bool:
    """Whether there is anything to measure on; says so where there is not."""
    if not manifest.is_file():
        print(f"skipped: {manifest} is not on this machine; name one with --manifest")
    return manifest.is_file()


def open_evaluation(
    manifest: Path, sample_rate: int, prompts: Sequence[str] | None = None, **changes: Any
) -> tuple[MixRecipe, dict[str, tuple[Clip, ...]], ClipStore]:
    """The recipe to draw by, the clips by prompt, and the store that reads them.

    Args:
        manifest: Of the recordings.
        sample_rate: What clips are read at.
        prompts: The only ones that are wanted; None for all.
        changes: Fields of the recipe that shall be different.
    """
    config = load_recipe(RECIPE)
    clips, store = open_pools(
        manifest,
        read_manifest(manifest),
        {
            name: patterns
            for name, patterns in config.data.pools.items()
            if prompts is None or name in prompts
        },
        config.data.validation_split,
        sample_rate,
        user_cache_dir(),
    )
    return as_recorded(config.recipe, **changes), clips, store


def as_recorded(recipe: MixRecipe, **changes: Any) -> MixRecipe:
    """The recipe without what training does to sounds.

    Args:
        recipe: A recipe for training.
        changes: Fields of it that shall be different.
    """
    return dataclasses.replace(recipe, **{**_AS_RECORDED, **changes})
