"""``unbraid export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unbraid.cli.console import reports_errors
from unbraid.cli.separate import split_names


@reports_errors
def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name, its folder, or hf:owner/name.")
    ],
    onnx: Annotated[Path, typer.Option("--onnx", metavar="OUT.onnx", help="The file to write.")],
    prompts: Annotated[
        list[str],
        typer.Option(
            "--prompts",
            "-p",
            metavar="NAMES",
            help="What the file separates into: names, or prompt files, with commas between them, "
            "in the order of its outputs; may be repeated, and equal names are allowed.",
        ),
    ],
    length: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Fix the length of the input, for runtimes that want it fixed.",
            show_default="any length, any batch",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there already.")
    ] = False,
) -> None:
    """Write a model with chosen prompts as ONNX, and compare it with ours.

    The graph takes a mono mixture [batch, time] at the model's rate and gives
    [batch, source, time]. It is written only if onnxruntime computes the same with it.
    """
    from unbraid.apps.export import export_onnx

    done = export_onnx(model, onnx, split_names(prompts), length_s=length, overwrite=overwrite)
    threads = f"{done.num_threads} thread{'s' if done.num_threads > 1 else ''}"
    print(f"written to {done.path}, {done.num_bytes / 1e6:.1f} MB")
    print(f"sources:      {', '.join(done.prompts)}")
    print(f"same output:  {done.snr_db:.1f} dB above the difference, in the worst source")
    print(f"onnxruntime:  {done.onnx_real_time_factor:.4f} s per second of audio, {threads}")
    print(f"unbraid:      {done.our_real_time_factor:.4f} s per second of audio, {threads}")
