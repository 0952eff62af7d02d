"""TF-Locoformer: a separator of one recording into outputs that are always the same ones.

=====================  =====================  ====================================================
paper                  here                   what it is
=====================  =====================  ====================================================
X                      mixture                spectrogram of the mixture
N                      num_outputs            how many sources come out
M                      num_channels           channels of the recording (SFC)
Conv2D, gLN            codec.encode           spectrogram → Z
Z                      features               the mixture's features, D channels in each T-F point
B                      stack.num_blocks       TF-Locoformer blocks
C, K, H, G, E          stack                  hidden channels, kernel, heads, groups, attention
Deconv2D               codec.decode           Z → spectra of the sources
E, W (SFC)             codec                  compression of F bins into few bands and back
Y_n                    estimates              decoded spectra; with the other codecs Y_n = M_n X
=====================  =====================  ====================================================

The body is the same whatever the entry and exit: the convolutional codec makes it TF-Locoformer,
the compression of spectral features makes it SFC, the band-split codec BS-Locoformer.

Source: K. Saijo, G. Wichern, F. G. Germain, Z. Pan, J. Le Roux, "TF-Locoformer: transformer with
    local modeling by convolution for speech separation and enhancement", IWAENC 2024, arXiv
    2408.03440; K. Saijo, Y. Bando, "Input-adaptive spectral feature compression by sequence
    modeling for source separation", TASLP 2026, arXiv 2602.08671.
Differs: The SFC release leaves out the last frame, which is centred behind the
    recording's last whole hop; here it stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from unbraid.dsp.masks import apply_masks
from unbraid.dsp.stft import StftConfig
from unbraid.errors import ConfigError
from unbraid.models.base import Architecture, SpectralModel
from unbraid.nn.band_split import BandSplitConfig
from unbraid.nn.codec import SpectralCodec
from unbraid.nn.codecs import MaskCodecConfig, build_mask_codec
from unbraid.nn.convolutional import ConvolutionalCodec, ConvolutionalConfig
from unbraid.nn.feature_compression import CompressionConfig
from unbraid.nn.locoformer import FeedForwardConfig, LocoformerConfig, LocoformerStack


@dataclass(frozen=True)
class TfLocoformerConfig:
    """One separator with fixed outputs.

    Attributes:
        codec: Entry and exit: the convolutional one if no key says otherwise.
        stack: The blocks between them.
        num_outputs: How many sources come out.
        num_channels: Channels of the recording, heard together.
    """

    codec: ConvolutionalConfig | MaskCodecConfig
    stack: LocoformerConfig
    num_outputs: int
    num_channels: int = 1

    def __post_init__(self) -> None:
        if self.num_outputs < 1 or self.num_channels < 1:
            raise ConfigError(
                f"num_outputs ({self.num_outputs}) and num_channels ({self.num_channels}) must "
                "be positive."
            )


class TfLocoformer(SpectralModel):
    """The TF-Locoformer network.

    With the convolutional codec the outputs are spectra, which the network makes by itself
    (complex spectral mapping); with the others they are the mixture under masks.
    """

    def __init__(self, config: TfLocoformerConfig, sample_rate: int, stft: StftConfig) -> None:
        super().__init__()
        self.query_dim = 0
        self.num_outputs = config.num_outputs
        self.num_channels = config.num_channels
        self.codec = _codec(config, sample_rate, stft)
        self.stack = LocoformerStack(config.stack)
        self._gives_masks = not isinstance(config.codec, ConvolutionalConfig)

    def forward(
        self,
        mixture: Float[Tensor, "batch part frame bin"],
        queries: Float[Tensor, "batch source dim"],
    ) -> Float[Tensor, "batch output part frame bin"]:
        """Estimate all sources; the queries have no numbers and are not looked at."""
        features, context = self.codec.encode(mixture)
        estimates = self.codec.decode(self.stack(features), context)
        return apply_masks(estimates, mixture) if self._gives_masks else estimates


def _codec(config: TfLocoformerConfig, sample_rate: int, stft: StftConfig) -> SpectralCodec:
    dim, num_outputs, num_channels = config.stack.dim, config.num_outputs, config.num_channels
    if isinstance(config.codec, ConvolutionalConfig):
        return ConvolutionalCodec(config.codec, dim, num_outputs, num_channels)
    return build_mask_codec(
        config.codec,
        dim,
        sample_rate,
        stft.n_fft,
        num_sources=num_outputs,
        num_channels=num_channels,
    )


def _stack(num_blocks: int, dim: int, hidden_dim: int, kernel_size: int) -> LocoformerConfig:
    """The blocks of the published separators, with the same nets everywhere."""
    nets = (FeedForwardConfig(hidden_dim, kernel_size),) * 2
    return LocoformerConfig(
        num_blocks=num_blocks,
        dim=dim,
        num_groups=4,
        num_heads=4,
        attention_dim=dim,
        freq_feed_forward=nets,
        frame_feed_forward=nets,
    )


def _locoformer(stack: LocoformerConfig, num_outputs: int = 2) -> TfLocoformerConfig:
    return TfLocoformerConfig(ConvolutionalConfig(), stack, num_outputs)


def _compressed(
    codec: CompressionConfig, stack: LocoformerConfig, num_outputs: int = 4, num_channels: int = 2
) -> TfLocoformerConfig:
    # Without positions, so that recordings may be longer than those of the training.
    body = replace(stack, positions="none", dropout=0.1)
    return TfLocoformerConfig(codec, body, num_outputs, num_channels)


_SMALL_REVERBERANT = _stack(4, 96, 128, 8)
_MEDIUM_REVERBERANT = _stack(6, 128, 192, 8)
# The bodies of SFC are those for reverberant speech, but for the heads of the medium one.
_MEDIUM_BODY = replace(_MEDIUM_REVERBERANT, num_groups=8, num_heads=8)
_SMALL_ATTENTION = CompressionConfig(64, bands="musical", num_bands=64)
_MEDIUM_ATTENTION = CompressionConfig(96, bands="musical", num_bands=64)
_SMALL_MAMBA = replace(_SMALL_ATTENTION, inner_dim=32, mixer="mamba", queries="adaptive")
_MEDIUM_MAMBA = replace(_SMALL_MAMBA, inner_dim=48)


def _example(
    codec: ConvolutionalConfig | MaskCodecConfig, num_channels: int = 1, **changes: Any
) -> TfLocoformerConfig:
    nets = (FeedForwardConfig(6, 3),) * 2
    stack = LocoformerConfig(
        num_blocks=1,
        dim=8,
        num_groups=2,
        num_heads=2,
        attention_dim=8,
        freq_feed_forward=nets,
        frame_feed_forward=nets,
    )
    return TfLocoformerConfig(codec, replace(stack, **changes), 2, num_channels)


ARCHITECTURE = Architecture(
    name="tf_locoformer",
    config_type=TfLocoformerConfig,
    build=TfLocoformer,
    presets={
        # Two speakers at 8 kHz, transform 128/64; reverberant ones 256/64; enhancement at 16 kHz
        # 256/128. All with Hann windows and reflected ends.
        "small": _locoformer(_stack(4, 96, 256, 4)),
        "medium": _locoformer(_stack(6, 128, 384, 4)),
        "large": _locoformer(_stack(9, 128, 384, 4)),
        "small-reverberant": _locoformer(_SMALL_REVERBERANT),
        # The released settings do not say how wide the attention is, and the default is wider.
        "small-reverberant-released": _locoformer(replace(_SMALL_REVERBERANT, attention_dim=128)),
        "medium-reverberant": _locoformer(_MEDIUM_REVERBERANT),
        "medium-enhancement": _locoformer(_stack(6, 128, 384, 4), num_outputs=1),
        # SFC: four stems in stereo (MUSDB), or speech, music and effects in mono (DnR), at
        # 44.1 kHz, transform 2048/512, level of the spectrum.
        "sfc-small": _compressed(_SMALL_ATTENTION, _SMALL_REVERBERANT),
        "sfc-medium": _compressed(_MEDIUM_ATTENTION, _MEDIUM_BODY),
        "sfc-small-dnr": _compressed(_SMALL_ATTENTION, _SMALL_REVERBERANT, 3, 1),
        "sfc-medium-dnr": _compressed(_MEDIUM_ATTENTION, _MEDIUM_BODY, 3, 1),
        "sfc-mamba-small": _compressed(_SMALL_MAMBA, _SMALL_REVERBERANT),
        "sfc-mamba-medium": _compressed(_MEDIUM_MAMBA, _MEDIUM_BODY),
    },
    examples={
        "convolutional": _example(ConvolutionalConfig()),
        "convolutional, stereo": _example(ConvolutionalConfig(), num_channels=2),
        "layer norms, frames first": _example(ConvolutionalConfig(), norm="layer", order="tf"),
        "band-split": _example(BandSplitConfig(bands="mel", num_bands=8, decoder_expansion=1)),
        "attention, stereo": _example(
            CompressionConfig(8, bands="musical", num_bands=8, num_heads=2),
            num_channels=2,
            positions="none",
        ),
    },
)
