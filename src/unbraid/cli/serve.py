"""``unbraid serve``."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import typer

from unbraid.cli import separation_flags as flags
from unbraid.cli.console import one_line, reports_errors

_TOKEN = "UNBRAID_TOKEN"
_MIB = 2**20
_GIB = 2**30


@reports_errors
def serve(
    model: flags.Model = "mini",
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompts",
            "-p",
            metavar="NAMES",
            help="Prompts to offer beside those that the model has learned: names of installed "
            "ones, or prompt files, with commas between them.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen on. Any but this machine's own needs a token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"A file with the token that clients must send; {_TOKEN} can hold it, too.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            "-d",
            help="auto, cpu, cuda, cuda:1, or mps; several with commas between them. One model is "
            "loaded on each.",
        ),
    ] = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            help="How many jobs each device works on at a time.",
            show_default="8 on a GPU, as many as cores on a processor, at most 4",
        ),
    ] = None,
    spool: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep jobs in this folder, where they outlive the server.",
            show_default="a temporary folder",
        ),
    ] = None,
    keep: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long stems are kept.")
    ] = 3600.0,
    grace: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="How long a running job may go on when the server stops."
        ),
    ] = 30.0,
    max_queue: Annotated[int, typer.Option(help="How many jobs may wait.")] = 100,
    max_upload: Annotated[float, typer.Option(metavar="MIB", help="Size of an upload.")] = 512.0,
    max_audio: Annotated[
        float, typer.Option(metavar="SECONDS", help="Length of a recording.")
    ] = 3600.0,
    max_channels: Annotated[int, typer.Option(help="Channels of a recording.")] = 8,
    max_stems: Annotated[int, typer.Option(help="Stems of a job.")] = 8,
    max_disk: Annotated[
        float, typer.Option(metavar="GIB", help="Uploads and stems that are kept, in all.")
    ] = 20.0,
    segment: flags.Segment = None,
    overlap: flags.Overlap = None,
    precision: flags.Precision = "auto",
    stereo: flags.Stereo = None,
) -> None:
    """Separate what is uploaded: a server with jobs, on HTTP.

    Runs until Ctrl-C or SIGTERM; the job that runs then may come to its end. /docs on the server
    describes what can be asked.
    """
    from unbraid.apps.separator import load_separator
    from unbraid.checkpoints import find_prompts, model_info
    from unbraid.cli.devices import parse_devices
    from unbraid.cli.separate import split_names
    from unbraid.errors import ConfigError
    from unbraid.serve.jobs import Limits, Offer
    from unbraid.serve.server import ServeOptions
    from unbraid.serve.server import serve as run

    limits_in_words = {
        "--keep": keep,
        "--max-queue": max_queue,
        "--max-upload": max_upload,
        "--max-audio": max_audio,
        "--max-channels": max_channels,
        "--max-stems": max_stems,
        "--max-disk": max_disk,
    }
    for flag, value in limits_in_words.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{flag} {value:g}: must be a number above 0.")
    options = ServeOptions(host, port, _token(token_file), spool, jobs, grace)
    limits = Limits(
        upload_bytes=round(max_upload * _MIB),
        audio_s=max_audio,
        channels=max_channels,
        stems=max_stems,
        queued_jobs=max_queue,
        disk_bytes=round(max_disk * _GIB),
        kept_s=keep,
    )
    config, _ = flags.separation_config(
        segment, overlap, precision, stereo, gate=False, consistency=None, residual=False
    )
    devices = parse_devices(device)
    info = model_info(model)
    asked = find_prompts(info.path, split_names(prompts or []))
    added = [stored.path for stored in asked.taught.values()]
    separators = [load_separator(info.path, config, device=name, prompts=added) for name in devices]
    first = separators[0]
    name = info.name.removeprefix("hf:")
    offer = Offer(name, info.digest, first.prompts, first.sample_rate, limits)

    def ready(address: str) -> None:
        print(f"{one_line(name)} on {address}, described at {address}/docs", flush=True)

    run(separators, offer, options, ready)


def _token(file: Path | None) -> str | None:
    """The token that was given.

    Raises:
        ConfigError: If the file cannot be read.
    """
    from unbraid.errors import ConfigError

    if file is None:
        return os.environ.get(_TOKEN) or None
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {file}: cannot be read ({error}).") from error
