"""The bridge between our models and Lightning."""

from __future__ import annotations

import logging
import random
import signal
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils.data import DataLoader, Dataset

from unbraid.data.dynamic import BatchSource, MixtureBatch, MixtureStream
from unbraid.evaluation.batches import best_si_sdr_db, mixture_si_sdr_db
from unbraid.models.taggers.htsat import Htsat
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.losses import SpectralLossConfig
from unbraid.training.config import TrainConfig
from unbraid.training.methods.by_example import (
    ByExampleConfig,
    by_example_loss,
    estimates_by_example,
    relative_error,
)
from unbraid.training.methods.mixit import MixitConfig, mixture_invariant_loss
from unbraid.training.methods.remixing import RemixingConfig, Teacher, remixing_loss
from unbraid.training.methods.slots import SlotsConfig, separated_by_slots, slots_loss
from unbraid.training.methods.supervised import (
    loss_of_estimates,
    supervised_loss,
    with_all_outputs,
)
from unbraid.training.methods.tagging import StripeConfig, tagging_accuracy, tagging_loss
from unbraid.training.schedule import Validated, has_stalled, learning_rate

log = logging.getLogger(__name__)

#: Seeds of the devices lie so far apart that none meets another one's steps.
_BETWEEN_RANKS = 2**40


class TrainingModule(pl.LightningModule):
    """What learns, its optimiser, and a loss and a measure for each scene of the validation.

    Args:
        model: What learns.
        config: How.
        scenes: Names of the scenes.
        measure: What the measure is called in logs.

    Attributes:
        validations: All that there were so far; kept in checkpoints.
    """

    def __init__(
        self, model: nn.Module, config: TrainConfig, scenes: tuple[str, ...], measure: str
    ) -> None:
        super().__init__()
        self.model = model
        self.validations: tuple[Validated, ...] = ()
        self._optimiser = config.optimiser
        self._max_steps = config.max_steps
        self._patience = config.validation.patience
        self._seed = config.seed
        self._scenes = scenes
        self._measure = measure
        # A bank of no prompts, or of no length, takes no part: nobody is to wait for its gradient.
        for parameter in model.parameters():
            if not parameter.numel():
                parameter.requires_grad_(False)

    def on_train_start(self) -> None:
        """A run that ended early has ended."""
        self._stop_if_stalled()

    def on_train_batch_start(self, batch: MixtureBatch, batch_idx: int) -> None:
        """Set the learning rate of the step, and draw the same numbers in a batch.

        Both are the same whether the run was stopped before or not. Other numbers are drawn on
        each device, whose mixtures are others, too.
        """
        seed = self._seed * 1_000_000_007 + number_of_batch(self.trainer, batch_idx)
        torch.manual_seed(seed + self.global_rank * _BETWEEN_RANKS)
        rate = learning_rate(self.global_step, self._optimiser, self._max_steps, self.validations)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Scale gradients down to a norm, also where each GPU holds a piece of them."""
        strategy = self.trainer.strategy
        if isinstance(strategy, FSDPStrategy):
            assert isinstance(strategy.model, FullyShardedDataParallel)
            assert gradient_clip_val is not None
            strategy.model.clip_grad_norm_(gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def log_scene(self, loss: Tensor, measure: Tensor, batch: MixtureBatch, scene: int) -> None:
        """Log the loss and the measure of a batch under its scene."""
        for name, value in (("loss", loss), (self._measure, measure)):
            self.log(
                f"valid/{name}/{self._scenes[scene]}",
                value,
                batch_size=len(batch.mixture),
                on_epoch=True,
                add_dataloader_idx=False,
                sync_dist=True,
            )

    def on_validation_epoch_end(self) -> None:
        """The means over the scenes, each counting the same."""
        means = {}
        for name in ("loss", self._measure):
            # The devices have agreed on these.
            values = [
                self.trainer.callback_metrics[f"valid/{name}/{scene}"] for scene in self._scenes
            ]
            means[name] = torch.stack(values).mean()
            self.log(f"valid/{name}/mean", means[name], sync_dist=True)
        if self.trainer.state.fn == "fit":
            self.validations += (Validated(self.global_step, float(means["loss"])),)
            self._stop_if_stalled()

    def _stop_if_stalled(self) -> None:
        if self._patience is not None and has_stalled(self.validations, self._patience):
            log.info("the loss of the validation has not fallen any more: the run ends")
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the validations."""
        checkpoint[_VALIDATIONS] = [(each.step, each.loss) for each in self.validations]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Bring them back."""
        self.validations = validations_of(checkpoint)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW in two groups; the learning rate is set step by step."""
        settings = self._optimiser
        decayed: list[nn.Parameter] = []
        free: list[nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                is_vector = parameter.ndim < 2 or name.startswith("prompts.")
                is_free = is_vector and settings.decayed == "matrices"
                (free if is_free else decayed).append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": decayed},
            {"params": free, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            groups,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            eps=settings.eps,
        )


#: What the validations are called in a checkpoint.
_VALIDATIONS = "validations"


def validations_of(checkpoint: Mapping[str, Any]) -> tuple[Validated, ...]:
    """The validations that there were before a checkpoint."""
    return tuple(Validated(step, loss) for step, loss in checkpoint.get(_VALIDATIONS, ()))


def number_of_batch(trainer: pl.Trainer, batch_idx: int) -> int:
    """The number of a batch in the stream of a run, from the number that Lightning gives it."""
    num_batches = trainer.accumulate_grad_batches
    return trainer.global_step * num_batches + batch_idx % num_batches


class SeparationModule(TrainingModule):
    """A model that learns to separate, by the method of its run."""

    model: WaveformModel

    def __init__(self, model: WaveformModel, config: TrainConfig, scenes: tuple[str, ...]) -> None:
        super().__init__(model, config, scenes, "si_sdri_db")
        self._loss = config.loss
        self._method = config.learning_method
        # A part of the module, so that it is saved with the run.
        self.teacher = Teacher(model) if isinstance(self._method, RemixingConfig) else None

    def training_step(self, batch: MixtureBatch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        name, loss = self._named_loss(batch)
        self.log(f"train/{name}", loss, batch_size=len(batch.mixture), sync_dist=True)
        return loss

    def _named_loss(self, batch: MixtureBatch) -> tuple[str, Tensor]:
        """The loss of a batch, and what it is called in logs."""
        method = self._method
        if isinstance(method, ByExampleConfig):
            return "loss", by_example_loss(self.model, batch)
        if isinstance(method, MixitConfig | RemixingConfig):
            if method.supervised_weight and batch.references.shape[1] > 1:
                loss = supervised_loss(self.model, batch, self._loss)
                return "supervised_loss", method.supervised_weight * loss
            return f"{method.kind}_loss", self._loss_without_references(method, batch.mixture)
        if isinstance(method, SlotsConfig):
            return "loss", slots_loss(self.model, batch, method.drawn_share)
        name = "loss" if isinstance(self._loss, SpectralLossConfig) else "loss_db"
        return name, supervised_loss(self.model, batch, self._loss)

    def _loss_without_references(
        self, method: MixitConfig | RemixingConfig, mixture: Tensor
    ) -> Tensor:
        if isinstance(method, MixitConfig):
            return mixture_invariant_loss(self.model.separate_all, mixture, method)
        assert self.teacher is not None, "this method has one"
        # Another seed in every step, see ``on_train_batch_start``.
        rng = random.Random(torch.initial_seed())
        return remixing_loss(self.model.separate_all, self.teacher, mixture, method, rng)

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Learn; then the teacher, if there is one, follows."""
        super().optimizer_step(*arguments, **named)
        if self.teacher is not None:
            assert isinstance(self._method, RemixingConfig)
            decay = self._method.teacher.decay_at(self.global_step + 1)
            self.teacher.follow(self.model, decay)

    def validation_step(
        self, batch: MixtureBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Loss and SI-SDR improvement of one mixture, under its scene; gives the estimates.

        The loss is one with references, by whatever method the model learns.
        """
        asked, estimates, loss = self._validated(batch)
        best_db = best_si_sdr_db(estimates, batch, asked.prompt_indices)
        gain = (best_db - mixture_si_sdr_db(batch)).mean()
        self.log_scene(loss, gain, batch, dataloader_idx)
        return {"estimates": estimates}

    def _validated(self, batch: MixtureBatch) -> tuple[MixtureBatch, Tensor, Tensor]:
        """What is asked for, what comes out, and the loss."""
        model, method = self.model, self._method
        if isinstance(method, ByExampleConfig):
            estimates = estimates_by_example(model, batch)
            return batch, estimates, relative_error(batch, estimates)
        if isinstance(method, SlotsConfig):
            return *separated_by_slots(model, batch), slots_loss(model, batch)
        asked = with_all_outputs(model, batch)
        estimates = model(asked.mixture, asked.prompt_indices)
        return asked, estimates, loss_of_estimates(asked, estimates, self._loss)


class TaggingModule(TrainingModule):
    """A tagger that learns the pools as its classes."""

    model: Htsat

    def __init__(
        self, tagger: Htsat, config: TrainConfig, stripes: StripeConfig, scenes: tuple[str, ...]
    ) -> None:
        super().__init__(tagger, config, scenes, "accuracy")
        self._stripes = stripes

    def training_step(self, batch: MixtureBatch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        loss = tagging_loss(self.model, batch, self._stripes)
        self.log("train/loss", loss, batch_size=len(batch.mixture), sync_dist=True)
        return loss

    def validation_step(self, batch: MixtureBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Loss and share of the classes that are found, logged under their scene."""
        loss = tagging_loss(self.model, batch, StripeConfig(count=0))
        self.log_scene(loss, tagging_accuracy(self.model, batch), batch, dataloader_idx)


class MixtureData(pl.LightningDataModule):
    """Endless training mixtures and fixed validation mixtures.

    Args:
        source: Makes the training batches.
        validation: Scene → its batches, of one mixture each.
        config: The run.

    Attributes:
        source: The same.
        seed: Of the training mixtures.
    """

    def __init__(
        self,
        source: BatchSource,
        validation: Mapping[str, Dataset[MixtureBatch]],
        config: TrainConfig,
    ) -> None:
        super().__init__()
        self.source = source
        self.seed = config.seed
        self._validation = validation
        self._num_workers = config.num_workers
        self._batches_per_step = config.batches_per_step

    def train_dataloader(self) -> DataLoader[MixtureBatch]:
        """The stream from the step at which the run stands: 0, or where it was resumed."""
        trainer = self.trainer
        assert trainer is not None
        return DataLoader(
            MixtureStream(
                self.source,
                first_batch=trainer.global_step * self._batches_per_step,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
            ),
            batch_size=None,
            num_workers=self._num_workers,
            worker_init_fn=_leave_ctrl_c_to_the_trainer,
        )

    def val_dataloader(self) -> list[DataLoader[MixtureBatch]]:
        """One loader per scene; every device measures all of them."""
        return [DataLoader(batches, batch_size=None) for batches in self._validation.values()]

    def transfer_batch_to_device(
        self, batch: MixtureBatch, device: torch.device, dataloader_idx: int
    ) -> MixtureBatch:
        """Move a batch."""
        return batch.to(device)


def _leave_ctrl_c_to_the_trainer(worker: int) -> None:
    # Ctrl-C reaches all processes of a terminal. The step it falls into still needs its mixtures.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
