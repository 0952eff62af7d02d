"""Mixture-invariant training: learning to separate from mixtures that nobody has the sources of.

Two recordings are added up, the model separates the sum, and its outputs, added up the right way,
have to make the two recordings again. A batch is split in halves: item i is added to item i + B/2.

Source: S. Wisdom et al., "Unsupervised sound separation using mixture invariant training",
    NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor

from unbraid.config import check_number
from unbraid.dsp.levels import scale_of
from unbraid.errors import ConfigError
from unbraid.mixing.remix import consistent
from unbraid.objectives.mixit import (
    AssignmentSearch,
    SparsityNormaliser,
    mixit_loss,
    sparsity_loss,
)
from unbraid.objectives.reconstruction import ReconstructionConfig

#: Gives all sources of mixtures, in any order.
Separate: TypeAlias = Callable[[Float[Tensor, "batch time"]], Float[Tensor, "batch source time"]]


@dataclass(frozen=True)
class MixitConfig:
    """How a model learns by MixIT.

    Attributes:
        kind: What tells it from the other methods.
        search: How outputs are assigned to mixtures: ``efficient`` by least squares,
            ``exhaustive`` by trying all ways.
        sparsity_weight: Of the term that keeps the power in few outputs, so that fewer sources
            are split. The paper on it has 23 on FUSS, after a first stage without.
        sparsity_normaliser: ``sqrt`` as in the paper, ``count`` as in the released code.
        loss: The loss between a mixture and what is to be it.
        supervised_weight: Of the supervised loss; see ``TrainConfig.method``.
    """

    kind: Literal["mixit"] = "mixit"
    search: AssignmentSearch = "efficient"
    sparsity_weight: float = 0.0
    sparsity_normaliser: SparsityNormaliser = "sqrt"
    loss: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    supervised_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("sparsity_weight", "supervised_weight"):
            check_number(f"method.{name}", getattr(self, name), least=0)


def mixture_invariant_loss(
    separate: Separate, mixtures: Float[Tensor, "batch time"], config: MixitConfig
) -> Float[Tensor, ""]:
    """The loss of mixtures made again from the separated sums of two.

    Args:
        separate: What learns; the more outputs it has than a mixture has sources, the better.
        mixtures: An even number; each is brought to a standard deviation of 1, so that both of a
            sum are as loud.
        config: How.

    Raises:
        ConfigError: If the number of mixtures is odd.
    """
    if len(mixtures) % 2:
        raise ConfigError(
            f"MixIT adds up mixtures in pairs, but {len(mixtures)} of a batch reached this device; "
            "batch_size must be even for each device."
        )
    pairs = (mixtures / scale_of(mixtures)).unflatten(0, (2, -1)).transpose(0, 1)
    total = pairs.sum(dim=1)
    scale = scale_of(total)
    total, pairs = total / scale, pairs / scale.unsqueeze(1)
    estimates = consistent(separate(total), total)
    loss = mixit_loss(estimates, pairs, config.search, config.loss)
    if config.sparsity_weight:
        loss = loss + config.sparsity_weight * sparsity_loss(estimates, config.sparsity_normaliser)
    return loss
