"""``unbraid evaluate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unbraid.cli.console import one_line, reports_errors
from unbraid.cli.separate import split_names
from unbraid.cli.stem_translation import parse_stems

if TYPE_CHECKING:
    from unbraid.apps.evaluate import Evaluation
    from unbraid.evaluation.benchmark import PublishedResult
    from unbraid.evaluation.tables import Table
    from unbraid.evaluation.tasks import Task

_POOL = "pool"
_LEFT_OUT = "-"


@reports_errors
def evaluate(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BENCHMARK]...", help="pool, or what --list shows.", show_default=False
        ),
    ] = None,
    is_list: Annotated[bool, typer.Option("--list", help="List the benchmarks and leave.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The folder of the benchmark's corpus.", show_default=False
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="For pool: the manifest of the recordings.", show_default=False
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Your own mixtures and stems: SONG/STEM.wav, STEM/SONG.wav, a CSV file with a "
            "column per stem, or the unbraid-mixtures.jsonl of a corpus.",
            show_default=False,
        ),
    ] = None,
    stem: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PROMPT",
            help="For --folder: which prompt, or prompt file, a stem belongs to; NAME=- leaves it "
            "out.",
            show_default=False,
        ),
    ] = None,
    estimates: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Measure finished stems of any tool, MIXTURE/STEM.wav, in place of a model.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="A model's name, its folder, or hf:owner/name.")
    ] = "mini",
    device: Annotated[
        str, typer.Option("--device", "-d", help="auto, cpu, mps, cuda or cuda:1.")
    ] = "auto",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where results go.")
    ] = Path("evaluations"),
    measures: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="What to measure, names with commas between them; the first leads. "
            "`help` lists them.",
            show_default="what the benchmark asks for",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Only so many mixtures; of pool, so many of each scene.",
            show_default="all",
        ),
    ] = None,
    single_prompt: Annotated[
        bool, typer.Option("--single-prompt", help="Ask for one prompt at a time.")
    ] = False,
    segment: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Separate in chunks of this length.",
            show_default="as the rules say",
        ),
    ] = None,
    overlap: Annotated[
        float, typer.Option(metavar="SECONDS", help="How much such chunks share.")
    ] = 0.0,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="YAML",
            help="For pool: a recipe whose data.pools say what serves which prompt.",
            show_default="that of mini",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Which split of a manifest or of a list of mixtures to take.",
            show_default="eval of a manifest, all of a list",
        ),
    ] = None,
    oracles: Annotated[
        bool, typer.Option("--oracles/--no-oracles", help="Measure ideal masks, too.")
    ] = True,
    cases: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="How many of the worst sources, and of the best, to hear in the report.",
        ),
    ] = 3,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Measure again what is measured already.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print results as JSON, one object per line.")
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print tables as Markdown.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print errors only (and the JSON, if asked for).")
    ] = False,
) -> None:
    """Measure how good a model is: on published benchmarks, or on your own stems.

    Results go to DIR/MODEL/BENCHMARK: results.jsonl, sources.csv and report.html, a page with
    tables, distributions, and the worst and best mixtures to listen to. A run that was stopped
    goes on where it was.
    """
    if is_list:
        _list(as_json)
        return
    if measures == "help":
        _list_measures()
        return
    from unbraid.apps.evaluate import (
        EvaluateOptions,
        model_to_evaluate,
        stems_to_evaluate,
    )
    from unbraid.apps.evaluate import evaluate as run_task
    from unbraid.checkpoints import model_info
    from unbraid.cli.devices import parse_devices
    from unbraid.cli.tables import print_table
    from unbraid.cli.work_bar import WorkBar
    from unbraid.errors import ConfigError
    from unbraid.evaluation.tasks import changed
    from unbraid.prompts import ANY_SOURCE

    [first_device, *more] = parse_devices(device)
    if more:
        raise ConfigError(f"--device {device}: an evaluation runs on one device.")
    translation = parse_stems(stem or [])
    if estimates is None:
        info = model_info(model)
        added: list[Path] = []
        if info.prompts != (ANY_SOURCE,):
            translation, added = _with_files(translation, info.path)
        evaluated = model_to_evaluate(
            info.path, info.name.removeprefix("hf:"), info.digest, first_device, added
        )
    else:
        evaluated = stems_to_evaluate(estimates)
    tasks = _tasks(
        names or [], data, manifest, folder, translation, evaluated.prompts, recipe, split, limit
    )
    if evaluated.prompts == (ANY_SOURCE,):
        # It cannot be asked in other ways.
        tasks = [task for task in tasks if not task.is_side_question]
    wishes: dict[str, Any] = {
        "measures": tuple(split_names([measures])) if measures is not None else None,
        "single_prompt": True if single_prompt else None,
        "chunks": "fixed" if segment is not None else None,
        "segment_s": segment,
        "overlap_s": overlap if segment is not None else None,
    }
    options = EvaluateOptions(out, overwrite=overwrite, with_oracles=oracles, num_cases=cases)
    print_one = _print_markdown if as_markdown else print_table
    finished = []
    for task in tasks:
        with WorkBar(is_shown=not quiet and sys.stderr.isatty()) as bar:
            done = run_task(changed(task, **wishes), evaluated, options, bar.update)
        finished.append(done)
        if as_json:
            _print_json(done)
        elif not quiet:
            _print_tables(task, done, print_one)
    if len(finished) > 1 and not (as_json or quiet):
        _print_overview(finished, print_one)


def _tasks(
    names: Sequence[str],
    data: Path | None,
    manifest: Path | None,
    folder: Path | None,
    translation: Mapping[str, str],
    prompts: Sequence[str] | None,
    recipe: Path | None,
    split: str | None,
    limit: int | None,
) -> list[Task]:
    """What the arguments ask for."""
    from unbraid.apps.open_pool import pool_tasks
    from unbraid.errors import ConfigError
    from unbraid.evaluation.benchmarks import find_benchmark
    from unbraid.evaluation.tasks import benchmark_task, folder_task
    from unbraid.prompts import STANDARD_PROMPTS

    if not names and folder is None:
        raise ConfigError(
            "nothing to measure on: name a benchmark (--list shows them), or give your own stems "
            "with --folder."
        )
    tasks: list[Task] = []
    for name in names:
        if name == _POOL:
            if manifest is None:
                raise ConfigError(
                    "pool: needs recordings; give their manifest with --manifest "
                    "(`unbraid data prepare` writes one)."
                )
            tasks += pool_tasks(manifest, recipe=recipe, split=split or "eval", per_scene=limit)
            continue
        benchmark = find_benchmark(name)
        if data is None:
            raise ConfigError(
                f"{name}: needs the corpus {benchmark.corpus}; give its folder with --data "
                f"(`unbraid data info {benchmark.corpus}` says how to get it)."
            )
        tasks.append(benchmark_task(benchmark, data, limit))
    if folder is not None:
        known = STANDARD_PROMPTS if prompts is None else prompts
        tasks.append(folder_task(folder, known, translation, limit, split))
    return tasks


def _with_files(translation: Mapping[str, str], model: Path) -> tuple[dict[str, str], list[Path]]:
    """Stem → the name of its prompt, and the files of those that the model has not learned."""
    from unbraid.checkpoints import find_prompts

    kept = {stem: prompt for stem, prompt in translation.items() if prompt != _LEFT_OUT}
    asked = find_prompts(model, list(kept.values()))
    named = dict(zip(kept, asked.names, strict=True))
    return {**translation, **named}, [stored.path for stored in asked.taught.values()]


def _print_tables(task: Task, done: Evaluation, print_one: Callable[[Table], None]) -> None:
    from unbraid.evaluation.tables import measure_table, overall_line

    run, summary = done.run, done.summary
    print(f"\n{task.title}: {run.info.model_name}, {len(run.items)} mixtures")
    if task.notes:
        print(task.notes)
    if not task.is_side_question:
        leading, *others = summary.measures
        print_one(measure_table(run, summary, leading, task.published))
        rest = []
        for measure in others:
            if any(measure in _bases(result) for result in task.published):
                print_one(measure_table(run, summary, measure, task.published))
            else:
                rest.append(measure)
        if line := overall_line(summary, rest):
            print(line)
    again = " (measured before; --overwrite measures again)" if done.was_there else ""
    print(f"results in {one_line(done.folder)}{again}")


def _bases(result: PublishedResult) -> set[str]:
    from unbraid.evaluation.results import IMPROVEMENT

    return {measure.removesuffix(IMPROVEMENT) for measure in result.values}


def _print_overview(finished: Sequence[Evaluation], print_one: Callable[[Table], None]) -> None:
    from unbraid.evaluation.pool_overview import overview_table

    table = overview_table([done.run for done in finished])
    if table is not None:
        print("\nThe same mixtures, asked about in other ways")
        print_one(table)


def _print_markdown(table: Table) -> None:
    from unbraid.evaluation.tables import format_markdown

    print(f"\n{format_markdown(table)}")


def _print_json(done: Evaluation) -> None:
    from unbraid.evaluation.results import plain

    print(
        json.dumps(
            {
                "event": "result",
                "run": plain(done.run.info),
                "summary": plain(done.summary),
                "folder": str(done.folder),
            },
            allow_nan=False,
        ),
        flush=True,
    )


def _list(as_json: bool) -> None:
    from unbraid.evaluation.benchmarks import benchmarks

    rows: list[dict[str, str]] = [
        {
            "name": _POOL,
            "title": "Fixed mixtures from any manifest, all prompts and granularities",
            "corpus": "--manifest",
            "measure": "si_sdr_db",
        },
        *(
            {
                "name": each.name,
                "title": each.title,
                "corpus": each.corpus,
                "measure": each.protocol.measures[0],
            }
            for each in benchmarks().values()
        ),
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "what", "corpus", "leading measure", box=None)
    for row in rows:
        table.add_row(*row.values())
    Console(markup=False, highlight=False).print(table)


def _list_measures() -> None:
    from rich.console import Console
    from rich.table import Table

    from unbraid.evaluation.measures import MEASURES

    table = Table("name", "what", "better", box=None)
    for measure in MEASURES.values():
        table.add_row(measure.name, measure.description, measure.is_better)
    Console(markup=False, highlight=False).print(table)
