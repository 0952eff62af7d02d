"""``unbraid separate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from unbraid.cli.console import Bar, one_line, print_error, print_warning, reports_errors

if TYPE_CHECKING:
    from unbraid.apps.batch import BatchResult
    from unbraid.apps.separate_files import FileResult
    from unbraid.audio import FormatChoice
    from unbraid.types import Progress

_DEFAULT_PROMPTS = "speech,sfx-mix,music-mix"
# The same as audio.DEFAULT_TEMPLATE, which cannot be imported here: it pulls in torch.
_DEFAULT_TEMPLATE = "{model}/{track}/{stem}.{ext}"
_OF_THE_MODEL = "as the model was made for"
_RESIDUAL = "residual"
# From this score on, a sound counts as there.
_THERE = 0.5
# The same as in separation.settings, which pulls in torch, too.
_DEFAULT_CONSISTENCY = "off"


@reports_errors
def separate(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Recordings, folders of recordings, or patterns like '*.wav'."
        ),
    ],
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompts",
            "-p",
            metavar="NAMES",
            help="What to separate into: names, or prompt files, with commas between them; may be "
            "repeated, and equal names are allowed.",
            show_default=_DEFAULT_PROMPTS,
        ),
    ] = None,
    query: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="CLIP",
            help="A clip in which a sound is heard alone: one more stem is what sounds like it. "
            "For models with a tagger; may be repeated.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="A model's name, its folder, or hf:owner/name."),
    ] = "mini",
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
    device: Annotated[
        str,
        typer.Option(
            "--device",
            "-d",
            help="auto, cpu, cuda, cuda:1, or mps; several with commas between them.",
        ),
    ] = "auto",
    track: Annotated[
        int | None,
        typer.Option(
            help="Which audio track of the file, counted from 1.", show_default="the file's default"
        ),
    ] = None,
    segment: Annotated[
        float | None,
        typer.Option(help="Length of a chunk in seconds.", show_default=_OF_THE_MODEL),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(help="Overlap of neighbouring chunks in seconds.", show_default=_OF_THE_MODEL),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="What the network computes with: float32, bfloat16 (faster, a little less "
            "exact), or auto (bfloat16 on GPUs made for it).",
        ),
    ] = "auto",
    stereo: Annotated[
        str | None,
        typer.Option(
            metavar="WAY",
            help="How channels are put together: channels, mid-side, shared or wiener.",
            show_default=_OF_THE_MODEL,
        ),
    ] = None,
    gate: Annotated[
        bool, typer.Option("--gate", help="Make a stem silent where its sound is absent.")
    ] = False,
    consistency: Annotated[
        str | None,
        typer.Option(
            metavar="WAY",
            help="How the stems add up to the mixture: off, residual (what is left over becomes "
            "a stem) or project (it is shared out among the stems).",
            show_default=_DEFAULT_CONSISTENCY,
        ),
    ] = None,
    residual: Annotated[
        bool, typer.Option("--residual", help="Short for --consistency residual.")
    ] = False,
    peak: Annotated[
        float | None,
        typer.Option(
            metavar="DBFS",
            help="Bring the highest peak of all stems to this level, with one gain for all.",
            show_default="levels are left alone",
        ),
    ] = None,
    wav: Annotated[bool, typer.Option("--wav", help="Write WAV (this is the default).")] = False,
    flac: Annotated[bool, typer.Option("--flac", help="Write FLAC.")] = False,
    ogg: Annotated[bool, typer.Option("--ogg", help="Write Ogg Vorbis.")] = False,
    opus: Annotated[bool, typer.Option("--opus", help="Write Opus.")] = False,
    mp3: Annotated[bool, typer.Option("--mp3", help="Write mp3.")] = False,
    m4a: Annotated[bool, typer.Option("--m4a", help="Write AAC in m4a.")] = False,
    int16: Annotated[
        bool, typer.Option("--int16", help="16 bits instead of the recording's own depth.")
    ] = False,
    int24: Annotated[
        bool, typer.Option("--int24", help="24 bits instead of the recording's own depth.")
    ] = False,
    float32: Annotated[
        bool, typer.Option("--float32", help="32-bit float, which never clips (WAV only).")
    ] = False,
    bitrate: Annotated[
        int | None,
        typer.Option(
            "--bitrate",
            "--mp3-bitrate",
            metavar="KBPS",
            help="kbit/s of ogg, opus, mp3 and m4a, over all channels.",
            show_default="320 for mp3, 128 per channel for the others",
        ),
    ] = None,
    remux: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STEMS",
            help="For videos: write these stems under the pictures, too; names with commas "
            "between them, or all.",
            show_default=False,
        ),
    ] = None,
    filename: Annotated[
        str, typer.Option(metavar="TEMPLATE", help="How stems are named below --out.")
    ] = _DEFAULT_TEMPLATE,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Separate again what is finished already.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what happens as JSON, one object per line.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print errors only (and the JSON, if asked for).")
    ] = False,
) -> None:
    """Separate recordings into the sources you name.

    Stems have the length, sample rate and channels of their recording.
    Beside them, separation.json says how they were made, and presence.csv which sound is
    there when.
    A recording whose stems are finished is skipped.
    """
    from unbraid.apps.batch import separate_files
    from unbraid.apps.queries import digest_of_clip, name_queries
    from unbraid.apps.separate_files import SeparateOptions
    from unbraid.apps.separator import load_separator
    from unbraid.checkpoints import find_prompts, model_info
    from unbraid.cli.devices import parse_devices
    from unbraid.cli.json_lines import JsonLines
    from unbraid.errors import ConfigError
    from unbraid.separation.settings import SeparationConfig
    from unbraid.types import Precision, StereoMode

    audio_format = _format_choice(
        {"wav": wav, "flac": flac, "ogg": ogg, "opus": opus, "mp3": mp3, "m4a": m4a},
        {"int16": int16, "int24": int24, "float32": float32},
        bitrate,
    )
    check_choice("--stereo", stereo, get_args(StereoMode))
    check_choice("--precision", precision, ("auto", *get_args(Precision)))
    check_choice("--consistency", consistency, ("off", _RESIDUAL, "project"))
    if residual:
        if consistency not in (None, _RESIDUAL):
            raise ConfigError(
                f"--residual and --consistency {consistency} exclude each other; choose one."
            )
        consistency = _RESIDUAL
    has_residual = consistency == _RESIDUAL
    wishes: dict[str, Any] = {
        "segment_s": segment,
        "overlap_s": overlap,
        "stereo": stereo,
        "precision": precision,
        # The residual is a stem of its own; the others are not touched for its sake.
        "consistency": None if has_residual else consistency,
    }
    config = SeparationConfig(
        gate=gate, **{name: value for name, value in wishes.items() if value is not None}
    )
    devices = parse_devices(device)
    info = model_info(model)
    wanted = split_names(prompts or [] if query or prompts is not None else [_DEFAULT_PROMPTS])
    asked = find_prompts(info.path, wanted)
    clips = name_queries(query or [], (*info.prompts, *asked.names, _RESIDUAL))
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


def check_choice(flag: str, value: str | None, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices; None is what was left out.

    Raises:
        ConfigError: Naming the choices.
    """
    from unbraid.errors import ConfigError

    if value is not None and value not in choices:
        raise ConfigError(f"{flag} {value}: unknown; choose one of {', '.join(choices)}.")


def _format_choice(
    containers: Mapping[str, bool], depths: Mapping[str, bool], bitrate_kbps: int | None
) -> FormatChoice:
    from unbraid.audio import FormatChoice

    wishes: dict[str, Any] = {
        "container": _only(containers),
        "depth": _only(depths),
        "bitrate_kbps": bitrate_kbps,
    }
    return FormatChoice(**{name: value for name, value in wishes.items() if value is not None})


def _only(flags: Mapping[str, bool]) -> str | None:
    """The name of the one flag that was given, if any.

    Raises:
        ConfigError: If two were given.
    """
    from unbraid.errors import ConfigError

    given = [name for name, is_given in flags.items() if is_given]
    if len(given) > 1:
        raise ConfigError(f"--{given[0]} and --{given[1]} exclude each other; choose one.")
    return given[0] if given else None


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
        f"{counts}; {_duration(audio_s)} of audio in {_duration(wall_s)}, "
        f"{audio_s / wall_s:.1f} times real time."
    )


def _duration(seconds: float) -> str:
    """A duration in the units that suit it.

    >>> _duration(7.25), _duration(200), _duration(9000)
    ('7.2 s', '3.3 min', '2.50 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.2f} h"
