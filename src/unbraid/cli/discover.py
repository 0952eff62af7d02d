"""``unbraid discover``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unbraid.cli.console import Bar, one_line, print_warning, reports_errors

if TYPE_CHECKING:
    from unbraid.apps.discover import Discovery
    from unbraid.types import Progress

#: So many stretches of a source are printed; the record has all.
_MOST_SHOWN = 6


@reports_errors
def discover(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording, or a video.")],
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="A model's name, its folder, or hf:owner/name."),
    ] = "mini",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where the results go.")
    ] = Path("discovered"),
    threshold: Annotated[
        float,
        typer.Option(
            metavar="0..1",
            help="How sure it must be that a sound is there; less finds more, also what is absent.",
        ),
    ] = 0.5,
    track: Annotated[
        int | None,
        typer.Option(
            help="Which audio track of the file, counted from 1.", show_default="the file's default"
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:1, or mps.")
    ] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Do again what is finished already.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was found as one JSON object.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print errors only (and the JSON, if asked for).")
    ] = False,
) -> None:
    """Find out what is in a recording: how many sources, which, and when; and write them.

    Tries the prompts that the model has learned, and those that are installed for it.
    Beside the stems stand discovery.json and a picture, discovery.png.
    """
    from unbraid.apps.discover import discover as discover_recording
    from unbraid.cli.devices import parse_devices
    from unbraid.errors import ConfigError

    devices = parse_devices(device)
    if len(devices) > 1:
        raise ConfigError(f"--device {device}: one recording needs one device.")
    with Bar(is_shown=not quiet) as bar:
        shown: list[str] = []

        def show(stage: str, progress: Progress) -> None:
            for former in shown:
                if former != stage:
                    bar.remove(former)
            shown[:] = [stage]
            bar.update(stage, progress)

        found = discover_recording(
            file,
            model,
            out,
            threshold=threshold,
            overwrite=overwrite,
            track=track,
            device=devices[0],
            progress=show,
        )
    if not quiet:
        for warning in found.warnings:
            print_warning(f"{file}: {warning}")
    if as_json:
        files = {"folder": str(found.sidecar.parent), "picture": str(found.picture)}
        print(json.dumps({"status": found.status, **files, **found.record}))
    elif not quiet:
        _show(found)


def _show(found: Discovery) -> None:
    path, folder = one_line(found.path), one_line(found.sidecar.parent)
    if found.status == "skipped":
        print(f"{path}: finished already, see {folder} (--overwrite redoes it)")
    if not found.sources:
        print(f"{path}: no sound is in it")
        return
    count = len(found.sources)
    print(f"{path}: {count} source{'s' if count > 1 else ''} -> {folder}")
    width = max(len(_title(source.name, source.prompt)) for source in found.sources)
    for source in found.sources:
        level = "silent" if source.level_dbfs is None else f"{source.level_dbfs:.1f} dBFS"
        sureness = "" if source.sureness is None else f"  sure {source.sureness:.0%}"
        title = _title(source.name, source.prompt)
        print(f"  {title:{width}}  {level:>11}{sureness}  {_times(source.intervals)}")
        if source.sounds_like is not None:
            print(f"  {'':{width}}  sounds like: {source.sounds_like}")
    if found.perhaps:
        doubtful = ", ".join(f"{name} ({sure:.0%})" for name, sure in found.perhaps.items())
        print(f"  perhaps also: {doubtful}; a lower --threshold takes it for there")
    print(f"  picture: {one_line(found.picture)}")
    print(f"Separate it so: {found.command}")


def _title(name: str, prompt: str) -> str:
    """The stem, and what it answers to where its name does not say so."""
    return name if name.startswith(prompt) else f"{name} ({prompt})"


def _times(intervals: tuple[tuple[float, float], ...]) -> str:
    """Some stretches in seconds.

    >>> _times(((0.0, 2.5), (4.0, 6.0)))
    '0.0-2.5, 4.0-6.0 s'
    >>> _times(((0.0, 0.004),))
    '0.000-0.004 s'
    """
    if not intervals:
        return "hardly heard"
    shown_s = intervals[:_MOST_SHOWN]
    # As many digits as it takes to tell the ends of the shortest apart, tenths as a rule.
    shortest_s = min(end_s - start_s for start_s, end_s in shown_s)
    digits = next((count for count in range(1, 6) if shortest_s >= 10.0**-count), 6)
    shown = ", ".join(f"{start_s:.{digits}f}-{end_s:.{digits}f}" for start_s, end_s in shown_s)
    more = len(intervals) - _MOST_SHOWN
    return f"{shown} s" + (f" and {more} more" if more > 0 else "")
