"""Finds every architecture by itself: a file in ``architectures/`` is all it takes."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from unbraid.config import nearest
from unbraid.errors import ConfigError
from unbraid.models import architectures as _folder
from unbraid.models.base import Architecture


@cache
def architectures() -> dict[str, Architecture]:
    """All architectures by name."""
    found = {}
    for module in pkgutil.iter_modules(_folder.__path__):
        declared = importlib.import_module(f"{_folder.__name__}.{module.name}").ARCHITECTURE
        found[declared.name] = declared
    return found


def find_architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        ConfigError: If there is none, with near names.
    """
    known = architectures()
    if name not in known:
        raise ConfigError(f"unknown architecture {name!r}; {nearest(name, list(known))}")
    return known[name]
