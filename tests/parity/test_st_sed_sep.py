"""ST-SED-SEP and its tagger HTS-AT against outputs of the released code.

All weights go in through the importer, under the released names, so the names are proved along
with the networks. The golden outputs need nothing else; the recordings are in the shared folder.
"""

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from golden_outputs import GOLDEN, assert_golden_numbers, fill
from released_st_sed_sep import separator_shapes, tagger_shapes
from unbraid.checkpoints.importers.st_sed_sep import build_released
from unbraid.dsp.stft import FftTransform
from unbraid.models.architectures.query_unet import QueryUnet
from unbraid.models.taggers.htsat import Htsat, HtsatConfig, fold
from unbraid.models.waveform import separate

Record = Callable[[str, object], None]

PUBLISHED = (32, 64, 128, 256, 512, 1024, 2048)


def golden_levels() -> Tensor:
    t = torch.arange(1005, dtype=torch.float64)[:, None]
    f = torch.arange(64, dtype=torch.float64)
    return torch.sin(0.02 * t + 0.3 * f).float()[None]


def test_golden_image() -> None:
    assert_golden_numbers("htsat_reshape_wav2img", fold(golden_levels(), HtsatConfig())[:, None])


def test_golden_tags() -> None:
    conf = GOLDEN["htsat_tiny_latent"]["config"]
    sizes = (conf["embed_dim"], tuple(conf["depths"]), tuple(conf["heads"]), conf["classes"])
    shapes = tagger_shapes(*sizes)
    separator = fill(separator_shapes((2, 3), 8 * sizes[0]))
    model = build_released(separator, "test", prefixed(fill(shapes)), "test")
    assert model.tagger is not None
    # The release has a layer, from classes to classes, that nothing comes through.
    unused = sizes[3] ** 2 + sizes[3]
    assert num_parameters(model.tagger) + unused == GOLDEN["htsat_tiny_latent"]["params"]
    with torch.no_grad():
        tags = model.tagger.from_image(fold(golden_levels(), model.tagger.config))
    assert_golden_numbers("htsat_tiny_latent", tags.embedding)
    assert_golden_numbers("htsat_tiny_clipwise", tags.clip_scores)


@pytest.mark.slow
def test_golden_masks() -> None:
    name = "asp_unet_latent64"
    model = build_released(fill(separator_shapes(PUBLISHED, 64)), name)
    assert model.num_parameters == GOLDEN[name]["params"]
    t = torch.arange(201, dtype=torch.float64)[:, None]
    f = torch.arange(1025, dtype=torch.float64)
    magnitude = torch.sin(0.05 * t + 0.01 * f).abs().float()
    query = torch.cos(0.2 * torch.arange(64, dtype=torch.float64)).float()
    mixture = torch.stack([magnitude, torch.zeros_like(magnitude)])[None]
    assert isinstance(model.network, QueryUnet)
    with torch.no_grad():
        masks = model.network.masks(mixture, query[None])
    assert_golden_numbers(name, (masks * magnitude)[:, None])
    assert bool((masks[..., -1] == 0.5).all())


@pytest.mark.slow
def test_recorded_separation(shared: Path, record_property: Record) -> None:
    description, tensors = recording(shared, "st_sed_sep_unet")
    model = build_released(weights(description), "test")
    assert model.num_parameters == 167_614_499
    conditions = [
        parameter.numel()
        for name, parameter in model.network.named_parameters()
        if ".condition." in name
    ]
    assert sum(conditions) == 29_177_760
    mixture, queries = tensors["in.mixture"][..., 0], tensors["in.condition"][:, None]
    transform = FftTransform(model.config.stft)
    with torch.no_grad():
        spectrogram = model.network(transform.analyse(mixture), queries)
        waveform = separate(mixture, queries, model.network, transform, level=model.config.level)
    magnitude = torch.linalg.vector_norm(spectrogram, dim=2)
    difference = relative_difference(magnitude, tensors["out.magnitude"])
    error = relative_difference(waveform[:, 0], tensors["out.waveform"][..., 0])
    record_property("spectral_difference", difference)
    print(f"ST-SED-SEP: magnitudes {difference:.1e}, waveforms {-20 * math.log10(error):.0f} dB")
    assert difference < 1e-4
    assert error < 1e-4


@pytest.mark.slow
def test_recorded_tags(shared: Path, record_property: Record) -> None:
    description, tensors = recording(shared, "htsat_2048d")
    separator = fill(separator_shapes((2, 3), 2048))
    model = build_released(separator, "test", prefixed(weights(description)), "test")
    tagger = model.tagger
    assert tagger is not None
    assert tagger.config == HtsatConfig()
    unused = description["classes_num"] ** 2 + description["classes_num"]
    assert num_parameters(tagger) + unused == 202_007_607
    waveform = tensors["in.waveform_10s"]
    with torch.no_grad():
        long, short = tagger(waveform), tagger(waveform[:, :64_000])
    for name, ours, tolerance in (
        ("latent_10s", long.embedding, 1e-4),
        ("latent_2s_infer_mode", short.embedding, 1e-4),
        ("clipwise_10s", long.clip_scores, 1e-4),
        ("clipwise_2s_infer_mode", short.clip_scores, 1e-4),
        ("framewise_10s", long.frame_scores, 1e-3),  # recorded in half precision
    ):
        difference = relative_difference(ours, tensors[f"out.{name}"].float())
        record_property(name, difference)
        print(f"HTS-AT: {name} {difference:.1e}")
        assert difference < tolerance


def relative_difference(ours: Tensor, recorded: Tensor) -> float:
    assert ours.shape == recorded.shape
    return float((ours - recorded).norm() / recorded.norm())


def recording(shared: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    description = json.loads((shared / "parity" / f"{name}.json").read_text(encoding="utf-8"))
    return description, load_file(shared / "parity" / f"{name}.safetensors")


def weights(description: dict[str, Any]) -> dict[str, Tensor]:
    """Weights by the rule that came with the recordings, which is not that of the golden ones."""
    state = {}
    for key, shape in description["state"].items():
        draw = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
        kind = key.rsplit(".", 1)[-1]
        if kind == "running_var":
            value = 1 + 0.1 * np.abs(draw)
        elif kind == "num_batches_tracked":
            value = np.zeros(())
        elif kind == "weight" and len(shape) == 1:
            value = 1 + 0.1 * draw
        elif kind in ("running_mean", "relative_position_bias_table") or len(shape) == 1:
            value = 0.1 * draw
        else:
            value = draw / math.sqrt(math.prod(shape[1:]))
        state[key] = torch.from_numpy(np.asarray(value)).float()
    return state


def prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"sed_model.{name}": tensor for name, tensor in state.items()}


def num_parameters(tagger: Htsat) -> int:
    return sum(parameter.numel() for parameter in tagger.parameters())
