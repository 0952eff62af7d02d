"""TUSS: task-aware unified source separation.

=====================  ==========================  =======================================
paper                  here                        what it is
=====================  ==========================  =======================================
X                      mixture                     spectrogram of the mixture
P_1 .. P_N             queries                     one learned vector per wanted source, or
                                                   one per band (ours)
SOS                    start_of_sequence           vector between the prompts and the frames
Z                      features                    the mixture's features
cross-prompt module    cross_prompt                blocks over prompts and frames together
conditioning           features * prompts          elementwise, one copy of Z per prompt
cond. TSE module       extraction                  blocks over each conditioned copy
band-split, decoder    codec                       spectrogram → Z, conditioned Z → mask
M_n, Y_n               masks, estimates            Y_n = M_n X
=====================  ==========================  =======================================

Source: K. Saijo, J. Ebbers, F. G. Germain, G. Wichern, J. Le Roux, "Task-aware unified
    source separation", ICASSP 2025, arXiv 2410.23987.
Differs: A query may have a vector for every band, so that prompts that are taught to a finished
    network have more to say; with one vector all is as published.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.dsp.masks import apply_masks
from unbraid.dsp.stft import StftConfig
from unbraid.errors import ConfigError
from unbraid.models.base import Architecture, SpectralModel
from unbraid.nn.band_split import BandSplitConfig
from unbraid.nn.codecs import MaskCodecConfig, build_mask_codec
from unbraid.nn.feature_compression import CompressionConfig
from unbraid.nn.locoformer import FeedForwardConfig, LocoformerConfig, LocoformerStack


@dataclass(frozen=True)
class TussConfig:
    """One TUSS network.

    Attributes:
        codec: Entry and exit.
        cross_prompt: Blocks in which prompts and mixture see each other; its kernels
            along frames are 1 in the published models, so that only attention mixes
            prompts and frames.
        extraction: Blocks that run once per prompt, weights shared by all prompts.
        start_of_sequence: Put a learned vector between the prompts and the frames.
    """

    codec: MaskCodecConfig
    cross_prompt: LocoformerConfig
    extraction: LocoformerConfig
    start_of_sequence: bool = True

    def __post_init__(self) -> None:
        if self.cross_prompt.dim != self.extraction.dim:
            raise ConfigError(
                f"cross_prompt.dim ({self.cross_prompt.dim}) and extraction.dim "
                f"({self.extraction.dim}) must be equal."
            )


class Tuss(SpectralModel):
    """The TUSS network.

    The prompts stand before the frames on one axis under rotary positions: equal prompts
    give different outputs, and the order of the prompts changes the outputs a little.
    """

    def __init__(self, config: TussConfig, sample_rate: int, stft: StftConfig) -> None:
        super().__init__()
        dim = config.cross_prompt.dim
        self.query_dim = dim
        self.codec = build_mask_codec(config.codec, dim, sample_rate, stft.n_fft)
        # One band that all share is the same as one vector.
        self.query_vectors = tuple(sorted({1, self.codec.num_bands}))
        self.cross_prompt = LocoformerStack(config.cross_prompt)
        self.extraction = LocoformerStack(config.extraction)
        self.start_of_sequence: nn.Parameter | None = None
        if config.start_of_sequence:
            start = torch.empty(dim)
            # On the meta device only the shape is wanted; see ``nn.rotary``.
            self.start_of_sequence = nn.Parameter(start if start.is_meta else start.normal_())

    def forward(
        self,
        mixture: Float[Tensor, "batch 2 frame bin"],
        queries: Float[Tensor, "batch source query"],
    ) -> Float[Tensor, "batch source 2 frame bin"]:
        """Estimate one source per query; masks are complex and unbounded.

        Args:
            mixture: The spectrogram.
            queries: One vector each, which all bands share, or one vector per band, the vectors
                behind each other from the lowest band up.
        """
        batch, sources, _ = queries.shape
        features, context = self.codec.encode(mixture)
        num_bands = features.shape[2]
        # One vector is repeated over the bands.
        prefix = queries.unflatten(2, (-1, self.query_dim)).expand(-1, -1, num_bands, -1)
        if self.start_of_sequence is not None:
            start = self.start_of_sequence.expand(batch, 1, num_bands, -1)
            prefix = torch.cat([prefix, start], dim=1)
        sequence = self.cross_prompt(torch.cat([prefix, features], dim=1))
        prompts = sequence[:, :sources]
        features = sequence[:, prefix.shape[1] :]
        conditioned = features.unsqueeze(1) * prompts.unsqueeze(2)
        extracted = self.extraction(conditioned.flatten(0, 1))
        if context is not None:
            context = context.repeat_interleave(sources, dim=0)
        masks = self.codec.decode(extracted, context).squeeze(1).unflatten(0, (batch, sources))
        return apply_masks(masks, mixture)


def _stack(
    num_blocks: int, dim: int, heads: int, attention_dim: int, hidden_dim: int, frame_kernel: int
) -> LocoformerConfig:
    return LocoformerConfig(
        num_blocks=num_blocks,
        dim=dim,
        num_groups=8,
        num_heads=heads,
        attention_dim=attention_dim,
        freq_feed_forward=(FeedForwardConfig(hidden_dim, 4),) * 2,
        frame_feed_forward=(FeedForwardConfig(hidden_dim, frame_kernel),) * 2,
    )


_MEDIUM = TussConfig(BandSplitConfig(), _stack(4, 64, 4, 128, 384, 1), _stack(2, 64, 4, 96, 256, 4))
_LARGE = TussConfig(
    BandSplitConfig(), _stack(6, 128, 8, 256, 384, 1), _stack(3, 128, 8, 192, 256, 4)
)


def _example(codec: MaskCodecConfig) -> TussConfig:
    stack = LocoformerConfig(
        num_blocks=1,
        dim=8,
        num_groups=2,
        num_heads=2,
        attention_dim=8,
        freq_feed_forward=(FeedForwardConfig(8, 3),),
        frame_feed_forward=(FeedForwardConfig(8, 1),),
    )
    return TussConfig(codec, stack, stack)


ARCHITECTURE = Architecture(
    name="tuss",
    config_type=TussConfig,
    build=Tuss,
    presets={
        "medium": _MEDIUM,
        "large": _LARGE,
        # Of the compression in a large TUSS no size is published; this is that of the medium one.
        "large-sfc-61": replace(_LARGE, codec=CompressionConfig(64)),
        "medium-sfc-61": replace(_MEDIUM, codec=CompressionConfig(64)),
        "medium-sfc-64": replace(
            _MEDIUM, codec=CompressionConfig(64, bands="musical", num_bands=64)
        ),
    },
    examples={
        "band-split": _example(BandSplitConfig(bands="mel", num_bands=8, decoder_expansion=1)),
        "attention": _example(CompressionConfig(8, bands="musical", num_bands=8, num_heads=2)),
        "adaptive attention": _example(
            CompressionConfig(8, bands="mel", num_bands=8, num_heads=2, queries="adaptive")
        ),
        "mamba": _example(
            CompressionConfig(
                8, bands="mel", num_bands=8, num_heads=2, mixer="mamba", queries="adaptive"
            )
        ),
    },
)
