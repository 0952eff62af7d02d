"""Checkpoints of the released TF-Locoformer (merlresearch/tf-locoformer, within ESPnet).

===========================  ======================
released                     here
===========================  ======================
conv.0                       codec.expand
conv.1                       codec.norm
deconv                       codec.reduce
blocks.{i}                   stack.blocks.{i}
===========================  ======================

What stands inside the blocks is in ``importers.released_modules``. Settings are those of ESPnet's
``config.yaml``. The transform is that of ESPnet: Hann window, ends reflected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from unbraid import config as configs
from unbraid.checkpoints.importers.released_modules import (
    Slot,
    build_empty,
    fill,
    refuse,
    stack_slots,
    without_prefix,
)
from unbraid.dsp.stft import StftConfig
from unbraid.errors import CheckpointError, ConfigError
from unbraid.models.architectures.tf_locoformer import TfLocoformer, TfLocoformerConfig
from unbraid.models.waveform import ModelConfig, WaveformModel
from unbraid.nn.convolutional import ConvolutionalConfig
from unbraid.nn.locoformer import FeedForwardConfig, LocoformerConfig

_NORMS: Mapping[str, Literal["rms_group", "layer"]] = {
    "rmsgroupnorm": "rms_group",
    "layernorm": "layer",
}

#: Our modules outside the blocks → the released ones.
_CODEC_MODULES = {"expand": "conv.0", "norm": "conv.1", "reduce": "deconv"}


# The settings as ESPnet's config.yaml has them, with the defaults of the released code. A key that
# is not here is refused: it might change the computation.


@dataclass(frozen=True)
class _Separator:
    norm_type: Literal["rmsgroupnorm", "layernorm"]
    ffn_type: tuple[Literal["swiglu_conv1d"], ...]
    ffn_hidden_dim: tuple[int, ...]
    num_spk: int = 2
    n_layers: int = 6
    emb_dim: int = 128
    num_groups: int = 4
    tf_order: Literal["ft", "tf"] = "ft"
    n_heads: int = 4
    flash_attention: bool = False  # how attention is computed, not what
    attention_dim: int = 128  # the settings of the small model leave it out: it has 128 too
    conv1d_kernel: int = 4
    conv1d_shift: int = 1
    dropout: float = 0.0  # no effect outside training
    eps: float = 1e-5


@dataclass(frozen=True)
class _Stft:
    n_fft: int
    hop_length: int
    win_length: int | None = None
    window: Literal["hann"] = "hann"
    center: Literal[True] = True
    normalized: Literal[False] = False
    onesided: Literal[True] = True
    use_builtin_complex: bool = True  # how complex numbers are stored
    default_fs: int | None = None  # for recordings at other rates than that of the model


@dataclass(frozen=True)
class _Model:
    normalize_variance: Literal[True]


@dataclass(frozen=True)
class _Settings:
    """The part of config.yaml that says what is computed; the rest is about training."""

    sample_rate: int
    encoder_conf: _Stft
    separator_conf: _Separator
    decoder_conf: _Stft
    model_conf: _Model
    separator: Literal["tflocoformer"] = "tflocoformer"
    encoder: Literal["stft"] = "stft"
    decoder: Literal["stft"] = "stft"


def build_released(
    settings: Mapping[str, Any], state: Mapping[str, Tensor], where: str
) -> WaveformModel:
    """Build the model of a released checkpoint and fill it with the released weights.

    Args:
        settings: The content of ``config.yaml``; ``sample_rate``, ``encoder_conf``,
            ``decoder_conf``, ``separator_conf`` and ``model_conf`` must be there.
        state: Tensors under the released names, with the prefix ``separator.`` or none.
        where: What to call the checkpoint in error messages.

    Returns:
        The model, in evaluation mode, on the CPU. Its outputs are all ``speech``.

    Raises:
        CheckpointError: If the settings ask for what is not supported, or a tensor is
            missing, unknown, of the wrong shape or not finite; it names them.
    """
    config = read_config(settings, where)
    model = build_empty(config, where)
    assert isinstance(model.network, TfLocoformer)
    fill(_slots(model.network), without_prefix(state, where), where)
    return model.eval()


def read_config(settings: Mapping[str, Any], where: str) -> ModelConfig:
    """Translate the released settings.

    Args:
        settings: The content of ``config.yaml``; what concerns training only is ignored.
        where: What to call it in error messages.

    Raises:
        CheckpointError: If a setting is missing, or asks for what is not supported.
    """
    relevant = {key: settings[key] for key in _Settings.__dataclass_fields__ if key in settings}
    try:
        read = configs.parse(_Settings, relevant, where=where)
        encoder, separator = read.encoder_conf, read.separator_conf
        refuse(
            {
                "decoder_conf differs from encoder_conf": read.decoder_conf != encoder,
                "win_length differs from n_fft": encoder.win_length not in (None, encoder.n_fft),
                "ffn_type and ffn_hidden_dim differ in length": len(separator.ffn_type)
                != len(separator.ffn_hidden_dim),
            },
            where,
        )
        network = TfLocoformerConfig(
            codec=ConvolutionalConfig(norm_eps=separator.eps),
            stack=_stack(separator),
            num_outputs=separator.num_spk,
        )
        return ModelConfig(
            architecture="tf_locoformer",
            sample_rate=read.sample_rate,
            stft=StftConfig(encoder.n_fft, encoder.hop_length, encoder.window, padding="reflect"),
            network=configs.dump(network),
            outputs=("speech",) * separator.num_spk,
        )
    except ConfigError as error:
        problem = str(error).removeprefix(f"{where}: ")
        raise CheckpointError(f"{where}: settings that are not supported: {problem}") from error


def _stack(separator: _Separator) -> LocoformerConfig:
    # The settings, unlike the tensors, list the net before the attention first.
    nets = tuple(
        FeedForwardConfig(hidden_dim, separator.conv1d_kernel, separator.conv1d_shift)
        for hidden_dim in separator.ffn_hidden_dim
    )
    return LocoformerConfig(
        num_blocks=separator.n_layers,
        dim=separator.emb_dim,
        num_groups=separator.num_groups,
        num_heads=separator.n_heads,
        attention_dim=separator.attention_dim,
        freq_feed_forward=nets,
        frame_feed_forward=nets,
        order=separator.tf_order,
        norm_eps=separator.eps,
        norm=_NORMS[separator.norm_type],
    )


def _slots(network: TfLocoformer) -> dict[str, Slot]:
    slots = stack_slots(network.stack, "blocks")
    for name, parameter in network.codec.named_parameters():
        module, kind = name.split(".")
        # Only inside the blocks is a gain called gamma.
        kind = "weight" if kind == "gain" else kind
        slots[f"{_CODEC_MODULES[module]}.{kind}"] = Slot(parameter.detach())
    return slots
