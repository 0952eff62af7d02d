"""The fast inference path, held to the plain modules that it stands for."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conftest import tiny_config
from unbraid.models.inference import for_inference
from unbraid.models.waveform import WaveformModel, build_model
from unbraid.nn import products
from unbraid.nn.fast_locoformer import FastLocoformerStack
from unbraid.nn.locoformer import FeedForwardConfig, LocoformerConfig, LocoformerStack
from unbraid.nn.short_convolution import (
    NUM_POINTS,
    SUPPORTED_TAPS,
    gather_outputs,
    input_transform,
    kernel_at_points,
    outputs_per_tile,
    spread_outputs,
)


def snr_db(estimate: Tensor, reference: Tensor) -> float:
    noise = (estimate - reference).square().sum()
    return float(10 * torch.log10(reference.square().sum() / noise))


@pytest.mark.parametrize("taps", SUPPORTED_TAPS)
def test_a_tile_is_the_convolution_of_its_inputs(taps: int) -> None:
    torch.manual_seed(taps)
    kernel, inputs = torch.randn(taps, dtype=torch.float64), torch.randn(NUM_POINTS, 5).double()
    num_outputs = outputs_per_tile(taps)
    at_points = kernel_at_points(kernel)[:, None] * (input_transform().double() @ inputs)
    outputs = torch.empty(num_outputs, 5, 1, dtype=torch.float64)
    gather_outputs(at_points.unsqueeze(-1).unbind(), outputs)
    expected = [kernel @ inputs[start : start + taps] for start in range(num_outputs)]
    torch.testing.assert_close(outputs[..., 0], torch.stack(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("taps", SUPPORTED_TAPS)
def test_a_tile_read_backwards_is_the_transposed_convolution(taps: int) -> None:
    torch.manual_seed(taps)
    kernel, outputs = torch.randn(taps).double(), torch.randn(outputs_per_tile(taps), 5, 1).double()
    spread = torch.empty(NUM_POINTS, 5, 1, dtype=torch.float64)
    spread_outputs(outputs, spread)
    at_points = kernel_at_points(kernel)[:, None] * spread[..., 0]
    expected = torch.zeros(NUM_POINTS, 5, dtype=torch.float64)
    for start, output in enumerate(outputs[..., 0]):
        expected[start : start + taps] += kernel[:, None] * output
    transposed = input_transform().double().T @ at_points
    torch.testing.assert_close(transposed, expected, rtol=1e-12, atol=1e-12)


def small_config(
    freq: tuple[FeedForwardConfig, ...], frame: tuple[FeedForwardConfig, ...], **changes: Any
) -> LocoformerConfig:
    sizes = {"num_blocks": 2, "dim": 12, "num_groups": 3, "num_heads": 2, "attention_dim": 8}
    return LocoformerConfig(
        freq_feed_forward=freq, frame_feed_forward=frame, **{**sizes, **changes}
    )


def random_stack(config: LocoformerConfig, seed: int = 0) -> LocoformerStack:
    """A stack in which no parameter has a value that hides a mistake."""
    torch.manual_seed(seed)
    stack = LocoformerStack(config)
    with torch.no_grad():
        for name, parameter in stack.named_parameters():
            if name.endswith(("gain", "bias")):
                parameter += 0.5 * torch.randn_like(parameter)
    return stack.eval()


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 30)),
    st.lists(st.tuples(st.integers(1, 8), st.integers(1, 2)), min_size=1, max_size=2),
    st.lists(st.tuples(st.integers(1, 8), st.integers(1, 2)), min_size=1, max_size=2),
    st.sampled_from(["ft", "tf"]),
    st.sampled_from(["rope", "none"]),
    st.sampled_from([0.5, 1.0]),
)
def test_every_stack_gives_what_the_plain_one_gives(
    shape: tuple[int, int, int],
    freq: list[tuple[int, int]],
    frame: list[tuple[int, int]],
    order: str,
    positions: str,
    scale: float,
) -> None:
    def nets(path: list[tuple[int, int]]) -> tuple[FeedForwardConfig, ...]:
        return tuple(FeedForwardConfig(10, max(kernel, stride), stride) for kernel, stride in path)

    config = small_config(
        nets(freq),
        nets(frame),
        order=order,
        positions=positions,
        feed_forward_scale=scale,
        norm_eps=1e-3,
    )
    stack = random_stack(config)
    features = torch.randn(*shape, 12)
    kept = features.clone()
    with torch.no_grad():
        assert snr_db(FastLocoformerStack(stack)(features), stack(features)) > 100
    assert torch.equal(features, kept), "the input was changed"


def test_long_rows_and_many_rows_pass_in_blocks() -> None:
    config = small_config(
        (FeedForwardConfig(8, 4), FeedForwardConfig(8, 3)),
        (FeedForwardConfig(8, 1), FeedForwardConfig(8, 4)),
        num_blocks=1,
        dim=8,
        num_groups=2,
    )
    stack = random_stack(config)
    features = torch.randn(1, 5000, 7, 8)
    with torch.no_grad():
        assert snr_db(FastLocoformerStack(stack)(features), stack(features)) > 100


def test_both_libraries_of_products_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(
        (FeedForwardConfig(10, 1), FeedForwardConfig(10, 4)),
        (FeedForwardConfig(10, 3), FeedForwardConfig(10, 1)),
        num_blocks=1,
    )
    stack = random_stack(config)
    features = torch.randn(2, 50, 20, 12)
    calls = []
    by_onednn = products._by_onednn

    def watched(*arguments: Tensor) -> Tensor:
        calls.append(arguments)
        return by_onednn(*arguments)

    monkeypatch.setattr(products, "_by_onednn", watched)
    for is_faster in (False, True):
        monkeypatch.setattr(products, "onednn_is_faster", lambda: is_faster)  # noqa: B023
        with torch.no_grad():
            assert snr_db(FastLocoformerStack(stack)(features), stack(features)) > 100
        assert bool(calls) == is_faster


@pytest.mark.parametrize(("onednn_s", "is_faster"), [(0.4, True), (0.9, False), (2.0, False)])
def test_onednn_has_to_be_clearly_faster(
    onednn_s: float, is_faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    times_s = itertools.cycle([1.0, onednn_s])
    monkeypatch.setattr(products, "_seconds", lambda _: next(times_s))
    assert products._measured_faster.__wrapped__() == is_faster


def test_measuring_leaves_the_random_numbers_of_the_caller_alone() -> None:
    torch.manual_seed(7)
    expected = torch.randn(3)
    torch.manual_seed(7)
    products._measured_faster.__wrapped__()
    assert torch.equal(torch.randn(3), expected)


def test_bfloat16_is_near() -> None:
    config = small_config(
        (FeedForwardConfig(32, 4),) * 2,
        (FeedForwardConfig(32, 1),) * 2,
        dim=16,
        num_groups=4,
        attention_dim=16,
    )
    stack = random_stack(config)
    features = torch.randn(2, 30, 20, 16)
    with torch.no_grad():
        assert 30 < snr_db(FastLocoformerStack(stack, "bfloat16")(features), stack(features)) < 80


def model() -> WaveformModel:
    torch.manual_seed(3)
    return build_model(replace(tiny_config(), segment_s=1.0, overlap_s=0.25)).eval()


def test_the_twin_of_a_model_separates_alike() -> None:
    plain = model()
    twin = for_inference(plain)
    assert sum(isinstance(part, FastLocoformerStack) for part in twin.modules()) == 2
    assert sum(isinstance(part, LocoformerStack) for part in plain.modules()) == 2
    mixture = torch.randn(2, 20000)
    prompts = torch.tensor([[0, 2, 0], [4, 4, 1]])
    with torch.inference_mode():
        assert snr_db(twin(mixture, prompts), plain(mixture, prompts)) > 100


def test_a_prompt_taught_to_the_model_is_known_to_its_twin() -> None:
    plain = model()
    twin = for_inference(plain)
    mixture, prompts = torch.randn(1, 20000), torch.tensor([[0, 1]])
    with torch.no_grad():
        before = twin(mixture, prompts)
        for parameter in plain.prompts.parameters():
            parameter += 0.5
        after = twin(mixture, prompts)
        assert snr_db(after, plain(mixture, prompts)) > 100
    assert not torch.equal(before, after)
