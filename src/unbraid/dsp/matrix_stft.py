"""The STFT as matrix products of real numbers, for graphs without complex numbers and FFTs.

A discrete Fourier transform of N = P Q samples falls into two short ones. With n = Q p + q
and k = r + P s,

    X[k] = sum_q exp(-2 pi i q k / N)  sum_p x[Q p + q] exp(-2 pi i p r / P)

The inner sum is a product with one matrix [P, P], the outer one a product with one matrix
[Q, Q] for each r: P + Q multiplications for each sample instead of N. The samples are real, so
X[N - k] is the conjugate of X[k], and the r from 0 to P/2 say everything.

The way back, x[n] = 1/N sum_k X[k] exp(2 pi i n k / N), is the same two products transposed and
in reverse order. A row r that stands for its mirror image P - r too counts twice.

Source: J. W. Cooley and J. W. Tukey, "An algorithm for the machine calculation of complex
    Fourier series", Mathematics of Computation 1965.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.dsp.stft import StftConfig, overlap_add, padded


class MatrixTransform(nn.Module):
    """``FftTransform`` without complex numbers: real matrix products, slices and sums.

    A module only because its tables have to come along into an exported graph. Lengths may be
    symbolic, as while a graph is traced, and must not be 0.

    Args:
        config: Window, transform size and hop.
    """

    window: Tensor
    inner: Tensor
    inner_back: Tensor
    outer: Tensor
    positions: Tensor
    signs: Tensor
    positions_back: Tensor
    signs_back: Tensor

    def __init__(self, config: StftConfig) -> None:
        super().__init__()
        self.config = config
        size = config.n_fft
        self._inner_size, self._outer_size = _factors(size)
        rows = torch.arange(self._inner_size // 2 + 1)
        inner = _turns(torch.arange(self._inner_size).outer(rows), self._inner_size)
        has_mirror = (2 * rows) % self._inner_size != 0
        # bins[row, s]: where the sums over q lead, of all N bins
        bins = rows[:, None] + self._inner_size * torch.arange(self._outer_size)
        outer = _turns(torch.arange(self._outer_size)[:, None] * bins[:, None], size)
        # A complex product as a real one: (real, imaginary) times [[c, d], [-d, c]].
        turned = torch.stack([-outer[1], outer[0]])
        by_part = torch.stack([outer, turned])  # part in, part out, row, q, s
        wanted = torch.arange(config.num_bins)
        row, step = wanted % self._inner_size, wanted // self._inner_size
        is_mirrored = row > self._inner_size // 2
        mirror = size - wanted
        row = torch.where(is_mirrored, mirror % self._inner_size, row)
        step = torch.where(is_mirrored, mirror // self._inner_size, step)
        bins = bins.flatten()
        tables = {
            "window": config.make_window(),
            "inner": inner.permute(1, 0, 2).flatten(1),
            "inner_back": (inner * (1 + has_mirror.double()) / size).permute(0, 2, 1).flatten(0, 1),
            "outer": by_part.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2),
            "positions": row * self._outer_size + step,
            "signs": _signs_of(is_mirrored),
            "positions_back": torch.minimum(bins, size - bins),
            "signs_back": _signs_of(bins > size // 2),
        }
        for name, table in tables.items():
            exact = table if table.dtype == torch.int64 else table.float()
            self.register_buffer(name, exact.contiguous(), persistent=False)

    def analyse(self, waveform: Float[Tensor, "batch time"]) -> Float[Tensor, "batch 2 frame bin"]:
        """As ``FftTransform.analyse``."""
        size, hop = self.config.n_fft, self.config.hop_length
        num_frames = self.config.num_frames(waveform.shape[-1])
        hops_per_frame = -(-size // hop)
        num_hops = num_frames - 1 + hops_per_frame
        # Reflection leaves a part of a hop over; a hop that does not divide the window lacks one.
        whole = torch.nn.functional.pad(padded(waveform, self.config), (0, -size % hop))
        hops = whole[:, : num_hops * hop].unflatten(-1, (num_hops, hop))
        shifted = [hops[:, shift : shift + num_frames] for shift in range(hops_per_frame)]
        frames = torch.cat(shifted, dim=-1)[..., :size] * self.window
        columns = frames.unflatten(-1, (self._inner_size, -1)).transpose(-1, -2)
        inner = (columns @ self.inner).unflatten(-1, (2, -1))  # batch frame q part row
        stacked = inner.permute(4, 0, 1, 3, 2).flatten(3).flatten(1, 2)  # row, frames, part q
        outer = (stacked @ self.outer).unflatten(-1, (2, -1))  # row, frames, part, s
        grid = outer.permute(1, 2, 0, 3).flatten(2)
        spectrum = grid.index_select(2, self.positions) * self.signs
        return spectrum.unflatten(0, (-1, num_frames)).transpose(1, 2)

    def synthesise(
        self, spectrogram: Float[Tensor, "batch 2 frame bin"], num_samples: int
    ) -> Float[Tensor, "batch time"]:
        """As ``FftTransform.synthesise``."""
        num_frames = spectrogram.shape[2]
        spectrum = spectrogram.transpose(1, 2).flatten(0, 1)
        grid = spectrum.index_select(2, self.positions_back) * self.signs_back
        stacked = grid.unflatten(-1, (-1, self._outer_size)).permute(2, 0, 1, 3).flatten(2)
        outer = (stacked @ self.outer.transpose(1, 2)).unflatten(-1, (2, -1))
        inner = outer.permute(1, 3, 2, 0).flatten(2)  # frames, q, part row
        frames = (inner @ self.inner_back).transpose(1, 2).flatten(1)
        windowed = (frames * self.window).unflatten(0, (-1, num_frames))
        return overlap_add(windowed, self.window, self.config.hop_length, num_samples)


def _factors(size: int) -> tuple[int, int]:
    """P and Q with P Q = ``size`` and the least work: P + 2 Q, for the outer sum is complex."""
    divisors = [number for number in range(1, size + 1) if size % number == 0]
    inner = min(divisors, key=lambda number: number + 2 * size // number)
    return inner, size // inner


def _turns(steps: Tensor, size: int) -> Float[Tensor, "2 *axes"]:
    """Real and imaginary part of exp(-2 pi i steps / size), float64."""
    # Whole turns are taken away while the numbers are whole.
    angles = (steps % size).double() * (2 * torch.pi / size)
    return torch.stack([angles.cos(), -angles.sin()])


def _signs_of(is_conjugate: Tensor) -> Float[Tensor, "2 position"]:
    """Factors on real and imaginary part that conjugate some of the numbers."""
    imaginary = 1.0 - 2.0 * is_conjugate.double()
    return torch.stack([torch.ones_like(imaginary), imaginary])
