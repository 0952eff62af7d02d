"""The pool benchmark, ready to be run: which recordings of a manifest serve which prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import unbraid.training
from unbraid.config import load_mapping
from unbraid.errors import ConfigError
from unbraid.evaluation.pool import PER_SCENE, QUESTIONS, open_pool
from unbraid.evaluation.tasks import Task, pool_task
from unbraid.folders import user_cache_dir

_DEFAULT_RECIPE = Path(unbraid.training.__file__).with_name("recipes") / "mini.yaml"


def pool_tasks(
    manifest: Path,
    *,
    recipe: Path | None = None,
    split: str = "eval",
    per_scene: int | None = None,
    most_sources: int | None = None,
) -> tuple[Task, ...]:
    """The mixtures of a manifest, asked about in every way that makes sense for them.

    Args:
        manifest: Of the recordings, as for training.
        recipe: A training recipe whose ``data.pools`` say what serves which prompt; None for
            that of the default model.
        split: Which split to draw from.
        per_scene: Mixtures of each scene; None for as many as the frozen set has.
        most_sources: Leave out scenes of more sources; None to leave out none.

    Raises:
        DataError: If the manifest cannot be read or has too little.
        ConfigError: If the recipe has no such pools.
    """
    pools = _pools(recipe or _DEFAULT_RECIPE)
    pool = open_pool(
        manifest,
        pools,
        split,
        user_cache_dir(),
        PER_SCENE if per_scene is None else per_scene,
        most_sources,
    )
    tasks = (pool_task(pool, question) for question in QUESTIONS)
    return tuple(task for task in tasks if task.num_items)


def _pools(recipe: Path) -> Mapping[str, Sequence[str]]:
    data = load_mapping(recipe).get("data")
    pools = data.get("pools") if isinstance(data, dict) else None
    if not isinstance(pools, dict) or not all(
        isinstance(patterns, list) and all(isinstance(each, str) for each in patterns)
        for patterns in pools.values()
    ):
        raise ConfigError(
            f"{recipe}: data.pools must say for each prompt a list of patterns over category/class."
        )
    return pools
