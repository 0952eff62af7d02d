"""TF-Locoformer: blocks of attention and convolution along frequency and along time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.errors import ConfigError
from unbraid.nn.attention import SelfAttention
from unbraid.nn.conv_swiglu import ConvSwiGlu
from unbraid.nn.norms import Norm, RmsGroupNorm
from unbraid.nn.rotary import Rotary


@dataclass(frozen=True)
class FeedForwardConfig:
    """One ConvSwiGLU: hidden channels (C), kernel length (K) and stride (S)."""

    hidden_dim: int
    kernel_size: int
    stride: int = 1


@dataclass(frozen=True)
class LocoformerConfig:
    """A stack of TF-Locoformer blocks.

    Attributes:
        num_blocks: Blocks in the stack (B).
        dim: Channels of the features (D).
        num_groups: Groups of the normalisation (G).
        num_heads: Attention heads (H).
        attention_dim: Channels of the attention (E).
        freq_feed_forward: Feed-forward nets of the frequency path; with two, the first
            stands before the attention and the second after it, with one, it stands after.
        frame_feed_forward: The same for the frame path.
        order: ``ft`` runs the frequency path first, ``tf`` the frame path.
        positions: ``rope`` for rotary positions, ``none`` for no positions.
        feed_forward_scale: Factor on the feed-forward residuals. The paper has 0.5, the
            released code and checkpoints have 1.
        norm_eps: Added to every root mean square, or to every variance.
        dropout: Share of the numbers that are set to zero in training: behind the gates and behind
            each of the three parts of a path.
        norm: ``rms_group`` for ``RmsGroupNorm``; ``layer`` for layer normalisation, which
            knows no groups, the paper's comparison.
    """

    num_blocks: int
    dim: int
    num_groups: int
    num_heads: int
    attention_dim: int
    freq_feed_forward: tuple[FeedForwardConfig, ...]
    frame_feed_forward: tuple[FeedForwardConfig, ...]
    order: Literal["ft", "tf"] = "ft"
    positions: Literal["rope", "none"] = "rope"
    feed_forward_scale: float = 1.0
    norm_eps: float = 1e-5
    norm: Literal["rms_group", "layer"] = "rms_group"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for path in (self.freq_feed_forward, self.frame_feed_forward):
            if len(path) not in (1, 2):
                raise ConfigError(f"a path has one or two feed-forward nets, not {len(path)}.")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout is a share below 1, not {self.dropout:g}.")


class LocoformerPath(nn.Module):
    """Feed-forward, attention, feed-forward along one axis, each a normalised residual.

    z = z + s FFN(Norm(z));  z = z + Attention(Norm(z));  z = z + s FFN(Norm(z))

    Source: K. Saijo et al., "TF-Locoformer", IWAENC 2024, figure 1.
    """

    def __init__(
        self, config: LocoformerConfig, feed_forward: tuple[FeedForwardConfig, ...]
    ) -> None:
        super().__init__()

        def norm() -> Norm:
            if config.norm == "layer":
                return nn.LayerNorm(config.dim, config.norm_eps)
            return RmsGroupNorm(config.dim, config.num_groups, config.norm_eps)

        nets = [
            ConvSwiGlu(config.dim, net.hidden_dim, net.kernel_size, net.stride, config.dropout)
            for net in feed_forward
        ]
        self.scale = config.feed_forward_scale
        self.norm_before = norm() if len(nets) == 2 else None
        self.feed_forward_before = nets[0] if len(nets) == 2 else None
        self.attention_norm = norm()
        self.attention = SelfAttention(config.dim, config.attention_dim, config.num_heads)
        self.dropout = nn.Dropout(config.dropout)
        self.norm_after = norm()
        self.feed_forward_after = nets[-1]

    def forward(
        self,
        features: Float[Tensor, "batch row position dim"],
        turns: Float[Tensor, "2 position pair"] | None,
    ) -> Float[Tensor, "batch row position dim"]:
        """Mix along ``position``; rows do not see each other."""
        if self.norm_before is not None and self.feed_forward_before is not None:
            before = self.dropout(self.feed_forward_before(self.norm_before(features)))
            features = torch.add(features, before, alpha=self.scale)
        attended = self.attention(self.attention_norm(features), turns)
        features = features + self.dropout(attended)
        after = self.dropout(self.feed_forward_after(self.norm_after(features)))
        return torch.add(features, after, alpha=self.scale)


class LocoformerBlock(nn.Module):
    """One frequency path and one frame path."""

    def __init__(self, config: LocoformerConfig) -> None:
        super().__init__()
        self.order = config.order
        self.freq_path = LocoformerPath(config, config.freq_feed_forward)
        self.frame_path = LocoformerPath(config, config.frame_feed_forward)

    def forward(
        self,
        features: Float[Tensor, "batch frame band dim"],
        freq_turns: Float[Tensor, "2 band pair"] | None,
        frame_turns: Float[Tensor, "2 frame pair"] | None,
    ) -> Float[Tensor, "batch frame band dim"]:
        """Run both paths in the configured order."""
        if self.order == "ft":
            features = self.freq_path(features, freq_turns)
        # Moved in memory once, rather than by every layer of the path for itself.
        by_band = features.transpose(1, 2).contiguous()
        features = self.frame_path(by_band, frame_turns).transpose(1, 2).contiguous()
        if self.order == "tf":
            features = self.freq_path(features, freq_turns)
        return features


class LocoformerStack(nn.Module):
    """TF-Locoformer blocks in a row, with one set of rotary frequencies per path.

    Source: K. Saijo et al., "TF-Locoformer: transformer with local modeling by convolution
        for speech separation and enhancement", IWAENC 2024.
    Differs: The feed-forward residuals have no factor 1/2 by default, as in the released
        code and unlike the paper.
    """

    def __init__(self, config: LocoformerConfig) -> None:
        super().__init__()
        head_dim = config.attention_dim // config.num_heads
        uses_rotary = config.positions == "rope"
        self.freq_rotary = Rotary(head_dim) if uses_rotary else None
        self.frame_rotary = Rotary(head_dim) if uses_rotary else None
        self.blocks = nn.ModuleList(LocoformerBlock(config) for _ in range(config.num_blocks))

    def forward(
        self, features: Float[Tensor, "batch frame band dim"]
    ) -> Float[Tensor, "batch frame band dim"]:
        """Refine the features; any number of frames and bands."""
        _, frames, bands, _ = features.shape
        freq_turns = self.freq_rotary(bands) if self.freq_rotary is not None else None
        frame_turns = self.frame_rotary(frames) if self.frame_rotary is not None else None
        for block in self.blocks:
            features = block(features, freq_turns, frame_turns)
        return features
