"""Models and prompts on disk and on the hub: bundles, the catalogue of them, and importers."""

from unbraid.checkpoints.asked_prompts import AskedPrompts, find_prompts, with_taught
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
from unbraid.checkpoints.prompt_files import (
    PromptFile,
    load_prompt,
    model_fingerprint,
    save_prompt,
)

__all__ = [
    "DEFAULT_MODEL",
    "AskedPrompts",
    "Bundle",
    "Card",
    "ModelInfo",
    "PromptFile",
    "find_prompts",
    "import_released",
    "list_models",
    "load_bundle",
    "load_prompt",
    "model_fingerprint",
    "model_info",
    "resolve_model",
    "save_bundle",
    "save_prompt",
    "with_taught",
]
