"""Importing checkpoints of spectral feature compression, whose sizes the tensors tell."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from command_line import unbraid
from unbraid.checkpoints import import_released, load_bundle
from unbraid.config import dump
from unbraid.dsp.stft import StftConfig
from unbraid.errors import CheckpointError
from unbraid.models.architectures.tf_locoformer import ARCHITECTURE
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model

STEMS = ("speech", "music-mix", "sfx-mix")


@pytest.fixture(scope="module")
def direct() -> WaveformModel:
    """The small model for films, with random weights everywhere."""
    network = dump(ARCHITECTURE.presets["sfc-small-dnr"])
    stft = StftConfig(2048, 512, "hann", padding="reflect")
    torch.manual_seed(0)
    model = build_model(
        ModelConfig("tf_locoformer", 44100, stft, network, outputs=STEMS, level="spectrum")
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture
def state(direct: WaveformModel) -> dict[str, Tensor]:
    """The same weights under the names of the released code, some of them spelt out."""
    ours = direct.network.state_dict()
    state = {}
    for side in ("encoder", "decoder"):
        first = "0." if side == "encoder" else ""
        for theirs, name in {
            "query": "queries.vectors",
            f"input_conv.{first}weight": "input_convolution.weight",
            f"input_conv.{first}bias": "input_convolution.bias",
            f"output_conv.{first}weight": "output_convolution.weight",
            f"output_conv.{first}bias": "output_convolution.bias",
            "block.mixer.kv_proj.weight": "mixer.keys_values.weight",
            "block.mixer.q_proj.weight": "mixer.query.weight",
            "block.mixer.aggregate_heads.0.weight": "mixer.output.weight",
            "block.norm_attn_kv.weight": "mixer.token_norm.gain",
            "block.norm_attn_q.weight": "mixer.query_norm.gain",
            "block.norm_ffn.weight": "mixer.feed_forward_norm.gain",
            "block.feed_forward.linear1.weight": "mixer.feed_forward.expand.weight",
            "block.feed_forward.linear1.bias": "mixer.feed_forward.expand.bias",
            "block.feed_forward.linear2.weight": "mixer.feed_forward.reduce.weight",
            "block.feed_forward.linear2.bias": "mixer.feed_forward.reduce.bias",
        }.items():
            state[f"{side}.{theirs}"] = ours.pop(f"codec.{side}.{name}")
        bias = ours.pop(f"codec.{side}.mixer.bias.matrix")[None]
        state[f"{side}.block.mixer.pos_bias.pos_bias"] = bias
        state[f"{side}.block.mixer.pos_bias.slope"] = torch.ones(bias.shape[1], 1, 1)
    for which in ("input", "output"):
        name = f"codec.encoder.{which}_norm.gain"
        state[f"encoder.{which}_conv.2.weight"] = ours.pop(name)
    modules = {
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
    for name, value in ours.items():
        _, _, block, path, rest = name.split(".", 4)
        mine = next(each for each in modules if f"{rest}.".startswith(f"{each}."))
        state[f"blocks.{block}.{path}.{modules[mine]}{rest.removeprefix(mine)}"] = value
    return state


def checkpoint(path: Path, state: dict[str, Tensor]) -> Path:
    """A Lightning checkpoint with training weights that must not be taken, and the average."""
    whole = {f"model.model.{name}": torch.zeros_like(value) for name, value in state.items()}
    whole |= {f"ema_model.module.model.{name}": value for name, value in state.items()}
    whole |= {"ema_model.n_averaged": torch.tensor(5), "model.stft.window": torch.ones(2048)}
    torch.save({"state_dict": whole, "epoch": 3}, path)
    return path


def test_the_averaged_weights_give_the_same_model(
    direct: WaveformModel, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = checkpoint(tmp_path / "sfc.ckpt", state)
    outcome = unbraid(
        "models", "import", path, "--outputs", "speech,music,effects", "--out", tmp_path / "sfc"
    )
    assert outcome.code == 0, outcome.stderr
    model = load_bundle(tmp_path / "sfc").model
    assert model.config.outputs == STEMS
    assert model.num_parameters == 5_814_470
    mixture = torch.randn(1, 6000)
    rows = model.prompts.indices(["sfx-mix", "speech"])[None]
    with torch.no_grad():
        torch.testing.assert_close(model(mixture, rows), direct(mixture, rows))


def test_a_slope_goes_into_the_bias(state: dict[str, Tensor], tmp_path: Path) -> None:
    state["encoder.block.mixer.pos_bias.slope"] = torch.tensor([1.0, 2.0, 0.5, 3.0])[:, None, None]
    path = checkpoint(tmp_path / "sfc.ckpt", state)
    network = import_released(path, tmp_path / "out", outputs=STEMS).model.network
    matrix = network.get_parameter("codec.encoder.mixer.bias.matrix")
    plain = state["encoder.block.mixer.pos_bias.pos_bias"][0]
    torch.testing.assert_close(matrix[1], 2 * plain[1])
    torch.testing.assert_close(matrix[2], 0.5 * plain[2])


def test_outputs_have_to_be_named_and_counted(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "sfc.ckpt", state)
    with pytest.raises(CheckpointError, match="--outputs, for example"):
        import_released(path, tmp_path / "out")
    with pytest.raises(CheckpointError, match="has 3 outputs, but 2 are named"):
        import_released(path, tmp_path / "out", outputs=("vocals", "drums"))


def test_what_is_missing_is_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    del state["blocks.1.frame_path.attn.qkv.weight"]
    path = checkpoint(tmp_path / "sfc.ckpt", state)
    with pytest.raises(CheckpointError, match=r"blocks\.1\.frame_path\.attn\.qkv\.weight"):
        import_released(path, tmp_path / "out", outputs=STEMS)
    del state["encoder.output_conv.0.weight"]
    with pytest.raises(CheckpointError, match="not one of the published models"):
        import_released(checkpoint(tmp_path / "b.ckpt", state), tmp_path / "out", outputs=STEMS)
