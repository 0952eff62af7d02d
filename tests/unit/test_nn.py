"""The blocks of the networks, against their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unbraid.errors import ConfigError
from unbraid.nn.attention import SelfAttention
from unbraid.nn.band_split import BandSplitCodec, BandSplitConfig
from unbraid.nn.conv_swiglu import ConvSwiGlu
from unbraid.nn.locoformer import FeedForwardConfig, LocoformerConfig, LocoformerStack
from unbraid.nn.norms import BatchNorm, RmsGroupNorm
from unbraid.nn.rotary import Rotary, rotate


def small_stack(**changes: object) -> LocoformerConfig:
    settings_ = {
        "num_blocks": 1,
        "dim": 8,
        "num_groups": 2,
        "num_heads": 2,
        "attention_dim": 8,
        "freq_feed_forward": (FeedForwardConfig(8, 4),) * 2,
        "frame_feed_forward": (FeedForwardConfig(8, 4),) * 2,
        **changes,
    }
    return LocoformerConfig(**settings_)


def test_one_group_is_rms_norm_with_eps_outside_the_root() -> None:
    features = torch.randn(2, 3, 4, 8)
    norm = RmsGroupNorm(8, 1, eps=0.1)
    root = features.square().mean(dim=-1, keepdim=True).sqrt()
    torch.testing.assert_close(norm(features), features / (root + 0.1))


def test_scaling_one_group_changes_nothing() -> None:
    features = torch.randn(2, 3, 4, 8)
    scaled = features.clone()
    scaled[..., :4] *= 50
    norm = RmsGroupNorm(8, 2)
    torch.testing.assert_close(norm(scaled), norm(features), atol=1e-4, rtol=0)


def test_the_gradient_of_a_silent_group_is_finite() -> None:
    features = torch.zeros(3, 8)
    features[..., 4:] = torch.randn(3, 4)
    features.requires_grad_()
    RmsGroupNorm(8, 2)(features).square().sum().backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(ConfigError, match="must divide"):
        RmsGroupNorm(8, 3)
    with pytest.raises(ConfigError, match="must divide"):
        SelfAttention(8, 8, 3)


@settings(deadline=None, max_examples=60)
@given(length=st.integers(1, 20), kernel=st.integers(1, 8), stride=st.integers(1, 4))
def test_the_conv_swiglu_equals_its_definition(length: int, kernel: int, stride: int) -> None:
    if stride > kernel:
        return
    torch.manual_seed(length * 100 + kernel * 10 + stride)
    net = ConvSwiGlu(6, 5, kernel, stride)
    features = torch.randn(2, 3, length, 6)
    # The specification, step by step, on [row, channel, position].
    rows = features.flatten(0, 1).transpose(1, 2)
    left = kernel - stride
    total = -(-(length + 2 * left - kernel) // stride) * stride + kernel
    rows = torch.nn.functional.pad(rows, (left, total - length - left))
    value, gate = net.expand(rows).chunk(2, dim=1)
    expected = net.reduce(value * torch.nn.functional.silu(gate))[..., left : left + length]
    expected = expected.transpose(1, 2).unflatten(0, (2, 3))
    assert net(features).shape == features.shape
    torch.testing.assert_close(net(features), expected, atol=1e-5, rtol=1e-5)


def test_an_impulse_reaches_just_its_neighbours() -> None:
    torch.manual_seed(0)
    net = ConvSwiGlu(4, 8, 4)
    quiet = torch.zeros(1, 1, 21, 4)
    loud = quiet.clone()
    loud[0, 0, 10] = 3.0
    changed = (net(loud) - net(quiet)).abs().amax(dim=-1)[0, 0] > 1e-7
    assert changed.nonzero().flatten().tolist() == list(range(7, 14))


def test_rotary_products_depend_on_distance_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 8)
    turns = Rotary(8)(40)
    turned_q = rotate(query.expand(40, 1, 8), turns)[:, 0]
    turned_k = rotate(key.expand(40, 1, 8), turns)[:, 0]
    products = turned_q @ turned_k.T
    for distance in (0, 3, 17):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)
    assert (products.diagonal(0)[0] - products.diagonal(9)[0]).abs() > 1e-3


def test_rotary_turns_channel_pairs_like_complex_numbers() -> None:
    torch.manual_seed(0)
    heads = torch.randn(2, 5, 3, 8)
    turns = Rotary(8)(5)
    turned = torch.view_as_complex(heads.unflatten(-1, (-1, 2))) * torch.complex(
        *turns.unsqueeze(-2)
    )
    torch.testing.assert_close(rotate(heads, turns), torch.view_as_real(turned).flatten(-2))


def test_attention_equals_its_definition() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(6, 8, 2)
    features = torch.randn(2, 3, 5, 6)
    turns = Rotary(4)(5)
    q, k, v = attention.queries_keys_values(features).chunk(3, dim=-1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        query = rotate(q[..., head].unsqueeze(-2), turns).squeeze(-2)
        key = rotate(k[..., head].unsqueeze(-2), turns).squeeze(-2)
        scores = torch.softmax(query @ key.transpose(-1, -2) / 4**0.5, dim=-1)
        heads.append(scores @ v[..., head])
    expected = attention.output(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(features, turns), expected, atol=1e-5, rtol=1e-5)


def test_frequency_paths_do_not_mix_frames_nor_frame_paths_bands() -> None:
    torch.manual_seed(0)
    block = LocoformerStack(small_stack()).blocks[0]
    features = torch.randn(1, 6, 5, 8)
    changed = features.clone()
    changed[0, 2, 3] += 1.0
    by_freq = (block.freq_path(changed, None) - block.freq_path(features, None)).abs().amax(-1)[0]
    assert by_freq[2].gt(1e-6).all()
    assert by_freq[[0, 1, 3, 4, 5]].max() == 0
    swap = features.transpose(1, 2), changed.transpose(1, 2)
    by_frame = (block.frame_path(swap[1], None) - block.frame_path(swap[0], None)).abs().amax(-1)[0]
    assert by_frame[3].gt(1e-6).all()
    assert by_frame[[0, 1, 2, 4]].max() == 0


def test_the_order_of_the_paths_matters() -> None:
    features = torch.randn(1, 6, 5, 8)
    outputs = []
    for order in ("ft", "tf"):
        torch.manual_seed(0)
        outputs.append(LocoformerStack(small_stack(order=order))(features))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4


def test_without_positions_frames_may_be_reversed() -> None:
    pointwise = (FeedForwardConfig(8, 1),)
    features = torch.randn(1, 6, 5, 8)
    for positions, is_equal in (("none", True), ("rope", False)):
        torch.manual_seed(0)
        stack = LocoformerStack(
            small_stack(
                positions=positions, freq_feed_forward=pointwise, frame_feed_forward=pointwise
            )
        )
        difference = (stack(features.flip(1)).flip(1) - stack(features)).abs().max()
        assert (difference < 1e-5) == is_equal


def test_a_path_has_one_or_two_feed_forward_nets() -> None:
    with pytest.raises(ConfigError, match="one or two"):
        small_stack(freq_feed_forward=())


@pytest.mark.parametrize("magnitude_input", [False, True])
def test_the_codec_keeps_bands_apart(magnitude_input: bool) -> None:
    torch.manual_seed(0)
    config = BandSplitConfig(compression=0.5, magnitude_input=magnitude_input)
    codec = BandSplitCodec(config, 8, (3, 5, 9))
    spectrogram = torch.randn(2, 2, 7, 17)
    changed = spectrogram.clone()
    changed[..., 4] *= 3
    moved = (
        (codec.encode(changed).features - codec.encode(spectrogram).features)
        .abs()
        .amax(dim=(0, 1, 3))
    )
    assert moved[1] > 1e-4
    assert moved[0] == moved[2] == 0
    features = torch.randn(2, 7, 3, 8)
    other = features.clone()
    other[:, :, 1] += torch.randn(2, 7, 8)  # a constant would be normalised away
    masks = (codec.decode(other) - codec.decode(features)).abs().amax(dim=(0, 1, 2, 3))
    assert masks[3:8].min() > 1e-6
    assert masks[:3].max() == masks[8:].max() == 0


def test_a_mask_that_starts_as_a_gate_lies_around_one_half() -> None:
    torch.manual_seed(0)
    codec = BandSplitCodec(BandSplitConfig(initial_mask="gate"), 8, (3, 5, 9))
    masks = codec.decode(torch.randn(2, 30, 3, 8))
    real, imaginary = masks.unbind(2)
    assert 0.4 < real.mean() < 0.6
    assert real.std() < 0.15
    assert imaginary.abs().mean() < 0.05


def test_silence_encodes_to_finite_features_and_gradients() -> None:
    codec = BandSplitCodec(BandSplitConfig(compression=0.3, magnitude_input=True), 8, (3, 5, 9))
    silence = torch.zeros(1, 2, 4, 17, requires_grad=True)
    features = codec.encode(silence).features
    features.sum().backward()
    assert torch.isfinite(features).all()
    assert silence.grad is not None
    assert torch.isfinite(silence.grad).all()
    assert all(
        torch.isfinite(parameter.grad).all()
        for parameter in codec.parameters()
        if parameter.grad is not None
    )


@pytest.mark.parametrize(
    "bad", [{"bands": "mel"}, {"num_bands": 8}, {"compression": 0.0}, {"compression": 1.5}]
)
def test_codec_settings_that_make_no_sense_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        BandSplitConfig(**bad)


def test_the_state_of_a_batch_norm_needs_no_count_of_batches() -> None:
    first, second = BatchNorm(3), BatchNorm(3)
    first(torch.randn(4, 3, 2, 2))
    # A plain mapping, as a file of weights gives it, without the versions of its modules.
    second.load_state_dict(dict(first.state_dict()))
    assert set(second.state_dict()) == {"weight", "bias", "running_mean", "running_var"}
    assert torch.equal(second.running_var, first.running_var)


def test_dropout_is_for_training_only_and_has_no_weights() -> None:
    torch.manual_seed(0)
    plain = LocoformerStack(small_stack())
    dropping = LocoformerStack(small_stack(dropout=0.5))
    dropping.load_state_dict(plain.state_dict())
    features = torch.randn(1, 5, 6, 8)
    assert torch.equal(dropping.eval()(features), plain(features))
    dropping.train()
    assert not torch.allclose(dropping(features), dropping(features))
    with pytest.raises(ConfigError, match="share below 1, not 1"):
        small_stack(dropout=1.0)


@pytest.mark.parametrize("kernel_size", [1, 4])
def test_dropout_stands_behind_the_gate(kernel_size: int) -> None:
    net = ConvSwiGlu(4, 16, kernel_size, dropout=1.0 - 1e-6)
    assert net.reduce.bias is not None
    # With nothing behind the gate all that is left is the bias.
    expected = net.reduce.bias.expand(1, 2, 5, 4)
    torch.testing.assert_close(net(torch.randn(1, 2, 5, 4)), expected)
