"""Entries, exits and prompts compared at small scale: same recordings, steps and body.

Four small models learn from the train split of a manifest, by the recipe of ``mini``, with the
same mixtures in the same order:

- TUSS with the band-split codec of the paper, 61 bands;
- TUSS with spectral feature compression (SFC-CA), the same 61 bands;
- the same with 64 musical bands;
- the unconditional baseline with the band-split codec: four outputs that nobody names.

Then each is measured on those mixtures of the frozen pool that have no more than four sources
(``unbraid evaluate pool``, all prompts at once; the unconditional one in the best order of all).
Training takes hours on a processor and goes on where it was stopped: compression costs far more
there than the band split does.

    python bench/family.py train VARIANT [--steps 2000] [--runs runs/family]
    python bench/family.py measure [--runs runs/family] [--manifest manifest.csv]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from material import RECIPE, SHARED, has_manifest
from our_worker import count_operations
from unbraid.apps.evaluate import EvaluateOptions, Evaluation, evaluate, model_to_evaluate
from unbraid.apps.open_pool import pool_tasks
from unbraid.checkpoints import model_info
from unbraid.config import load_mapping
from unbraid.evaluation.comparing import compare_runs
from unbraid.evaluation.summary import Interval
from unbraid.evaluation.tables import format_interval
from unbraid.training.run import train

MOST_SOURCES = 4
# Operations are counted over so many seconds, with so many prompts.
_COUNTED_S = 6.0
_COUNTED_PROMPTS = 3
SEED = 3


def _stack(num_blocks: int, frame_kernel: int) -> dict[str, Any]:
    return {
        "num_blocks": num_blocks,
        "dim": 32,
        "num_groups": 4,
        "num_heads": 2,
        "attention_dim": 32,
        "freq_feed_forward": [{"hidden_dim": 64, "kernel_size": 3}],
        "frame_feed_forward": [{"hidden_dim": 64, "kernel_size": frame_kernel}],
    }


_BAND_SPLIT = {"bands": "bs-roformer"}
_COMPRESSION = {"inner_dim": 32, "num_heads": 2}  # heads of 16 channels, as published

#: Variant → what its model is; the body has two blocks and one.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "band-split": {"codec": _BAND_SPLIT},
    "sfc-61": {"codec": {**_COMPRESSION, "bands": "bs-roformer"}},
    "sfc-64": {"codec": {**_COMPRESSION, "bands": "musical", "num_bands": 64}},
    "unconditional": {"codec": _BAND_SPLIT, "num_outputs": MOST_SOURCES},
}


def recipe(variant: str, manifest: Path, steps: int) -> dict[str, Any]:
    """The recipe of ``mini`` with another model and fewer steps."""
    config = load_mapping(RECIPE)
    settings = dict(VARIANTS[variant])
    model: dict[str, Any] = {
        "sample_rate": 48000,
        "stft": {"n_fft": 2048, "hop_length": 1024, "window": "sqrt_hann"},
        "segment_s": 8.0,
        "overlap_s": 2.0,
    }
    if variant == "unconditional":
        model |= {
            "architecture": "unconditional",
            "outputs": ["source"] * MOST_SOURCES,
            "network": settings | {"first": _stack(2, 3), "second": _stack(1, 3)},
        }
    else:
        stacks = {"cross_prompt": _stack(2, 1), "extraction": _stack(1, 3)}
        model |= {"architecture": "tuss", "network": settings | stacks}
    config |= {
        "name": variant,
        "description": "one of four that are compared",
        "model": model,
        "seed": SEED,
        "max_steps": steps,
        "batch_size": 2,
        "checkpoint_every_steps": 100,
        "num_threads": 1,
        "validation": {"every_steps": 1000, "mixtures_per_scene": 4},
    }
    config["data"] |= {"manifest": str(manifest.absolute())}
    config["optimiser"] |= {"decay_steps": steps // 3}
    # What an output without a name should do with a sound that nobody asked for, nobody knows.
    config["recipe"] |= {"unasked_probability": 0.0, "crop_s": 1.5}
    return config


def train_one(variant: str, manifest: Path, steps: int, runs: Path) -> None:
    folder = runs / variant
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(variant, manifest, steps)), encoding="utf-8")
    train(path, (), folder / "run", resume=True)


def measure(runs: Path, manifest: Path, out: Path) -> dict[str, Evaluation]:
    done = {}
    for variant in VARIANTS:
        bundle = runs / variant / "run" / "bundle"
        if not bundle.exists():
            print(f"{variant}: not trained yet")
            continue
        info = model_info(str(bundle))
        evaluated = model_to_evaluate(bundle, variant, info.digest, "cpu")
        task = pool_tasks(manifest, most_sources=MOST_SOURCES)[0]
        done[variant] = evaluate(task, evaluated, EvaluateOptions(out, num_cases=0))
        per_second = count_operations(str(bundle), _COUNTED_S, _COUNTED_PROMPTS) / _COUNTED_S
        print(
            f"{variant}: {info.num_parameters:,} parameters, "
            f"{per_second / 1e9:.2f} G operations per second of audio",
            flush=True,
        )
    return done


def print_table(done: Mapping[str, Evaluation]) -> None:
    measure = "si_sdr_db"
    rows = [row for row in next(iter(done.values())).summary.rows if row.kind != "prompt"]
    print(f"| mixtures | mixture | {' | '.join(done)} |")
    print("|---" * (2 + len(done)) + "|")
    for number, first in enumerate(rows):
        cells = [
            format_interval(
                [row for row in each.summary.rows if row.kind != "prompt"][number].improvement[
                    measure
                ],
                measure,
                is_signed=True,
            )
            for each in done.values()
        ]
        print(f"| {first.title} | {first.mixture[measure]:.1f} | {' | '.join(cells)} |")
    base = done.get("band-split")
    for variant, each in done.items():
        if base is not None and each is not base:
            found = compare_runs(base.run, each.run, [measure]).rows[0]
            difference: Interval = found.difference
            print(
                f"\n{variant} over band-split: "
                f"{format_interval(difference, measure, is_signed=True, more_decimals=1)} dB, "
                f"p = {found.p_value:.2g}, {found.num_pairs} sources"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, default=SHARED / "data" / "manifest.csv")
    parser.add_argument("--runs", type=Path, default=Path("runs/family"))
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("variant", choices=list(VARIANTS))
    training.add_argument("--steps", type=int, default=2000)
    commands.add_parser("measure")
    arguments = parser.parse_args()
    if not has_manifest(arguments.manifest):
        return
    torch.manual_seed(0)
    if arguments.command == "train":
        train_one(arguments.variant, arguments.manifest, arguments.steps, arguments.runs)
    else:
        print_table(measure(arguments.runs, arguments.manifest, arguments.runs / "results"))


if __name__ == "__main__":
    main()
