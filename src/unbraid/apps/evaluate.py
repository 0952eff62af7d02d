"""Measure a model, or any finished stems, on a task, and leave results that can be looked at.

A task's folder holds ``results.jsonl`` (a line about the run, then one per mixture),
``sources.csv`` and ``report.html``. While a run goes on, its lines stand in
``results.partial.jsonl``; one that was stopped goes on behind the last whole line.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._version import __version__
from unbraid.apps.cases import Case, choose_cases, make_case
from unbraid.apps.evaluation_page import render_evaluation_page
from unbraid.apps.separator import load_separator
from unbraid.apps.whole_files import make_folder, write_whole
from unbraid.audio import MEDIA_EXTENSIONS, read, safe_name
from unbraid.config import dump
from unbraid.errors import AudioError, ConfigError, DataError
from unbraid.evaluation.items import Item, Protocol
from unbraid.evaluation.measures import check_packages
from unbraid.evaluation.results import (
    RESULTS_NAME,
    ItemResult,
    Run,
    RunInfo,
    info_line,
    item_line,
    parse_info,
    parse_items,
    read_run,
)
from unbraid.evaluation.runner import Separate, measure_item
from unbraid.evaluation.summary import Summary, summarise
from unbraid.evaluation.tables import csv_of_sources
from unbraid.evaluation.tasks import Task
from unbraid.separation.separator import StreamSeparator, separate_waveform
from unbraid.separation.settings import SeparationConfig
from unbraid.types import Step, StepCallback, stem_names

SOURCES_NAME = "sources.csv"
REPORT_NAME = "report.html"
_PARTIAL_NAME = "results.partial.jsonl"

#: Longer than any recording: the model hears all of it at once.
_WHOLE_S = 1e6


@dataclass(frozen=True)
class Evaluated:
    """Something to be measured.

    Attributes:
        name: What it is called in results.
        digest: SHA-256 of a model's weights; empty for finished stems.
        prompts: What can be asked for; None where that is not known.
        separate: Makes a separator that works by a protocol.
        prompt_digests: Name → SHA-256 of prompts that come from files of their own.
    """

    name: str
    digest: str
    prompts: tuple[str, ...] | None
    separate: Callable[[Protocol], Separate]
    prompt_digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluateOptions:
    """What may be chosen about an evaluation, whatever the task.

    Attributes:
        out_dir: Results go to ``out_dir/NAME/TASK``.
        overwrite: Measure again what is there already.
        with_oracles: Measure ideal masks, too, where the task has them.
        num_cases: How many of the worst sources, and of the best, to show in the report.
    """

    out_dir: Path
    overwrite: bool = False
    with_oracles: bool = True
    num_cases: int = 3


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        run: All results.
        summary: What they come to.
        folder: Where the files are.
        was_there: Whether all of it was measured before.
    """

    run: Run
    summary: Summary
    folder: Path
    was_there: bool


def model_to_evaluate(
    model: str | Path,
    name: str,
    digest: str,
    device: torch.device | str | None = None,
    prompts: Sequence[str | Path] = (),
) -> Evaluated:
    """A model, separating by the rules of a task.

    Args:
        model: As in ``checkpoints.resolve_model``.
        name: What it is called in results.
        digest: SHA-256 of the model.
        device: Where to compute; None for the best that is there.
        prompts: Prompts to add to its own, as in ``load_separator``.

    Raises:
        CheckpointError: If there is no such model or prompt file, or it is damaged.
        PromptError: As ``load_separator``.
    """
    loaded = load_separator(model, device=device, prompts=prompts)

    def by_rules(protocol: Protocol) -> Separate:
        engine = StreamSeparator(loaded.model, _separation_config(protocol), loaded.engine.device)

        def separate(item: Item, prompts: tuple[str, ...]) -> Float[Tensor, "source channel time"]:
            # What gives sources of any kind gives all of them, to be matched with the references.
            asked = prompts if loaded.model.names_sources else loaded.model.config.outputs
            return separate_waveform(engine, item.mixture, asked).sources

        return separate

    return Evaluated(name, digest, loaded.prompts, by_rules, loaded.prompt_digests)


def stems_to_evaluate(folder: Path) -> Evaluated:
    """Finished stems of any tool: ``folder/MIXTURE/STEM.wav``, named like the mixtures.

    Raises:
        DataError: If there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one that holds MIXTURE/STEM.wav.")

    def separate(item: Item, prompts: tuple[str, ...]) -> Float[Tensor, "source channel time"]:
        return torch.stack(
            [_read_stem(folder / item.name, stem, item) for stem in stem_names(prompts)]
        )

    return Evaluated(folder.name, "", None, lambda protocol: separate)


def evaluate(
    task: Task,
    evaluated: Evaluated,
    options: EvaluateOptions,
    on_step: StepCallback = lambda step: None,
) -> Evaluation:
    """Measure on all mixtures of a task, and write the results.

    What was measured by a run that was stopped is not measured again; a finished run is read
    and given back.

    Args:
        task: What to measure on, and how.
        evaluated: What to measure.
        options: Where results go, and what is in them.
        on_step: Called after each mixture.

    Raises:
        ConfigError: If the folder holds results of something else, or a measure is unknown.
        MissingExtra: If a measure needs a package that is not installed.
        PromptError: If the model does not know a prompt of the task.
        DataError: If a mixture cannot be read, or the task has none.
        AudioError: If results cannot be written.
    """
    check_packages(task.protocol.measures)
    folder = options.out_dir / safe_name(evaluated.name) / safe_name(task.name)
    info = _info(task, evaluated, options)
    finished = folder / RESULTS_NAME
    if finished.is_file() and not options.overwrite:
        run = read_run(finished)
        _check_same(run.info, info, finished)
        return Evaluation(run, summarise(run), folder, was_there=True)
    make_folder(folder)
    separate = evaluated.separate(task.protocol)
    items = _measure_all(task, evaluated, separate, info, folder, options, on_step)
    if not items:
        raise DataError(f"{task.name}: there is no mixture to measure on.")
    run = Run(info, items)
    summary = summarise(run)
    cases = _cases(task, evaluated, separate, run, options.num_cases)
    page = render_evaluation_page(
        run, summary, task.published, cases, title=task.title, notes=task.notes
    )
    write_whole(folder / SOURCES_NAME, csv_of_sources(run).encode())
    write_whole(folder / REPORT_NAME, page.encode())
    text = "\n".join([info_line(info), *map(item_line, items), ""])
    write_whole(finished, text.encode())
    (folder / _PARTIAL_NAME).unlink(missing_ok=True)
    return Evaluation(run, summary, folder, was_there=False)


def _measure_all(
    task: Task,
    evaluated: Evaluated,
    separate: Separate,
    info: RunInfo,
    folder: Path,
    options: EvaluateOptions,
    on_step: StepCallback,
) -> tuple[ItemResult, ...]:
    """Measure what was not measured yet, and keep each result as soon as it is there."""
    partial = folder / _PARTIAL_NAME
    known = {} if options.overwrite else _results_so_far(partial, info)
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write("\n".join([info_line(info), *map(item_line, known.values()), ""]))
            results = []
            for item in task.items(None):
                if item.name in known:
                    result = known[item.name]
                else:
                    asked = _with_known_prompts(item, evaluated.prompts, task.stand_in)
                    result, _ = measure_item(
                        asked, separate, task.protocol, with_oracles=_with_oracles(task, options)
                    )
                    file.write(item_line(result) + "\n")
                    file.flush()
                results.append(result)
                on_step(Step(task.name, len(results), task.num_items, "mixtures"))
            os.fsync(file.fileno())
    except OSError as error:
        raise AudioError(f"{partial}: cannot be written ({error.strerror}).") from error
    return tuple(results)


def _results_so_far(partial: Path, info: RunInfo) -> dict[str, ItemResult]:
    """What a run that was stopped has left; nothing where it was another run."""
    if not partial.is_file():
        return {}
    # The last line may be half written; whole ones end.
    lines = partial.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    try:
        if not whole or parse_info(whole[0], partial) != info:
            return {}
        return {result.item: result for result in parse_items(whole[1:], partial)}
    except DataError:
        return {}


def _check_same(there: RunInfo, wanted: RunInfo, file: Path) -> None:
    # Another version of unbraid may not measure otherwise, and its results stay good.
    if replace(there, version=wanted.version) == wanted:
        return
    differing = [
        name
        for name in wanted.__dataclass_fields__
        if getattr(there, name) != getattr(wanted, name)
    ]
    raise ConfigError(
        f"{file}: holds results of another run (other {', '.join(differing)}); choose another "
        "--out, or --overwrite them."
    )


def _info(task: Task, evaluated: Evaluated, options: EvaluateOptions) -> RunInfo:
    # As JSON has it: what is read back must be equal.
    protocol = dump(task.protocol)
    if evaluated.prompt_digests:
        protocol["taught"] = dict(evaluated.prompt_digests)
    return RunInfo(
        benchmark=task.name,
        model_name=evaluated.name,
        model_digest=evaluated.digest,
        measures=task.protocol.measures,
        protocol={**protocol, "oracles": _with_oracles(task, options)},
        version=__version__,
        items_digest=task.digest,
    )


def _with_oracles(task: Task, options: EvaluateOptions) -> bool:
    return options.with_oracles and task.has_oracles


def _cases(
    task: Task, evaluated: Evaluated, separate: Separate, run: Run, num_cases: int
) -> list[Case]:
    """The worst sources and the best, separated once more to be heard."""
    choices = choose_cases(run, num_worst=num_cases, num_best=num_cases)
    results = {result.item: result for result in run.items}
    by_item = {choice.item: choice for choice in choices}
    only_order = replace(task.protocol, measures=task.protocol.measures[:1])
    cases = {}
    for item in task.items(by_item.keys()) if by_item else ():
        asked = _with_known_prompts(item, evaluated.prompts, task.stand_in)
        _, estimates = measure_item(asked, separate, only_order, with_oracles=False)
        choice = by_item[item.name]
        cases[item.name] = make_case(
            asked, estimates, results[item.name], choice.stem, is_best=choice.is_best
        )
    return [cases[choice.item] for choice in choices]


def _with_known_prompts(item: Item, known: Sequence[str] | None, stand_in: str) -> Item:
    if known is None or not stand_in:
        return item
    prompts = tuple(name if name in known else stand_in for name in item.prompts)
    return replace(item, prompts=prompts)


def _separation_config(protocol: Protocol) -> SeparationConfig:
    match protocol.chunks:
        case "whole":
            return SeparationConfig(segment_s=_WHOLE_S, overlap_s=0.0)
        case "fixed":
            return SeparationConfig(
                segment_s=protocol.segment_s, overlap_s=protocol.overlap_s, join="mean"
            )
        case "model":
            return SeparationConfig()


def _read_stem(folder: Path, stem: str, item: Item) -> Float[Tensor, "channel time"]:
    files = [
        path
        for path in sorted(folder.glob(f"{glob.escape(stem)}.*"))
        if path.suffix.lower() in MEDIA_EXTENSIONS
    ]
    if not files:
        raise DataError(f"{folder}: holds no {stem}.wav (or any other audio format).")
    try:
        waveform = read(files[0])
    except AudioError as error:
        raise DataError(str(error)) from error
    expected = item.mixture
    if (waveform.sample_rate, waveform.samples.shape) != (
        expected.sample_rate,
        expected.samples.shape,
    ):
        raise DataError(
            f"{files[0]}: {waveform.num_channels} channels of {waveform.num_samples} samples at "
            f"{waveform.sample_rate} Hz, but the mixture has {expected.num_channels} of "
            f"{expected.num_samples} at {expected.sample_rate} Hz; stems must be as long as it."
        )
    return waveform.samples
