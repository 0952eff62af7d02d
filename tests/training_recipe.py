"""A recipe for a small model on the synthetic pool."""

from pathlib import Path
from typing import Any

import yaml

from conftest import tiny_config
from synthetic_pool import POOLS
from unbraid.config import dump


def write_recipe(folder: Path, manifest: Path, **changes: Any) -> Path:
    recipe = {
        "name": "small",
        "model": dump(tiny_config()),
        "data": {
            "manifest": str(manifest),
            "pools": POOLS,
            "cache_dir": str(manifest.parent / "cache"),
        },
        "recipe": {"crop_s": 0.5, "common_bandwidth_probability": 0.5, "tone_probability": 0.5},
        "optimiser": {"warmup_steps": 2, "average_decay": 0.9},
        "validation": {"every_steps": 4, "mixtures_per_scene": 1},
        "batch_size": 2,
        "max_steps": 6,
        "checkpoint_every_steps": 2,
        "accelerator": "cpu",
        **changes,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path
