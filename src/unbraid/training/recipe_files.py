"""Recipes as files: those that ship with unbraid, their bases, and what they need.

A recipe is a YAML file of ``TrainConfig``, with two freedoms. ``base`` names another recipe, one
that ships or a path relative to the file; the file then says only what differs, see
``config.merge``. Licence and description are those of one model and are not taken from a base. And
``model.network`` may be the name of a preset of the architecture instead of
all its fields. ``unbraid train NAME --print-config`` shows what comes out, with neither of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import yaml

from unbraid.config import (
    check_keys,
    dump,
    kind_of,
    kinds_of_group,
    load_mapping,
    merge,
    nearest,
    parse,
)
from unbraid.data.corpora import corpora
from unbraid.errors import ConfigError
from unbraid.models.registry import find_architecture
from unbraid.models.waveform import build_model
from unbraid.training.config import TrainConfig

_FOLDER = Path(__file__).parent / "recipes"
#: How the names of files end that hold a recipe.
_SUFFIXES = (".yaml", ".yml", ".json")
#: What a recipe says of the model that comes out, and of no model made from another recipe.
_OF_ONE_MODEL = ("licence", "description")


@dataclass(frozen=True)
class RecipeFile:
    """Where a recipe lies.

    Attributes:
        path: Its file.
        base_dir: What relative paths in it are relative to.
    """

    path: Path
    base_dir: Path


@dataclass(frozen=True)
class RecipeSummary:
    """A line about a recipe.

    Attributes:
        name: What it is called.
        description: What it trains.
        num_parameters: Of its model.
        corpora: Names of those that it needs; empty where it takes recordings of one's own.
    """

    name: str
    description: str
    num_parameters: int
    corpora: tuple[str, ...]


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with unbraid, by name."""
    return dict(sorted((path.stem, path) for path in _FOLDER.glob("*.yaml")))


def find_recipe(recipe: str | Path) -> RecipeFile:
    """The file of a recipe that ships, by its name, or any other by its path.

    Raises:
        ConfigError: If there is no recipe of that name.
    """
    path, known = Path(recipe), shipped_recipes()
    if path.suffix in _SUFFIXES or path.is_file():
        if path.stem in known and not path.exists():
            raise ConfigError(
                f"{path}: no such file; did you mean {path.stem}, the recipe that comes with "
                "unbraid? Its name is written without an ending."
            )
        return RecipeFile(path, path.parent)
    if str(recipe) not in known:
        raise ConfigError(
            f"no recipe is called {str(recipe)!r}; {nearest(str(recipe), list(known))} "
            "`unbraid train --list` shows them all; a recipe of your own is a .yaml file."
        )
    return RecipeFile(known[str(recipe)], Path())


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a recipe and apply ``key.inner=value`` overrides.

    ``data.root`` comes out absolute, so that the config means the same wherever it is written to.

    Raises:
        ConfigError: If there is no such recipe, or a file or an override does not fit
            ``TrainConfig``.
    """
    file = find_recipe(recipe)
    path = file.path
    data = _with_network(_with_base(path, ()), path.name)
    # A kind first: it takes the settings of another one away, but none that are set here.
    for override in sorted(overrides, key=lambda each: not _is_kind(each)):
        key, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override}: write it as key=value, for example max_steps=10.")
        try:
            plain = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override}: the value is no YAML.") from error
        keys = key.strip().split(".")
        if _is_kind(override):
            _clear_other_kind(data, keys[:-1], plain)
        _set(data, keys, plain)
    config = parse(TrainConfig, _with_network(data, path.name), where=path.name)
    root = (file.base_dir / Path(config.data.root).expanduser()).resolve()
    return replace(config, data=replace(config.data, root=str(root)))


def write_config(config: TrainConfig) -> str:
    """The whole of a config as YAML that ``load_recipe`` reads."""
    return yaml.safe_dump(dump(config), sort_keys=False, allow_unicode=True)


def summaries() -> tuple[RecipeSummary, ...]:
    """What the recipes that ship train, and on what."""
    sizes: dict[str, int] = {}  # many have one model
    found = []
    for name in shipped_recipes():
        config = load_recipe(name)
        model = json.dumps(dump(config.model))
        if model not in sizes:
            with torch.device("meta"):
                sizes[model] = build_model(config.model).num_parameters
        found.append(
            RecipeSummary(config.name, config.description, sizes[model], corpora_of(config))
        )
    return tuple(found)


def corpora_of(config: TrainConfig) -> tuple[str, ...]:
    """Published corpora in whose folders the lists of a config lie, as in recipes that ship."""
    sets = (*config.data.mixtures, *config.validation.mixtures.values())
    lists = (*config.data.manifests, *(each.list for each in sets))
    folders = dict.fromkeys(PurePosixPath(path).parent.name for path in lists)
    return tuple(folder for folder in folders if folder in corpora())


def _with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The plain data of a recipe, laid over that of its base."""
    if path.resolve() in seen:
        raise ConfigError(f"{path}: is a base of itself.")
    data = load_mapping(path)
    base = data.pop("base", None)
    check_keys(TrainConfig, data, path.name)
    if base is None:
        return data
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must be the name or the path of a recipe, not {base!r}.")
    shipped = shipped_recipes()
    if base not in shipped and not (path.parent / base).is_file():
        raise ConfigError(
            f"{path}: there is no recipe {base!r} to be its base; {nearest(base, list(shipped))}"
        )
    below = _with_base(shipped.get(base, path.parent / base), (*seen, path.resolve()))
    below = {key: value for key, value in below.items() if key not in _OF_ONE_MODEL}
    merged: dict[str, Any] = merge(TrainConfig, below, data)
    return merged


def _with_network(data: dict[str, Any], where: str) -> dict[str, Any]:
    """The same with the fields of a preset in place of its name."""
    model = data.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("network"), str):
        return data
    architecture = find_architecture(str(model.get("architecture")))
    name = model["network"]
    if name not in architecture.presets:
        raise ConfigError(
            f"{where}.model.network: {architecture.name} has no preset {name!r}; "
            f"{nearest(name, list(architecture.presets))}"
        )
    return {**data, "model": {**model, "network": dump(architecture.presets[name])}}


def _is_kind(override: str) -> bool:
    return override.partition("=")[0].strip().endswith(".kind")


def _clear_other_kind(data: dict[str, Any], keys: Sequence[str], kind: object) -> None:
    """Take away the settings of a group that is of another kind than the one wanted."""
    kinds = kinds_of_group(TrainConfig, keys)
    group: Any = data
    for key in keys:
        group = group.get(key) if isinstance(group, dict) else None
    if len(kinds) > 1 and isinstance(group, dict) and kind_of(group, kinds) != kind:
        group.clear()


def _set(data: dict[str, Any], keys: Sequence[str], value: object) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {'.'.join(keys)}: {key} holds a value, not a group of keys.")
    data[keys[-1]] = value
