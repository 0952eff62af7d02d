"""Learning to tag: which classes are heard in a mixture of one or two of them?

Source: K. Chen, X. Du, B. Zhu, Z. Ma, T. Berg-Kirkpatrick, S. Dubnov, "HTS-AT: a hierarchical
    token-semantic audio transformer", ICASSP 2022, arXiv 2202.00874, for the loss; D. S. Park et
    al., "SpecAugment", Interspeech 2019, for the stripes.
Differs: Where the paper mixes two clips up and their labels in proportion, both classes of a
    mixture count in full here: both are heard. Stripes are filled with the clip's mean level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch
from unbraid.errors import ConfigError
from unbraid.models.taggers.htsat import Htsat


@dataclass(frozen=True)
class StripeConfig:
    """SpecAugment: what is hidden from the tagger while it learns.

    Attributes:
        count: Stripes of each kind.
        frames: Width of a stripe along time: any from 0 to this.
        bands: The same along frequency.
    """

    count: int = 2
    frames: int = 64
    bands: int = 8

    def __post_init__(self) -> None:
        if min(self.count, self.frames, self.bands) < 0:
            raise ConfigError("stripes cannot be fewer or narrower than none.")


def tagging_loss(tagger: Htsat, batch: MixtureBatch, stripes: StripeConfig) -> Float[Tensor, ""]:
    """Binary cross-entropy over all classes.

    Args:
        tagger: In training mode.
        batch: Mixtures; their prompts are the classes.
        stripes: What is hidden.
    """
    scores = tagger.from_log_mel(striped(tagger.log_mel(batch.mixture), stripes)).clip_scores
    targets = torch.zeros_like(scores).scatter(1, batch.prompt_indices, 1.0)
    # In float32 and away from 0 and 1, where the logarithm of a rounded score has no end.
    safe = scores.float().clamp(1e-6, 1.0 - 1e-6)
    return torch.nn.functional.binary_cross_entropy(safe, targets.float())


@torch.no_grad()
def tagging_accuracy(tagger: Htsat, batch: MixtureBatch) -> Float[Tensor, ""]:
    """Share of the classes heard in the batch that are among as many highest scores."""
    scores = tagger(batch.mixture).clip_scores
    found = scores.topk(batch.prompt_indices.shape[1], dim=1).indices
    is_found = (found[:, :, None] == batch.prompt_indices[:, None]).any(dim=1)
    return is_found.float().mean()


def striped(
    levels: Float[Tensor, "batch frame mel"], stripes: StripeConfig
) -> Float[Tensor, "batch frame mel"]:
    """Spectrograms with stripes at random places, others in each."""
    batch, frames, bands = levels.shape
    device = levels.device
    hidden = torch.zeros(batch, frames, bands, dtype=torch.bool, device=device)
    for _ in range(stripes.count):
        hidden |= _stripe(batch, frames, stripes.frames, device)[:, :, None]
        hidden |= _stripe(batch, bands, stripes.bands, device)[:, None, :]
    return torch.where(hidden, levels.mean(dim=(1, 2), keepdim=True), levels)


def _stripe(batch: int, length: int, widest: int, device: torch.device) -> Bool[Tensor, "batch l"]:
    width = torch.randint(min(widest, length) + 1, (batch, 1), device=device)
    start = (torch.rand(batch, 1, device=device) * (length - width + 1)).long()
    place: Int[Tensor, "l"] = torch.arange(length, device=device)
    return (place >= start) & (place < start + width)
