"""What a training run is: one typed config, read from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from unbraid.data.access import Access
from unbraid.data.unreadable import MAX_UNREADABLE
from unbraid.errors import ConfigError
from unbraid.mixing.recipe import MixRecipe, Scene
from unbraid.mixing.remix import check_batch_size
from unbraid.models.taggers.htsat import HtsatConfig
from unbraid.models.waveform import ModelConfig
from unbraid.objectives.losses import SnrLossConfig
from unbraid.prompts import ANY_SOURCE
from unbraid.training.methods.by_example import ByExampleConfig
from unbraid.training.methods.mixit import MixitConfig
from unbraid.training.methods.remixing import RemixingConfig
from unbraid.training.methods.supervised import SupervisedConfig
from unbraid.training.methods.tagging import StripeConfig

#: How a run learns; ``kind`` tells which.
Method: TypeAlias = Annotated[
    SupervisedConfig | ByExampleConfig | MixitConfig | RemixingConfig,
    Field(discriminator="kind"),
]

#: The licence of weights that nobody has said anything about.
NOT_STATED = "not stated"


@dataclass(frozen=True)
class DataConfig:
    """Where recordings come from.

    Attributes:
        manifest: CSV file; a relative path is relative to the config file. With ``access:
            shards``, the folder or address of what ``unbraid data pack`` wrote.
        pools: Prompt → patterns over ``category/class`` of the manifest.
        rooms: Patterns of the room impulse responses, for ``recipe.augmentation``.
        train_split: Split to train on.
        validation_split: Split to validate on.
        access: How recordings are read: ``cache`` decodes all of them once into one file,
            ``direct`` decodes the stretches that are needed, ``shards`` reads a packed corpus.
        cache_dir: Where decoded recordings, or notes about them, are kept; None for the user's
            cache folder.
        max_unreadable: How large a share of the recordings of a split may be unreadable; they
            are left out and named. More of them end the run.
    """

    manifest: str
    pools: Mapping[str, tuple[str, ...]]
    rooms: tuple[str, ...] = ()
    train_split: str = "train"
    validation_split: str = "eval"
    access: Access = "cache"
    cache_dir: str | None = None
    max_unreadable: float = MAX_UNREADABLE

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_unreadable <= 1.0:
            raise ConfigError(
                f"data.max_unreadable is a share of the recordings, not {self.max_unreadable}."
            )


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with a warm-up, a plateau, and a decay to zero at the end.

    Attributes:
        learning_rate: On the plateau.
        weight_decay: Not applied to prompts, norms, biases and other vectors.
        eps: Of AdamW.
        max_grad_norm: Gradients are scaled down to this norm.
        warmup_steps: Linear rise from 0.
        decay_steps: Cosine fall to 0 over the last so many steps; 0 for none.
        average_decay: Of the exponential moving average of the weights, which is what is
            validated and kept; None for no average.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    eps: float = 1e-8
    max_grad_norm: float = 5.0
    warmup_steps: int = 1000
    decay_steps: int = 0
    average_decay: float | None = 0.999


@dataclass(frozen=True)
class ValidationConfig:
    """Measuring on fixed mixtures while training.

    Attributes:
        every_steps: How often.
        scenes: Lists of prompts to measure on.
        mixtures_per_scene: How many mixtures of each.
        seed: Which mixtures.
        is_augmented: Whether ``recipe.augmentation`` works here as well. Otherwise runs with
            different ones are measured on the same mixtures.
    """

    every_steps: int = 1000
    scenes: tuple[Scene, ...] = (
        Scene(("speech", "sfx-mix")),
        Scene(("speech", "music-mix")),
        Scene(("speech", "sfx-mix", "music-mix")),
        Scene(("speech", "speech")),
        Scene(("vocals", "drums", "bass", "other")),
    )
    mixtures_per_scene: int = 10
    seed: int = 0
    is_augmented: bool = False


@dataclass(frozen=True)
class TaggingConfig:
    """How the tagger of a model is trained, before the model itself.

    Attributes:
        num_sounds: How many classes are heard at once → how often.
        stripes: What is hidden from it.
        optimiser: How it learns.
        batch_size: Mixtures per step.
        max_steps: Steps in all.
    """

    num_sounds: Mapping[int, float] = field(default_factory=lambda: {1: 0.5, 2: 0.5})
    stripes: StripeConfig = field(default_factory=StripeConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    batch_size: int = 32
    max_steps: int = 10_000


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    A model with a tagger has no prompts. It is trained in two stages: the tagger, on the pools
    as its classes, then the network, by example. Others are trained by their prompts, or, with
    fixed outputs for sources of any kind, without references.

    Attributes:
        name: Names the run's folder and the model that comes out.
        model: What to train.
        start: Name or folder of a model whose weights to begin with; empty to begin afresh. Its
            network and prompts must fit ``model``.
        learns: Patterns, as in shells, over the names of the parameters that learn, such as
            ``prompts.*`` and ``network.codec.*``; the others stay as they are. Empty for all.
        data: Recordings.
        recipe: How they are mixed.
        method: How the model learns; None for ``by_example`` where it has a tagger, and else
            ``supervised``. ``mixit`` and ``remixing`` learn from mixtures alone. With their
            ``supervised_weight`` above 0, batches of mixtures of several sources are learnt
            with references, and only those of one source, which are whole recordings, without.
        loss: What is minimised where references are used; slots have a loss of their own.
        tagging: How the model's tagger is trained; needed where it has one.
        optimiser: How.
        validation: What is measured on the way.
        batch_size: Mixtures per step, over all devices together.
        max_steps: Steps in all.
        checkpoint_every_steps: How often the run is saved; a stopped run loses no more.
        seed: Of the initial weights and of all mixtures.
        precision: Lightning's name of the arithmetic.
        accelerator: ``auto`` takes a GPU where there is one.
        devices: How many GPUs of each machine to train on (of a CPU: processes); ``auto`` takes
            all. Each holds an equal share of every batch.
        num_nodes: How many machines.
        strategy: How several devices share the work: ``ddp`` copies the model to each, ``fsdp``
            splits it among them, for models that fit no single GPU. ``auto`` is ``ddp`` where
            there are several.
        loggers: Where figures go: ``csv``, ``tensorboard`` (with sounds and pictures), ``wandb``.
        num_workers: Processes that make mixtures; 0 makes them in between steps.
        num_threads: CPU threads of the training itself; None for PyTorch's choice.
        licence: Licence of the weights, for the card; where it is not stated, that of ``start``.
        description: One line for the card.
        weights_dtype: What the bundle stores its weights as.
    """

    name: str
    model: ModelConfig
    data: DataConfig
    start: str = ""
    learns: tuple[str, ...] = ()
    recipe: MixRecipe = field(default_factory=MixRecipe)
    method: Method | None = None
    loss: SnrLossConfig = field(default_factory=SnrLossConfig)
    tagging: TaggingConfig | None = None
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    batch_size: int = 4
    max_steps: int = 100_000
    checkpoint_every_steps: int = 500
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: int | Literal["auto"] = 1
    num_nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    loggers: tuple[Literal["csv", "tensorboard", "wandb"], ...] = ("csv", "tensorboard")
    num_workers: int = 0
    num_threads: int | None = None
    licence: str = NOT_STATED
    description: str = ""
    weights_dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        if self.model.tagger is not None:
            self._check_tagger(self.model.tagger)
        elif isinstance(self.method, ByExampleConfig):
            raise ConfigError("method: by_example is for a model with a tagger; give model.tagger.")
        unknown = set(self.data.pools) - set(self.model.prompts)
        if unknown and ANY_SOURCE not in self.model.prompts and self.model.tagger is None:
            names = ", ".join(sorted(unknown))
            raise ConfigError(f"data.pools names prompts that the model does not have: {names}.")
        for name in ("batch_size", "max_steps", "checkpoint_every_steps", "num_nodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.devices != "auto" and self.devices < 1:
            raise ConfigError(f"devices must be auto or at least 1, not {self.devices}.")

        if isinstance(self.method, MixitConfig | RemixingConfig):
            self._check_unsupervised(self.method)

    @property
    def learning_method(self) -> Method:
        """How the model learns, said or not."""
        if self.method is not None:
            return self.method
        return SupervisedConfig() if self.model.tagger is None else ByExampleConfig()

    def _check_unsupervised(self, method: MixitConfig | RemixingConfig) -> None:
        outputs = self.model.outputs
        if len(outputs) < 2 or set(outputs) != {ANY_SOURCE}:
            raise ConfigError(
                f"method: {method.kind} is for a model that gives two sources or more of any kind; "
                f"take an architecture with fixed outputs and name each of them {ANY_SOURCE!r} in "
                "model.outputs."
            )
        if isinstance(method, MixitConfig) and self.batch_size % 2:
            raise ConfigError(
                f"method: mixit adds up mixtures in pairs; batch_size must be even, not "
                f"{self.batch_size}."
            )
        if isinstance(method, RemixingConfig):
            count = method.num_sources or len(outputs)
            if count > len(outputs):
                raise ConfigError(
                    f"method.num_sources is {count}, but the model gives {len(outputs)} sources."
                )
            if method.batch_shuffle == "constrained":
                check_batch_size(self.batch_size, count)
        if method.supervised_weight:
            lengths = {len(scene.prompts) for scene in self.recipe.scenes}
            counts = lengths or set(self.recipe.num_sources)
            if 1 not in counts or counts == {1}:
                raise ConfigError(
                    "method.supervised_weight needs mixtures of one source, which are learnt "
                    "without references, and of several, which are learnt with: give both in "
                    "recipe.scenes or recipe.num_sources."
                )

    def _check_tagger(self, tagger: HtsatConfig) -> None:
        if not isinstance(self.learning_method, ByExampleConfig):
            raise ConfigError(
                f"a model with a tagger is trained by example, not by method: "
                f"{self.learning_method.kind}; leave method out."
            )
        if self.start or self.learns:
            raise ConfigError(
                "start and learns are for models that are asked with prompts; one with a tagger "
                "is trained as a whole: leave them out."
            )
        if self.tagging is None or self.model.prompts:
            raise ConfigError(
                "a model with a tagger is trained by example: leave model.prompts empty, and say "
                "with tagging how the tagger is trained."
            )
        if tagger.num_classes != len(self.data.pools):
            raise ConfigError(
                f"the tagger's classes are the pools: model.tagger.num_classes must be "
                f"{len(self.data.pools)}, not {tagger.num_classes}."
            )
        if tagger.mel.sample_rate != self.model.sample_rate:
            raise ConfigError(
                f"model.tagger.mel.sample_rate must be {self.model.sample_rate}, that of the "
                f"model, not {tagger.mel.sample_rate}."
            )
