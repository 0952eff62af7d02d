"""``unbraid teach``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from unbraid.cli.console import one_line, print_warning, reports_errors
from unbraid.cli.learning_flags import Seed


@reports_errors
def teach(
    name: Annotated[str, typer.Argument(help="What the new prompt is called: door-bell.")],
    clips: Annotated[
        list[Path],
        typer.Argument(
            metavar="CLIPS...", help="Recordings of the sound alone, or folders of them."
        ),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A model's name, its folder, or hf:owner/name.")
    ] = "mini",
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Where the prompt and its report go."),
    ] = Path("taught"),
    background: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Recordings to mix the sound with; sub-folders may be named after prompts.",
            show_default="sounds that ship with unbraid",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            help="How long it may learn and check; it takes as many steps as fit, unless --steps "
            "says how many.",
            show_default="2.5 at most",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="STEPS",
            help="The most steps that it takes.",
            show_default="200; with --minutes as many as fit",
        ),
    ] = None,
    vectors: Annotated[
        str,
        typer.Option(
            metavar="band|one", help="What learns: a vector for every band, or one for all."
        ),
    ] = "band",
    start: Annotated[
        str | None,
        typer.Option(
            metavar="START",
            help="Where it begins: nearest (of the model's prompts), clips (what the model's "
            "tagger hears in them), random, or a prompt.",
            show_default="clips if the model has a tagger, else nearest",
        ),
    ] = None,
    loss: Annotated[
        str, typer.Option(metavar="snr|l1", help="What is made small: see the guide.")
    ] = "snr",
    seed: Seed = 0,
    licence: Annotated[
        str, typer.Option(metavar="TEXT", help="Licence of the prompt, kept in its file.")
    ] = "",
    note: Annotated[
        str, typer.Option(metavar="TEXT", help="A line for those who get the file.")
    ] = "",
    install: Annotated[
        bool, typer.Option("--install/--no-install", help="Make it known by its name at once.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a taught prompt of this name.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
) -> None:
    """Teach a model a new sound from a few clips of it.

    Five clips of a second or more make a prompt of a few kilobytes that can be used, shared and
    named beside all others. The model is not changed.
    """
    from statistics import median

    from unbraid.apps.keep_lesson import keep_lesson, refuse_taken
    from unbraid.apps.teach import TeachOptions
    from unbraid.apps.teach import teach as teach_sound
    from unbraid.checkpoints import load_bundle, resolve_model
    from unbraid.cli.work_bar import WorkBar
    from unbraid.errors import ConfigError
    from unbraid.training.methods.prompt_tuning import TuningConfig

    if vectors not in ("band", "one"):
        raise ConfigError(f"--vectors {vectors}: unknown; choose band or one.")
    if loss not in ("snr", "l1"):
        raise ConfigError(f"--loss {loss}: unknown; choose snr or l1.")
    tuning = TuningConfig(loss="l1" if loss == "l1" else "snr")
    if steps is not None:
        tuning = replace(tuning, num_steps=steps)
    options = TeachOptions(
        minutes=TeachOptions.minutes if minutes is None else minutes,
        background=background,
        vectors="one" if vectors == "one" else "band",
        start=start,
        tuning=tuning,
        fills_time=minutes is not None and steps is None,
        seed=seed,
        licence=licence,
        note=note,
    )
    folder = resolve_model(model)
    bundle = load_bundle(folder)
    # Not after minutes of work.
    refuse_taken(name, out, bundle, install=install, overwrite=overwrite)
    with WorkBar(not quiet) as bar:
        lesson = teach_sound(bundle, name, clips, options, bar.update)
    kept = keep_lesson(lesson, out, bundle, install=install, overwrite=overwrite)
    if quiet:
        return
    for warning in lesson.warnings:
        print_warning(warning)
    clips_held_back = f", {lesson.num_held_back} of them held back" if lesson.num_held_back else ""
    print(
        f"{name}: began as {lesson.start}, {len(lesson.clips.clips)} clips{clips_held_back}, "
        f"{lesson.seconds:.0f} s"
    )
    print(f"  ended {lesson.ended}")
    print(
        f"  SI-SDR over the mixture  {lesson.before_db:+.1f} dB before, "
        f"{lesson.after_db:+.1f} dB after, {len(lesson.examples)} mixtures"
    )
    print(f"  {lesson.verdict}")
    print(
        f"  where it is absent       {median(lesson.absent_after_db):.1f} dB relative to the "
        f"mixture (median), {max(lesson.absent_after_db):.1f} dB at worst; before "
        f"{median(lesson.absent_before_db):.1f} and {max(lesson.absent_before_db):.1f} dB"
    )
    print(f"  prompt  {one_line(kept.prompt)}")
    print(f"  report  {one_line(kept.report)}")
    used = name if install else one_line(kept.prompt)
    print(f"Use it: {use_command(model, bundle.config.prompts, used)}")


def use_command(model: str, learned: Sequence[str], prompt: str) -> str:
    """A command that asks for a new prompt, and for speech beside it where the model knows that.

    >>> use_command("mini", ["speech", "sfx"], "bell")
    'unbraid separate RECORDING -m mini --prompts speech,bell'
    >>> use_command("my models/b", [], "bell")
    "unbraid separate RECORDING -m 'my models/b' --prompts bell"
    """
    asked = ",".join(["speech", prompt] if "speech" in learned else [prompt])
    return f"unbraid separate RECORDING -m {shlex.quote(model)} --prompts {shlex.quote(asked)}"
