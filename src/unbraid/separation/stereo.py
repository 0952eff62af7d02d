"""Separating several channels with a model that hears one at a time.

Channel by channel, a model makes other mistakes on the left than on the right: levels and
phases between the channels, by which ears place a source, come out at random. The other
modes put what the model said of all channels together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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
#: Filters work on so many frames at once, which bounds the memory of what lies between.
_FRAMES_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class ChannelPlan:
    """How the channels of a chunk are separated: what a model has to hear, and what follows.

    Attributes:
        rows: What to separate, one after the other: a channel each, or as many channels
            together as the model hears. None where all is silent.
        combine: Makes the estimates of the channels from those of the rows, in order.
    """

    rows: Sequence[Float[Tensor, "*together time"]]
    combine: Callable[
        [Sequence[Float[Tensor, "source *together time"]]], Float[Tensor, "source channel time"]
    ]


def plan_channels(
    samples: Float[Tensor, "channel time"],
    mode: StereoMode,
    groups: Sequence[Sequence[int]],
    stft_config: StftConfig,
) -> ChannelPlan:
    """Plan the separation of all channels of a chunk.

    Silent channels, and channels that repeat another one (also with opposite polarity), need
    no call of the model: the former stay silent, the latter get the same estimates.

    Args:
        samples: The chunk, at any level.
        mode: How to put the channels together. Mono needs none of it.
        groups: Positions of the sources with equal prompts, all sources named. The model is
            free in the order of its outputs inside each of them.
        stft_config: Of the masks; the model's own suits best.

    Returns:
        The plan. Its estimates have in ``channels`` in each channel the order the model gave;
        in all other modes the channels agree on one.
    """
    if mode == "mid-side" and samples.shape[0] == 2:
        left, right = samples
        halves = torch.stack([(left + right) / 2, (left - right) / 2])
        of_halves = plan_channels(halves, "channels", groups, stft_config)

        def decode(
            estimates: Sequence[Float[Tensor, "source time"]],
        ) -> Float[Tensor, "source channel time"]:
            combined = of_halves.combine(estimates)
            mid, side = _aligned(combined, groups, stft_config).unbind(dim=1)
            return torch.stack([mid + side, mid - side], dim=1)

        return ChannelPlan(of_halves.rows, decode)

    rows, twins, polarities = _distinct(samples)

    def combine(
        estimates: Sequence[Float[Tensor, "source time"]],
    ) -> Float[Tensor, "source channel time"]:
        if not rows:
            return samples.new_zeros(sum(len(group) for group in groups), *samples.shape)
        combined = torch.stack(list(estimates), dim=1)
        if len(rows) > 1 and mode in ("shared", "wiener"):
            combined = _aligned(combined, groups, stft_config)
            combined = _combined(samples[rows], combined, mode, stft_config)
        return combined[:, twins] * combined.new_tensor(polarities)[:, None]

    return ChannelPlan([samples[row] for row in rows], combine)


def plan_joint_channels(
    samples: Float[Tensor, "channel time"], num_together: int, num_sources: int
) -> ChannelPlan:
    """Plan for a model that hears several channels at the same time.

    Channels are taken in groups, in order. Where the last group is not full its channels are
    repeated, a mono recording on all of them, and each channel gets the mean of what came of its
    repetitions. Silent groups need no call of the model.

    Args:
        samples: The chunk, at any level.
        num_together: How many channels the model hears.
        num_sources: How many sources it is asked for.
    """
    channels = len(samples)
    starts = range(0, channels, num_together)
    groups = [[min(start + at, channels - 1) for at in range(num_together)] for start in starts]
    heard = [group for group in groups if bool(samples[group].any())]

    def combine(
        estimates: Sequence[Float[Tensor, "source together time"]],
    ) -> Float[Tensor, "source channel time"]:
        combined = samples.new_zeros(num_sources, *samples.shape)
        for group, estimate in zip(heard, estimates, strict=True):
            for channel in dict.fromkeys(group):
                repeated = [at for at, each in enumerate(group) if each == channel]
                combined[:, channel] = estimate[:, repeated].mean(dim=1)
        return combined

    return ChannelPlan([samples[group] for group in heard], combine)


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
    channels, length = samples.shape
    scale = _peak(samples)
    mixture = stft(samples / scale, config)
    spectra = mixture.new_empty(len(estimates), *mixture.shape)
    combined = torch.empty_like(estimates)
    # Transforms work on a copy of all frames: of one source at a time it is small.
    for spectrum, estimate in zip(spectra, estimates, strict=True):
        spectrum.copy_(stft(estimate / scale, config))
    is_shared = mode == "shared" or channels > _MOST_WIENER_CHANNELS
    combine = _by_shared_masks if is_shared else _by_wiener_filters
    combine(mixture, spectra)
    for source, spectrum in zip(combined, spectra, strict=True):
        torch.mul(istft(spectrum, config, length), scale, out=source)
    return combined


def _by_shared_masks(
    mixture: Complex[Tensor, "channel frame bin"],
    estimates: Complex[Tensor, "source channel frame bin"],
) -> None:
    """Apply to all channels the mask that fits the estimates of all of them best.

    Overwrites the estimates with what comes out.
    """
    # In one bin let X hold the mixture's channels and S those of an estimate. The mask M that
    # minimises |S - M X|^2 has S - M X at right angles to X: M = X^H S / X^H X. So M X is the
    # projection of S on X, never louder than S; masks of estimates that sum to X sum to 1.
    for heard, outputs in _in_blocks(mixture, estimates):
        power = heard.abs().square().sum(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
        masks = (heard.conj() * outputs).sum(dim=1) / power
        torch.mul(masks.unsqueeze(1), heard, out=outputs)


def _by_wiener_filters(
    mixture: Complex[Tensor, "channel frame bin"],
    estimates: Complex[Tensor, "source channel frame bin"],
) -> None:
    """Filter the mixture by what the estimates tell of the power and the place of each source.

    What no estimate explains takes part as a source of its own, so the estimates are not
    forced to sum to the mixture. Overwrites the estimates with what comes out.

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
    channels = len(mixture)
    places = _places_of(mixture, estimates)
    for heard, outputs in _in_blocks(mixture, estimates):
        # Products with what is left of the mixture, without computing that itself.
        powers = _real_products(outputs, heard)
        rest = _real_products(heard, heard) - powers.sum(dim=0)
        powers = torch.cat([powers, rest.unsqueeze(0)]).clamp_min_(0.0)
        # Real and imaginary parts by themselves: powers are real.
        real = torch.zeros(channels, channels, *heard.shape[1:])
        real.diagonal().fill_(_POWER_FLOOR)
        imaginary = torch.zeros_like(real)
        for power, place in zip(powers, places, strict=True):
            real.addcmul_(power, place.real.unsqueeze(2))
            imaginary.addcmul_(power, place.imag.unsqueeze(2))
        whitened = _solved(torch.complex(real, imaginary), heard)
        for output, power, place in zip(outputs, powers, places, strict=False):
            torch.mul(place[:, 0].unsqueeze(1), whitened[0], out=output)
            for column in range(1, channels):
                output.addcmul_(place[:, column].unsqueeze(1), whitened[column])
            torch.view_as_real(output).mul_(torch.stack([power, power], dim=-1))


def _places_of(
    mixture: Complex[Tensor, "channel frame bin"],
    estimates: Complex[Tensor, "source channel frame bin"],
) -> Complex[Tensor, "source_and_rest channel other bin"]:
    """Where each source comes from, frequency by frequency; at last what no estimate explains.

    Covariances of channels, of the mean power 1, drawn to that of the mixture.
    """
    channels, _, bins = mixture.shape
    outer = mixture.new_zeros(len(estimates) + 2, channels, channels, bins)
    for heard, outputs in _in_blocks(mixture, estimates):
        rest = heard - outputs.sum(dim=0)
        for sums, signal in zip(outer, (heard, *outputs, rest), strict=True):
            for row in range(channels):
                for column in range(row + 1):
                    sums[row, column] += (signal[row] * signal[column].conj()).sum(dim=0)
    for row in range(channels):  # the same on the other side of the diagonal
        for column in range(row):
            outer[:, column, row] = outer[:, row, column].conj()
    pooled = torch.nn.functional.pad(outer, (_POOLED_BINS, _POOLED_BINS))
    pooled = pooled.unfold(-1, 2 * _POOLED_BINS + 1, 1).sum(dim=-1)
    power = torch.einsum("sccb->sb", pooled).real / channels
    # A source that is silent around a frequency has zeros there.
    places = pooled / power.clamp_min(_POWER_FLOOR)[:, None, None]
    drawn = _COMMON_PLACE * places[0] + (1.0 - _COMMON_PLACE) * places[1:]
    return drawn + _DIFFUSE * torch.eye(channels).unsqueeze(-1)


def _real_products(
    one: Complex[Tensor, "*source channel frame bin"],
    other: Complex[Tensor, "channel frame bin"],
) -> Float[Tensor, "*source frame bin"]:
    """The real part of the scalar product over channels, bin by bin."""
    products = (torch.view_as_real(one) * torch.view_as_real(other)).sum(dim=-4)
    return products[..., 0] + products[..., 1]


def _in_blocks(
    mixture: Complex[Tensor, "channel frame bin"],
    estimates: Complex[Tensor, "source channel frame bin"],
) -> Iterator[tuple[Complex[Tensor, "..."], Complex[Tensor, "..."]]]:
    """Views of some frames at a time; what is computed from them stays small."""
    yield from zip(
        mixture.split(_FRAMES_AT_ONCE, dim=-2),
        estimates.split(_FRAMES_AT_ONCE, dim=-2),
        strict=True,
    )


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
