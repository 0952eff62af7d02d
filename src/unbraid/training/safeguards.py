"""How a run ends when something goes wrong, and when it is asked to end.

=============================  ======================================================
what happens                   what becomes of the run
=============================  ======================================================
a loss that is no number       stops before the step; the batch is kept to look at
weights that are no numbers    stops; the checkpoint before stays
the disk is full               stops; the checkpoint before stays
a loader worker dies           saves where that can be done, and stops
another device's process dies  stops
Ctrl-C, SIGTERM                ends the step, saves and stops
=============================  ======================================================

With several devices all of them have to stop at one place, since each waits for the others: they
agree on it once in every step.
"""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins import CheckpointIO
from torch import Tensor

from unbraid.data.dynamic import MixtureBatch
from unbraid.errors import Cancelled, CheckpointError, Terminated, TrainingError, in_brief
from unbraid.training.lightning import MixtureData, TrainingModule, number_of_batch

#: Of a run's folder, where a batch is kept whose loss is no number.
NOT_FINITE_DIR = "not-finite"

_GOES_ON, _STOPS, _FAILED = 0, 1, 2


class Safeguard(Callback):
    """Stops a run that has gone wrong, or that is asked to stop, between two steps.

    Args:
        run_dir: Where a batch is kept whose loss is no number.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._batch: MixtureBatch | None = None
        self._number = 0
        self._asked: int | None = None
        self._has_to_stop = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen to Ctrl-C and to requests to end; Lightning puts the old handlers back."""
        signals = [signal.SIGINT, signal.SIGTERM]
        if SLURMEnvironment.detect():
            signals.append(signal.SIGUSR1)  # what --signal of a job is set to by habit
        with suppress(ValueError):  # only the main thread can listen
            for number in signals:
                signal.signal(number, self._take_note)

    def _take_note(self, number: int, frame: FrameType | None) -> None:
        if self._asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = number
        print(
            "ending this step; Ctrl-C once more leaves at once.",
            file=sys.stderr,
            flush=True,
        )

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: MixtureBatch,
        batch_idx: int,
    ) -> None:
        """Keep hold of the batch of this step."""
        self._batch = batch
        self._number = number_of_batch(trainer, batch_idx)

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Stop before a loss that is no number reaches the weights.

        Raises:
            TrainingError: On all devices, if it is none on one of them.
        """
        is_finite = bool(torch.isfinite(loss.detach()))
        state = _GOES_ON if self._asked is None else _STOPS
        state = _worst_of_all(trainer, state if is_finite else _FAILED)
        self._has_to_stop = state == _STOPS
        if state != _FAILED:
            return
        what = f"the loss of step {trainer.global_step + 1} is {float(loss.detach())}"
        if is_finite:
            raise TrainingError(f"{what} here, but not a number on another device.")
        raise TrainingError(f"{what}; {self._keep_batch(trainer)}")

    def _keep_batch(self, trainer: pl.Trainer) -> str:
        batch, data = self._batch, trainer.datamodule  # type: ignore[attr-defined]
        assert batch is not None
        kept: dict[str, Any] = {
            "number": self._number,
            "rank": trainer.global_rank,
            "world_size": trainer.world_size,
            "mixture": batch.mixture.cpu(),
            "references": batch.references.cpu(),
            "prompt_indices": batch.prompt_indices.cpu(),
        }
        if isinstance(data, MixtureData):
            share = (trainer.global_rank, trainer.world_size)
            plans = data.source.plans(self._number, *share)
            # All are dataclasses, which a protocol cannot say.
            kept |= {"seed": data.seed, "plans": [dataclasses.asdict(plan) for plan in plans]}  # type: ignore[call-overload]
        name = f"step-{trainer.global_step + 1}-rank-{trainer.global_rank}.pt"
        path = self._run_dir / NOT_FINITE_DIR / name
        content = io.BytesIO()
        torch.save(kept, content)
        try:
            write_whole(path, content.getbuffer())
        except OSError as error:
            return f"its batch could not be kept ({reason_of(error)})."
        return f"its batch lies in {path}."

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Stop where all devices have agreed to."""
        if self._has_to_stop:
            self._stop(trainer)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop between two mixtures of a validation."""
        state = _GOES_ON if self._asked is None else _STOPS
        if trainer.state.fn == "fit" and _worst_of_all(trainer, state) == _STOPS:
            self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        # Where another process was asked, it says why.
        is_ctrl_c = self._asked in (None, signal.SIGINT)
        kind = Cancelled if is_ctrl_c else Terminated
        raise kind(f"stopped after step {trainer.global_step}; the run is saved.")


def _worst_of_all(trainer: pl.Trainer, state: int) -> int:
    if trainer.world_size == 1:
        return state
    shared = torch.tensor(float(state), device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(shared, reduce_op="max"))


class SaveLast(Checkpoint):
    """Keeps one checkpoint: the run as it stood last, whole or not replaced.

    Saved every so many steps, before and after a validation, after the last step, and when an
    error or Ctrl-C ends the run between two updates of the weights.

    Args:
        path: The checkpoint file.
        every_steps: How often.
        validated_every_steps: How often steps are validated. A run that stopped between a step and
            its validation begins with that: what is learnt from it is not lost.
    """

    def __init__(self, path: Path, every_steps: int, validated_every_steps: int) -> None:
        self._path = path
        self._every_steps = every_steps
        self._validated_every_steps = validated_every_steps
        self._saved = (-1, -1)
        self._is_updating = False

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """From here to the end of the step, weights, state and averages do not fit together."""
        self._is_updating = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Save when it is time to."""
        self._is_updating = False
        step = trainer.global_step
        is_whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if is_whole_step and (step % self._every_steps == 0 or step == trainer.max_steps):
            self._save(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save before averaged weights take the place of those that learn."""
        if trainer.state.fn == "fit":
            self._save(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what was learnt from it."""
        if trainer.state.fn == "fit":
            self._save(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let Lightning's counters say that all of the last step is done, and no more.

        They are ahead of it when an error ends a step halfway, and behind while its callbacks run;
        a run that went on from them would validate at other steps. Whether the step is still to be
        validated they do not know: to Lightning, a validation that has begun and has not got
        through its first mixture is one to do again.
        """
        step = trainer.global_step
        loops = checkpoint["loops"]["fit_loop"]
        for counts in ("total", "current"):
            progress = loops["epoch_loop.batch_progress"][counts]
            for count in ("ready", "started", "processed", "completed"):
                progress[count] = step * trainer.accumulate_grad_batches
        begun = int(self._awaits_validation(trainer, pl_module))
        validation = loops["epoch_loop.val_loop.batch_progress"]
        for counts in ("total", "current"):
            for count in ("ready", "started", "processed", "completed"):
                validation[counts][count] = 0
        validation["total"] |= {"ready": begun, "started": begun}
        # Lightning counts a step for its logs when it comes back to one with a validation.
        logged = step - (step % self._validated_every_steps == 0)
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] = logged

    def _awaits_validation(self, trainer: pl.Trainer, module: pl.LightningModule) -> bool:
        assert isinstance(module, TrainingModule)
        step = trainer.global_step
        last = module.validations[-1].step if module.validations else 0
        return step % self._validated_every_steps == 0 and last != step

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save before the run ends, if all devices got here together."""
        is_alone = trainer.world_size == 1
        if isinstance(exception, Cancelled):
            # Raised between two steps, by a callback that stands before this one.
            self._is_updating = False
        elif isinstance(exception, TrainingError) or not is_alone:
            return
        if trainer.global_step > 0 and trainer.training and not self._is_updating:
            self._save(trainer, pl_module)

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        step = trainer.global_step
        if (step, len(module.validations)) == self._saved:
            return
        if step >= trainer.max_steps and self._awaits_validation(trainer, module):
            return  # a run that has all its steps would not begin with a validation
        broken = _not_finite(module.named_parameters())
        if _worst_of_all(trainer, _FAILED if broken else _GOES_ON) == _FAILED:
            which = in_brief(broken) or "some on another device"
            raise TrainingError(
                f"weights are no numbers after step {step} ({which}); the checkpoint before stays."
            )
        problem = ""
        try:
            trainer.save_checkpoint(self._path, weights_only=False)
        except OSError as error:
            problem = f"{self._path}: cannot be written ({reason_of(error)})"
            # The others wait here, where a whole file would have led us, too.
            trainer.strategy.barrier()
        problem = trainer.strategy.broadcast(problem)
        if problem:
            raise TrainingError(f"{problem}; make room. The checkpoint before, if any, stays.")
        self._saved = (step, len(module.validations))


def _not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    return [name for name, tensor in tensors if not bool(torch.isfinite(tensor.detach()).all())]


class WholeFile(CheckpointIO):
    """Writes a checkpoint beside the one before, and lets it take its name when it is whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            OSError: If it cannot be written; nothing of it is left then.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_whole(Path(path), content.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint of our own.

        Raises:
            CheckpointError: If it cannot be read.
        """
        return read_checkpoint(Path(path), map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path, map_location: Any | None = None) -> dict[str, Any]:
    """Read a checkpoint of our own, with the state of its loops.

    Args:
        path: The file.
        map_location: Where its tensors go, as for ``torch.load``.

    Raises:
        CheckpointError: If it cannot be read, or is none.
    """
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=False)
        if "state_dict" not in checkpoint or "global_step" not in checkpoint:
            raise ValueError("it is not the state of a run")
    except Exception as error:  # whatever a damaged file makes of the unpickler
        problem = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{path}: cannot be read ({problem}); put a copy in its place, or delete it to begin "
            "the run again."
        ) from error
    found: dict[str, Any] = checkpoint
    return found


def write_whole(path: Path, content: memoryview) -> None:
    """Write a file beside the one before, and let it take its name when it is whole.

    Raises:
        OSError: If it cannot be written; nothing of it is left then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # some disks say that they are full only now
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def reason_of(error: OSError) -> str:
    """Why a file could not be written, for a message."""
    if error.errno == errno.ENOSPC:
        return "the disk is full"
    return error.strerror or " ".join(str(error).split())


@contextmanager
def named_failures() -> Iterator[None]:
    """Give failures that a run cannot help the name of ours.

    Raises:
        TrainingError: If the disk is full, a loader worker dies, or the process of another device.
        Cancelled: If Ctrl-C was pressed twice.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise TrainingError(f"{error.filename or 'a log'}: the disk is full; make room.") from error
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if text.startswith("DataLoader worker"):
            raise TrainingError(
                f"a process that makes mixtures was lost ({text}); often memory ran out: "
                "fewer num_workers need less."
            ) from error
        if any(sign in text for sign in _LOST_PEER) or isinstance(
            error, torch.distributed.DistBackendError
        ):
            raise TrainingError("the process of another device was lost; see what it said.") from (
                error
            )
        raise
    except SystemExit as error:
        # Lightning's answer to an interrupt.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise Cancelled("interrupted within a step.") from error
        raise


#: How gloo says that nobody answers any more.
_LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "gloo/transport")
