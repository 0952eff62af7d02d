"""Typed configuration: frozen dataclasses in code, YAML or JSON on disk.

A config is a frozen dataclass anywhere in the package. This file turns plain data
into one and refuses what it does not know: an unknown key is an error that names
the nearest key, a value of the wrong type is an error that names the place.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from unbraid.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T")

#: What validates a type; making one takes longer than using it.
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def parse(kind: type[T], data: object, where: str = "config") -> T:
    """Build the frozen dataclass ``kind`` from plain data.

    Args:
        kind: The dataclass to build; nested dataclasses, tuples and unions are followed.
        data: Mappings, sequences and scalars as YAML or JSON give them.
        where: What to call the data in error messages, usually a file name.

    Raises:
        ConfigError: For an unknown key (with the nearest known one), a missing key, a
            value of the wrong type, or a value that the dataclass itself refuses.
    """
    check_keys(kind, data, where)
    try:
        built: T = _adapter(kind).validate_python(data)
        return built
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in (where, *first["loc"]))
        raise ConfigError(f"{place}{_problem(first)}.") from error


def _problem(found: ErrorDetails) -> str:
    """What is wrong, as it follows the place."""
    if found["type"] == "union_tag_invalid":
        given, known = (found["ctx"][name] for name in ("tag", "expected_tags"))
        return f".kind: there is no kind {given!r}, only {known}"
    if found["type"] == "union_tag_not_found":
        return ": has to be a group of settings with a kind"
    return f": {found['msg']}"


def check_keys(kind: Any, data: object, where: str) -> None:
    """Refuse keys that the dataclass ``kind`` does not have; missing ones and values do not matter.

    Raises:
        ConfigError: For an unknown key, with the nearest known one.
    """
    for problem in _unknown_keys(kind, data, where):
        raise ConfigError(problem)


def merge(kind: Any, base: object, changes: object) -> Any:
    """Lay plain data over other plain data of the same type.

    Groups of settings are merged key by key: wherever both are a mapping and the type is one
    dataclass, or that or None. All else is replaced as a whole: lists, tables of weights, and
    groups of which there are several kinds.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Point:
    ...     x: int
    ...     y: int = 0
    >>> merge(Point, {"x": 1, "y": 2}, {"y": 3})
    {'x': 1, 'y': 3}
    """
    members = [each for each in get_args(kind) or (kind,) if each is not type(None)]
    if len(members) == 1 and get_origin(kind) in (None, Union, UnionType):
        kind = members[0]
    if not (
        dataclasses.is_dataclass(kind)
        and isinstance(base, Mapping)
        and isinstance(changes, Mapping)
    ):
        return changes
    hints = get_type_hints(kind)
    merged = dict(base)
    for key, value in changes.items():
        is_merged = key in base and key in hints
        merged[key] = merge(hints[key], base[key], value) if is_merged else value
    return merged


def kinds_of_group(kind: Any, keys: Sequence[str]) -> tuple[Any, ...]:
    """The dataclasses that the group of settings below these keys of ``kind`` can be.

    None if something else stands there, or nothing; several where a union tells them by ``kind``.
    """
    members = tuple(each for each in get_args(kind) or (kind,) if dataclasses.is_dataclass(each))
    if not keys:
        return members
    inner = [hints[keys[0]] for hints in map(get_type_hints, members) if keys[0] in hints]
    return kinds_of_group(inner[0], keys[1:]) if inner else ()


def kind_of(data: Mapping[str, Any], members: Sequence[Any]) -> str:
    """The ``kind`` of plain data; if it does not say, that of the first member with all its keys.

    Args:
        data: A group of settings.
        members: The dataclasses that it can be; the first one if none has all its keys.
    """
    if "kind" in data:
        return str(data["kind"])
    fitting = (
        each
        for each in members
        if {field.name for field in dataclasses.fields(each)}.issuperset(data)
    )
    return str(next(fitting, members[0]).kind)


def read(kind: type[T], path: Path) -> T:
    """Read a YAML or JSON file into the frozen dataclass ``kind``.

    Raises:
        ConfigError: If the file is missing, is not YAML or JSON, or does not fit ``kind``.
    """
    return parse(kind, load_mapping(path), where=path.name)


def load_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file whose top level is a mapping.

    Raises:
        ConfigError: If the file is missing, is not YAML or JSON, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a config file ({error}).") from error
    try:
        data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid {path.suffix.lstrip('.')} ({problem}).") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: the top level must be a mapping of keys to values.")
    return data


def dump(config: object) -> dict[str, Any]:
    """Turn a frozen dataclass into plain data that ``parse`` turns back."""
    data: dict[str, Any] = json.loads(_adapter(type(config)).dump_json(config))
    return data


def check_number(
    name: str,
    value: float | None,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Refuse a number that is too low, too high, infinite or none at all (NaN).

    Args:
        name: What to call it in the message.
        value: The number; None is not looked at.
        least: The lowest that it may be.
        above: It has to be more than this.
        most: The highest that it may be.
        below: It has to be less than this.

    Raises:
        ConfigError: If it lies outside.

    >>> check_number("decay", 2.0, least=0, below=1)
    Traceback (most recent call last):
    ...
    unbraid.errors.ConfigError: decay must be at least 0 and below 1, not 2.
    """
    if value is None:
        return
    if math.isfinite(value) and least <= value <= most and above < value < below:
        return
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    said = [f"{word} {bound:.12g}" for word, bound in bounds.items() if math.isfinite(bound)]
    wanted = " and ".join(said) if math.isfinite(value) else " and ".join(["a number", *said])
    raise ConfigError(f"{name} must be {wanted}, not {value:.12g}.")


def check_weights(name: str, weights: Mapping[Any, float]) -> None:
    """Refuse a table of how often things are drawn by which nothing could be.

    Raises:
        ConfigError: If a weight is negative or no number, or none is above 0.
    """
    for key, weight in weights.items():
        check_number(f"{name}.{key}", weight, least=0)
    if not any(weights.values()):
        raise ConfigError(f"{name} needs something with a weight above 0.")


def nearest(name: str, known: Sequence[str]) -> str:
    """Say which known names are close to ``name``, or list all: the tail of an error.

    >>> nearest("spech", ["speech", "drums"])
    'did you mean speech?'
    """
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(sorted(known))}."


def _unknown_keys(kind: Any, data: object, where: str) -> Iterator[str]:
    """Walk ``data`` beside the type ``kind``; yield a message for each key not in it."""
    if dataclasses.is_dataclass(kind) and isinstance(data, Mapping):
        hints = get_type_hints(kind)
        known = [field.name for field in dataclasses.fields(kind)]
        for key, value in data.items():
            if key not in known:
                yield f"{where}: unknown key {key!r}; {nearest(str(key), known)}"
            else:
                yield from _unknown_keys(hints[key], value, f"{where}.{key}")
        return
    arguments = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        # A key is unknown only when no member of the union knows it.
        fitting = [
            list(_unknown_keys(member, data, where))
            for member in arguments
            if dataclasses.is_dataclass(member) == isinstance(data, Mapping)
            and not _is_of_another_kind(member, data)
        ]
        if fitting and all(fitting):
            yield from min(fitting, key=len)
    elif get_origin(kind) in (tuple, list) and isinstance(data, Sequence):
        for position, item in enumerate(data):
            yield from _unknown_keys(arguments[0], item, f"{where}[{position}]")
    elif get_origin(kind) in (dict, Mapping) and isinstance(data, Mapping):
        for key, item in data.items():
            yield from _unknown_keys(arguments[-1], item, f"{where}.{key}")


def _is_of_another_kind(member: Any, data: object) -> bool:
    """Whether the ``kind`` that the data gives is not one that this dataclass has."""
    if not dataclasses.is_dataclass(member) or not isinstance(data, Mapping):
        return False
    kind = get_type_hints(member).get("kind")
    return get_origin(kind) is Literal and "kind" in data and data["kind"] not in get_args(kind)
