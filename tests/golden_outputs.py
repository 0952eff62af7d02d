"""Outputs of released code on weights and inputs that a rule gives, so that nothing else is needed.

``parity/golden.json`` holds the numbers.
"""

import json
import math
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parent / "parity" / "golden.json").read_text(encoding="utf-8")
)


def fill(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights by the rule: a sine whose phase comes from the name."""
    state = {}
    for name, shape in shapes.items():
        size = math.prod(shape)
        phase = zlib.crc32(name.encode()) % 1000 / 100
        fan = max(size // shape[0], 1) if len(shape) >= 2 else 1
        amplitude = 0.5 / math.sqrt(fan) if len(shape) >= 2 else 0.1
        is_gain = name.endswith(("gamma", "running_var")) or (
            len(shape) == 1 and name.endswith("weight")
        )
        wave = torch.sin(0.37 * torch.arange(size, dtype=torch.float64) + phase)
        state[name] = (float(is_gain) + amplitude * wave).float().reshape(shape)
    return state


def golden_mixture(batch: int, frames: int, bins: int) -> Tensor:
    """The mono mixture: real and imaginary part ``[batch, 2, frame, bin]``."""
    b = torch.arange(batch, dtype=torch.float64)[:, None, None]
    t = torch.arange(frames, dtype=torch.float64)[:, None]
    f = torch.arange(bins, dtype=torch.float64)
    real = torch.sin(0.11 * t + 0.05 * f + b)
    imaginary = torch.cos(0.03 * t - 0.08 * f + 2 * b)
    return torch.stack([real, imaginary], dim=1).float()


def assert_golden(name: str, spectrograms: Tensor) -> None:
    """Compare ``[batch, source, 2, frame, bin]`` with what was recorded.

    Tighter than the recording asks for: weights by a sine are forgiving of exchanged nets.
    """
    assert_golden_numbers(name, spectrograms.movedim(2, -1), GOLDEN[name]["out_shape"] + [2])


def assert_golden_numbers(name: str, ours: Tensor, shape: list[int] | None = None) -> None:
    """Compare numbers of any meaning, in the order in which they were recorded.

    Args:
        name: The recording.
        ours: What is compared with it.
        shape: What it is to have; None for that of the recording.
    """
    golden = GOLDEN[name]
    assert list(ours.shape) == (shape or golden["out_shape"])
    flat = ours.flatten().double()
    middle = flat.numel() // 2
    assert float(flat.square().mean().sqrt()) == pytest.approx(golden["rms"], rel=1e-5)
    assert float(flat.abs().mean()) == pytest.approx(golden["mean_abs"], rel=1e-5)
    for part, recorded in (
        (flat[:8], golden["first8"]),
        (flat[middle : middle + 4], golden["mid4"]),
        (flat[-4:], golden["last4"]),
    ):
        assert part.tolist() == pytest.approx(recorded, abs=1e-5)
