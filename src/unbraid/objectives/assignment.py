"""Which estimate is compared with which reference."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.types import equal_prompt_groups


def assign_within_equal_prompts(
    pairwise_loss: Float[Tensor, "batch estimate reference"],
    prompt_indices: Int[Tensor, "batch source"],
) -> Int[Tensor, "batch source"]:
    """The best assignment when only outputs with equal prompts may trade places.

    Permutation-invariant training, restricted: two speakers may swap, a speaker and the
    music may not. Every permutation of a group is tried, so groups should stay small.

    Args:
        pairwise_loss: Loss of every estimate against every reference.
        prompt_indices: The prompt of each source; equal numbers form a group.

    Returns:
        For each reference, the index of the estimate that it is compared with.

    Source: K. Saijo et al., "Task-aware unified source separation", ICASSP 2025, after
        M. Kolbaek et al., "Multitalker speech separation with utterance-level
        permutation invariant training", TASLP 2017.
    """
    batch, _, sources = pairwise_loss.shape
    chosen = torch.arange(sources, device=pairwise_loss.device).repeat(batch, 1)
    for item in range(batch):
        for group in equal_prompt_groups(prompt_indices[item].tolist()):
            if len(group) == 1:
                continue
            references = list(group)
            options = list(itertools.permutations(group))
            totals = torch.stack(
                [pairwise_loss[item, list(option), references].sum() for option in options]
            )
            best = options[int(totals.argmin())]
            chosen[item, references] = chosen.new_tensor(best)
    return chosen


def assign_freely(
    pairwise_loss: Float[Tensor, "batch estimate reference"],
) -> Int[Tensor, "batch reference"]:
    """The best assignment when any estimate may answer any reference; some may answer none.

    For models that give sources without saying what they are.

    Args:
        pairwise_loss: Loss of every estimate against every reference; at least as many
            estimates as references, and few.

    Returns:
        For each reference, the index of the estimate that it is compared with.
    """
    _, num_estimates, num_references = pairwise_loss.shape
    options = torch.tensor(
        list(itertools.permutations(range(num_estimates), num_references)),
        device=pairwise_loss.device,
    )
    totals = pairwise_loss[:, options, torch.arange(num_references)].sum(dim=2)
    return options[totals.argmin(dim=1)]


def gather_sources(
    estimates: Float[Tensor, "batch estimate time"], assignment: Int[Tensor, "batch source"]
) -> Float[Tensor, "batch source time"]:
    """Put the estimates into the order of the references they were assigned to."""
    return estimates.gather(1, assignment.unsqueeze(-1).expand(-1, -1, estimates.shape[-1]))
