"""The Mamba layer, against its definition."""

import math
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor

from unbraid.nn import selective_scan as module
from unbraid.nn.selective_scan import SelectiveScan, fused_selective_scan, selective_scan


def scan_arguments(length: int, rows: int = 2, channels: int = 3, states: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    values, steps = draw(rows, length, channels), draw(rows, length, channels).exp()
    decay = -draw(channels, states).exp()
    return [values, steps, decay, draw(rows, length, states), draw(rows, length, states)]


def step_by_step(
    values: Tensor, steps: Tensor, decay: Tensor, inputs: Tensor, outputs: Tensor
) -> Tensor:
    """The recurrence number by number."""
    rows, length, channels = values.shape
    result = torch.zeros_like(values)
    for row in range(rows):
        for channel in range(channels):
            memory = torch.zeros(decay.shape[1], dtype=values.dtype)
            for t in range(length):
                step = steps[row, t, channel]
                kept = torch.exp(step * decay[channel]) * memory
                memory = kept + step * values[row, t, channel] * inputs[row, t]
                result[row, t, channel] = torch.dot(memory, outputs[row, t])
    return result


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 100])
def test_the_scan_equals_the_recurrence_number_by_number(length: int) -> None:
    arguments = scan_arguments(length)
    expected = step_by_step(*arguments)
    torch.testing.assert_close(selective_scan(*arguments), expected, atol=1e-12, rtol=1e-12)
    single = selective_scan(*(argument.float() for argument in arguments))
    torch.testing.assert_close(single.double(), expected, atol=1e-5, rtol=1e-5)


def test_an_impulse_decays_by_half_at_each_step() -> None:
    values = torch.tensor([[[2.0], [0.0], [0.0], [0.0]]])
    ones = torch.ones(1, 4, 1)
    decay = torch.tensor([[-math.log(2.0)]])
    heard = selective_scan(values, ones, decay, ones, ones)
    torch.testing.assert_close(heard.flatten(), torch.tensor([2.0, 1.0, 0.5, 0.25]))


def test_the_gradients_of_the_scan_are_those_of_differences() -> None:
    arguments = [argument.requires_grad_() for argument in scan_arguments(5, 1, 2, 2)]
    assert torch.autograd.gradcheck(selective_scan, arguments)


def layer(dim: int = 20) -> SelectiveScan:
    torch.manual_seed(0)
    return SelectiveScan(dim, state_dim=3)


def test_the_layer_equals_its_definition() -> None:
    net = layer()
    features = torch.randn(2, 7, 20)
    entered = features @ net.entry.weight.T
    values, gates = entered[..., :20], entered[..., 20:]
    padded = torch.nn.functional.pad(values, (0, 0, 3, 0))  # three positions of silence before
    kernel = net.convolution.weight[:, 0]
    windows = [(padded[:, t : t + 4] * kernel.T).sum(dim=1) for t in range(7)]
    heard = torch.stack(windows, dim=1) + net.convolution.bias
    values = heard * heard.sigmoid()
    selected = values @ net.selection.weight.T
    ranks, inputs, outputs = selected[..., :2], selected[..., 2:5], selected[..., 5:]
    steps = (1 + (ranks @ net.step_size.weight.T + net.step_size.bias).exp()).log()
    scanned = step_by_step(values, steps, -net.log_decay.exp(), inputs, outputs)
    gated = (scanned + net.skip * values) * gates * gates.sigmoid()
    torch.testing.assert_close(net(features), gated @ net.exit.weight.T, atol=1e-6, rtol=1e-5)


def test_a_position_hears_the_past_and_nothing_else() -> None:
    net = layer()
    features = torch.randn(1, 12, 20)
    changed = features.clone()
    changed[:, 5] += 1.0
    difference = (net(changed) - net(features)).abs().amax(dim=(0, 2))
    assert torch.equal(difference[:5], torch.zeros(5))
    assert (difference[5:] > 0).all()


def test_rows_do_not_hear_each_other() -> None:
    net = layer()
    features = torch.randn(3, 6, 20)
    torch.testing.assert_close(net(features)[1:2], net(features[1:2]), atol=1e-6, rtol=1e-5)


def test_a_layer_begins_as_published() -> None:
    net = layer(32)
    torch.testing.assert_close(net.log_decay[5].exp(), torch.tensor([1.0, 2.0, 3.0]))
    steps = torch.nn.functional.softplus(net.step_size.bias)
    assert 0.9e-3 < steps.min() < 1e-2 < steps.max() < 1.1e-1
    assert torch.equal(net.skip, torch.ones(32))


def test_a_layer_of_the_published_size_has_the_published_tensors() -> None:
    net = SelectiveScan(32)
    assert {name: tuple(weight.shape) for name, weight in net.named_parameters()} == {
        "entry.weight": (64, 32),
        "convolution.weight": (32, 1, 4),
        "convolution.bias": (32,),
        "selection.weight": (2 + 16, 32),
        "step_size.weight": (32, 2),
        "step_size.bias": (32,),
        "log_decay": (32, 8),
        "skip": (32,),
        "exit.weight": (32, 32),
    }


@pytest.fixture
def kernel() -> Iterator[list[tuple[int, ...]]]:
    """A stand-in for the package: it takes its arguments as the package does, on any device."""
    seen: list[tuple[int, ...]] = []

    def selective_scan_fn(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:  # noqa: N803
        seen.append(tuple(u.shape))
        assert all(tensor.is_contiguous() for tensor in (u, delta, B, C))
        memory = u.new_zeros(*u.shape[:2], A.shape[1])
        result = []
        for t in range(u.shape[2]):
            kept = torch.exp(torch.einsum("bd,dn->bdn", delta[..., t], A)) * memory
            memory = kept + torch.einsum("bd,bn->bdn", delta[..., t] * u[..., t], B[..., t])
            result.append(torch.einsum("bdn,bn->bd", memory, C[..., t]))
        return torch.stack(result, dim=2)

    stand_in = ModuleType("mamba_ssm.ops.selective_scan_interface")
    stand_in.selective_scan_fn = selective_scan_fn  # type: ignore[attr-defined]
    parents = ["mamba_ssm", "mamba_ssm.ops"]
    names = [*parents, stand_in.__name__]
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: ModuleType(name) for name in parents})
    sys.modules[stand_in.__name__] = stand_in
    module._fused_scan.cache_clear()
    yield seen
    for name, old in before.items():
        if old is None:
            del sys.modules[name]
        else:
            sys.modules[name] = old
    module._fused_scan.cache_clear()


def test_the_kernel_of_the_package_is_asked_as_it_wants_to_be(
    kernel: list[tuple[int, ...]],
) -> None:
    arguments = scan_arguments(9)
    expected = selective_scan(*arguments)
    torch.testing.assert_close(fused_selective_scan(*arguments), expected)
    assert kernel == [(2, 3, 9)]


def test_the_kernel_is_left_alone_on_a_processor(kernel: list[tuple[int, ...]]) -> None:
    layer()(torch.randn(1, 4, 20))
    assert kernel == []


def test_a_package_that_does_not_fit_the_machine_is_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(name: str) -> ModuleType:
        raise ImportError(f"{name}: libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(module.importlib, "import_module", refuse)
    module._fused_scan.cache_clear()
    try:
        assert module._fused_scan() is None
    finally:
        module._fused_scan.cache_clear()
