"""HTS-AT: a tagger of sounds whose latent vector says what a clip sounds like.

=========================  ==========================  =========================================
paper                      here                        what it is
=========================  ==========================  =========================================
mel-spectrogram            log_mel, mel_norm           dB of 64 mel bands, each normalised
patch-embed CNN            patches                     4 x 4 pixels → one token
group 1 .. 4               stages                      Swin Transformer blocks
patch-merge                merge                       2 x 2 tokens → one of twice the length
latent, query embedding    Tags.embedding              mean of the last tokens
token-semantic module      class_head                  last tokens → classes over time
=========================  ==========================  =========================================

A spectrogram of 1024 frames is folded to a square image: it is cut along time into as many
pieces as the image is higher than the spectrogram, and these are stacked along frequency.

Source: K. Chen, X. Du, B. Zhu, Z. Ma, T. Berg-Kirkpatrick, S. Dubnov, "HTS-AT: a hierarchical
    token-semantic audio transformer", ICASSP 2022, arXiv 2202.00874; K. Chen et al., "Zero-shot
    audio source separation through query-based learning from weakly-labeled data", AAAI 2022,
    arXiv 2112.07891, for the size whose latent is a query.
Differs: A last linear layer of the release, from classes to classes, is left out because nothing
    comes through it; with it the published size has 202,007,607 parameters. SpecAugment is a
    matter of training, see ``training.methods.tagging``. A tagger can be made blind to level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unbraid.dsp.levels import db_to_gain, rms
from unbraid.dsp.mel import MelConfig, log_mel
from unbraid.dsp.stft import StftConfig
from unbraid.errors import ConfigError
from unbraid.nn.norms import BatchNorm

#: Added to what tokens have to say to those that only a shift made their neighbours.
_MASKED = -100.0
#: Clips are not raised to their level from below this root mean square.
_SILENT = 1e-5
#: Standard deviation of fresh weights.
_WEIGHT_DEVIATION = 0.02


@dataclass(frozen=True)
class HtsatConfig:
    """One tagger; as it stands, the published one with 2048 numbers per latent.

    Attributes:
        mel: The spectrogram that it sees.
        num_classes: How many kinds of sound it knows.
        class_names: What they are called, in order; empty where nobody has told.
        image_size: Height and width of the folded spectrogram.
        patch_size: Height and width of what becomes one token.
        dim: Length of the tokens of the first stage; it doubles from stage to stage.
        depths: Blocks of each stage.
        num_heads: Heads of each stage.
        window: Height and width, in tokens, of what attends to each other.
        level_db: Root mean square that every clip is brought to first, in dB of full scale; None
            for hearing clips at the level at which they were recorded, as published.
        drop_path: How often the last block is skipped while training, clip by clip; earlier ones
            less, evenly from 0.
    """

    mel: MelConfig = field(
        default_factory=lambda: MelConfig(
            32_000, StftConfig(1024, 320, "hann", "reflect"), 64, 50.0, 14_000.0
        )
    )
    num_classes: int = 527
    class_names: tuple[str, ...] = ()
    image_size: int = 256
    patch_size: int = 4
    dim: int = 256
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 8
    level_db: float | None = None
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.drop_path < 1.0:
            raise ConfigError(
                f"tagger: drop_path ({self.drop_path}) must be a probability below 1."
            )
        if not self.depths or len(self.depths) != len(self.num_heads):
            raise ConfigError(
                f"tagger: depths ({self.depths}) and num_heads ({self.num_heads}) must name a "
                "number for each stage."
            )
        if min(self.image_size, self.patch_size, self.window, self.num_classes, self.dim) < 1:
            raise ConfigError("tagger: all sizes must be positive.")
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ConfigError(
                f"tagger: class_names must name all {self.num_classes} classes, not "
                f"{len(self.class_names)}."
            )
        if self.image_size % self.mel.num_mels:
            raise ConfigError(
                f"tagger: mel.num_mels ({self.mel.num_mels}) must divide image_size "
                f"({self.image_size})."
            )
        for stage, heads in enumerate(self.num_heads):
            if heads < 1 or (self.dim << stage) % heads:
                raise ConfigError(
                    f"tagger: num_heads ({heads}) must divide {self.dim << stage}, the length of "
                    f"the tokens of stage {stage}."
                )
        tokens = self.image_size // self.patch_size
        coarsest = self.patch_size << (len(self.depths) - 1)
        if self.image_size % coarsest or (self.image_size // coarsest) % self.num_folds:
            raise ConfigError(
                f"tagger: an image of {self.image_size} in {self.num_folds} pieces cannot be "
                f"halved {len(self.depths) - 1} times from patches of {self.patch_size}."
            )
        for stage in range(len(self.depths)):
            if (tokens >> stage) % min(self.window, tokens >> stage):
                raise ConfigError(
                    f"tagger: window ({self.window}) must divide {tokens >> stage}, the tokens "
                    f"along a side of stage {stage}."
                )

    @property
    def num_folds(self) -> int:
        """Into how many pieces a spectrogram is cut along time."""
        return self.image_size // self.mel.num_mels

    @property
    def num_frames(self) -> int:
        """Frames of the spectrogram that it sees, whatever the length of the clip."""
        return self.image_size * self.num_folds

    @property
    def clip_samples(self) -> int:
        """Samples of the longest clip that is heard as a whole, 10.24 s of the published one."""
        return self.num_frames * self.mel.stft.hop_length

    @property
    def embedding_dim(self) -> int:
        """Length of the latent."""
        return self.dim << (len(self.depths) - 1)


#: A tagger of a few thousand numbers with everything in it: shifts, merging, folds.
EXAMPLE = HtsatConfig(
    mel=MelConfig(16_000, StftConfig(256, 80, "hann", "reflect"), 8, 50.0, 7_000.0),
    num_classes=5,
    image_size=32,
    patch_size=2,
    dim=4,
    depths=(2, 1),
    num_heads=(2, 2),
    window=4,
)


@dataclass(frozen=True, eq=False)
class Tags:
    """What a tagger says about clips.

    Attributes:
        embedding: What each clip sounds like as a whole.
        clip_scores: How sure it is, from 0 to 1, that a class is heard.
        frame_scores: The same from frame to frame of the spectrogram that it sees: of a short
            clip, that is the clip several times over.
    """

    embedding: Float[Tensor, "batch dim"]
    clip_scores: Float[Tensor, "batch class"]
    frame_scores: Float[Tensor, "batch frame class"]


class Htsat(nn.Module):
    """The tagger.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: HtsatConfig) -> None:
        super().__init__()
        self.config = config
        self.mel_norm = BatchNorm(config.mel.num_mels)
        self.patches = _Patches(config.patch_size, config.dim)
        stages: list[_Stage] = []
        size = config.image_size // config.patch_size
        for stage, (depth, heads) in enumerate(zip(config.depths, config.num_heads, strict=True)):
            is_last = stage == len(config.depths) - 1
            dim = config.dim << stage
            before = sum(config.depths[:stage])
            skips = [
                config.drop_path * (before + number) / max(sum(config.depths) - 1, 1)
                for number in range(depth)
            ]
            stages.append(_Stage(dim, size >> stage, skips, heads, config.window, not is_last))
        self.stages = nn.ModuleList(stages)
        self.norm = nn.LayerNorm(config.embedding_dim)
        rows = (size >> (len(config.depths) - 1)) // config.num_folds
        self.class_head = nn.Conv2d(
            config.embedding_dim, config.num_classes, (rows, 3), padding=(0, 1)
        )
        self.apply(_begin_small)
        # Every class is rare: to find that out first would take hundreds of steps.
        nn.init.constant_(self.class_head.get_parameter("bias"), -math.log(config.num_classes))

    @property
    def sample_rate(self) -> int:
        """Samples per second that it hears."""
        return self.config.mel.sample_rate

    @property
    def embedding_dim(self) -> int:
        """Length of an embedding."""
        return self.config.embedding_dim

    def forward(self, waveform: Float[Tensor, "batch time"]) -> Tags:
        """Listen to clips.

        Args:
            waveform: Mono, at the tagger's rate and at the level at which it was recorded. Of
                clips that are longer than ``HtsatConfig.clip_samples`` the rest is not heard:
                see ``embed``. Shorter ones are repeated as often as they fit, and stretched by
                the little that is missing.
        """
        return self.from_log_mel(self.log_mel(waveform))

    def log_mel(self, waveform: Float[Tensor, "batch time"]) -> Float[Tensor, "batch frame mel"]:
        """What it sees of clips: their log-mel spectrograms, at the level that it wants."""
        heard = waveform[:, : self.config.clip_samples]
        if self.config.level_db is not None and heard.numel():
            # Silence stays silence.
            level = rms(heard).clamp_min(_SILENT)[:, None]
            heard = heard * (db_to_gain(self.config.level_db) / level)
        return log_mel(heard, self.config.mel)

    def from_log_mel(self, levels: Float[Tensor, "batch frame mel"]) -> Tags:
        """Listen to clips whose log-mel spectrograms are known.

        Args:
            levels: In dB, at most ``HtsatConfig.num_frames`` frames; the rest is not heard.
        """
        # Bands stand where images have their channels.
        normalised = self.mel_norm(levels.transpose(1, 2)[..., None])[..., 0]
        return self.from_image(fold(normalised.transpose(1, 2), self.config))

    def from_image(self, image: Float[Tensor, "batch row column"]) -> Tags:
        """Listen to clips that are folded already."""
        tokens = self.patches(image)
        for stage in self.stages:
            tokens = stage(tokens)
        tokens = self.norm(tokens)
        # The pieces that were stacked along frequency go back to the axis of time.
        pieces = tokens.unflatten(1, (self.config.num_folds, -1))
        spectrum = pieces.permute(0, 4, 2, 1, 3).flatten(3)
        steps = self.class_head(spectrum).squeeze(2)
        per_step = self.config.num_frames // steps.shape[2]
        return Tags(
            embedding=tokens.mean(dim=(1, 2)),
            clip_scores=steps.mean(dim=2).sigmoid(),
            frame_scores=steps.sigmoid().transpose(1, 2).repeat_interleave(per_step, dim=1),
        )

    def embed(self, waveform: Float[Tensor, "time"]) -> Float[Tensor, "dim"]:
        """The embedding of one clip of any length.

        A clip that is too long to be heard as a whole is cut into equal pieces, and the mean
        of their embeddings is taken. An empty clip is heard as silence.
        """
        num_pieces = max(1, math.ceil(len(waveform) / self.config.clip_samples))
        # Equal, so that no short rest counts as much as a whole piece.
        length = math.ceil(len(waveform) / num_pieces)
        pieces = waveform.split(length) if length else (waveform,)
        # One after the other: this is the largest network around.
        return torch.stack([self(piece[None]).embedding[0] for piece in pieces]).mean(dim=0)


def fold(
    spectrogram: Float[Tensor, "batch frame mel"], config: HtsatConfig
) -> Float[Tensor, "batch row column"]:
    """Fold spectrograms of any length to square images.

    A short one is repeated in time as often as it fits, then stretched by bicubic
    interpolation; of a long one the rest is cut off.
    """
    wanted = config.num_frames
    spectrogram = spectrogram[:, :wanted]
    repeated = spectrogram.repeat(1, wanted // spectrogram.shape[1], 1)
    if repeated.shape[1] != wanted:
        repeated = torch.nn.functional.interpolate(
            repeated[:, None], (wanted, repeated.shape[2]), mode="bicubic", align_corners=True
        )[:, 0]
    pieces = repeated.unflatten(1, (config.num_folds, -1))
    return pieces.transpose(2, 3).flatten(1, 2)


def _begin_small(module: nn.Module) -> None:
    """As Swin Transformers begin; with PyTorch's own beginning they hardly learn."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=_WEIGHT_DEVIATION)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, _WindowAttention):
        nn.init.trunc_normal_(module.position_bias, std=_WEIGHT_DEVIATION)


class _Patches(nn.Module):
    """An image → one token per patch."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(1, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, image: Float[Tensor, "batch row column"]
    ) -> Float[Tensor, "batch token_row token_column dim"]:
        return self.norm(self.project(image[:, None]).permute(0, 2, 3, 1))


class _Stage(nn.Module):
    """Blocks on a grid of ``size`` by ``size`` tokens; then, if asked for, a coarser grid.

    ``skips`` says for each block how often it is skipped while training.
    """

    def __init__(
        self,
        dim: int,
        size: int,
        skips: Sequence[float],
        num_heads: int,
        window: int,
        merges: bool,
    ) -> None:
        super().__init__()
        # A grid of one window has no neighbours to shift to.
        window = min(window, size)
        shift = window // 2 if window < size else 0
        self.blocks = nn.ModuleList(
            _Block(dim, size, num_heads, window, shift if number % 2 else 0, skip)
            for number, skip in enumerate(skips)
        )
        self.merge = _Merge(dim) if merges else None

    def forward(
        self, tokens: Float[Tensor, "batch row column dim"]
    ) -> Float[Tensor, "batch new_row new_column new_dim"]:
        for block in self.blocks:
            tokens = block(tokens)
        return tokens if self.merge is None else self.merge(tokens)


class _Merge(nn.Module):
    """Four neighbours become one token of twice the length."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduce = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(
        self, tokens: Float[Tensor, "batch row column dim"]
    ) -> Float[Tensor, "batch half_row half_column new_dim"]:
        # Column by column of the four: (0, 0), (1, 0), (0, 1), (1, 1).
        neighbours = [
            tokens[:, row::2, column::2] for column, row in ((0, 0), (0, 1), (1, 0), (1, 1))
        ]
        return self.reduce(self.norm(torch.cat(neighbours, dim=-1)))


class _Block(nn.Module):
    """Attention inside windows, then a feed-forward net.

    Source: Z. Liu et al., "Swin Transformer", ICCV 2021, section 3.2.
    """

    def __init__(
        self, dim: int, size: int, num_heads: int, window: int, shift: int, skip: float
    ) -> None:
        super().__init__()
        self._skip = skip
        self._window = window
        self._shift = shift
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = _WindowAttention(dim, num_heads, window)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )
        mask = _shift_mask(size, window, shift) if shift else None
        self.register_buffer("mask", mask, persistent=False)

    def forward(
        self, tokens: Float[Tensor, "batch row column dim"]
    ) -> Float[Tensor, "batch row column dim"]:
        shift, window = self._shift, self._window
        normed = self.attention_norm(tokens).roll((-shift, -shift), dims=(1, 2))
        attended = self.attention(_windows(normed, window), self.mask)
        joined = _joined(attended, window, tokens.shape[1])
        tokens = tokens + self._now_and_then(joined.roll((shift, shift), dims=(1, 2)))
        return tokens + self._now_and_then(self.feed_forward(self.feed_forward_norm(tokens)))

    def _now_and_then(
        self, branch: Float[Tensor, "batch row column dim"]
    ) -> Float[Tensor, "batch row column dim"]:
        """Stochastic depth: without the branch for some clips, and more of it for the others.

        Source: G. Huang et al., "Deep networks with stochastic depth", ECCV 2016.
        """
        if not self.training or not self._skip:
            return branch
        stays = torch.rand(len(branch), 1, 1, 1, device=branch.device) >= self._skip
        return branch * stays / (1.0 - self._skip)


class _WindowAttention(nn.Module):
    """Attention of the tokens of each window to each other, biased by where they stand."""

    positions: Tensor

    def __init__(self, dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        self._num_heads = num_heads
        self.queries_keys_values = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        self.position_bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        self.register_buffer("positions", _relative_positions(window), persistent=False)

    def forward(
        self,
        tokens: Float[Tensor, "batch window token dim"],
        mask: Float[Tensor, "window token token"] | None,
    ) -> Float[Tensor, "batch window token dim"]:
        projected = self.queries_keys_values(tokens).unflatten(-1, (3, self._num_heads, -1))
        queries, keys, values = projected.permute(3, 0, 1, 4, 2, 5)
        bias = self.position_bias[self.positions].permute(2, 0, 1)
        if mask is not None:
            bias = bias + mask[:, None]
        attended = torch.nn.functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=bias.expand(*queries.shape[:3], -1, -1)
        )
        return self.output(attended.transpose(2, 3).flatten(3))


def _windows(
    tokens: Float[Tensor, "batch row column *rest"], window: int
) -> Float[Tensor, "batch window token *rest"]:
    rows = tokens.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return rows.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _joined(
    windows: Float[Tensor, "batch window token dim"], window: int, size: int
) -> Float[Tensor, "batch row column dim"]:
    per_side = size // window
    grid = windows.unflatten(2, (window, window)).unflatten(1, (per_side, per_side))
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _relative_positions(window: int) -> Int[Tensor, "token token"]:
    """Which row of the table of biases says how one token of a window sees another."""
    place = torch.arange(window)
    apart = place[:, None] - place[None, :] + window - 1
    rows = apart[:, None, :, None] * (2 * window - 1)
    return (rows + apart[None, :, None, :]).reshape(window**2, window**2)


def _shift_mask(size: int, window: int, shift: int) -> Float[Tensor, "window token token"]:
    """Keeps tokens apart that come from opposite edges of a grid that was shifted around."""
    place = torch.arange(size)
    region = (place >= size - window).long() + (place >= size - shift).long()
    regions = _windows((3 * region[:, None] + region)[None].float(), window)[0]
    return torch.where(regions[:, :, None] == regions[:, None], 0.0, _MASKED)
