"""What bfloat16 and the fast path change on real mixtures, as a Markdown table.

Every row separates mixtures of five kinds and is compared with the plain modules in
float32: the signal-to-noise ratio of its stems against theirs, over all mixtures, and how much
better or worse its SI-SDR against the references is. ``GPU`` is what GPUs do under
``--precision bfloat16``, with the roundings of this processor.

    python bench/precision.py [--model mini] [--mixtures 10] [--manifest manifest.csv]
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import unbraid
from material import SCENES, SEED, has_manifest, open_evaluation, parser_of
from unbraid.checkpoints import resolve_model
from unbraid.data.dynamic import MixtureBatch, render_batch
from unbraid.data.fixed import fixed_plans
from unbraid.evaluation.batches import best_si_sdr_db
from unbraid.mixing.recipe import Planner
from unbraid.models.inference import for_inference
from unbraid.objectives.measures import snr_db

Separate = Callable[[MixtureBatch], Tensor]


def open_batches(
    manifest: Path, model: unbraid.WaveformModel, per_scene: int
) -> list[MixtureBatch]:
    recipe, clips, store = open_evaluation(manifest, model.sample_rate)
    plans = fixed_plans(
        Planner(recipe, clips), SCENES, per_scene, store.read, model.sample_rate, SEED
    )
    rows = {name: row for row, name in enumerate(model.prompts.names)}
    return [
        render_batch((plan,), store.read, model.sample_rate, rows)
        for scene in plans.values()
        for plan in scene
    ]


def separate_with(
    model: unbraid.WaveformModel, context: contextlib.AbstractContextManager[object]
) -> Separate:
    def separate(batch: MixtureBatch) -> Tensor:
        with torch.inference_mode(), context:
            return model(batch.mixture, batch.prompt_indices)

    return separate


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--mixtures", type=int, default=10, help="of each kind")
    arguments = parser.parse_args()
    if not has_manifest(arguments.manifest):
        return
    model = unbraid.load_bundle(resolve_model(arguments.model)).model.eval()
    batches = open_batches(arguments.manifest, model, arguments.mixtures)
    plain = separate_with(model, contextlib.nullcontext())
    ways = {
        "fast path, float32": separate_with(for_inference(model), contextlib.nullcontext()),
        "fast path, bfloat16": separate_with(
            for_inference(model, "bfloat16"), contextlib.nullcontext()
        ),
        "GPU, bfloat16": separate_with(model, torch.autocast("cpu", torch.bfloat16)),
    }
    exact = [plain(batch) for batch in batches]
    exact_db = [best_si_sdr_db(stems, batch) for stems, batch in zip(exact, batches, strict=True)]
    print(f"{arguments.model}, {len(batches)} mixtures\n")
    print("| way | SNR, median | lowest tenth | SI-SDR, mean change | largest change |")
    print("|---|---|---|---|---|")
    for name, separate in ways.items():
        ratios: list[float] = []
        changes: list[float] = []
        for batch, stems, before_db in zip(batches, exact, exact_db, strict=True):
            found = separate(batch)
            ratios += snr_db(found, stems).flatten().tolist()
            changes += (best_si_sdr_db(found, batch) - before_db).flatten().tolist()
        print(
            f"| {name} | {statistics.median(ratios):.1f} dB "
            f"| {statistics.quantiles(ratios, n=10)[0]:.1f} dB "
            f"| {statistics.fmean(changes):+.4f} dB | {max(map(abs, changes)):.3f} dB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
