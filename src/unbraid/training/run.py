"""``unbraid train``: from a config file to a bundle."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from unbraid.checkpoints.bundle import save_bundle
from unbraid.checkpoints.card import Card
from unbraid.config import dump, load_mapping, parse
from unbraid.data.catalogue import open_pools
from unbraid.data.fixed import fixed_plans
from unbraid.data.manifest import read_manifest
from unbraid.errors import CheckpointError, ConfigError, MissingExtra
from unbraid.folders import user_cache_dir
from unbraid.heap import keep_heap
from unbraid.mixing.recipe import Planner
from unbraid.models.waveform import build_model
from unbraid.training.config import TrainConfig

try:
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import (
        Callback,
        EMAWeightAveraging,
        TQDMProgressBar,
    )
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    from unbraid.training.lightning import MixtureData, SaveLast, SeparationModule
except ModuleNotFoundError as error:
    raise MissingExtra(
        f"training needs the package {error.name}; install it with: pip install 'unbraid[train]'"
    ) from error

log = logging.getLogger(__name__)


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a training config and apply ``key.inner=value`` overrides.

    Raises:
        ConfigError: If the file or an override does not fit ``TrainConfig``.
    """
    data = load_mapping(path)
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override}: write it as key=value, for example max_steps=10.")
        _set(data, key.strip().split("."), yaml.safe_load(value))
    return parse(TrainConfig, data, where=path.name)


def train(config_path: Path, overrides: Sequence[str], out_dir: Path | None, resume: bool) -> Path:
    """Train, and leave a bundle.

    A run that was stopped goes on from its last checkpoint, with the same mixtures and
    the same losses as if it had not been stopped.

    Changes settings of the whole process: the seed and the threads of PyTorch, and how the C
    library keeps memory (``heap.keep_heap``).

    Args:
        config_path: The run's YAML file.
        overrides: ``key=value`` settings on top of it.
        out_dir: The run's folder; None for ``runs/NAME``.
        resume: Go on where the folder's last run stopped; otherwise the folder must be new.

    Returns:
        The bundle's folder.

    Raises:
        ConfigError: If the config is wrong, or the folder holds another run.
        DataError: If recordings are missing.
    """
    config = load_config(config_path, overrides)
    run_dir = out_dir or Path("runs") / config.name
    last = last_checkpoint(run_dir)
    if last.exists() and not resume:
        raise ConfigError(f"{run_dir}: holds a run already; choose another --out, or --resume it.")
    run_dir.mkdir(parents=True, exist_ok=True)
    _write_config(config, run_dir / "config.yaml")
    keep_heap()
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)

    torch.manual_seed(config.seed)
    model = build_model(config.model)
    data, scenes = _open_data(config, config_path.parent)
    module = SeparationModule(model, config, scenes)
    trainer = make_trainer(config, run_dir)
    log.info("%d parameters", model.num_parameters)
    with warnings.catch_warnings():
        # Mixtures are made between steps by choice; Lightning advises more workers.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.fit(
            module,
            datamodule=data,
            ckpt_path=str(last) if last.exists() else None,
            weights_only=False,  # the run's own checkpoint, with the state of its loops
        )
    return export(run_dir)


def last_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps the state that it goes on from."""
    return run_dir / "checkpoints" / "last.ckpt"


def _open_data(config: TrainConfig, base: Path) -> tuple[MixtureData, tuple[str, ...]]:
    """The mixtures of a run, and the names of the scenes that it validates on."""
    settings = config.data
    manifest = base / Path(settings.manifest).expanduser()
    cache = Path(settings.cache_dir) if settings.cache_dir else user_cache_dir()
    recordings = read_manifest(manifest)
    rate = config.model.sample_rate
    planners = []
    stores = []
    for split in (settings.train_split, settings.validation_split):
        clips, store = open_pools(manifest, recordings, settings.pools, split, rate, cache)
        planners.append(Planner(config.recipe, clips))
        stores.append(store)
    plans = fixed_plans(
        planners[1],
        config.validation.scenes,
        config.validation.mixtures_per_scene,
        stores[1].read,
        rate,
        config.validation.seed,
    )
    module = MixtureData(config, planners[0], stores[0].read, plans, stores[1].read)
    return module, tuple(plans)


def make_trainer(
    config: TrainConfig, run_dir: Path, observers: Sequence[Callback] = ()
) -> pl.Trainer:
    """The loop of a run: precision, clipping, averaging, logs and checkpoints.

    Args:
        config: The run.
        run_dir: Its folder.
        observers: Called after all else that belongs to a step, the checkpoint excepted.
    """
    callbacks: list[Callback] = [
        SaveLast(last_checkpoint(run_dir), config.checkpoint_every_steps),
        TQDMProgressBar(refresh_rate=20),
    ]
    if config.optimiser.average_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=config.optimiser.average_decay))
    callbacks.extend(observers)
    return pl.Trainer(
        default_root_dir=run_dir,
        accelerator=config.accelerator,
        devices=1,
        precision=config.precision,
        max_steps=config.max_steps,
        max_epochs=-1,
        val_check_interval=config.validation.every_steps,
        check_val_every_n_epoch=None,
        gradient_clip_val=config.optimiser.max_grad_norm,
        log_every_n_steps=50,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=[
            TensorBoardLogger(run_dir, name="", version="tensorboard"),
            # A version per session: this logger would clear the log of the session before.
            CSVLogger(run_dir, name="log"),
        ],
        enable_model_summary=False,
    )


def export(run_dir: Path) -> Path:
    """Make a bundle of a run's last checkpoint; the averaged weights where there are any.

    Works while the run goes on, and replaces the bundle of an earlier export.

    Returns:
        The bundle's folder, ``RUN/bundle``.

    Raises:
        ConfigError: If the folder holds no run.
        CheckpointError: If the checkpoint does not fit the run's config.
    """
    config = load_config(run_dir / "config.yaml")
    last = last_checkpoint(run_dir)
    if not last.is_file():
        raise ConfigError(f"{run_dir}: holds no checkpoint yet; let the run reach its first one.")
    checkpoint = torch.load(last, map_location="cpu", weights_only=False)  # our own file
    model = build_model(config.model)
    state = {
        name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()
    }
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise CheckpointError(
            f"{last}: does not fit {run_dir / 'config.yaml'} ({problem})."
        ) from error
    card = Card(
        name=config.name,
        licence=config.licence,
        source=f"trained by unbraid for {checkpoint['global_step']} steps",
        description=config.description,
    )
    dtype = getattr(torch, config.weights_dtype)
    return save_bundle(model, run_dir / "bundle", card, overwrite=True, dtype=dtype)


def _set(data: dict[str, Any], keys: Sequence[str], value: object) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {'.'.join(keys)}: {key} holds a value, not a group of keys.")
    data[keys[-1]] = value


def _write_config(config: TrainConfig, path: Path) -> None:
    path.write_text(yaml.safe_dump(dump(config), sort_keys=False), encoding="utf-8")
