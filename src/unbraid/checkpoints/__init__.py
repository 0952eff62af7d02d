"""Models on disk and on the hub: bundles, the catalogue of them, and importers."""

from unbraid.checkpoints.bundle import Bundle, load_bundle, save_bundle
from unbraid.checkpoints.card import Card
from unbraid.checkpoints.catalogue import (
    DEFAULT_MODEL,
    ModelInfo,
    list_models,
    model_info,
    resolve_model,
)
from unbraid.checkpoints.importers import import_released

__all__ = [
    "DEFAULT_MODEL",
    "Bundle",
    "Card",
    "ModelInfo",
    "import_released",
    "list_models",
    "load_bundle",
    "model_info",
    "resolve_model",
    "save_bundle",
]
