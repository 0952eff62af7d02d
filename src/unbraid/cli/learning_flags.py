"""Flags of the commands that let something learn: ``finetune``, ``adapt`` and ``teach``."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import typer

Rank: TypeAlias = Annotated[int, typer.Option(metavar="NUMBER", help="Of the adapters.")]
LearningRate: TypeAlias = Annotated[
    float | None,
    typer.Option(metavar="RATE", help="Of Adam, at its highest.", show_default="what suits --what"),
]
Device: TypeAlias = Annotated[
    str, typer.Option("--device", "-d", help="auto, cpu, mps, cuda or cuda:N.")
]
# What every library takes that numbers are drawn with.
_MOST_SEED: Final = 2**32 - 1
Seed: TypeAlias = Annotated[
    int, typer.Option(metavar="NUMBER", min=0, max=_MOST_SEED, help="Of all that is drawn.")
]
Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Replace a model that is there.")
]
KeepLast: TypeAlias = Annotated[
    bool, typer.Option("--keep-last", help="Keep the last state, whatever the checks say.")
]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.")]
