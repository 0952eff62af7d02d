"""Modules that several released checkpoints are made of: their settings and their tensors.

==========================================  ==============================================
released                                    here
==========================================  ==============================================
….ffn_norm.1, ….ffn.1                       norm_before, feed_forward_before
….attn_norm, ….attn                         attention_norm, attention
….ffn_norm.0, ….ffn.0                       norm_after, feed_forward_after
….gamma                                     ….gain
….attn.rope.freqs, once in every block      {freq,frame}_rotary.frequencies, once per stack
band_split_module.band_split_module         encoders
band_split_module.bandwise_decoding_module  decoders
==========================================  ==============================================

The released list of feed-forward nets is stored in reverse: net 1 stands BEFORE the attention and
net 0 after it. Nothing in the shapes shows a swap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from unbraid.checkpoints.accounting import check_tensors, not_finite
from unbraid.errors import CheckpointError, ConfigError, in_brief
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.nn.band_split import BandSplitCodec
from unbraid.nn.locoformer import FeedForwardConfig, LocoformerConfig, LocoformerStack

#: What the released names may stand behind, the longest first.
_PREFIXES = ("model.separator.", "separator.", "")

#: Our modules inside a block's path → the released ones.
_PATH_MODULES = {
    "norm_before": "ffn_norm.1",
    "feed_forward_before.expand": "ffn.1.conv1d",
    "feed_forward_before.reduce": "ffn.1.deconv1d",
    "attention_norm": "attn_norm",
    "attention.queries_keys_values": "attn.qkv",
    "attention.output": "attn.aggregate_heads.0",
    "norm_after": "ffn_norm.0",
    "feed_forward_after.expand": "ffn.0.conv1d",
    "feed_forward_after.reduce": "ffn.0.deconv1d",
}

#: Our modules inside the codec → the released ones.
_CODEC_MODULES = {
    "encoders": ("band_split_module", {"norm": "0", "project": "1"}),
    "decoders": (
        "bandwise_decoding_module",
        {"norm": "0", "first": "1", "second": "3", "last": "5"},
    ),
}


# Settings as hparams.yaml of merlresearch/unified-source-separation has them. A key that is not
# here is refused: it might change the computation.


@dataclass(frozen=True)
class FeedForwardFields:
    """Fields of one feed-forward net."""

    dim_inner: int
    conv1d_kernel: int
    conv1d_shift: int = 1
    dropout: float = 0.0  # no effect outside training


@dataclass(frozen=True)
class FeedForwardSettings:
    """One feed-forward net."""

    conf: FeedForwardFields


@dataclass(frozen=True)
class StackSettings:
    """The blocks of one stack, without their number."""

    emb_dim: int
    num_groups: int
    n_heads: int
    attention_dim: int
    freq_ffn_config: tuple[FeedForwardSettings, ...]
    frame_ffn_config: tuple[FeedForwardSettings, ...]
    tf_order: Literal["ft", "tf"] = "ft"
    norm_type: Literal["rmsgroupnorm"] = "rmsgroupnorm"
    eps: float = 1e-5
    dropout: float = 0.0
    flash_attention: bool = False  # how attention is computed, not what

    def config(self, num_blocks: int) -> LocoformerConfig:
        """What we call it."""
        return LocoformerConfig(
            num_blocks=num_blocks,
            dim=self.emb_dim,
            num_groups=self.num_groups,
            num_heads=self.n_heads,
            attention_dim=self.attention_dim,
            freq_feed_forward=_feed_forward(self.freq_ffn_config),
            frame_feed_forward=_feed_forward(self.frame_ffn_config),
            order=self.tf_order,
            norm_eps=self.eps,
        )


def _feed_forward(nets: Iterable[FeedForwardSettings]) -> tuple[FeedForwardConfig, ...]:
    # The settings, unlike the tensors, list the net before the attention first.
    return tuple(
        FeedForwardConfig(net.conf.dim_inner, net.conf.conv1d_kernel, net.conf.conv1d_shift)
        for net in nets
    )


@dataclass(frozen=True)
class StftSettings:
    """The transform, at the entry or at the exit."""

    fft_size: int
    window_length: int
    hop_length: int
    window_type: Literal["sqrt_hann", "hann"]
    normalize: bool | None = None


@dataclass(frozen=True)
class ChunkSettings:
    """How long recordings are cut."""

    segment_size: float = 6.0
    shift_size: float = 3.0
    sample_rate: int | None = None
    normalize_segment_scale: bool = False  # no effect: the model normalises every chunk
    solve_perm: bool = False  # the separator decides how chunks are joined


def contradictions(
    encoder: StftSettings,
    decoder: StftSettings,
    chunks: ChunkSettings,
    *,
    sample_rate: int,
    stft_size: int,
) -> dict[str, bool]:
    """What may be wrong between settings, and whether it is."""
    return {
        "decoder_conf differs from encoder_conf": decoder != encoder,
        "window_length differs from fft_size": encoder.window_length != encoder.fft_size,
        "stft_size differs from fft_size": stft_size != encoder.fft_size,
        "encoder_conf.normalize is set": bool(encoder.normalize),
        "css_conf.sample_rate differs from that of the model": chunks.sample_rate
        not in (None, sample_rate),
        "css_conf.shift_size is not between 0 and segment_size": not (
            0 < chunks.shift_size <= chunks.segment_size
        ),
    }


def refuse(problems: Mapping[str, bool], where: str) -> None:
    """Raise if a problem applies.

    Args:
        problems: What is wrong with the settings → whether it applies.
        where: What to call the checkpoint.

    Raises:
        CheckpointError: With all that apply.
    """
    if found := [problem for problem, applies in problems.items() if applies]:
        raise CheckpointError(
            f"{where}: settings that are not supported: {'; '.join(found)}. "
            "Check that the settings belong to these weights."
        )


@dataclass(frozen=True, eq=False)
class Slot:
    """Where one released tensor goes.

    Attributes:
        target: A view of our tensor in the released shape, which may end in axes of length 1.
        is_rotary: Rotary frequencies; their values are known before.
        rows: For each of our rows, which released one it is; None for the same order.
    """

    target: Tensor
    is_rotary: bool = False
    rows: Int[Tensor, "row"] | None = None

    def take(self, tensor: Tensor, where: str) -> None:
        """Copy the released tensor to its place.

        Raises:
            CheckpointError: If it has to be rotary frequencies and is not.
        """
        # Half-precision copies of checkpoints exist, hence the tolerance; the frequencies are
        # taken as they are, so that the model computes what it computed before.
        if self.is_rotary and not torch.allclose(tensor.float(), self.target, rtol=2e-3, atol=1e-7):
            raise CheckpointError(
                f"{where} are not the rotary frequencies of this model; "
                "other position encodings are not supported."
            )
        self.target.copy_(self._in_our_order(tensor))

    def holds(self, tensor: Tensor) -> bool:
        """Whether the released tensor is what now lies in its place."""
        return torch.equal(self._in_our_order(tensor).float(), self.target)

    def _in_our_order(self, tensor: Tensor) -> Tensor:
        return tensor if self.rows is None else tensor[self.rows]


def build_empty(config: ModelConfig, where: str) -> WaveformModel:
    """The model that settings describe, with weights that are to be replaced.

    Raises:
        CheckpointError: If the settings contradict each other.
    """
    try:
        return build_model(config)
    except ConfigError as error:
        raise CheckpointError(f"{where}: the settings make no model ({error})") from error


def fill(slots: Mapping[str, Slot], found: Mapping[str, Tensor], where: str) -> None:
    """Put every released tensor into its place.

    Args:
        slots: Released name → where it goes; all of them and no others must be found.
        found: Released name → tensor.
        where: What to call the checkpoint.

    Raises:
        CheckpointError: If a tensor is missing, unknown, of the wrong shape or not finite; it
            names them.
    """
    check_tensors(found, {name: slot.target for name, slot in slots.items()}, where)
    if broken := not_finite(found):
        raise CheckpointError(
            f"{where}: {in_brief(broken)} hold values that are no numbers; "
            "get the file again from its source."
        )
    with torch.no_grad():
        for name, slot in slots.items():
            slot.take(found[name], f"{where}: {name}")
    # Blocks share their frequencies here and repeat them there: all must say the same.
    if changed := [name for name, slot in slots.items() if not slot.holds(found[name])]:
        raise CheckpointError(f"{where}: {in_brief(changed)} differ between blocks; not supported.")


def stack_slots(stack: LocoformerStack, released: str) -> dict[str, Slot]:
    """Places in a stack whose blocks are called ``{released}.{i}`` there."""
    slots = {}
    for name, parameter in stack.named_parameters():
        tensor = parameter.detach()
        part, *rest = name.split(".")
        if part == "blocks":
            block, path, *module, kind = rest
            layer = f"{path}.{_PATH_MODULES['.'.join(module)]}"
            kind = "gamma" if kind == "gain" else kind
            slots[f"{released}.{block}.{layer}.{kind}"] = Slot(tensor)
        else:
            path = part.removesuffix("_rotary")
            for number in range(len(stack.blocks)):
                repeated = f"{released}.{number}.{path}_path.attn.rope.freqs"
                slots[repeated] = Slot(tensor, is_rotary=True)
    return slots


def codec_slots(
    codec: BandSplitCodec, released: str, last_rows: Sequence[Int[Tensor, "_row"]] | None = None
) -> dict[str, Slot]:
    """Places in a band-split codec.

    Args:
        codec: The codec.
        released: What it is called there.
        last_rows: For the last layer of each band's decoder, which released row each of our rows
            is; None for the same order.
    """
    slots = {}
    for name, parameter in codec.named_parameters():
        side, band, layer, kind = name.split(".")
        module, layers = _CODEC_MODULES[side]
        tensor = parameter.detach()
        slots[f"{released}.{module}.{band}.{layers[layer]}.{kind}"] = Slot(
            # Linear layers here, convolutions of kernel 1 there.
            tensor.unsqueeze(-1) if tensor.ndim == 2 else tensor,
            rows=last_rows[int(band)] if last_rows is not None and layer == "last" else None,
        )
    return slots


def without_prefix(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors of the separator, under its own names.

    Args:
        state: Names as they were found, all behind the same prefix or behind none.
        where: What to call the checkpoint.

    Raises:
        CheckpointError: If there are tensors beside those of the separator.
    """
    prefix = next(
        prefix for prefix in _PREFIXES if any(str(key).startswith(prefix) for key in state)
    )
    if foreign := [str(key) for key in state if not str(key).startswith(prefix)]:
        raise CheckpointError(
            f"{where}: {in_brief(foreign)} do not belong to the separator; "
            "give a checkpoint of the separator alone."
        )
    return {str(key).removeprefix(prefix): tensor for key, tensor in state.items()}
