"""The flag ``--device``."""

from __future__ import annotations

import re

from unbraid.errors import ConfigError


def parse_devices(text: str) -> list[str | None]:
    """Check that the devices are there.

    Args:
        text: ``auto``, or names with commas between them: ``cpu``, ``mps``, ``cuda``,
            ``cuda:N``. A name may repeat, for several models on one device.

    Returns:
        The devices as torch names them; None for ``auto``.

    Raises:
        ConfigError: For a device that is unknown or not there; says which are.
    """
    if text.strip() == "auto":
        return [None]
    available = _available()
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
            raise ConfigError(
                f"--device {name}: unknown device; choose auto, cpu, mps, cuda or cuda:1, "
                f"of which this machine has {', '.join(available)}."
            )
        if name not in available:
            raise ConfigError(
                f"--device {name}: not available; this machine has {', '.join(available)}."
            )
    return list(names)


def parse_device(text: str) -> str | None:
    """The same for what learns, on one device.

    Raises:
        ConfigError: As ``parse_devices``, and for several devices.
    """
    devices = parse_devices(text)
    if len(devices) > 1:
        raise ConfigError(f"--device {text}: it learns on one device; name one.")
    return devices[0]


def _available() -> list[str]:
    import torch

    devices = ["cpu"]
    if torch.backends.mps.is_available():
        devices.append("mps")
    if torch.cuda.is_available():
        devices += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return devices
