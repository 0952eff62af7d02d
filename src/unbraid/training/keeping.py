"""The best weights of a run: what is kept of them on disk, and their mean."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from unbraid.errors import CheckpointError
from unbraid.training.lightning import TrainingModule
from unbraid.training.safeguards import write_whole
from unbraid.training.schedule import best_steps


class KeepBest(Callback):
    """Keeps the weights of the validations with the lowest loss, each in a small file.

    What the last checkpoint counts among the best is there at any time, so at most one file more
    than asked for. Has to stand before the callback that averages weights, to see those that are
    validated.

    Args:
        folder: Where they go.
        count: How many.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count
        self._weights: dict[str, Tensor] = {}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the weights that were validated; soon they are exchanged for those that learn."""
        # On several GPUs that hold a piece each, all have to ask for the whole.
        weights = trainer.strategy.lightning_module_state_dict()
        self._weights = {
            name.removeprefix("model."): tensor.detach().cpu().clone()
            for name, tensor in weights.items()
            if name.startswith("model.")  # and not those of a teacher
        }

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write them if they are among the best."""
        assert isinstance(pl_module, TrainingModule)
        if trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        *before, last = pl_module.validations
        kept = {_name(step) for step in best_steps(before, self._count)}
        for file in self._folder.glob("*.pt"):
            if file.name not in kept:
                file.unlink()
        if last.step in best_steps(pl_module.validations, self._count):
            content = io.BytesIO()
            torch.save(self._weights, content)
            write_whole(self._folder / _name(last.step), content.getbuffer())
        self._weights = {}


def mean_weights(folder: Path, steps: Sequence[int]) -> dict[str, Tensor]:
    """The mean of the weights that ``KeepBest`` has kept of these steps.

    Raises:
        CheckpointError: If a file is missing or cannot be read.
    """
    total: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for step in steps:
        path = folder / _name(step)
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes of the unpickler
            raise CheckpointError(
                f"{path}: cannot be read ({error}); without it the best weights cannot be averaged."
            ) from error
        for name, tensor in weights.items():
            kinds[name] = tensor.dtype
            total[name] = total.get(name, 0.0) + tensor.double() / len(steps)
    return {name: tensor.to(kinds[name]) for name, tensor in total.items()}


def _name(step: int) -> str:
    return f"step-{step:08d}.pt"
