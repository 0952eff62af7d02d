"""Spectral feature compression, against its definition."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unbraid.config import dump, parse
from unbraid.dsp.bands import musical_bands
from unbraid.errors import ConfigError
from unbraid.models.architectures.tuss import ARCHITECTURE as TUSS
from unbraid.nn.band_split import BandSplitCodec, BandSplitConfig
from unbraid.nn.compression_mixers import (
    BandBias,
    BidirectionalMamba,
    CrossAttention,
    RmsNorm,
    distance_to_bands,
    query_order,
)
from unbraid.nn.feature_compression import (
    BandMeans,
    CompressionCodec,
    CompressionConfig,
    attention_weights,
)
from unbraid.nn.locoformer import FeedForwardConfig, LocoformerConfig, LocoformerStack

#: Three bands over eight bins: the first two overlap in bin 2.
TOY = ((0, 3), (2, 5), (5, 8))
#: By the formula, with the middles 1, 3, 6 and the divisor 2.
TOY_BIAS = torch.tensor(
    [
        [-0.5, 0.0, -0.5, -1.0, -2.0, -3.0, -4.0, -5.0],
        [-2.0, -1.0, -0.5, 0.0, -0.5, -1.0, -2.0, -3.0],
        [-5.0, -4.0, -3.0, -2.0, -1.0, -0.5, 0.0, -0.5],
    ]
)
TOY_INSIDE = TOY_BIAS > -1

BIASES = ["none", "zero-inside", "learnable", "learnable-slope", "fixed", "hard-mask"]
ALL_CODECS = [{"bias": bias} for bias in BIASES] + [
    {"queries": "adaptive"},
    {"mixer": "mamba"},
    {"mixer": "mamba", "queries": "adaptive"},
    {"mixer": "mamba", "query_place": "forward"},
    {"mixer": "mamba", "queries": "adaptive", "query_place": "backward"},
]


def toy_codec(num_channels: int = 1, num_sources: int = 1, **changes: Any) -> CompressionCodec:
    torch.manual_seed(0)
    # The table is given by hand; the config's own is not asked.
    config = CompressionConfig(8, "mel", 3, **{"num_heads": 2, **changes})
    return CompressionCodec(config, 6, TOY, num_channels, num_sources)


def toy_spectrogram(batch: int = 2, parts: int = 2, frames: int = 9) -> Tensor:
    return torch.randn(batch, parts, frames, 8, generator=torch.Generator().manual_seed(3))


def there_and_back(codec: CompressionCodec, spectrogram: Tensor) -> Tensor:
    features, context = codec.encode(spectrogram)
    return codec.decode(features, context)


# ---- what a query looks at to begin with


def test_the_bias_of_a_toy_table_by_hand() -> None:
    assert torch.equal(distance_to_bands(TOY), TOY_BIAS)


def test_the_exit_begins_with_the_bias_of_the_entry_transposed() -> None:
    codec = toy_codec()
    entry, exit_ = codec.encoder.mixer.bias.matrix, codec.decoder.mixer.bias.matrix
    assert torch.equal(entry, TOY_BIAS.expand(2, -1, -1))
    assert torch.equal(exit_, TOY_BIAS.T.expand(2, -1, -1))


@pytest.mark.parametrize(
    ("mode", "expected", "trained"),
    [
        ("learnable", TOY_BIAS, 48),
        ("zero-inside", torch.where(TOY_INSIDE, 0.0, TOY_BIAS), 48),
        ("fixed", TOY_BIAS, 0),
        ("learnable-slope", TOY_BIAS, 2),
        ("hard-mask", torch.where(TOY_INSIDE, 0.0, -torch.inf), 0),
    ],
)
def test_every_kind_of_bias_begins_as_it_should(mode: Any, expected: Tensor, trained: int) -> None:
    bias = BandBias(TOY, 2, mode)
    assert torch.equal(bias().expand(2, -1, -1), expected.expand(2, -1, -1))
    assert sum(weight.numel() for weight in bias.parameters()) == trained


def test_a_slope_scales_the_bias_of_its_head() -> None:
    bias = BandBias(TOY, 2, "learnable-slope")
    with torch.no_grad():
        bias.slope.copy_(torch.tensor([2.0, 0.5]).view(2, 1, 1))
    assert torch.equal(bias(), torch.stack([2 * TOY_BIAS, 0.5 * TOY_BIAS]))


def test_no_bias_is_none_at_all() -> None:
    assert BandBias(TOY, 2, "none")() is None


@torch.no_grad()
def test_a_bias_that_is_very_negative_outside_the_bands_is_a_hard_mask() -> None:
    learnt, masked = toy_codec(), toy_codec(bias="hard-mask")
    masked.load_state_dict(learnt.state_dict(), strict=False)
    spectrogram = toy_spectrogram()
    for side in (learnt.encoder, learnt.decoder):
        bias = side.mixer.bias.matrix
        inside = TOY_INSIDE if bias.shape[1] == 3 else TOY_INSIDE.T
        bias.copy_(torch.where(inside, 0.0, -1e4))
    torch.testing.assert_close(
        there_and_back(learnt, spectrogram), there_and_back(masked, spectrogram)
    )


# ---- attention


@torch.no_grad()
def test_attention_equals_its_definition() -> None:
    torch.manual_seed(0)
    net = CrossAttention(8, 2, BandBias(TOY, 2, "learnable"))
    net.query_norm.gain.uniform_(0.5, 1.5)
    net.token_norm.gain.uniform_(0.5, 1.5)
    net.feed_forward_norm.gain.uniform_(0.5, 1.5)
    net.bias.matrix.normal_()
    queries, tokens = torch.randn(1, 3, 8), torch.randn(4, 8, 8)

    def norm(features: Tensor, gain: Tensor) -> Tensor:
        return features / (features.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain

    asking = norm(queries, net.query_norm.gain) @ net.query.weight.T
    telling = norm(tokens, net.token_norm.gain) @ net.keys_values.weight.T
    heads = []
    for head in range(2):
        own = asking[..., 4 * head : 4 * head + 4]
        keys = telling[..., 8 * head : 8 * head + 4]
        values = telling[..., 8 * head + 4 : 8 * head + 8]
        scores = own @ keys.transpose(1, 2) / 2 + net.bias.matrix[head]
        heads.append(scores.softmax(-1) @ values)
    attended = torch.cat(heads, dim=-1) @ net.output.weight.T
    normed = norm(attended, net.feed_forward_norm.gain)
    hidden = normed @ net.feed_forward.expand.weight.T + net.feed_forward.expand.bias
    hidden = hidden[..., :16] * nn.functional.silu(hidden[..., 16:])
    expected = attended + hidden @ net.feed_forward.reduce.weight.T + net.feed_forward.reduce.bias
    gathered, handed_on = net(queries, tokens)
    torch.testing.assert_close(gathered, expected, atol=1e-5, rtol=1e-5)
    assert handed_on is None


def test_the_root_mean_square_has_its_eps_inside_the_root() -> None:
    norm = RmsNorm(4, eps=0.5)
    features = torch.tensor([[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(norm(features), features / math.sqrt(1.5))


@pytest.mark.parametrize("queries", ["learnable", "adaptive"])
def test_training_and_separating_take_ways_that_agree(queries: str) -> None:
    codec = toy_codec(queries=queries)
    spectrogram = toy_spectrogram(frames=21)  # more than are computed together in separation
    training = there_and_back(codec, spectrogram)
    assert training.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(there_and_back(codec, spectrogram), training)


# ---- adaptive queries


def test_a_band_mean_by_hand() -> None:
    means = BandMeans(((0, 2), (1, 3)))
    tokens = torch.tensor([[[1.0, 10.0], [3.0, 30.0], [5.0, 50.0]]])
    torch.testing.assert_close(means(tokens), torch.tensor([[[2.0, 20.0], [4.0, 40.0]]]))
    with torch.no_grad():
        means.weights.copy_(torch.tensor([3.0, 1.0, 0.0, 7.0]))  # bins 0 and 1, bins 1 and 2
    torch.testing.assert_close(means(tokens), torch.tensor([[[1.5, 15.0], [5.0, 50.0]]]))


def test_weights_of_a_band_that_sum_to_nothing_give_finite_queries() -> None:
    means = BandMeans(((0, 2), (1, 3)))
    with torch.no_grad():
        means.weights.zero_()
    assert torch.equal(means(torch.randn(1, 3, 2)), torch.zeros(1, 2, 2))


def test_learnable_queries_leave_no_context_and_adaptive_ones_need_it() -> None:
    assert toy_codec().encode(toy_spectrogram()).context is None
    codec = toy_codec(queries="adaptive")
    features, context = codec.encode(toy_spectrogram())
    assert context.shape == (2, 9, 8, 8)
    changed = codec.decode(features, context.flip(2))
    assert (changed - codec.decode(features, context)).abs().max() > 1e-3
    # Mamba hands on both of its directions.
    assert toy_codec(mixer="mamba", queries="adaptive").encode(toy_spectrogram()).context.shape == (
        2,
        9,
        8,
        16,
    )


# ---- Mamba


def test_queries_stand_where_they_should() -> None:
    # bins 0 to 7, queries 8 to 10
    assert query_order(TOY, "middle") == [0, 8, 1, 2, 9, 3, 4, 5, 10, 6, 7]
    assert query_order(TOY, "forward") == [0, 1, 2, 8, 3, 4, 9, 5, 6, 7, 10]
    assert query_order(TOY, "backward") == [8, 0, 1, 9, 2, 3, 4, 10, 5, 6, 7]


@pytest.mark.parametrize("place", ["middle", "forward", "backward"])
@pytest.mark.parametrize(
    ("bands", "num_bands"),
    [("bs-roformer", None), *itertools.product(["musical", "mel", "bark", "erb"], [32, 48, 64])],
)
def test_the_order_of_every_table_is_a_permutation(
    bands: Any, num_bands: int | None, place: Any
) -> None:
    table = CompressionConfig(8, bands, num_bands).band_table(44100, 2048)
    order = query_order(table, place)
    assert sorted(order) == list(range(1025 + len(table)))
    assert [member for member in order if member < 1025] == list(range(1025))
    before = {"middle": lambda s, e: (s + e) // 2, "forward": lambda s, e: e, "backward": min}
    for band, (start, end) in enumerate(table):
        assert order.index(1025 + band) == before[place](start, end) + band


@torch.no_grad()
def test_both_directions_of_mamba_are_alike() -> None:
    torch.manual_seed(0)
    order = query_order(TOY, "middle")
    net, mirrored = BidirectionalMamba(8, order), BidirectionalMamba(8, order[::-1])
    # Turned round in its line and its directions exchanged, it is the same net.
    directions = {"forward": "backward", "backward": "forward"}
    exchanged = {
        f"{directions[name.split('_')[0]]}_{name.split('_', 1)[1]}": weight
        for name, weight in net.state_dict().items()
    }
    mirrored.load_state_dict(exchanged)
    queries, tokens = torch.randn(2, 3, 8), torch.randn(2, 8, 8)
    for ours, theirs in zip(net(queries, tokens), mirrored(queries, tokens), strict=True):
        torch.testing.assert_close(ours, theirs.roll(8, dims=-1))


@torch.no_grad()
def test_a_query_hears_one_direction_in_each_half() -> None:
    torch.manual_seed(0)
    net = BidirectionalMamba(8, query_order(TOY, "middle"))
    queries, tokens = torch.randn(1, 3, 8), torch.randn(1, 8, 8)
    changed = tokens.clone()
    changed[:, 3] += 1.0  # behind the query of the second band
    at_queries, at_tokens = (
        (new - old).abs().unflatten(-1, (2, 8)).amax(-1)[0] > 0
        for new, old in zip(net(queries, changed), net(queries, tokens), strict=True)
    )
    assert at_queries.tolist() == [[False, True], [False, True], [True, False]]
    assert at_tokens.tolist() == [[False, True]] * 3 + [[True, True]] + [[True, False]] * 4


@torch.no_grad()
def test_bands_and_bins_change_their_parts_in_the_exit() -> None:
    torch.manual_seed(0)
    entry = BidirectionalMamba(8, query_order(TOY, "middle"))
    exit_ = BidirectionalMamba(8, query_order(TOY, "middle"), bins_ask=True)
    exit_.load_state_dict(entry.state_dict())
    bands, bins = torch.randn(1, 3, 8), torch.randn(1, 8, 8)
    at_bands, at_bins = entry(bands, bins)
    torch.testing.assert_close(exit_(bins, bands), (at_bins, at_bands))


# ---- the codec


@pytest.mark.parametrize("changes", ALL_CODECS)
def test_shapes_of_every_kind(changes: dict[str, Any]) -> None:
    codec = toy_codec(num_channels=2, num_sources=3, **changes)
    features, context = codec.encode(toy_spectrogram(parts=4))
    assert features.shape == (2, 9, 3, 6)
    assert codec.decode(features, context).shape == (2, 3, 4, 9, 8)


@pytest.mark.parametrize("changes", ALL_CODECS)
def test_every_weight_gets_a_gradient(changes: dict[str, Any]) -> None:
    codec = toy_codec(**changes)
    there_and_back(codec, toy_spectrogram()).square().sum().backward()
    assert [
        name
        for name, weight in codec.named_parameters()
        if weight.grad is None or not weight.grad.any() or not weight.grad.isfinite().all()
    ] == []


@pytest.mark.parametrize("changes", [{}, {"queries": "adaptive"}, {"mixer": "mamba"}])
@torch.no_grad()
def test_frames_meet_in_the_convolutions_alone(changes: dict[str, Any]) -> None:
    codec = toy_codec(**changes)
    spectrogram = toy_spectrogram(batch=1)
    changed = spectrogram.clone()
    changed[:, :, 4] += 1.0
    before, after = codec.encode(spectrogram), codec.encode(changed)
    difference = (after.features - before.features).abs().amax(dim=(0, 2, 3))
    assert (difference > 0).tolist() == [False] * 2 + [True] * 5 + [False] * 2
    features = before.features.clone()
    features[:, 4] += 1.0
    masks = codec.decode(features, before.context) - codec.decode(before.features, before.context)
    assert (masks.abs().amax(dim=(0, 1, 2, 4)) > 0).tolist() == (
        [False] * 2 + [True] * 5 + [False] * 2
    )


@torch.no_grad()
def test_items_of_a_batch_do_not_see_each_other() -> None:
    codec = toy_codec(queries="adaptive")
    spectrogram = toy_spectrogram()
    alone = there_and_back(codec, spectrogram[1:])
    torch.testing.assert_close(there_and_back(codec, spectrogram)[1:], alone)


@torch.no_grad()
def test_parts_of_the_masks_are_in_their_order() -> None:
    codec = toy_codec(num_channels=2, num_sources=3)
    codec.decoder.output_convolution.weight.zero_()
    # channels: part, source, channel of the recording
    codec.decoder.output_convolution.bias.copy_(torch.arange(12.0))
    masks = there_and_back(codec, toy_spectrogram(1, 4))[0, :, :, 0, 0]
    # a row per source: real parts of both channels, imaginary parts of both channels
    assert masks.tolist() == [[0.0, 1.0, 6.0, 7.0], [2.0, 3.0, 8.0, 9.0], [4.0, 5.0, 10.0, 11.0]]


@pytest.mark.parametrize("changes", [{}, {"mixer": "mamba", "queries": "adaptive"}])
def test_silence_gives_finite_numbers_and_gradients(changes: dict[str, Any]) -> None:
    codec = toy_codec(**changes)
    masks = there_and_back(codec, torch.zeros(1, 2, 4, 8))
    masks.square().sum().backward()
    assert masks.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in codec.parameters())


@pytest.mark.parametrize("changes", ALL_CODECS)
def test_half_precision_gives_masks_in_float32_that_are_near(changes: dict[str, Any]) -> None:
    codec = toy_codec(**changes)
    exact = there_and_back(codec, toy_spectrogram())
    with torch.autocast("cpu", torch.bfloat16):
        rough = there_and_back(codec, toy_spectrogram())
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("changes", ALL_CODECS)
@torch.no_grad()
def test_a_sketch_that_gets_its_weights_later_is_whole(changes: dict[str, Any]) -> None:
    codec = toy_codec(**changes)
    with torch.device("meta"):
        sketch = toy_codec(**changes)
    sketch.load_state_dict(codec.state_dict(), assign=True)
    spectrogram = toy_spectrogram()
    assert torch.equal(there_and_back(sketch, spectrogram), there_and_back(codec, spectrogram))


@pytest.mark.parametrize(
    "changes",
    [{}, {"queries": "adaptive"}, {"mixer": "mamba"}, {"mixer": "mamba", "queries": "adaptive"}],
)
@torch.no_grad()
def test_a_codec_can_be_exported(changes: dict[str, Any]) -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.codec = toy_codec(**changes)

        def forward(self, spectrogram: Tensor) -> Tensor:
            return there_and_back(self.codec, spectrogram)

    whole, spectrogram = Whole().eval(), toy_spectrogram()
    frames = torch.export.Dim("frames", min=2, max=1000)
    shapes = {"spectrogram": {2: frames}}
    exported = torch.export.export(whole, (spectrogram,), dynamic_shapes=shapes).module()
    longer = toy_spectrogram(frames=13)
    torch.testing.assert_close(exported(longer), whole(longer))


# ---- looking inside


@torch.no_grad()
def test_without_content_a_query_looks_where_its_bias_says() -> None:
    codec = toy_codec()
    for side in (codec.encoder, codec.decoder):
        side.mixer.query.weight.zero_()
    entry, exit_ = attention_weights(codec, lambda: there_and_back(codec, toy_spectrogram()))
    torch.testing.assert_close(entry, TOY_BIAS.softmax(-1).expand(2, -1, -1))
    torch.testing.assert_close(exit_, TOY_BIAS.T.softmax(-1).expand(2, -1, -1))


@torch.no_grad()
def test_what_is_looked_at_is_what_is_gathered() -> None:
    codec = toy_codec(queries="adaptive")
    # More frames than are looked at together, in two runs, one of which has two items.
    runs = [toy_spectrogram(2, frames=30), toy_spectrogram(1, frames=5)]
    gathered: list[Tensor] = []
    mixer = codec.encoder.mixer

    def keep(_module: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
        asking, keys, _ = mixer.heads(*inputs)
        gathered.append((asking @ keys.transpose(2, 3) / 2 + mixer.bias()).softmax(-1))

    with mixer.register_forward_pre_hook(keep):
        weights = attention_weights(codec, lambda: [there_and_back(codec, run) for run in runs])
    torch.testing.assert_close(weights.encoder, torch.cat(gathered).mean(0))
    torch.testing.assert_close(weights.decoder.sum(-1), torch.ones(2, 8))


def test_what_cannot_be_looked_at_is_refused() -> None:
    with pytest.raises(ConfigError, match="no attention"):
        attention_weights(toy_codec(mixer="mamba"), lambda: None)
    with pytest.raises(ConfigError, match="nothing went through"):
        attention_weights(toy_codec(), lambda: None)


# ---- configs and sizes


def test_configs_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_bands"):
        CompressionConfig(8, "musical")
    with pytest.raises(ConfigError, match="num_bands"):
        CompressionConfig(8, "bs-roformer", 61)
    with pytest.raises(ConfigError, match="must divide"):
        CompressionConfig(6)
    with pytest.raises(ConfigError, match="bias belongs to mixer: attention"):
        CompressionConfig(8, mixer="mamba", bias="fixed")
    with pytest.raises(ConfigError, match="query_place belongs to mixer: mamba"):
        CompressionConfig(8, query_place="forward")


def test_a_config_is_told_from_that_of_the_band_split() -> None:
    @dataclass(frozen=True)
    class Network:
        codec: BandSplitConfig | CompressionConfig

    for config in (
        BandSplitConfig("mel", 24),
        CompressionConfig(64),
        CompressionConfig(64, "mel", 24),
        CompressionConfig(64, "musical", 64, queries="adaptive", bias="hard-mask"),
    ):
        assert parse(Network, dump(Network(config))) == Network(config)


def test_the_tables_of_the_config() -> None:
    assert CompressionConfig(64).band_table(48000, 2048)[:2] == ((0, 2), (2, 4))
    assert len(CompressionConfig(64).band_table(48000, 2048)) == 61
    musical = CompressionConfig(64, "musical", 64).band_table(44100, 2048)
    assert musical == musical_bands(44100, 2048, 64)


def test_tuss_medium_is_half_as_large_with_compression() -> None:
    preset = TUSS.presets["medium"]
    dim = preset.cross_prompt.dim
    widths = BandSplitConfig().band_widths(48000, 2048)
    config = CompressionConfig(64)
    with torch.device("meta"):
        split = BandSplitCodec(BandSplitConfig(), dim, widths)
        compressed = CompressionCodec(config, dim, config.band_table(48000, 2048))
    sizes = [sum(weight.numel() for weight in codec.parameters()) for codec in (split, compressed)]
    whole = 11_132_352
    assert round((whole - sizes[0] + sizes[1]) / 1e6, 2) == 5.63


# ---- learning


def two_sources(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Spectrograms of two sources: harmonics that slide slowly, and hiss that comes and goes."""
    frames, bins = 12, 65
    pitch = 4 + 8 * torch.rand(batch, 1, 1, generator=generator)
    slide = torch.rand(batch, 1, 1, generator=generator) - 0.5
    at_frame = pitch * (1 + 0.2 * slide * torch.linspace(-1, 1, frames)[:, None])
    nearness = torch.cos(2 * torch.pi * torch.arange(bins) / at_frame)
    tones = torch.exp(4 * (nearness - 1)) * torch.exp(-torch.arange(bins) / 30)
    phases = 2 * torch.pi * torch.rand(batch, 2, frames, bins, generator=generator)
    loud = (torch.rand(batch, frames, 1, generator=generator) < 0.5).float()
    hiss = 0.5 * loud * torch.rand(batch, frames, bins, generator=generator)
    magnitudes = torch.stack([2 * tones, hiss], dim=1)
    sources = torch.stack([magnitudes * phases.cos(), magnitudes * phases.sin()], dim=2)
    return sources.sum(dim=1), sources


def learnt_losses(codec: BandSplitCodec | CompressionCodec, steps: int) -> list[float]:
    """Squared error of every step of a short training, in dB relative to the sources."""
    torch.manual_seed(5)
    feed_forward = (FeedForwardConfig(16, 4),)
    body = LocoformerStack(
        LocoformerConfig(1, 16, 4, 4, 16, feed_forward, feed_forward, positions="none")
    )
    weights = [*codec.parameters(), *body.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        mixture, sources = two_sources(8, generator)
        features, context = codec.encode(mixture)
        real, imaginary = codec.decode(body(features), context).unbind(2)
        x, y = mixture.unsqueeze(1).unbind(2)
        estimates = torch.stack([real * x - imaginary * y, real * y + imaginary * x], dim=2)
        loss = (estimates - sources).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 5.0)
        optimiser.step()
        losses.append(10 * math.log10(float(loss.detach() / sources.square().mean())))
    return losses


def toy_compression() -> CompressionCodec:
    torch.manual_seed(0)
    config = CompressionConfig(16, "musical", 8)
    return CompressionCodec(config, 16, config.band_table(8000, 128), num_sources=2)


def test_compression_learns() -> None:
    losses = learnt_losses(toy_compression(), 60)
    # Half the mixture for each source would be -3 dB: less than half of that is left.
    assert losses[0] > -1
    assert sum(losses[-10:]) / 10 < -5.5


@pytest.mark.slow
def test_compression_learns_a_toy_no_worse_than_the_band_split() -> None:
    """It learns more slowly at first, and passes the band split after about 1000 steps."""
    torch.manual_seed(0)
    config = BandSplitConfig("mel", 8)
    split = BandSplitCodec(config, 16, config.band_widths(8000, 128), num_sources=2)
    compressed = toy_compression()
    sizes = [sum(weight.numel() for weight in codec.parameters()) for codec in (compressed, split)]
    assert sizes[0] < sizes[1] / 4
    ours, theirs = (sum(learnt_losses(codec, 1600)[-200:]) / 200 for codec in (compressed, split))
    print(f"compression {ours:.2f} dB, band split {theirs:.2f} dB")
    assert ours < theirs + 0.1
