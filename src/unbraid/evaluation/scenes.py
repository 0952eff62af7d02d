"""Measuring a model while it learns: on fixed mixtures, scene by scene."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch, render_batch
from unbraid.dsp.masks import ideal_ratio_masks
from unbraid.dsp.stft import StftConfig, istft, stft
from unbraid.mixing.recipe import MixPlan
from unbraid.mixing.render import ClipReader
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.assignment import assign_within_equal_prompts, gather_sources
from unbraid.objectives.measures import si_sdr_db


@dataclass(frozen=True)
class SceneScore:
    """Mean SI-SDR over all sources of all mixtures of one scene, in dB.

    Attributes:
        scene: The prompts, joined.
        num_mixtures: How many mixtures were measured.
        mixture_db: With the mixture itself as every estimate.
        estimate_db: With the model's estimates, the best order inside equal prompts.
        oracle_db: With ideal ratio masks at the model's own STFT.
        by_prompt_db: Improvement over the mixture, prompt by prompt.
    """

    scene: str
    num_mixtures: int
    mixture_db: float
    estimate_db: float
    oracle_db: float
    by_prompt_db: Mapping[str, float]

    @property
    def improvement_db(self) -> float:
        """What the model gains over doing nothing."""
        return self.estimate_db - self.mixture_db


def evaluate_scenes(
    model: WaveformModel,
    plans: Mapping[str, tuple[MixPlan, ...]],
    read_clip: ClipReader,
    device: torch.device | str = "cpu",
) -> tuple[SceneScore, ...]:
    """Measure a model on the mixtures of each scene."""
    rows = {name: row for row, name in enumerate(model.prompts.names)}
    scores = []
    for scene, scene_plans in plans.items():
        batches = (
            render_batch((plan,), read_clip, model.sample_rate, rows) for plan in scene_plans
        )
        scores.append(_score_scene(model, scene, batches, device))
    return tuple(scores)


def _score_scene(
    model: WaveformModel,
    scene: str,
    batches: Iterable[MixtureBatch],
    device: torch.device | str,
) -> SceneScore:
    before, after, oracle, prompts = [], [], [], []
    for batch in batches:
        with torch.inference_mode():
            estimates = model(batch.mixture.to(device), batch.prompt_indices.to(device)).cpu()
        after.append(best_si_sdr_db(estimates, batch))
        before.append(mixture_si_sdr_db(batch))
        oracle.append(si_sdr_db(_oracle(batch, model.config.stft), batch.references))
        prompts.append(batch.prompt_indices)
    gains = (torch.cat(after) - torch.cat(before)).flatten()
    indices = torch.cat(prompts).flatten()
    return SceneScore(
        scene=scene,
        num_mixtures=len(after),
        mixture_db=float(torch.cat(before).mean()),
        estimate_db=float(torch.cat(after).mean()),
        oracle_db=float(torch.cat(oracle).mean()),
        by_prompt_db={
            model.prompts.names[index]: float(gains[indices == index].mean())
            for index in indices.unique().tolist()
        },
    )


def mixture_si_sdr_db(batch: MixtureBatch) -> Float[Tensor, "batch source"]:
    """SI-SDR of the unprocessed mixture against every reference."""
    return si_sdr_db(batch.mixture.unsqueeze(1).expand_as(batch.references), batch.references)


def best_si_sdr_db(
    estimates: Float[Tensor, "batch source time"], batch: MixtureBatch
) -> Float[Tensor, "batch source"]:
    """SI-SDR of the estimates, in the best order inside equal prompts."""
    sources = estimates.shape[1]
    pairwise = si_sdr_db(
        estimates.unsqueeze(2).expand(-1, -1, sources, -1),
        batch.references.unsqueeze(1).expand(-1, sources, -1, -1),
    )
    assignment = assign_within_equal_prompts(-pairwise, batch.prompt_indices)
    return si_sdr_db(gather_sources(estimates, assignment), batch.references)


def _oracle(batch: MixtureBatch, config: StftConfig) -> Float[Tensor, "batch source time"]:
    count, sources, length = batch.references.shape
    references = stft(batch.references.flatten(0, 1), config).unflatten(0, (count, sources))
    masked = ideal_ratio_masks(references) * stft(batch.mixture, config).unsqueeze(1)
    return istft(masked.flatten(0, 1), config, length).unflatten(0, (count, sources))
