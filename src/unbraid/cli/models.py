"""``unbraid models``: what is there, what it may be used for, and how to add to it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unbraid.cli.console import one_line, print_rows, reports_errors

if TYPE_CHECKING:
    from unbraid.checkpoints import Bundle, ModelInfo
    from unbraid.checkpoints.known_models import KnownModel
    from unbraid.checkpoints.upkeep import Verification

models = typer.Typer(help="List models and add to them.", no_args_is_help=True)


@models.command("list")
@reports_errors
def list_all(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the models inside the package, your own, and those that can be downloaded."""
    from unbraid.checkpoints import list_models
    from unbraid.checkpoints.catalogue import missing_models

    at_hand, missing = list_models(), missing_models()
    if as_json:
        rows = [*map(_plain, at_hand), *map(_plain_known, missing)]
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "origin", "rate, parameters, licence, sources", box=None)
    for info in at_hand:
        table.add_row(info.name, info.origin, _summary(info))
    for known in missing:
        table.add_row(known.name, "not here", _summary_of_known(known))
    Console(markup=False, highlight=False).print(table)


@models.command("info")
@reports_errors
def info(
    name: Annotated[str, typer.Argument(help="A model's name, its folder, or hf:owner/name.")],
) -> None:
    """Show what a model knows, where it comes from, and its card."""
    from unbraid.checkpoints import model_info
    from unbraid.checkpoints.bundle import read_card
    from unbraid.checkpoints.catalogue import missing_models

    missing = {known.name: known for known in missing_models()}
    if name in missing and not Path(name).is_dir():
        _print_known(missing[name])
        return
    found = model_info(name)
    rows = {
        "name": found.name,
        "description": found.description,
        "prompts": ", ".join(found.prompts),
        "installed": _installed_prompts(found.path),
        "parameters": f"{found.num_parameters:,}",
        "sample rate": f"{found.sample_rate} Hz",
        "licence": found.licence,
        "source": found.source,
        "origin": found.origin,
        "folder": str(found.path),
        "sha256": found.digest,
    }
    print_rows(rows)
    print()
    print(read_card(found.path).text)


@models.command("download")
@reports_errors
def download(
    name: Annotated[
        str,
        typer.Argument(
            help="A name that `unbraid models list` shows as not here, or hf:owner/name."
        ),
    ],
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Agree to the licence without being asked.")
    ] = False,
    keep_files: Annotated[
        bool,
        typer.Option("--keep-files", help="Keep the publisher's files when they are imported."),
    ] = False,
) -> None:
    """Fetch a released checkpoint and add it to your models.

    What was interrupted goes on where it stopped. Nothing is used whose digest is not the one
    that its publisher lists.
    """
    from unbraid.checkpoints import load_bundle, resolve_model
    from unbraid.checkpoints.fetching import download_model, find_downloadable, find_downloaded
    from unbraid.checkpoints.hub import PREFIX
    from unbraid.cli.work_bar import WorkBar

    if name.startswith(PREFIX):
        bundle = load_bundle(resolve_model(name))
        print(_headline(name, bundle))
        print(f"kept in {bundle.folder}")
        return
    known = find_downloadable(name)
    if (folder := find_downloaded(name)) is not None:
        print(f"{name}: is here already, in {folder}")
        return
    _agree(known, accept_licence)
    try:
        with WorkBar() as bar:
            bundle = download_model(
                name, accept_licence=True, keep_files=keep_files, progress=bar.update
            )
    except KeyboardInterrupt:
        # Unlike almost everywhere else, something half-done stays.
        print("interrupted; what was fetched is kept for the next time.", file=sys.stderr)
        raise typer.Exit(130) from None
    print(_headline(name, bundle))
    print(f"sources: {known.outputs_in_words}")
    print(f"written to {bundle.folder}")


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
    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="What the outputs of a model without prompts hold, in order, names with commas "
            "between them.",
            show_default="as the files say",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="What to call the model.", show_default="as its folder or file is called"
        ),
    ] = None,
    tagger: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The checkpoint of the tagger that makes queries for it, so that it can be asked "
            "by example.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Turn a released checkpoint into a model that `separate --model` takes."""
    from unbraid.checkpoints import import_released
    from unbraid.checkpoints.upkeep import note_digest
    from unbraid.cli.separate import split_names

    named = split_names([outputs]) if outputs is not None else None
    bundle = import_released(path, out, name, outputs=named, tagger=tagger)
    note_digest(bundle.folder)
    print(_headline(bundle.card.name, bundle))
    if bundle.model.tagger is not None:
        print("with a tagger: ask it by example, with `unbraid separate --query CLIP`")
    if bundle.config.prompts:
        print(f"prompts: {', '.join(bundle.config.prompts)}")
    print(f"written to {bundle.folder}")


@models.command("convert")
@reports_errors
def convert(
    source: Annotated[
        str, typer.Argument(help="A model without prompts: its name, its folder, or hf:owner/name.")
    ],
    target: Annotated[
        str, typer.Option("--to", metavar="ARCHITECTURE", help="What to make of it: tuss.")
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="NAME",
            help="Its name among your models, or its folder, with a / in it.",
        ),
    ],
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            "-p",
            metavar="NAMES",
            help="What it is to be asked for, names with commas between them.",
            show_default="the usual eight",
        ),
    ] = None,
    loudest_on: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take the decoder's last layer from the output that is loudest on this recording.",
            show_default="a fresh layer",
        ),
    ] = None,
) -> None:
    """Begin a TUSS with the weights of a model that was trained without prompts.

    The new model has to be trained before it separates anything.
    """
    from unbraid.apps.convert_model import convert_model
    from unbraid.cli.separate import split_names

    named = split_names([prompts]) if prompts is not None else None
    bundle, conversion = convert_model(source, target, out, named, loudest_on)
    print(_headline(bundle.card.name, bundle))
    print(f"taken over: {len(conversion.taken)} tensors")
    print(f"fresh: {len(conversion.fresh)} tensors and {len(bundle.config.prompts)} prompts")
    print(f"written to {bundle.folder}")
    if Path(out).name == out:
        print(f"one of your models now: -m {out} finds it anywhere (--out ./{out} writes it here)")


@models.command("verify")
@reports_errors
def verify(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A model's name, its folder, or hf:owner/name.",
            show_default="all inside the package and all of your own",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare models with the digest that was noted when they were imported.

    Leaves with exit code 5 if one has been changed or damaged.
    """
    from unbraid.checkpoints.upkeep import verify_models
    from unbraid.errors import CheckpointError

    found = verify_models(name)
    if as_json:
        print(json.dumps([_plain_verification(model) for model in found], indent=2))
    else:
        for model in found:
            print(f"{model.name}: {_verdict(model)}")
    wrong = [model.name for model in found if not model.is_as_written]
    if wrong:
        raise CheckpointError(
            f"{', '.join(wrong)}: not what was written; remove what is wrong with "
            "`unbraid models remove` and get it again."
        )


@models.command("remove")
@reports_errors
def remove(
    name: Annotated[str, typer.Argument(help="One of your models.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
) -> None:
    """Remove one of your models from the disk.

    You are asked first, unless the model can be downloaded again.
    """
    from unbraid.checkpoints import known_models
    from unbraid.checkpoints.upkeep import removable_model, remove_model
    from unbraid.errors import Cancelled, ConfigError

    folder = removable_model(name)
    known = known_models.find(name)
    if not yes and (known is None or not known.can_be_fetched):
        if not _somebody_is_there():
            raise ConfigError(f"{name}: nobody is there to agree to remove it; add --yes.")
        if not typer.confirm(f"Remove {folder}? It cannot be downloaded again.", err=True):
            raise Cancelled("nothing was removed.")
    print(f"removed {remove_model(name)}")


@models.command("inspect")
@reports_errors
def inspect(
    name: Annotated[str, typer.Argument(help="A model's name, its folder, or hf:owner/name.")],
    attention: Annotated[
        Path,
        typer.Option(
            "--attention", metavar="OUT.png", help="Draw which bins each band looks at, and back."
        ),
    ],
    recording: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What it hears.", show_default="a scene of the demo"),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            "-p",
            metavar="NAMES",
            help="What it is asked for, names with commas between them.",
            show_default="its first three",
        ),
    ] = None,
) -> None:
    """Show where the queries of a model with spectral feature compression look."""
    from unbraid.apps.inspect_attention import inspect_attention
    from unbraid.checkpoints import load_bundle, resolve_model
    from unbraid.cli.separate import split_names

    bundle = load_bundle(resolve_model(name))
    asked = split_names([prompts]) if prompts is not None else None
    weights = inspect_attention(bundle, attention, recording, asked)
    num_heads, num_bands, num_bins = weights.encoder.shape
    print(f"{num_heads} heads, {num_bands} bands, {num_bins} bins; drawn to {one_line(attention)}")


@models.command("path")
@reports_errors
def path() -> None:
    """Print the folder in which your own models are kept."""
    from unbraid.folders import user_models_dir

    print(user_models_dir())


# ------------------------------------------------------------------ questions


def _agree(known: KnownModel, accept_licence: bool) -> None:
    """Say what is fetched under which licence, and go on only if that is wanted."""
    from unbraid.downloads import size_in_words
    from unbraid.errors import Cancelled, ConfigError

    print(
        f"{known.title}\nfrom {known.source}, {size_in_words(known.size_bytes)}, {known.licence}",
        file=sys.stderr,
    )
    if accept_licence or not known.needs_consent:
        return
    if not _somebody_is_there():
        raise ConfigError(
            f"{known.name}: nobody is there to agree to its licence ({known.licence}); "
            "add --accept-licence."
        )
    if not typer.confirm(f"Do you agree to {known.licence}?", err=True):
        raise Cancelled("nothing was fetched.")


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


# ------------------------------------------------------------------ output


def _headline(name: str, bundle: Bundle) -> str:
    """A model that has just come: what it is called, its size, and its licence."""
    return f"{name}: {bundle.model.num_parameters:,} parameters, licence: {bundle.card.licence}"


def _installed_prompts(folder: Path) -> str:
    from unbraid.checkpoints import model_fingerprint
    from unbraid.checkpoints.prompt_store import installed_prompts

    names = installed_prompts(model_fingerprint(folder))
    number = f"{len(names)} prompt{'' if len(names) == 1 else 's'}"
    return f"{number} ({', '.join(names)})" if names else number


def _print_known(known: KnownModel) -> None:
    from unbraid.checkpoints.catalogue import how_to_get
    from unbraid.downloads import size_in_words

    rows = {
        "name": known.name,
        "description": known.title,
        "sources": known.outputs_in_words,
        "sample rate": f"{known.sample_rate} Hz",
        "licence": known.licence,
        "source": known.source,
        "origin": "not here",
    }
    if known.num_parameters is not None:
        rows["parameters"] = f"{known.num_parameters:,}"
    if known.can_be_fetched:
        rows["to download"] = size_in_words(known.size_bytes)
        rows["file"] = known.files[-1].url
        rows["file sha256"] = known.files[-1].sha256
    print_rows(rows)
    print(f"\n{known.name} is not here; {how_to_get(known)}\n\n{known.paper}\n\n{known.notes}")


def _summary(info: ModelInfo) -> str:
    """A model that is here, in a few lines."""
    if info.is_damaged:
        return f"damaged: {one_line(info.description)}"
    first = f"{info.sample_rate} Hz, {_in_millions(info.num_parameters)}, {info.licence}"
    return f"{first}\n{', '.join(info.prompts)}"


def _summary_of_known(known: KnownModel) -> str:
    """A model that is not here, in a few lines."""
    from unbraid.downloads import size_in_words

    count = "" if known.num_parameters is None else f", {_in_millions(known.num_parameters)}"
    how = f"{size_in_words(known.size_bytes)} to download" if known.can_be_fetched else "by hand"
    return f"{known.sample_rate} Hz{count}, {known.licence}\n{known.outputs_in_words}\n{how}"


def _in_millions(num_parameters: int) -> str:
    return f"{num_parameters / 1e6:.1f} M"


def _verdict(model: Verification) -> str:
    return {
        "intact": f"intact, {model.found}",
        "changed": f"CHANGED, {model.noted} was written but {model.found} is there",
        "unnoted": f"readable, but no digest was noted when it was written; it is {model.found}",
        "damaged": f"DAMAGED, {one_line(model.problem)}",
    }[model.state]


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
        "is_here": True,
        "download_bytes": None,
    }


def _plain_known(known: KnownModel) -> dict[str, Any]:
    return {
        "name": known.name,
        "num_parameters": known.num_parameters,
        "sample_rate": known.sample_rate,
        "licence": known.licence,
        "origin": "released",
        "source": known.source,
        "description": known.title,
        "prompts": list(known.outputs),
        "path": None,
        "digest": "",
        "is_damaged": False,
        "is_here": False,
        "download_bytes": known.size_bytes if known.can_be_fetched else None,
    }


def _plain_verification(model: Verification) -> dict[str, Any]:
    return {
        "name": model.name,
        "path": str(model.path),
        "state": model.state,
        "noted": model.noted,
        "found": model.found,
        "problem": model.problem,
    }
