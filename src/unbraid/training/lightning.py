"""The bridge between our models and Lightning."""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Mapping
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils.data import DataLoader

from unbraid.data.dynamic import MixtureBatch, MixtureStream, render_batch
from unbraid.evaluation.batches import best_si_sdr_db, mixture_si_sdr_db
from unbraid.mixing.recipe import MixPlan, Planner
from unbraid.mixing.render import ClipReader
from unbraid.models.taggers.htsat import Htsat
from unbraid.models.waveform import WaveformModel
from unbraid.prompts import ANY_SOURCE
from unbraid.training.config import OptimiserConfig, TrainConfig
from unbraid.training.methods.by_example import (
    ByExampleConfig,
    by_example_loss,
    estimates_by_example,
)
from unbraid.training.methods.mixit import MixitConfig, mixture_invariant_loss
from unbraid.training.methods.remixing import RemixingConfig, Teacher, remixing_loss
from unbraid.training.methods.slots import autoencoder_estimates, learns_slots, slots_loss
from unbraid.training.methods.supervised import supervised_loss
from unbraid.training.methods.tagging import StripeConfig, tagging_accuracy, tagging_loss

#: Seeds of the devices lie so far apart that none meets another one's steps.
_BETWEEN_RANKS = 2**40


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
        # A bank of no prompts, or of no length, takes no part: nobody is to wait for its gradient.
        for parameter in model.parameters():
            if not parameter.numel():
                parameter.requires_grad_(False)

    def on_train_batch_start(self, batch: MixtureBatch, batch_idx: int) -> None:
        """Draw the same numbers in a step, whether the run was stopped before it or not.

        Other numbers on each device, whose mixtures are others, too.
        """
        seed = self._seed * 1_000_000_007 + self.global_step
        torch.manual_seed(seed + self.global_rank * _BETWEEN_RANKS)

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

    def log_measure(self, value: Tensor, batch: MixtureBatch, scene: int) -> None:
        """Log the measure of a batch under its scene."""
        self.log(
            f"valid/{self._measure}/{self._scenes[scene]}",
            value,
            batch_size=len(batch.mixture),
            on_epoch=True,
            add_dataloader_idx=False,
            sync_dist=True,
        )

    def on_validation_epoch_end(self) -> None:
        """The mean over the scenes, each counting the same."""
        values = [
            self.trainer.callback_metrics[f"valid/{self._measure}/{scene}"]
            for scene in self._scenes
        ]
        self.log(f"valid/{self._measure}/mean", torch.stack(values).mean(), sync_dist=True)

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
    """A model that learns to separate, by the method of its run."""

    model: WaveformModel

    def __init__(self, model: WaveformModel, config: TrainConfig, scenes: tuple[str, ...]) -> None:
        super().__init__(
            model, config.optimiser, config.max_steps, config.seed, scenes, "si_sdri_db"
        )
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
        if learns_slots(self.model.network):
            return "loss", slots_loss(self.model, batch)
        return "loss_db", supervised_loss(self.model, batch, self._loss)

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
        """SI-SDR improvement of one mixture, logged under its scene; gives the estimates."""
        if self.model.tagger is not None:
            estimates = estimates_by_example(self.model, batch)
        elif learns_slots(self.model.network) and self.model.network.num_outputs == 1:
            estimates = autoencoder_estimates(self.model, batch)
        elif self.model.names_sources:
            estimates = self.model(batch.mixture, batch.prompt_indices)
        else:
            estimates = self.model.separate_all(batch.mixture)
        gain = (best_si_sdr_db(estimates, batch) - mixture_si_sdr_db(batch)).mean()
        self.log_measure(gain, batch, dataloader_idx)
        return {"estimates": estimates}


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
        self.log("train/loss", loss, batch_size=len(batch.mixture), sync_dist=True)
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


class MixtureData(pl.LightningDataModule):
    """Endless training mixtures and fixed validation mixtures.

    Attributes:
        seed: Of the training mixtures.
    """

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
        self._validation_plans = validation_plans
        self._read_validation_clip = read_validation_clip
        self.seed = config.seed
        # The classes of a tagger are the pools.
        prompts = config.model.prompts or tuple(config.data.pools)
        # A model that does not say what its sources are takes them all for the same.
        self._rows = {
            name: prompts.index(name if name in prompts else ANY_SOURCE)
            for name in (*prompts, *config.data.pools, *config.recipe.composed)
            if name in prompts or ANY_SOURCE in prompts
        }
        self._stream = partial(
            MixtureStream,
            planner,
            read_clip,
            config.model.sample_rate,
            self._rows,
            config.batch_size,
            config.seed,
        )

    def plans(self, number: int, rank: int = 0, world_size: int = 1) -> tuple[MixPlan, ...]:
        """What batch ``number`` is rendered from; of several devices, the share of one."""
        return self._stream(rank=rank, world_size=world_size).plans(number)

    def batch(self, number: int, rank: int = 0, world_size: int = 1) -> MixtureBatch:
        """Batch ``number``; of several devices, the share of one."""
        return self._stream(rank=rank, world_size=world_size).batch(number)

    def train_dataloader(self) -> DataLoader[MixtureBatch]:
        """The stream from the step at which the run stands: 0, or where it was resumed."""
        trainer = self.trainer
        assert trainer is not None
        return DataLoader(
            self._stream(
                first_batch=trainer.global_step,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
            ),
            batch_size=None,
            num_workers=self._config.num_workers,
            worker_init_fn=_leave_ctrl_c_to_the_trainer,
        )

    def val_dataloader(self) -> list[DataLoader[MixtureBatch]]:
        """One loader per scene, rendered once and kept; every device measures all of them."""
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
        return batch.to(device)


def _leave_ctrl_c_to_the_trainer(worker: int) -> None:
    # Ctrl-C reaches all processes of a terminal. The step it falls into still needs its mixtures.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
