"""``unbraid separate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unbraid.cli import separation_flags as flags
from unbraid.cli.console import (
    Bar,
    duration_in_words,
    one_line,
    print_error,
    print_warning,
    reports_errors,
)

if TYPE_CHECKING:
    from unbraid.apps.batch import BatchResult
    from unbraid.apps.separate_files import FileResult
    from unbraid.types import Progress

# From this score on, a sound counts as there.
_THERE = 0.5


@reports_errors
def separate(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Recordings, folders of recordings, or patterns like '*.wav'."
        ),
    ],
    prompts: flags.Prompts = None,
    query: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="CLIP",
            help="A clip in which a sound is heard alone: one more stem is what sounds like it. "
            "For models with a tagger; may be repeated.",
            show_default=False,
        ),
    ] = None,
    model: flags.Model = "mini",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where the stems go.")
    ] = Path("separated"),
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Search folders inside folders, too.")
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs",
            "-j",
            help="How many recordings to work on at a time; at least one on each device.",
        ),
    ] = 1,
    device: flags.Device = "auto",
    track: Annotated[
        int | None,
        typer.Option(
            help="Which audio track of the file, counted from 1.", show_default="the file's default"
        ),
    ] = None,
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
    remux: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STEMS",
            help="For videos: write these stems under the pictures, too; names with commas "
            "between them, or all.",
            show_default=False,
        ),
    ] = None,
    filename: flags.Filename = flags.DEFAULT_TEMPLATE,
    overwrite: flags.Overwrite = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what happens as JSON, one object per line.")
    ] = False,
    quiet: flags.Quiet = False,
) -> None:
    """Separate recordings into the sources you name.

    Stems have the length, sample rate and channels of their recording.
    Beside them, separation.json says how they were made, and presence.csv which sound is
    there when.
    A recording whose stems are finished is skipped.
    """
    from unbraid.apps.batch import separate_files
    from unbraid.apps.example_clips import digest_of_clip
    from unbraid.apps.queries import name_queries
    from unbraid.apps.separate_files import SeparateOptions
    from unbraid.apps.separator import load_separator
    from unbraid.checkpoints import find_prompts, model_info
    from unbraid.cli.devices import parse_devices
    from unbraid.cli.json_lines import JsonLines

    audio_format = flags.format_choice(
        {"wav": wav, "flac": flac, "ogg": ogg, "opus": opus, "mp3": mp3, "m4a": m4a},
        {"int16": int16, "int24": int24, "float32": float32},
        bitrate,
    )
    config, has_residual = flags.separation_config(
        segment, overlap, precision, stereo, gate, consistency, residual
    )
    devices = parse_devices(device)
    info = model_info(model)
    wanted = split_names(prompts or [] if query or prompts is not None else [flags.DEFAULT_PROMPTS])
    asked = find_prompts(info.path, wanted)
    clips = name_queries(query or [], (*info.prompts, *asked.names, flags.RESIDUAL))
    queries = {name: [clip] for name, clip in clips.items()}
    added = [stored.path for stored in asked.taught.values()]
    separators = [
        load_separator(info.path, config, device=name, prompts=added, queries=queries)
        for name in devices
    ]
    options = SeparateOptions(
        model_name=info.name.removeprefix("hf:"),
        model_digest=info.digest,
        audio_format=audio_format,
        template=filename,
        has_residual=has_residual,
        overwrite=overwrite,
        track=track,
        peak_dbfs=peak,
        remux=tuple(split_names(remux or [])),
        queries={name: digest_of_clip(clip) for name, clip in clips.items()},
    )
    names = [*asked.names, *clips]
    lines = JsonLines() if as_json else None
    with Bar(is_shown=not quiet) as bar:

        def start(num_recordings: int) -> None:
            if lines is not None:
                lines.start(info.name, info.digest, [*wanted, *clips], out, num_recordings)

        def show_progress(path: Path, progress: Progress) -> None:
            bar.update(str(path), progress)
            if lines is not None:
                lines.progress(path, progress)

        def show(result: FileResult) -> None:
            bar.remove(str(result.path))
            with bar.aside():
                _show(result, is_quiet=quiet, is_json=as_json)
                if lines is not None:
                    lines.result(result)

        batch = separate_files(
            separators,
            files,
            names,
            out,
            options,
            is_recursive=recursive,
            num_jobs=jobs,
            on_start=start,
            on_progress=show_progress,
            on_result=show,
        )
    if lines is not None:
        lines.summary(batch)
    elif not quiet:
        print(_summary(batch))
    raise typer.Exit(batch.exit_code)


def split_names(values: Sequence[str]) -> list[str]:
    """Names from values with commas between them; blanks and empty names are dropped.

    >>> split_names(["speech, speech", "sfx-mix"])
    ['speech', 'speech', 'sfx-mix']
    """
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


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
    assert result.sidecar is not None, "only failed recordings have none"
    folder = one_line(result.sidecar.parent)
    if result.status == "skipped":
        print(f"{one_line(result.path)}: finished already, see {folder} (--overwrite redoes it)")
        return
    print(f"{one_line(result.path)} -> {folder}")
    width = max(len(name) for name in result.stems)
    for name, file in result.stems.items():
        stem = result.record["stems"][name]
        level = stem["level_dbfs"]
        shown = "silent" if level is None else f"{level:.1f} dBFS"
        # The residual has no prompt that could be absent.
        is_absent = stem.get("presence", {"score": 1})["score"] < _THERE
        doubt = "  (its sound seems to be absent)" if is_absent and level is not None else ""
        print(f"  {name:{width}}  {shown:>11}  {one_line(file.name)}{doubt}")
    for video in result.videos.values():
        print(f"  {'':{width}}  {'video':>11}  {one_line(video.name)}")
    ratio_db = result.record["residual_to_mixture_db"]
    if ratio_db is not None:
        print(f"  left over: {ratio_db:.1f} dB (mixture minus stems, relative to the mixture)")


def _summary(batch: BatchResult) -> str:
    """One line about everything."""
    counts = ", ".join(f"{count} {status}" for status, count in batch.counts.items())
    audio_s, wall_s = batch.audio_s, batch.wall_s
    if audio_s == 0:
        return f"{counts}."
    return (
        f"{counts}; {duration_in_words(audio_s)} of audio in {duration_in_words(wall_s)}, "
        f"{audio_s / wall_s:.1f} times real time."
    )
