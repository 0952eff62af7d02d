"""Checkpoints of research code as they lie on disk: a settings file and a pickle of tensors.

Three layouts are read::

    some-model/hparams.yaml                 a Lightning checkpoint, with its hparams.yaml
    some-model/checkpoints/model.pth        beside it, up to two folders above it, or
                                            inside it as hyper_parameters
    some-model/config.yaml                  ESPnet's, with the average of its best weights
    some-model/valid.loss.ave_5best.pth

Pickles can run code when they are read. These are read in torch's restricted mode, which
builds tensors and plain containers and refuses everything else before it runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unbraid.checkpoints.importers.sfc import is_sfc
from unbraid.checkpoints.importers.st_sed_sep import is_separator, is_tagger
from unbraid.config import load_mapping
from unbraid.errors import CheckpointError, ConfigError, in_brief

_SETTINGS = "hparams.yaml"
_ESPNET_SETTINGS = "config.yaml"
_WEIGHTS = Path("checkpoints") / "model.pth"


@dataclass(frozen=True, eq=False)
class Released:
    """A checkpoint of somebody else's code, as it was read and not yet understood.

    Attributes:
        hparams: The settings.
        state: The tensors, on the CPU, under the names of that code.
        name: What the folder, or else the file, is called.
        weights: The file with the tensors.
        settings: The file with the settings.
        sha256: SHA-256 of ``weights``, 64 hexadecimal digits.
    """

    hparams: Mapping[str, Any]
    state: Mapping[str, Tensor]
    name: str
    weights: Path
    settings: Path
    sha256: str


def read_files(path: Path) -> Released:
    """Read a released folder, or a single ``.pth`` or ``.ckpt`` file with its settings.

    Args:
        path: The folder or the file.

    Raises:
        CheckpointError: If a file is missing or damaged, holds more than tensors and plain
            values, or no settings are found.
    """
    weights = _find_weights(path)
    content = _load(weights)
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"{weights}: holds no tensors; give the file with the weights.")
    if strange := [str(key) for key, value in state.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(
            f"{weights}: not a checkpoint, {in_brief(strange)} are no tensors; "
            "give the file with the weights."
        )
    # Of some, the tensors say it all.
    is_enough = is_sfc(state) or is_separator(state) or is_tagger(state)
    hparams, settings = ({}, weights) if is_enough else _find_settings(path, weights, content)
    folder = settings.parent
    return Released(
        hparams=hparams,
        state=state,
        name=weights.stem if settings == weights else folder.resolve().name,
        weights=weights,
        settings=settings,
        sha256=_sha256(weights),
    )


def _find_weights(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such file or folder.")
    if (path / _WEIGHTS).is_file():
        return path / _WEIGHTS
    if averages := sorted(path.glob("valid.loss.ave*.pth")):
        return averages[0]
    if others := sorted((path / "checkpoints").glob("*.ckpt")) + sorted(path.glob("*.ckpt")):
        raise CheckpointError(
            f"{path}: has no {_WEIGHTS}; choose one of {in_brief(map(str, others))}."
        )
    raise CheckpointError(
        f"{path}: not a released checkpoint, it has no {_WEIGHTS}; "
        f"give the folder that has {_SETTINGS} and {_WEIGHTS} in it, or a .ckpt file."
    )


def _load(weights: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(weights, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{weights}: cannot be read ({error.strerror}).") from error
    except Exception as error:
        # A damaged or hostile pickle can fail in any way. The reason that torch gives is left
        # out: it advises to read the file again without protection.
        raise CheckpointError(
            f"{weights}: damaged, or holds more than tensors and plain values (which could run "
            "code when read, so it is refused); get the file again from its source."
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{weights}: not a checkpoint, it holds no names for its tensors.")
    return content


def _find_settings(
    path: Path, weights: Path, content: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Path]:
    """The settings, and the file in which they were found."""
    places = [path] if path.is_dir() else list(weights.absolute().parents)[:3]
    for settings in (folder / name for folder in places for name in (_SETTINGS, _ESPNET_SETTINGS)):
        if settings.is_file():
            try:
                return load_mapping(settings), settings
            except ConfigError as error:
                raise CheckpointError(str(error)) from error
    if isinstance(inside := content.get("hyper_parameters"), Mapping) and inside:
        return inside, weights
    raise CheckpointError(
        f"{weights}: no {_SETTINGS} beside it or up to two folders above it, and no "
        "hyper_parameters in it; put the settings that came with the weights there."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
