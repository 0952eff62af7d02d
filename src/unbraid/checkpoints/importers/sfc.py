"""Lightning checkpoints of spectral feature compression (b-sigpro/spectral-feature-compression).

====================================  ===========================================
released                              here
====================================  ===========================================
{encoder,decoder}.input_conv          codec.….input_convolution, input_norm
{encoder,decoder}.block               codec.….mixer
{encoder,decoder}.query, query_mlp    codec.….queries
{encoder,decoder}.output_conv         codec.….output_convolution, output_norm
blocks.{i}                            stack.blocks.{i}
====================================  ===========================================

The averaged weights are taken (``ema_model``), as for the published figures. The files tell no
settings that unbraid knows: sizes are read off the tensors, and what they cannot tell is that of
the published models (a musical table at 44.1 kHz, windows of 2048 samples every 512; 8 heads
where the separator has 128 channels, 4 where it has 96).

Differs: the release drops the last frame of a recording, which is half a window beyond its end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from unbraid import config as configs
from unbraid.checkpoints.importers.released_modules import Slot, fill, stack_slots
from unbraid.dsp.stft import StftConfig
from unbraid.errors import CheckpointError, ConfigError
from unbraid.models.architectures.tf_locoformer import (
    ARCHITECTURE,
    TfLocoformer,
    TfLocoformerConfig,
)
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.nn.feature_compression import CompressionCodec, CompressionConfig

_PREFIXES = ("ema_model.module.model.", "model.model.", "")
_MARK = "encoder.block.mixer.kv_proj.weight"
#: Buffers and counts beside the weights.
_IGNORED = re.compile(r"\.window$|n_averaged$|\.slope$|attn\.rope\.freqs$")

_SAMPLE_RATE = 44_100
_STFT = StftConfig(2048, 512, "hann", padding="reflect")
_SIZES = {96: "sfc-small", 128: "sfc-medium"}

#: Our modules on one side of the codec → the released ones.
_MODULES = {
    "input_convolution": "input_conv",
    "output_convolution": "output_conv",
    "input_norm": "input_conv.2",
    "output_norm": "output_conv.2",
    "queries.vectors": "query",
    "queries.weights": "freq_weights",
    "queries.norm": "query_mlp.0",
    "queries.net.expand": "query_mlp.1.linear1",
    "queries.net.reduce": "query_mlp.1.linear2",
    "mixer.query_norm": "block.norm_attn_q",
    "mixer.token_norm": "block.norm_attn_kv",
    "mixer.query": "block.mixer.q_proj",
    "mixer.keys_values": "block.mixer.kv_proj",
    "mixer.bias.matrix": "block.mixer.pos_bias.pos_bias",
    "mixer.output": "block.mixer.aggregate_heads.0",
    "mixer.feed_forward_norm": "block.norm_ffn",
    "mixer.feed_forward.expand": "block.feed_forward.linear1",
    "mixer.feed_forward.reduce": "block.feed_forward.linear2",
}


def is_sfc(state: Mapping[str, Tensor]) -> bool:
    """Whether these are tensors of such a checkpoint."""
    return any(f"{prefix}{_MARK}" in state for prefix in _PREFIXES)


def build_released(
    hparams: Mapping[str, Any],
    state: Mapping[str, Tensor],
    where: str,
    outputs: Sequence[str] | None = None,
) -> WaveformModel:
    """Build the model of a released checkpoint and fill it with the released weights.

    Args:
        hparams: Not looked at.
        state: Tensors under the released names.
        where: What to call the checkpoint in error messages.
        outputs: What the outputs hold, in order; the files do not say it.

    Returns:
        The model, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: If the outputs are not named, or as many are named as there are not; if
            a tensor is missing, unknown, of the wrong shape or not finite; it names them.
    """
    found = _weights(state)
    if not outputs:
        raise CheckpointError(
            f"{where}: does not say what its outputs hold; name them in the order of its training "
            "with --outputs, for example vocals,bass,drums,other."
        )
    network = _network(found, where)
    if len(outputs) != network.num_outputs:
        raise CheckpointError(
            f"{where}: has {network.num_outputs} outputs, but {len(outputs)} are named."
        )
    try:
        model = build_model(
            ModelConfig(
                architecture="tf_locoformer",
                sample_rate=_SAMPLE_RATE,
                stft=_STFT,
                network=configs.dump(network),
                outputs=tuple(outputs),
                level="spectrum",
                segment_s=12.0,
                overlap_s=6.0,
            )
        )
    except ConfigError as error:
        raise CheckpointError(f"{where}: its tensors make no model ({error})") from error
    assert isinstance(model.network, TfLocoformer)
    fill(_slots(model.network), found, where)
    return model.eval()


def _weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = next(prefix for prefix in _PREFIXES if f"{prefix}{_MARK}" in state)
    found = {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
    slopes = {name: tensor for name, tensor in found.items() if name.endswith(".slope")}
    for name, slope in slopes.items():
        # Fixed at 1 in the published models; what another training made of it goes into P.
        matrix = f"{name.removesuffix('slope')}pos_bias"
        found[matrix] = found[matrix] * slope
    return {name: tensor for name, tensor in found.items() if not _IGNORED.search(name)}


def _network(found: Mapping[str, Tensor], where: str) -> TfLocoformerConfig:
    """Sizes as the shapes of the tensors tell them."""
    try:
        inner_dim, parts = found["encoder.input_conv.0.weight"].shape[:2]
        dim = found["encoder.output_conv.0.weight"].shape[0]
        _, num_heads, num_bands, _ = found["encoder.block.mixer.pos_bias.pos_bias"].shape
        outputs_parts = found["decoder.output_conv.weight"].shape[1]
        preset = ARCHITECTURE.presets[_SIZES[dim]]
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{where}: not one of the published models of spectral feature compression by "
            f"attention ({error})."
        ) from error
    is_adaptive = "encoder.freq_weights" in found
    num_blocks = len({name.split(".")[1] for name in found if name.startswith("blocks.")})
    codec = CompressionConfig(
        inner_dim,
        bands="musical",
        num_bands=num_bands,
        num_heads=num_heads,
        queries="adaptive" if is_adaptive else "learnable",
    )
    return replace(
        preset,
        codec=codec,
        stack=replace(preset.stack, num_blocks=num_blocks),
        num_outputs=outputs_parts // parts,
        num_channels=parts // 2,
    )


def _slots(network: TfLocoformer) -> dict[str, Slot]:
    codec = network.codec
    assert isinstance(codec, CompressionCodec)
    slots = stack_slots(network.stack, "blocks")
    for name, parameter in codec.named_parameters():
        side, _, rest = name.partition(".")
        ours = max((key for key in _MODULES if f"{rest}.".startswith(f"{key}.")), key=len)
        theirs = _MODULES[ours]
        if side == "encoder" and theirs in ("input_conv", "output_conv"):
            theirs += ".0"  # the convolution and its norm stand in one sequence
        kind = rest.removeprefix(ours).replace(".gain", ".weight")
        tensor = parameter.detach()
        is_bias = theirs.endswith("pos_bias")
        slots[f"{side}.{theirs}{kind}"] = Slot(tensor.unsqueeze(0) if is_bias else tensor)
    return slots
