"""``unbraid separate``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unbraid._version import __version__
from unbraid.cli.console import Bar, one_line, print_error, print_warning, reports_errors

if TYPE_CHECKING:
    from unbraid.apps.separate_files import FileResult

_DEFAULT_PROMPTS = "speech,sfx-mix,music-mix"
# The same as audio.DEFAULT_TEMPLATE, which cannot be imported here: it pulls in torch.
_DEFAULT_TEMPLATE = "{model}/{track}/{stem}.{ext}"
_OF_THE_MODEL = "as the model was made for"


@reports_errors
def separate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="The recordings.")],
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompts",
            "-p",
            metavar="NAMES",
            help="What to separate into: names with commas between them; may be repeated, and "
            "equal names are allowed.",
            show_default=_DEFAULT_PROMPTS,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="A model's name, its folder, or hf:owner/name."),
    ] = "mini",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where the stems go.")
    ] = Path("separated"),
    device: Annotated[
        str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:1, or mps.")
    ] = "auto",
    segment: Annotated[
        float | None,
        typer.Option(help="Length of a chunk in seconds.", show_default=_OF_THE_MODEL),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(help="Overlap of neighbouring chunks in seconds.", show_default=_OF_THE_MODEL),
    ] = None,
    wav: Annotated[bool, typer.Option("--wav", help="Write WAV (this is the default).")] = False,
    flac: Annotated[bool, typer.Option("--flac", help="Write FLAC.")] = False,
    int24: Annotated[
        bool, typer.Option("--int24", help="24 bits instead of the recording's own depth.")
    ] = False,
    float32: Annotated[
        bool, typer.Option("--float32", help="32-bit float, which never clips (WAV only).")
    ] = False,
    filename: Annotated[
        str, typer.Option(metavar="TEMPLATE", help="How stems are named below --out.")
    ] = _DEFAULT_TEMPLATE,
    residual: Annotated[
        bool, typer.Option("--residual", help="Also write what the stems leave of the mixture.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Separate again what is finished already.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document with the results.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print errors only (and the JSON, if asked for).")
    ] = False,
) -> None:
    """Separate recordings into the sources you name.

    Stems have the length, sample rate and channels of their recording.
    Beside them, separation.json says how they were made.
    A recording whose stems are finished is skipped.
    """
    from unbraid.apps.separate_files import SeparateOptions, separate_files
    from unbraid.apps.separator import load_separator
    from unbraid.audio import FormatChoice
    from unbraid.checkpoints import model_info
    from unbraid.cli.devices import parse_device
    from unbraid.errors import ConfigError
    from unbraid.separation.settings import SeparationConfig

    if wav and flac:
        raise ConfigError("--wav and --flac exclude each other; choose one.")
    for flag, seconds in (("--segment", segment), ("--overlap", overlap)):
        if seconds is not None and not math.isfinite(seconds):
            raise ConfigError(f"{flag} {seconds}: must be a number of seconds.")
    audio_format = FormatChoice(flac=flac, int24=int24, float32=float32)
    chosen_device = parse_device(device)
    info = model_info(model)
    options = SeparateOptions(
        model_name=info.name.removeprefix("hf:"),
        model_digest=info.digest,
        audio_format=audio_format,
        template=filename,
        has_residual=residual,
        overwrite=overwrite,
    )
    config = SeparationConfig(segment_s=segment, overlap_s=overlap)
    separator = load_separator(info.path, config, device=chosen_device)
    with Bar(is_shown=not quiet) as bar:

        def show(result: FileResult) -> None:
            with bar.aside():
                _show(result, is_quiet=quiet, is_json=as_json)

        results = separate_files(
            separator,
            files,
            split_names([_DEFAULT_PROMPTS] if prompts is None else prompts),
            out,
            options,
            on_progress=lambda path, progress: bar.update(path.name, progress),
            on_result=show,
        )
    if as_json:
        print(json.dumps(_document(results), indent=2))
    raise typer.Exit(_exit_code(results))


def split_names(values: Sequence[str]) -> list[str]:
    """Names from values with commas between them; blanks and empty names are dropped.

    >>> split_names(["speech, speech", "sfx-mix"])
    ['speech', 'speech', 'sfx-mix']
    """
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def _exit_code(results: Sequence[FileResult]) -> int:
    return next((result.error.exit_code for result in results if result.error is not None), 0)


def _show(result: FileResult, *, is_quiet: bool, is_json: bool) -> None:
    if result.error is not None:
        print_error(result.error)
        return
    if is_quiet:
        return
    for warning in result.warnings:
        print_warning(f"{result.path}: {warning}")
    if is_json:
        return
    folder = one_line(result.sidecar.parent)
    if result.status == "skipped":
        print(f"{one_line(result.path)}: finished already, see {folder} (--overwrite redoes it)")
        return
    print(f"{one_line(result.path)} -> {folder}")
    width = max(len(name) for name in result.stems)
    for name, file in result.stems.items():
        level = result.record["stems"][name]["level_dbfs"]
        shown = "silent" if level is None else f"{level:.1f} dBFS"
        print(f"  {name:{width}}  {shown:>11}  {one_line(file.name)}")
    ratio_db = result.record["residual_to_mixture_db"]
    if ratio_db is not None:
        print(f"  left over: {ratio_db:.1f} dB (mixture minus stems, relative to the mixture)")


def _document(results: Sequence[FileResult]) -> dict[str, Any]:
    """The JSON document of ``--json``."""
    return {
        "unbraid": __version__,
        "exit_code": _exit_code(results),
        "results": [
            {
                "path": str(result.path),
                "status": result.status,
                "sidecar": None if result.error else str(result.sidecar),
                "stems": {name: str(file) for name, file in result.stems.items()},
                "warnings": list(result.warnings),
                "error": None
                if result.error is None
                else {
                    "kind": type(result.error).__name__,
                    "message": one_line(result.error),
                    "exit_code": result.error.exit_code,
                },
                "record": dict(result.record) or None,
            }
            for result in results
        ],
    }
