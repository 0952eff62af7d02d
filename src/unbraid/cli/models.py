"""``unbraid models``: what is there, what it may be used for, and how to add to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unbraid.cli.console import reports_errors

if TYPE_CHECKING:
    from unbraid.checkpoints import ModelInfo

models = typer.Typer(help="List models and add to them.", no_args_is_help=True)


@models.command("list")
@reports_errors
def list_all(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the models inside the package and your own, with their licences."""
    from unbraid.checkpoints import list_models

    known = list_models()
    if as_json:
        print(json.dumps([_plain(info) for info in known], indent=2))
        return
    if not known:
        print("There are no models yet; `unbraid models import` adds one.")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "parameters", "sample rate", "licence", "origin", box=None)
    for info in known:
        if info.is_damaged:
            table.add_row(info.name, "", "", "damaged", info.origin)
        else:
            table.add_row(
                info.name,
                f"{info.num_parameters:,}",
                f"{info.sample_rate} Hz",
                info.licence,
                info.origin,
            )
    Console(markup=False, highlight=False).print(table)


@models.command("info")
@reports_errors
def info(
    name: Annotated[str, typer.Argument(help="A model's name, its folder, or hf:owner/name.")],
) -> None:
    """Show what a model knows, where it comes from, and its card."""
    from unbraid.checkpoints import model_info
    from unbraid.checkpoints.bundle import read_card

    found = model_info(name)
    rows = {
        "name": found.name,
        "description": found.description,
        "prompts": ", ".join(found.prompts),
        "parameters": f"{found.num_parameters:,}",
        "sample rate": f"{found.sample_rate} Hz",
        "licence": found.licence,
        "source": found.source,
        "origin": found.origin,
        "folder": str(found.path),
        "sha256": found.digest,
    }
    for label, value in rows.items():
        print(f"{label + ':':13}{value}")
    print()
    print(read_card(found.path).text)


@models.command("import")
@reports_errors
def import_one(
    path: Annotated[
        Path, typer.Argument(metavar="DIR", help="A released folder, .pth or Lightning .ckpt.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="BUNDLE",
            help="The folder to write.",
            show_default="a new one among your models",
        ),
    ] = None,
) -> None:
    """Turn a released checkpoint into a model that `separate --model` takes."""
    from unbraid.checkpoints import import_released

    bundle = import_released(path, out)
    print(f"{bundle.card.name}: {bundle.model.num_parameters:,} parameters, {bundle.card.licence}")
    print(f"prompts: {', '.join(bundle.config.prompts)}")
    print(f"written to {bundle.folder}")


@models.command("path")
@reports_errors
def path() -> None:
    """Print the folder in which your own models are kept."""
    from unbraid.folders import user_models_dir

    print(user_models_dir())


def _plain(info: ModelInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "num_parameters": info.num_parameters,
        "sample_rate": info.sample_rate,
        "licence": info.licence,
        "origin": info.origin,
        "source": info.source,
        "description": info.description,
        "prompts": list(info.prompts),
        "path": str(info.path),
        "digest": info.digest,
        "is_damaged": info.is_damaged,
    }
