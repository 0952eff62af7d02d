"""The program ``unbraid`` and its commands.

Nothing heavy is imported here or in the modules of the commands: each command imports
what it needs when it runs, so that ``--help`` is there at once.
"""

from __future__ import annotations

import gc
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from unbraid._version import __version__
from unbraid.cli.adapt import adapt
from unbraid.cli.compare import compare
from unbraid.cli.data import data
from unbraid.cli.demo import demo
from unbraid.cli.discover import discover
from unbraid.cli.evaluate import evaluate
from unbraid.cli.export import export
from unbraid.cli.finetune import finetune
from unbraid.cli.models import models
from unbraid.cli.prompts import prompts
from unbraid.cli.separate import separate
from unbraid.cli.teach import teach
from unbraid.cli.train import train
from unbraid.heap import share_heap

_EPILOG = (
    "Exit codes: 0 all went well; 2 a flag, setting or config file makes no sense; 3 unknown or "
    "missing prompt; 4 a file cannot be read or written; 5 a model is missing, damaged or "
    "foreign; 6 training data or a corpus is incomplete; 7 an optional package is not installed; 8 "
    "a download failed; 9 a training run cannot go on; 130 interrupted. Of several "
    "files that fail, the first one gives the code."
)

_OBJECTS_BEFORE_COLLECTION = 50_000

app = typer.Typer(
    name="unbraid",
    help="Separate any recording into the sources you name.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(separate)
app.command()(discover)
app.add_typer(models, name="models")
app.add_typer(prompts, name="prompts")
app.command()(teach)
app.command()(finetune)
app.command()(adapt)
app.command()(evaluate)
app.command()(compare)
app.add_typer(data, name="data")
app.command()(export)
app.command()(train)
app.command()(demo)


def main() -> None:
    """Run the program with the arguments of the process; leaves through ``SystemExit``."""
    # Imports make a hundred thousand objects and no garbage. Looking for it after every few
    # hundred of them takes a tenth of the time that PyTorch needs to start.
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
    share_heap()
    # A polite request to end takes the same way out as Ctrl-C, so nothing half-written stays.
    signal.signal(signal.SIGTERM, _leave)
    app()


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _show_version(is_wanted: bool) -> bool:
    if is_wanted:
        print(f"unbraid {__version__}")
        raise typer.Exit
    return is_wanted


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and leave."
        ),
    ] = False,
) -> None:
    pass
