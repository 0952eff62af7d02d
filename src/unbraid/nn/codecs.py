"""The codecs that give masks, told apart by their settings."""

from __future__ import annotations

from typing import TypeAlias

from unbraid.errors import ConfigError
from unbraid.nn.band_split import BandSplitCodec, BandSplitConfig
from unbraid.nn.feature_compression import CompressionCodec, CompressionConfig

#: Any of them; ``inner_dim`` makes it spectral feature compression.
MaskCodecConfig: TypeAlias = BandSplitConfig | CompressionConfig

#: What they describe; each says how many bands its features have.
MaskCodec: TypeAlias = BandSplitCodec | CompressionCodec


def build_mask_codec(
    config: MaskCodecConfig,
    dim: int,
    sample_rate: int,
    n_fft: int,
    *,
    num_sources: int = 1,
    num_channels: int = 1,
) -> MaskCodec:
    """Make a codec with fresh weights.

    Args:
        config: Which, and its settings.
        dim: Channels of the features.
        sample_rate: Of the waveforms, in Hz.
        n_fft: Of the transform.
        num_sources: Masks for each set of features.
        num_channels: Channels that are heard together.

    Raises:
        ConfigError: If the table of bands does not fit the transform, or the codec cannot hear
            that many channels.
    """
    if isinstance(config, CompressionConfig):
        bands = config.band_table(sample_rate, n_fft)
        return CompressionCodec(config, dim, bands, num_channels, num_sources)
    if num_channels > 1:
        raise ConfigError(
            f"the band-split codec hears one channel, not {num_channels}; take spectral feature "
            "compression (codec.inner_dim), or num_channels: 1."
        )
    return BandSplitCodec(config, dim, config.band_widths(sample_rate, n_fft), num_sources)
