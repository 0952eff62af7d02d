"""Separating several channels with a model that hears one at a time.

Channel by channel, a model makes other mistakes on the left than on the right: levels and
phases between the channels, by which ears place a source, come out at random. The other
modes put what the model said of all channels together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from unbraid.dsp.stft import StftConfig, istft, stft
from unbraid.separation.stitching import best_order
from unbraid.types import StereoMode

#: Covariances grow with the square of the channels; beyond this many, masks are shared.
_MOST_WIENER_CHANNELS = 8

#: How far the place of a source is drawn to that of the whole mixture, from 0 to 1: estimates
#: leak. At 1 ``wiener`` would be a shared mask. More gives fewer errors of level between the
#: channels and less separation; ``bench/stereo.py`` measures both.
_COMMON_PLACE = 0.3
#: Part of every source that comes from everywhere, so that no place is excluded.
_DIFFUSE = 1e-3
#: A source's place is pooled over so many bins on either side.
_POOLED_BINS = 2
#: Power of a bin relative to the loudest sample; what is below stays silent.
_POWER_FLOOR = 1e-10


def separate_channels(
    samples: Float[Tensor, "channel time"],
    separate_one: Callable[[Float[Tensor, "time"]], Float[Tensor, "source time"]],
    mode: StereoMode,
    groups: Sequence[Sequence[int]],
    stft_config: StftConfig,
) -> Float[Tensor, "source channel time"]:
    """Separate all channels of a chunk.

    Silent channels, and channels that repeat another one (also with opposite polarity), need
    no call of the model: the former stay silent, the latter get the same estimates.

    Args:
        samples: The chunk, at any level.
        separate_one: Separates one channel, linear in its level; the order of its outputs is
            free inside each group.
        mode: How to put the channels together. Mono needs none of it.
        groups: Positions of the sources with equal prompts, all sources named.
        stft_config: Of the masks; the model's own suits best.

    Returns:
        The estimates. In ``channels`` each channel keeps the order the model gave; in all
        other modes the channels agree on one.
    """
    if mode == "mid-side" and samples.shape[0] == 2:
        left, right = samples
        halves = torch.stack([(left + right) / 2, (left - right) / 2])
        decoded = separate_channels(halves, separate_one, "channels", groups, stft_config)
        mid, side = _aligned(decoded, groups, stft_config).unbind(dim=1)
        return torch.stack([mid + side, mid - side], dim=1)

    rows, twins, polarities = _distinct(samples)
    if not rows:
        return samples.new_zeros(sum(len(group) for group in groups), *samples.shape)
    estimates = torch.stack([separate_one(samples[row]) for row in rows], dim=1)
    if len(rows) > 1 and mode in ("shared", "wiener"):
        estimates = _aligned(estimates, groups, stft_config)
        estimates = _combined(samples[rows], estimates, mode, stft_config)
    return estimates[:, twins] * estimates.new_tensor(polarities)[:, None]


def _distinct(
    samples: Float[Tensor, "channel time"],
) -> tuple[list[int], list[int], list[float]]:
    """The channels to separate, and for every channel which of them it repeats, times what.

    Silence repeats the first of them times 0.
    """
    rows: list[int] = []
    twins: list[int] = []
    polarities: list[float] = []
    for channel, signal in enumerate(samples):
        twin, polarity = 0, 0.0
        if bool(signal.any()):
            for position, row in enumerate(rows):
                if torch.equal(signal, samples[row]):
                    twin, polarity = position, 1.0
                    break
                if torch.equal(signal, -samples[row]):
                    twin, polarity = position, -1.0
                    break
            else:
                twin, polarity = len(rows), 1.0
                rows.append(channel)
        twins.append(twin)
        polarities.append(polarity)
    return rows, twins, polarities


def _combined(
    samples: Float[Tensor, "channel time"],
    estimates: Float[Tensor, "source channel time"],
    mode: StereoMode,
    config: StftConfig,
) -> Float[Tensor, "source channel time"]:
    sources, channels, length = estimates.shape
    scale = _peak(samples)
    mixture = stft(samples / scale, config)
    spectra = stft((estimates / scale).flatten(0, 1), config).unflatten(0, (sources, channels))
    is_shared = mode == "shared" or channels > _MOST_WIENER_CHANNELS
    combine = _by_shared_masks if is_shared else _by_wiener_filters
    combined = istft(combine(mixture, spectra).flatten(0, 1), config, length)
    return combined.unflatten(0, (sources, channels)) * scale


def _by_shared_masks(
    mixture: Complex[Tensor, "channel frame bin"],
    estimates: Complex[Tensor, "source channel frame bin"],
) -> Complex[Tensor, "source channel frame bin"]:
    """Apply to all channels the mask that fits the estimates of all of them best."""
    # In one bin let X hold the mixture's channels and S those of an estimate. The mask M that
    # minimises |S - M X|^2 has S - M X at right angles to X: M = X^H S / X^H X. So M X is the
    # projection of S on X, never louder than S; masks of estimates that sum to X sum to 1.
    power = mixture.abs().square().sum(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
    masks = (mixture.conj() * estimates).sum(dim=1) / power
    return masks.unsqueeze(1) * mixture


def _by_wiener_filters(
    mixture: Complex[Tensor, "channel frame bin"],
    estimates: Complex[Tensor, "source channel frame bin"],
) -> Complex[Tensor, "source channel frame bin"]:
    """Filter the mixture by what the estimates tell of the power and the place of each source.

    What no estimate explains takes part as a source of its own, so the estimates are not
    forced to sum to the mixture.

    Source: N. Duong et al., "Under-determined reverberant audio source separation using a
        full-rank spatial covariance model", TASLP 2010; A. Nugraha et al., "Multichannel audio
        source separation with deep neural networks", TASLP 2016.
    Differs: one step; powers come from the mixture's projection on the estimates, and places
        are pooled over neighbouring bins and drawn to the place of the mixture.
    """
    # Channels of a source are taken as Gaussian with the covariance v R: v the power in a bin,
    # R its place, a matrix per frequency. Those of the mixture X have C = sum_s v_s R_s, and
    # the mean of a source given X is v_s R_s C^-1 X.
    # With v_s = Re X^H S_s and all R alike this is the best real mask that all channels share;
    # v_s = |S_s|^2, as is usual, would also square the masks, and doubts become decisions.
    channels = mixture.shape[0]
    everything = torch.cat([estimates, (mixture - estimates.sum(dim=0)).unsqueeze(0)])
    powers = (mixture.conj() * everything).real.sum(dim=1).clamp_min(0.0)
    common = _COMMON_PLACE * _place_of(mixture)
    identity = torch.eye(channels, dtype=mixture.dtype).unsqueeze(-1)
    places = [
        common + (1.0 - _COMMON_PLACE) * _place_of(source) + _DIFFUSE * identity
        for source in everything
    ]
    covariance = (_POWER_FLOOR * identity).unsqueeze(2).repeat(1, 1, *mixture.shape[1:])
    for power, place in zip(powers, places, strict=True):
        covariance += power * place.unsqueeze(2)
    whitened = _solved(covariance, mixture)
    return torch.stack(
        [
            torch.stack([power * (row.unsqueeze(1) * whitened).sum(dim=0) for row in place])
            for power, place in zip(powers[:-1], places[:-1], strict=True)
        ]
    )


def _place_of(
    source: Complex[Tensor, "channel frame bin"],
) -> Complex[Tensor, "channel other bin"]:
    """Covariance of a source's channels, frequency by frequency, of the mean power 1.

    A source that is silent around a frequency has zeros there.
    """
    conjugate = source.conj().resolve_conj()
    outer = torch.stack([(channel * conjugate).sum(dim=1) for channel in source])
    pooled = torch.nn.functional.pad(outer, (_POOLED_BINS, _POOLED_BINS))
    pooled = pooled.unfold(-1, 2 * _POOLED_BINS + 1, 1).sum(dim=-1)
    power = torch.einsum("ccb->b", pooled).real / source.shape[0]
    return pooled / power.clamp_min(_POWER_FLOOR)


def _solved(
    matrices: Complex[Tensor, "row row frame bin"], values: Complex[Tensor, "row frame bin"]
) -> Complex[Tensor, "row frame bin"]:
    """Solve small positive definite systems, all bins at once. Overwrites the matrices.

    Gaussian elimination needs no exchange of rows where matrices are positive definite, and
    is many times as fast as a library call that solves a million systems one by one.
    """
    size = len(matrices)
    solution = values.clone()
    for pivot in range(size):
        for row in range(pivot + 1, size):
            factor = matrices[row, pivot] / matrices[pivot, pivot]
            matrices[row, pivot:] -= factor * matrices[pivot, pivot:]
            solution[row] -= factor * solution[pivot]
    for row in reversed(range(size)):
        for column in range(row + 1, size):
            solution[row] -= matrices[row, column] * solution[column]
        solution[row] /= matrices[row, row]
    return solution


def _aligned(
    estimates: Float[Tensor, "source channel time"],
    groups: Sequence[Sequence[int]],
    config: StftConfig,
) -> Float[Tensor, "source channel time"]:
    """Exchange estimates with equal prompts so that all channels have them in one order.

    The loudest channel of a group leads. Estimates are alike where their phases keep step
    over time, frequency by frequency: whatever the delay or the polarity between them.
    """
    aligned = estimates.clone()
    for group in map(list, groups):
        if len(group) < 2:
            continue
        members = estimates[group]
        spectra = stft((members / _peak(members)).flatten(0, 1), config)
        spectra = spectra.unflatten(0, members.shape[:2])
        leading = int(spectra.abs().square().sum(dim=(0, 2, 3)).argmax())
        for channel in range(members.shape[1]):
            if channel == leading:
                continue
            products = torch.einsum("pfb,cfb->pcb", spectra[:, leading], spectra[:, channel].conj())
            aligned[group, channel] = members[best_order(products.abs().sum(dim=-1)), channel]
    return aligned


def _peak(samples: Float[Tensor, "*axes"]) -> Float[Tensor, ""]:
    """The loudest sample; sums of squares of samples divided by it stay in range."""
    return samples.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
