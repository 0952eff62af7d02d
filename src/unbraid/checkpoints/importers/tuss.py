"""Checkpoints of the released TUSS code (merlresearch/unified-source-separation).

Only names and shapes are known here; they come from the layout of the files.

==========================================  ==============================================
released                                    here
==========================================  ==============================================
sos_token                                   start_of_sequence
prompts.{name}                              the prompt bank, under our name of the prompt
cross_prompt_module.{i}, cond_tse_module    cross_prompt.blocks.{i}, extraction.blocks.{i}
band_split_module                           codec
==========================================  ==============================================

What stands inside blocks and codec is in ``importers.released_modules``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
from unbraid.models.architectures.tuss import Tuss, TussConfig
from unbraid.models.waveform import ModelConfig, WaveformModel
from unbraid.nn.band_split import BandSplitCodec, BandSplitConfig
from unbraid.prompts import canonical_name

# The settings as the released hparams.yaml has them. A key that is not here is refused: it
# might change the computation.


@dataclass(frozen=True)
class _Model:
    prompts: tuple[str, ...]
    conf_cross_prompt_module: StackSettings
    conf_cond_tse_module: StackSettings
    nblocks_cross_prompt_module: int
    nblocks_cond_tse_module: int
    sample_rate: int = 48000
    stft_size: int = 2048
    use_sos_token: bool = True


@dataclass(frozen=True)
class _Settings:
    """The part of hparams.yaml that says what is computed; the rest is about training."""

    model_name: Literal["tuss"]
    model_conf: _Model
    encoder_conf: StftSettings
    decoder_conf: StftSettings
    css_conf: ChunkSettings = field(default_factory=ChunkSettings)
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
    model = build_empty(config, where)
    found = without_prefix(state, where)
    released_prompts = {canonical_name(name): name for name in hparams["model_conf"]["prompts"]}
    fill(_slots(model, released_prompts), found, where)
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
            cross_prompt=model.conf_cross_prompt_module.config(model.nblocks_cross_prompt_module),
            extraction=model.conf_cond_tse_module.config(model.nblocks_cond_tse_module),
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
    model = settings.model_conf
    wrong = contradictions(
        settings.encoder_conf,
        settings.decoder_conf,
        settings.css_conf,
        sample_rate=model.sample_rate,
        stft_size=model.stft_size,
    )
    wrong["two prompts have the same meaning"] = len(
        set(map(canonical_name, model.prompts))
    ) != len(model.prompts)
    refuse(wrong, where)


def _slots(model: WaveformModel, released_prompts: Mapping[str, str]) -> dict[str, Slot]:
    """Every name that a released checkpoint of this model has, and where its tensor goes."""
    network = model.network
    assert isinstance(network, Tuss)
    assert isinstance(network.codec, BandSplitCodec)
    slots = {
        **stack_slots(network.cross_prompt, "cross_prompt_module"),
        **stack_slots(network.extraction, "cond_tse_module"),
        **codec_slots(network.codec, "band_split_module"),
    }
    if network.start_of_sequence is not None:
        slots["sos_token"] = Slot(network.start_of_sequence.detach()[:, None, None])
    for row, prompt in enumerate(model.prompts.names):
        vector = model.prompts.weight.detach()[row]
        slots[f"prompts.{released_prompts[prompt]}"] = Slot(vector[:, None, None])
    return slots
