"""``unbraid demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unbraid.cli.console import Bar, reports_errors


@reports_errors
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where everything goes.")
    ] = Path("unbraid-demo"),
    model: Annotated[
        str, typer.Option("--model", "-m", help="A model's name, its folder, or hf:owner/name.")
    ] = "mini",
) -> None:
    """Separate scenes that come with unbraid, measure the result, and make a page to listen to."""
    from unbraid.apps.demo import run_demo
    from unbraid.apps.separator import load_separator

    with Bar(is_shown=True) as bar:
        result = run_demo(
            load_separator(model), out, lambda progress: bar.update("separating", progress)
        )
    from rich.console import Console
    from rich.table import Table

    table = Table("SI-SDR in dB", box=None)
    for column in ("before", "after", "better by"):
        table.add_column(column, justify="right")
    for name, before_db, after_db, improvement_db in result.rows:
        table.add_row(name, f"{before_db:.1f}", f"{after_db:.1f}", f"{improvement_db:+.1f}")
    Console(markup=False, highlight=False).print(table)
    print(f"Listen to it: {result.page.absolute()}")
