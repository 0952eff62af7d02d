"""Published corpora, one file each: what they hold, what it may be used for, how they lie on disk.

A file dropped in here is found by itself: it declares ``CORPUS``.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from unbraid.config import nearest
from unbraid.data.corpora.base import Corpus
from unbraid.errors import DataError


@cache
def corpora() -> dict[str, Corpus]:
    """All corpora by name, sorted."""
    found: dict[str, Corpus] = {}
    for module in pkgutil.iter_modules(__path__):
        declared = getattr(importlib.import_module(f"{__name__}.{module.name}"), "CORPUS", None)
        if declared is not None:
            found[declared.name] = declared
    return dict(sorted(found.items()))


def find_corpus(name: str) -> Corpus:
    """The corpus of that name; ``_`` will do for ``-``.

    Raises:
        DataError: If there is none, with near names.
    """
    known = corpora()
    hyphened = name.replace("_", "-")
    if hyphened not in known:
        raise DataError(f"unknown corpus {name!r}; {nearest(hyphened, list(known))}")
    return known[hyphened]
