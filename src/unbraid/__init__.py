"""Separate any recording into the sources you name.

>>> import unbraid
>>> separator = unbraid.load_separator("mini")
>>> stems = separator.separate("film.mkv", ["speech", "sfx-mix", "music-mix"])  # doctest: +SKIP
>>> files = stems.save("stems")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from unbraid._version import __version__

if TYPE_CHECKING:
    from unbraid.apps.discover import Discovery, discover
    from unbraid.apps.separator import Separation, Separator, load_separator
    from unbraid.audio import read, write
    from unbraid.checkpoints import list_models, load_bundle, save_bundle
    from unbraid.errors import UnbraidError
    from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
    from unbraid.separation.settings import SeparationConfig
    from unbraid.types import Progress, SeparatedBlock, Waveform

__all__ = [
    "Discovery",
    "ModelConfig",
    "Progress",
    "SeparatedBlock",
    "Separation",
    "SeparationConfig",
    "Separator",
    "UnbraidError",
    "Waveform",
    "WaveformModel",
    "__version__",
    "build_model",
    "discover",
    "list_models",
    "load_bundle",
    "load_separator",
    "read",
    "save_bundle",
    "write",
]

_HOMES = {
    "Discovery": "unbraid.apps.discover",
    "ModelConfig": "unbraid.models.waveform",
    "Progress": "unbraid.types",
    "SeparatedBlock": "unbraid.types",
    "Separation": "unbraid.apps.separator",
    "SeparationConfig": "unbraid.separation.settings",
    "Separator": "unbraid.apps.separator",
    "UnbraidError": "unbraid.errors",
    "Waveform": "unbraid.types",
    "WaveformModel": "unbraid.models.waveform",
    "build_model": "unbraid.models.waveform",
    "discover": "unbraid.apps.discover",
    "list_models": "unbraid.checkpoints",
    "load_bundle": "unbraid.checkpoints",
    "load_separator": "unbraid.apps.separator",
    "read": "unbraid.audio",
    "save_bundle": "unbraid.checkpoints",
    "write": "unbraid.audio",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: ``import unbraid`` itself stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unbraid' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
