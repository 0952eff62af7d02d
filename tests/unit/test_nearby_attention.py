"""Attention that leaves out what its bias rules out, against attention that computes all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from unbraid.dsp.bands import musical_bands
from unbraid.nn import nearby_attention as module
from unbraid.nn.compression_mixers import distance_to_bands
from unbraid.nn.nearby_attention import nearby_attention


def _with_gradients(attend: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    inputs = tuple(each.clone().requires_grad_() for each in inputs)
    gathered = attend(*inputs)  # type: ignore[operator]
    weights = torch.linspace(-1.0, 1.0, gathered.numel(), dtype=gathered.dtype).view_as(gathered)
    return gathered.detach(), *torch.autograd.grad((gathered * weights.sin()).sum(), inputs)


def _full(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    return scaled_dot_product_attention(queries, keys, values, bias.unsqueeze(0))


def _agree(inputs: tuple[Tensor, ...]) -> None:
    exact = _with_gradients(_full, tuple(each.double() for each in inputs))
    for found, true in zip(_with_gradients(nearby_attention, inputs), exact, strict=True):
        # Scores of hundreds have a rounding error of their own.
        torch.testing.assert_close(found, true.float(), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("bins_ask", [False, True])
@pytest.mark.parametrize("loudness", [0.1, 1.0, 5.0])
def test_outputs_and_gradients_are_those_of_full_attention(bins_ask: bool, loudness: float) -> None:
    torch.manual_seed(1)
    bias = distance_to_bands(musical_bands(48000, 1024, 32))
    bias = (bias.T if bins_ask else bias).repeat(2, 1, 1).contiguous()
    queries = loudness * torch.randn(3, 2, bias.shape[1], 8)
    keys, values = torch.randn(2, 3, 2, bias.shape[2], 8)
    _agree((queries, loudness * keys, values, bias + torch.randn(bias.shape)))


@given(
    num_queries=st.integers(1, 70),
    num_tokens=st.integers(1, 40),
    heads=st.sampled_from([(1, 1), (2, 2), (3, 1)]),
    slope=st.sampled_from([0.0, 3.0, 100.0]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=40)
def test_any_bias_will_do(
    num_queries: int, num_tokens: int, heads: tuple[int, int], slope: float, seed: int
) -> None:
    # Nothing says that neighbours look at neighbours: every entry is drawn by itself.
    generator = torch.Generator().manual_seed(seed)
    num_heads, bias_heads = heads
    shape = (2, num_heads, num_queries, 4)
    queries = torch.randn(shape, generator=generator)
    keys, values = torch.randn((2, 2, num_heads, num_tokens, 4), generator=generator)
    bias = slope * torch.randn((bias_heads, num_queries, num_tokens), generator=generator)
    _agree((queries, keys, values, bias))


def test_a_hard_mask_gives_what_it_masks_no_gradient() -> None:
    torch.manual_seed(2)
    bias = torch.full((1, 6, 6), -torch.inf)
    bias[0].fill_diagonal_(0.0)
    values = torch.randn(1, 1, 6, 4)
    gathered = nearby_attention(torch.randn(1, 1, 6, 4), torch.randn(1, 1, 6, 4), values, bias)
    assert torch.equal(gathered, values)


def test_what_is_not_finite_is_not_hidden() -> None:
    bias = torch.zeros(1, 3, 5)
    keys = torch.randn(1, 1, 5, 4)
    keys[0, 0, 2] = torch.nan
    assert (
        nearby_attention(torch.randn(1, 1, 3, 4), keys, torch.randn(1, 1, 5, 4), bias).isnan().all()
    )


def test_most_of_the_table_is_left_out_and_all_of_it_is_not_when_it_matters() -> None:
    bias = distance_to_bands(musical_bands(48000, 2048, 64)).unsqueeze(0)

    def computed(largest_product: float) -> int:
        return sum(
            (run.queries.stop - run.queries.start) * (run.tokens.stop - run.tokens.start)
            for run in module._runs(bias, largest_product)
        )

    assert computed(3.0) < bias.numel() / 7
    assert computed(1000.0) == bias.numel()
