"""What is to be measured: mixtures, rules and what others reached, wherever they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

from unbraid.data.corpora import find_corpus
from unbraid.data.corpora.base import MixtureFiles
from unbraid.errors import ConfigError, DataError
from unbraid.evaluation.benchmark import Benchmark, PublishedResult
from unbraid.evaluation.items import Item, Protocol, items_of
from unbraid.evaluation.pool import Pool, Question
from unbraid.evaluation.stem_folders import list_mixtures

T = TypeVar("T")

#: Gives the items, or only those of these names.
ItemSource: TypeAlias = Callable[[Container[str] | None], Iterator[Item]]

#: Everything that anybody's own stems, and the pool, are measured by unless asked otherwise.
MEASURES = ("si_sdr_db", "snr_db", "log_spectral_distance", "level_error", "leak_suppression_db")


@dataclass(frozen=True, eq=False)
class Task:
    """Mixtures to measure on, and how.

    Attributes:
        name: What its results are kept under.
        title: A headline.
        notes: Rules that are worth knowing; may be empty.
        protocol: How mixtures are separated and scored.
        items: Gives the mixtures.
        num_items: How many there are; None where pieces or channels are counted only as they
            come.
        digest: SHA-256 of what the mixtures are made of.
        published: What others reached.
        stand_in: What is asked in the place of prompts that a model does not know.
        has_oracles: Whether ideal masks are measured; no where another task has the same.
        is_side_question: Whether what it tells is how it differs from another task.
    """

    name: str
    title: str
    notes: str
    protocol: Protocol
    items: ItemSource
    num_items: int | None
    digest: str
    published: tuple[PublishedResult, ...] = ()
    stand_in: str = ""
    has_oracles: bool = True
    is_side_question: bool = False


def benchmark_task(benchmark: Benchmark, root: Path, limit: int | None = None) -> Task:
    """A published benchmark on a copy of its corpus.

    Args:
        benchmark: Which.
        root: The folder of its corpus.
        limit: Only so many mixtures, evenly spread; None for all, as published.

    Raises:
        DataError: If the folder is not a whole copy of the corpus; it says what is missing and
            how the corpus can be had.
    """
    try:
        mixtures = list(benchmark.mixtures(root))
    except DataError as error:
        corpus = find_corpus(benchmark.corpus)
        raise DataError(f"{error} See `unbraid data info {corpus.name}`.") from error
    task = _task_of_files(benchmark.name, root, mixtures, benchmark.protocol, limit)
    return replace(
        task,
        title=benchmark.title,
        notes=" ".join(filter(None, (benchmark.notes, task.notes))),
        published=benchmark.published,
        stand_in=benchmark.stand_in,
    )


def folder_task(
    path: Path,
    prompts: Sequence[str],
    prompt_of: Mapping[str, str],
    limit: int | None = None,
    split: str | None = None,
) -> Task:
    """Anybody's own mixtures and stems, see ``stem_folders``.

    Raises:
        DataError: If they lie in none of the known layouts, or a stem is missing.
    """
    root, mixtures = list_mixtures(path, prompts, prompt_of, split)
    protocol = Protocol(chunks="model", channels="all", measures=MEASURES)
    task = _task_of_files(path.stem, root, mixtures, protocol, limit)
    return replace(task, title=f"Stems in {path.name}")


def pool_task(pool: Pool, question: Question) -> Task:
    """The mixtures of a pool, asked about in one way."""
    return Task(
        name="pool" if question == "all" else f"pool-{question}",
        title=f"Frozen mixtures: {_QUESTION_TITLES[question]}",
        notes="",
        protocol=Protocol(chunks="model", single_prompt=question == "single", measures=MEASURES),
        items=partial(pool.items, question),
        num_items=pool.num_items(question),
        digest=pool.digest,
        has_oracles=question in ("all", "coarser"),
        is_side_question=question != "all",
    )


_QUESTION_TITLES: Mapping[Question, str] = {
    "all": "all prompts at once",
    "single": "one prompt at a time",
    "reversed": "prompts in reverse",
    "coarser": "coarser prompts",
    "absent": "one prompt too many",
}


def changed(task: Task, **changes: object) -> Task:
    """A task with other rules; ``None`` leaves a rule as it is.

    Raises:
        ConfigError: If a chunk is not longer than its overlap.
    """
    wanted = {name: value for name, value in changes.items() if value is not None}
    protocol = replace(task.protocol, **wanted)  # type: ignore[arg-type]
    if protocol.chunks == "fixed" and not 0 <= protocol.overlap_s < protocol.segment_s:
        raise ConfigError(
            f"chunks of {protocol.segment_s:g} s that share {protocol.overlap_s:g} s make no "
            "sense; the segment must be longer than the overlap."
        )
    return replace(task, protocol=protocol)


def _task_of_files(
    name: str, root: Path, mixtures: Sequence[MixtureFiles], protocol: Protocol, limit: int | None
) -> Task:
    chosen = evenly_spread(mixtures, limit)
    whole = protocol.pieces_s is None and protocol.channels != "each"
    listed = json.dumps([asdict(files) for files in chosen], sort_keys=True)

    def items(only: Container[str] | None) -> Iterator[Item]:
        for files in chosen:
            if only is None:
                yield from items_of(root, [files], protocol)
            elif not whole or files.name in only:
                found = items_of(root, [files], protocol)
                yield from (item for item in found if item.name in only)

    return Task(
        name=name,
        title=name,
        notes=(
            f"Only {len(chosen)} of {len(mixtures)} mixtures were measured."
            if len(chosen) < len(mixtures)
            else ""
        ),
        protocol=protocol,
        items=items,
        num_items=len(chosen) if whole else None,
        digest=hashlib.sha256(listed.encode()).hexdigest(),
    )


def evenly_spread(entries: Sequence[T], limit: int | None) -> Sequence[T]:
    """So many of them, evenly spread; all where there are no more."""
    if limit is None or limit >= len(entries):
        return entries
    return [entries[number * len(entries) // limit] for number in range(limit)]
