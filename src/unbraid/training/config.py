"""What a training run is: one typed config, read from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import Discriminator, Field, Tag

from unbraid.config import check_number, check_weights, kind_of
from unbraid.data.access import Access
from unbraid.data.ready_made import MixtureSet
from unbraid.data.unreadable import MAX_UNREADABLE
from unbraid.errors import ConfigError
from unbraid.mixing.recipe import MixRecipe, Scene
from unbraid.mixing.remix import check_batch_size
from unbraid.models.registry import find_architecture
from unbraid.models.taggers.htsat import HtsatConfig
from unbraid.models.waveform import ModelConfig
from unbraid.objectives.losses import (
    LossConfig,
    SiSnrLossConfig,
    SnrLossConfig,
    SpectralLossConfig,
)
from unbraid.prompts import ANY_SOURCE
from unbraid.training.methods.by_example import ByExampleConfig
from unbraid.training.methods.mixit import MixitConfig
from unbraid.training.methods.remixing import RemixingConfig
from unbraid.training.methods.slots import SlotsConfig
from unbraid.training.methods.supervised import SupervisedConfig
from unbraid.training.methods.tagging import StripeConfig
from unbraid.training.schedule import OptimiserConfig

#: How a run learns; ``kind`` tells which.
Method: TypeAlias = Annotated[
    SupervisedConfig | ByExampleConfig | SlotsConfig | MixitConfig | RemixingConfig,
    Field(discriminator="kind"),
]


def _kind_of_loss(data: Any) -> str | None:
    """The kind of a loss, plain or built; that of a plain one need not be said."""
    if isinstance(data, Mapping):
        return kind_of(data, get_args(LossConfig))
    return getattr(data, "kind", None)


#: What is minimised; ``kind`` tells which.
Loss: TypeAlias = Annotated[
    Annotated[SnrLossConfig, Tag("snr")]
    | Annotated[SiSnrLossConfig, Tag("si_snr")]
    | Annotated[SpectralLossConfig, Tag("spectral")],
    Discriminator(_kind_of_loss),
]

#: From seed and step comes a number of 64 bits.
_HIGHEST_SEED = 2**32 - 1

#: The licence of weights that nobody has said anything about.
NOT_STATED = "not stated"


@dataclass(frozen=True)
class DataConfig:
    """Where recordings come from: pools to mix anew, or mixtures that are ready.

    Attributes:
        manifest: CSV file of recordings, or several that are joined. With ``access: shards``, the
            folder or address of what ``unbraid data pack`` wrote.
        pools: Prompt → patterns over ``category/class`` of the manifests.
        mixtures: Sets of ready-made mixtures to train on, in place of pools. Of ``recipe`` they
            take ``crop_s`` and ``absent_probability``. They are always read from the cache.
        rooms: Patterns of the room impulse responses, for ``recipe.augmentation``.
        root: What relative paths here and in ``validation`` are relative to. If it is relative
            itself, to the config file, or for a recipe that ships with unbraid, to the working
            directory.
        train_split: Split of the pools to train on.
        validation_split: Split of the pools to validate on.
        access: How recordings are read: ``cache`` decodes all of them once into one file,
            ``direct`` decodes the stretches that are needed, ``shards`` reads a packed corpus.
        cache_dir: Where decoded recordings, or notes about them, are kept; None for the user's
            cache folder.
        max_unreadable: How large a share of the recordings of a split may be unreadable; they
            are left out and named. More of them end the run.
    """

    manifest: str | tuple[str, ...] = ()
    pools: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mixtures: tuple[MixtureSet, ...] = ()
    rooms: tuple[str, ...] = ()
    root: str = "."
    train_split: str = "train"
    validation_split: str = "eval"
    access: Access = "cache"
    cache_dir: str | None = None
    max_unreadable: float = MAX_UNREADABLE

    def __post_init__(self) -> None:
        check_number("data.max_unreadable", self.max_unreadable, least=0, most=1)
        if bool(self.pools) == bool(self.mixtures):
            raise ConfigError("data needs either pools or mixtures to train on.")
        if bool(self.pools) != bool(self.manifests):
            raise ConfigError("data.manifest and data.pools belong together: give both or none.")

    @property
    def manifests(self) -> tuple[str, ...]:
        """All manifests."""
        return (self.manifest,) if isinstance(self.manifest, str) else self.manifest


@dataclass(frozen=True)
class ValidationConfig:
    """Measuring on fixed mixtures while training.

    Attributes:
        every_steps: How often.
        scenes: Lists of prompts to measure on, mixed from the pools.
        mixtures_per_scene: How many mixtures of each.
        mixtures: Name → ready-made mixtures to measure on, each set a scene of its own.
        segment_s: Length of what is heard of a ready-made mixture; None for all of it.
        segments_per_mixture: How many such segments of each.
        seed: Which mixtures, and which segments.
        is_augmented: Whether ``recipe.augmentation`` works here as well. Otherwise runs with
            different ones are measured on the same mixtures.
        patience: After so many validations without a lower loss the run ends; None for never.
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
    mixtures: Mapping[str, MixtureSet] = field(default_factory=dict)
    segment_s: float | None = None
    segments_per_mixture: int = 1
    seed: int = 0
    is_augmented: bool = False
    patience: int | None = None

    def __post_init__(self) -> None:
        if not self.scenes and not self.mixtures:
            raise ConfigError("validation needs scenes or mixtures to measure on.")
        for name in ("every_steps", "mixtures_per_scene", "segments_per_mixture", "patience"):
            check_number(f"validation.{name}", getattr(self, name), least=1)
        check_number("validation.segment_s", self.segment_s, above=0)


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

    def __post_init__(self) -> None:
        check_weights("tagging.num_sounds", self.num_sounds)
        for count in self.num_sounds:
            check_number("a key of tagging.num_sounds", count, least=1)
        for name in ("batch_size", "max_steps"):
            check_number(f"tagging.{name}", getattr(self, name), least=1)


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
            ``supervised``. ``slots`` is for models of the architecture ``audio_slots``, which
            learn what each slot generates. ``mixit`` and ``remixing`` learn from mixtures alone.
            With their ``supervised_weight`` above 0, batches of mixtures of several sources are
            learnt with references, and only those of one source, which are whole recordings,
            without.
        loss: What is minimised where waveforms are compared with references.
        tagging: How the model's tagger is trained; needed where it has one.
        optimiser: How.
        validation: What is measured on the way.
        batch_size: Mixtures that are heard at once, over all devices together; they ask for
            equally many sources.
        batches_per_step: How many such batches a step learns from.
        max_steps: Steps in all.
        initial_weights: How weights are drawn: as PyTorch does, or ``xavier``, uniformly by
            Glorot's rule with biases of zero, as TF-Locoformer is trained.
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
    loss: Loss = field(default_factory=SnrLossConfig)
    tagging: TaggingConfig | None = None
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    batch_size: int = 4
    batches_per_step: int = 1
    max_steps: int = 100_000
    initial_weights: Literal["pytorch", "xavier"] = "pytorch"
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
        for name in (
            "batch_size",
            "batches_per_step",
            "max_steps",
            "checkpoint_every_steps",
            "num_nodes",
            "num_threads",
        ):
            check_number(name, getattr(self, name), least=1)
        check_number("num_workers", self.num_workers, least=0)
        check_number("seed", self.seed, least=0, most=_HIGHEST_SEED)
        if self.devices != "auto":
            check_number("devices", self.devices, least=1)
        find_architecture(self.model.architecture)
        if self.validation.scenes and not self.data.pools:
            raise ConfigError(
                "validation.scenes are mixed from data.pools, and there are none; leave them empty "
                "and give validation.mixtures."
            )
        if self.model.tagger is not None:
            self._check_tagger(self.model.tagger)
            named = replace(self.model.tagger, class_names=tuple(self.data.pools))
            object.__setattr__(self, "model", replace(self.model, tagger=named))
        elif isinstance(self.method, ByExampleConfig):
            raise ConfigError("method: by_example is for a model with a tagger; give model.tagger.")
        parts = {name for kinds in self.recipe.composed.values() for name in kinds}
        known = {*self.model.prompts, *self.recipe.never_asked, *parts}
        unknown = set(self.data.pools) - known
        if unknown and ANY_SOURCE not in self.model.prompts and self.model.tagger is None:
            names = ", ".join(sorted(unknown))
            raise ConfigError(f"data.pools names prompts that the model does not have: {names}.")
        if isinstance(self.method, SlotsConfig) and self.model.architecture != "audio_slots":
            raise ConfigError(
                "method: slots is for model.architecture audio_slots, not "
                f"{self.model.architecture}."
            )
        if isinstance(self.method, MixitConfig | RemixingConfig):
            self._check_unsupervised(self.method)

    @property
    def learning_method(self) -> Method:
        """How the model learns, said or not."""
        if self.method is not None:
            return self.method
        return SupervisedConfig() if self.model.tagger is None else ByExampleConfig()

    def check_share(self, num_devices: int) -> None:
        """Insist that the method can learn from each device's share of a batch.

        Args:
            num_devices: How many share the batch equally.

        Raises:
            ConfigError: If a share has too few mixtures, or not an even number of them, to put
                them together.
        """
        method, share = self.learning_method, self.batch_size // num_devices
        if isinstance(method, MixitConfig) and share % 2:
            each = f" for each of the {num_devices} devices" if num_devices > 1 else ""
            raise ConfigError(
                f"method: mixit adds up mixtures in pairs; batch_size must be even{each}, not "
                f"{share}; for example {(share + 1) * num_devices} in all."
            )
        if isinstance(method, RemixingConfig) and method.batch_shuffle == "constrained":
            count = method.num_sources or len(self.model.outputs)
            check_batch_size(self.batch_size, count, num_devices=num_devices)

    def _check_unsupervised(self, method: MixitConfig | RemixingConfig) -> None:
        outputs = self.model.outputs
        if len(outputs) < 2 or set(outputs) != {ANY_SOURCE}:
            raise ConfigError(
                f"method: {method.kind} is for a model that gives two sources or more of any kind; "
                f"take an architecture with fixed outputs and name each of them {ANY_SOURCE!r} in "
                "model.outputs."
            )
        if isinstance(method, RemixingConfig) and (method.num_sources or 0) > len(outputs):
            raise ConfigError(
                f"method.num_sources is {method.num_sources}, but the model gives {len(outputs)} "
                "sources."
            )
        self.check_share(1)
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
        if not self.validation.scenes:
            raise ConfigError(
                "a model with a tagger is validated on mixtures of validation.scenes."
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
