"""Trains on two processes, as torchrun starts them; a script, since a test cannot be two.

Forks the second process after the imports, which take longer than all else.

    python two_ranks.py RECIPE FOLDER PORT [SCENARIO...]

Each scenario is a run in ``FOLDER/SCENARIO``. A process leaves there what it saw: its losses and
how it ended.
"""

import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from unbraid.errors import UnbraidError
from unbraid.training import lightning, run

LONGEST_S = 300


def train(recipe: Path, folder: Path, scenario: str, rank: int) -> None:
    """One process of a run; its second loss is where the scenario happens."""
    losses: list[float] = []
    original = lightning.supervised_loss

    def watched(*arguments: Any) -> torch.Tensor:
        loss = original(*arguments)
        losses.append(float(loss.detach()))
        if len(losses) == 2 and rank == 1:
            if scenario == "lost":
                os.kill(os.getpid(), signal.SIGKILL)
            if scenario == "stopped":
                os.kill(os.getpid(), signal.SIGTERM)
            if scenario == "nan":
                return loss * math.nan
        return loss

    lightning.supervised_loss = watched
    out = folder / scenario
    try:
        run.train(recipe, ["devices=2", "max_steps=3"], out, resume=False)
        end = {"kind": "finished", "message": ""}
    except UnbraidError as error:
        end = {"kind": type(error).__name__, "message": str(error)}
    told = folder / f"{scenario}-{rank}.json"
    told.write_text(json.dumps({"losses": losses, **end}))


def main() -> None:
    """Run the scenarios, one after the other."""
    recipe, folder, port, *scenarios = sys.argv[1:]
    for number, scenario in enumerate(scenarios):
        started = []
        for rank in (0, 1):
            process = os.fork()
            if process:
                started.append(process)
                continue
            signal.alarm(LONGEST_S)  # nothing is to hang
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "GROUP_RANK": "0",
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(int(port) + number),
                "TORCHELASTIC_RUN_ID": "test",
            }
            code = 1
            try:
                train(Path(recipe), Path(folder), scenario, rank)
                code = 0
            finally:
                sys.stdout.flush()
                os._exit(code)
        for process in started:
            os.waitpid(process, 0)


if __name__ == "__main__":
    main()
