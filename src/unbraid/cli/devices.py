"""The flag ``--device``."""

from __future__ import annotations

import re

from unbraid.errors import ConfigError


def parse_device(text: str) -> str | None:
    """Check that a device is there.

    Args:
        text: ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:N``.

    Returns:
        The device as torch names it; None for ``auto``.

    Raises:
        ConfigError: For a device that is unknown or not there; says which are.
    """
    if text == "auto":
        return None
    available = _available()
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", text):
        raise ConfigError(
            f"--device {text}: unknown device; choose auto, cpu, mps, cuda or cuda:1, "
            f"of which this machine has {', '.join(available)}."
        )
    if text not in available:
        raise ConfigError(
            f"--device {text}: not available; this machine has {', '.join(available)}."
        )
    return text


def _available() -> list[str]:
    import torch

    devices = ["cpu"]
    if torch.backends.mps.is_available():
        devices.append("mps")
    if torch.cuda.is_available():
        devices += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return devices
