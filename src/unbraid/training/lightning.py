"""The bridge between our models and Lightning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader

from unbraid.data.dynamic import MixtureBatch, MixtureStream, render_batch
from unbraid.evaluation.batches import best_si_sdr_db, mixture_si_sdr_db
from unbraid.mixing.recipe import MixPlan, Planner
from unbraid.mixing.render import ClipReader
from unbraid.models.taggers.htsat import Htsat
from unbraid.models.waveform import WaveformModel
from unbraid.prompts import ANY_SOURCE
from unbraid.training.config import OptimiserConfig, TrainConfig
from unbraid.training.methods.by_example import by_example_loss, estimates_by_example
from unbraid.training.methods.supervised import supervised_loss
from unbraid.training.methods.tagging import StripeConfig, tagging_accuracy, tagging_loss


class _Module(pl.LightningModule):
    """What learns, its optimiser, and a measure for each scene of the validation.

    Args:
        model: What learns.
        optimiser: How.
        max_steps: For how long.
        seed: Of what is drawn in a step.
        scenes: Names of the scenes.
        measure: What the measure is called in logs.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: OptimiserConfig,
        max_steps: int,
        seed: int,
        scenes: tuple[str, ...],
        measure: str,
    ) -> None:
        super().__init__()
        self.model = model
        self._optimiser = optimiser
        self._max_steps = max_steps
        self._seed = seed
        self._scenes = scenes
        self._measure = measure

    def on_train_batch_start(self, batch: MixtureBatch, batch_idx: int) -> None:
        """Draw the same numbers in a step, whether the run was stopped before it or not."""
        torch.manual_seed(self._seed * 1_000_000_007 + self.global_step)

    def log_measure(self, value: Tensor, batch: MixtureBatch, scene: int) -> None:
        """Log the measure of a batch under its scene."""
        self.log(
            f"valid/{self._measure}/{self._scenes[scene]}",
            value,
            batch_size=len(batch.mixture),
            on_epoch=True,
            add_dataloader_idx=False,
        )

    def on_validation_epoch_end(self) -> None:
        """The mean over the scenes, each counting the same."""
        values = [
            self.trainer.callback_metrics[f"valid/{self._measure}/{scene}"]
            for scene in self._scenes
        ]
        self.log(f"valid/{self._measure}/mean", torch.stack(values).mean())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW in two groups, and the learning rate as a function of the step."""
        settings = self._optimiser
        decayed: list[nn.Parameter] = []
        free: list[nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                is_free = parameter.ndim < 2 or name.startswith("prompts.")
                (free if is_free else decayed).append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": decayed},
            {"params": free, "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(
            groups,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            eps=settings.eps,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: learning_rate_factor(step, settings, self._max_steps)
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class SeparationModule(_Module):
    """A model that learns to separate: by example if it has a tagger, else by its prompts."""

    model: WaveformModel

    def __init__(self, model: WaveformModel, config: TrainConfig, scenes: tuple[str, ...]) -> None:
        super().__init__(
            model, config.optimiser, config.max_steps, config.seed, scenes, "si_sdri_db"
        )
        self._loss = config.loss

    def training_step(self, batch: MixtureBatch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        if self.model.tagger is not None:
            loss = by_example_loss(self.model, batch)
            self.log("train/loss", loss, batch_size=len(batch.mixture))
        else:
            loss = supervised_loss(self.model, batch, self._loss)
            self.log("train/loss_db", loss, batch_size=len(batch.mixture))
        return loss

    def validation_step(self, batch: MixtureBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """SI-SDR improvement of one mixture, logged under its scene."""
        if self.model.tagger is not None:
            estimates = estimates_by_example(self.model, batch)
        else:
            asked = batch.prompt_indices
            if not self.model.names_sources:
                asked = self.model.all_outputs.to(asked.device).expand(len(asked), -1)
            estimates = self.model(batch.mixture, asked)
        gain = (best_si_sdr_db(estimates, batch) - mixture_si_sdr_db(batch)).mean()
        self.log_measure(gain, batch, dataloader_idx)


class TaggingModule(_Module):
    """A tagger that learns the pools as its classes."""

    model: Htsat

    def __init__(
        self, tagger: Htsat, config: TrainConfig, stripes: StripeConfig, scenes: tuple[str, ...]
    ) -> None:
        super().__init__(
            tagger, config.optimiser, config.max_steps, config.seed, scenes, "accuracy"
        )
        self._stripes = stripes

    def training_step(self, batch: MixtureBatch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        loss = tagging_loss(self.model, batch, self._stripes)
        self.log("train/loss", loss, batch_size=len(batch.mixture))
        return loss

    def validation_step(self, batch: MixtureBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Share of the classes that are found, logged under their scene."""
        self.log_measure(tagging_accuracy(self.model, batch), batch, dataloader_idx)


def learning_rate_factor(step: int, settings: OptimiserConfig, max_steps: int) -> float:
    """Share of the full learning rate at a step: rise, plateau, cosine fall."""
    if step < settings.warmup_steps:
        return step / settings.warmup_steps
    left = max_steps - step
    if left < settings.decay_steps:
        return 0.5 - 0.5 * math.cos(math.pi * left / settings.decay_steps)
    return 1.0


class SaveLast(Checkpoint):
    """Keeps one checkpoint: the run as it stood last, whole or not replaced.

    Saved every so many steps, after the last step, and when an error or Ctrl-C ends the run.

    Args:
        path: The checkpoint file.
        every_steps: How often.
    """

    def __init__(self, path: Path, every_steps: int) -> None:
        self._path = path
        self._every_steps = every_steps

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Save when it is time to."""
        step = trainer.global_step
        if step % self._every_steps == 0 or step == trainer.max_steps:
            self._save(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save before the run ends."""
        if trainer.global_step > 0:
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        part = self._path.with_suffix(".part")
        trainer.save_checkpoint(part)
        part.replace(self._path)


class MixtureData(pl.LightningDataModule):
    """Endless training mixtures and fixed validation mixtures."""

    def __init__(
        self,
        config: TrainConfig,
        planner: Planner,
        read_clip: ClipReader,
        validation_plans: Mapping[str, tuple[MixPlan, ...]],
        read_validation_clip: ClipReader,
    ) -> None:
        super().__init__()
        self._config = config
        self._planner = planner
        self._read_clip = read_clip
        self._validation_plans = validation_plans
        self._read_validation_clip = read_validation_clip
        # The classes of a tagger are the pools.
        prompts = config.model.prompts or tuple(config.data.pools)
        # A model that does not say what its sources are takes them all for the same.
        self._rows = {
            name: prompts.index(name if name in prompts else ANY_SOURCE)
            for name in (*prompts, *config.data.pools, *config.recipe.composed)
            if name in prompts or ANY_SOURCE in prompts
        }

    def train_dataloader(self) -> DataLoader[MixtureBatch]:
        """The stream from the step at which the run stands: 0, or where it was resumed."""
        assert self.trainer is not None
        config = self._config
        stream = MixtureStream(
            self._planner,
            self._read_clip,
            config.model.sample_rate,
            self._rows,
            config.batch_size,
            config.seed,
            first_batch=self.trainer.global_step,
            rank=self.trainer.global_rank,
            num_ranks=self.trainer.world_size,
        )
        return DataLoader(stream, batch_size=None, num_workers=config.num_workers)

    def val_dataloader(self) -> list[DataLoader[MixtureBatch]]:
        """One loader per scene, rendered once and kept."""
        rate = self._config.model.sample_rate
        return [
            DataLoader(
                [
                    render_batch((plan,), self._read_validation_clip, rate, self._rows)
                    for plan in plans
                ],  # type: ignore[arg-type]
                batch_size=None,
            )
            for plans in self._validation_plans.values()
        ]

    def transfer_batch_to_device(
        self, batch: MixtureBatch, device: torch.device, dataloader_idx: int
    ) -> MixtureBatch:
        """Move a batch."""
        return MixtureBatch(
            batch.mixture.to(device), batch.references.to(device), batch.prompt_indices.to(device)
        )
