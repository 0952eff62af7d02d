"""The band-split codec: each band of bins has an encoder and a decoder of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.dsp.bands import bs_roformer_bands, mel_bands
from unbraid.errors import ConfigError
from unbraid.nn.codec import Encoded, SpectralCodec


@dataclass(frozen=True)
class BandSplitConfig:
    """Band-split entry and exit.

    Attributes:
        bands: The table: ``bs-roformer`` (61 bands at 48 kHz) or ``mel``.
        num_bands: Bands of the mel table; must be left out for ``bs-roformer``.
        decoder_expansion: Hidden width of the decoders in multiples of the feature width.
        compression: Exponent of the magnitude at the entry; the phase is kept. 1 leaves
            the spectrum as it is, 0.3 to 0.5 lifts quiet sounds into the net's view.
        magnitude_input: Give the encoders each bin's compressed magnitude beside its real
            and imaginary part. A linear projection cannot compute it, and a small network
            spends long on learning to.
        initial_mask: ``free`` starts the decoders as PyTorch does. ``gate`` starts every
            mask as a real gate between 0 and 1 around one half, which learns much
            sooner on small budgets; what the mask can become is the same.
    """

    bands: Literal["bs-roformer", "mel"] = "bs-roformer"
    num_bands: int | None = None
    decoder_expansion: int = 4
    compression: float = 1.0
    magnitude_input: bool = False
    initial_mask: Literal["free", "gate"] = "free"

    def __post_init__(self) -> None:
        if (self.bands == "mel") != (self.num_bands is not None):
            raise ConfigError("num_bands belongs to bands: mel, and only to it.")
        if not 0.0 < self.compression <= 1.0:
            raise ConfigError(f"compression must lie in (0, 1], not {self.compression}.")

    def band_widths(self, sample_rate: int, n_fft: int) -> tuple[int, ...]:
        """The table for a sampling rate and a transform size."""
        if self.num_bands is None:
            return bs_roformer_bands(sample_rate, n_fft)
        return mel_bands(sample_rate, n_fft, self.num_bands)


class BandSplitCodec(SpectralCodec):
    """Normalise and project each band; decode each band by a small gated network.

    The encoder's normalisation runs over the frames of the whole chunk, so the codec is
    not causal.

    Args:
        config: What to build.
        dim: Channels of the features.
        band_widths: Bins of each band; they sum to the bins of the spectrogram.
        num_sources: Masks that ``decode`` gives for each set of features.

    Source: K. Saijo et al., "Task-aware unified source separation", ICASSP 2025, after
        Y. Luo and J. Yu, "Music source separation with band-split RNN", TASLP 2023.
    """

    def __init__(
        self,
        config: BandSplitConfig,
        dim: int,
        band_widths: tuple[int, ...],
        num_sources: int = 1,
    ) -> None:
        super().__init__()
        self.band_widths = band_widths
        self.num_bands = len(band_widths)
        self.num_sources = num_sources
        self.compression = config.compression
        self.magnitude_input = config.magnitude_input
        parts = 3 if config.magnitude_input else 2
        self.encoders = nn.ModuleList(_BandEncoder(parts * width, dim) for width in band_widths)
        self.decoders = nn.ModuleList(
            _BandDecoder(width * num_sources, dim, config.decoder_expansion * dim)
            for width in band_widths
        )
        if config.initial_mask == "gate":
            for decoder in self.decoders:
                assert isinstance(decoder, _BandDecoder)
                decoder.start_as_gate()

    def encode(self, spectrogram: Float[Tensor, "batch part frame bin"]) -> Encoded:
        """Give each band its features."""
        parts = _parts(spectrogram, self.compression, self.magnitude_input)
        bands = parts.split(self.band_widths, dim=3)
        # Inside a band the channels run bin by bin, the parts of a bin side by side.
        features = torch.stack(
            [
                encoder(band.permute(0, 2, 3, 1).flatten(2))
                for encoder, band in zip(self.encoders, bands, strict=True)
            ],
            dim=2,
        )
        return Encoded(features, None)

    def decode(
        self,
        features: Float[Tensor, "batch frame band dim"],
        context: Float[Tensor, "batch frame bin inner"] | None = None,
    ) -> Float[Tensor, "batch source part frame bin"]:
        """Give each source a complex mask over all bins, unbounded, in float32."""
        bands = [
            # channels: part (real, imaginary), source, bin
            decoder(band).float().unflatten(-1, (2, self.num_sources, -1))
            for decoder, band in zip(self.decoders, features.unbind(2), strict=True)
        ]
        return torch.cat(bands, dim=-1).permute(0, 3, 2, 1, 4)


class _BandEncoder(nn.Module):
    """Normalise a band over all its bins and frames, then project it to the features."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, inputs)
        self.project = nn.Linear(inputs, dim)

    def forward(self, band: Float[Tensor, "batch frame part"]) -> Float[Tensor, "batch frame dim"]:
        normalised = self.norm(band.transpose(1, 2)).transpose(1, 2)
        return self.project(normalised)


class _BandDecoder(nn.Module):
    """Three projections with tanh between and a gated linear unit at the end."""

    def __init__(self, outputs: int, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, dim)
        self.first = nn.Linear(dim, hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)
        self.last = nn.Linear(hidden_dim, 4 * outputs)

    def start_as_gate(self) -> None:
        """Make the real part of the mask start as the gate alone, the imaginary part as 0."""
        real_values, imaginary_values, _, _ = self.last.bias.chunk(4)
        with torch.no_grad():
            values = self.last.weight.shape[0] // 2
            self.last.weight[:values] *= 0.1
            real_values.fill_(1.0)
            imaginary_values.zero_()

    def forward(
        self, features: Float[Tensor, "batch frame dim"]
    ) -> Float[Tensor, "batch frame part"]:
        normalised = self.norm(features.transpose(1, 2)).transpose(1, 2)
        hidden = torch.tanh(self.second(torch.tanh(self.first(normalised))))
        return torch.nn.functional.glu(self.last(hidden), dim=-1)


def _parts(
    spectrogram: Float[Tensor, "batch 2 frame bin"], exponent: float, with_magnitude: bool
) -> Float[Tensor, "batch part frame bin"]:
    """Real part, imaginary part and magnitude; magnitudes raised to ``exponent``."""
    if exponent == 1.0 and not with_magnitude:
        return spectrogram
    power = spectrogram.square().sum(dim=1, keepdim=True)
    # The root's slope at zero is infinite; silence has to have gradients too.
    magnitude = power.clamp_min(torch.finfo(power.dtype).tiny).sqrt()
    parts = torch.cat([spectrogram, magnitude], dim=1) if with_magnitude else spectrogram
    return parts * magnitude.clamp_min(1e-6).pow(exponent - 1.0)
