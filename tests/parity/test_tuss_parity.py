"""TUSS against outputs of the released code: the same weights must give the same numbers.

All weights go in through the importer, under the released names, so the key mapping is
proved along with the network. ``golden.json`` holds weights by a rule and needs nothing
else; the recorded waveforms are in the shared folder.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from golden_outputs import GOLDEN, assert_golden, fill, golden_mixture
from released_tuss import (
    MEDIUM,
    hyperparameters,
    released_shapes,
    rotary_frequencies,
)
from unbraid.checkpoints.importers.tuss import build_released
from unbraid.config import dump
from unbraid.dsp.stft import FftTransform, StftConfig
from unbraid.models.architectures.tuss import ARCHITECTURE
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.separation.separator import StreamSeparator, separate_waveform
from unbraid.separation.settings import SeparationConfig
from unbraid.types import Waveform

Record = Callable[[str, object], None]


def signal_to_difference_db(recorded: Tensor, ours: Tensor) -> float:
    """How far the difference lies below the recorded signal; the worst of the sources."""
    difference = (ours - recorded).double().square().sum(-1)
    ratio = recorded.double().square().sum(-1) / difference.clamp_min(1e-30)
    return float(10 * ratio.log10().min())


def relative_difference(recorded: Tensor, ours: Tensor) -> float:
    return float((ours - recorded).abs().max() / recorded.abs().max())


def released(shared: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor], WaveformModel]:
    """The description and the tensors of a recording, and our model with its weights."""
    description = json.loads((shared / "parity" / f"{name}.json").read_text(encoding="utf-8"))
    tensors = load_file(shared / "parity" / f"{name}.safetensors")
    state = {
        key.removeprefix("state."): tensor.float()
        for key, tensor in tensors.items()
        if key.startswith("state.")
    }
    return description, tensors, build_released(description["hparams"], state, name)


def indices(model: WaveformModel, prompts: list[list[str]]) -> Tensor:
    return torch.stack([model.prompts.indices(row) for row in prompts])


@pytest.mark.parametrize("name", ["tuss_tiny", "tuss_tiny_tf_nosos", "tuss_tiny_44k"])
def test_recorded_spectrograms_and_waveforms(
    shared: Path, name: str, record_property: Record
) -> None:
    description, tensors, model = released(shared, name)
    mixture = tensors["in.mixture"]
    rows = indices(model, description["prompts"])
    with torch.no_grad():
        ours = model(mixture, rows)
        spectrogram = torch.stack([tensors["in.spec_real"], tensors["in.spec_imag"]], dim=1)
        estimates = model.network(spectrogram, model.prompts(rows))

    scale = mixture.std(dim=-1, keepdim=True)
    analysed = FftTransform(model.config.stft).analyse(mixture / scale)
    entry_difference = relative_difference(spectrogram, analysed)
    recorded = torch.stack([tensors["out.spec_real"], tensors["out.spec_imag"]], dim=2)
    spectral_difference = relative_difference(recorded, estimates)
    waveforms_db = signal_to_difference_db(tensors["out.waveforms"][..., : mixture.shape[-1]], ours)
    record_property("waveforms_db", round(waveforms_db, 1))
    record_property("spectral_difference", spectral_difference)
    print(f"{name}: waveforms {waveforms_db:.1f} dB, spectrograms {spectral_difference:.1e}")
    assert entry_difference < 1e-5
    assert spectral_difference < 1e-4
    assert waveforms_db > 80


def test_recorded_single_pass_of_a_longer_mixture(shared: Path, record_property: Record) -> None:
    description, tensors, model = released(shared, "tuss_tiny_css")
    mixture = tensors["in.mixture"]
    with torch.no_grad():
        ours = model(mixture, indices(model, description["prompts"]))
    waveforms_db = signal_to_difference_db(tensors["out.waveforms"][..., : mixture.shape[-1]], ours)
    record_property("waveforms_db", round(waveforms_db, 1))
    print(f"tuss_tiny_css, one pass: {waveforms_db:.1f} dB")
    assert waveforms_db > 80


def golden_settings(name: str) -> dict[str, Any]:
    if name == "tuss_medium":
        return MEDIUM
    config = GOLDEN[name]["config"]
    return hyperparameters(config["cross"], config["tse"], config["n_cross"], config["n_tse"])


def test_recorded_chunks_of_a_longer_mixture(shared: Path, record_property: Record) -> None:
    """Chunks that are normalised alone, the last one filled up with zeros, plainly averaged."""
    description, tensors, model = released(shared, "tuss_tiny_css")
    segment_s, shift_s = description["css"]
    config = SeparationConfig(segment_s, segment_s - shift_s, join="mean")
    mixture = Waveform(tensors["in.mixture"], description["sample_rate"])
    ours = separate_waveform(
        StreamSeparator(model, config), mixture, description["prompts"][0]
    ).sources
    recorded = tensors["out.css_waveforms"][0].unsqueeze(1)
    waveforms_db = signal_to_difference_db(recorded, ours)
    record_property("waveforms_db", round(waveforms_db, 1))
    print(f"tuss_tiny_css, chunks: {waveforms_db:.1f} dB")
    assert waveforms_db > 80


@pytest.mark.parametrize("name", ["tuss_tiny", "tuss_medium"])
def test_golden_outputs(name: str) -> None:
    golden = GOLDEN[name]
    hparams = golden_settings(name)
    conf = hparams["model_conf"]
    model = build_released(hparams, fill(released_shapes(conf)) | rotary_frequencies(conf), name)
    assert model.num_parameters == golden["params"]
    batch, _, frames, _ = golden["out_shape"]
    with torch.no_grad():
        rows = indices(model, golden["config"]["prompts"])
        ours = model.network(golden_mixture(batch, frames, 1025), model.prompts(rows))
    assert_golden(name, ours)


@pytest.mark.parametrize(("preset", "count"), [("medium", 11_132_352), ("large", 38_210_112)])
def test_parameter_counts_of_the_published_sizes(preset: str, count: int) -> None:
    config = ModelConfig("tuss", 48000, StftConfig(), dump(ARCHITECTURE.presets[preset]))
    with torch.device("meta"):
        assert build_model(config).num_parameters == count
