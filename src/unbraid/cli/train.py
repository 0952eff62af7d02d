"""``unbraid train``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unbraid.cli.console import duration_in_words, one_line, reports_errors
from unbraid.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from unbraid.training.dry_run import Figures, StageTrial


@reports_errors
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="The name of a recipe that comes with unbraid, or a file, YAML or JSON.",
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting of the recipe, for example max_steps=1000; may be repeated.",
            show_default=False,
        ),
    ] = None,
    list_recipes: Annotated[
        bool, typer.Option("--list", help="List the recipes that come with unbraid.")
    ] = False,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config", help="Print all settings of the recipe, as a file to run again."
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--fresh", help="Go on where the last run stopped, or insist on a new folder."
        ),
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Where the run keeps its files.",
            show_default="runs/NAME, by the recipe's name",
        ),
    ] = None,
    is_trial: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only try a few steps out: does it fit, learn, go on after a stop, how long does "
            "it take?",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print what was found as JSON.")
    ] = False,
) -> None:
    """Train a model by a recipe."""
    if list_recipes:
        _print_list()
        return
    if recipe is None:
        raise ConfigError("name a recipe, or a file; `unbraid train --list` shows what there is.")
    if print_config:
        from unbraid.training.recipe_files import load_recipe, write_config

        print(write_config(load_recipe(recipe, overrides or [])), end="")
        return
    # Before its neighbours: it says what to install where Lightning is missing.
    from unbraid.training import run

    if is_trial:
        _try_out(recipe, overrides or [], out, as_json)
        return
    if as_json:
        raise ConfigError("--json is for --dry-run; a run keeps its figures in its log.")
    from unbraid.cli.work_bar import WorkBar
    from unbraid.training.devices import is_first_rank

    is_first = is_first_rank()
    with WorkBar(is_first) as bar:
        bundle = run.train(recipe, overrides or [], out, resume, bar.update)
    if is_first:
        print(f"written to {bundle}")


def _try_out(recipe: str, overrides: list[str], out: Path | None, as_json: bool) -> None:
    from unbraid.cli.work_bar import WorkBar
    from unbraid.training.dry_run import dry_run

    with WorkBar() as bar:
        trials = dry_run(recipe, overrides, out, bar.update)
    if as_json:
        report = {
            "passed": all(trial.passed for trial in trials),
            "stages": [{"passed": trial.passed, **dataclasses.asdict(trial)} for trial in trials],
        }
        print(json.dumps(report, indent=2))
    else:
        for trial in trials:
            _print_trial(trial, has_name=len(trials) > 1)
    if not all(trial.passed for trial in trials):
        raise typer.Exit(TrainingError.exit_code)


def _print_trial(trial: StageTrial, *, has_name: bool) -> None:
    if has_name:
        print(f"{trial.stage}:")
    for check in trial.checks:
        print(f"  {'✓' if check.passed else '✗'} {check.name:12}{one_line(check.detail)}")
    if trial.figures is not None:
        print(f"  {_in_words(trial.figures)}")


def _in_words(figures: Figures) -> str:
    return (
        f"{figures.num_parameters:,} numbers learn on {figures.device}; a step on "
        f"{figures.batch_size} mixtures takes {figures.step_s:.3g} s, mixing them "
        f"{figures.mixing_s:.3g} s, a validation {figures.validation_s:.3g} s; about "
        f"{duration_in_words(figures.expected_s)} in all"
    )


def _print_list() -> None:
    from rich.console import Console
    from rich.table import Table

    from unbraid.training.recipe_files import summaries

    table = Table(box=None)
    table.add_column("name", no_wrap=True)
    table.add_column("parameters", justify="right")
    # Two columns of sentences beside each other would be too narrow to read.
    table.add_column("what it trains, and the corpora it needs")
    for each in summaries():
        corpora = ", ".join(each.corpora) or "recordings of your own"
        table.add_row(each.name, f"{each.num_parameters:,}", f"{each.description}\n{corpora}")
    Console(markup=False, highlight=False).print(table)
