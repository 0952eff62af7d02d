"""Losses to train with; lower is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.objectives.assignment import assign_within_equal_prompts


@dataclass(frozen=True)
class SnrLossConfig:
    """The thresholded SNR loss of TUSS.

    Attributes:
        max_snr_db: An estimate better than this earns no more.
        silence_weight: Weight of sources whose reference is silent.
        silence_threshold: Against what the leak into a silent source is measured:
            ``group`` for the summed references of its prompt (the released behaviour: a
            silent reference alone in its group has no threshold), ``mixture`` for the sum
            of all references (what the formula suggests).
        eps: Added to every power.
    """

    max_snr_db: float = 30.0
    silence_weight: float = 0.1
    silence_threshold: Literal["group", "mixture"] = "group"
    eps: float = 1e-7


def thresholded_snr_loss(
    estimates: Float[Tensor, "batch source time"],
    references: Float[Tensor, "batch source time"],
    prompt_indices: Int[Tensor, "batch source"],
    config: SnrLossConfig = SnrLossConfig(),
) -> Float[Tensor, ""]:
    """Negative SNR with a ceiling, silent references included, the best order inside equal prompts.

    With e an estimate, r its reference, m the sum that silence is measured against and
    tau = 10^(-max_snr_db / 10), powers summed over time:

        r not silent:  10 log10(|e - r|^2 + tau |r|^2 + eps) - 10 log10(|r|^2 + eps)
        r silent:      w 10 log10(|e|^2 + tau |m|^2 + eps)

    Returns:
        The mean over all sources of all items, in dB.

    Source: K. Saijo et al., "Task-aware unified source separation", ICASSP 2025, section
        3.3, after S. Wisdom et al., "What's all the fuss about free universal sound
        separation data?", ICASSP 2021.
    """
    pairwise = _pairwise_loss(estimates, references, prompt_indices, config)
    assignment = assign_within_equal_prompts(pairwise.detach(), prompt_indices)
    return pairwise.gather(1, assignment.unsqueeze(1)).mean()


def negative_snr(
    estimates: Float[Tensor, "*#axes time"],
    references: Float[Tensor, "*#axes time"],
    max_snr_db: float,
    eps: float,
) -> Float[Tensor, "*#axes"]:
    """Negative SNR with a ceiling, of each estimate against the reference at its place, in dB.

    10 log10(|e - r|^2 + tau |r|^2 + eps) - 10 log10(|r|^2 + eps), with tau = 10^(-max_snr_db / 10)
    and powers summed over time. Finite, and so is its gradient, where all is silent.
    """
    power = references.square().sum(dim=-1)
    error = (estimates - references).square().sum(dim=-1)
    tau = 10.0 ** (-max_snr_db / 10.0)
    return 10.0 * (torch.log10(error + tau * power + eps) - torch.log10(power + eps))


def matched_mse_loss(
    estimates: Float[Tensor, "batch source frame bin"],
    references: Float[Tensor, "batch source frame bin"],
    prompt_indices: Int[Tensor, "batch source"],
) -> Float[Tensor, ""]:
    """Mean squared error of images, the best order inside equal prompts.

    Every order is tried, which finds what the Hungarian algorithm finds, and sooner for the few
    sources of a mixture.

    Returns:
        The mean over all values of all sources of all items; another order of references with
        equal prompts changes nothing.

    Source: P. Reddy et al., "AudioSlots", ICASSP SASB workshop 2023, after N. Carion et al.,
        "End-to-end object detection with transformers", ECCV 2020.
    """
    difference = estimates.unsqueeze(2) - references.unsqueeze(1)
    pairwise = difference.square().mean(dim=(-2, -1))
    # Small decisions, one after the other: not for a GPU.
    assignment = assign_within_equal_prompts(pairwise.detach().cpu(), prompt_indices.cpu())
    return pairwise.gather(1, assignment.to(pairwise.device).unsqueeze(1)).mean()


def _pairwise_loss(
    estimates: Float[Tensor, "batch source time"],
    references: Float[Tensor, "batch source time"],
    prompt_indices: Int[Tensor, "batch source"],
    config: SnrLossConfig,
) -> Float[Tensor, "batch estimate reference"]:
    """The loss of every estimate against every reference."""
    tau = 10.0 ** (-config.max_snr_db / 10.0)
    power = references.square().sum(dim=-1)
    active = negative_snr(
        estimates.unsqueeze(2), references.unsqueeze(1), config.max_snr_db, config.eps
    )

    if config.silence_threshold == "group":
        same = (prompt_indices.unsqueeze(2) == prompt_indices.unsqueeze(1)).to(references)
        context = torch.einsum("bsr,brt->bst", same, references)
    else:
        context = references.sum(dim=1, keepdim=True).expand_as(references)
    leak = estimates.square().sum(dim=-1).unsqueeze(2)
    silent = config.silence_weight * _db(
        leak + tau * context.square().sum(dim=-1).unsqueeze(1), config
    )
    return torch.where(power.unsqueeze(1) > 0, active, silent)


def _db(power: Float[Tensor, "*axes"], config: SnrLossConfig) -> Float[Tensor, "*axes"]:
    return 10.0 * torch.log10(power + config.eps)
