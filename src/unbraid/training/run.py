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

import torch
from torch import nn
from torch.utils.data import Dataset

from unbraid.checkpoints.bundle import load_bundle, read_card, save_bundle
from unbraid.checkpoints.card import Card
from unbraid.checkpoints.catalogue import resolve_model
from unbraid.data.catalogue import Pools, open_together
from unbraid.data.dynamic import (
    BatchSource,
    DynamicMixtures,
    MixtureBatch,
    RenderedBatches,
    render_batch,
)
from unbraid.data.effects import check_extras
from unbraid.data.fixed import fixed_plans
from unbraid.data.ready_made import (
    MixtureSet,
    ReadyMixtures,
    SegmentBatches,
    ValidationSegments,
    open_mixtures,
)
from unbraid.errors import Cancelled, CheckpointError, ConfigError, MissingExtra, TrainingError
from unbraid.folders import user_cache_dir
from unbraid.heap import keep_heap
from unbraid.mixing.augmentation import Augmentation
from unbraid.mixing.recipe import Planner, Scene
from unbraid.models.taggers.htsat import Htsat
from unbraid.models.waveform import WaveformModel, build_model
from unbraid.prompts import ANY_SOURCE, STANDARD_PROMPTS
from unbraid.training.config import NOT_STATED, TrainConfig
from unbraid.training.recipe_files import find_recipe, load_recipe, write_config
from unbraid.training.resuming import check_same_run
from unbraid.training.schedule import best_steps
from unbraid.training.starting import choose_learning, take_weights
from unbraid.types import Step, StepCallback

try:
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

    from unbraid.training.devices import (
        check_devices,
        devices_per_node,
        environment_plugins,
        is_first_rank,
        needs_common_norms,
        strategy_of,
    )
    from unbraid.training.keeping import KeepBest, mean_weights
    from unbraid.training.lightning import (
        MixtureData,
        SeparationModule,
        TaggingModule,
        validations_of,
    )
    from unbraid.training.logs import Exhibit, ToldSteps, loggers_of
    from unbraid.training.safeguards import (
        Safeguard,
        SaveLast,
        WholeFile,
        named_failures,
        read_checkpoint,
        reason_of,
        write_whole,
    )
except ModuleNotFoundError as error:
    raise MissingExtra(
        f"training needs the package {error.name}; install it with: pip install 'unbraid[train]'"
    ) from error

log = logging.getLogger(__name__)


def train(
    recipe: str | Path,
    overrides: Sequence[str],
    out_dir: Path | None,
    resume: bool,
    on_step: StepCallback = lambda step: None,
) -> Path:
    """Train, and leave a bundle.

    A run that was stopped goes on from its last checkpoint, with the same mixtures and
    the same losses as if it had not been stopped. Settings that it learns by may be others then,
    as far as a checkpoint allows; a warning in the log names them.

    Changes settings of the whole process: the seed and the threads of PyTorch, and how the C
    library keeps memory (``heap.keep_heap``).

    Args:
        recipe: The name of a recipe that ships, or the path of a YAML file.
        overrides: ``key=value`` settings on top of it.
        out_dir: The run's folder; None for ``runs/NAME``.
        resume: Go on where the folder's last run stopped; otherwise the folder must be new.
        on_step: Called with what is being done, and now and then with the steps and the loss.

    Returns:
        The bundle's folder.

    Raises:
        ConfigError: If the config is wrong, or the folder holds another run.
        CheckpointError: If there is no model to start from, or the checkpoint in the folder
            cannot be read.
        DataError: If recordings are missing.
        TrainingError: If the run cannot go on; the message says what to do.
        Cancelled: If it was asked to stop; it is saved.
    """
    config = load_recipe(recipe, overrides)
    base = find_recipe(recipe).base_dir
    run_dir = run_dir_of(config, out_dir)
    check_devices(config)
    if config.start and config.licence == NOT_STATED:
        licence = read_card(resolve_model(config.start)).licence
        config = dataclasses.replace(config, licence=licence)
    _check_folder(run_dir, config, resume)
    keep_heap()
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)

    model = new_model(config)
    on_step(Step("reading the recordings", 0, None, "files"))
    material = open_material(config, base, model.network.num_channels)
    if is_first_rank():
        _write_config(config, run_dir)
    with _saying_how_to_go_on(command_of(recipe, overrides, out_dir)):
        if model.tagger is not None:
            stage = tagger_stage(model.tagger, config, material)
            fit(stage, run_dir / TAGGER_DIR, [ToldSteps("training the tagger", on_step)])
            _take_tagger(model.tagger, stage, run_dir / TAGGER_DIR)
        told = ToldSteps("training", on_step)
        fit(network_stage(model, config, material), run_dir, [told])
    return export(run_dir) if is_first_rank() else run_dir / BUNDLE_DIR


def _check_folder(run_dir: Path, config: TrainConfig, resume: bool) -> None:
    """Insist that a run can begin in a folder, or go on there."""
    stages = (run_dir, run_dir / TAGGER_DIR)
    if not any(last_checkpoint(stage).exists() for stage in stages):
        return
    if not resume:
        raise ConfigError(f"{run_dir}: holds a run already; choose another --out, or --resume it.")
    check_same_run(config, run_dir / CONFIG_FILE)


def _write_config(config: TrainConfig, run_dir: Path) -> None:
    path = run_dir / CONFIG_FILE
    try:
        # Whole, since the processes of other devices may be reading the one before.
        write_whole(path, memoryview(write_config(config).encode()))
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be written ({reason_of(error)}); choose another --out."
        ) from error


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
    if config.initial_weights == "xavier":
        _draw_xavier(model.network)
    if config.start:
        take_weights(model, load_bundle(resolve_model(config.start)))
    choose_learning(model, config.learns)
    return model


def _draw_xavier(network: nn.Module) -> None:
    """Draw weights uniformly by Glorot's rule, and set biases to zero.

    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
        networks", AISTATS 2010.
    """
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def command_of(recipe: str | Path, overrides: Sequence[str], out_dir: Path | None) -> str:
    """The command that starts a run, or goes on with it."""
    words = ["unbraid", "train", str(recipe)]
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


#: Of a run's folder, where its settings lie.
CONFIG_FILE = "config.yaml"

#: Of a run's folder, where the model lies that comes out.
BUNDLE_DIR = "bundle"

#: Of a run's folder, where the first stage keeps its log and its checkpoint.
TAGGER_DIR = "tagger"


def best_weights(run_dir: Path) -> Path:
    """Where a run keeps the weights of its best validations."""
    return run_dir / "checkpoints" / "best"


def last_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps the state that it goes on from."""
    return run_dir / "checkpoints" / "last.ckpt"


@dataclass(frozen=True)
class Material:
    """What a run is made of.

    Attributes:
        train: Recordings to mix; None where it learns from ready-made mixtures.
        validation: Recordings to validate on; None where no scene is mixed from them.
        ready: Ready-made mixtures to learn from.
        ready_validation: Scene → ready-made mixtures to validate on.
    """

    train: Pools | None
    validation: Pools | None
    ready: tuple[ReadyMixtures, ...]
    ready_validation: Mapping[str, ReadyMixtures]


def open_material(config: TrainConfig, base: Path, num_channels: int) -> Material:
    """Decode all that a run needs, and that was not decoded before.

    Args:
        config: The run.
        base: What ``data.root`` is relative to.
        num_channels: How many channels the model hears.

    Raises:
        ConfigError: If mixtures have sources that the model does not have, or an augmentation is
            not for its number of channels.
        DataError: If recordings are missing.
    """
    settings, augmentation = config.data, config.recipe.augmentation
    augmentation.check_channels(num_channels)
    root = base / Path(settings.root).expanduser()
    cache = Path(settings.cache_dir).expanduser() if settings.cache_dir else user_cache_dir()
    rate = config.model.sample_rate
    check_extras(augmentation)
    # Those that no source is ever put into need not be decoded.
    rooms = settings.rooms if augmentation.room_probability > 0 else ()

    def pools(split: str) -> Pools:
        return open_together(
            settings.manifests,
            root,
            settings.pools,
            split,
            rate,
            cache,
            settings.access,
            settings.max_unreadable,
            num_channels,
            rooms,
        )

    def ready(wanted: MixtureSet) -> ReadyMixtures:
        mixtures = open_mixtures(root, wanted, rate, cache, settings.max_unreadable, num_channels)
        known = {*_prompt_rows(config), *config.recipe.never_asked}
        if unknown := sorted({name for each in mixtures.mixtures for name in each.prompts} - known):
            raise ConfigError(
                f"{wanted.list}: has sources that the model does not have: {', '.join(unknown)}; "
                "name them in recipe.never_asked if they are noise to be removed."
            )
        return mixtures

    return Material(
        train=pools(settings.train_split) if settings.pools else None,
        validation=pools(settings.validation_split) if config.validation.scenes else None,
        ready=tuple(ready(wanted) for wanted in settings.mixtures),
        ready_validation={
            name: ready(wanted) for name, wanted in config.validation.mixtures.items()
        },
    )


def _mixtures(config: TrainConfig, material: Material) -> tuple[MixtureData, tuple[str, ...]]:
    """The mixtures of a run, and the names of the scenes that it validates on."""
    rows = _prompt_rows(config)
    rate = config.model.sample_rate
    source: BatchSource
    if material.train is not None:
        planner = Planner(config.recipe, material.train.clips, material.train.rooms)
        source = DynamicMixtures(
            planner, material.train.read, rate, rows, config.batch_size, config.seed
        )
    else:
        source = SegmentBatches(
            material.ready,
            round(config.recipe.crop_s * rate),
            rows,
            config.batch_size,
            config.seed,
            config.recipe.absent_probability,
        )
    scenes = {**_mixed_scenes(config, material, rows), **_ready_scenes(config, material, rows)}
    return MixtureData(source, scenes, config), tuple(scenes)


def _prompt_rows(config: TrainConfig) -> dict[str, int]:
    """Prompt → row of the model's prompt bank."""
    # The classes of a tagger are the pools.
    prompts = config.model.prompts or tuple(config.data.pools)
    if ANY_SOURCE not in prompts:
        return {name: row for row, name in enumerate(prompts)}
    # A model that does not say what its sources are takes them all for the same.
    names = {*prompts, *STANDARD_PROMPTS, *config.data.pools} - {*config.recipe.never_asked}
    return {name: prompts.index(ANY_SOURCE) for name in sorted(names)}


def _mixed_scenes(
    config: TrainConfig, material: Material, rows: Mapping[str, int]
) -> dict[str, Dataset[MixtureBatch]]:
    """Validation mixtures from pools, rendered once and kept."""
    if material.validation is None:
        return {}
    settings, rate = config.validation, config.model.sample_rate
    pools, read_clip = material.validation, material.validation.read
    # What is never drawn at random needs no clips here.
    measured = dataclasses.replace(config.recipe, scenes=settings.scenes)
    if not settings.is_augmented:
        measured = dataclasses.replace(measured, augmentation=Augmentation())
    plans = fixed_plans(
        Planner(measured, pools.clips, pools.rooms),
        settings.scenes,
        settings.mixtures_per_scene,
        read_clip,
        rate,
        settings.seed,
    )
    return {
        scene: RenderedBatches([render_batch((plan,), read_clip, rate, rows) for plan in each])
        for scene, each in plans.items()
    }


def _ready_scenes(
    config: TrainConfig, material: Material, rows: Mapping[str, int]
) -> dict[str, Dataset[MixtureBatch]]:
    settings = config.validation
    segment = None
    if settings.segment_s is not None:
        segment = round(settings.segment_s * config.model.sample_rate)
    return {
        name: ValidationSegments(
            mixtures, segment, rows, settings.seed, settings.segments_per_mixture
        )
        for name, mixtures in material.ready_validation.items()
    }


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


def tagger_stage(tagger: Htsat, config: TrainConfig, material: Material) -> Stage:
    """The first stage of a run whose model has a tagger."""
    settings = config.tagging
    assert settings is not None, "the config was checked"
    assert material.validation is not None, "the classes of a tagger are pools"
    is_heard = {name for name, clips in material.validation.clips.items() if clips}
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
    data, scenes = _mixtures(stage, material)
    # Lightning trains in the mode in which it finds a module.
    tagger.train().requires_grad_(True)
    log.info("%d parameters of the tagger", sum(each.numel() for each in tagger.parameters()))
    return Stage(TaggingModule(tagger, stage, settings.stripes, scenes), data, stage)


def _take_tagger(tagger: Htsat, stage: Stage, run_dir: Path) -> None:
    tagger.load_state_dict(learnt(run_dir, stage.config.optimiser.average_best)[0])
    tagger.requires_grad_(False).eval()


def network_stage(model: WaveformModel, config: TrainConfig, material: Material) -> Stage:
    """The stage in which a model learns to separate."""
    data, scenes = _mixtures(config, material)
    log.info("%d parameters", model.num_parameters)
    module = SeparationModule(model, config, scenes)
    exhibit = Exhibit(scenes, config.model.sample_rate)
    return Stage(module, data, config, (exhibit,))


def fit(stage: Stage, run_dir: Path, observers: Sequence[Callback] = ()) -> None:
    """Train a stage to its end; goes on where it was saved last.

    Args:
        stage: What to train.
        run_dir: Where it is kept.
        observers: Who looks on beside those of the stage.

    Raises:
        TrainingError: If it cannot go on.
        Cancelled: If it was asked to stop.
    """
    last = last_checkpoint(run_dir)
    with quiet_lightning(), named_failures():
        trainer = make_trainer(stage.config, run_dir, (*stage.observers, *observers))
        trainer.fit(
            stage.module,
            datamodule=stage.data,
            ckpt_path=str(last) if last.exists() else None,
            weights_only=False,  # the run's own checkpoint, with the state of its loops
        )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence what Lightning says of itself, and advises against what we do by choice."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Its own use of an old name in PyTorch.
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        # Mixtures are made between steps.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # What is learned by heart in a dry run is not validated.
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
        # The tagger of a model is to stay in evaluation mode.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def learnt(run_dir: Path, average_best: int | None = None) -> tuple[dict[str, torch.Tensor], int]:
    """Weights that a run has come to, and its step.

    Args:
        run_dir: Its folder.
        average_best: Take the mean of so many best weights, where there are any; None for those
            of the last checkpoint.

    Raises:
        CheckpointError: If the checkpoint cannot be read, or some of the best weights are missing.
    """
    checkpoint = read_checkpoint(last_checkpoint(run_dir), "cpu")
    steps = best_steps(validations_of(checkpoint), average_best or 0)
    if steps:
        weights = mean_weights(best_weights(run_dir), steps)
    else:
        weights = {
            name.removeprefix("model."): tensor
            for name, tensor in checkpoint["state_dict"].items()
            if name.startswith("model.")  # and not those of a teacher
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
        SaveLast(
            last_checkpoint(run_dir), config.checkpoint_every_steps, config.validation.every_steps
        ),
    ]
    if config.optimiser.average_best is not None:
        callbacks.append(KeepBest(best_weights(run_dir), config.optimiser.average_best))
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
        accumulate_grad_batches=config.batches_per_step,
        val_check_interval=config.validation.every_steps * config.batches_per_step,
        check_val_every_n_epoch=None,
        gradient_clip_val=config.optimiser.max_grad_norm,
        log_every_n_steps=50,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=loggers_of(config, run_dir),
        enable_model_summary=False,
        enable_progress_bar=False,
    )


def export(run_dir: Path) -> Path:
    """Make a bundle of what a run has come to.

    That is the mean of its best weights where it keeps them, else those of its last checkpoint,
    the averaged ones where there are any.

    Works while the run goes on, and replaces the bundle of an earlier export.

    Returns:
        The bundle's folder, ``RUN/bundle``.

    Raises:
        ConfigError: If the folder holds no run.
        CheckpointError: If the checkpoint does not fit the run's config.
    """
    config = load_recipe(run_dir / CONFIG_FILE)
    last = last_checkpoint(run_dir)
    if not last.is_file():
        raise ConfigError(f"{run_dir}: holds no checkpoint yet; let the run reach its first one.")
    state, step = learnt(run_dir, config.optimiser.average_best)
    model = build_model(config.model)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise CheckpointError(
            f"{last}: does not fit {run_dir / CONFIG_FILE} ({problem})."
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
