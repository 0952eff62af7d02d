"""Going on with a run: which settings may have changed since, and which would be another run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unbraid.config import dump
from unbraid.errors import CheckpointError, ConfigError, in_brief
from unbraid.training.config import TrainConfig
from unbraid.training.recipe_files import load_recipe

log = logging.getLogger(__name__)

#: What a checkpoint was made with. With other ones it does not load, its counts of batches and of
#: best weights stand for something else, or nobody could say any more where the run began.
_FIXED = (
    "model",
    "method",
    "start",
    "learns",
    "initial_weights",
    "batches_per_step",
    "optimiser.decayed",
    "optimiser.average_best",
    "tagging.optimiser.decayed",
    "tagging.optimiser.average_best",
)

#: Averages can be kept in another way from some step on, but not begin or end there.
_FIXED_IF_NONE = ("optimiser.average_decay", "tagging.optimiser.average_decay")

#: How long, where and with what a run goes on, which changes nothing of what it learns.
_FREE = (
    "name",
    "max_steps",
    "tagging.max_steps",
    "data.access",
    "data.cache_dir",
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "loggers",
    "num_workers",
    "num_threads",
    "checkpoint_every_steps",
    "licence",
    "description",
    "weights_dtype",
)

_LONGEST = 40


def check_same_run(config: TrainConfig, path: Path) -> None:
    """Insist that a run can go on with other settings; says which of those it learns by differ.

    Args:
        config: How it is to go on.
        path: The config of the run, as it was begun or went on last.

    Raises:
        ConfigError: If the two are different runs, or the file is not the config of one.
        CheckpointError: If there is no such file.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent}: holds a checkpoint, but no {path.name} to say of what; choose another "
            "--out."
        )
    try:
        before = dump(load_recipe(path))
    except ConfigError as error:
        raise ConfigError(
            f"{path}: cannot be read any more, so that the run cannot go on; choose another --out "
            f"({error})"
        ) from error
    other: list[str] = []
    later: list[str] = []
    for key, old, new in _differences(before, dump(config)):
        if _is_in(key, _FREE):
            continue
        switched = _is_in(key, _FIXED_IF_NONE) and (old is None or new is None)
        changed = f"{key} was {_short(old)}, not {_short(new)}"
        (other if switched or _is_in(key, _FIXED) else later).append(changed)
    if other:
        raise ConfigError(
            f"{path.parent}: holds another run ({in_brief(other)}); choose another --out, or take "
            "the settings of that run."
        )
    if later:
        log.warning("from here on the run has other settings: %s", "; ".join(later))


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], group: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys((*before, *after)):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{group}{key}.")
        elif old != new:
            yield f"{group}{key}", old, new


def _is_in(key: str, groups: tuple[str, ...]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
