"""Checkpoints of the released TUSS code (merlresearch/unified-source-separation).

Only names and shapes are known here; they come from the layout of the files.

==========================================  ==============================================
released                                    here
==========================================  ==============================================
sos_token                                   start_of_sequence
prompts.{name}                              the prompt bank, under our name of the prompt
cross_prompt_module.{i}, cond_tse_module    cross_prompt.blocks.{i}, extraction.blocks.{i}
….ffn_norm.1, ….ffn.1                       norm_before, feed_forward_before
….attn_norm, ….attn                         attention_norm, attention
….ffn_norm.0, ….ffn.0                       norm_after, feed_forward_after
….attn.rope.freqs, once in every block      {freq,frame}_rotary.frequencies, once per stack
band_split_module.band_split_module         codec.encoders
band_split_module.bandwise_decoding_module  codec.decoders
==========================================  ==============================================

The released list of feed-forward nets is stored in reverse: net 1 stands BEFORE the
attention and net 0 after it. Nothing in the shapes shows a swap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from unbraid import config as configs
from unbraid.checkpoints.accounting import check_tensors, in_brief, not_finite
from unbraid.dsp.stft import StftConfig
from unbraid.errors import CheckpointError, ConfigError
from unbraid.models.architectures.tuss import TussConfig
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.nn.band_split import BandSplitConfig
from unbraid.nn.locoformer import FeedForwardConfig, LocoformerConfig, LocoformerStack
from unbraid.prompts import canonical_name

#: What the released names may stand behind, the longest first.
_PREFIXES = ("model.separator.", "separator.", "")

_STACKS = {"cross_prompt": "cross_prompt_module", "extraction": "cond_tse_module"}
_CODEC = "band_split_module"

#: Our names inside a block's path → the released ones.
_PATH_NAMES = {
    "norm_before.gain": "ffn_norm.1.gamma",
    "feed_forward_before.expand": "ffn.1.conv1d",
    "feed_forward_before.reduce": "ffn.1.deconv1d",
    "attention_norm.gain": "attn_norm.gamma",
    "attention.queries_keys_values": "attn.qkv",
    "attention.output": "attn.aggregate_heads.0",
    "norm_after.gain": "ffn_norm.0.gamma",
    "feed_forward_after.expand": "ffn.0.conv1d",
    "feed_forward_after.reduce": "ffn.0.deconv1d",
}

#: Our names inside the codec → the released ones.
_CODEC_NAMES = {
    "encoders": ("band_split_module", {"norm": "0", "project": "1"}),
    "decoders": (
        "bandwise_decoding_module",
        {"norm": "0", "first": "1", "second": "3", "last": "5"},
    ),
}


# The settings as the released hparams.yaml has them. A key that is not here is refused: it
# might change the computation.


@dataclass(frozen=True)
class _FeedForwardFields:
    dim_inner: int
    conv1d_kernel: int
    conv1d_shift: int = 1
    dropout: float = 0.0


@dataclass(frozen=True)
class _FeedForward:
    conf: _FeedForwardFields


@dataclass(frozen=True)
class _Stack:
    emb_dim: int
    num_groups: int
    n_heads: int
    attention_dim: int
    freq_ffn_config: tuple[_FeedForward, ...]
    frame_ffn_config: tuple[_FeedForward, ...]
    tf_order: Literal["ft", "tf"] = "ft"
    norm_type: Literal["rmsgroupnorm"] = "rmsgroupnorm"
    eps: float = 1e-5
    dropout: float = 0.0  # no effect outside training
    flash_attention: bool = False  # how attention is computed, not what


@dataclass(frozen=True)
class _Model:
    prompts: tuple[str, ...]
    conf_cross_prompt_module: _Stack
    conf_cond_tse_module: _Stack
    nblocks_cross_prompt_module: int
    nblocks_cond_tse_module: int
    sample_rate: int = 48000
    stft_size: int = 2048
    use_sos_token: bool = True


@dataclass(frozen=True)
class _Stft:
    fft_size: int
    window_length: int
    hop_length: int
    window_type: Literal["sqrt_hann", "hann"]
    normalize: bool | None = None


@dataclass(frozen=True)
class _Chunks:
    segment_size: float = 6.0
    shift_size: float = 3.0
    sample_rate: int | None = None
    normalize_segment_scale: bool = False  # no effect: the model normalises every chunk
    solve_perm: bool = False  # the separator decides how chunks are joined


@dataclass(frozen=True)
class _Settings:
    """The part of hparams.yaml that says what is computed; the rest is about training."""

    model_name: Literal["tuss"]
    model_conf: _Model
    encoder_conf: _Stft
    decoder_conf: _Stft
    css_conf: _Chunks = _Chunks()
    variance_normalization: Literal[True] = True
    encoder_name: Literal["stft"] = "stft"
    decoder_name: Literal["stft"] = "stft"


def build_released(
    hparams: Mapping[str, Any], state: Mapping[str, Tensor], where: str
) -> WaveformModel:
    """Build the model of a released checkpoint and fill it with the released weights.

    Args:
        hparams: The content of ``hparams.yaml``.
        state: Tensors under the released names, with the prefix ``model.separator.``,
            ``separator.`` or none.
        where: What to call the checkpoint in error messages.

    Returns:
        The model, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: If the settings ask for what is not supported, or a tensor is
            missing, unknown, of the wrong shape or not finite; it names them.
    """
    config = read_config(hparams, where)
    try:
        model = build_model(config)
    except ConfigError as error:
        raise CheckpointError(f"{where}: the settings make no model ({error})") from error
    found = _strip_prefix(state, where)
    released_prompts = {canonical_name(name): name for name in hparams["model_conf"]["prompts"]}
    names = _released_names(model, released_prompts)
    check_tensors(found, {name: slot.target for name, slot in names.items()}, where)
    if broken := not_finite(found):
        raise CheckpointError(
            f"{where}: {in_brief(broken)} hold values that are no numbers; "
            "get the file again from its source."
        )
    with torch.no_grad():
        for name, slot in names.items():
            slot.take(found[name], f"{where}: {name}")
    # Blocks share their frequencies here and repeat them there: all must say the same.
    if changed := [
        n for n, slot in names.items() if not torch.equal(found[n].float(), slot.target)
    ]:
        raise CheckpointError(f"{where}: {in_brief(changed)} differ between blocks; not supported.")
    return model.eval()


def read_config(hparams: Mapping[str, Any], where: str) -> ModelConfig:
    """Translate the released settings.

    Args:
        hparams: The content of ``hparams.yaml``; what concerns training only is ignored.
        where: What to call it in error messages.

    Raises:
        CheckpointError: If a setting is missing, or asks for what is not supported.
    """
    architecture = hparams.get("model_name")
    if architecture != "tuss":
        raise CheckpointError(
            f"{where}: the architecture {architecture!r} is not supported yet; "
            "released checkpoints of 'tuss' can be imported."
        )
    relevant = {key: hparams[key] for key in _Settings.__dataclass_fields__ if key in hparams}
    try:
        settings = configs.parse(_Settings, relevant, where=where)
        model, chunks = settings.model_conf, settings.css_conf
        _refuse_contradictions(settings, where)
        network = TussConfig(
            codec=BandSplitConfig(),
            cross_prompt=_stack(model.conf_cross_prompt_module, model.nblocks_cross_prompt_module),
            extraction=_stack(model.conf_cond_tse_module, model.nblocks_cond_tse_module),
            start_of_sequence=model.use_sos_token,
        )
        return ModelConfig(
            architecture="tuss",
            sample_rate=model.sample_rate,
            stft=StftConfig(
                n_fft=settings.encoder_conf.fft_size,
                hop_length=settings.encoder_conf.hop_length,
                window=settings.encoder_conf.window_type,
            ),
            network=configs.dump(network),
            prompts=tuple(canonical_name(name) for name in model.prompts),
            segment_s=chunks.segment_size,
            overlap_s=chunks.segment_size - chunks.shift_size,
        )
    except ConfigError as error:
        problem = str(error).removeprefix(f"{where}: ")
        raise CheckpointError(f"{where}: settings that are not supported: {problem}") from error


def _refuse_contradictions(settings: _Settings, where: str) -> None:
    model, encoder, chunks = settings.model_conf, settings.encoder_conf, settings.css_conf
    wrong = {
        "decoder_conf differs from encoder_conf": settings.decoder_conf != encoder,
        "window_length differs from fft_size": encoder.window_length != encoder.fft_size,
        "stft_size differs from fft_size": model.stft_size != encoder.fft_size,
        "encoder_conf.normalize is set": bool(encoder.normalize),
        "css_conf.sample_rate differs from that of the model": chunks.sample_rate
        not in (None, model.sample_rate),
        "css_conf.shift_size is not between 0 and segment_size": not (
            0 < chunks.shift_size <= chunks.segment_size
        ),
        "two prompts have the same meaning": len(set(map(canonical_name, model.prompts)))
        != len(model.prompts),
    }
    if problems := [problem for problem, applies in wrong.items() if applies]:
        raise CheckpointError(
            f"{where}: settings that are not supported: {'; '.join(problems)}. "
            "Check that the settings belong to these weights."
        )


def _stack(stack: _Stack, num_blocks: int) -> LocoformerConfig:
    return LocoformerConfig(
        num_blocks=num_blocks,
        dim=stack.emb_dim,
        num_groups=stack.num_groups,
        num_heads=stack.n_heads,
        attention_dim=stack.attention_dim,
        freq_feed_forward=_feed_forward(stack.freq_ffn_config),
        frame_feed_forward=_feed_forward(stack.frame_ffn_config),
        order=stack.tf_order,
        norm_eps=stack.eps,
    )


def _feed_forward(nets: Iterable[_FeedForward]) -> tuple[FeedForwardConfig, ...]:
    # The settings, unlike the tensors, list the net before the attention first.
    return tuple(
        FeedForwardConfig(net.conf.dim_inner, net.conf.conv1d_kernel, net.conf.conv1d_shift)
        for net in nets
    )


@dataclass(frozen=True, eq=False)
class _Slot:
    """Where one released tensor goes.

    Attributes:
        target: A view of our tensor in the released shape, which may end in axes of length 1.
        is_rotary: Rotary frequencies; their values are known before.
    """

    target: Tensor
    is_rotary: bool = False

    def take(self, tensor: Tensor, where: str) -> None:
        # Half-precision copies of checkpoints exist, hence the tolerance; the frequencies are
        # taken as they are, so that the model computes what it computed before.
        if self.is_rotary and not torch.allclose(tensor.float(), self.target, rtol=2e-3, atol=1e-7):
            raise CheckpointError(
                f"{where} are not the rotary frequencies of this model; "
                "other position encodings are not supported."
            )
        self.target.copy_(tensor)


def _released_names(model: WaveformModel, released_prompts: Mapping[str, str]) -> dict[str, _Slot]:
    """Every name that a released checkpoint of this model has, and where its tensor goes."""
    names: dict[str, _Slot] = {}
    for row, prompt in enumerate(model.prompts.names):
        vector = model.prompts.weight.detach()[row]
        names[f"prompts.{released_prompts[prompt]}"] = _Slot(vector[:, None, None])
    for name, parameter in model.network.named_parameters():
        tensor = parameter.detach()
        part, _, rest = name.partition(".")
        if name == "start_of_sequence":
            names["sos_token"] = _Slot(tensor[:, None, None])
        elif part == "codec":
            # Linear layers here, convolutions of kernel 1 there.
            shaped = tensor.unsqueeze(-1) if tensor.ndim == 2 else tensor
            names[_codec_name(rest)] = _Slot(shaped)
        elif rest.startswith("blocks."):
            names[_block_name(part, rest)] = _Slot(tensor)
        else:
            path = rest.removesuffix("_rotary.frequencies")
            stack = model.network.get_submodule(part)
            assert isinstance(stack, LocoformerStack)
            for block in range(len(stack.blocks)):
                repeated = f"{_STACKS[part]}.{block}.{path}_path.attn.rope.freqs"
                names[repeated] = _Slot(tensor, is_rotary=True)
    return names


def _codec_name(name: str) -> str:
    """``encoders.3.norm.weight`` → ``band_split_module.band_split_module.3.0.weight``."""
    side, band, layer, kind = name.split(".")
    module, layers = _CODEC_NAMES[side]
    return f"{_CODEC}.{module}.{band}.{layers[layer]}.{kind}"


def _block_name(stack: str, name: str) -> str:
    """``blocks.3.freq_path.norm_after.gain`` → ``….3.freq_path.ffn_norm.0.gamma``."""
    match = re.fullmatch(r"blocks\.(\d+)\.(\w+)\.(\w+\.\w+)(\.\w+)?", name)
    assert match is not None, name
    block, path, layer, kind = match.groups()
    return f"{_STACKS[stack]}.{block}.{path}.{_PATH_NAMES[layer]}{kind or ''}"


def _strip_prefix(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    prefix = next(
        prefix for prefix in _PREFIXES if any(str(key).startswith(prefix) for key in state)
    )
    if foreign := [str(key) for key in state if not str(key).startswith(prefix)]:
        raise CheckpointError(
            f"{where}: {in_brief(foreign)} do not belong to the separator; "
            "give a checkpoint of the separator alone."
        )
    return {str(key).removeprefix(prefix): tensor for key, tensor in state.items()}
