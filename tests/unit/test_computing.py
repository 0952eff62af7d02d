"""Rows of samples through a model: in threads on a processor, in batches on a GPU."""

import os
import threading

import pytest
import torch
from torch import Tensor

from conftest import tiny_config
from unbraid.errors import Cancelled
from unbraid.models.waveform import WaveformModel, build_model
from unbraid.separation.computing import RowSeparator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> WaveformModel:
    torch.manual_seed(5)
    return build_model(tiny_config()).eval()


def never() -> bool:
    return False


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.usefixtures("two_threads")
def test_rows_come_back_in_order_whatever_their_number(model: WaveformModel) -> None:
    rows = [torch.randn(9000), torch.randn(9000), torch.randn(9000), torch.randn(4000)]
    prompts = torch.tensor([0, 2])
    separator = RowSeparator(model, CPU, "float32")
    assert separator.rows_at_once == 2
    estimates = separator.separate(rows, prompts, never)
    for row, estimate in zip(rows, estimates, strict=True):
        with torch.inference_mode():
            expected = model(row[None], prompts[None])[0]
        torch.testing.assert_close(estimate, expected, atol=1e-4, rtol=1e-4)
    assert separator.separate([], prompts, never) == []


@pytest.mark.usefixtures("two_threads")
def test_rows_share_the_threads_and_give_them_back(
    model: WaveformModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, int] = {}
    forward = WaveformModel.forward

    def watched(self: WaveformModel, *arguments: Tensor) -> Tensor:
        seen[threading.current_thread().name] = torch.get_num_threads()
        return forward(self, *arguments)

    monkeypatch.setattr(WaveformModel, "forward", watched)
    separator = RowSeparator(model, CPU, "float32")
    separator.separate([torch.randn(9000)] * 4, torch.tensor([0]), never)
    assert set(seen.values()) == {1}
    assert threading.current_thread().name not in seen
    assert torch.get_num_threads() == 2
    seen.clear()
    separator.separate([torch.randn(9000)], torch.tensor([0]), never)
    assert seen == {threading.current_thread().name: 2}


@pytest.mark.usefixtures("two_threads")
def test_where_openmp_pins_its_threads_no_others_are_started(
    model: WaveformModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert RowSeparator(model, CPU, "float32").rows_at_once == 1


@pytest.mark.usefixtures("two_threads")
def test_a_failure_in_a_thread_comes_out(model: WaveformModel) -> None:
    separator = RowSeparator(model, CPU, "float32")
    with pytest.raises(Cancelled):
        separator.separate([torch.randn(900)] * 3, torch.tensor([0]), lambda: True)
    assert torch.get_num_threads() == 2


def test_precision_is_heard_and_small(model: WaveformModel) -> None:
    row, prompts = torch.randn(48000), torch.tensor([0, 2])
    exact, auto, short = (
        RowSeparator(model, CPU, precision).separate([row], prompts, never)[0]
        for precision in ("float32", "auto", "bfloat16")
    )
    assert torch.equal(exact, auto)  # on a processor
    assert 0 < (short - exact).square().sum() < 1e-3 * exact.square().sum()
