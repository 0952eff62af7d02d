"""``unbraid compare``: two evaluations side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unbraid.cli.console import one_line, print_warning, reports_errors

if TYPE_CHECKING:
    from unbraid.evaluation.comparing import RunComparison


@reports_errors
def compare(
    first: Annotated[
        Path, typer.Argument(metavar="A", help="A folder of results, or its results.jsonl.")
    ],
    second: Annotated[
        Path, typer.Argument(metavar="B", help="Another one, measured on the same mixtures.")
    ],
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            metavar="NAME",
            help="Compare by this measure; may be given several times, the first one leads.",
            show_default="all that both have",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page to look at.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write every source of both in a line."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say by how much the second of two evaluations is better, and how sure that is."""
    from unbraid.apps.comparison_page import render_comparison_page
    from unbraid.apps.whole_files import write_whole
    from unbraid.evaluation.comparing import compare_runs
    from unbraid.evaluation.comparison_tables import csv_of_changes
    from unbraid.evaluation.results import plain, read_run

    comparison = compare_runs(read_run(first), read_run(second), measures or None)
    if html is not None:
        write_whole(html, render_comparison_page(comparison).encode())
    if csv is not None:
        write_whole(csv, csv_of_changes(comparison).encode())
    if as_json:
        print(json.dumps(plain(comparison), indent=2, allow_nan=False))
    else:
        _print(comparison)


def _print(comparison: RunComparison) -> None:
    from unbraid.cli.tables import print_table
    from unbraid.evaluation.comparison_tables import (
        changes_table,
        comparison_table,
        describe_run,
        leading_measure,
        losses_and_gains,
        measures_of,
        measures_table,
    )
    from unbraid.evaluation.tables import words_of

    print(f"first:  {one_line(describe_run(comparison.first))}")
    print(f"second: {one_line(describe_run(comparison.second))}")
    for warning in comparison.warnings:
        print_warning(warning)
    measure = leading_measure(comparison)
    if len(measures_of(comparison)) > 1:
        print()
        print_table(measures_table(comparison))
    print()
    print_table(comparison_table(comparison, measure))
    losses, gains = losses_and_gains(comparison)
    for title, changes in (("lost most", losses), ("gained most", gains)):
        if changes:
            print(f"\n{title}, {words_of(measure).heading}:")
            print_table(changes_table(changes, measure))
