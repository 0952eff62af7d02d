"""``unbraid prompts``: what a model can be asked for, and prompts that others have taught it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unbraid.cli.console import one_line, print_rows, reports_errors, without_controls
from unbraid.cli.learning_flags import Seed

if TYPE_CHECKING:
    from unbraid.checkpoints import PromptFile
    from unbraid.checkpoints.prompt_store import StoredPrompt

prompts = typer.Typer(help="List prompts, share them and add to them.", no_args_is_help=True)

_Model = Annotated[
    str, typer.Option("--model", "-m", help="A model's name, its folder, or hf:owner/name.")
]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@prompts.command("list")
@reports_errors
def list_all(model: _Model = "mini", as_json: _AsJson = False) -> None:
    """List the prompts that a model has learned, and those that are installed for it."""
    from unbraid.checkpoints import model_fingerprint, resolve_model
    from unbraid.checkpoints.bundle import read_config
    from unbraid.checkpoints.prompt_store import installed_prompts
    from unbraid.prompts import NO_NAMES

    folder = resolve_model(model)
    config = read_config(folder)
    rows = [_learned(name, has_vectors=not config.outputs) for name in config.prompts]
    installed = installed_prompts(model_fingerprint(folder))
    rows += [_installed(name, path) for name, path in installed.items()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print(f"{one_line(model)}: {NO_NAMES}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "kind", "vectors", "clips", "gain in dB", "note", box=None)
    for row in rows:
        remark = f"damaged: {row['problem']}" if row["problem"] else row["note"]
        cells = (row["name"], row["kind"], _or_blank(row["num_vectors"]))
        scores = _scores(row["before_db"], row["after_db"], row["gain_error_db"])
        table.add_row(*cells, _or_blank(row["num_clips"]), scores, one_line(remark))
    Console(markup=False, highlight=False).print(table)


@prompts.command("show")
@reports_errors
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A prompt of the model, or a prompt file.")
    ],
    model: _Model = "mini",
    as_json: _AsJson = False,
) -> None:
    """Show what is known about a prompt: what it was made from, for which model, how good it is."""
    from unbraid.checkpoints import model_fingerprint, prompt_files, resolve_model
    from unbraid.checkpoints.bundle import read_config
    from unbraid.checkpoints.prompt_store import (
        find_installed,
        installed_prompts,
        open_installed,
        open_prompt,
    )
    from unbraid.prompts import canonical_name

    folder = resolve_model(model)
    config = read_config(folder)
    learned = name
    # As where prompts are asked for: an installed one comes before another name of a learned one.
    if name not in installed_prompts(model_fingerprint(folder)):
        learned = canonical_name(name)
    if learned in config.prompts:
        row = _learned(learned, has_vectors=not config.outputs)
        if as_json:
            print(json.dumps(row, indent=2))
        else:
            also = {"asked as": f"{name}, another name of it"} if learned != name else {}
            print_rows({"name": learned, "kind": f"learned by {model}", **also})
        return
    if prompt_files.is_prompt_path(name):
        stored = open_prompt(Path(name))
    else:
        stored = open_installed(find_installed(name, folder))
    fits = stored.prompt.fingerprint == model_fingerprint(folder)
    if as_json:
        whole = {
            **_taught(stored),
            "dim": stored.prompt.vectors.shape[1],
            "fingerprint": stored.prompt.fingerprint,
            "is_for_model": fits,
            "provenance": dict(stored.prompt.provenance),
        }
        print(json.dumps(whole, indent=2))
        return
    prompt = stored.prompt
    rows = {
        "name": prompt.name,
        "kind": "taught",
        "vectors": f"{prompt.num_vectors} of {prompt.vectors.shape[1]} numbers",
        "clips": _or_blank(prompt.num_clips),
        "gain in dB": _scores(prompt.before_db, prompt.after_db, prompt.gain_error_db),
        "verdict": one_line(prompt.text(prompt_files.VERDICT)),
        "where absent": _absent(prompt.absent_db, prompt.absent_worst_db),
        "fits": model if fits else f"another model than {model}",
        "fingerprint": prompt.fingerprint,
        "file": one_line(stored.path),
        "sha256": stored.digest,
    }
    print_rows({label: value for label, value in rows.items() if value})
    print("\nWhat it was made from\n")
    # Files of others may hold anything, also what moves a terminal's cursor.
    told = json.dumps(dict(prompt.provenance), indent=2, ensure_ascii=False)
    print("\n".join(map(without_controls, told.splitlines())))


@prompts.command("install")
@reports_errors
def install(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file that ends in .prompt.safetensors.")
    ],
    model: _Model = "mini",
    name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Call it so.", show_default="its own name"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an installed prompt of that name.")
    ] = False,
) -> None:
    """Copy a prompt file to where `separate --prompts NAME` finds it."""
    from unbraid.checkpoints import resolve_model
    from unbraid.checkpoints.prompt_store import install_prompt

    stored = install_prompt(path, resolve_model(model), name=name, overwrite=overwrite)
    licence = stored.prompt.text("licence")
    print(f"{stored.name}: installed for {model}" + (f", {one_line(licence)}" if licence else ""))
    print(f"written to {one_line(stored.path)}")


@prompts.command("remove")
@reports_errors
def remove(
    name: Annotated[str, typer.Argument(help="An installed prompt.")], model: _Model = "mini"
) -> None:
    """Remove an installed prompt from the disk."""
    from unbraid.checkpoints import resolve_model
    from unbraid.checkpoints.prompt_store import remove_prompt

    print(f"removed {one_line(remove_prompt(name, resolve_model(model)))}")


@prompts.command("map")
@reports_errors
def draw_map(
    sounds: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDER]...",
            help="Folders of clips of a sound each, for a model with a tagger.",
            show_default=False,
        ),
    ] = None,
    model: _Model = "mini",
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            "-p",
            help="Taught prompts to show: names or files, commas between them.",
            show_default="all that are installed for the model",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where the picture goes.")
    ] = Path("prompts.png"),
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture.")] = False,
) -> None:
    """Draw which prompts and clips lie near each other, as a picture in two dimensions."""
    from unbraid.apps.prompt_map import map_png, placed, points_of, sounds_in
    from unbraid.apps.whole_files import write_whole
    from unbraid.checkpoints import find_prompts, load_bundle, model_fingerprint, resolve_model
    from unbraid.checkpoints.prompt_store import installed_prompts
    from unbraid.errors import ConfigError

    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out {out}: the picture is a PNG; let its name end in .png.")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out}: exists already; choose another --out, or --overwrite.")
    folder = resolve_model(model)
    asked = list(installed_prompts(model_fingerprint(folder)))
    if prompts is not None:
        asked = [name.strip() for name in prompts.split(",") if name.strip()]
    found = find_prompts(folder, asked)
    taught = {name: stored.prompt.vectors for name, stored in found.taught.items()}
    points = points_of(load_bundle(folder).model, taught, sounds_in(sounds or []))
    write_whole(out, map_png(points, placed(points, seed)))
    print(f"{len(points)} points; written to {one_line(out)}")


# ------------------------------------------------------------------ output


def _learned(name: str, *, has_vectors: bool) -> dict[str, Any]:
    return _row(name, "learned", num_vectors=int(has_vectors))


def _installed(name: str, path: Path) -> dict[str, Any]:
    from unbraid.checkpoints.prompt_store import open_installed
    from unbraid.errors import UnbraidError

    try:
        return _taught(open_installed(path))
    except UnbraidError as error:
        return _row(name, "taught", path=str(path), problem=str(error))


def _taught(stored: StoredPrompt) -> dict[str, Any]:
    from unbraid.checkpoints import prompt_files

    prompt: PromptFile = stored.prompt
    return _row(
        prompt.name,
        "taught",
        num_vectors=prompt.num_vectors,
        num_clips=prompt.num_clips,
        before_db=prompt.before_db,
        after_db=prompt.after_db,
        gain_error_db=prompt.gain_error_db,
        absent_db=prompt.absent_db,
        absent_worst_db=prompt.absent_worst_db,
        created=prompt.text(prompt_files.CREATED),
        licence=prompt.text(prompt_files.LICENCE),
        note=prompt.text(prompt_files.NOTE),
        path=str(stored.path),
        digest=stored.digest,
    )


def _row(name: str, kind: str, **known: object) -> dict[str, Any]:
    """A prompt as plain data, with the same keys for all."""
    return {
        "name": name,
        "kind": kind,
        "num_vectors": None,
        "num_clips": None,
        "before_db": None,
        "after_db": None,
        "gain_error_db": None,
        "absent_db": None,
        "absent_worst_db": None,
        "created": "",
        "licence": "",
        "note": "",
        "path": None,
        "digest": "",
        "problem": "",
        **known,
    }


def _scores(before_db: float | None, after_db: float | None, error_db: float | None) -> str:
    if before_db is None and after_db is None:
        return ""
    before, after = ("?" if each is None else f"{each:.1f}" for each in (before_db, after_db))
    error = "" if error_db is None else f" (± {error_db:.1f})"
    return f"{before} -> {after}{error}"


def _absent(median_db: float | None, worst_db: float | None) -> str:
    """How silent the stem is where there is nothing for it."""
    if median_db is None:
        return ""
    worst = "" if worst_db is None else f", {worst_db:.1f} dB at worst"
    return f"{median_db:.1f} dB relative to the mixture (median){worst}"


def _or_blank(number: int | None) -> str:
    return "" if number is None else str(number)
