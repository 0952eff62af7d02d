"""TF-Locoformer with each of its codecs: what is peculiar to separators with fixed outputs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unbraid.config import dump, parse
from unbraid.dsp.stft import StftConfig
from unbraid.errors import ConfigError
from unbraid.models.architectures.tf_locoformer import ARCHITECTURE, TfLocoformerConfig
from unbraid.models.base import SpectralModel
from unbraid.models.inference import for_inference
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.nn.band_split import BandSplitConfig
from unbraid.nn.convolutional import ConvolutionalCodec, ConvolutionalConfig
from unbraid.nn.fast_locoformer import FastLocoformerStack
from unbraid.nn.feature_compression import CompressionConfig
from unbraid.nn.locoformer import FeedForwardConfig, LocoformerConfig, LocoformerStack
from unbraid.objectives.measures import si_sdr_db

STFT = StftConfig(64, 32, "hann", "reflect")

STACK: dict[str, Any] = {
    "num_blocks": 1,
    "dim": 8,
    "num_groups": 2,
    "num_heads": 2,
    "attention_dim": 8,
    "freq_feed_forward": [{"hidden_dim": 6, "kernel_size": 3}] * 2,
    "frame_feed_forward": [{"hidden_dim": 6, "kernel_size": 3}] * 2,
}

CODECS: dict[str, dict[str, Any]] = {
    "convolutional": {},
    "band-split": {"bands": "mel", "num_bands": 6},
    "compression": {"inner_dim": 8, "bands": "musical", "num_bands": 6, "num_heads": 2},
    "adaptive": {
        "inner_dim": 8, "bands": "musical", "num_bands": 6, "num_heads": 2, "queries": "adaptive",
    },
}  # fmt: skip


def build(codec: str, num_outputs: int = 3, num_channels: int = 1, seed: int = 0) -> SpectralModel:
    data = {
        "codec": CODECS[codec],
        "stack": STACK,
        "num_outputs": num_outputs,
        "num_channels": num_channels,
    }
    torch.manual_seed(seed)
    return ARCHITECTURE.build(parse(TfLocoformerConfig, data), 8000, STFT).eval()


def spectrogram(batch: int = 2, channels: int = 1, frames: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, 2 * channels, frames, STFT.num_bins, generator=generator)


@torch.no_grad()
def run(network: SpectralModel, mixture: Tensor, num_queries: int = 1) -> Tensor:
    return network(mixture, torch.empty(len(mixture), num_queries, 0))


# ------------------------------------------------------------------ published sizes


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("small", 5_031_036),
        ("medium", 14_975_652),
        ("large", 22_459_812),
        ("small-reverberant", 5_026_940),
        ("small-reverberant-released", 5_125_252),
        ("medium-reverberant", 14_966_436),
        ("medium-enhancement", 14_973_346),
        ("sfc-small", 5_821_392),
        ("sfc-medium", 16_013_328),
        ("sfc-small-dnr", 5_814_470),
        ("sfc-medium-dnr", 16_002_950),
        ("sfc-mamba-small", 5_144_558),
        ("sfc-mamba-medium", 15_201_422),
    ],
)
def test_published_sizes_have_the_published_counts(preset: str, count: int) -> None:
    config = ARCHITECTURE.presets[preset]
    with torch.device("meta"):
        network = ARCHITECTURE.build(config, 44100, StftConfig())
    assert sum(weight.numel() for weight in network.parameters()) == count


def test_every_preset_has_its_count() -> None:
    counted = test_published_sizes_have_the_published_counts.pytestmark[0].args[1]
    assert {preset for preset, _ in counted} == set(ARCHITECTURE.presets)


# ------------------------------------------------------------------ outputs and queries


@pytest.mark.parametrize("codec", CODECS)
def test_all_outputs_come_whatever_was_asked(codec: str) -> None:
    network = build(codec)
    mixture = spectrogram()
    outputs = run(network, mixture)
    assert outputs.shape == (2, 3, 2, 9, STFT.num_bins)
    assert torch.equal(run(network, mixture, num_queries=2), outputs)
    first, second, third = outputs.unbind(1)
    assert not torch.allclose(first, second, atol=1e-4)
    assert not torch.allclose(second, third, atol=1e-4)


@pytest.mark.parametrize("codec", CODECS)
def test_masks_leave_empty_bins_empty_and_mapped_spectra_fill_them(codec: str) -> None:
    mixture = spectrogram()
    mixture[..., 10] = 0.0
    is_empty = not run(build(codec), mixture)[..., 10].any()
    assert is_empty == (codec != "convolutional")


@pytest.mark.parametrize("codec", ["convolutional", "compression", "adaptive"])
def test_channels_are_heard_together(codec: str) -> None:
    network = build(codec, num_channels=2)
    mixture = spectrogram(channels=2)
    outputs = run(network, mixture)
    assert outputs.shape == (2, 3, 4, 9, STFT.num_bins)
    changed = mixture.clone()
    changed[:, 1] += 1.0  # the real part of the second channel
    first_channel = run(network, changed)[:, :, [0, 2]] - outputs[:, :, [0, 2]]
    assert first_channel.abs().max() > 1e-4


@pytest.mark.parametrize("codec", ["compression", "adaptive"])
def test_every_channel_is_masked_by_itself(codec: str) -> None:
    network = build(codec, num_channels=2)
    mixture = spectrogram(channels=2)
    mixture[:, [1, 3]] = 0.0  # the second channel, real and imaginary part
    outputs = run(network, mixture)
    assert not outputs[:, :, [1, 3]].any()
    assert outputs[:, :, [0, 2]].abs().min() > 0


def test_the_band_split_codec_hears_one_channel() -> None:
    with pytest.raises(ConfigError, match="hears one channel, not 2"):
        build("band-split", num_channels=2)


@pytest.mark.parametrize("numbers", [{"num_outputs": 0}, {"num_channels": 0}])
def test_there_is_at_least_one_of_each(numbers: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        build("convolutional", **numbers)


@pytest.mark.parametrize("codec", CODECS)
def test_silence_gives_finite_outputs_and_gradients(codec: str) -> None:
    network = build(codec)
    outputs = network(torch.zeros(1, 2, 4, STFT.num_bins), torch.empty(1, 1, 0))
    outputs.square().sum().backward()
    assert torch.isfinite(outputs).all()
    assert all(
        weight.grad is None or torch.isfinite(weight.grad).all() for weight in network.parameters()
    )


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({}, ConvolutionalConfig),
        ({"kernel_size": 5}, ConvolutionalConfig),
        ({"bands": "bs-roformer"}, BandSplitConfig),
        ({"bands": "mel", "num_bands": 40}, BandSplitConfig),
        ({"inner_dim": 16}, CompressionConfig),
        ({"inner_dim": 16, "bands": "mel", "num_bands": 40}, CompressionConfig),
    ],
)
def test_codecs_are_told_apart_by_their_keys(data: dict[str, Any], kind: type) -> None:
    config = parse(TfLocoformerConfig, {"codec": data, "stack": STACK, "num_outputs": 2})
    assert type(config.codec) is kind
    assert parse(TfLocoformerConfig, dump(config)) == config


def test_keys_of_two_codecs_do_not_mix() -> None:
    data = {"codec": {"kernel_size": 3, "bands": "mel"}, "stack": STACK, "num_outputs": 2}
    with pytest.raises(ConfigError, match="unknown key"):
        parse(TfLocoformerConfig, data)


# ------------------------------------------------------------------ the convolutional codec


def test_the_entry_is_a_convolution_and_a_norm_over_everything() -> None:
    codec = ConvolutionalCodec(ConvolutionalConfig(norm_eps=0.1), 5, num_sources=2)
    torch.nn.init.normal_(codec.norm.gain)
    torch.nn.init.normal_(codec.norm.bias)
    mixture = spectrogram(1)
    features, context = codec.encode(mixture)
    assert context is None
    padded = torch.nn.functional.pad(mixture[0], (1, 1, 1, 1))
    expected = torch.zeros(5, 9, STFT.num_bins) + codec.expand.bias[:, None, None]
    for row in range(3):
        for column in range(3):
            shifted = padded[:, row : row + 9, column : column + STFT.num_bins]
            kernel = codec.expand.weight[:, :, row, column]
            expected = expected + torch.einsum("op,ptf->otf", kernel, shifted)
    expected = (expected - expected.mean()) / (expected.var(unbiased=False) + 0.1).sqrt()
    expected = expected * codec.norm.gain[:, None, None] + codec.norm.bias[:, None, None]
    torch.testing.assert_close(features[0], expected.permute(1, 2, 0), atol=1e-5, rtol=1e-4)


def test_an_impulse_of_the_features_becomes_the_kernel_of_the_exit() -> None:
    codec = ConvolutionalCodec(ConvolutionalConfig(), 4, num_sources=3, num_channels=2)
    torch.nn.init.zeros_(codec.reduce.bias)
    features = torch.zeros(1, 5, 7, 4)
    features[0, 2, 3, 1] = 1.0
    spectra = codec.decode(features)
    assert spectra.shape == (1, 3, 4, 5, 7)
    # Channels of the kernel: source by source, in each of them the parts.
    kernel = codec.reduce.weight[1].unflatten(0, (3, 4))
    torch.testing.assert_close(spectra[0, :, :, 1:4, 2:5], kernel)
    spectra[0, :, :, 1:4, 2:5] = 0.0
    assert not spectra.any()


def test_entry_and_exit_are_exact_under_autocast() -> None:
    codec = ConvolutionalCodec(ConvolutionalConfig(), 8, num_sources=2)
    mixture = spectrogram()
    with torch.no_grad():
        exact = codec.decode(codec.encode(mixture).features)
        with torch.autocast("cpu", torch.bfloat16):
            features = codec.encode(mixture).features
            same = codec.decode(features)
            assert torch.mm(mixture[0, 0], mixture[0, 0].T).dtype == torch.bfloat16
            from_half = codec.decode(features.bfloat16())
    assert same.dtype == from_half.dtype == torch.float32
    assert torch.equal(same, exact)
    torch.testing.assert_close(from_half, exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("size", [0, 2, -1])
def test_kernels_have_a_middle(size: int) -> None:
    with pytest.raises(ConfigError, match="odd and positive"):
        ConvolutionalConfig(kernel_size=size)


# ------------------------------------------------------------------ layer normalisation


def layer_stack(kernel: int, stride: int = 1) -> LocoformerStack:
    nets = (FeedForwardConfig(10, kernel, stride),) * 2
    config = LocoformerConfig(
        num_blocks=2, dim=12, num_groups=5, num_heads=2, attention_dim=8,
        freq_feed_forward=nets, frame_feed_forward=nets, norm="layer", norm_eps=1e-3,
    )  # fmt: skip
    torch.manual_seed(kernel)
    stack = LocoformerStack(config).eval()
    with torch.no_grad():
        for name, parameter in stack.named_parameters():
            if "norm" in name:
                parameter += 0.5 * torch.randn_like(parameter)
    return stack


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 1), (4, 1), (5, 1), (8, 1), (4, 2)])
def test_stacks_with_layer_norms_take_the_fast_path_too(kernel: int, stride: int) -> None:
    stack = layer_stack(kernel, stride)
    features = torch.randn(2, 11, 7, 12)
    with torch.no_grad():
        expected = stack(features)
        difference = FastLocoformerStack(stack)(features) - expected
    assert difference.norm() / expected.norm() < 1e-5


def test_a_stack_with_layer_norms_sees_no_level_and_no_offset() -> None:
    path = layer_stack(3).blocks[0].get_submodule("freq_path")
    norm = path.get_submodule("attention_norm")
    features = torch.randn(1, 2, 6, 12)
    torch.testing.assert_close(
        norm(40.0 * features + 7.0), norm(40.0 * features), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(norm(400.0 * features), norm(40.0 * features), atol=1e-3, rtol=0)
    normed = (norm(40.0 * features) - norm.bias) / norm.weight
    torch.testing.assert_close(normed.mean(-1), torch.zeros(1, 2, 6), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        normed.var(-1, unbiased=False), torch.ones(1, 2, 6), atol=1e-2, rtol=0
    )


# ------------------------------------------------------------------ whole models


def two_speakers(codec: str) -> WaveformModel:
    network = {"codec": CODECS[codec], "stack": STACK, "num_outputs": 2}
    torch.manual_seed(0)
    outputs = ("speech", "speech")
    return build_model(ModelConfig("tf_locoformer", 8000, STFT, network, outputs=outputs)).eval()


@pytest.mark.parametrize("codec", CODECS)
def test_the_twin_for_inference_separates_alike(codec: str) -> None:
    model = two_speakers(codec)
    mixture = torch.randn(2, 3001)
    prompts = torch.zeros(2, 2, dtype=torch.int64)
    with torch.inference_mode():
        ours, fast = model(mixture, prompts), for_inference(model)(mixture, prompts)
    assert ours.shape == (2, 2, 3001)
    assert (ours[:, 0] - ours[:, 1]).abs().max() > 1e-4
    assert float((fast - ours).norm() / ours.norm()) < 1e-5


def _voices() -> Tensor:
    """Four pairs of warbling harmonic tones, each in a rhythm of its own."""
    time = torch.arange(6000) / 8000
    pairs = []
    for number in range(4):
        voices = []
        for voice, pitch in enumerate((110 + 13 * number, 210 + 17 * number)):
            phase = 6.283 * pitch * time + 2 * torch.sin(6.283 * (2 + number + voice) * time)
            tone = sum(torch.sin(harmonic * phase) / harmonic for harmonic in range(1, 6))
            rhythm = 0.6 + 0.4 * torch.sin(6.283 * (1.3 + number + 2 * voice) * time)
            voices.append(tone * rhythm)
        pairs.append(torch.stack(voices))
    return torch.stack(pairs)


def _better_order_db(estimates: Tensor, references: Tensor) -> Tensor:
    straight = si_sdr_db(estimates, references).mean(dim=1)
    crossed = si_sdr_db(estimates.flip(1), references).mean(dim=1)
    return torch.maximum(straight, crossed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "dim"),
    [({}, 16), ({"inner_dim": 16, "bands": "musical", "num_bands": 24}, 24)],
    ids=["convolutional", "compression"],
)
def test_four_mixtures_are_learnt_by_heart(codec: dict[str, Any], dim: int) -> None:
    nets = [{"hidden_dim": 2 * dim, "kernel_size": 4}] * 2
    stack = {
        "num_blocks": 1, "dim": dim, "num_groups": 4, "num_heads": 4, "attention_dim": dim,
        "freq_feed_forward": nets, "frame_feed_forward": nets,
    }  # fmt: skip
    config = ModelConfig(
        "tf_locoformer",
        8000,
        StftConfig(256, 128, "hann", "reflect"),
        {"codec": codec, "stack": stack, "num_outputs": 2},
        outputs=("speech", "speech"),
    )
    torch.manual_seed(0)
    model = build_model(config)
    references = _voices()
    mixtures, prompts = references.sum(dim=1), torch.zeros(4, 2, dtype=torch.int64)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(200):
        loss = -_better_order_db(model(mixtures, prompts), references).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
    with torch.inference_mode():
        learnt = _better_order_db(model.eval()(mixtures, prompts), references)
    # The mixture itself has 0 dB.
    assert learnt.mean() > 15
