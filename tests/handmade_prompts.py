"""Prompts for tests: a copy of what a model has learned, under a name of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unbraid.checkpoints import PromptFile, load_bundle, model_fingerprint, save_prompt

PROVENANCE: Mapping[str, Any] = {
    "model": "tiny",
    "created": "2026-01-02T03:04:05+00:00",
    "clips": [{"name": "ding.wav", "sha256": "0" * 64, "seconds": 1.5}] * 3,
    "before_db": 1.25,
    "after_db": 7.5,
    "gain_error_db": 0.5,
    "verdict": "gain of +6.2 ± 0.5 dB",
    "absent_db": -23.5,
    "absent_worst_db": -11.25,
    "licence": "CC0-1.0",
    "note": "rings twice",
}


def copy_of_learned(
    bundle: Path,
    learned: str,
    name: str,
    /,
    *,
    num_vectors: int = 1,
    gain: float = 1.0,
    **more: Any,
) -> PromptFile:
    """The vector of a learned prompt, as often as asked for, times a gain."""
    bank = load_bundle(bundle).model.prompts
    vector = bank.weight.detach()[bank.names.index(learned)]
    vectors = gain * vector.repeat(num_vectors, 1)
    return PromptFile(name, vectors, model_fingerprint(bundle), {**PROVENANCE, **more})


def write_copy(folder: Path, bundle: Path, learned: str, name: str, /, **wishes: Any) -> Path:
    """The same as a file in ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return save_prompt(copy_of_learned(bundle, learned, name, **wishes), folder, overwrite=True)
