"""A model on disk: a folder with four files or five, none of which can run code.

=====================  ===========================================================
``config.json``        ``format`` (1) and the fields of ``ModelConfig``
``model.safetensors``  the tensors of the network, under the network's own names
``prompts.safetensors``  one vector [dim] per prompt, under the prompt's name
``README.md``          the card: licence, source, what the model can and cannot do
``tagger.safetensors``  the tensors of the tagger, where the config describes one
=====================  ===========================================================

The digest of a bundle is the SHA-256 of its first three files, one after the other::

    cat model.safetensors prompts.safetensors config.json | sha256sum

with ``tagger.safetensors`` behind ``config.json`` where there is one,
so it changes when the model computes something else, and not when its card is edited.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from unbraid import config as configs
from unbraid.checkpoints.accounting import check_tensors, not_finite
from unbraid.checkpoints.card import Card, parse_card
from unbraid.errors import CheckpointError, ConfigError, in_brief
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model

#: Version of the layout described above.
FORMAT = 1

CONFIG = "config.json"
MODEL = "model.safetensors"
PROMPTS = "prompts.safetensors"
CARD = "README.md"

TAGGER = "tagger.safetensors"

#: The files that every bundle has.
FILES = (CONFIG, MODEL, PROMPTS, CARD)
#: The files that a bundle may have; there is nothing else in one.
POSSIBLE_FILES = (*FILES, TAGGER)

#: How names of running statistics end. They are stored, but they are no parameters.
_STATISTICS = (".running_mean", ".running_var")

#: What weights may be stored as. They are always loaded as float32.
_DISK_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model that was loaded, with what is known about it.

    Attributes:
        model: Ready to use: float32, on the CPU, in evaluation mode.
        config: What the model was built from.
        card: Licence, source and description.
        folder: Where it was loaded from.
        digest: SHA-256 of weights, prompts, config and tagger, 64 hexadecimal digits.
    """

    model: WaveformModel
    config: ModelConfig
    card: Card
    folder: Path
    digest: str


def save_bundle(
    model: WaveformModel,
    folder: str | Path,
    card: Card,
    *,
    overwrite: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write ``model`` to ``folder``; the folder appears only when it is whole.

    Args:
        model: The model to keep.
        folder: Where to; its parent folders are made.
        card: Licence, source and description.
        overwrite: Replace a bundle that is there already. Anything else that is in the way
            (a file, a folder that is not a bundle) is never replaced.
        dtype: What to store learnable weights as. float16 and bfloat16 halve the size and
            round the weights to 11 or 8 significant bits.

    Returns:
        The folder.

    Raises:
        CheckpointError: If something is in the way, the disk refuses, a weight is not a
            number or lies outside the range of ``dtype``, or a prompt of the model has
            several vectors, which belong in a file of their own.
        ValueError: If ``dtype`` is none of float32, float16, bfloat16.
    """
    if dtype not in _DISK_DTYPES:
        raise ValueError(f"weights are stored as float32, float16 or bfloat16, not {dtype}")
    folder = Path(folder)
    refuse_what_is_in_the_way(folder, overwrite=overwrite)
    if model.prompts.weight.shape[1] != model.prompts.dim:
        raise CheckpointError(
            f"{folder}: a model is saved with one vector per prompt, and this one was given "
            "prompts of several; save it without them, and them with save_prompt."
        )
    with torch.device("meta"):
        fresh = build_model(model.config)
    # What is never learned is exact by design: rotary frequencies are multiplied by
    # positions, and a rounding error would grow with them.
    exact = {name for name, tensor in _state(fresh.network).items() if not tensor.requires_grad}
    network = _for_disk(_state(model.network), dtype, exact, MODEL)
    tagger = None
    if model.tagger is not None:
        # No gradient says here what is learned: in a model, all of the tagger is frozen.
        statistics = {name for name in _state(model.tagger) if name.endswith(_STATISTICS)}
        tagger = _for_disk(_state(model.tagger), dtype, statistics, TAGGER)
    prompts = _for_disk(_prompt_vectors(model), dtype, set(), PROMPTS)
    with _replacing(folder) as partial:
        # The one metadata key keeps the bytes, and so the digest, the same on every save.
        # Written by us because safetensors makes files that only their owner may read.
        (partial / MODEL).write_bytes(serialize(network, metadata={"format": "pt"}))
        (partial / PROMPTS).write_bytes(serialize(prompts, metadata={"format": "pt"}))
        settings = {"format": FORMAT} | configs.dump(model.config)
        if tagger is None:
            # Bundles without one are, to the byte, what they were before there were any.
            del settings["tagger"]
        else:
            (partial / TAGGER).write_bytes(serialize(tagger, metadata={"format": "pt"}))
        (partial / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        (partial / CARD).write_text(card.render(), encoding="utf-8")
    return folder


def load_bundle(folder: str | Path) -> Bundle:
    """Load a model and account for every tensor in its files.

    Args:
        folder: A bundle.

    Raises:
        CheckpointError: If the folder is no bundle, a file is missing or damaged, the format
            is newer than this version of unbraid, or the tensors do not fit the config.
    """
    folder = Path(folder)
    config = read_config(folder)
    card = read_card(folder)
    network = _read_tensors(folder / MODEL)
    prompts = _read_tensors(folder / PROMPTS)
    tagger = _read_tensors(folder / TAGGER) if config.tagger is not None else {}
    model = _build(config, network, prompts, tagger, folder)
    _fill(model.network, network)
    if model.tagger is not None:
        _fill(model.tagger, tagger)
    with torch.no_grad():
        for name, row in zip(config.prompts, model.prompts.weight, strict=True):
            row.copy_(prompts[name])
    return Bundle(model.eval(), config, card, folder, digest(folder))


def is_bundle(folder: Path) -> bool:
    """Whether ``folder`` looks like a bundle: its config and its weights are there."""
    return (folder / CONFIG).is_file() and (folder / MODEL).is_file()


def read_config(folder: Path) -> ModelConfig:
    """Read what the model of a bundle is built from.

    Raises:
        CheckpointError: If the folder is no bundle, or its config is damaged or too new.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder; give the folder of a model.")
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise CheckpointError(
            f"{folder}: not a whole model, {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; a model is a folder with "
            f"{', '.join(FILES)}."
        )
    path = folder / CONFIG
    try:
        settings = configs.load_mapping(path)
        written = settings.pop("format", None)
        if written != FORMAT:
            raise CheckpointError(
                f"{path}: model format {written!r} is not one that this version of unbraid "
                f"reads (it reads {FORMAT}); install a newer unbraid."
            )
        config = configs.parse(ModelConfig, settings, where=str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    if config.tagger is not None and not (folder / TAGGER).is_file():
        raise CheckpointError(
            f"{folder}: not a whole model, its tagger ({TAGGER}) is missing; get the model again."
        )
    return config


def read_card(folder: Path) -> Card:
    """Read the card of a bundle.

    Raises:
        CheckpointError: If it cannot be read or names no licence.
    """
    path = folder / CARD
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read as a model card ({error}).") from error
    return parse_card(text, where=str(path))


def count_parameters(folder: Path) -> int:
    """How many numbers a bundle stores, read from the heads of its files.

    Without the tagger, and without running statistics, as ``WaveformModel.num_parameters``.

    Raises:
        CheckpointError: If a file is missing or damaged.
    """
    total = 0
    for name in (MODEL, PROMPTS):
        with _opened(folder / name) as tensors:
            for key in tensors.keys():  # noqa: SIM118 - not a mapping
                if name == MODEL and key.endswith(_STATISTICS):
                    continue
                total += torch.Size(tensors.get_slice(key).get_shape()).numel()
    return total


def digest(folder: Path) -> str:
    """SHA-256 of weights, prompts, config and, if there is one, tagger, in hexadecimal digits.

    Raises:
        CheckpointError: If one of the files cannot be read.
    """
    sha256 = hashlib.sha256()
    tagger = (TAGGER,) if (folder / TAGGER).is_file() else ()
    for name in (MODEL, PROMPTS, CONFIG, *tagger):
        try:
            with (folder / name).open("rb") as file:
                while block := file.read(1 << 20):
                    sha256.update(block)
        except OSError as error:
            raise CheckpointError(f"{folder / name}: cannot be read ({error.strerror}).") from error
    return sha256.hexdigest()


def _state(network: nn.Module) -> dict[str, Tensor]:
    """Persistent tensors by name; a tensor that several blocks share appears once."""
    persistent = network.state_dict()
    named = dict(network.named_parameters()) | dict(network.named_buffers())
    return {name: tensor for name, tensor in named.items() if name in persistent}


def _prompt_vectors(model: WaveformModel) -> dict[str, Tensor]:
    return dict(zip(model.prompts.names, model.prompts.weight, strict=True))


def _for_disk(
    tensors: Mapping[str, Tensor], dtype: torch.dtype, exact: Set[str], where: str
) -> dict[str, Tensor]:
    """Copies on the CPU, all but ``exact`` rounded; refuses what is not finite afterwards."""
    stored = {
        name: tensor.detach().to("cpu", torch.float32 if name in exact else dtype).contiguous()
        for name, tensor in tensors.items()
    }
    if broken := not_finite(stored):
        raise CheckpointError(
            f"{where} would hold infinite values or values that are no numbers in "
            f"{in_brief(broken)}; train from an earlier state, or store the weights as float32."
        )
    return stored


def _build(
    config: ModelConfig,
    network: Mapping[str, Tensor],
    prompts: Mapping[str, Tensor],
    tagger: Mapping[str, Tensor],
    folder: Path,
) -> WaveformModel:
    """Build the model that ``config`` describes, once the tensors are known to fit it."""
    try:
        # Without memory first: a damaged config may ask for more than the machine has.
        with torch.device("meta"):
            blueprint = build_model(config)
        check_tensors(network, _state(blueprint.network), str(folder / MODEL))
        check_tensors(prompts, _prompt_vectors(blueprint), str(folder / PROMPTS))
        if blueprint.tagger is not None:
            check_tensors(tagger, _state(blueprint.tagger), str(folder / TAGGER))
        return build_model(config)
    except CheckpointError:
        raise
    except Exception as error:
        problem = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder / CONFIG}: no model can be built from this config ({problem})."
        ) from error


def _fill(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy checked tensors into a network in place, which rounds them up to float32."""
    with torch.no_grad():
        for name, target in _state(network).items():
            target.copy_(tensors[name])


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with _opened(path) as tensors:
        read = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
    if broken := not_finite(read):
        raise CheckpointError(
            f"{path}: damaged, {in_brief(broken)} hold values that are no numbers; "
            "get the model again."
        )
    return read


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file, open; whatever is wrong with it becomes a CheckpointError."""
    try:
        with safe_open(path, framework="pt", device="cpu") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        problem = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({problem}); get the model again."
        ) from error


def refuse_what_is_in_the_way(folder: Path, *, overwrite: bool) -> None:
    """Make sure that a model can be saved as ``folder``, before work goes into it.

    Raises:
        CheckpointError: If there is a model that is not to be replaced, or anything else.
    """
    if not folder.exists():
        return
    if not folder.is_dir() or not (is_bundle(folder) or _is_empty(folder)):
        raise CheckpointError(f"{folder}: is there already and is no model; choose another name.")
    if is_bundle(folder) and not overwrite:
        raise CheckpointError(
            f"{folder}: there is a model already; choose another name or say to overwrite it."
        )


def _is_empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder`` that takes its place when the block ends well."""
    mark = uuid.uuid4().hex[:8]
    partial = folder.with_name(f".{folder.name}.{mark}.partial")
    former = folder.with_name(f".{folder.name}.{mark}.former")
    try:
        partial.mkdir(parents=True)
        yield partial
        if folder.exists():
            folder.rename(former)
        try:
            partial.rename(folder)
        except OSError:
            if former.exists():
                former.rename(folder)
            raise
        shutil.rmtree(former, ignore_errors=True)
    except OSError as error:
        problem = " ".join(str(error).split())
        raise CheckpointError(f"{folder}: the model cannot be written ({problem}).") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
