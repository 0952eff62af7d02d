"""``unbraid train``: from a config file to a bundle."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from unbraid.checkpoints.bundle import save_bundle
from unbraid.checkpoints.card import Card
from unbraid.config import dump, load_mapping, parse
from unbraid.data.access import ClipSource
from unbraid.data.catalogue import open_splits
from unbraid.data.fixed import fixed_plans
from unbraid.errors import CheckpointError, ConfigError, MissingExtra
from unbraid.folders import user_cache_dir
from unbraid.heap import keep_heap
from unbraid.mixing.recipe import Clip, Planner, Scene
from unbraid.models.taggers.htsat import Htsat
from unbraid.models.waveform import build_model
from unbraid.training.config import TaggingConfig, TrainConfig

try:
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import (
        Callback,
        EMAWeightAveraging,
        TQDMProgressBar,
    )
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    from unbraid.training.lightning import (
        MixtureData,
        SaveLast,
        SeparationModule,
        TaggingModule,
    )
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
    stages = (run_dir, run_dir / TAGGER_DIR)
    if not resume and any(last_checkpoint(stage).exists() for stage in stages):
        raise ConfigError(f"{run_dir}: holds a run already; choose another --out, or --resume it.")
    run_dir.mkdir(parents=True, exist_ok=True)
    _write_config(config, run_dir / "config.yaml")
    keep_heap()
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)

    torch.manual_seed(config.seed)
    model = build_model(config.model)
    pools = _open_pools(config, config_path.parent)
    if model.tagger is not None:
        assert config.tagging is not None, "the config was checked"
        _train_tagger(model.tagger, config, config.tagging, pools, run_dir / TAGGER_DIR)
    data, scenes = _mixtures(config, pools)
    log.info("%d parameters", model.num_parameters)
    _fit(SeparationModule(model, config, scenes), data, config, run_dir)
    return export(run_dir)


#: Of a run's folder, where the first stage keeps its log and its checkpoint.
TAGGER_DIR = "tagger"


def last_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps the state that it goes on from."""
    return run_dir / "checkpoints" / "last.ckpt"


@dataclass(frozen=True)
class _Pools:
    """The recordings of a split."""

    clips: Mapping[str, tuple[Clip, ...]]
    store: ClipSource


def _open_pools(config: TrainConfig, base: Path) -> tuple[_Pools, _Pools]:
    """The recordings to train on, and those to validate on."""
    settings = config.data
    train, validation = (
        _Pools(*opened)
        for opened in open_splits(
            settings.manifest,
            base,
            settings.pools,
            (settings.train_split, settings.validation_split),
            config.model.sample_rate,
            Path(settings.cache_dir) if settings.cache_dir else user_cache_dir(),
            settings.access,
            settings.max_unreadable,
        )
    )
    return train, validation


def _mixtures(
    config: TrainConfig, pools: tuple[_Pools, _Pools]
) -> tuple[MixtureData, tuple[str, ...]]:
    """The mixtures of a run, and the names of the scenes that it validates on."""
    train, validation = pools
    plans = fixed_plans(
        # What is never drawn at random needs no clips here.
        Planner(
            dataclasses.replace(config.recipe, scenes=config.validation.scenes), validation.clips
        ),
        config.validation.scenes,
        config.validation.mixtures_per_scene,
        validation.store.read,
        config.model.sample_rate,
        config.validation.seed,
    )
    planner = Planner(config.recipe, train.clips)
    module = MixtureData(config, planner, train.store.read, plans, validation.store.read)
    return module, tuple(plans)


def _train_tagger(
    tagger: Htsat,
    config: TrainConfig,
    settings: TaggingConfig,
    pools: tuple[_Pools, _Pools],
    run_dir: Path,
) -> None:
    """The first stage of a run; does nothing more if it is over already."""
    is_heard = {name for name, clips in pools[1].clips.items() if clips}
    stage = dataclasses.replace(
        config,
        recipe=dataclasses.replace(config.recipe, num_sources=settings.num_sounds),
        optimiser=settings.optimiser,
        validation=dataclasses.replace(
            config.validation, scenes=tuple(Scene((name,)) for name in sorted(is_heard))
        ),
        batch_size=settings.batch_size,
        max_steps=settings.max_steps,
    )
    data, scenes = _mixtures(stage, pools)
    # Lightning trains in the mode in which it finds a module.
    tagger.train().requires_grad_(True)
    module = TaggingModule(tagger, stage, settings.stripes, scenes)
    log.info("%d parameters of the tagger", sum(each.numel() for each in tagger.parameters()))
    _fit(module, data, stage, run_dir)
    tagger.load_state_dict(_learnt(run_dir)[0])
    tagger.requires_grad_(False).eval()


def _fit(module: pl.LightningModule, data: MixtureData, config: TrainConfig, run_dir: Path) -> None:
    last = last_checkpoint(run_dir)
    with warnings.catch_warnings():
        # Mixtures are made between steps by choice; Lightning advises more workers.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # The tagger of a model is to stay in evaluation mode.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        make_trainer(config, run_dir).fit(
            module,
            datamodule=data,
            ckpt_path=str(last) if last.exists() else None,
            weights_only=False,  # the run's own checkpoint, with the state of its loops
        )


def _learnt(run_dir: Path) -> tuple[dict[str, torch.Tensor], int]:
    """Weights of a run's last checkpoint, and its step."""
    # Our own file.
    checkpoint = torch.load(last_checkpoint(run_dir), map_location="cpu", weights_only=False)
    weights = {
        name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()
    }
    return weights, checkpoint["global_step"]


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
    state, step = _learnt(run_dir)
    model = build_model(config.model)
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
        source=f"trained by unbraid for {step} steps",
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
