"""``unbraid finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unbraid.cli import learning_flags as flags
from unbraid.cli.console import one_line, print_warning, reports_errors
from unbraid.cli.stem_translation import parse_stems

#: What may learn, for ``finetune`` and ``adapt``.
WHATS = ("all", "network", "prompts-and-codec", "lora")


@reports_errors
def finetune(
    model: Annotated[
        str, typer.Argument(help="What to tune: a model's name, its folder, or hf:owner/name.")
    ],
    data: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="Songs and their stems: SONG/STEM.wav, STEM/SONG.wav, a CSV file with a column "
            "per stem, or the unbraid-mixtures.jsonl of a corpus.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="The folder of the tuned model; its report is DIR.html.",
            show_default="MODEL-tuned",
        ),
    ] = None,
    what: Annotated[
        str,
        typer.Option(
            metavar="all|network|prompts-and-codec|lora",
            help="What learns: all of it, all but the prompts, prompts with entry and exit, or "
            "low-rank adapters.",
        ),
    ] = "all",
    rank: flags.Rank = 8,
    stem: Annotated[
        list[str] | None,
        typer.Option(
            "--stem",
            metavar="NAME=PROMPT",
            help="Which prompt a stem belongs to; NAME=- leaves it out; may be repeated.",
            show_default="its name",
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option(metavar="MINUTES", help="How long it may learn and be measured.")
    ] = 15.0,
    steps: Annotated[
        int, typer.Option(metavar="STEPS", help="The most steps that it takes.")
    ] = 1000,
    learning_rate: flags.LearningRate = None,
    crop: Annotated[
        float, typer.Option(metavar="SECONDS", help="Length of the mixtures to learn from.")
    ] = 4.0,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="NUMBER", help="Mixtures in a step.")
    ] = 2,
    keep_last: flags.KeepLast = False,
    device: flags.Device = "auto",
    seed: flags.Seed = 0,
    overwrite: flags.Overwrite = False,
    quiet: flags.Quiet = False,
) -> None:
    """Tune a model on songs whose stems you have; a report tells what it did before and after.

    One song in five is held back to measure with. Out comes a new model, if a check finds it
    better; the old one stays.
    """
    from unbraid.apps.finetune import MEASURES, FinetuneOptions
    from unbraid.apps.finetune import finetune as tune
    from unbraid.apps.keep_finetuned import keep_finetuned
    from unbraid.apps.keep_model import refuse_taken
    from unbraid.checkpoints import load_bundle, resolve_model
    from unbraid.cli.devices import parse_device
    from unbraid.cli.work_bar import WorkBar
    from unbraid.errors import ConfigError, counted
    from unbraid.training.methods.fine_tuning import FineTuningConfig

    if what not in WHATS:
        raise ConfigError(f"--what {what}: unknown; choose {', '.join(WHATS)}.")
    options = FinetuneOptions(
        tuning=FineTuningConfig(what, learning_rate, rank, steps),  # type: ignore[arg-type]
        minutes=minutes,
        stems=parse_stems(stem or []),
        crop_s=crop,
        batch_size=batch_size,
        keeps_last=keep_last,
        device=parse_device(device),
        seed=seed,
    )
    bundle = load_bundle(resolve_model(model))
    folder = out or Path(f"{bundle.card.name.rpartition('/')[2]}-tuned")
    # Not after minutes of work.
    refuse_taken(folder, bundle, overwrite=overwrite)
    with WorkBar(not quiet) as bar:
        finetuned = tune(bundle, data, options, bar.update)
    kept = keep_finetuned(finetuned, folder, bundle, overwrite=overwrite)
    for warning in finetuned.warnings:
        print_warning(warning)
    if quiet:
        return
    total = finetuned.gains[0]
    print(
        f"{folder.name}: {counted(len(finetuned.learnt_from), 'song')}, "
        f"{counted(finetuned.kept.step, 'step')}, {finetuned.seconds:.0f} s"
    )
    for gain in (*finetuned.gains[1:], total):
        before, after = gain.before[MEASURES[0]], gain.after[MEASURES[0]]
        print(
            f"  {gain.prompt:10} SI-SDR {before:6.1f} dB before, {after:6.1f} dB after "
            f"({after - before:+z.1f})"
        )
    print(f"  model   {one_line(kept.bundle)}")
    print(f"  report  {one_line(kept.report)}")
    prompts = ",".join(finetuned.prompts)
    lead = "Use it" if finetuned.is_better else "Hear it before you use it"
    print(f"{lead}: unbraid separate RECORDING -m {one_line(kept.bundle)} --prompts {prompts}")
