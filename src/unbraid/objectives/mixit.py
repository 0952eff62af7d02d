"""Mixture-invariant training: which outputs, added up, make which of the mixtures?

=====================  ==========================  ==============================================
paper                  here                        what it is
=====================  ==========================  ==============================================
x_1, x_2               mixtures                    mixtures nobody has the sources of
x_1 + x_2              their sum                   the mixture of mixtures that was separated
s_1 .. s_M             estimates                   outputs, more than a mixture has sources
A                      assignment                  for each output the mixture it belongs to
=====================  ==========================  ==============================================

Source: S. Wisdom et al., "Unsupervised sound separation using mixture invariant training",
    NeurIPS 2020; S. Wisdom et al., "Sparse, efficient, and semantic mixture invariant training:
    taming in-the-wild unsupervised sound separation", WASPAA 2021.
"""

from __future__ import annotations

import itertools
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.objectives.reconstruction import ReconstructionConfig, reconstruction_loss

#: How the assignment is found: ``exhaustive`` tries all 2^M, ``efficient`` solves one small system
#: of equations.
AssignmentSearch: TypeAlias = Literal["exhaustive", "efficient"]

#: What the sparsity is divided by: ``sqrt`` for the root of the number of outputs, which makes it
#: at most 1, as in the paper; ``count`` for their number, as in the release.
SparsityNormaliser: TypeAlias = Literal["sqrt", "count"]

#: Part of the mean power of the outputs that is added to the system of equations.
_RIDGE = 1e-5


def mixit_loss(
    estimates: Float[Tensor, "batch output time"],
    mixtures: Float[Tensor, "batch mixture time"],
    search: AssignmentSearch,
    config: ReconstructionConfig,
) -> Float[Tensor, ""]:
    """The loss of the mixtures made again from the outputs of their sum.

    Args:
        estimates: What was made of the sum of the mixtures.
        mixtures: Two, or more.
        search: How the assignment is found; it has no gradient.
        config: The loss between a mixture and what is to be it.

    Returns:
        Summed over the mixtures, the mean over the batch.
    """
    if search == "exhaustive":
        assignment = best_assignment(estimates, mixtures, config)
    else:
        assignment = least_squares_assignment(estimates, mixtures)
    made = add_up(estimates, assignment, mixtures.shape[1])
    return reconstruction_loss(made, mixtures, config).sum(dim=1).mean()


@torch.no_grad()
def best_assignment(
    estimates: Float[Tensor, "batch output time"],
    mixtures: Float[Tensor, "batch mixture time"],
    config: ReconstructionConfig,
) -> Int[Tensor, "batch output"]:
    """For each output the mixture it belongs to; the best of all there are.

    For M outputs and two mixtures that are 2^M: slow beyond eight or so.
    """
    batch, num_outputs, _ = estimates.shape
    num_mixtures = mixtures.shape[1]
    lowest = torch.full((batch,), torch.inf, device=estimates.device)
    best = torch.zeros(batch, num_outputs, dtype=torch.long, device=estimates.device)
    for option in itertools.product(range(num_mixtures), repeat=num_outputs):
        assignment = torch.tensor(option, device=estimates.device).expand(batch, -1)
        made = add_up(estimates, assignment, num_mixtures)
        loss = reconstruction_loss(made, mixtures, config).sum(dim=1)
        is_better = loss < lowest
        lowest = torch.where(is_better, loss, lowest)
        best = torch.where(is_better[:, None], assignment, best)
    return best


@torch.no_grad()
def least_squares_assignment(
    estimates: Float[Tensor, "batch output time"], mixtures: Float[Tensor, "batch mixture time"]
) -> Int[Tensor, "batch output"]:
    """For each output the mixture in which it has the larger weight.

    With S the outputs as rows and X the mixtures as rows, the weights W that minimise
    |S^T W - X^T|^2 solve S S^T W = S X^T. A little is added to the diagonal of S S^T, so that equal
    and silent outputs have weights, too.

    Differs: The release solves the least-squares problem itself. The equations are as small as
        there are outputs, and only which weight is larger counts.
    """
    with torch.autocast(estimates.device.type, enabled=False):
        outputs, mixtures = estimates.float(), mixtures.float()
        gram = outputs @ outputs.transpose(1, 2)
        power = gram.diagonal(dim1=1, dim2=2).mean(dim=1)
        ridge = (_RIDGE * power).clamp_min(torch.finfo(power.dtype).tiny)
        system = gram + ridge[:, None, None] * torch.eye(gram.shape[1], device=gram.device)
        weights = torch.linalg.solve_ex(system, outputs @ mixtures.transpose(1, 2)).result
    return weights.nan_to_num().argmax(dim=2)


def add_up(
    estimates: Float[Tensor, "batch output time"],
    assignment: Int[Tensor, "batch output"],
    num_mixtures: int,
) -> Float[Tensor, "batch mixture time"]:
    """Sum, for each mixture, the outputs that belong to it."""
    made = estimates.new_zeros(len(estimates), num_mixtures, estimates.shape[2])
    return made.scatter_add(1, assignment.unsqueeze(2).expand_as(estimates), estimates)


def sparsity_loss(
    estimates: Float[Tensor, "batch output time"], normaliser: SparsityNormaliser = "sqrt"
) -> Float[Tensor, ""]:
    """How evenly the power is spread over the outputs: lowest where one output has it all.

    With r_m the root mean square of an output, which counts as no less than 1e-4:
    sum_m r_m / sqrt(sum_m r_m^2), over the normaliser.

    Returns:
        The mean over the batch; with ``sqrt`` from 1/sqrt(M) to 1.
    """
    powers = estimates.square().mean(dim=-1).clamp_min(1e-8)
    spread = powers.sqrt().sum(dim=1) / powers.sum(dim=1).sqrt()
    num_outputs = estimates.shape[1]
    return spread.mean() / (num_outputs**0.5 if normaliser == "sqrt" else num_outputs)
