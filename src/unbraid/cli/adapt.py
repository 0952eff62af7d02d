"""``unbraid adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unbraid.cli import learning_flags as flags
from unbraid.cli.console import one_line, print_warning, reports_errors
from unbraid.cli.finetune import WHATS

#: Method → weights of RemixIT and Self-Remixing.
_METHODS = {"remixit": (1.0, 0.0), "self-remixing": (0.0, 1.0), "both": (1.0, 1.0)}


@reports_errors
def adapt(
    model: Annotated[
        str, typer.Argument(help="What to adapt: a model's name, its folder, or hf:owner/name.")
    ],
    recordings: Annotated[
        list[Path],
        typer.Argument(metavar="RECORDINGS...", help="Recordings as they are, or folders of them."),
    ],
    prompts: Annotated[
        str,
        typer.Option(
            "--prompts",
            "-p",
            metavar="NAMES",
            help="What the recordings hold, all of it, with commas between: speech,sfx-mix.",
            show_default=False,
        ),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="The folder of the adapted model; its report is DIR.html.",
            show_default="MODEL-adapted",
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option(metavar="MINUTES", help="How long it may learn and be checked.")
    ] = 10.0,
    steps: Annotated[int, typer.Option(metavar="STEPS", help="The most steps that it takes.")] = 60,
    method: Annotated[
        str,
        typer.Option(
            metavar="remixit|self-remixing|both",
            help="What its sources are held against: the teacher's sources, the recordings, or "
            "both.",
        ),
    ] = "remixit",
    teacher_decay: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="What is left of the teacher whenever it follows, every 20 steps; 1: it stays.",
        ),
    ] = 0.8,
    what: Annotated[
        str,
        typer.Option(
            metavar="network|all|prompts-and-codec|lora",
            help="What learns: all but the prompts, all of it, prompts with entry and exit, or "
            "low-rank adapters.",
        ),
    ] = "network",
    rank: flags.Rank = 8,
    learning_rate: flags.LearningRate = None,
    crop: Annotated[
        float, typer.Option(metavar="SECONDS", help="Length of the crops to learn from.")
    ] = 2.0,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="NUMBER", help="Crops in a step.")
    ] = 4,
    tolerance: Annotated[
        float,
        typer.Option(metavar="DB", help="How much it may forget of other sounds, in SI-SDR."),
    ] = 0.5,
    keep_last: flags.KeepLast = False,
    device: flags.Device = "auto",
    seed: flags.Seed = 0,
    overwrite: flags.Overwrite = False,
    quiet: flags.Quiet = False,
) -> None:
    """Adapt a model to recordings of yours that nobody has taken apart.

    It helps where they have much in common: one microphone, one room, one kind of noise. Out
    comes a new model, if two checks find it better; the old one stays.
    """
    from unbraid.apps.adapt import CHECK_EVERY, AdaptOptions, learning_rate_for
    from unbraid.apps.adapt import adapt as adapt_to
    from unbraid.apps.keep_adapted import keep_adapted
    from unbraid.apps.keep_model import refuse_taken
    from unbraid.checkpoints import load_bundle, resolve_model
    from unbraid.cli.devices import parse_device
    from unbraid.cli.work_bar import WorkBar
    from unbraid.errors import ConfigError, counted
    from unbraid.training.methods.adapting import REMIXING
    from unbraid.training.methods.fine_tuning import FineTuningConfig
    from unbraid.training.methods.remixing import RemixingConfig, TeacherConfig

    if what not in WHATS:
        raise ConfigError(f"--what {what}: unknown; choose {', '.join(WHATS)}.")
    if method not in _METHODS:
        raise ConfigError(f"--method {method}: unknown; choose {', '.join(_METHODS)}.")
    bundle = load_bundle(resolve_model(model))
    if not prompts.strip():
        raise ConfigError(
            f"--prompts is missing: name all sources that the recordings hold, such as --prompts "
            f"speech,sfx-mix; {bundle.card.name} knows {', '.join(bundle.model.prompts.names)}. "
            "`unbraid discover RECORDING` says what it hears in one."
        )
    remixit, self_remixing = _METHODS[method]
    rate = learning_rate_for(what) if learning_rate is None else learning_rate  # type: ignore[arg-type]
    options = AdaptOptions(
        prompts=tuple(name.strip() for name in prompts.split(",") if name.strip()),
        minutes=minutes,
        tuning=FineTuningConfig(what, rate, rank, steps, CHECK_EVERY),  # type: ignore[arg-type]
        remixing=RemixingConfig(
            remixit_weight=remixit,
            self_remixing_weight=self_remixing,
            channel_shuffle="none",
            teacher=TeacherConfig(teacher_decay, steps_per_epoch=REMIXING.teacher.steps_per_epoch),
        ),
        crop_s=crop,
        batch_size=batch_size,
        tolerance_db=tolerance,
        keeps_last=keep_last,
        device=parse_device(device),
        seed=seed,
    )
    folder = out or Path(f"{bundle.card.name.rpartition('/')[2]}-adapted")
    # Not after minutes of work.
    refuse_taken(folder, bundle, overwrite=overwrite)
    with WorkBar(not quiet) as bar:
        adapted = adapt_to(bundle, recordings, options, bar.update)
    kept = keep_adapted(adapted, folder, bundle, overwrite=overwrite)
    for warning in adapted.warnings:
        print_warning(warning)
    if quiet:
        return
    before, after = adapted.before, adapted.kept
    print(
        f"{folder.name}: {counted(adapted.num_recordings, 'recording')}, "
        f"{60 * adapted.hours:.1f} minutes, {counted(after.step, 'step')}, {adapted.seconds:.0f} s"
    )
    print(
        f"  remixing loss, held back   {before.held_back_loss:.2f} dB before, "
        f"{after.held_back_loss:.2f} dB after (lower is better)"
    )
    if before.known_db is not None and after.known_db is not None:
        print(
            f"  SI-SDR on other sounds     {before.known_db:.2f} dB before, "
            f"{after.known_db:.2f} dB after"
        )
    print(f"  model   {one_line(kept.bundle)}")
    print(f"  report  {one_line(kept.report)}")
    names = ",".join(adapted.options.prompts)
    print(f"Use it: unbraid separate RECORDING -m {one_line(kept.bundle)} --prompts {names}")
