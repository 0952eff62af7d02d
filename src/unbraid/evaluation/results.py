"""Results of an evaluation as plain records, and as JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbraid.config import parse
from unbraid.errors import ConfigError, DataError

#: Measure → value; not-a-number where the measure is not defined, as for a silent reference.
Values = Mapping[str, float]

#: Ends the name of a measure's gain over the unprocessed mixture: ``si_sdr_db_improvement``.
IMPROVEMENT = "_improvement"


@dataclass(frozen=True)
class SourceResult:
    """What was measured of one source of one mixture.

    Attributes:
        stem: Its name, numbered where its prompt repeats: ``speech_1``.
        prompt: Its prompt.
        is_silent: Whether its reference is silent throughout.
        estimate: Of the model's estimate.
        mixture: With the mixture itself as the estimate.
        oracles: Oracle → what its masks reach.
    """

    stem: str
    prompt: str
    is_silent: bool
    estimate: Values
    mixture: Values
    oracles: Mapping[str, Values] = field(default_factory=dict)

    def value(self, measure: str) -> float:
        """A measure of the estimate, or its gain over the mixture; nan where not defined."""
        base = measure.removesuffix(IMPROVEMENT)
        value = self.estimate.get(base, math.nan)
        return value if base == measure else value - self.mixture.get(base, math.nan)


@dataclass(frozen=True)
class ItemResult:
    """What was measured of one mixture.

    Attributes:
        item: Its name, unique in its run.
        part: The part of the benchmark that it belongs to, such as a scene; may be empty.
        group: What several mixtures belong to, such as a song; empty for nothing.
        duration_s: Its length.
        elapsed_s: How long the separation took.
        sources: Its sources, in the order of the prompts.
    """

    item: str
    part: str
    group: str
    duration_s: float
    elapsed_s: float
    sources: tuple[SourceResult, ...]


@dataclass(frozen=True)
class RunInfo:
    """What a run measured, and how; two runs can be compared where all but the model is equal.

    Attributes:
        benchmark: Its name.
        model_name: The model's name.
        model_digest: SHA-256 of its weights.
        measures: Names of the measures, the one that leads first.
        protocol: How mixtures were separated and scored, as plain data.
        version: Of unbraid.
        items_digest: SHA-256 of what the mixtures are made of; empty where that is not known.
    """

    benchmark: str
    model_name: str
    model_digest: str
    measures: tuple[str, ...]
    protocol: Mapping[str, Any]
    version: str
    items_digest: str = ""


@dataclass(frozen=True)
class Run:
    """A whole run: what was measured, how, and what came out."""

    info: RunInfo
    items: tuple[ItemResult, ...]


def item_line(item: ItemResult) -> str:
    """A result as one line of JSON, without the line's end; nan becomes ``null``."""
    return json.dumps(plain(item), allow_nan=False)


def info_line(info: RunInfo) -> str:
    """What a run measures as one line of JSON, the first of its file."""
    return json.dumps({"run": plain(info)}, allow_nan=False)


def read_run(path: Path) -> Run:
    """Read a run's JSON lines, or the folder that holds them as ``results.jsonl``.

    Raises:
        DataError: If there is no such file, or a line is not what this module writes.
    """
    file = path / RESULTS_NAME if path.is_dir() else path
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror}); give a folder or file that "
            "`unbraid evaluate` wrote."
        ) from error
    if not lines:
        raise DataError(f"{file}: empty; run the evaluation again.")
    return Run(parse_info(lines[0], file), tuple(parse_items(lines[1:], file)))


#: What a run's JSON lines are called in its folder.
RESULTS_NAME = "results.jsonl"


def parse_info(line: str, file: Path) -> RunInfo:
    """The first line of a run's file.

    Raises:
        DataError: If it is something else.
    """
    try:
        return parse(RunInfo, json.loads(line)["run"], where=f"{file}, line 1")
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"{file}, line 1: not the results of an evaluation ({error}).") from error


def parse_items(lines: list[str], file: Path) -> Iterator[ItemResult]:
    """All other lines of a run's file, line by line.

    Raises:
        DataError: At a line that is something else.
    """
    for number, line in enumerate(lines, start=2):
        try:
            yield parse(ItemResult, _with_nan(json.loads(line)), where=f"{file}, line {number}")
        except (ValueError, KeyError, TypeError, ConfigError) as error:
            raise DataError(f"{file}, line {number}: not a result ({error}).") from error


def plain(record: object) -> Any:
    """Any record as what JSON knows: dictionaries, lists, and ``None`` for nan."""
    if isinstance(record, float):
        return record if math.isfinite(record) else None
    if isinstance(record, Mapping):
        return {key: plain(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [plain(value) for value in record]
    if hasattr(record, "__dataclass_fields__"):
        return {name: plain(getattr(record, name)) for name in record.__dataclass_fields__}
    return record


def _with_nan(data: Any) -> Any:
    """The reverse of ``plain`` for values that are nan."""
    if data is None:
        return math.nan
    if isinstance(data, dict):
        return {key: _with_nan(value) for key, value in data.items()}
    return [_with_nan(value) for value in data] if isinstance(data, list) else data
