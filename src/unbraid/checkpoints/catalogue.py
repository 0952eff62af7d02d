"""The models at hand: what ships inside the package, and what the user has added.

A model is named in one of four ways, tried in this order:

1. ``mini``: a model inside the package;
2. ``my-model``: a folder among the user's models (``user_models_dir()``);
3. ``hf:owner/name`` or ``hf:owner/name@revision``: a model on the Hugging Face hub;
4. ``./some/folder``: a bundle anywhere.

So a name means the same model in every working directory. The released checkpoints that unbraid
can fetch (``known_models``) are models of the user once they are fetched, and not before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, TypeAlias

from unbraid.checkpoints import known_models
from unbraid.checkpoints.bundle import (
    count_parameters,
    digest,
    is_bundle,
    read_card,
    read_config,
)
from unbraid.checkpoints.hub import PREFIX, fetch
from unbraid.checkpoints.known_models import KnownModel
from unbraid.config import nearest
from unbraid.errors import CheckpointError
from unbraid.folders import user_models_dir

#: Where a model was found.
Origin: TypeAlias = Literal["embedded", "user", "path", "hub"]

#: The model that is used when none is named.
DEFAULT_MODEL = "mini"

_NAME = re.compile(r"\w[\w.+-]*")


@dataclass(frozen=True)
class ModelInfo:
    """What is known about a model without loading its weights.

    Attributes:
        name: What to call it in ``resolve_model``.
        licence: Licence of the weights.
        source: Where the weights come from.
        path: Its folder.
        num_parameters: How many numbers its files store.
        sample_rate: The rate at which it computes, in samples per second.
        prompts: The canonical prompt names that it knows.
        description: One line; what is wrong with the model where ``is_damaged``.
        digest: SHA-256 of the bundle (see ``bundle``).
        origin: Where it was found.
        is_damaged: Whether the folder cannot be read as a model; all but ``name``, ``path``,
            ``origin`` and ``description`` is then empty.
    """

    name: str
    licence: str
    source: str
    path: Path
    num_parameters: int
    sample_rate: int
    prompts: tuple[str, ...]
    description: str
    digest: str
    origin: Origin
    is_damaged: bool = False


def list_models() -> tuple[ModelInfo, ...]:
    """All models inside the package and among the user's, by origin and name.

    A folder that is damaged is listed as such rather than left out. Models on the hub are
    not listed, those in its cache included.
    """
    embedded = [_info_or_damage(*item, "embedded") for item in embedded_models().items()]
    users = [_info_or_damage(*item, "user") for item in user_models().items()]
    return (*embedded, *users)


def missing_models() -> tuple[KnownModel, ...]:
    """The released checkpoints that unbraid knows and that are not among the user's models."""
    here = user_models()
    return tuple(model for model in known_models.KNOWN_MODELS if model.name not in here)


def how_to_get(model: KnownModel) -> str:
    """What to do to have a released checkpoint here: the tail of an error."""
    if model.can_be_fetched:
        return f"fetch it with `unbraid models download {model.name}`."
    return f"unbraid cannot fetch it, look at {model.source}."


def model_info(model: str | Path) -> ModelInfo:
    """Read what is known about one model, without loading its weights.

    Args:
        model: A name, a folder or a model on the hub, as in ``resolve_model``.

    Raises:
        CheckpointError: If there is no such model, or it is damaged.
    """
    name = str(model)
    folder = resolve_model(model)
    if name in embedded_models():
        return _info(name, folder, "embedded")
    if name in user_models():
        return _info(name, folder, "user")
    if name.startswith(PREFIX):
        return _info(name, folder, "hub")
    return _info(folder.name, folder, "path")


def resolve_model(model: str | Path) -> Path:
    """Find the folder of a model.

    Args:
        model: The name of a model in the package or of the user's, ``hf:owner/name`` with an
            optional ``@revision``, or a folder.

    Raises:
        CheckpointError: If there is no such model; the message gives near names and the
            folder of the user's models. Also if the hub refuses or cannot be reached.
    """
    name = str(model)
    if isinstance(model, str):
        if folder := (embedded_models() | user_models()).get(name):
            return folder
        if name.startswith(PREFIX):
            return fetch(name)
    try:
        path = Path(model).expanduser()
        if path.is_dir():
            return path
        is_file = path.exists()
    except (OSError, RuntimeError) as error:  # too long, not allowed, no such home folder
        raise CheckpointError(f"{name}: cannot be looked up as a folder ({error}).") from error
    if is_file:
        raise CheckpointError(
            f"{name}: a file, not the folder of a model; import released checkpoints first "
            "with `unbraid models import`."
        )
    if (released := known_models.find(name)) is not None:
        raise CheckpointError(f"{name}: is not here yet; {how_to_get(released)}")
    known = sorted(embedded_models().keys() | user_models().keys())
    choices = nearest(name, known) if known else "there are none yet."
    raise CheckpointError(
        f"{name}: there is no such model; {choices} Your own models belong in {user_models_dir()}."
    )


def embedded_models() -> dict[str, Path]:
    """The models inside the package: name to folder."""
    return dict(_bundles(Path(str(resources.files("unbraid") / "weights"))))


def user_models() -> dict[str, Path]:
    """The user's models; one that is named like a model of the package goes by its path."""
    taken = embedded_models()
    return {
        str(folder) if name in taken else name: folder
        for name, folder in _bundles(user_models_dir())
    }


def own_model_folder(name: str) -> Path:
    """Where a new model of the user's belongs.

    Raises:
        CheckpointError: If that can be no name, or a model of the package has it.
    """
    if not _NAME.fullmatch(name):
        raise CheckpointError(
            f"{name!r} cannot be the name of a model; give a name of letters, digits, "
            "'.', '-' and '_'."
        )
    if name in embedded_models():
        raise CheckpointError(
            f"{name}: a model of that name comes with unbraid; choose another name."
        )
    return user_models_dir() / name


def _bundles(parent: Path) -> Iterator[tuple[str, Path]]:
    """Models in a folder by name; names with a leading dot are unfinished or leftovers."""
    try:
        if parent.is_dir():
            for folder in sorted(parent.iterdir()):
                if not folder.name.startswith(".") and is_bundle(folder):
                    yield folder.name, folder
    except OSError as error:
        raise CheckpointError(
            f"{parent}: the models there cannot be listed ({error.strerror}); "
            "check who may read the folder."
        ) from error


def _info_or_damage(name: str, folder: Path, origin: Origin) -> ModelInfo:
    try:
        return _info(name, folder, origin)
    except CheckpointError as error:
        return ModelInfo(name, "", "", folder, 0, 0, (), str(error), "", origin, is_damaged=True)


def _info(name: str, folder: Path, origin: Origin) -> ModelInfo:
    config = read_config(folder)
    card = read_card(folder)
    return ModelInfo(
        name=name,
        licence=card.licence,
        source=card.source,
        path=folder,
        num_parameters=count_parameters(folder),
        sample_rate=config.sample_rate,
        prompts=config.prompts,
        description=card.description,
        digest=digest(folder),
        origin=origin,
    )
