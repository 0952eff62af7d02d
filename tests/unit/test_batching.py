"""Rows of several threads in one batch: who shares one, and what happens to the others."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from unbraid.errors import Cancelled
from unbraid.models.waveform import WaveformModel
from unbraid.separation.batching import SharedBatches
from unbraid.separation.computing import RowSeparator
from unbraid.separation.separator import StreamSeparator, separate_waveform
from unbraid.types import Waveform

ONE = torch.tensor([0])


def never() -> bool:
    return False


class Device:
    """Doubles what it gets; holds its first batch until it is told to go on."""

    def __init__(self, num_waiting_wanted: int = 0) -> None:
        self.sizes: list[int] = []
        self.go_on = threading.Event()
        if not num_waiting_wanted:
            self.go_on.set()

    def __call__(self, batch: Tensor, prompts: Tensor) -> Tensor:
        self.sizes.append(len(batch))
        assert self.go_on.wait(5)
        return 2 * batch[:, None].expand(-1, prompts.shape[1], -1)


def in_company(
    device: Device, batches: SharedBatches, calls: list[Callable[[], list[Tensor]]]
) -> list[list[Tensor] | Exception]:
    """Let one call occupy the device until all others wait for it."""
    with ThreadPoolExecutor(len(calls) + 1) as pool:
        first = pool.submit(batches.separate, [torch.zeros(3)], ONE, never)
        while not device.sizes:
            time.sleep(0.001)
        futures = [pool.submit(call) for call in calls]
        while len(batches._waiting) < len(calls):
            time.sleep(0.001)
        device.go_on.set()
        first.result(5)
        return [future.exception(5) or future.result() for future in futures]


def test_rows_of_several_threads_share_a_batch_if_they_fit() -> None:
    device = Device(num_waiting_wanted=1)
    batches = SharedBatches(device, most=8)

    def asking(value: float, length: int, num_prompts: int) -> Callable[[], list[Tensor]]:
        row, prompts = torch.full((length,), value), torch.arange(num_prompts)
        return lambda: batches.separate([row], prompts, never)

    asked = [(1.0, 10, 2), (2.0, 10, 2), (3.0, 10, 3), (4.0, 7, 2), (5.0, 10, 2)]
    found = in_company(device, batches, [asking(*call) for call in asked])
    for (value, length, num_prompts), estimates in zip(asked, found, strict=True):
        assert not isinstance(estimates, Exception)
        assert torch.equal(estimates[0], torch.full((num_prompts, length), 2 * value))
    assert device.sizes[0] == 1
    assert sorted(device.sizes[1:]) == [1, 1, 3]
    assert batches._waiting == []


def test_one_that_is_cancelled_leaves_its_company_alone() -> None:
    device = Device(num_waiting_wanted=1)
    batches = SharedBatches(device, most=8)
    row = torch.ones(10)
    calls = [
        lambda: batches.separate([row], ONE, lambda: True),
        lambda: batches.separate([row], ONE, never),
    ]
    stopped, other = in_company(device, batches, calls)
    assert isinstance(stopped, Cancelled)
    assert not isinstance(other, Exception)
    assert torch.equal(other[0], 2 * row[None])


def test_a_batch_that_does_not_fit_is_halved_for_good() -> None:
    sizes = []

    def compute(batch: Tensor, prompts: Tensor) -> Tensor:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("too much")
        return batch[:, None] * 2

    batches = SharedBatches(compute, most=8)
    rows = [torch.full((10,), float(number)) for number in range(5)] + [torch.ones(7)]
    for _ in range(2):
        estimates = batches.separate(rows, ONE, never)
        assert [estimate.shape for estimate in estimates] == [(1, 10)] * 5 + [(1, 7)]
        assert torch.equal(torch.stack(estimates[:5])[:, 0, 0], 2 * torch.arange(5.0))
    assert sizes == [5, 2, 2, 1, 1, 2, 2, 1, 1]
    assert batches.most == 2


def test_one_row_that_does_not_fit_is_an_error_and_so_is_any_other_failure() -> None:
    def too_large(batch: Tensor, prompts: Tensor) -> Tensor:
        raise torch.cuda.OutOfMemoryError("too much")

    def broken(batch: Tensor, prompts: Tensor) -> Tensor:
        raise RuntimeError("broken")

    batches = SharedBatches(too_large, most=8)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        batches.separate([torch.ones(10)] * 8, ONE, never)
    assert batches._waiting == []
    with pytest.raises(RuntimeError, match="broken"):
        SharedBatches(broken, most=8).separate([torch.ones(10)] * 3, ONE, never)


def test_a_batch_of_different_prompts_gives_what_each_row_gives_alone(
    tiny_model: WaveformModel,
) -> None:
    rows = torch.randn(4, 9000)
    prompts = torch.tensor([[0, 2], [2, 0], [1, 1], [0, 3]])
    with torch.inference_mode():
        together = tiny_model(rows, prompts)
        alone = [
            tiny_model(row[None], each[None])[0] for row, each in zip(rows, prompts, strict=True)
        ]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=1e-4)


def test_recordings_of_several_threads_come_out_as_alone(
    tiny_model: WaveformModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    separator = StreamSeparator(tiny_model)
    asked = [("speech", "sfx"), ("music-mix", "speech"), ("speech", "speech")]
    recordings = [Waveform(0.1 * torch.randn(2, 60_000), 48_000) for _ in asked]
    alone = [
        separate_waveform(separator, recording, prompts).sources
        for recording, prompts in zip(recordings, asked, strict=True)
    ]
    compute = separator._rows._separate_batch
    sizes: list[int] = []

    def crowded(batch: Tensor, prompts: Tensor) -> Tensor:
        sizes.append(len(batch))
        ends = time.monotonic() + 5
        while len(sizes) == 1 and len(batches._waiting) < 5 and time.monotonic() < ends:
            time.sleep(0.001)
        return compute(batch, prompts)

    batches = SharedBatches(crowded, most=4)
    monkeypatch.setattr(RowSeparator, "separate", lambda self, *rest: batches.separate(*rest))
    with ThreadPoolExecutor(3) as pool:
        together = list(
            pool.map(lambda *each: separate_waveform(separator, *each).sources, recordings, asked)
        )
    assert max(sizes) > 2
    for found, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
