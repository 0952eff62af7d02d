r"""AudioSlots: a generative separator that finds one vector, a slot, for each source.

=====================  ==========================  =============================================
paper                  here                        what it is
=====================  ==========================  =============================================
\|S\|^0.3                image                       compressed magnitudes of a chunk
z                      grid                        what the ResNet-34 makes of the image, 8 x 32
q                      queries                     learned vectors that become slots
s_i                    slots                       vectors, each of one source
(decoder)              decode                      slot → compressed magnitudes of its source
(none: our addition)   detail                      what a slot points at in the encoder's fine maps
IBM, Wiener-like mask  masks_of                    shares of the bins → masks for the mixture
=====================  ==========================  =============================================

The network generates magnitudes. It learns with these, and separates with the masks that they
make. The encoder halves both axes three times, so a chunk is a multiple of 8 frames, and the bins
without the highest are a multiple of 8: 64 frames and 256 bins for 0.5 s at 16 kHz. The STFT gives
one frame and one bin more. On the way in both are dropped; on the way out the last frame and the
highest bin get the masks of their neighbours. Shorter input is filled up with silence. Longer input
is cut into chunks that each start from the slots of the one before, if the network carries slots;
else no input may be longer than a chunk, and ``most_frames`` says so.

Source: P. Reddy, S. Wisdom, K. Greff, J. R. Hershey, T. Kipf, "AudioSlots: a slot-centric
    generative model for audio separation", ICASSP SASB workshop 2023, arXiv 2305.05591; F.
    Locatello et al., "Object-centric learning with slot attention", NeurIPS 2020, for the other
    way to find slots; T. Kipf et al., "Conditional object-centric learning from video", ICLR
    2022, for carrying them.
Differs: GroupNorm in the ResNet, MLPs in the transformer, and all sizes of ``base`` are ours: the
    paper does not say. Fourier features that the decoder's grid cannot show are left out: a wave
    of less than two points looks like one that is there already. ``detail_dim`` adds a branch,
    off in the presets, that sees the mixture's bins.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unbraid.dsp.stft import StftConfig
from unbraid.errors import ConfigError
from unbraid.models.base import Architecture, SpectralModel

#: How bins are shared out. ``wiener``: in proportion to the powers. ``binary``: all to the loudest.
Masks: TypeAlias = Literal["wiener", "binary"]

#: What each stage of the encoder gives: batch, channel, frame, bin; the last one is the coarsest.
Maps: TypeAlias = list[Float[Tensor, "_ _ _ _"]]

#: Magnitudes are compressed by this power.
COMPRESSION = 0.3

# Compressed magnitudes below count as silence, 133 dB below a magnitude of 1. Lower down rounding
# would decide about shares.
_SILENCE = 1e-2
# How much the encoder halves both axes, in all.
_STRIDE = 8
# Deviation of what is to begin as nearly nothing: positions, and what slots point at.
_FAINT = 0.02


@dataclass(frozen=True)
class AudioSlotsConfig:
    """One slot model.

    Attributes:
        num_slots: Sources that come out. With 1 it is the autoencoder, which hears one source
            at a time and bounds what slots can reach.
        frames: Length of a chunk, a multiple of 8.
        carries_slots: Whether input may be longer than a chunk, each chunk starting from the
            slots of the one before instead of the learned queries. To be trained on such input.
        masks: How separated sources share the mixture.
        channels: Of the four stages of the ResNet.
        depths: Blocks of each stage.
        norm_groups: Groups of every GroupNorm.
        positions: What tells the grid's places apart: a ``learned`` table, or ``sine`` waves.
        attention: How slots are found. ``transformer``: layers of self-attention among the
            slots, then cross-attention to the grid. ``slot``: one layer that is repeated, in which
            slots compete for the places of the grid.
        dim: Length of a slot.
        num_heads: Heads of the transformer.
        hidden_dim: Of the MLP in each layer.
        num_layers: Layers of the transformer, or repetitions of slot attention.
        decoder_dim: Width of the decoder's layers.
        decoder_layers: How many there are, the last one included.
        octaves: Fourier features along each axis, a sine and a cosine per octave.
        detail_dim: Width of a branch that adds to what a slot generates, bin by bin, what it
            points at in maps of the mixture as fine as its bins. 0 for none, as in the paper, where
            all that is known of a source is its slot.
    """

    num_slots: int = 2
    frames: int = 64
    carries_slots: bool = False
    masks: Masks = "wiener"
    channels: tuple[int, int, int, int] = (64, 128, 256, 512)
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    norm_groups: int = 32
    positions: Literal["learned", "sine"] = "learned"
    attention: Literal["transformer", "slot"] = "transformer"
    dim: int = 512
    num_heads: int = 8
    hidden_dim: int = 2048
    num_layers: int = 4
    decoder_dim: int = 512
    decoder_layers: int = 5
    octaves: int = 10
    detail_dim: int = 0

    def __post_init__(self) -> None:
        for name in (
            "num_slots",
            "norm_groups",
            "dim",
            "num_heads",
            "hidden_dim",
            "num_layers",
            "decoder_dim",
            "octaves",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be positive, not {getattr(self, name)}.")
        if self.detail_dim < 0:
            raise ConfigError(f"detail_dim may not be negative, but is {self.detail_dim}.")
        if self.detail_dim and self.num_slots == 1:
            raise ConfigError(
                "detail_dim is for networks that separate: an autoencoder, of one slot, would copy "
                "its input; leave it at 0."
            )
        if self.frames < _STRIDE or self.frames % _STRIDE:
            raise ConfigError(f"frames must be a multiple of {_STRIDE}, not {self.frames}.")
        if self.decoder_layers < 2:
            raise ConfigError(f"decoder_layers must be at least 2, not {self.decoder_layers}.")
        if min(self.channels) < 1 or min(self.depths) < 1:
            raise ConfigError(
                f"channels {self.channels} and depths {self.depths} must be positive."
            )
        if any(width % self.norm_groups for width in self.channels):
            raise ConfigError(
                f"norm_groups ({self.norm_groups}) must divide all channels {self.channels}."
            )
        if self.attention == "transformer" and self.dim % self.num_heads:
            raise ConfigError(f"num_heads ({self.num_heads}) must divide dim ({self.dim}).")
        if self.positions == "sine" and self.channels[-1] % 4:
            raise ConfigError(
                f"positions sine: the last of channels {self.channels} must be a multiple of 4."
            )


class AudioSlots(SpectralModel):
    """Encoder, slots and decoder; outputs come in the order of the slots.

    Attributes:
        frames: Of a chunk.
    """

    def __init__(self, config: AudioSlotsConfig, sample_rate: int, stft: StftConfig) -> None:
        super().__init__()
        self.query_dim = 0
        self.num_outputs = config.num_slots
        self.most_frames = None if config.carries_slots else config.frames + 1
        self.frames = config.frames
        self._num_bins = stft.num_bins - 1
        self._carries_slots = config.carries_slots
        self._masks = config.masks
        self._hop_s = stft.hop_length / sample_rate
        if self._num_bins % _STRIDE:
            raise ConfigError(
                f"the encoder halves {self._num_bins} bins three times; half of stft.n_fft must be "
                f"a multiple of {_STRIDE}."
            )
        self.encoder = _ResNet(config)
        grid = (config.frames // _STRIDE, self._num_bins // _STRIDE)
        self.places = (
            nn.Parameter(_FAINT * torch.randn(*grid, config.channels[-1]))
            if config.positions == "learned"
            else None
        )
        self.queries = nn.Parameter(torch.randn(config.num_slots, config.dim))
        self.attention: _Transformer | _SlotAttention = (
            _Transformer(config) if config.attention == "transformer" else _SlotAttention(config)
        )
        octaves = tuple(
            min(config.octaves, int(math.log2(size))) for size in (config.frames, self._num_bins)
        )
        self.decoder = _Decoder(config, (octaves[0], octaves[1]))
        self.detail = _Detail(config) if config.detail_dim else None

    def forward(
        self,
        mixture: Float[Tensor, "batch 2 frame bin"],
        queries: Float[Tensor, "batch source dim"],
    ) -> Float[Tensor, "batch slot 2 frame bin"]:
        """Mask the mixture by the magnitudes of all slots; the queries are not looked at.

        Raises:
            ConfigError: If the mixture is longer than ``most_frames``.
        """
        return masked(mixture, self.magnitudes(self.image(mixture)), self._masks)

    def image(
        self, spectrogram: Float[Tensor, "batch 2 frame bin"]
    ) -> Float[Tensor, "batch chunk_frame chunk_bin"]:
        """What the encoder sees, and what the decoder learns to give: whole chunks.

        Raises:
            ConfigError: If the spectrogram is longer than ``most_frames``.
        """
        if self.most_frames is not None and spectrogram.shape[2] > self.most_frames:
            raise ConfigError(
                f"this network hears {self.frames * self._hop_s:g} s at once, and was given "
                f"{(spectrogram.shape[2] - 1) * self._hop_s:g} s; cut the input, or train it with "
                "carries_slots."
            )
        compressed = compressed_magnitudes(spectrogram)
        return torch.nn.functional.pad(compressed, (0, 0, 0, -compressed.shape[1] % self.frames))

    def magnitudes(
        self,
        image: Float[Tensor, "batch frame bin"],
        frames: Int[Tensor, "drawn"] | None = None,
    ) -> Float[Tensor, "batch slot drawn_frame bin"]:
        """Compressed magnitudes of the source in each slot; negative ones stand for silence.

        Args:
            image: Whole chunks.
            frames: Which frames of every chunk to draw; None for all. Each is drawn by itself, so
                that a network can learn from a few.
        """
        return self.generate(image, frames)[1]

    def generate(
        self,
        image: Float[Tensor, "batch frame bin"],
        frames: Int[Tensor, "drawn"] | None = None,
    ) -> tuple[Float[Tensor, "batch chunk slot dim"], Float[Tensor, "batch slot drawn_frame bin"]]:
        """The slots, and their ``magnitudes``."""
        maps = self._maps(image)
        slots = self._find(maps[-1], len(image), None)
        drawn = self.decode(slots, frames=frames)
        if self.detail is not None:
            detail = self.detail(maps, slots.flatten(0, 1), frames)
            drawn = drawn + detail.unflatten(0, slots.shape[:2])
        return slots, drawn.transpose(1, 2).flatten(2, 3)

    def slots(
        self,
        image: Float[Tensor, "batch frame bin"],
        start: Float[Tensor, "batch slot dim"] | None = None,
    ) -> Float[Tensor, "batch chunk slot dim"]:
        """One vector per source and chunk.

        Args:
            image: Whole chunks.
            start: What becomes the slots of the first chunk; None for the learned queries.
                Another order of these gives the same slots in that order.
        """
        return self._find(self._maps(image)[-1], len(image), start)

    def _maps(self, image: Float[Tensor, "batch frame bin"]) -> Maps:
        """What the encoder makes of all chunks, stage by stage."""
        maps: list[Tensor] = self.encoder(image.reshape(-1, 1, self.frames, image.shape[-1]))
        return maps

    def _find(
        self,
        grid: Float[Tensor, "batch_chunk channel grid_frame grid_bin"],
        batch: int,
        start: Float[Tensor, "batch slot dim"] | None,
    ) -> Float[Tensor, "batch chunk slot dim"]:
        """Slots from the encoder's last stage."""
        places = self._placed(grid).unflatten(0, (batch, -1))
        first = self.queries.expand(batch, -1, -1) if start is None else start
        if not self._carries_slots:
            every = first.repeat_interleave(places.shape[1], dim=0)
            return self.attention(every, places.flatten(0, 1)).unflatten(0, places.shape[:2])
        carried = []
        for chunk in places.unbind(1):
            first = self.attention(first, chunk)
            carried.append(first)
        return torch.stack(carried, dim=1)

    def _placed(
        self, grid: Float[Tensor, "chunk channel grid_frame grid_bin"]
    ) -> Float[Tensor, "chunk place channel"]:
        """What slots look at: the grid with its positions, as a list of places."""
        grid = grid.permute(0, 2, 3, 1)
        places = _sine_positions(grid) if self.places is None else self.places
        return (grid + places).flatten(1, 2)

    def decode(
        self,
        slots: Float[Tensor, "*batch dim"],
        num_frames: int | None = None,
        num_bins: int | None = None,
        frames: Int[Tensor, "drawn"] | None = None,
    ) -> Float[Tensor, "*batch drawn_frame bin"]:
        """Compressed magnitudes of slots, each value from the slot and its own place alone.

        Nothing of ``detail`` is in them.

        Args:
            slots: Any number.
            num_frames: How finely a chunk is drawn along time; None for its own frames.
            num_bins: The same along frequency.
            frames: Which of the frames are drawn; None for all.
        """
        return self.decoder(slots, num_frames or self.frames, num_bins or self._num_bins, frames)


def compressed_magnitudes(
    spectrogram: Float[Tensor, "batch 2 frame bin"],
) -> Float[Tensor, "batch inner_frame inner_bin"]:
    """|S|^0.3 without the highest bin and, where there are several, the last frame."""
    inner = spectrogram[:, :, : max(1, spectrogram.shape[2] - 1), :-1]
    return torch.linalg.vector_norm(inner, dim=1) ** COMPRESSION


def expanded_magnitudes(compressed: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """The magnitudes that were compressed; what is negative was silence."""
    return compressed.clamp_min(0.0) ** (1.0 / COMPRESSION)


def masks_of(
    compressed: Float[Tensor, "batch source frame bin"], kind: Masks
) -> Float[Tensor, "batch source frame bin"]:
    """How the sources of given compressed magnitudes share each bin; the shares sum to one.

    Bins in which all sources are silent are shared evenly by ``wiener`` and go to the first source
    by ``binary``.
    """
    audible = compressed.clamp_min(_SILENCE)
    if kind == "binary":
        loudest = audible.argmax(dim=1, keepdim=True)
        return torch.zeros_like(audible).scatter(1, loudest, 1.0)
    # A^(2 / 0.3) leaves the range of float32 soon, its logarithm does not:
    # m_i^2 / sum_j m_j^2 = exp(l_i) / sum_j exp(l_j) with l = 2 log m = 2 / 0.3 log A.
    return (2.0 / COMPRESSION * audible.log()).softmax(dim=1)


def masked(
    mixture: Float[Tensor, "batch 2 frame bin"],
    compressed: Float[Tensor, "batch source chunk_frame chunk_bin"],
    kind: Masks,
) -> Float[Tensor, "batch source 2 frame bin"]:
    """Share the mixture out among sources of given compressed magnitudes.

    Args:
        mixture: What is masked.
        compressed: Frames from the first one on, as ``compressed_magnitudes`` gives them, or with
            frames of silence behind; the last frame of the mixture and its highest bin take the
            masks of their neighbours.
        kind: Of the masks.
    """
    num_frames = mixture.shape[2]
    masks = masks_of(compressed[:, :, :num_frames], kind)
    # Frames of silence that filled up a chunk say nothing about the last frame.
    masks = masks[:, :, : max(1, num_frames - 1)]
    missing = num_frames - masks.shape[2]
    masks = torch.nn.functional.pad(masks, (0, 1, 0, missing), mode="replicate")
    return masks.unsqueeze(2) * mixture.unsqueeze(1)


class _ResNet(nn.Module):
    """ResNet-34 whose root keeps the resolution.

    Source: K. He et al., "Deep residual learning for image recognition", CVPR 2016.
    """

    def __init__(self, config: AudioSlotsConfig) -> None:
        super().__init__()
        root = config.channels[0]
        self.root = nn.Conv2d(1, root, 7, padding=3, bias=False)
        self.norm = nn.GroupNorm(config.norm_groups, root)
        self._depths = config.depths
        blocks: list[nn.Module] = []
        before = root
        for stage, (after, depth) in enumerate(zip(config.channels, config.depths, strict=True)):
            for number in range(depth):
                stride = 2 if stage and not number else 1
                blocks.append(_Block(before, after, stride, config.norm_groups))
                before = after
        self.blocks = nn.Sequential(*blocks)

    def forward(self, image: Float[Tensor, "chunk 1 frame bin"]) -> Maps:
        """What comes out of each stage, the first one as fine as the image."""
        features = torch.nn.functional.relu(self.norm(self.root(image)))
        blocks = iter(self.blocks)
        maps = []
        for depth in self._depths:
            for block in itertools.islice(blocks, depth):
                features = block(features)
            maps.append(features)
        return maps


class _Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, before: int, after: int, stride: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(groups, after)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(groups, after)
        self.around: nn.Module = (
            nn.Identity()
            if before == after and stride == 1
            else nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.GroupNorm(groups, after)
            )
        )

    def forward(
        self, features: Float[Tensor, "chunk before frame bin"]
    ) -> Float[Tensor, "chunk after new_frame new_bin"]:
        inner = torch.nn.functional.relu(self.first_norm(self.first(features)))
        residual = self.second_norm(self.second(inner))
        return torch.nn.functional.relu(residual + self.around(features))


class _Transformer(nn.Module):
    """Queries that look at each other, then at the grid, layer by layer."""

    def __init__(self, config: AudioSlotsConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(
        self,
        start: Float[Tensor, "batch slot dim"],
        grid: Float[Tensor, "batch place channel"],
    ) -> Float[Tensor, "batch slot dim"]:
        slots = start
        for layer in self.layers:
            slots = layer(slots, grid)
        return self.norm(slots)


class _Layer(nn.Module):
    """Self-attention, cross-attention and an MLP, with norms before each."""

    def __init__(self, config: AudioSlotsConfig) -> None:
        super().__init__()
        dim, channels = config.dim, config.channels[-1]
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        # No biases: that of the keys would change nothing and never learn.
        self.to_slots = nn.MultiheadAttention(dim, config.num_heads, bias=False, batch_first=True)
        self.to_grid = nn.MultiheadAttention(
            dim, config.num_heads, bias=False, kdim=channels, vdim=channels, batch_first=True
        )
        self.mlp = _mlp(dim, config.hidden_dim)

    def forward(
        self,
        slots: Float[Tensor, "batch slot dim"],
        grid: Float[Tensor, "batch place channel"],
    ) -> Float[Tensor, "batch slot dim"]:
        normed = self.norms[0](slots)
        slots = slots + self.to_slots(normed, normed, normed, need_weights=False)[0]
        slots = slots + self.to_grid(self.norms[1](slots), grid, grid, need_weights=False)[0]
        return slots + self.mlp(self.norms[2](slots))


class _SlotAttention(nn.Module):
    """Slots that compete: each place of the grid divides its attention among them."""

    def __init__(self, config: AudioSlotsConfig) -> None:
        super().__init__()
        dim, channels = config.dim, config.channels[-1]
        self._num_iterations = config.num_layers
        self.grid_norm = nn.LayerNorm(channels)
        self.keys_values = nn.Linear(channels, 2 * dim, bias=False)
        self.slot_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.update = nn.GRUCell(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = _mlp(dim, config.hidden_dim)

    def forward(
        self,
        start: Float[Tensor, "batch slot dim"],
        grid: Float[Tensor, "batch place channel"],
    ) -> Float[Tensor, "batch slot dim"]:
        keys, values = self.keys_values(self.grid_norm(grid)).chunk(2, dim=-1)
        slots = start
        for _ in range(self._num_iterations):
            queries = self.query(self.slot_norm(slots))
            affinity = queries @ keys.mT / math.sqrt(keys.shape[-1])
            # Over slots, not places; then a mean over places. No slot may be left without any.
            share = affinity.softmax(dim=1) + 1e-8
            seen = share / share.sum(dim=2, keepdim=True) @ values
            updated = self.update(seen.flatten(0, 1), slots.flatten(0, 1))
            slots = updated.unflatten(0, slots.shape[:2])
            slots = slots + self.mlp(self.mlp_norm(slots))
        return slots


def _mlp(dim: int, hidden_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, dim))


class _Decoder(nn.Module):
    """Spatial broadcast decoder: one small network for all places.

    Source: N. Watters et al., "Spatial broadcast decoder", 2019; B. Mildenhall et al., "NeRF",
        ECCV 2020, for the Fourier features.
    """

    def __init__(self, config: AudioSlotsConfig, octaves: tuple[int, int]) -> None:
        super().__init__()
        self._octaves = octaves
        width = config.decoder_dim
        # The first layer sees slot and place side by side. Its two halves are computed apart and
        # added, so that a slot is not copied to every place at its full length.
        self.from_slot = nn.Linear(config.dim, width)
        self.from_place = nn.Linear(2 * sum(octaves), width, bias=False)
        widths = [width] * (config.decoder_layers - 1)
        self.inner = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(widths))
        self.last = nn.Linear(width, 1)

    def forward(
        self,
        slots: Float[Tensor, "*batch dim"],
        num_frames: int,
        num_bins: int,
        frames: Int[Tensor, "drawn"] | None,
    ) -> Float[Tensor, "*batch drawn_frame bin"]:
        along_time, along_frequency = (
            _fourier_features(size, octaves, slots)
            for size, octaves in zip((num_frames, num_bins), self._octaves, strict=True)
        )
        if frames is not None:
            along_time = along_time[frames]
        places = torch.cat(
            [
                along_time[:, None].expand(-1, num_bins, -1),
                along_frequency.expand(len(along_time), -1, -1),
            ],
            dim=-1,
        )
        features = self.from_slot(slots)[..., None, None, :] + self.from_place(places)
        for layer in self.inner:
            features = layer(torch.nn.functional.relu(features))
        return self.last(torch.nn.functional.relu(features))[..., 0]


class _Detail(nn.Module):
    """What a slot points at in a map of the mixture: the product of two vectors in each bin.

    The encoder's maps are summed up from the coarsest to the finest, so that in every bin both
    the bin itself and what is around it is known. A slot says which of that is its source. The
    branch begins faint: at first slots hardly point anywhere.

    Source: T.-Y. Lin et al., "Feature pyramid networks for object detection", CVPR 2017, for the
        map; B. Cheng et al., "Per-pixel classification is not all you need for semantic
        segmentation", NeurIPS 2021, for the product.
    """

    def __init__(self, config: AudioSlotsConfig) -> None:
        super().__init__()
        width = config.detail_dim
        # One bias is enough for a sum.
        self.laterals = nn.ModuleList(
            nn.Conv2d(channels, width, 1, bias=not stage)
            for stage, channels in enumerate(config.channels)
        )
        self.smooth = nn.Conv2d(width, width, 3, padding=1)
        self.from_slot = nn.Linear(config.dim, width)
        nn.init.normal_(self.from_slot.weight, std=_FAINT)
        nn.init.zeros_(self.from_slot.bias)

    def forward(
        self,
        maps: Maps,
        slots: Float[Tensor, "chunk slot dim"],
        frames: Int[Tensor, "drawn"] | None,
    ) -> Float[Tensor, "chunk slot drawn_frame bin"]:
        finer = [lateral(each) for lateral, each in zip(self.laterals, maps, strict=True)]
        features = finer.pop()
        while finer:
            features = finer.pop() + torch.nn.functional.interpolate(features, scale_factor=2.0)
        features = self.smooth(torch.nn.functional.relu(features))
        if frames is not None:
            features = features[:, :, frames]
        pointers = self.from_slot(slots)
        return (pointers @ features.flatten(2)).unflatten(2, features.shape[2:])


def _fourier_features(size: int, octaves: int, like: Tensor) -> Float[Tensor, "place feature"]:
    """Sines and cosines at ``size`` places from -1 up to but not including 1.

    So the places of a grid are also places of one that is twice as fine.
    """
    place = torch.arange(size, device=like.device, dtype=torch.float32) * (2.0 / size) - 1.0
    turns = 2.0 ** torch.arange(octaves, device=like.device, dtype=torch.float32)
    angles = math.pi * torch.outer(place, turns)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(like.dtype)


def _sine_positions(
    grid: Float[Tensor, "chunk grid_frame grid_bin channel"],
) -> Float[Tensor, "grid_frame grid_bin channel"]:
    """A quarter of the channels each for sine and cosine along time and along frequency.

    Source: A. Vaswani et al., "Attention is all you need", NeurIPS 2017, along both axes.
    """
    _, num_frames, num_bins, channels = grid.shape
    quarter = channels // 4
    rates = 10000.0 ** (-torch.arange(quarter, device=grid.device) / quarter)
    along_time, along_frequency = (
        torch.outer(torch.arange(size, device=grid.device).float(), rates)
        for size in (num_frames, num_bins)
    )
    frame_waves = torch.cat([along_time.sin(), along_time.cos()], dim=-1)
    bin_waves = torch.cat([along_frequency.sin(), along_frequency.cos()], dim=-1)
    waves = [
        frame_waves[:, None].expand(-1, num_bins, -1),
        bin_waves.expand(num_frames, -1, -1),
    ]
    return torch.cat(waves, dim=-1).to(grid.dtype)


_BASE = AudioSlotsConfig()

_EXAMPLE = AudioSlotsConfig(
    frames=24,
    channels=(4, 4, 8, 8),
    depths=(1, 2, 1, 1),
    norm_groups=2,
    dim=16,
    num_heads=2,
    hidden_dim=16,
    num_layers=2,
    decoder_dim=16,
    decoder_layers=3,
    octaves=4,
)

ARCHITECTURE = Architecture(
    name="audio_slots",
    config_type=AudioSlotsConfig,
    build=AudioSlots,
    presets={
        "base": _BASE,
        "base-1s": replace(_BASE, frames=128),
        "base-autoencoder": replace(_BASE, num_slots=1),
        "base-autoencoder-1s": replace(_BASE, num_slots=1, frames=128),
        "base-slot-attention": replace(_BASE, attention="slot", num_layers=3),
        # The width of the paper: half a billion numbers.
        "paper": replace(_BASE, dim=4096, num_heads=16, hidden_dim=4096),
    },
    # The autoencoder alone separates nothing: one slot gets the whole mixture.
    examples={
        "transformer": _EXAMPLE,
        "slot attention, sine positions": replace(_EXAMPLE, attention="slot", positions="sine"),
        "carried slots": replace(_EXAMPLE, frames=8, carries_slots=True),
        "detail": replace(_EXAMPLE, detail_dim=4),
    },
)
