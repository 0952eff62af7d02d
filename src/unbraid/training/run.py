"""``unbraid train``: from a config file to a bundle."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from unbraid.checkpoints.bundle import load_bundle, read_card, save_bundle
from unbraid.checkpoints.card import Card
from unbraid.checkpoints.catalogue import resolve_model
from unbraid.config import dump, load_mapping, parse
from unbraid.data.access import ClipSource
from unbraid.data.catalogue import open_rooms, open_splits
from unbraid.data.effects import check_extras
from unbraid.data.fixed import fixed_plans
from unbraid.data.manifest import read_manifest
from unbraid.data.store import ClipStore
from unbraid.errors import Cancelled, CheckpointError, ConfigError, MissingExtra, TrainingError
from unbraid.folders import user_cache_dir
from unbraid.heap import keep_heap
from unbraid.mixing.augmentation import Augmentation
from unbraid.mixing.recipe import Clip, Planner, Scene
from unbraid.models.taggers.htsat import Htsat
from unbraid.models.waveform import WaveformModel, build_model
from unbraid.training.config import NOT_STATED, TrainConfig
from unbraid.training.starting import choose_learning, take_weights

try:
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import (
        Callback,
        EMAWeightAveraging,
        TQDMProgressBar,
    )

    from unbraid.training.devices import (
        check_devices,
        devices_per_node,
        environment_plugins,
        is_first_rank,
        needs_common_norms,
        strategy_of,
    )
    from unbraid.training.lightning import MixtureData, SeparationModule, TaggingModule
    from unbraid.training.logs import Exhibit, loggers_of
    from unbraid.training.safeguards import Safeguard, SaveLast, WholeFile, named_failures
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
        CheckpointError: If there is no model to start from.
        DataError: If recordings are missing.
        TrainingError: If the run cannot go on; the message says what to do.
        Cancelled: If it was asked to stop; it is saved.
    """
    config = load_config(config_path, overrides)
    run_dir = run_dir_of(config, out_dir)
    stages = (run_dir, run_dir / TAGGER_DIR)
    if not resume and any(last_checkpoint(stage).exists() for stage in stages):
        raise ConfigError(f"{run_dir}: holds a run already; choose another --out, or --resume it.")
    check_devices(config)
    if config.start and config.licence == NOT_STATED:
        licence = read_card(resolve_model(config.start)).licence
        config = dataclasses.replace(config, licence=licence)
    if is_first_rank():
        run_dir.mkdir(parents=True, exist_ok=True)
        _write_config(config, run_dir / "config.yaml")
    keep_heap()
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)

    model = new_model(config)
    pools = open_split_pools(config, config_path.parent)
    with _saying_how_to_go_on(command_of(config_path, overrides, out_dir)):
        if model.tagger is not None:
            stage = tagger_stage(model.tagger, config, pools)
            fit(stage, run_dir / TAGGER_DIR)
            _take_tagger(model.tagger, run_dir / TAGGER_DIR)
        fit(network_stage(model, config, pools), run_dir)
    return export(run_dir) if is_first_rank() else run_dir / BUNDLE_DIR


def run_dir_of(config: TrainConfig, out_dir: Path | None) -> Path:
    """Where a run keeps its files."""
    return out_dir or Path("runs") / config.name


def new_model(config: TrainConfig) -> WaveformModel:
    """The model that a run begins with; seeds the random numbers of the process.

    Raises:
        ConfigError: If the model to start from, or what is to learn, does not fit.
        CheckpointError: If there is no model to start from.
    """
    torch.manual_seed(config.seed)
    model = build_model(config.model)
    if config.start:
        take_weights(model, load_bundle(resolve_model(config.start)))
    choose_learning(model, config.learns)
    return model


def command_of(config_path: Path, overrides: Sequence[str], out_dir: Path | None) -> str:
    """The command that starts a run, or goes on with it."""
    words = ["unbraid", "train", str(config_path)]
    for override in overrides:
        words += ["--set", override]
    if out_dir is not None:
        words += ["--out", str(out_dir)]
    return shlex.join(words)


@contextmanager
def _saying_how_to_go_on(command: str) -> Iterator[None]:
    try:
        yield
    except (Cancelled, TrainingError) as error:
        raise type(error)(f"{error} To go on where the run was saved last: {command}") from error


#: Of a run's folder, where the model lies that comes out.
BUNDLE_DIR = "bundle"

#: Of a run's folder, where the first stage keeps its log and its checkpoint.
TAGGER_DIR = "tagger"


def last_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps the state that it goes on from."""
    return run_dir / "checkpoints" / "last.ckpt"


@dataclass(frozen=True)
class Pools:
    """The recordings of a split, and the rooms to hear them in."""

    clips: Mapping[str, tuple[Clip, ...]]
    store: ClipSource
    rooms: tuple[Clip, ...] = ()
    room_store: ClipStore | None = None

    def read(self, key: str, start: int, count: int) -> Float[Tensor, "time"]:
        """Samples of a recording or of a room impulse response."""
        if self.room_store is not None and key in self.room_store:
            return self.room_store.read(key, start, count)
        return self.store.read(key, start, count)


def open_split_pools(config: TrainConfig, base: Path) -> tuple[Pools, Pools]:
    """The recordings to train on, and those to validate on."""
    settings = config.data
    cache = Path(settings.cache_dir) if settings.cache_dir else user_cache_dir()
    rate = config.model.sample_rate
    splits = (settings.train_split, settings.validation_split)
    check_extras(config.recipe.augmentation)
    opened = open_splits(
        settings.manifest,
        base,
        settings.pools,
        splits,
        rate,
        cache,
        settings.access,
        settings.max_unreadable,
    )
    # Rooms that no source is ever put into need not be decoded.
    if not settings.rooms or not config.recipe.augmentation.room_probability:
        train, validation = (Pools(*pools) for pools in opened)
        return train, validation
    if settings.access == "shards":
        raise ConfigError("data.rooms needs a manifest: set data.access to cache or direct.")
    manifest = base / Path(settings.manifest).expanduser()
    recordings = read_manifest(manifest)
    train, validation = (
        Pools(*pools, *open_rooms(manifest, recordings, settings.rooms, split, rate, cache))
        for pools, split in zip(opened, splits, strict=True)
    )
    return train, validation


def _mixtures(
    config: TrainConfig, pools: tuple[Pools, Pools]
) -> tuple[MixtureData, tuple[str, ...]]:
    """The mixtures of a run, and the names of the scenes that it validates on."""
    train, validation = pools
    # What is never drawn at random needs no clips here.
    measured = dataclasses.replace(config.recipe, scenes=config.validation.scenes)
    if not config.validation.is_augmented:
        measured = dataclasses.replace(measured, augmentation=Augmentation())
    plans = fixed_plans(
        Planner(measured, validation.clips, validation.rooms),
        config.validation.scenes,
        config.validation.mixtures_per_scene,
        validation.read,
        config.model.sample_rate,
        config.validation.seed,
    )
    planner = Planner(config.recipe, train.clips, train.rooms)
    module = MixtureData(config, planner, train.read, plans, validation.read)
    return module, tuple(plans)


@dataclass(frozen=True, eq=False)
class Stage:
    """What learns, on what, and how; a run has one stage or two.

    Attributes:
        module: What learns.
        data: Its mixtures.
        config: How.
        observers: Who looks on.
    """

    module: pl.LightningModule
    data: pl.LightningDataModule
    config: TrainConfig
    observers: tuple[Callback, ...] = ()


def tagger_stage(tagger: Htsat, config: TrainConfig, pools: tuple[Pools, Pools]) -> Stage:
    """The first stage of a run whose model has a tagger."""
    settings = config.tagging
    assert settings is not None, "the config was checked"
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
    log.info("%d parameters of the tagger", sum(each.numel() for each in tagger.parameters()))
    return Stage(TaggingModule(tagger, stage, settings.stripes, scenes), data, stage)


def _take_tagger(tagger: Htsat, run_dir: Path) -> None:
    tagger.load_state_dict(learnt(run_dir)[0])
    tagger.requires_grad_(False).eval()


def network_stage(model: WaveformModel, config: TrainConfig, pools: tuple[Pools, Pools]) -> Stage:
    """The stage in which a model learns to separate."""
    data, scenes = _mixtures(config, pools)
    log.info("%d parameters", model.num_parameters)
    module = SeparationModule(model, config, scenes)
    exhibit = Exhibit(scenes, config.model.sample_rate)
    return Stage(module, data, config, (exhibit,))


def fit(
    stage: Stage, run_dir: Path, observers: Sequence[Callback] = (), *, is_shown: bool = True
) -> None:
    """Train a stage to its end; goes on where it was saved last.

    Args:
        stage: What to train.
        run_dir: Where it is kept.
        observers: Who looks on beside those of the stage.
        is_shown: Whether a bar shows how far it is.

    Raises:
        TrainingError: If it cannot go on.
        Cancelled: If it was asked to stop.
    """
    last = last_checkpoint(run_dir)
    trainer = make_trainer(stage.config, run_dir, (*stage.observers, *observers), is_shown=is_shown)
    with without_advice(), named_failures():
        trainer.fit(
            stage.module,
            datamodule=stage.data,
            ckpt_path=str(last) if last.exists() else None,
            weights_only=False,  # the run's own checkpoint, with the state of its loops
        )


@contextmanager
def without_advice() -> Iterator[None]:
    """Silence what Lightning advises against and we do by choice."""
    with warnings.catch_warnings():
        # Mixtures are made between steps.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # What is learned by heart in a dry run is not validated.
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
        # The tagger of a model is to stay in evaluation mode.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        yield


def learnt(run_dir: Path) -> tuple[dict[str, torch.Tensor], int]:
    """Weights of a run's last checkpoint, and its step."""
    # Our own file.
    checkpoint = torch.load(last_checkpoint(run_dir), map_location="cpu", weights_only=False)
    weights = {
        name.removeprefix("model."): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith("model.")  # and not those of a teacher
    }
    return weights, checkpoint["global_step"]


def make_trainer(
    config: TrainConfig,
    run_dir: Path,
    observers: Sequence[Callback] = (),
    *,
    is_shown: bool = True,
) -> pl.Trainer:
    """The loop of a run: precision, clipping, averaging, logs and checkpoints.

    Args:
        config: The run.
        run_dir: Its folder.
        observers: Called after all else that belongs to a step, the checkpoint excepted.
        is_shown: Whether a bar shows how far it is.
    """
    callbacks: list[Callback] = [
        SaveLast(last_checkpoint(run_dir), config.checkpoint_every_steps),
    ]
    if is_shown:
        callbacks.append(TQDMProgressBar(refresh_rate=20))
    if config.optimiser.average_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=config.optimiser.average_decay))
    callbacks.extend(observers)
    # A run stops when all that belongs to a step is done; then it is saved.
    callbacks.append(Safeguard(run_dir))
    return pl.Trainer(
        default_root_dir=run_dir,
        accelerator=config.accelerator,
        devices=devices_per_node(config),
        num_nodes=config.num_nodes,
        strategy=strategy_of(config),
        plugins=[WholeFile(), *environment_plugins()],
        # Every device draws its own share of a batch, and validates on all mixtures.
        use_distributed_sampler=False,
        sync_batchnorm=needs_common_norms(config),
        precision=config.precision,
        max_steps=config.max_steps,
        max_epochs=-1,
        val_check_interval=config.validation.every_steps,
        check_val_every_n_epoch=None,
        gradient_clip_val=config.optimiser.max_grad_norm,
        log_every_n_steps=50,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=loggers_of(config, run_dir),
        enable_model_summary=False,
        enable_progress_bar=is_shown,
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
    state, step = learnt(run_dir)
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
        source=f"trained by unbraid for {step} steps"
        + (f", from {config.start}" if config.start else ""),
        description=config.description,
    )
    dtype = getattr(torch, config.weights_dtype)
    return save_bundle(model, run_dir / BUNDLE_DIR, card, overwrite=True, dtype=dtype)


def _set(data: dict[str, Any], keys: Sequence[str], value: object) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {'.'.join(keys)}: {key} holds a value, not a group of keys.")
    data[keys[-1]] = value


def _write_config(config: TrainConfig, path: Path) -> None:
    path.write_text(yaml.safe_dump(dump(config), sort_keys=False), encoding="utf-8")
