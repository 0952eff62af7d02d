"""Lightning checkpoints of ST-SED-SEP and its tagger.

They are those of RetroCirce/Zero_Shot_Audio_Source_Separation.

==========================================  ==============================================
released separator                          here, in the network
==========================================  ==============================================
bn0                                         bin_norm
encoder_block{i + 1}.conv_block             down.{i}
conv_block7                                 centre
decoder_block{i + 1}.conv1, bn1, emb1       up.{i}.upsample
decoder_block{i + 1}.conv_block2            up.{i}.convolutions
after_conv_block1, after_conv2              last, mask
….conv1, bn1, emb1; ….conv2, bn2, emb2      ….first.convolution, norm, condition; ….second
==========================================  ==============================================

==========================================  ==============================================
released tagger, behind sed_model           here, in the tagger
==========================================  ==============================================
bn0                                         mel_norm
patch_embed.proj, norm                      patches.project, norm
layers.{s}.blocks.{b}                       stages.{s}.blocks.{b}
layers.{s}.downsample                       stages.{s}.merge
norm, tscam_conv                            norm, class_head
==========================================  ==============================================

Sizes are read off the tensors. What they cannot tell is that of the published models: the rate,
the hops, the edges of the mel bands, and the size of the folded spectrogram. Left out are the
kernels of the transforms and the mel filters, which are computed here; counts of batches; a copy
of the tagger in the separator's file; and a last layer of the tagger that nothing comes through.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor, nn

from unbraid import config as configs
from unbraid.checkpoints.importers.released_modules import Slot, build_empty, fill
from unbraid.dsp.stft import StftConfig
from unbraid.errors import CheckpointError, ConfigError
from unbraid.models.architectures.query_unet import QueryUnetConfig
from unbraid.models.taggers.htsat import HtsatConfig
from unbraid.models.waveform import ModelConfig, WaveformModel

_SAMPLE_RATE = 32_000
_HOP_LENGTH = 320

_SEPARATOR_MARK = "encoder_block1.conv_block.emb1.weight"
_SEPARATOR_IGNORED = re.compile(
    r"(?:stft|istft)\.(?:conv_real|conv_imag)\.weight$|istft\.ola_window$|at_model\.sed_model\."
    r"|.*\.num_batches_tracked$"
)

_TAGGER_PREFIX = "sed_model."
_TAGGER_MARK = f"{_TAGGER_PREFIX}patch_embed.proj.weight"
_TAGGER_IGNORED = re.compile(
    r"spectrogram_extractor\.|logmel_extractor\.|head\.(?:weight|bias)$"
    r"|.*\.(?:num_batches_tracked|relative_position_index|attn_mask)$"
)

#: Our modules inside a conditioned convolution → the released ones, without their number.
_CONDITIONED = {"convolution": "conv", "norm": "bn", "condition": "emb"}

#: Part of our name in the tagger → part of the released name, the first that fits.
_TAGGER_MODULES = {
    "mel_norm.": "bn0.",
    "patches.project.": "patch_embed.proj.",
    "patches.norm.": "patch_embed.norm.",
    "class_head.": "tscam_conv.",
    "stages.": "layers.",
}
_BLOCK_MODULES = {
    ".attention_norm.": ".norm1.",
    ".attention.position_bias": ".attn.relative_position_bias_table",
    ".attention.queries_keys_values.": ".attn.qkv.",
    ".attention.output.": ".attn.proj.",
    ".feed_forward_norm.": ".norm2.",
    ".feed_forward.0.": ".mlp.fc1.",
    ".feed_forward.2.": ".mlp.fc2.",
    ".merge.reduce.": ".downsample.reduction.",
    ".merge.norm.": ".downsample.norm.",
}


def is_separator(state: Mapping[str, Tensor]) -> bool:
    """Whether these are tensors of such a separator."""
    return _SEPARATOR_MARK in state


def is_tagger(state: Mapping[str, Tensor]) -> bool:
    """Whether these are tensors of such a tagger."""
    return _TAGGER_MARK in state


def build_released(
    state: Mapping[str, Tensor],
    where: str,
    tagger: Mapping[str, Tensor] | None = None,
    tagger_where: str = "tagger",
) -> WaveformModel:
    """Build the model of a released checkpoint and fill it with the released weights.

    Args:
        state: Tensors of the separator under the released names.
        where: What to call its checkpoint in error messages.
        tagger: Tensors of the tagger whose latents it takes for queries; None for a model
            that has to be given vectors.
        tagger_where: What to call its checkpoint.

    Returns:
        The model, without any prompts, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: If a tensor is missing, unknown, of the wrong shape or not finite (it
            names them), or the tagger does not belong to the separator.
    """
    network, n_fft = _read_separator(state, where)
    tagger_config = None if tagger is None else _read_tagger(tagger, tagger_where)
    if tagger_config is not None and tagger_config.embedding_dim != network.query_dim:
        raise CheckpointError(
            f"{tagger_where}: its latents have {tagger_config.embedding_dim} numbers, but {where} "
            f"is queried with {network.query_dim}; give the tagger that came with it."
        )
    model = build_empty(
        ModelConfig(
            architecture="query_unet",
            sample_rate=_SAMPLE_RATE,
            stft=StftConfig(n_fft, _HOP_LENGTH, "hann", "reflect"),
            network=configs.dump(network),
            prompts=(),
            level="none",
            segment_s=2.0,
            overlap_s=0.5,
            tagger=tagger_config,
        ),
        where,
    )
    found = {name: each for name, each in state.items() if not _SEPARATOR_IGNORED.match(name)}
    fill(_slots(model.network, _separator_name), found, where)
    if tagger is not None:
        assert model.tagger is not None, "its config said so"
        fill(_slots(model.tagger, _tagger_name), _tagger_state(tagger), tagger_where)
    return model.eval()


def _read_separator(state: Mapping[str, Tensor], where: str) -> tuple[QueryUnetConfig, int]:
    """The network, and the size of its transform."""
    widths: list[int] = []
    while (name := f"encoder_block{len(widths) + 1}.conv_block.conv1.weight") in state:
        widths.append(_shape(state, name, 4, where)[0])
    centre = _shape(state, "conv_block7.conv1.weight", 4, where)[0]
    query_dim = _shape(state, _SEPARATOR_MARK, 2, where)[1]
    num_bins = _shape(state, "bn0.weight", 1, where)[0]
    try:
        return QueryUnetConfig((*widths, centre), query_dim), 2 * (num_bins - 1)
    except ConfigError as error:
        raise CheckpointError(f"{where}: its tensors make no model ({error})") from error


def _read_tagger(state: Mapping[str, Tensor], where: str) -> HtsatConfig:
    found = _tagger_state(state)
    depths: list[int] = []
    heads: list[int] = []
    while f"layers.{len(depths)}.blocks.0.norm1.weight" in found:
        stage = len(depths)
        table = f"layers.{stage}.blocks.0.attn.relative_position_bias_table"
        heads.append(_shape(found, table, 2, where)[1])
        blocks = {
            name.split(".")[3] for name in found if name.startswith(f"layers.{stage}.blocks.")
        }
        depths.append(len(blocks))
    rows = _shape(found, "layers.0.blocks.0.attn.relative_position_bias_table", 2, where)[0]
    dim, _, patch_size, _ = _shape(found, "patch_embed.proj.weight", 4, where)
    published = HtsatConfig()
    try:
        return replace(
            published,
            mel=replace(published.mel, num_mels=_shape(found, "bn0.weight", 1, where)[0]),
            num_classes=_shape(found, "tscam_conv.weight", 4, where)[0],
            patch_size=patch_size,
            dim=dim,
            depths=tuple(depths),
            num_heads=tuple(heads),
            window=(math.isqrt(rows) + 1) // 2,
        )
    except ConfigError as error:
        raise CheckpointError(f"{where}: its tensors make no model ({error})") from error


def _tagger_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under the tagger's own names; what stands behind no prefix keeps its name and is refused."""
    own = {name.removeprefix(_TAGGER_PREFIX): tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in own.items() if not _TAGGER_IGNORED.match(name)}


def _shape(state: Mapping[str, Tensor], name: str, num_axes: int, where: str) -> tuple[int, ...]:
    if name not in state or state[name].ndim != num_axes:
        raise CheckpointError(
            f"{where}: {name} is missing or does not have {num_axes} axes; "
            "give the released checkpoint."
        )
    return tuple(state[name].shape)


def _slots(network: nn.Module, released: Callable[[str], str]) -> dict[str, Slot]:
    # Running statistics are part of the state as well; what is not stored here has no slot.
    return {released(name): Slot(tensor) for name, tensor in network.state_dict().items()}


def _separator_name(name: str) -> str:
    """What the release calls one of our tensors.

    >>> _separator_name("up.2.convolutions.first.norm.bias")
    'decoder_block3.conv_block2.bn1.bias'
    """
    place, *rest = name.split(".")
    if place in ("bin_norm", "mask"):
        return ".".join([{"bin_norm": "bn0", "mask": "after_conv2"}[place], *rest])
    if place in ("down", "up"):
        number, *rest = rest
        place = f"{'encoder' if place == 'down' else 'decoder'}_block{int(number) + 1}"
        if place.startswith("encoder"):
            place += ".conv_block"
        elif rest[0] == "upsample":
            rest[0] = "first"
        else:
            place, rest = f"{place}.conv_block2", rest[1:]
    else:
        place = {"centre": "conv_block7", "last": "after_conv_block1"}[place]
    order, module, kind = rest
    return f"{place}.{_CONDITIONED[module]}{1 if order == 'first' else 2}.{kind}"


def _tagger_name(name: str) -> str:
    """What the release calls one of our tensors.

    >>> _tagger_name("stages.2.blocks.5.attention.position_bias")
    'layers.2.blocks.5.attn.relative_position_bias_table'
    """
    for ours, theirs in _TAGGER_MODULES.items():
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
    for ours, theirs in _BLOCK_MODULES.items():
        if name.startswith("layers.") and ours in name:
            return name.replace(ours, theirs)
    return name
