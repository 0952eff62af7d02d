"""Checkpoints of TUSS's unconditional baseline (``bslocoformer_stack`` in the TUSS release).

Only names and shapes are known here; they come from the layout of the files.

=======================  ===================
released                 here
=======================  ===================
first_block.{i}          first.blocks.{i}
second_block.{i}         second.blocks.{i}
band_split_module        codec
=======================  ===================

What stands inside is in ``importers.released_modules``. The released decoder gives channels in
the order part, source (all real parts, then all imaginary ones) and then takes them for source,
part. Training made good for it, so the weights are right and their order is not: the importer
puts the rows of every decoder's last layer where our decoder has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from unbraid import config as configs
from unbraid.checkpoints.importers.released_modules import (
    ChunkSettings,
    Slot,
    StackSettings,
    StftSettings,
    build_empty,
    codec_slots,
    contradictions,
    fill,
    refuse,
    stack_slots,
    without_prefix,
)
from unbraid.dsp.stft import StftConfig
from unbraid.errors import CheckpointError, ConfigError
from unbraid.models.architectures.unconditional import Unconditional, UnconditionalConfig
from unbraid.models.waveform import ModelConfig, WaveformModel
from unbraid.nn.band_split import BandSplitCodec, BandSplitConfig
from unbraid.prompts import ANY_SOURCE, canonical_name


@dataclass(frozen=True)
class _Model:
    num_spk: int
    config_first_block: StackSettings
    config_second_block: StackSettings
    n_first_blocks: int
    n_second_blocks: int
    sample_rate: int = 48000
    stft_size: int = 2048


@dataclass(frozen=True)
class _Settings:
    """The part of hparams.yaml that says what is computed; the rest is about training."""

    model_name: Literal["bslocoformer_stack"]
    model_conf: _Model
    encoder_conf: StftSettings
    decoder_conf: StftSettings
    css_conf: ChunkSettings = field(default_factory=ChunkSettings)
    variance_normalization: Literal[True] = True
    encoder_name: Literal["stft"] = "stft"
    decoder_name: Literal["stft"] = "stft"


def build_released(
    hparams: Mapping[str, Any],
    state: Mapping[str, Tensor],
    where: str,
    outputs: Sequence[str] | None = None,
) -> WaveformModel:
    """Build the model of a released checkpoint and fill it with the released weights.

    Args:
        hparams: The content of ``hparams.yaml``.
        state: Tensors under the released names, with the prefix ``model.separator.``,
            ``separator.`` or none.
        where: What to call the checkpoint in error messages.
        outputs: What the outputs hold, in order, for a model trained on fixed kinds; None for
            sources in any order, as in the unconditional baseline of the paper.

    Returns:
        The model, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: If the settings ask for what is not supported, or a tensor is
            missing, unknown, of the wrong shape or not finite; it names them.
    """
    config = read_config(hparams, where, outputs)
    model = build_empty(config, where)
    assert isinstance(model.network, Unconditional)
    fill(_slots(model.network), without_prefix(state, where), where)
    return model.eval()


def read_config(
    hparams: Mapping[str, Any], where: str, outputs: Sequence[str] | None = None
) -> ModelConfig:
    """Translate the released settings.

    Args:
        hparams: The content of ``hparams.yaml``; what concerns training only is ignored.
        where: What to call it in error messages.
        outputs: As in ``build_released``.

    Raises:
        CheckpointError: If a setting is missing, or asks for what is not supported.
    """
    relevant = {key: hparams[key] for key in _Settings.__dataclass_fields__ if key in hparams}
    try:
        settings = configs.parse(_Settings, relevant, where=where)
        model, chunks = settings.model_conf, settings.css_conf
        names = outputs or (ANY_SOURCE,) * model.num_spk
        wrong = contradictions(
            settings.encoder_conf,
            settings.decoder_conf,
            chunks,
            sample_rate=model.sample_rate,
            stft_size=model.stft_size,
        )
        wrong[f"{len(names)} outputs are named, but num_spk is {model.num_spk}"] = (
            len(names) != model.num_spk
        )
        refuse(wrong, where)
        network = UnconditionalConfig(
            codec=BandSplitConfig(),
            first=model.config_first_block.config(model.n_first_blocks),
            second=model.config_second_block.config(model.n_second_blocks),
            num_outputs=model.num_spk,
        )
        return ModelConfig(
            architecture="unconditional",
            sample_rate=model.sample_rate,
            stft=StftConfig(
                n_fft=settings.encoder_conf.fft_size,
                hop_length=settings.encoder_conf.hop_length,
                window=settings.encoder_conf.window_type,
            ),
            network=configs.dump(network),
            outputs=tuple(canonical_name(name) for name in names),
            segment_s=chunks.segment_size,
            overlap_s=chunks.segment_size - chunks.shift_size,
        )
    except ConfigError as error:
        problem = str(error).removeprefix(f"{where}: ")
        raise CheckpointError(f"{where}: settings that are not supported: {problem}") from error


def _slots(network: Unconditional) -> dict[str, Slot]:
    codec = network.codec
    assert isinstance(codec, BandSplitCodec)
    rows = [_last_rows(width, codec.num_sources) for width in codec.band_widths]
    return {
        **stack_slots(network.first, "first_block"),
        **stack_slots(network.second, "second_block"),
        **codec_slots(codec, "band_split_module", rows),
    }


def _last_rows(width: int, num_sources: int) -> Int[Tensor, "row"]:
    """Which released row of a decoder's last layer each of our rows is.

    The rows come in two halves, values and gates, of 2 S channels of ``width`` bins each. The
    release takes channel c for the source c // 2 and its part c % 2; our channel for the source s
    and the part p is p S + s.
    """
    released = torch.arange(4 * num_sources * width).view(2, num_sources, 2, width)
    return released.transpose(1, 2).flatten()
