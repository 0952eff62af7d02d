"""What the machine is, and the most arithmetic that it does in a second."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

_REPEATS = 4


def describe_machine() -> str:
    """Processor, cores, instruction set, torch and today's date."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        fields = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        name = next((value.strip() for key, _, value in fields if "model name" in key), name)
    today = datetime.datetime.now().astimezone().date()
    return (
        f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, "
        f"torch {torch.__version__}, {today:%d %B %Y}"
    )


def measured_peak_gflops() -> float:
    """The most that PyTorch's own kernels reach now, in float32, on what suits them best.

    The best of some runs of a large matrix product (MKL, where it is there) and of a 3 by 3
    convolution in channels-last memory (oneDNN).
    """
    size = 1536
    left, right = torch.randn(size, size), torch.randn(size, size)
    product = torch.empty(size, size)
    image = torch.randn(1, 256, 48, 48).to(memory_format=torch.channels_last)
    kernel = torch.randn(512, 256, 3, 3).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        return max(
            _gflops(lambda: torch.mm(left, right, out=product), 2 * size**3),
            _gflops(
                lambda: torch.nn.functional.conv2d(image, kernel, padding=1),
                2 * 48 * 48 * kernel.numel(),
            ),
        )


def median_s(work: Callable[[], object], device: torch.device, runs: int) -> float:
    """Median of the times of some runs, after one that does not count."""
    work()
    times_s = []
    for _ in range(runs):
        wait_for(device)
        started = time.perf_counter()
        work()
        wait_for(device)
        times_s.append(time.perf_counter() - started)
    return statistics.median(times_s)


def product_gflops(device: torch.device, precision: torch.dtype, size: int) -> float:
    """What a large matrix product reaches on a device."""
    left, right = (torch.randn(size, size, device=device, dtype=precision) for _ in range(2))
    return 2 * size**3 / median_s(lambda: left @ right, device, 5) / 1e9


def wait_for(device: torch.device) -> None:
    """Until a GPU has done what it was told; it works on while the clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _gflops(work: Callable[[], object], operations: int) -> float:
    work()
    shortest_s = min(_seconds(work) for _ in range(_REPEATS))
    return operations / shortest_s / 1e9


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
