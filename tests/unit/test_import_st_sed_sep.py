"""Importing ST-SED-SEP and its tagger, and bundles that carry a tagger."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from command_line import unbraid
from released_st_sed_sep import (
    TINY_CHANNELS,
    TINY_QUERY_DIM,
    random_state,
    separator_shapes,
    separator_state,
    tagger_shapes,
    tagger_state,
    write_checkpoint,
)
from unbraid.checkpoints import Bundle, import_released, load_bundle, save_bundle
from unbraid.checkpoints.bundle import CONFIG, FILES, MODEL, PROMPTS, TAGGER, count_parameters
from unbraid.checkpoints.upkeep import note_digest, remove_model, verify_bundle
from unbraid.errors import CheckpointError, PromptError
from unbraid.folders import user_models_dir
from unbraid.models.taggers.htsat import Htsat
from unbraid.models.waveform import WaveformModel


@pytest.fixture
def separator(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "asp.ckpt", separator_state())


@pytest.fixture
def tagger(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "htsat.ckpt", tagger_state())


@pytest.fixture
def bundle(separator: Path, tagger: Path) -> Bundle:
    return import_released(separator, name="asp", tagger=tagger)


def tagger_of(model: WaveformModel) -> Htsat:
    assert model.tagger is not None
    return model.tagger


def test_sizes_are_read_off_the_tensors(bundle: Bundle) -> None:
    config = bundle.config
    assert config.architecture == "query_unet"
    assert config.network == {"channels": list(TINY_CHANNELS), "query_dim": TINY_QUERY_DIM}
    assert (config.sample_rate, config.level, config.segment_s) == (32_000, "none", 2.0)
    assert (config.stft.n_fft, config.stft.hop_length) == (2048, 320)
    assert config.prompts == ()
    assert config.tagger is not None
    assert (config.tagger.dim, config.tagger.depths, config.tagger.num_heads) == (4, (1, 2), (1, 2))
    assert (config.tagger.num_classes, config.tagger.window) == (3, 8)


def test_a_bundle_gives_back_every_number(bundle: Bundle) -> None:
    network, tagger = separator_state(), tagger_state()
    ours = bundle.model.network.state_dict()
    for name, theirs in {
        "bin_norm.running_var": "bn0.running_var",
        "down.1.first.condition.bias": "encoder_block2.conv_block.emb1.bias",
        "centre.second.norm.weight": "conv_block7.bn2.weight",
        "up.0.upsample.convolution.weight": "decoder_block1.conv1.weight",
        "up.1.convolutions.second.norm.running_mean": "decoder_block2.conv_block2.bn2.running_mean",
        "mask.weight": "after_conv2.weight",
    }.items():
        assert torch.equal(ours[name], network[theirs])
    heard = tagger_of(bundle.model).state_dict()
    for name, theirs in {
        "mel_norm.running_mean": "bn0.running_mean",
        "stages.1.blocks.1.attention.position_bias": (
            "layers.1.blocks.1.attn.relative_position_bias_table"
        ),
        "stages.0.merge.reduce.weight": "layers.0.downsample.reduction.weight",
        "class_head.bias": "tscam_conv.bias",
    }.items():
        assert torch.equal(heard[name], tagger[f"sed_model.{theirs}"])
    assert not any("num_batches_tracked" in name for name in ours | heard)


def test_the_tagger_is_a_fifth_file_and_part_of_the_digest(bundle: Bundle) -> None:
    folder = bundle.folder
    assert sorted(path.name for path in folder.iterdir()) == sorted((*FILES, TAGGER))
    content = b"".join((folder / name).read_bytes() for name in (MODEL, PROMPTS, CONFIG, TAGGER))
    assert bundle.digest == hashlib.sha256(content).hexdigest()
    note_digest(folder)
    tensors = load_file(folder / TAGGER)
    tensors["norm.bias"] += 1.0
    save_file(tensors, folder / TAGGER)
    assert verify_bundle(folder, "asp").state == "changed"
    assert remove_model("asp") == folder


def test_without_a_tagger_a_bundle_is_what_it_was(separator: Path) -> None:
    bundle = import_released(separator)
    assert sorted(path.name for path in bundle.folder.iterdir()) == sorted(FILES)
    assert "tagger" not in json.loads((bundle.folder / CONFIG).read_text())
    assert bundle.model.tagger is None
    assert bundle.folder == user_models_dir() / "asp"


def test_counts_leave_running_statistics_and_the_tagger_out(bundle: Bundle) -> None:
    expected = sum(each.numel() for each in bundle.model.network.parameters())
    assert bundle.model.num_parameters == expected == count_parameters(bundle.folder)


def test_half_precision_leaves_running_statistics_exact(bundle: Bundle, tmp_path: Path) -> None:
    folder = save_bundle(bundle.model, tmp_path / "half", bundle.card, dtype=torch.float16)
    for name, statistics in ((MODEL, "bin_norm.running_var"), (TAGGER, "mel_norm.running_var")):
        tensors = load_file(folder / name)
        assert tensors[statistics].dtype == torch.float32
        weights = [each for key, each in tensors.items() if key.endswith("weight")]
        assert all(each.dtype == torch.float16 for each in weights)


def test_a_bundle_without_its_tagger_is_refused(bundle: Bundle) -> None:
    (bundle.folder / TAGGER).unlink()
    with pytest.raises(CheckpointError, match=TAGGER):
        load_bundle(bundle.folder)


def test_tensors_that_do_not_fit_the_tagger_are_refused(bundle: Bundle) -> None:
    tensors = load_file(bundle.folder / TAGGER)
    del tensors["norm.bias"]
    save_file(tensors, bundle.folder / TAGGER)
    with pytest.raises(CheckpointError, match=r"tagger.*missing norm\.bias"):
        load_bundle(bundle.folder)


def test_prompts_can_be_added_and_saved(bundle: Bundle, tmp_path: Path) -> None:
    vector = torch.arange(8.0)
    model = bundle.model.with_prompts({"dog": vector[None]})
    again = load_bundle(save_bundle(model, tmp_path / "more", bundle.card))
    assert again.config.prompts == ("dog",)
    assert torch.equal(again.model.prompts.weight[0], vector)
    assert bundle.model.prompts.names == ()
    with pytest.raises(PromptError, match="no prompt by name"):
        bundle.model.prompts.indices(["dog"])


def test_the_card_says_where_the_weights_come_from(bundle: Bundle) -> None:
    assert bundle.card.licence == "MIT"
    assert "RetroCirce/Zero_Shot_Audio_Source_Separation" in bundle.card.source


def damaged(state: dict[str, Tensor], name: str, tensor: Tensor | None) -> dict[str, Tensor]:
    rest = {key: value for key, value in state.items() if key != name}
    return rest if tensor is None else rest | {name: tensor}


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("after_conv2.bias", None, "missing after_conv2.bias"),
        ("surprise.weight", torch.zeros(3), "not part of the model surprise.weight"),
        ("conv_block7.emb2.bias", torch.zeros(5), "wrong shape: conv_block7.emb2.bias"),
        ("conv_block7.conv1.weight", None, "conv_block7.conv1.weight is missing"),
        ("bn0.bias", torch.full((1025,), torch.nan), "no numbers"),
    ],
)
def test_every_tensor_of_the_separator_is_accounted_for(
    tmp_path: Path, name: str, tensor: Tensor | None, message: str
) -> None:
    path = write_checkpoint(tmp_path / "asp.ckpt", damaged(separator_state(), name, tensor))
    with pytest.raises(CheckpointError, match=message):
        import_released(path)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("sed_model.norm.bias", None, "missing norm.bias"),
        ("optimizer.weight", torch.zeros(3), "not part of the model optimizer.weight"),
        ("sed_model.layers.0.blocks.0.mlp.fc1.bias", torch.zeros(5), "wrong shape"),
        ("sed_model.tscam_conv.weight", None, "tscam_conv.weight is missing"),
    ],
)
def test_every_tensor_of_the_tagger_is_accounted_for(
    separator: Path, tmp_path: Path, name: str, tensor: Tensor | None, message: str
) -> None:
    path = write_checkpoint(tmp_path / "htsat.ckpt", damaged(tagger_state(), name, tensor))
    with pytest.raises(CheckpointError, match=message):
        import_released(separator, tagger=path)


def test_a_tagger_of_another_separator_is_refused(separator: Path, tmp_path: Path) -> None:
    state = random_state(tagger_shapes(8, (1, 2), (1, 2), 3))
    other = {f"sed_model.{name}": tensor for name, tensor in state.items()}
    path = write_checkpoint(tmp_path / "other.ckpt", other)
    with pytest.raises(CheckpointError, match="latents have 16 numbers"):
        import_released(separator, tagger=path)


def test_files_in_the_wrong_place_are_refused(separator: Path, tagger: Path) -> None:
    with pytest.raises(CheckpointError, match="separates nothing by itself"):
        import_released(tagger)
    with pytest.raises(CheckpointError, match="not the checkpoint of an HTS-AT"):
        import_released(separator, tagger=separator)
    with pytest.raises(CheckpointError, match="says itself what comes out"):
        import_released(separator, outputs=["dog"])


def test_the_command(separator: Path, tagger: Path) -> None:
    outcome = unbraid("models", "import", separator, "--tagger", tagger, "--name", "by-example")
    assert outcome.code == 0, outcome.stderr
    assert "--query" in outcome.stdout
    assert "prompts:" not in outcome.stdout
    assert load_bundle(user_models_dir() / "by-example").model.tagger is not None
    assert "by-example" in unbraid("models", "list").stdout


def test_the_published_shapes_make_the_published_model() -> None:
    shapes = separator_shapes((32, 64, 128, 256, 512, 1024, 2048), 2048)
    assert len(shapes) + 35 == 279  # and a count for each batch norm
    parameters = {name: shape for name, shape in shapes.items() if "running" not in name}
    assert sum(torch.Size(shape).numel() for shape in parameters.values()) == 167_614_499
