"""Measuring a model while it learns: SI-SDR of batches, in the best order."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch
from unbraid.objectives.assignment import (
    assign_freely,
    assign_within_equal_prompts,
    gather_sources,
)
from unbraid.objectives.measures import si_sdr_db

#: More than any two values of SI-SDR differ by: keeps estimates from answering other prompts.
_NEVER_DB = 1e4


def mixture_si_sdr_db(batch: MixtureBatch) -> Float[Tensor, "batch source"]:
    """SI-SDR of the unprocessed mixture against every reference; channels behind each other."""
    references = batch.references.flatten(2)
    return si_sdr_db(batch.mixture.flatten(1).unsqueeze(1).expand_as(references), references)


def best_si_sdr_db(
    estimates: Float[Tensor, "batch estimate *channel time"],
    batch: MixtureBatch,
    asked: Int[Tensor, "batch estimate"] | None = None,
) -> Float[Tensor, "batch source"]:
    """SI-SDR of the estimates, in the best order inside equal prompts; channels behind each other.

    Args:
        estimates: One per source, or more of which some answer none.
        batch: The mixtures and their sources.
        asked: The prompt of each estimate; None for that of each source, or, where there are
            more estimates than sources, for any.
    """
    estimates, references = estimates.flatten(2), batch.references.flatten(2)
    count, sources = estimates.shape[1], references.shape[1]
    pairwise = si_sdr_db(
        estimates.unsqueeze(2).expand(-1, -1, sources, -1),
        references.unsqueeze(1).expand(-1, count, -1, -1),
    )
    if count > sources:
        if asked is not None:
            differs = asked.unsqueeze(2) != batch.prompt_indices.unsqueeze(1)
            pairwise = pairwise - _NEVER_DB * differs
        assignment = assign_freely(-pairwise)
    else:
        assignment = assign_within_equal_prompts(-pairwise, batch.prompt_indices)
    return si_sdr_db(gather_sources(estimates, assignment), references)
