"""Measuring a model while it learns: SI-SDR of batches, in the best order."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch
from unbraid.objectives.assignment import (
    assign_freely,
    assign_within_equal_prompts,
    gather_sources,
)
from unbraid.objectives.measures import si_sdr_db


def mixture_si_sdr_db(batch: MixtureBatch) -> Float[Tensor, "batch source"]:
    """SI-SDR of the unprocessed mixture against every reference."""
    return si_sdr_db(batch.mixture.unsqueeze(1).expand_as(batch.references), batch.references)


def best_si_sdr_db(
    estimates: Float[Tensor, "batch estimate time"], batch: MixtureBatch
) -> Float[Tensor, "batch source"]:
    """SI-SDR of the estimates, in the best order inside equal prompts.

    Where there are more estimates than sources, any of them may answer any source.
    """
    count, sources = estimates.shape[1], batch.references.shape[1]
    pairwise = si_sdr_db(
        estimates.unsqueeze(2).expand(-1, -1, sources, -1),
        batch.references.unsqueeze(1).expand(-1, count, -1, -1),
    )
    if count > sources:
        assignment = assign_freely(-pairwise)
    else:
        assignment = assign_within_equal_prompts(-pairwise, batch.prompt_indices)
    return si_sdr_db(gather_sources(estimates, assignment), batch.references)
