"""Separate all recordings of a manifest, on this machine or on a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from unbraid.apps.separate_files import SeparateOptions, stems_of
from unbraid.apps.separator import load_separator
from unbraid.apps.whole_files import make_folder, write_whole
from unbraid.apps.workplace import clear_leftovers
from unbraid.checkpoints import find_prompts, model_info
from unbraid.checkpoints.prompt_files import is_prompt_path
from unbraid.cluster import stores
from unbraid.cluster.crew import Crew
from unbraid.cluster.dispatch import dispatch
from unbraid.cluster.manifest import Entry, Shard, read_entries
from unbraid.cluster.table import Row, Summary, summarise, table_text
from unbraid.cluster.worker import Setup
from unbraid.errors import ConfigError, UnbraidError
from unbraid.nn.products import onednn_is_faster
from unbraid.separation.settings import SeparationConfig

#: The names of the table and the summary, without what follows the dot.
_TABLE = "separate-many"


@dataclass(frozen=True)
class ManyOptions:
    """What to separate, and where to.

    Attributes:
        manifest: A path or an address; see ``manifest.read_entries``.
        root: What its paths are relative to; None for its own folder.
        prompts: Names and prompt files for the recordings that name none themselves.
        out: The folder for results, or its address.
        shard: Which rows.
        num_retries: How often a recording that fails is tried again.

    Raises:
        ConfigError: If ``num_retries`` is negative.
    """

    manifest: str
    prompts: tuple[str, ...]
    out: str
    root: str | None = None
    shard: Shard = field(default_factory=Shard)
    num_retries: int = 2

    def __post_init__(self) -> None:
        if self.num_retries < 0:
            raise ConfigError(f"--retries {self.num_retries}: must be 0 or more.")


@dataclass(frozen=True)
class ManyResult:
    """What became of all recordings.

    Attributes:
        rows: One for each recording, in the order of the manifest; None for those that are left.
        summary: Of the rows.
        table: Where the rows are, as CSV: a path or an address.
        summary_file: Where the summary is, as JSON.
    """

    rows: tuple[Row | None, ...]
    summary: Summary
    table: str
    summary_file: str

    @property
    def exit_code(self) -> int:
        """That of the first recording that failed; 0 if none did."""
        errors = (row.outcome.error for row in self.rows if row is not None)
        return next((error.exit_code for error in errors if error is not None), 0)


def separate_many(
    model: str | Path,
    config: SeparationConfig,
    separate_options: SeparateOptions,
    options: ManyOptions,
    open_crew: Callable[[Setup, int], Crew],
    *,
    on_start: Callable[[int], None] | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> ManyResult:
    """Separate all recordings of a manifest.

    What is wrong with model, prompts, options or manifest is found before any work. Table and
    summary are written in the end, also of a run that is interrupted.

    Args:
        model: A name, a folder or a model on the hub.
        config: How to separate.
        separate_options: How stems are named and stored.
        options: What to separate, and where to.
        open_crew: Makes the crew, of a setup and the number of recordings.
        on_start: Called with the number of recordings before the first one begins.
        on_row: Called when a recording is done, skipped or has failed for good.

    Raises:
        ConfigError, PromptError, CheckpointError, DataError: Before any work.
        UnbraidError: If no worker could be had; finished recordings stay.
    """
    started_s = time.monotonic()
    place_of = Path()
    entries = options.shard.of(
        read_entries(
            options.manifest,
            options.root,
            lambda track: separate_options.sidecar_path(track, place_of),
        )
    )
    setup, entries = _prepare(model, config, separate_options, options, entries)
    if not stores.is_address(options.out):
        make_folder(Path(options.out))
        clear_leftovers(Path(options.out))
    rows: list[Row | None] = [None] * len(entries)

    def take(position: int, row: Row) -> None:
        rows[position] = row
        if on_row is not None:
            on_row(row)

    with closing(open_crew(setup, len(entries))) as crew:
        if on_start is not None:
            on_start(len(entries))
        try:
            dispatch(entries, crew, num_retries=options.num_retries, on_row=take)
        finally:
            summary = summarise(rows, time.monotonic() - started_s)
            table = _write(options, "csv", table_text(rows))
            summary_file = _write(options, "json", summary.text)
    return ManyResult(tuple(rows), summary, table, summary_file)


def _prepare(
    model: str | Path,
    config: SeparationConfig,
    separate_options: SeparateOptions,
    options: ManyOptions,
    entries: Sequence[Entry],
) -> tuple[Setup, tuple[Entry, ...]]:
    """The setup, and the entries with the prompts that each is separated into.

    Raises:
        ConfigError, PromptError, CheckpointError: If something is wrong with all recordings, or
            with the prompts of one.
    """
    folder = model_info(model).path
    names: dict[tuple[str, ...], tuple[str, ...]] = {}
    asked: dict[str, None] = {}
    for entry in entries:
        wanted = entry.prompts or options.prompts
        if wanted in names:
            continue
        texts = tuple(_from_anywhere(text) for text in wanted)
        try:
            names[wanted] = find_prompts(folder, texts).names
        except UnbraidError as error:
            raise type(error)(f"{options.manifest}, {entry.path}: {error}") from error
        asked.update(dict.fromkeys(texts))
    found = find_prompts(folder, tuple(asked))
    setup = Setup(
        model=str(Path(model).absolute()) if Path(model).is_dir() else str(model),
        config=config,
        options=separate_options,
        prompts=tuple(asked),
        prompt_digests=found.digests,
        out=options.out if stores.is_address(options.out) else str(Path(options.out).absolute()),
        products="onednn" if onednn_is_faster() else "blas",
    )
    separator = load_separator(
        folder, config, device="cpu", prompts=[stored.path for stored in found.taught.values()]
    )
    for each in set(names.values()):
        stems_of(separator, each, separate_options)
    return setup, tuple(
        replace(entry, prompts=names[entry.prompts or options.prompts]) for entry in entries
    )


def _from_anywhere(text: str) -> str:
    """A prompt as workers in other folders find it."""
    return str(Path(text).expanduser().absolute()) if is_prompt_path(text) else text


def _write(options: ManyOptions, extension: str, text: str) -> str:
    shard = options.shard
    of_shard = "" if shard.count == 1 else f"-{shard.number}-of-{shard.count}"
    name = f"{_TABLE}{of_shard}.{extension}"
    if stores.is_address(options.out):
        address = f"{options.out.rstrip('/')}/{name}"
        stores.write(text.encode(), address)
        return address
    write_whole(Path(options.out) / name, text.encode())
    return str(Path(options.out) / name)
