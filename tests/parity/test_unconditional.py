"""The unconditional baseline against outputs of the released code.

The release mixes up sources and parts behind its decoder, and so do its outputs here: the importer
has to put the weights in order, or nothing agrees.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from golden_outputs import GOLDEN, assert_golden, fill, golden_mixture
from released_fixed_outputs import (
    TINY_UNCONDITIONAL,
    WIDTHS_48K,
    random_state,
    unconditional_rotary,
    unconditional_settings,
    unconditional_shapes,
)
from unbraid.checkpoints.importers.unconditional import build_released
from unbraid.models.inference import for_inference

Record = Callable[[str, object], None]


def test_recorded_spectrograms_and_waveforms(shared: Path, record_property: Record) -> None:
    name = "unconditional_tiny"
    description = json.loads((shared / "parity" / f"{name}.json").read_text(encoding="utf-8"))
    tensors = load_file(shared / "parity" / f"{name}.safetensors")
    state = {
        key.removeprefix("state."): tensor.float()
        for key, tensor in tensors.items()
        if key.startswith("state.")
    }
    model = build_released(description["hparams"], state, name)
    mixture, waveforms = tensors["in.mixture"], tensors["out.waveforms"]
    spectrogram = torch.stack([tensors["in.spec_real"], tensors["in.spec_imag"]], dim=1)
    recorded = torch.stack([tensors["out.spec_real"], tensors["out.spec_imag"]], dim=2)
    with torch.no_grad():
        estimates = model.network(spectrogram, torch.empty(1, 4, 0))
        ours = model(mixture, torch.zeros(1, 4, dtype=torch.int64))
        fast = for_inference(model)(mixture, torch.zeros(1, 4, dtype=torch.int64))
    spectral_difference = float((estimates - recorded).abs().max() / recorded.abs().max())
    record_property("spectral_difference", spectral_difference)
    assert spectral_difference < 1e-5
    waveforms = waveforms[..., : mixture.shape[-1]]
    for separated in (ours, fast):
        difference = (separated - waveforms).double().square().sum(-1)
        ratio_db = 10 * (waveforms.double().square().sum(-1) / difference).log10()
        record_property("waveforms_db", round(float(ratio_db.min()), 1))
        print(f"{name}: waveforms {float(ratio_db.min()):.1f} dB")
        assert ratio_db.min() > 80


def test_golden_outputs() -> None:
    name = "bslocoformer_stack_tiny_4src"
    config = GOLDEN[name]["config"]
    batch, sources, frames, bins = GOLDEN[name]["out_shape"]
    settings = unconditional_settings(
        config["first"], config["second"], tuple(config["n"]), sources
    )
    conf = settings["model_conf"]
    state = fill(unconditional_shapes(conf)) | unconditional_rotary(conf)
    model = build_released(settings, state, name)
    assert model.num_parameters == GOLDEN[name]["params"]
    with torch.no_grad():
        ours = model.network(golden_mixture(batch, frames, bins), torch.empty(batch, sources, 0))
    assert_golden(name, ours)


@pytest.mark.parametrize("sources", [2, 3, 4])
def test_the_released_order_of_channels(sources: int) -> None:
    """Told by the bias alone, which the release hands out as source, part and we as it should be.

    Every other weight of the decoders' last layers is zero and the gates are open, so the masks
    are the numbers of the channels as the release numbers them.
    """
    settings = TINY_UNCONDITIONAL | {
        "model_conf": TINY_UNCONDITIONAL["model_conf"] | {"num_spk": sources}
    }
    conf = settings["model_conf"]
    state = random_state(unconditional_shapes(conf), unconditional_rotary(conf))
    for band, width in enumerate(WIDTHS_48K):
        layer = f"band_split_module.bandwise_decoding_module.{band}.5"
        state[f"{layer}.weight"].zero_()
        channels = torch.arange(2.0 * sources).repeat_interleave(width)
        state[f"{layer}.bias"] = torch.cat([channels, torch.full_like(channels, 100.0)])
    model = build_released(settings, state, "test")
    mixture = torch.zeros(1, 2, 3, 1025)
    mixture[:, 0] = 1.0
    with torch.no_grad():
        masks = model.network(mixture, torch.empty(1, sources, 0))
    expected = torch.arange(2.0 * sources).view(sources, 2)[None, :, :, None, None]
    torch.testing.assert_close(masks, expected.expand_as(masks))
