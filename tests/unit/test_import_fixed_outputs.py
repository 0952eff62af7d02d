"""Importing separators with fixed outputs: every tensor has its place, every setting counts."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from released_fixed_outputs import (
    TINY_UNCONDITIONAL,
    espnet_settings,
    locoformer_rotary,
    locoformer_shapes,
    random_state,
    unconditional_rotary,
    unconditional_shapes,
)
from unbraid.checkpoints.importers import tf_locoformer, unconditional
from unbraid.checkpoints.known_models import KNOWN_MODELS
from unbraid.errors import CheckpointError
from unbraid.models.waveform import WaveformModel, build_model

TINY_LOCOFORMER = espnet_settings()

Settings = dict[str, Any]
State = dict[str, Tensor]


def locoformer_state(settings: Settings = TINY_LOCOFORMER) -> State:
    conf = settings["separator_conf"]
    return random_state(locoformer_shapes(conf), locoformer_rotary(conf))


def unconditional_state(settings: Settings = TINY_UNCONDITIONAL) -> State:
    conf = settings["model_conf"]
    return random_state(unconditional_shapes(conf), unconditional_rotary(conf))


#: How each of the two is read, its settings, its weights, and one of its paths.
FAMILIES: dict[str, tuple[Any, Settings, Callable[[], State], str]] = {
    "tf_locoformer": (tf_locoformer, TINY_LOCOFORMER, locoformer_state, "blocks.0.freq_path"),
    "unconditional": (
        unconditional,
        TINY_UNCONDITIONAL,
        unconditional_state,
        "first_block.0.freq_path",
    ),
}


def edited(settings: Settings, path: str, value: object) -> Settings:
    """The settings with one value changed, or added, at a dotted path."""
    changed = copy.deepcopy(settings)
    *parents, last = path.split(".")
    place: Any = changed
    for key in parents:
        place = place[key]
    place[last] = value
    return changed


def run(model: WaveformModel) -> Tensor:
    noise = torch.randn(1, 5000, generator=torch.Generator().manual_seed(1))
    prompts = torch.zeros(1, len(model.config.outputs), dtype=torch.int64)
    with torch.no_grad():
        return model(noise, prompts)


# ------------------------------------------------------------------ what comes out


def test_a_locoformer_computes_what_espnet_does_around_it() -> None:
    """Level, transform and inverse by torch's own functions, with their defaults."""
    model = tf_locoformer.build_released(TINY_LOCOFORMER, locoformer_state(), "test")
    mixture = 0.3 * torch.randn(2, 4320)
    window = torch.hann_window(64)
    deviation = mixture.std(dim=1, keepdim=True)
    spectrum = torch.stft(mixture / deviation, 64, 32, window=window, return_complex=True)
    spectrum = spectrum.transpose(1, 2)
    with torch.no_grad():
        parts = torch.stack([spectrum.real, spectrum.imag], dim=1)
        estimates = model.network(parts, torch.empty(2, 2, 0))
        ours = model(mixture, torch.zeros(2, 2, dtype=torch.int64))
    assert ours.shape == (2, 2, 4320)
    for source in range(2):
        estimate = torch.complex(estimates[:, source, 0], estimates[:, source, 1])
        waveform = torch.istft(estimate.transpose(1, 2), 64, 32, window=window, length=4320)
        torch.testing.assert_close(ours[:, source], waveform * deviation, atol=1e-5, rtol=1e-4)


def test_a_locoformer_separates_speakers_at_its_rate() -> None:
    settings = espnet_settings(sample_rate=16000, num_spk=3)
    model = tf_locoformer.build_released(settings, locoformer_state(settings), "test")
    assert model.config.outputs == ("speech",) * 3
    assert model.config.prompts == ("speech",)
    assert model.config.sample_rate == 16000
    assert (model.config.stft.window, model.config.stft.padding) == ("hann", "reflect")
    assert model.config.level == "deviation"
    assert not model.training
    assert run(model).shape == (1, 3, 5000)


def test_the_unconditional_baseline_gives_sources_without_saying_what_they_are() -> None:
    config = unconditional.read_config(TINY_UNCONDITIONAL, "test")
    assert config.outputs == ("source",) * 3
    assert (config.segment_s, config.overlap_s) == (6.0, 0.0)
    assert (config.stft.n_fft, config.stft.window, config.stft.padding) == (
        2048, "sqrt_hann", "zeros",
    )  # fmt: skip


def test_outputs_of_a_model_for_fixed_kinds_can_be_named() -> None:
    names = ["speech", "musicbg", "sfxbg"]
    model = unconditional.build_released(
        TINY_UNCONDITIONAL, unconditional_state(), "test", outputs=names
    )
    assert model.config.outputs == ("speech", "music-mix", "sfx-mix")
    with pytest.raises(CheckpointError, match="2 outputs are named, but num_spk is 3"):
        unconditional.read_config(TINY_UNCONDITIONAL, "test", outputs=names[:2])


def test_the_medium_locoformer_has_all_174_tensors() -> None:
    settings = espnet_settings(
        128, 64, n_layers=6, emb_dim=128, num_groups=4, n_heads=4, attention_dim=128,
        ffn_hidden_dim=[384, 384], conv1d_kernel=4,
    )  # fmt: skip
    state = locoformer_state(settings)
    assert len(state) == 174
    model = tf_locoformer.build_released(settings, state, "medium")
    assert model.num_parameters == 14_975_652


def test_the_small_locoformer_has_the_default_attention() -> None:
    settings = espnet_settings(
        256, 64, n_layers=4, emb_dim=96, num_groups=4, n_heads=4, ffn_hidden_dim=[128, 128],
        conv1d_kernel=8,
    )  # fmt: skip
    del settings["separator_conf"]["attention_dim"]
    model = tf_locoformer.build_released(settings, locoformer_state(settings), "small")
    assert model.num_parameters == 5_125_252


LOCOFORMERS = {known.name: known for known in KNOWN_MODELS if known.settings is not None}


@pytest.mark.parametrize("name", LOCOFORMERS)
def test_the_settings_of_the_known_models_make_models_of_their_size(name: str) -> None:
    known = LOCOFORMERS[name]
    config = tf_locoformer.read_config(known.settings, name)
    with torch.device("meta"):
        model = build_model(config)
    assert model.num_parameters == known.num_parameters
    assert config.outputs == known.outputs
    assert config.sample_rate == known.sample_rate


def test_five_locoformers_are_known() -> None:
    assert len(LOCOFORMERS) == 5


@pytest.mark.parametrize("hidden", [[6], [6, 10]])
@pytest.mark.parametrize("norm", ["rmsgroupnorm", "layernorm"])
def test_norms_and_nets_go_where_the_settings_say(norm: str, hidden: list[int]) -> None:
    settings = espnet_settings(
        norm_type=norm, ffn_hidden_dim=hidden, ffn_type=["swiglu_conv1d"] * len(hidden)
    )
    state = locoformer_state(settings)
    model = tf_locoformer.build_released(settings, state, "test")
    path = model.network.get_submodule("stack.blocks.1.frame_path")
    ours, theirs = ("gain", "gamma") if norm == "rmsgroupnorm" else ("bias", "bias")
    # The one net stands after the attention; of two, the first of the settings stands before it.
    places = [("after", 0)] if len(hidden) == 1 else [("before", 1), ("after", 0)]
    for (place, index), width in zip(places, hidden, strict=True):
        start = "blocks.1.frame_path"
        expand = path.get_parameter(f"feed_forward_{place}.expand.weight")
        assert expand.shape == (2 * width, 8, 3)
        assert torch.equal(expand, state[f"{start}.ffn.{index}.conv1d.weight"])
        gain = path.get_parameter(f"norm_{place}.{ours}")
        assert torch.equal(gain, state[f"{start}.ffn_norm.{index}.{theirs}"])


# ------------------------------------------------------------------ both families


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", ["model.separator.", "separator.", ""])
def test_prefixes(family: str, prefix: str) -> None:
    importer, settings, make_state, _ = FAMILIES[family]
    state = {prefix + name: tensor for name, tensor in make_state().items()}
    plain = importer.build_released(settings, make_state(), "plain")
    assert torch.equal(run(importer.build_released(settings, state, "prefixed")), run(plain))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_feed_forward_trap(family: str) -> None:
    """Net 1 of the released list stands before the attention, and shapes show no swap."""
    importer, settings, make_state, _ = FAMILIES[family]
    if family == "tf_locoformer":
        settings = edited(settings, "separator_conf.ffn_hidden_dim", [6, 6])
        state = locoformer_state(settings)
    else:
        state = make_state()
    swap = {"0": "1", "1": "0"}
    swapped = {
        re.sub(
            r"(\.ffn|\.ffn_norm)\.([01])\.", lambda found: f"{found[1]}.{swap[found[2]]}.", name
        ): tensor
        for name, tensor in state.items()
    }
    right, wrong = (
        run(importer.build_released(settings, weights, "test")) for weights in (state, swapped)
    )
    assert float((right - wrong).norm() / right.norm()) > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_no_number_is_lost_or_used_twice(family: str) -> None:
    """Whatever is renamed and reordered: what goes in is what is there, once."""
    importer, settings, make_state, _ = FAMILIES[family]
    state = make_state()
    model = importer.build_released(settings, state, "test")
    rotary = {name: tensor for name, tensor in state.items() if name.endswith("rope.freqs")}
    theirs = [
        value
        for name, tensor in state.items()
        if name not in rotary
        for value in tensor.flatten().tolist()
    ]
    ours = [
        value
        for name, weight in model.named_parameters()
        if not name.endswith("frequencies")
        for value in weight.flatten().tolist()
    ]
    assert sorted(ours) == sorted(theirs)


Edit = Callable[[State, str], object]
#: Tensors that do not fit: an edit of the state, and what the error must name.
MISFITS: dict[str, tuple[Edit, str]] = {
    "missing": (lambda s, p: s.pop(f"{p}.attn.qkv.weight"), r"missing {path}\.attn\.qkv\.weight"),
    "missing frequencies": (lambda s, p: s.pop(f"{p}.attn.rope.freqs"), r"rope\.freqs"),
    "unknown": (lambda s, p: s.update(stowaway=torch.zeros(1)), "not part of the model stowaway"),
    "transposed": (
        lambda s, p: s.update({f"{p}.attn.qkv.weight": s[f"{p}.attn.qkv.weight"].T}),
        r"qkv\.weight is \[8, \d+\] instead of \[\d+, 8\]",
    ),
    "other frequencies": (
        lambda s, p: s[f"{p}.attn.rope.freqs"].mul_(0.5),
        "not the rotary frequencies",
    ),
    "no numbers": (
        lambda s, p: s[f"{p}.attn_norm.gamma"].fill_(float("nan")),
        r"attn_norm\.gamma hold values",
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", MISFITS)
def test_every_tensor_is_accounted_for(family: str, case: str) -> None:
    importer, settings, make_state, path = FAMILIES[family]
    edit, message = MISFITS[case]
    state = make_state()
    edit(state, path)
    expected = message.replace("{path}", re.escape(path))
    with pytest.raises(CheckpointError, match=expected) as raised:
        importer.build_released(settings, state, "here/model.pth")
    assert "here/model.pth" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_blocks_must_agree_on_their_frequencies() -> None:
    state = locoformer_state()
    state["blocks.1.freq_path.attn.rope.freqs"] *= 1.001
    with pytest.raises(CheckpointError, match="differ between blocks"):
        tf_locoformer.build_released(TINY_LOCOFORMER, state, "test")


def test_tensors_beside_the_separator_are_named() -> None:
    state = {f"separator.{name}": tensor for name, tensor in locoformer_state().items()}
    state["mask_module.weight"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"mask_module\.weight do not belong"):
        tf_locoformer.build_released(TINY_LOCOFORMER, state, "test")


# ------------------------------------------------------------------ settings

SEPARATOR, FIRST = "separator_conf", "model_conf.config_first_block"
#: Family, place, value, what the error must say.
UNSUPPORTED: dict[str, tuple[str, str, object, str]] = {
    "another separator": ("tf_locoformer", "separator", "tfgridnetv3", "tflocoformer"),
    "another encoder": ("tf_locoformer", "encoder", "conv", "encoder"),
    "no deviation": ("tf_locoformer", "model_conf.normalize_variance", False, "normalize_variance"),
    "no settings of the model": ("tf_locoformer", "model_conf", {}, "normalize_variance"),
    "no rate": ("tf_locoformer", "sample_rate", None, "sample_rate"),
    "another decoder": (
        "tf_locoformer",
        "decoder_conf",
        {"n_fft": 64, "hop_length": 16},
        "decoder_conf differs",
    ),
    "shorter window": (
        "tf_locoformer",
        "encoder_conf",
        {"n_fft": 64, "hop_length": 32, "win_length": 48},
        "win_length differs",
    ),
    "no padding": ("tf_locoformer", "encoder_conf.center", False, "center"),
    "another window": ("tf_locoformer", "encoder_conf.window", "hamming", "window"),
    "compressed spectra": (
        "tf_locoformer",
        "encoder_conf.spec_transform_type",
        "exponent",
        "unknown key 'spec_transform_type'",
    ),
    "nets without gates": ("tf_locoformer", f"{SEPARATOR}.ffn_type", ["conv1d"] * 2, "ffn_type"),
    "nets of one kind only": (
        "tf_locoformer",
        f"{SEPARATOR}.ffn_type",
        ["swiglu_conv1d"],
        "differ in length",
    ),
    "three nets": (
        "tf_locoformer",
        SEPARATOR,
        TINY_LOCOFORMER["separator_conf"]
        | {"ffn_type": ["swiglu_conv1d"] * 3, "ffn_hidden_dim": [6] * 3},
        "one or two feed-forward nets",
    ),
    "another norm": ("tf_locoformer", f"{SEPARATOR}.norm_type", "batchnorm", "norm_type"),
    "unknown key": ("tf_locoformer", f"{SEPARATOR}.layer_scale", True, "unknown key 'layer_scale'"),
    "heads that do not divide": ("tf_locoformer", f"{SEPARATOR}.n_heads", 5, "num_heads"),
    "no speaker": ("tf_locoformer", f"{SEPARATOR}.num_spk", 0, "must be positive"),
    "a model with prompts": ("unconditional", "model_name", "tuss", "bslocoformer_stack"),
    "no variance normalisation": (
        "unconditional",
        "variance_normalization",
        False,
        "variance_normalization",
    ),
    "unknown key of a block": ("unconditional", f"{FIRST}.layer_scale", True, "'layer_scale'"),
    "blocks of unequal width": ("unconditional", f"{FIRST}.emb_dim", 16, "must be equal"),
    "another transform in the model": (
        "unconditional",
        "model_conf.stft_size",
        1024,
        "stft_size differs",
    ),
    "chunks with gaps": (
        "unconditional",
        "css_conf",
        {"segment_size": 2, "shift_size": 3},
        "shift_size",
    ),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_settings_that_are_not_supported(case: str) -> None:
    family, place, value, message = UNSUPPORTED[case]
    importer, settings, make_state, _ = FAMILIES[family]
    with pytest.raises(CheckpointError, match=message) as raised:
        importer.build_released(edited(settings, place, value), make_state(), "here/model.pth")
    assert "here/model.pth" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_settings_about_training_and_speed_do_not_matter() -> None:
    plain = tf_locoformer.read_config(TINY_LOCOFORMER, "test")
    for place, value in (
        ("max_epoch", 3),
        (f"{SEPARATOR}.flash_attention", True),
        (f"{SEPARATOR}.dropout", 0.1),
        ("criterions", [{"name": "si_snr"}]),
    ):
        assert tf_locoformer.read_config(edited(TINY_LOCOFORMER, place, value), "test") == plain
