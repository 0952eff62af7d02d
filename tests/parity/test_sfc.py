"""Spectral feature compression against outputs of the released code on weights by a rule.

Weights go in under their released names, so the names are proved along with the network. The
body between entry and exit is put together here: the architecture that users build is tested
by itself.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from golden_outputs import GOLDEN, fill
from unbraid.dsp.bands import musical_bands
from unbraid.nn.feature_compression import CompressionCodec, CompressionConfig
from unbraid.nn.locoformer import FeedForwardConfig, LocoformerConfig, LocoformerStack

#: What the rule leaves as the model begins.
UNTOUCHED = ("pos_bias.pos_bias", "freq_weights")

#: Part of our name → part of the released name, the first that fits from the left.
CODEC_NAMES = {
    "input_convolution": "input_conv",
    "output_convolution": "output_conv",
    "input_norm": "input_conv.2",
    "output_norm": "output_conv.2",
    "queries.vectors": "query",
    "queries.weights": "freq_weights",
    "queries.norm": "query_mlp.0",
    "queries.net.expand": "query_mlp.1.linear1",
    "queries.net.reduce": "query_mlp.1.linear2",
    "mixer.query_norm": "block.norm_attn_q",
    "mixer.token_norm": "block.norm_attn_kv",
    "mixer.query": "block.mixer.q_proj",
    "mixer.keys_values": "block.mixer.kv_proj",
    "mixer.bias.matrix": "block.mixer.pos_bias.pos_bias",
    "mixer.output": "block.mixer.aggregate_heads.0",
    "mixer.feed_forward_norm": "block.norm_ffn",
    "mixer.feed_forward.expand": "block.feed_forward.linear1",
    "mixer.feed_forward.reduce": "block.feed_forward.linear2",
}
BODY_NAMES = {
    "feed_forward_before": "ffn.1",
    "norm_before": "ffn_norm.1",
    "feed_forward_after": "ffn.0",
    "norm_after": "ffn_norm.0",
    "attention_norm": "attn_norm",
    "attention.queries_keys_values": "attn.qkv",
    "attention.output": "attn.aggregate_heads.0",
}


def separator(sizes: dict[str, Any]) -> LocoformerConfig:
    """TF-Locoformer blocks without positions."""
    feed_forward = (FeedForwardConfig(sizes["C"], sizes["K"]),) * 2
    return LocoformerConfig(
        num_blocks=sizes["n_layers"],
        dim=sizes["emb"],
        num_groups=sizes["groups"],
        num_heads=sizes["heads"],
        attention_dim=sizes["att"],
        freq_feed_forward=feed_forward,
        frame_feed_forward=feed_forward,
        positions=sizes["pe"],
    )


class Separator(nn.Module):
    """Entry, body and exit; masks over the spectrogram of every channel."""

    def __init__(
        self, codec: CompressionConfig, body: LocoformerConfig, num_channels: int, num_sources: int
    ) -> None:
        super().__init__()
        bands = musical_bands(44100, 2048, 64)
        self.codec = CompressionCodec(codec, body.dim, bands, num_channels, num_sources)
        self.body = LocoformerStack(body)

    def forward(self, spectrogram: Tensor) -> Tensor:
        features, context = self.codec.encode(spectrogram)
        masks = self.codec.decode(self.body(features), context)
        channels = spectrogram.shape[1] // 2
        complex_mask = torch.complex(masks[:, :, :channels], masks[:, :, channels:])
        mixture = torch.complex(spectrogram[:, :channels], spectrogram[:, channels:])
        return complex_mask * mixture.unsqueeze(1)


def released_name(name: str) -> str:
    """The name that the released code gives a tensor of ours."""
    whole, _, rest = name.partition(".")
    if whole == "codec":
        side, _, rest = rest.partition(".")
        ours, theirs = longest_fitting(rest, CODEC_NAMES)
        kind = rest.removeprefix(ours)
        if side == "encoder" and theirs in ("input_conv", "output_conv"):
            theirs += ".0"  # the convolution and its norm stand in one sequence
        return f"{side}.{theirs}{kind.replace('.gain', '.weight')}"
    _, block, path, rest = rest.split(".", 3)
    ours, theirs = longest_fitting(rest, BODY_NAMES)
    kind = rest.removeprefix(ours).replace(".gain", ".gamma")
    kind = kind.replace(".expand", ".conv1d").replace(".reduce", ".deconv1d")
    return f"blocks.{block}.{path}.{theirs}{kind}"


def longest_fitting(name: str, names: dict[str, str]) -> tuple[str, str]:
    ours = max((key for key in names if f"{name}.".startswith(f"{key}.")), key=len)
    return ours, names[ours]


@torch.no_grad()
def fill_by_rule(model: nn.Module) -> None:
    """Weights by the rule, under the released names."""
    ours = {released_name(name): tensor for name, tensor in model.named_parameters()}
    touched = {name: value for name, value in ours.items() if not name.endswith(UNTOUCHED)}
    for name, values in fill({name: tuple(each.shape) for name, each in touched.items()}).items():
        touched[name].copy_(values)


def golden_mixture(channels: int, frames: int, bins: int) -> Tensor:
    m = torch.arange(channels, dtype=torch.float64)[:, None, None]
    t = torch.arange(frames, dtype=torch.float64)[:, None]
    f = torch.arange(bins, dtype=torch.float64)
    real = torch.sin(0.11 * t + 0.05 * f + 0.5 * m)
    imaginary = torch.cos(0.03 * t - 0.08 * f + 0.5 * m)
    return torch.cat([real, imaginary]).float().unsqueeze(0)


def assert_is_golden(ours: Tensor, golden: dict[str, Any]) -> None:
    assert list(ours.shape) == golden["out_shape"]
    flat = (torch.view_as_real(ours) if ours.is_complex() else ours).flatten().double()
    middle = flat.numel() // 2
    assert float(flat.square().mean().sqrt()) == pytest.approx(golden["rms"], rel=1e-5)
    assert float(flat.abs().mean()) == pytest.approx(golden["mean_abs"], rel=1e-5)
    for ours_part, recorded in (
        (flat[:8], golden["first8"]),
        (flat[middle : middle + 4], golden["mid4"]),
        (flat[-4:], golden["last4"]),
    ):
        assert ours_part.tolist() == pytest.approx(recorded, abs=1e-5)


@pytest.mark.parametrize("queries", ["learnable", "adaptive"])
@torch.no_grad()
def test_golden_outputs(queries: str) -> None:
    whole, entry = GOLDEN[f"sfc_ca_tiny_{queries}"], GOLDEN[f"sfc_ca_tiny_encoder_{queries}"]
    sizes = whole["config"]
    codec = CompressionConfig(
        sizes["d_inner"], "musical", 64, queries=queries, num_heads=sizes["n_heads"]
    )
    model = Separator(codec, separator(sizes["sep"]), sizes["n_chan"], sizes["n_src"]).eval()
    fill_by_rule(model)
    assert sum(weight.numel() for weight in model.parameters()) == whole["params"]
    assert sum(weight.numel() for weight in model.codec.encoder.parameters()) == entry["params"]

    mixture = golden_mixture(channels=2, frames=7, bins=1025)
    assert_is_golden(model.codec.encode(mixture).features.permute(0, 3, 1, 2), entry)
    # recorded as batch source channel bin frame
    assert_is_golden(model(mixture).transpose(-1, -2).contiguous(), whole)


SMALL = {"n_layers": 4, "emb": 96, "groups": 4, "heads": 4, "att": 96, "C": 128, "K": 8}
MEDIUM = {"n_layers": 6, "emb": 128, "groups": 8, "heads": 8, "att": 128, "C": 192, "K": 8}


@pytest.mark.parametrize(
    ("mixer", "queries", "inner_dim", "sizes", "encoder", "decoder", "total"),
    [
        ("attention", "learnable", 64, SMALL, 365_888, 434_064, 5_821_392),
        ("attention", "learnable", 96, MEDIUM, 475_968, 578_256, 16_013_328),
        ("attention", "adaptive", 64, SMALL, 363_934, 393_424, 5_778_798),
        ("attention", "adaptive", 96, MEDIUM, 471_966, 535_728, 15_966_798),
        ("mamba", "adaptive", 32, SMALL, 67_294, 55_824, 5_144_558),
        ("mamba", "adaptive", 48, MEDIUM, 132_286, 110_032, 15_201_422),
    ],
)
def test_published_sizes_for_music_have_the_published_counts(
    mixer: str,
    queries: str,
    inner_dim: int,
    sizes: dict[str, Any],
    encoder: int,
    decoder: int,
    total: int,
) -> None:
    config = CompressionConfig(inner_dim, "musical", 64, mixer=mixer, queries=queries)
    with torch.device("meta"):
        model = Separator(config, separator(sizes | {"pe": "none"}), 2, 4)
    assert sum(weight.numel() for weight in model.codec.encoder.parameters()) == encoder
    assert sum(weight.numel() for weight in model.codec.decoder.parameters()) == decoder
    assert sum(weight.numel() for weight in model.parameters()) == total


@pytest.mark.parametrize(
    ("inner_dim", "sizes", "total"), [(64, SMALL, 5_814_470), (96, MEDIUM, 16_002_950)]
)
def test_published_sizes_for_films_have_the_published_counts(
    inner_dim: int, sizes: dict[str, Any], total: int
) -> None:
    config = CompressionConfig(inner_dim, "musical", 64)
    with torch.device("meta"):
        model = Separator(config, separator(sizes | {"pe": "none"}), 1, 3)
    assert sum(weight.numel() for weight in model.parameters()) == total


def test_released_names_of_the_tensors_are_all_there() -> None:
    config = CompressionConfig(8, "musical", 64, num_heads=2)
    model = Separator(config, separator(GOLDEN["sfc_ca_tiny_learnable"]["config"]["sep"]), 2, 3)
    names = {released_name(name): list(weight.shape) for name, weight in model.named_parameters()}
    for side, queries, tokens in (("encoder", 64, 1025), ("decoder", 1025, 64)):
        block = f"{side}.block."
        assert names[f"{side}.query"] == [queries, 8]
        assert names[f"{block}mixer.kv_proj.weight"] == [16, 8]
        assert names[f"{block}mixer.q_proj.weight"] == [8, 8]
        assert names[f"{block}mixer.aggregate_heads.0.weight"] == [8, 8]
        assert names[f"{block}mixer.pos_bias.pos_bias"][-3:] == [2, queries, tokens]
        for norm in ("norm_attn_kv", "norm_attn_q", "norm_ffn"):
            assert names[f"{block}{norm}.weight"] == [8]
        assert names[f"{block}feed_forward.linear1.weight"] == [32, 8]
        assert names[f"{block}feed_forward.linear2.weight"] == [8, 16]
    assert names["encoder.input_conv.0.weight"] == [8, 4, 3, 3]
    assert names["encoder.input_conv.2.weight"] == [8]
    assert names["encoder.output_conv.0.weight"] == [16, 8, 3, 3]
    assert names["encoder.output_conv.2.weight"] == [16]
    assert names["decoder.input_conv.weight"] == [16, 8, 3, 3]
    assert names["decoder.output_conv.weight"] == [8, 12, 3, 3]
    assert names["blocks.0.freq_path.ffn.0.conv1d.weight"] == [48, 16, 8]
    # both sides with the same names, but for the exit's convolutions, which have no norm
    assert len(names) == 2 * 18 - 2 + 2 * 13
