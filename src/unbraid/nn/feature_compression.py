"""Spectral feature compression: a small sequence model turns bins into bands and back.

==========================  ==============================  ====================================
paper                       here                            what it is
==========================  ==============================  ====================================
X                           spectrogram                     parts of all channels
E                           tokens                          one vector per bin, D' channels
queries                     queries                         one per band (entry) or bin (exit)
SFC-CA                      CrossAttention                  queries attend to tokens
SFC-Mamba                   BidirectionalMamba              queries stand among the tokens
P, slope                    BandBias                        where a query looks to begin with
learnable queries           LearnableQueries                the same for every frame
adaptive queries            BandMeans, QueryNet             made from E
==========================  ==============================  ====================================

Source: K. Saijo and Y. Bando, "Input-adaptive spectral feature compression by sequence modeling
    for source separation", IEEE TASLP 2026, arXiv 2602.08671.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unbraid.dsp.bands import (
    bark_bands,
    bs_roformer_bands,
    erb_bands,
    mel_bands,
    musical_bands,
    neighbouring_bands,
)
from unbraid.errors import ConfigError
from unbraid.nn.codec import Encoded, SpectralCodec
from unbraid.nn.compression_mixers import (
    BandBias,
    Bands,
    BiasMode,
    BidirectionalMamba,
    CrossAttention,
    QueryPlace,
    RmsNorm,
    SwiGlu,
    query_order,
    remember,
)

# Frames whose attention is averaged together: all at once would not fit.
_FRAMES_AT_ONCE = 16


@dataclass(frozen=True)
class CompressionConfig:
    """Entry and exit by spectral feature compression.

    Attributes:
        inner_dim: Channels of the sequence models (D').
        bands: The table: ``bs-roformer`` (61 bands at 48 kHz) and ``mel`` have neighbours as in
            the band-split codec, the bands of ``musical``, ``bark`` and ``erb`` overlap.
        num_bands: Bands of the table (K); must be left out for ``bs-roformer``.
        mixer: ``attention`` for SFC-CA, ``mamba`` for SFC-Mamba.
        queries: ``learnable`` ones are the same for every frame, which suits attention;
            ``adaptive`` ones are made from the frame, which suits Mamba.
        num_heads: Heads of the attention.
        bias: What is added to the attention before the softmax. ``learnable``: a matrix per
            head that starts at 0 to -1 inside the band and falls by 1 per bin outside.
            ``zero-inside``: the same, starting at 0 inside. ``fixed``: the first one, not
            trained. ``learnable-slope``: that, times a trained factor per head. ``hard-mask``:
            nothing inside the band, and outside it nothing is seen. ``none``: no bias.
        query_place: Where a band's query stands among the bins for Mamba: in the ``middle`` of
            its band, behind it (``forward``) or before it (``backward``).
    """

    inner_dim: int
    bands: Literal["bs-roformer", "musical", "mel", "bark", "erb"] = "bs-roformer"
    num_bands: int | None = None
    mixer: Literal["attention", "mamba"] = "attention"
    queries: Literal["learnable", "adaptive"] = "learnable"
    num_heads: int = 4
    bias: BiasMode = "learnable"
    query_place: QueryPlace = "middle"

    def __post_init__(self) -> None:
        if (self.bands == "bs-roformer") != (self.num_bands is None):
            raise ConfigError(
                "num_bands belongs to every table of bands but bs-roformer, which sets its own."
            )
        if self.num_heads < 1 or self.inner_dim < 1 or self.inner_dim % self.num_heads:
            raise ConfigError(
                f"num_heads ({self.num_heads}) must divide inner_dim ({self.inner_dim})."
            )
        if self.mixer == "mamba" and self.bias != "learnable":
            raise ConfigError("bias belongs to mixer: attention; leave it out for mamba.")
        if self.mixer == "attention" and self.query_place != "middle":
            raise ConfigError("query_place belongs to mixer: mamba; leave it out for attention.")

    def band_table(self, sample_rate: int, n_fft: int) -> Bands:
        """First bin and last bin + 1 of every band, for a sampling rate and a transform size."""
        if self.num_bands is None:
            return neighbouring_bands(bs_roformer_bands(sample_rate, n_fft))
        if self.bands == "mel":
            return neighbouring_bands(mel_bands(sample_rate, n_fft, self.num_bands))
        tables = {"musical": musical_bands, "bark": bark_bands, "erb": erb_bands}
        return tables[self.bands](sample_rate, n_fft, self.num_bands)


class CompressionCodec(SpectralCodec):
    """Compress the bins of each frame to one vector per band, and expand them to masks.

    Frames meet in the 3x3 convolutions alone: ``encode`` and ``decode`` hear two frames to
    either side each.

    Args:
        config: What to build.
        dim: Channels of the features (D).
        bands: First bin and last bin + 1 of every band, as ``CompressionConfig.band_table``
            gives them; the last one ends at the highest bin.
        num_channels: Channels of the recording that are heard together (M).
        num_sources: Sources that ``decode`` gives for each set of features (S).

    Differs: No dropout.
    """

    def __init__(
        self,
        config: CompressionConfig,
        dim: int,
        bands: Bands,
        num_channels: int = 1,
        num_sources: int = 1,
    ) -> None:
        super().__init__()
        parts = 2 * num_channels
        self.num_bands = len(bands)
        self.encoder = CompressionEncoder(config, dim, bands, parts)
        self.decoder = CompressionDecoder(config, dim, bands, parts, num_sources)

    def encode(self, spectrogram: Float[Tensor, "batch part frame bin"]) -> Encoded:
        """Give each band its features; the context serves adaptive queries of the exit."""
        return self.encoder(spectrogram)

    def decode(
        self,
        features: Float[Tensor, "batch frame band dim"],
        context: Float[Tensor, "batch frame bin inner"] | None,
    ) -> Float[Tensor, "batch source part frame bin"]:
        """Give each source a complex mask over all bins, unbounded, in float32."""
        return self.decoder(features, context)


class CompressionEncoder(nn.Module):
    """The entry: 3x3 convolution, compression of each frame, 3x3 convolution."""

    def __init__(self, config: CompressionConfig, dim: int, bands: Bands, parts: int) -> None:
        super().__init__()
        inner = config.inner_dim
        self.input_convolution = nn.Conv2d(parts, inner, 3, padding=1)
        self.input_norm = RmsNorm(inner)
        self.queries = (
            LearnableQueries(len(bands), inner)
            if config.queries == "learnable"
            else BandMeans(bands)
        )
        self.mixer = (
            CrossAttention(inner, config.num_heads, BandBias(bands, config.num_heads, config.bias))
            if config.mixer == "attention"
            else BidirectionalMamba(inner, query_order(bands, config.query_place))
        )
        self.output_convolution = nn.Conv2d(self.mixer.output_dim, dim, 3, padding=1)
        self.output_norm = RmsNorm(dim)
        self.gives_context = config.queries == "adaptive"

    def forward(self, spectrogram: Float[Tensor, "batch part frame bin"]) -> Encoded:
        """Features of every band, and what the exit's queries are made from."""
        image = self.input_convolution(spectrogram).permute(0, 2, 3, 1)
        tokens = self.input_norm(image.contiguous())
        frames = tokens.shape[:2]
        rows = tokens.flatten(0, 1)  # every frame by itself
        at_queries, at_tokens = self.mixer(self.queries(rows), rows)
        image = at_queries.unflatten(0, frames).permute(0, 3, 1, 2)
        features = self.output_norm(self.output_convolution(image).permute(0, 2, 3, 1))
        if not self.gives_context:
            return Encoded(features, None)
        return Encoded(features, tokens if at_tokens is None else at_tokens.unflatten(0, frames))


class CompressionDecoder(nn.Module):
    """The exit: 3x3 convolution, expansion of each frame, 3x3 convolution."""

    def __init__(
        self, config: CompressionConfig, dim: int, bands: Bands, parts: int, num_sources: int
    ) -> None:
        super().__init__()
        inner = config.inner_dim
        num_bins = bands[-1][1]
        self.input_convolution = nn.ConvTranspose2d(dim, inner, 3, padding=1)
        self.mixer = (
            CrossAttention(
                inner,
                config.num_heads,
                BandBias(bands, config.num_heads, config.bias, bins_ask=True),
            )
            if config.mixer == "attention"
            else BidirectionalMamba(inner, query_order(bands, config.query_place), bins_ask=True)
        )
        self.queries = (
            LearnableQueries(num_bins, inner)
            if config.queries == "learnable"
            # The entry hands on what its mixer gave at the bins.
            else QueryNet(inner if config.mixer == "attention" else self.mixer.output_dim, inner)
        )
        self.output_convolution = nn.ConvTranspose2d(
            self.mixer.output_dim, num_sources * parts, 3, padding=1
        )
        self.num_sources = num_sources

    def forward(
        self,
        features: Float[Tensor, "batch frame band dim"],
        context: Float[Tensor, "batch frame bin inner"] | None,
    ) -> Float[Tensor, "batch source part frame bin"]:
        """One complex mask per source and channel."""
        tokens = self.input_convolution(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        rows = tokens.flatten(0, 1)
        asked = rows if context is None else context.flatten(0, 1)
        at_queries, _ = self.mixer(self.queries(asked), rows)
        image = at_queries.unflatten(0, tokens.shape[:2]).permute(0, 3, 1, 2)
        masks = self.output_convolution(image).float()
        # channels: real and imaginary part, source, channel of the recording
        by_part = masks.unflatten(1, (2, self.num_sources, -1))
        return by_part.transpose(1, 2).flatten(2, 3)


class LearnableQueries(nn.Module):
    """Queries that are the same for every frame."""

    def __init__(self, num_queries: int, dim: int) -> None:
        super().__init__()
        start = torch.empty(num_queries, dim)
        # On the meta device only the shape is wanted; see ``nn.rotary``.
        self.vectors = nn.Parameter(start if start.is_meta else start.normal_())

    def forward(self, _tokens: Float[Tensor, "row token channel"]) -> Float[Tensor, "1 query dim"]:
        """One row, for all rows."""
        return self.vectors.unsqueeze(0)


class BandMeans(nn.Module):
    """One query per band: the weighted mean of its bins, with one weight per band and bin."""

    places: Int[Tensor, "weight"]

    def __init__(self, bands: Bands) -> None:
        super().__init__()
        self.shape = (len(bands), bands[-1][1])
        start = [1.0 / (end - first) for first, end in bands for _ in range(first, end)]
        self.weights = nn.Parameter(torch.tensor(start))
        remember(
            self,
            "places",
            [
                band * self.shape[1] + bin_
                for band, (first, end) in enumerate(bands)
                for bin_ in range(first, end)
            ],
        )

    def forward(self, tokens: Float[Tensor, "row bin dim"]) -> Float[Tensor, "row band dim"]:
        """The means; weights are brought to the sum 1 in every band."""
        flat = self.weights.new_zeros(self.shape[0] * self.shape[1])
        matrix = flat.index_put((self.places,), self.weights).view(self.shape)
        matrix = matrix / matrix.sum(dim=1, keepdim=True).clamp_min(1e-8)
        return matrix @ tokens


class QueryNet(nn.Module):
    """One query per bin: a pointwise net of what the entry knew at that bin."""

    def __init__(self, input_dim: int, dim: int) -> None:
        super().__init__()
        self.norm = RmsNorm(input_dim)
        self.net = SwiGlu(input_dim, 2 * dim, dim)

    def forward(self, context: Float[Tensor, "row bin inner"]) -> Float[Tensor, "row bin dim"]:
        """Bins do not hear each other."""
        return self.net(self.norm(context))


class AttentionWeights(NamedTuple):
    """Where queries look, as shares that sum to 1 over the last axis; means over frames.

    Attributes:
        encoder: Which bins a band is made from.
        decoder: Which bands a bin is made from.
    """

    encoder: Float[Tensor, "head band bin"]
    decoder: Float[Tensor, "head bin band"]


def attention_weights(codec: CompressionCodec, run: Callable[[], object]) -> AttentionWeights:
    """Watch the attention of a codec while its network works.

    Args:
        codec: The codec to watch.
        run: Puts a recording through the codec and whatever stands around it, once or more
            often. Where the exit looks hangs on what the network made of the features.

    Raises:
        ConfigError: If the codec has no attention, or ``run`` does not use it.
    """
    watched = [codec.encoder.mixer, codec.decoder.mixer]
    sums: list[Tensor | None] = [None, None]
    rows = [0, 0]

    def watch(side: int, mixer: CrossAttention, queries: Tensor, tokens: Tensor) -> None:
        with torch.no_grad():
            asking, keys, _ = mixer.heads(queries, tokens)
            bias = mixer.bias()
            for some_asking, some_keys in zip(
                asking.split(_FRAMES_AT_ONCE), keys.split(_FRAMES_AT_ONCE), strict=True
            ):
                scores = some_asking @ some_keys.transpose(-1, -2) * keys.shape[-1] ** -0.5
                if bias is not None:
                    scores = scores + bias
                added = scores.softmax(dim=-1).double().sum(dim=0)
                before = sums[side]
                sums[side] = added if before is None else before + added
        rows[side] += len(tokens)

    handles = []
    for side, mixer in enumerate(watched):
        if not isinstance(mixer, CrossAttention):
            raise ConfigError("a codec with mixer: mamba has no attention to look at.")
        handles.append(
            mixer.register_forward_pre_hook(
                lambda module, inputs, side=side: watch(side, module, *inputs)
            )
        )
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    means = []
    for total, count in zip(sums, rows, strict=True):
        if total is None:
            raise ConfigError("nothing went through the codec whose attention was to be shown.")
        means.append((total / count).float())
    return AttentionWeights(*means)
