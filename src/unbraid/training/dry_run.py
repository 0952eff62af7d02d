"""Trying a run out before it starts: what would fail in hours is to fail in minutes.

Each stage of the run is built as it will be, on the real recordings, in a temporary folder. Then
it learns one batch of the real size by heart, validates twice, and trains a few steps twice: at
one go, and stopped in between.

==============  ===========================================================================
check           passes if
==============  ===========================================================================
memory          the largest of the first batches goes through a step
loss            it is lower after some steps on that batch than before
parameters      each one that is to learn gets a gradient and changes
validation      two of them give the same figures, to the last bit
resume          stopped and gone on with gives the weights of a run at one go
disk            there is room for what the run keeps
==============  ===========================================================================

Several devices are tried out as one, with its share of a batch.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from unbraid.data.dynamic import MixtureBatch
from unbraid.errors import Cancelled, TrainingError, counted, in_brief
from unbraid.training.config import TrainConfig
from unbraid.training.devices import check_devices
from unbraid.training.lightning import MixtureData
from unbraid.training.logs import ToldSteps
from unbraid.training.recipe_files import find_recipe, load_recipe
from unbraid.training.run import (
    Material,
    Stage,
    fit,
    last_checkpoint,
    learnt,
    make_trainer,
    network_stage,
    new_model,
    open_material,
    quiet_lightning,
    run_dir_of,
    tagger_stage,
)
from unbraid.training.safeguards import named_failures
from unbraid.training.schedule import OptimiserConfig
from unbraid.types import Step, StepCallback

#: Steps on one batch, and the share of them whose mean loss is compared with the first.
_NUM_STEPS = 20
_SHARE_AT_THE_END = 0.25

#: Among so many batches the largest is looked for.
_NUM_BATCHES = 64

#: Steps of a run at one go, and where the other one is stopped.
_WHOLE_STEPS, _FIRST_STEPS = 4, 2

#: GPUs sum in any order, so that two equal runs differ by rounding.
_GPU_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Check:
    """One question about a run, and its answer.

    Attributes:
        name: What was looked at.
        passed: Whether all is well.
        detail: What was found, on one line.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Figures:
    """What was measured on a stage.

    Attributes:
        device: What it was measured on.
        num_parameters: How many numbers learn.
        batch_size: Mixtures that a device gets in a step.
        step_s: Median time of a step on the largest batch, without mixing.
        mixing_s: Time to make that batch.
        validation_s: Time of a whole validation.
        expected_s: Time of the whole stage, by these figures.
        peak_bytes: Most memory: of the GPU; on a CPU, of the process.
        checkpoint_bytes: Size of a checkpoint.
    """

    device: str
    num_parameters: int
    batch_size: int
    step_s: float
    mixing_s: float
    validation_s: float
    expected_s: float
    peak_bytes: int
    checkpoint_bytes: int


@dataclass(frozen=True)
class StageTrial:
    """How a stage went.

    Attributes:
        stage: ``tagger`` or ``network``.
        checks: In the order of the table above; after one that failed hard, there are no more.
        figures: None if a step could not be done.
    """

    stage: str
    checks: tuple[Check, ...]
    figures: Figures | None

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)


def dry_run(
    recipe: str | Path,
    overrides: Sequence[str],
    out_dir: Path | None,
    on_step: StepCallback = lambda step: None,
) -> tuple[StageTrial, ...]:
    """Try every stage of a run out; nothing is left in its folder.

    Args:
        recipe: The name of a recipe that ships, or the path of a YAML file.
        overrides: ``key=value`` settings on top of it.
        out_dir: Where the run would keep its files; None for ``runs/NAME``.
        on_step: Called with the check that is at work.

    Raises:
        ConfigError: If the config is wrong.
        DataError: If recordings are missing.
        CheckpointError: If the weights to start from cannot be read.
        Cancelled: If Ctrl-C was pressed.
    """
    config = load_recipe(recipe, overrides)
    base = find_recipe(recipe).base_dir
    ranks = check_devices(config)
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    on_step(Step("reading the recordings", 0, None, "files"))
    material = open_material(config, base, new_model(config).network.num_channels)
    alone = _on_one_device(config, ranks)
    room = _Room(run_dir_of(config, out_dir))
    stages: dict[str, Callable[[TrainConfig], Stage]] = {
        "network": lambda config: network_stage(new_model(config), config, material)
    }
    if alone.model.tagger is not None:
        stages = {"tagger": lambda config: _new_tagger_stage(config, material), **stages}
    tell = {name: _under(name, on_step) if len(stages) > 1 else on_step for name in stages}
    try:
        return tuple(
            _Trial(name, alone, build, room, tell[name]).run() for name, build in stages.items()
        )
    except Cancelled as error:
        # Nothing of the run is saved, whatever its safeguard says of it.
        raise type(error)("stopped; a dry run keeps nothing.") from error


def _under(stage: str, on_step: StepCallback) -> StepCallback:
    """Steps that say which stage they belong to."""
    return lambda step: on_step(dataclasses.replace(step, name=f"{stage}: {step.name}"))


def _on_one_device(config: TrainConfig, ranks: int) -> TrainConfig:
    tagging = config.tagging
    if tagging is not None:
        tagging = dataclasses.replace(tagging, batch_size=tagging.batch_size // ranks)
    return dataclasses.replace(
        config,
        batch_size=config.batch_size // ranks,
        tagging=tagging,
        devices=1,
        num_nodes=1,
        strategy="auto",
        loggers=(),
    )


def _new_tagger_stage(config: TrainConfig, material: Material) -> Stage:
    model = new_model(config)
    assert model.tagger is not None, "asked for where there is one"
    return tagger_stage(model.tagger, config, material)


class _Room:
    """The disk that a run will write to, and what has been promised of it."""

    def __init__(self, run_dir: Path) -> None:
        folder = run_dir.absolute()
        while not folder.exists():
            folder = folder.parent
        self._left_bytes = shutil.disk_usage(folder).free

    def check(self, checkpoint_bytes: int, weight_bytes: int, num_best: int) -> Check:
        # A new checkpoint is written before the old one goes; the bundle comes at the end. Of the
        # best weights there is one more than are averaged.
        num_models = 1 + (num_best + 1 if num_best else 0)
        needed = 2 * checkpoint_bytes + num_models * weight_bytes
        models = "the model" if num_models == 1 else f"{num_models} times the model"
        detail = (
            f"needs {_bytes(needed)} (two checkpoints of {_bytes(checkpoint_bytes)}, and "
            f"{models}), {_bytes(self._left_bytes)} are free"
        )
        passed = needed < self._left_bytes
        self._left_bytes -= needed
        return Check("disk", passed, detail)


class _Trial:
    """Tries one stage out."""

    def __init__(
        self,
        name: str,
        config: TrainConfig,
        new_stage: Callable[[TrainConfig], Stage],
        room: _Room,
        on_step: StepCallback,
    ) -> None:
        self._name = name
        self._on_step = on_step
        self._config = config
        self._new_stage = new_stage
        self._room = room
        self._checks: list[Check] = []

    def run(self) -> StageTrial:
        with tempfile.TemporaryDirectory() as folder:
            figures = self._try_in(Path(folder))
        return StageTrial(self._name, tuple(self._checks), figures)

    def _note(self, name: str, passed: bool, detail: str) -> None:
        self._checks.append(Check(name, passed, detail))

    def _fit(
        self, check: str, stage: Stage, folder: Path, observers: Sequence[Callback] = ()
    ) -> None:
        told = ToldSteps(check, self._on_step)
        fit(stage, folder, [*observers, _OnlyNumbers(), told])

    def _try_in(self, folder: Path) -> Figures | None:
        self._on_step(Step("mixing", 0, None, "mixtures"))
        stage = self._new_stage(self._config)
        assert isinstance(stage.data, MixtureData)
        batch, mixing_s = _largest_batch(stage.data)
        by_heart = dataclasses.replace(self._config, batches_per_step=1)
        pupil = self._new_stage(_short(by_heart, _NUM_STEPS, rise=_NUM_STEPS // 4))
        watch = _Watch(pupil.module)
        same = dataclasses.replace(pupil, data=_SameBatch(batch, _NUM_STEPS), observers=())
        try:
            self._fit("memory, loss and parameters", same, folder / "batch", [watch])
        except TrainingError as error:
            self._note("memory", True, f"{watch.peak_in_words} up to there")
            self._note("loss", False, str(error))
            return None
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            size = len(batch.mixture)
            self._note("memory", False, f"{size} mixtures at a time do not fit; lower batch_size")
            return None
        self._note("memory", True, watch.peak_in_words)
        self._judge_losses(watch.losses)
        self._judge_parameters(watch)
        validation_s = self._validate_twice(stage, folder / "validation")
        self._stop_and_go_on(folder)
        checkpoint_bytes = last_checkpoint(folder / "batch").stat().st_size
        weights = stage.module.state_dict().values()
        weight_bytes = sum(each.numel() * each.element_size() for each in weights)
        num_best = stage.config.optimiser.average_best or 0
        self._checks.append(self._room.check(checkpoint_bytes, weight_bytes, num_best))
        step_s = statistics.median(watch.step_s)
        return Figures(
            device=watch.device,
            num_parameters=sum(each.numel() for each in watch.learning.values()),
            batch_size=len(batch.mixture),
            step_s=step_s,
            mixing_s=mixing_s,
            validation_s=validation_s,
            expected_s=_expected_s(stage.config, step_s, mixing_s, validation_s),
            peak_bytes=watch.peak_bytes,
            checkpoint_bytes=checkpoint_bytes,
        )

    def _judge_losses(self, losses: Sequence[float]) -> None:
        first = losses[0]
        last = statistics.fmean(losses[-math.ceil(_SHARE_AT_THE_END * len(losses)) :])
        detail = f"{first:.3g} at first, {last:.3g} after {len(losses)} steps on one batch"
        self._note("loss", last < first, detail)

    def _judge_parameters(self, watch: _Watch) -> None:
        learning = list(watch.learning)
        still = [name for name in learning if name not in watch.moved]
        unasked = [name for name in learning if name not in watch.asked]
        if not still and not unasked:
            is_alone = len(learning) == 1
            self._note(
                "parameters",
                True,
                "the only tensor gets a gradient and moves"
                if is_alone
                else f"all {len(learning)} tensors get a gradient and move",
            )
            return
        reasons = {
            "without a gradient": unasked,
            "that do not move": [name for name in still if name not in unasked],
        }
        found = "; ".join(
            f"{len(names)} of {counted(len(learning), 'tensor')} {reason}: {in_brief(names)}"
            for reason, names in reasons.items()
            if names
        )
        self._note("parameters", False, found)

    def _validate_twice(self, stage: Stage, folder: Path) -> float:
        """Check that figures are the same; gives the time of a whole validation."""
        figures = []
        begun_s = time.perf_counter()
        for number in range(2):
            self._on_step(Step("validation", number, 2, "steps"))
            with quiet_lightning(), named_failures():
                trainer = make_trainer(stage.config, folder)
                trainer.validate(stage.module, datamodule=stage.data, verbose=False)
            figures.append({name: float(each) for name, each in trainer.callback_metrics.items()})
        took_s = (time.perf_counter() - begun_s) / 2
        different = [name for name, value in figures[0].items() if value != figures[1][name]]
        detail = (
            f"differs in {in_brief(different)}"
            if different
            else f"two of them give the same {len(figures[0])} figures"
        )
        self._note("validation", not different, detail)
        return took_s

    def _stop_and_go_on(self, folder: Path) -> None:
        whole, stopped = folder / "whole", folder / "stopped"
        try:
            self._fit("resume", self._few_steps(), whole)
            with suppress(_Stopped):
                self._fit("resume", self._few_steps(), stopped, [_Stop(_FIRST_STEPS)])
            self._fit("resume", self._few_steps(), stopped)
        except TrainingError as error:
            self._note("resume", False, str(error))
            return
        expected, found = learnt(whole)[0], learnt(stopped)[0]
        furthest = max(
            (
                float((found[name].double() - tensor.double()).abs().max())
                for name, tensor in expected.items()
                if tensor.numel()
            ),
            default=0.0,
        )
        allowed = _GPU_TOLERANCE if torch.cuda.is_available() else 0.0
        steps = f"{_FIRST_STEPS} + {_WHOLE_STEPS - _FIRST_STEPS} steps"
        how = "to the last bit" if furthest == 0 else f"up to {furthest:.2g}"
        self._note(
            "resume", furthest <= allowed, f"{steps} give the weights of {_WHOLE_STEPS}, {how}"
        )

    def _few_steps(self) -> Stage:
        stage = self._new_stage(_short(self._config, _WHOLE_STEPS, rise=1))
        return dataclasses.replace(stage, observers=())


class _SameBatch(pl.LightningDataModule):
    """One batch, so many times, and no validation."""

    def __init__(self, batch: MixtureBatch, times: int) -> None:
        super().__init__()
        self._batches = [batch] * times

    def train_dataloader(self) -> DataLoader[MixtureBatch]:
        return DataLoader(self._batches, batch_size=None)  # type: ignore[arg-type]

    def transfer_batch_to_device(
        self, batch: MixtureBatch, device: torch.device, dataloader_idx: int
    ) -> MixtureBatch:
        return batch.to(device)


class _OnlyNumbers(Callback):
    """Stops before the safeguard of a run would keep a batch, in a folder that is deleted soon."""

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        if not bool(torch.isfinite(loss.detach())):
            step = trainer.global_step + 1
            raise TrainingError(f"the loss of step {step} is {float(loss.detach())}")


class _Watch(Callback):
    """Sees how a module learns: losses, times, memory, and which parameters take part."""

    def __init__(self, module: pl.LightningModule) -> None:
        self.learning = {
            name: parameter
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self._before = {name: each.detach().clone() for name, each in self.learning.items()}
        self.asked: set[str] = set()
        self.moved: set[str] = set()
        self.losses: list[float] = []
        self.step_s: list[float] = []
        self.peak_bytes = 0
        self.device = "cpu"
        self._begun_s = 0.0

    @property
    def peak_in_words(self) -> str:
        return f"{_bytes(self.peak_bytes)} at most on {self.device}"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.device = _name_of(pl_module.device)
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: MixtureBatch,
        batch_idx: int,
    ) -> None:
        self._begun_s = time.perf_counter()

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        self.peak_bytes = _peak_bytes(pl_module.device)

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        for name, parameter in self.learning.items():
            if parameter.grad is not None and bool(parameter.grad.any()):
                self.asked.add(name)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        assert isinstance(outputs, dict), "what Lightning makes of a loss"
        self.losses.append(float(outputs["loss"]))  # waits for the device
        self.step_s.append(time.perf_counter() - self._begun_s)
        self.peak_bytes = _peak_bytes(pl_module.device)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, parameter in self.learning.items():
            if not torch.equal(parameter.detach().cpu(), self._before[name].cpu()):
                self.moved.add(name)


class _Stopped(Cancelled):
    """Not asked for by the user."""


class _Stop(Callback):
    """Stops a run after a step, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if trainer.global_step == self._step:
            raise _Stopped("stopped to go on.")


def _short(config: TrainConfig, num_steps: int, rise: int) -> TrainConfig:
    """A run of a few steps, at the full rate soon, that saves at the end and validates nothing."""

    def hurried(optimiser: OptimiserConfig) -> OptimiserConfig:
        warmup_steps = min(optimiser.warmup_steps, rise)
        return dataclasses.replace(
            optimiser, warmup_steps=warmup_steps, decay_steps=0, average_best=None
        )

    tagging = config.tagging
    if tagging is not None:
        tagging = dataclasses.replace(
            tagging, optimiser=hurried(tagging.optimiser), max_steps=num_steps
        )
    return dataclasses.replace(
        config,
        optimiser=hurried(config.optimiser),
        tagging=tagging,
        max_steps=num_steps,
        checkpoint_every_steps=num_steps,
        validation=dataclasses.replace(config.validation, every_steps=num_steps + 1),
    )


def _largest_batch(data: MixtureData) -> tuple[MixtureBatch, float]:
    """The batch that asks for the most sources among the first ones, and how long it takes."""

    def num_asked(number: int) -> int:
        return data.source.plans(number)[0].num_asked

    number = max(range(_NUM_BATCHES), key=num_asked)
    # The second time its recordings are in memory, as in a run after a while.
    data.source.batch(number)
    begun_s = time.perf_counter()
    batch = data.source.batch(number)
    return batch, time.perf_counter() - begun_s


def _expected_s(config: TrainConfig, step_s: float, mixing_s: float, validation_s: float) -> float:
    if config.num_workers:
        a_batch_s = max(step_s, mixing_s / config.num_workers)
    else:
        a_batch_s = step_s + mixing_s
    num_validations = config.max_steps // config.validation.every_steps
    num_batches = config.max_steps * config.batches_per_step
    return num_batches * a_batch_s + num_validations * validation_s


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0  # it does not say
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in text
        or "not enough memory" in text
    )


def _bytes(number: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
