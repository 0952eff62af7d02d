"""Losses to train with; lower is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config import check_number
from unbraid.errors import ConfigError
from unbraid.objectives.assignment import assign_within_equal_prompts


@dataclass(frozen=True)
class SnrLossConfig:
    """The thresholded SNR loss of TUSS, and of SFC.

    Attributes:
        kind: What tells it from the other losses.
        max_snr_db: An estimate better than this earns no more.
        silence_weight: Weight of sources whose reference is silent.
        silence_threshold: Against what the leak into a silent source is measured:
            ``group`` for the summed references of its prompt (the released behaviour: a
            silent reference alone in its group has no threshold), ``mixture`` for the sum
            of all references (what the formula suggests).
        silent_below_db: A reference counts as silent if its power is not above this, relative
            to that of the sum of all references (SFC has -60); None for only those that are zero
            throughout.
        eps: Added to every power.
    """

    kind: Literal["snr"] = "snr"
    max_snr_db: float = 30.0
    silence_weight: float = 0.1
    silence_threshold: Literal["group", "mixture"] = "group"
    silent_below_db: float | None = None
    eps: float = 1e-7

    def __post_init__(self) -> None:
        check_number("loss.max_snr_db", self.max_snr_db)
        check_number("loss.silence_weight", self.silence_weight, least=0)
        check_number("loss.silent_below_db", self.silent_below_db, most=0)
        check_number("loss.eps", self.eps, above=0)


@dataclass(frozen=True)
class SiSnrLossConfig:
    """The scale-invariant SNR loss of TF-Locoformer, for separation.

    Attributes:
        kind: What tells it from the other losses.
        eps: Added to every power.
    """

    kind: Literal["si_snr"] = "si_snr"
    eps: float = 1e-7

    def __post_init__(self) -> None:
        check_number("loss.eps", self.eps, above=0)


@dataclass(frozen=True)
class SpectralLossConfig:
    """Distances of waveforms and magnitudes, the loss of TF-Locoformer for enhancement.

    Attributes:
        kind: What tells it from the other losses.
        windows: Lengths of the rectangular windows in samples; they move by half.
        time_weight: Share of the waveforms; the magnitudes have the rest.
        eps: Added to the power of an estimate.
    """

    kind: Literal["spectral"] = "spectral"
    windows: tuple[int, ...] = (256, 512, 768, 1024)
    time_weight: float = 0.5
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if not self.windows:
            raise ConfigError("loss.windows needs a window or more.")
        for window in self.windows:
            check_number("a length in loss.windows", window, least=2)
        check_number("loss.time_weight", self.time_weight, least=0, most=1)
        check_number("loss.eps", self.eps, above=0)


#: What a run can minimise.
LossConfig: TypeAlias = SnrLossConfig | SiSnrLossConfig | SpectralLossConfig


def separation_loss(
    estimates: Float[Tensor, "batch source *channel time"],
    references: Float[Tensor, "batch source *channel time"],
    prompt_indices: Int[Tensor, "batch source"],
    config: LossConfig,
) -> Float[Tensor, ""]:
    """The loss that a config names, with the best order inside equal prompts."""
    if isinstance(config, SnrLossConfig):
        return thresholded_snr_loss(estimates, references, prompt_indices, config)
    if isinstance(config, SiSnrLossConfig):
        return si_snr_loss(estimates, references, prompt_indices, config)
    return spectral_loss(estimates, references, prompt_indices, config)


def thresholded_snr_loss(
    estimates: Float[Tensor, "batch source *channel time"],
    references: Float[Tensor, "batch source *channel time"],
    prompt_indices: Int[Tensor, "batch source"],
    config: SnrLossConfig = SnrLossConfig(),
) -> Float[Tensor, ""]:
    """Negative SNR with a ceiling, silent references included, the best order inside equal prompts.

    With e an estimate, r its reference, m the sum that silence is measured against and
    tau = 10^(-max_snr_db / 10), powers summed over time:

        r not silent:  10 log10(|e - r|^2 + tau |r|^2 + eps) - 10 log10(|r|^2 + eps)
        r silent:      w 10 log10(|e|^2 + tau |m|^2 + eps)

    Of several channels each has a loss of its own, and a source the mean over them.

    Returns:
        The mean over all sources of all items, in dB.

    Source: K. Saijo et al., "Task-aware unified source separation", ICASSP 2025, section
        3.3, after S. Wisdom et al., "What's all the fuss about free universal sound
        separation data?", ICASSP 2021.
    """
    channels = zip(_channels(estimates), _channels(references), strict=True)
    pairwise = torch.stack(
        [_pairwise_loss(one, other, prompt_indices, config) for one, other in channels]
    ).mean(dim=0)
    assignment = assign_within_equal_prompts(pairwise.detach(), prompt_indices)
    return pairwise.gather(1, assignment.unsqueeze(1)).mean()


def si_snr_loss(
    estimates: Float[Tensor, "batch source *channel time"],
    references: Float[Tensor, "batch source *channel time"],
    prompt_indices: Int[Tensor, "batch source"],
    config: SiSnrLossConfig = SiSnrLossConfig(),
) -> Float[Tensor, ""]:
    """Negative scale-invariant SNR, the best order inside equal prompts.

    With e and r without their means and p = <e, r> r / |r|^2, the part of e along r:

        -10 log10 (|p|^2 + eps) / (|e - p|^2 + eps)

    A silent reference has no direction: the less of an estimate there is, the lower its loss.

    Returns:
        The mean over channels and sources of all items, in dB.

    Source: J. Le Roux, S. Wisdom, H. Erdogan, J. R. Hershey, "SDR - half-baked or well done?",
        ICASSP 2019; K. Saijo et al., "TF-Locoformer", IWAENC 2024, section 4.
    """
    channels = zip(_channels(estimates), _channels(references), strict=True)
    pairwise = torch.stack(
        [_pairwise_si_snr_loss(one, other, config.eps) for one, other in channels]
    ).mean(dim=0)
    assignment = assign_within_equal_prompts(pairwise.detach(), prompt_indices)
    return pairwise.gather(1, assignment.unsqueeze(1)).mean()


def _pairwise_si_snr_loss(
    estimates: Float[Tensor, "batch source time"],
    references: Float[Tensor, "batch source time"],
    eps: float,
) -> Float[Tensor, "batch estimate reference"]:
    estimates = estimates - estimates.mean(dim=-1, keepdim=True)
    references = references - references.mean(dim=-1, keepdim=True)
    power = references.square().sum(dim=-1).unsqueeze(1)
    product = torch.einsum("bet,brt->ber", estimates, references)
    # |p|^2 = a^2 |r|^2 and |e - p|^2 = |e - a r|^2 with a = <e, r> / |r|^2; by the difference of
    # the signals, since that of their powers is all rounding where an estimate is good.
    scale = product / (power + eps)
    along = scale.square() * power
    error = estimates.unsqueeze(2) - scale.unsqueeze(-1) * references.unsqueeze(1)
    return 10.0 * torch.log10((error.square().sum(dim=-1) + eps) / (along + eps))


def spectral_loss(
    estimates: Float[Tensor, "batch source *channel time"],
    references: Float[Tensor, "batch source *channel time"],
    prompt_indices: Int[Tensor, "batch source"],
    config: SpectralLossConfig = SpectralLossConfig(),
) -> Float[Tensor, ""]:
    """Distance of waveforms and of their magnitudes at several resolutions.

    With a = <e, r> / (|e|^2 + eps), which brings an estimate to the level of its reference, and W
    windows:

        t sum |a e - r| + (1 - t) / W sum over windows of sum | |STFT(a e)| - |STFT(r)| |

    Equal prompts do not trade places: the loss is for one output of each kind.

    Returns:
        The mean over channels and sources of all items; it grows with length and level.

    Source: Y.-J. Lu et al., "Towards low-distortion multi-channel speech enhancement: the
        ESPnet-SE submission to the L3DAS22 challenge", ICASSP 2022; K. Saijo et al.,
        "TF-Locoformer", IWAENC 2024, section 4.
    """
    length = references.shape[-1]
    flat_estimates, flat_references = estimates.reshape(-1, length), references.reshape(-1, length)
    product = (flat_estimates * flat_references).sum(dim=-1, keepdim=True)
    power = flat_estimates.square().sum(dim=-1, keepdim=True)
    scaled = flat_estimates * (product / (power + config.eps))
    distance = config.time_weight * (scaled - flat_references).abs().sum(dim=-1)
    share = (1.0 - config.time_weight) / len(config.windows)
    for window in config.windows:
        difference = _magnitudes(scaled, window) - _magnitudes(flat_references, window)
        distance = distance + share * difference.abs().sum(dim=(1, 2))
    return distance.mean()


def _magnitudes(signals: Float[Tensor, "row time"], window: int) -> Float[Tensor, "row bin frame"]:
    spectrum = torch.stft(
        signals,
        window,
        window // 2,
        window=torch.ones(window, device=signals.device),
        return_complex=True,
    )
    # The magnitude of nothing has no gradient: kept away from zero.
    return (spectrum.real.square() + spectrum.imag.square()).clamp_min(1e-20).sqrt()


def _channels(
    signals: Float[Tensor, "batch source *channel time"],
) -> tuple[Float[Tensor, "batch source time"], ...]:
    """Channel by channel; a signal without an axis for channels is one."""
    return signals.flatten(2, -2).unbind(2) if signals.ndim > 3 else (signals,)


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
    least = torch.zeros(())
    if config.silent_below_db is not None:
        total = references.sum(dim=1, keepdim=True).square().sum(dim=-1)
        least = total * 10.0 ** (config.silent_below_db / 10.0)
    return torch.where((power > least.to(power)).unsqueeze(1), active, silent)


def _db(power: Float[Tensor, "*axes"], config: SnrLossConfig) -> Float[Tensor, "*axes"]:
    return 10.0 * torch.log10(power + config.eps)
