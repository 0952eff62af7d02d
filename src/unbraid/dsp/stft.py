"""The short-time Fourier transform and its inverse, exact for every length.

Axes: a waveform is ``batch time``, a spectrogram ``batch frame bin``. Networks take real
and imaginary part on an axis of their own, ``batch 2 frame bin``: ``SpectralTransform`` leads
there and back, by PyTorch's FFT here and by matrix products in ``dsp.matrix_stft``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from unbraid.errors import ConfigError


@dataclass(frozen=True)
class StftConfig:
    """Analysis and synthesis settings.

    Attributes:
        n_fft: Window length and transform size in samples, even.
        hop_length: Step between frames in samples, at most half of ``n_fft``.
        window: ``sqrt_hann`` (the periodic square-root Hann window of TUSS) or ``hann``.
        padding: What stands before the first sample and after the last. ``zeros``, as in
            TUSS; or ``reflect``, as in ``torch.stft`` with its defaults. Waveforms are filled up
            with zeros to a whole number of hops before, and to more than half a window where
            they are to be reflected.
    """

    n_fft: int = 2048
    hop_length: int = 512
    window: Literal["sqrt_hann", "hann"] = "sqrt_hann"
    padding: Literal["zeros", "reflect"] = "zeros"

    def __post_init__(self) -> None:
        if self.n_fft < 2 or self.n_fft % 2:
            raise ConfigError(f"stft.n_fft must be an even number of samples, not {self.n_fft}.")
        if not 1 <= self.hop_length <= self.n_fft // 2:
            raise ConfigError(
                f"stft.hop_length must be from 1 to half of n_fft ({self.n_fft}), "
                f"not {self.hop_length}."
            )

    @property
    def num_bins(self) -> int:
        """Bins of the one-sided spectrum."""
        return self.n_fft // 2 + 1

    def num_frames(self, num_samples: int) -> int:
        """Frames that ``stft`` makes of ``num_samples`` samples."""
        if self.padding == "reflect":
            num_samples = max(num_samples, self.n_fft // 2 + 1)
        # Rounded up without negative numbers, which exported graphs divide another way.
        return (num_samples + self.hop_length - 1) // self.hop_length + 1

    def make_window(self, device: torch.device | None = None) -> Float[Tensor, n_fft]:
        """The window itself, float32."""
        hann = torch.hann_window(self.n_fft, periodic=True, device=device)
        return hann.sqrt() if self.window == "sqrt_hann" else hann


def stft(
    waveform: Float[Tensor, "batch time"], config: StftConfig
) -> Complex[Tensor, "batch frame bin"]:
    """Transform a waveform into its complex spectrogram.

    Half a window stands before the first sample and after the last, so frame ``t`` is centred
    on sample ``t * hop_length`` and no sample is lost. An empty waveform gives one frame of
    zeros, or as many as half a window holds where padding is by reflection.
    """
    spectrum = torch.stft(
        padded(waveform.float(), config),
        config.n_fft,
        config.hop_length,
        window=config.make_window(waveform.device),
        center=False,
        return_complex=True,
    )
    return spectrum.transpose(1, 2)


def padded(
    waveform: Float[Tensor, "batch time"], config: StftConfig
) -> Float[Tensor, "batch padded"]:
    """The waveform with what stands before and behind it, as long as all frames together."""
    half = config.n_fft // 2
    frames = config.num_frames(waveform.shape[-1])
    missing = (frames - 1) * config.hop_length - waveform.shape[-1]
    if config.padding == "reflect":
        # Filled up to a whole hop: a last hop that only the edge of one window sees would be
        # divided by next to nothing when it is put together again.
        filled = torch.nn.functional.pad(waveform, (0, missing))
        return torch.nn.functional.pad(filled, (half, half), mode="reflect")
    return torch.nn.functional.pad(waveform, (half, missing + half))


def istft(
    spectrogram: Complex[Tensor, "batch frame bin"], config: StftConfig, num_samples: int
) -> Float[Tensor, "batch time"]:
    """Transform a complex spectrogram back into ``num_samples`` samples.

    The exact inverse of ``stft`` for an unchanged spectrogram, and the least-squares
    one for a changed spectrogram (overlap-add divided by the sum of squared windows).

    Raises:
        ConfigError: If the spectrogram has too few frames for ``num_samples``.
    """
    frames = spectrogram.shape[1]
    if frames < config.num_frames(num_samples):
        raise ConfigError(
            f"{frames} frames hold at most {(frames - 1) * config.hop_length} samples, "
            f"not {num_samples}."
        )
    window = config.make_window(spectrogram.device)
    windowed = torch.fft.irfft(spectrogram, n=config.n_fft) * window
    return overlap_add(windowed, window, config.hop_length, num_samples)


def overlap_add(
    frames: Float[Tensor, "batch frame sample"],
    window: Float[Tensor, "sample"],
    hop_length: int,
    num_samples: int,
) -> Float[Tensor, "batch time"]:
    """Add windowed frames where they overlap, and divide by the sum of the squared windows.

    Args:
        frames: The first one is centred on the first sample.
        window: What the frames were multiplied with, before the transform and after it.
        hop_length: From frame to frame.
        num_samples: Of the result.
    """
    start = len(window) // 2
    end = start + num_samples
    weights = window.square().expand(1, frames.shape[1], -1)
    summed, weight = (
        _added_up(overlapping, hop_length)[:, start:end] for overlapping in (frames, weights)
    )
    return summed / weight


def _added_up(
    frames: Float[Tensor, "batch frame sample"], hop_length: int
) -> Float[Tensor, "batch time"]:
    # Hops of equal rank lie side by side: a few long sums instead of one short for each frame.
    whole = torch.nn.functional.pad(frames, (0, -frames.shape[2] % hop_length))
    hops = whole.unflatten(-1, (-1, hop_length))
    overlap = hops.shape[2]
    total = torch.nn.functional.pad(hops[:, :, 0], (0, 0, 0, overlap - 1))
    for shift in range(1, overlap):
        total = total + torch.nn.functional.pad(
            hops[:, :, shift], (0, 0, shift, overlap - 1 - shift)
        )
    return total.flatten(1)


@runtime_checkable
class SpectralTransform(Protocol):
    """Leads from waveforms to spectrograms in real numbers, and back."""

    def analyse(self, waveform: Float[Tensor, "batch time"]) -> Float[Tensor, "batch 2 frame bin"]:
        """Give real and imaginary part of what ``stft`` gives."""

    def synthesise(
        self, spectrogram: Float[Tensor, "batch 2 frame bin"], num_samples: int
    ) -> Float[Tensor, "batch time"]:
        """Give what ``istft`` gives."""


@dataclass(frozen=True)
class FftTransform:
    """``stft`` and ``istft`` as a ``SpectralTransform``."""

    config: StftConfig

    def analyse(self, waveform: Float[Tensor, "batch time"]) -> Float[Tensor, "batch 2 frame bin"]:
        """Transform a waveform."""
        spectrogram = stft(waveform, self.config)
        # Copied apart: what follows is several times faster on neighbouring numbers.
        return torch.stack([spectrogram.real, spectrogram.imag], dim=1)

    def synthesise(
        self, spectrogram: Float[Tensor, "batch 2 frame bin"], num_samples: int
    ) -> Float[Tensor, "batch time"]:
        """Transform back."""
        # Row by row: the working memory of a transform is several times what it gives.
        rows = [
            istft(torch.complex(real, imaginary)[None], self.config, num_samples)
            for real, imaginary in spectrogram
        ]
        return torch.cat(rows)
