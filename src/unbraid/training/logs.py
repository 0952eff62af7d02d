"""Where the figures, the sounds and the pictures of a run go, and how far it is."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from unbraid.data.dynamic import MixtureBatch
from unbraid.dsp.log_spectrogram import CEILING_DB, FLOOR_DB, log_spectrogram_db
from unbraid.errors import MissingExtra
from unbraid.training.config import TrainConfig
from unbraid.types import Step, StepCallback, Waveform

#: The project under which Weights & Biases shows all runs.
_PROJECT = "unbraid"


def loggers_of(config: TrainConfig, run_dir: Path) -> list[Logger]:
    """The loggers that a config names, in its order.

    Raises:
        MissingExtra: If it names ``wandb``, and that package is not installed.
    """
    return [_logger(name, config, run_dir) for name in config.loggers]


def _logger(name: str, config: TrainConfig, run_dir: Path) -> Logger:
    if name == "csv":
        # A version per session: this logger would clear the log of the session before.
        return CSVLogger(run_dir, name="log")
    if name == "tensorboard":
        return TensorBoardLogger(run_dir, name="", version="tensorboard")
    try:
        # Here, too, each session is a run; what belongs together is one group.
        return WandbLogger(name=run_dir.name, project=_PROJECT, group=config.name, save_dir=run_dir)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "logging to Weights & Biases needs the package wandb; install it with: "
            "pip install 'unbraid[wandb]', or take wandb out of loggers."
        ) from error


#: How the names of figures begin that are measured while learning.
_LEARNT = "train/"

_SECONDS_BETWEEN = 0.5

#: How much of a mixture is kept to hear; TensorBoard keeps sounds uncompressed.
_LONGEST_S = 4.0
_MOST_COLUMNS = 160
_ROWS_PER_PANEL = 90
_PEAK = 0.9


class ToldSteps(Callback):
    """Tells how many steps of a run are done, and its loss, now and then.

    Args:
        name: What the run does.
        on_step: Whom to tell.
    """

    def __init__(self, name: str, on_step: StepCallback) -> None:
        self._name = name
        self._on_step = on_step
        self._told_s = -math.inf

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell where the run begins, or goes on."""
        self._tell(trainer, "")

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: MixtureBatch,
        batch_idx: int,
    ) -> None:
        """Tell the step, but not so often that it would cost time: a GPU waits for its loss."""
        is_last = trainer.global_step == trainer.max_steps
        if is_last or time.monotonic() - self._told_s >= _SECONDS_BETWEEN:
            losses = [
                f"{name.removeprefix(_LEARNT)} {float(value):.4g}"
                for name, value in trainer.callback_metrics.items()
                if name.startswith(_LEARNT)
            ]
            self._tell(trainer, ", ".join(losses))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say why the steps stand still."""
        if trainer.state.fn == "fit":
            self._tell(trainer, "validating")

    def _tell(self, trainer: pl.Trainer, detail: str) -> None:
        if trainer.is_global_zero:
            self._told_s = time.monotonic()
            step = trainer.global_step
            self._on_step(Step(self._name, step, trainer.max_steps, "steps", detail))


class Exhibit(Callback):
    """Gives TensorBoard the first mixture of each scene to hear and to see, at every validation.

    Pictures are spectrograms, one below the other for the sources of a mixture. Mixture and
    references are shown once, estimates at every validation. Their loudest sample is brought to
    one level, with one gain for the sounds of a picture.

    Args:
        scenes: Names of the scenes.
        sample_rate: Of the mixtures.
    """

    def __init__(self, scenes: tuple[str, ...], sample_rate: int) -> None:
        self._scenes = scenes
        self._sample_rate = sample_rate
        self._is_first = True

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: MixtureBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show a mixture, if it is the first of its scene."""
        if batch_idx > 0 or not isinstance(outputs, Mapping) or not trainer.is_global_zero:
            return
        length = round(_LONGEST_S * self._sample_rate)
        mixture, references, estimates = (
            sound[0, ..., :length].detach().float().cpu()
            for sound in (batch.mixture, batch.references, outputs["estimates"])
        )
        if mixture.ndim == 2:  # of several channels their mean
            mixture, references, estimates = (
                sound.mean(dim=-2) for sound in (mixture, references, estimates)
            )
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                scene = self._scenes[dataloader_idx]
                self._show(logger.experiment, scene, trainer.global_step, mixture[None], "mixture")
                self._show(logger.experiment, scene, trainer.global_step, references, "reference")
                self._show(logger.experiment, scene, trainer.global_step, estimates, "estimate")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From the second validation on, only estimates are new."""
        self._is_first = False

    def _show(
        self,
        board: SummaryWriter,
        scene: str,
        step: int,
        sounds: Float[Tensor, "source time"],
        kind: str,
    ) -> None:
        if kind != "estimate" and not self._is_first:
            return
        gain = _PEAK / sounds.abs().max().clamp_min(1e-8)
        for number, sound in enumerate(sounds * gain, start=1):
            tag = f"{scene}/{kind}" + (f"-{number}" if len(sounds) > 1 else "")
            board.add_audio(tag, sound[None], step, self._sample_rate)
        panels = [self._panel(sound) for sound in sounds * gain]
        board.add_image(f"{scene}/{kind}", torch.cat(panels), step, dataformats="HW")

    def _panel(self, sound: Float[Tensor, "time"]) -> Float[Tensor, "row column"]:
        """A small grey picture of a sound, low frequencies at the bottom."""
        levels_db = log_spectrogram_db(Waveform(sound[None], self._sample_rate)).T.flip(0)
        grey = (levels_db.clamp(FLOOR_DB, CEILING_DB) - FLOOR_DB) / (CEILING_DB - FLOOR_DB)
        size = (_ROWS_PER_PANEL, min(_MOST_COLUMNS, grey.shape[1]))
        return torch.nn.functional.adaptive_avg_pool2d(grey[None], size)[0]
