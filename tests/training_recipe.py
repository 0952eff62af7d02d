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


CLASSES = {
    "voice": ["speech/*"],
    "door": ["sfx/door"],
    "rain": ["sfx/rain"],
    "drum": ["music_stems/drums"],
}
TAGGER = {
    "mel": {
        "sample_rate": 16000,
        "stft": {"n_fft": 256, "hop_length": 80, "window": "hann", "padding": "reflect"},
        "num_mels": 8,
        "low_hz": 50,
        "high_hz": 7000,
    },
    "num_classes": 4,
    "image_size": 32,
    "patch_size": 2,
    "dim": 4,
    "depths": [2, 1],
    "num_heads": [2, 2],
    "window": 4,
}
BY_EXAMPLE = {
    "model": {
        "architecture": "query_unet",
        "sample_rate": 16000,
        "stft": {"n_fft": 256, "hop_length": 128},
        "prompts": [],
        "network": {"channels": [4, 6, 8], "query_dim": 8},
        "tagger": TAGGER,
    },
    "recipe": {"crop_s": 0.5, "first": {}, "following": {}, "num_sources": {2: 1}, "composed": {}},
    "tagging": {
        "batch_size": 3,
        "max_steps": 4,
        "optimiser": {"warmup_steps": 1, "average_decay": 0.5},
    },
    "validation": {
        "every_steps": 2,
        "mixtures_per_scene": 1,
        "scenes": [{"prompts": ["voice", "rain"]}],
    },
}


def write_by_example(folder: Path, manifest: Path, **changes: Any) -> Path:
    data = {
        "manifest": str(manifest),
        "pools": CLASSES,
        "cache_dir": str(manifest.parent / "cache"),
    }
    return write_recipe(folder, manifest, data=data, **{**BY_EXAMPLE, **changes})
