"""Flags that say how to separate, and how stems are stored; several commands have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args

import typer

if TYPE_CHECKING:
    from unbraid.audio import FormatChoice
    from unbraid.separation.settings import SeparationConfig

DEFAULT_PROMPTS = "speech,sfx-mix,music-mix"
# The same as audio.DEFAULT_TEMPLATE, which cannot be imported here: it pulls in torch.
DEFAULT_TEMPLATE = "{model}/{track}/{stem}.{ext}"
RESIDUAL = "residual"
_OF_THE_MODEL = "as the model was made for"
# The same as in separation.settings, which pulls in torch, too.
_DEFAULT_CONSISTENCY = "off"

Prompts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--prompts",
        "-p",
        metavar="NAMES",
        help="What to separate into: names, or prompt files, with commas between them; may be "
        "repeated, and equal names are allowed.",
        show_default=DEFAULT_PROMPTS,
    ),
]
Model: TypeAlias = Annotated[
    str,
    typer.Option("--model", "-m", help="A model's name, its folder, or hf:owner/name."),
]
Device: TypeAlias = Annotated[
    str,
    typer.Option(
        "--device",
        "-d",
        help="auto, cpu, cuda, cuda:1, or mps; several with commas between them.",
    ),
]
Segment: TypeAlias = Annotated[
    float | None,
    typer.Option(help="Length of a chunk in seconds.", show_default=_OF_THE_MODEL),
]
Overlap: TypeAlias = Annotated[
    float | None,
    typer.Option(help="Overlap of neighbouring chunks in seconds.", show_default=_OF_THE_MODEL),
]
Precision: TypeAlias = Annotated[
    str,
    typer.Option(
        help="What the network computes with: float32, bfloat16 (faster, a little less "
        "exact), or auto (bfloat16 on GPUs made for it).",
    ),
]
Stereo: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="WAY",
        help="How channels are put together: channels, mid-side, shared or wiener.",
        show_default=_OF_THE_MODEL,
    ),
]
Gate: TypeAlias = Annotated[
    bool, typer.Option("--gate", help="Make a stem silent where its sound is absent.")
]
Consistency: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="WAY",
        help="How the stems add up to the mixture: off, residual (what is left over becomes "
        "a stem) or project (it is shared out among the stems).",
        show_default=_DEFAULT_CONSISTENCY,
    ),
]
Residual: TypeAlias = Annotated[
    bool, typer.Option("--residual", help="Short for --consistency residual.")
]
Peak: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="DBFS",
        help="Bring the highest peak of all stems to this level, with one gain for all.",
        show_default="levels are left alone",
    ),
]
Wav: TypeAlias = Annotated[bool, typer.Option("--wav", help="Write WAV (this is the default).")]
Flac: TypeAlias = Annotated[bool, typer.Option("--flac", help="Write FLAC.")]
Ogg: TypeAlias = Annotated[bool, typer.Option("--ogg", help="Write Ogg Vorbis.")]
Opus: TypeAlias = Annotated[bool, typer.Option("--opus", help="Write Opus.")]
Mp3: TypeAlias = Annotated[bool, typer.Option("--mp3", help="Write mp3.")]
M4a: TypeAlias = Annotated[bool, typer.Option("--m4a", help="Write AAC in m4a.")]
Int16: TypeAlias = Annotated[
    bool, typer.Option("--int16", help="16 bits instead of the recording's own depth.")
]
Int24: TypeAlias = Annotated[
    bool, typer.Option("--int24", help="24 bits instead of the recording's own depth.")
]
Float32: TypeAlias = Annotated[
    bool, typer.Option("--float32", help="32-bit float, which never clips (WAV only).")
]
Bitrate: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--bitrate",
        "--mp3-bitrate",
        metavar="KBPS",
        help="kbit/s of ogg, opus, mp3 and m4a, over all channels.",
        show_default="320 for mp3, 128 per channel for the others",
    ),
]
Filename: TypeAlias = Annotated[
    str, typer.Option(metavar="TEMPLATE", help="How stems are named below --out.")
]
Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Separate again what is finished already.")
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", help="Print errors only (and the JSON, if asked for).")
]


def separation_config(
    segment_s: float | None,
    overlap_s: float | None,
    precision: str,
    stereo: str | None,
    gate: bool,
    consistency: str | None,
    residual: bool,
) -> tuple[SeparationConfig, bool]:
    """How to separate, and whether the residual is a stem.

    Raises:
        ConfigError: For an unknown choice, or flags that exclude each other.
    """
    from unbraid.errors import ConfigError
    from unbraid.separation.settings import SeparationConfig
    from unbraid.types import Precision as Precisions
    from unbraid.types import StereoMode

    _check_choice("--stereo", stereo, get_args(StereoMode))
    _check_choice("--precision", precision, ("auto", *get_args(Precisions)))
    _check_choice("--consistency", consistency, ("off", RESIDUAL, "project"))
    if residual:
        if consistency not in (None, RESIDUAL):
            raise ConfigError(
                f"--residual and --consistency {consistency} exclude each other; choose one."
            )
        consistency = RESIDUAL
    has_residual = consistency == RESIDUAL
    wishes: dict[str, Any] = {
        "segment_s": segment_s,
        "overlap_s": overlap_s,
        "stereo": stereo,
        "precision": precision,
        # The residual is a stem of its own; the others are not touched for its sake.
        "consistency": None if has_residual else consistency,
    }
    config = SeparationConfig(
        gate=gate, **{name: value for name, value in wishes.items() if value is not None}
    )
    return config, has_residual


def _check_choice(flag: str, value: str | None, choices: Sequence[str]) -> None:
    from unbraid.errors import ConfigError

    if value is not None and value not in choices:
        raise ConfigError(f"{flag} {value}: unknown; choose one of {', '.join(choices)}.")


def format_choice(
    containers: Mapping[str, bool], depths: Mapping[str, bool], bitrate_kbps: int | None
) -> FormatChoice:
    """The container and the depth that flags ask for.

    Raises:
        ConfigError: If flags exclude each other.
    """
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
