"""``unbraid train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unbraid.cli.console import reports_errors


@reports_errors
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A recipe, YAML or JSON.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting of the recipe, for example max_steps=1000; may be repeated.",
            show_default=False,
        ),
    ] = None,
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
) -> None:
    """Train a model by a recipe."""
    from unbraid.training import run

    bundle = run.train(config, overrides or [], out, resume)
    print(f"written to {bundle}")
