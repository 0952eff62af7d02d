"""Quality of a model on five kinds of mixtures, as a Markdown table.

Mixtures are drawn from the evaluation split of a manifest, by the pools and at the levels of
the recipe of ``mini``, always the same ones. Beside the model stand the unprocessed mixture
and the oracle: ideal ratio masks at the model's own STFT.

    python bench/quality.py [--model mini] [--mixtures 40] [--manifest manifest.csv]
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

import unbraid
from material import has_manifest, open_evaluation, parser_of
from unbraid.checkpoints import resolve_model
from unbraid.data.fixed import fixed_plans
from unbraid.evaluation.scenes import SceneScore, evaluate_scenes
from unbraid.mixing.recipe import Planner, Scene

#: The scenes of the model card, whatever a recipe trains or validates on.
SCENES = (
    Scene(("speech", "sfx-mix")),
    Scene(("speech", "music-mix")),
    Scene(("speech", "sfx-mix", "music-mix")),
    Scene(("speech", "speech")),
    Scene(("vocals", "drums", "bass", "other")),
)
SEED = 2026


def measure(model_name: str, manifest: Path, per_scene: int) -> tuple[SceneScore, ...]:
    model = unbraid.load_bundle(resolve_model(model_name)).model
    recipe, clips, store = open_evaluation(manifest, model.sample_rate)
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
    parser = parser_of(__doc__)
    parser.add_argument("--mixtures", type=int, default=40, help="of each kind")
    arguments = parser.parse_args()
    if not has_manifest(arguments.manifest):
        return
    torch.manual_seed(0)
    started = time.perf_counter()
    print_table(measure(arguments.model, arguments.manifest, arguments.mixtures))
    print(f"({time.perf_counter() - started:.0f} s)")


if __name__ == "__main__":
    main()
