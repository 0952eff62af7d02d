"""``unbraid separate-many``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from unbraid.cli import separation_flags as flags
from unbraid.cli.console import duration_in_words, one_line, print_error, reports_errors
from unbraid.cli.separate import split_names

if TYPE_CHECKING:
    from unbraid.cluster.crew import Crew
    from unbraid.cluster.separate_many import ManyResult
    from unbraid.cluster.table import Row
    from unbraid.cluster.worker import Setup


@reports_errors
def separate_many(
    manifest: Annotated[
        str,
        typer.Argument(
            metavar="MANIFEST",
            help="CSV with a column path, and perhaps prompts and name; or a list, one path a "
            "line. A file, or the address of one: s3://bucket/list.csv.",
        ),
    ],
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Work on a Ray cluster: auto, HOST:PORT, ray://HOST:PORT, or local for one on "
            "this machine.",
            show_default="processes of this machine",
        ),
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="What paths are relative to, and recordings are named below.",
            show_default="the manifest's folder",
        ),
    ] = None,
    prompts: flags.Prompts = None,
    model: flags.Model = "mini",
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Where the stems go: a folder that all machines see, or an address.",
        ),
    ] = "separated",
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="K/N", help="Only every N-th row, from the K-th on.", show_default="all rows"
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", help="How many workers.", show_default="one per GPU, or per --cores"
        ),
    ] = None,
    cores: Annotated[int, typer.Option(help="How many cores a worker has.")] = 1,
    retries: Annotated[
        int,
        typer.Option(
            help="How often a recording is tried again where a worker, a disk or the network "
            "failed."
        ),
    ] = 2,
    device: flags.Device = "auto",
    segment: flags.Segment = None,
    overlap: flags.Overlap = None,
    precision: flags.Precision = "auto",
    stereo: flags.Stereo = None,
    gate: flags.Gate = False,
    consistency: flags.Consistency = None,
    residual: flags.Residual = False,
    peak: flags.Peak = None,
    wav: flags.Wav = False,
    flac: flags.Flac = False,
    ogg: flags.Ogg = False,
    opus: flags.Opus = False,
    mp3: flags.Mp3 = False,
    m4a: flags.M4a = False,
    int16: flags.Int16 = False,
    int24: flags.Int24 = False,
    float32: flags.Float32 = False,
    bitrate: flags.Bitrate = None,
    filename: flags.Filename = flags.DEFAULT_TEMPLATE,
    overwrite: flags.Overwrite = False,
    quiet: flags.Quiet = False,
) -> None:
    """Separate a manifest of recordings, on this machine or on a cluster.

    The stems are those of `unbraid separate`. What is finished is skipped, what fails is tried
    again on another worker, and a table in the output folder says what became of each recording.
    """
    from unbraid.apps.separate_files import SeparateOptions
    from unbraid.checkpoints import model_info
    from unbraid.cli.work_bar import WorkBar
    from unbraid.cluster.manifest import Shard, parse_shard
    from unbraid.cluster.separate_many import ManyOptions
    from unbraid.cluster.separate_many import separate_many as run
    from unbraid.errors import ConfigError
    from unbraid.types import Step

    for flag, number in (("--jobs", jobs), ("--cores", cores)):
        if number is not None and number < 1:
            raise ConfigError(f"{flag} {number}: must be at least 1.")
    config, has_residual = flags.separation_config(
        segment, overlap, precision, stereo, gate, consistency, residual
    )
    info = model_info(model)
    separate_options = SeparateOptions(
        model_name=info.name.removeprefix("hf:"),
        model_digest=info.digest,
        audio_format=flags.format_choice(
            {"wav": wav, "flac": flac, "ogg": ogg, "opus": opus, "mp3": mp3, "m4a": m4a},
            {"int16": int16, "int24": int24, "float32": float32},
            bitrate,
        ),
        template=filename,
        has_residual=has_residual,
        overwrite=overwrite,
        peak_dbfs=peak,
    )
    options = ManyOptions(
        manifest,
        tuple(split_names([flags.DEFAULT_PROMPTS] if prompts is None else prompts)),
        out,
        root,
        Shard() if shard is None else parse_shard(shard),
        retries,
    )
    num_done, num_all = 0, 0

    def open_crew(setup: Setup, num_recordings: int) -> Crew:
        if ray is None:
            return _local_crew(setup, device, jobs, cores, num_recordings)
        return _ray_crew(setup, ray, device, jobs, cores)

    with WorkBar(is_shown=not quiet) as bar:

        def start(num_recordings: int) -> None:
            nonlocal num_all
            num_all = num_recordings
            bar.update(Step("separating", 0, num_all, "files"))

        def show(row: Row) -> None:
            nonlocal num_done
            num_done += 1
            if row.outcome.error is not None:
                print_error(row.outcome.error)
            elif not quiet:
                print(
                    f"{one_line(row.entry.path)}: {row.outcome.status} by {row.worker}", flush=True
                )
            bar.update(Step("separating", num_done, num_all, "files"))

        result = run(
            model, config, separate_options, options, open_crew, on_start=start, on_row=show
        )
    if not quiet:
        _show(result)
    raise typer.Exit(result.exit_code)


def _local_crew(
    setup: Setup, device: str, jobs: int | None, cores: int, num_recordings: int
) -> Crew:
    import os

    import torch

    from unbraid.apps.separator import best_device
    from unbraid.cli.devices import parse_devices
    from unbraid.cluster.local_crew import LocalCrew

    devices = [each or best_device() for each in parse_devices(device)]
    if devices == ["cuda"]:
        devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if jobs is None:
        # One for each device that is named; a processor has room for more.
        num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        jobs = max(1, num_cores // cores) if devices == ["cpu"] else len(devices)
    chosen = [devices[number % len(devices)] for number in range(min(jobs, num_recordings))]
    return LocalCrew(setup, chosen, cores)


def _ray_crew(setup: Setup, address: str, device: str, jobs: int | None, cores: int) -> Crew:
    from unbraid.cluster.ray_crew import RayCrew
    from unbraid.errors import ConfigError

    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"--device {device}: the cluster chooses the device of each worker; give auto, cpu or "
            "cuda with --ray."
        )
    uses_gpus = None if device == "auto" else device == "cuda"
    return RayCrew(setup, address, uses_gpus=uses_gpus, num_cores=cores, num_workers=jobs)


def _show(result: ManyResult) -> None:
    summary = result.summary
    for worker in summary.workers:
        speed = "" if worker.rtf is None else f", RTF {worker.rtf:.3f}"
        print(
            f"{worker.worker} on {one_line(worker.machine)}: {worker.num_written} recordings, "
            f"{duration_in_words(worker.audio_s)} in {duration_in_words(worker.work_s)}{speed}"
        )
    print(
        f"{summary.num_written} written, {summary.num_skipped} skipped, "
        f"{summary.num_failed} failed; {duration_in_words(summary.audio_hours * 3600)} of audio in "
        f"{duration_in_words(summary.wall_s)}. Table: {one_line(result.table)}"
    )
