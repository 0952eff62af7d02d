"""TF-Locoformer against outputs of the released code: the same weights, the same numbers.

All weights go in through the importer, under the released names, so the names are proved along
with the network. The golden outputs need nothing else; the recordings are in the shared folder.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from golden_outputs import GOLDEN, assert_golden, fill, golden_mixture
from released_fixed_outputs import espnet_settings, locoformer_rotary, locoformer_shapes
from unbraid.checkpoints.importers.tf_locoformer import build_released
from unbraid.models.inference import for_inference

Record = Callable[[str, object], None]


def settings_of(separator_conf: dict[str, Any], num_bins: int) -> dict[str, Any]:
    n_fft = 2 * (num_bins - 1)
    return espnet_settings(n_fft, n_fft // 2) | {"separator_conf": separator_conf}


@pytest.mark.parametrize(
    "name", ["tf_locoformer_tiny", "tf_locoformer_tiny_layernorm_tf", "tf_locoformer_tiny_shift2"]
)
def test_recorded_spectrograms(shared: Path, name: str, record_property: Record) -> None:
    description = json.loads((shared / "parity" / f"{name}.json").read_text(encoding="utf-8"))
    tensors = load_file(shared / "parity" / f"{name}.safetensors")
    state = {
        key.removeprefix("state."): tensor
        for key, tensor in tensors.items()
        if key.startswith("state.")
    }
    mixture = torch.stack([tensors["in.spec_real"], tensors["in.spec_imag"]], dim=1)
    recorded = torch.stack([tensors["out.spec_real"], tensors["out.spec_imag"]], dim=2)
    settings = settings_of(description["separator_conf"], mixture.shape[-1])
    model = build_released(settings, state, name)
    queries = torch.empty(len(mixture), recorded.shape[1], 0)
    with torch.no_grad():
        for network in (model.network, for_inference(model).network):
            difference = float((network(mixture, queries) - recorded).abs().max())
            difference /= float(recorded.abs().max())
            record_property("spectral_difference", difference)
            print(f"{name}: spectrograms {difference:.1e}")
            assert difference < 1e-5


@pytest.mark.parametrize("name", ["tflocoformer_tiny_ft", "tflocoformer_tiny_tf"])
def test_golden_outputs(name: str) -> None:
    golden = GOLDEN[name]
    batch, sources, frames, bins = golden["out_shape"]
    conf = golden["config"]
    model = build_released(
        settings_of(conf, bins), fill(locoformer_shapes(conf)) | locoformer_rotary(conf), name
    )
    assert model.num_parameters == golden["params"]
    with torch.no_grad():
        ours = model.network(golden_mixture(batch, frames, bins), torch.empty(batch, sources, 0))
    assert_golden(name, ours)
