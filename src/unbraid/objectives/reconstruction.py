"""How far a signal is from what it is to be: the loss inside MixIT, RemixIT and Self-Remixing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config import check_number
from unbraid.objectives.assignment import (
    assign_freely,
    assign_within_equal_prompts,
    gather_sources,
)
from unbraid.objectives.losses import negative_snr


class _Resolution(NamedTuple):
    """A short-time Fourier transform: its size, window and hop in samples."""

    n_fft: int
    window: int
    hop: int


#: Of the multi-resolution loss.
_RESOLUTIONS = (
    _Resolution(512, 400, 160),
    _Resolution(1024, 800, 320),
    _Resolution(2048, 1600, 640),
)


@dataclass(frozen=True)
class ReconstructionConfig:
    """What is minimised between a signal and what it is to be.

    Attributes:
        kind: ``snr`` for the negative SNR with a ceiling, for any sound; ``mrl1`` for that and
            the distances of waveforms and magnitudes, for speech.
        max_snr_db: A signal better than this earns no more.
        eps: Added to every power.
    """

    kind: Literal["snr", "mrl1"] = "snr"
    max_snr_db: float = 30.0
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_number("loss.max_snr_db", self.max_snr_db)
        # Silence has no logarithm.
        check_number("loss.eps", self.eps, above=0)


def reconstruction_loss(
    estimates: Float[Tensor, "*#axes time"],
    references: Float[Tensor, "*#axes time"],
    config: ReconstructionConfig,
) -> Float[Tensor, "*#axes"]:
    """The loss of each estimate against the reference at its place; -30 for a perfect one.

    Source: S. Wisdom et al., "What's all the fuss about free universal sound separation data?",
        ICASSP 2021, for ``snr``; K. Saijo, T. Ogawa, "Self-Remixing", ICASSP 2023, for ``mrl1``.
    """
    loss = negative_snr(estimates, references, config.max_snr_db, config.eps)
    return loss if config.kind == "snr" else loss + multi_resolution_l1(estimates, references)


def multi_resolution_l1(
    estimates: Float[Tensor, "*#axes time"], references: Float[Tensor, "*#axes time"]
) -> Float[Tensor, "*#axes"]:
    """Mean absolute error of waveforms, plus that of magnitudes averaged over three transforms.

    It grows with the level of the signals, so they should be normalised. Both ends are padded with
    zeros, so that signals may be shorter than a window.
    """
    loss = (estimates - references).abs().mean(dim=-1)
    for resolution in _RESOLUTIONS:
        difference = _magnitudes(estimates, resolution) - _magnitudes(references, resolution)
        loss = loss + difference.abs().mean(dim=(-2, -1)) / len(_RESOLUTIONS)
    return loss


def in_best_order(
    estimates: Float[Tensor, "batch source time"],
    references: Float[Tensor, "batch source time"],
    config: ReconstructionConfig,
    prompt_indices: Int[Tensor, "batch source"] | None = None,
) -> Float[Tensor, "batch source time"]:
    """The estimates in that order in which their mean loss is lowest.

    Every order is tried, so there should be few sources. The choice has no gradient.

    Args:
        estimates: To be put in order.
        references: What they are held against.
        config: The loss.
        prompt_indices: Which prompt each source answers: only sources of equal prompts may trade
            places. None for a model that gives sources of any kind in any order.
    """
    with torch.no_grad():
        # One estimate after the other: spectra of all pairs would need much memory.
        pairwise = torch.stack(
            [
                reconstruction_loss(estimate.unsqueeze(1), references, config)
                for estimate in estimates.unbind(1)
            ],
            dim=1,
        )
    assignment = (
        assign_freely(pairwise)
        if prompt_indices is None
        else assign_within_equal_prompts(pairwise, prompt_indices)
    )
    return gather_sources(estimates, assignment)


def _magnitudes(
    signals: Float[Tensor, "*axes time"], resolution: _Resolution
) -> Float[Tensor, "*axes bin frame"]:
    spectra = torch.stft(
        signals.reshape(-1, signals.shape[-1]),
        resolution.n_fft,
        resolution.hop,
        resolution.window,
        torch.hann_window(resolution.window, device=signals.device),
        pad_mode="constant",
        return_complex=True,
    )
    power = spectra.real.square() + spectra.imag.square()
    # The slope of a root is infinite at zero; silence has to have gradients too.
    magnitudes = power.clamp_min(torch.finfo(power.dtype).tiny).sqrt()
    return magnitudes.reshape(*signals.shape[:-1], *magnitudes.shape[1:])
