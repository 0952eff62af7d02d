"""Installed prompts: those that go by their name, without a path.

They lie in the user's folder ``prompts``, in a folder for each model that has the first 16 digits
of its fingerprint as its name. So a prompt is found by every model with the same network, whatever
that is called, and by no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from unbraid.checkpoints.bundle import read_config
from unbraid.checkpoints.prompt_files import (
    ENDING,
    MODEL_NAME,
    PromptFile,
    check_prompt_name,
    model_fingerprint,
    parse_prompt,
    read_content,
    save_prompt,
    write_prompt,
)
from unbraid.config import nearest
from unbraid.errors import CheckpointError, ConfigError, PromptError
from unbraid.folders import user_prompts_dir
from unbraid.models.waveform import build_model
from unbraid.prompts import check_free_name

_SHORT = 16
_SHOWN = 12


@dataclass(frozen=True, eq=False)
class StoredPrompt:
    """A prompt that lies somewhere.

    Attributes:
        prompt: The prompt.
        path: Its file.
        digest: SHA-256 of the file.
    """

    prompt: PromptFile
    path: Path
    digest: str

    @property
    def name(self) -> str:
        """What it is called."""
        return self.prompt.name


def open_prompt(path: Path) -> StoredPrompt:
    """Read a prompt file together with its digest.

    Raises:
        CheckpointError, PromptError: As ``prompt_files.load_prompt``.
    """
    return _stored(read_content(path), path)


def check_made_for(stored: StoredPrompt, fingerprint: str, model: str) -> None:
    """Refuse a prompt that lies in the space of another model.

    Args:
        stored: The prompt.
        fingerprint: Of the model that is to use it.
        model: What to call that model.

    Raises:
        PromptError: If it was made for another one.
    """
    made_for = stored.prompt.fingerprint
    if made_for == fingerprint:
        return
    known_as = stored.prompt.text(MODEL_NAME)
    other = f"{known_as!r}, fingerprint {made_for[:_SHOWN]}" if known_as else made_for[:_SHOWN]
    way_out = f"use it there (--model {known_as})" if known_as else "use it there"
    raise PromptError(
        f"{stored.path}: the prompt {stored.name!r} was made for another model ({other}) than "
        f"{model!r} (fingerprint {fingerprint[:_SHOWN]}); {way_out}, or teach it "
        "to this one (`unbraid teach`)."
    )


def installed_prompts(fingerprint: str) -> dict[str, Path]:
    """The prompts that are installed for a model, by name; damaged ones are among them.

    Raises:
        CheckpointError: If the folder cannot be listed.
    """
    return dict(_prompts_in(_folder_of(fingerprint)))


def installed_as(name: str, fingerprint: str) -> str | None:
    """The installed prompt that has this name but for upper and lower case; None for none.

    Some disks take names that differ in case for one.

    Raises:
        CheckpointError: If the folder cannot be listed.
    """
    same = {known.casefold(): known for known in installed_prompts(fingerprint)}
    return same.get(name.casefold())


def open_installed(path: Path) -> StoredPrompt:
    """Read an installed prompt, which goes by the name of its file.

    Raises:
        CheckpointError, PromptError: As ``open_prompt``; also if somebody renamed the file.
    """
    stored = open_prompt(path)
    if stored.name != _name_of(path):
        raise CheckpointError(
            f"{path}: holds the prompt {stored.name!r}, so somebody renamed or replaced the file; "
            "remove it and install it again."
        )
    return stored


def installed_elsewhere(name: str, fingerprint: str) -> list[Path]:
    """Prompts of this name that are installed for other models.

    Raises:
        CheckpointError: If a folder cannot be listed.
    """
    here = _folder_of(fingerprint)
    try:
        folders = sorted(here.parent.iterdir()) if here.parent.is_dir() else []
    except OSError as error:
        raise _cannot_list(here.parent, error) from error
    elsewhere = (dict(_prompts_in(folder)) for folder in folders if folder != here)
    return [prompts[name] for prompts in elsewhere if name in prompts]


def install_prompt(
    path: Path, model: Path, *, name: str | None = None, overwrite: bool = False
) -> StoredPrompt:
    """Copy a prompt to where it is found by its name.

    Args:
        path: The file of the prompt.
        model: The bundle that is to use it.
        name: What it is to be called; None for the name that it has.
        overwrite: Replace an installed prompt of that name.

    Returns:
        The installed prompt.

    Raises:
        CheckpointError: If the file or the model is missing or damaged, there is such a prompt
            already, or the disk refuses.
        PromptError: If it was made for another model, does not fit it, or its name means
            something already, see ``prompts.check_free_name``.
    """
    content = read_content(path)  # once, so that what is checked is what is copied
    stored = _stored(content, path)
    if name is not None:
        stored = replace(stored, prompt=replace(stored.prompt, name=name))
    fingerprint = model_fingerprint(model)
    check_made_for(stored, fingerprint, model.name)
    # Whether a model takes a prompt is decided in one place; its weights are not needed for that.
    try:
        with torch.device("meta"):
            bank = build_model(read_config(model)).prompts
    except ConfigError as error:
        raise CheckpointError(f"{model}: no model can be built from this ({error})") from error
    try:
        check_free_name(stored.name, bank.names)
        bank.with_prompts({stored.name: stored.prompt.vectors})
    except PromptError as error:
        raise PromptError(f"{path}: {error}") from error
    target = _folder_of(fingerprint) / f"{stored.name}{ENDING}"
    known = installed_as(stored.name, fingerprint)
    if known is not None and (known != stored.name or not overwrite):
        raise CheckpointError(
            f"{target}: a prompt {known!r} is installed already; remove it, replace it with "
            "--overwrite, or give this one another name with --as."
        )
    if name is None:
        write_prompt(content, target, overwrite=overwrite)
    else:
        save_prompt(stored.prompt, target, overwrite=overwrite)
    return open_installed(target)


def remove_prompt(name: str, model: Path) -> Path:
    """Remove an installed prompt from the disk, also a damaged one.

    Returns:
        The file that was removed.

    Raises:
        CheckpointError: If the model is missing or damaged, or the file cannot be removed.
        PromptError: If the model has learned that prompt, or none of this name is installed.
    """
    path = find_installed(name, model)
    try:
        path.unlink()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be removed ({error.strerror}).") from error
    return path


def find_installed(name: str, model: Path) -> Path:
    """The file of an installed prompt.

    Raises:
        CheckpointError: If the model is missing or damaged.
        PromptError: If the model has learned that prompt, or none of this name is installed.
    """
    installed = installed_prompts(model_fingerprint(model))
    if name in installed:
        return installed[name]
    if name in read_config(model).prompts:
        raise PromptError(f"{name!r} was learned by the model and is no prompt of yours.")
    choices = nearest(name, list(installed)) if installed else "there are none."
    raise PromptError(f"{name!r}: no such prompt is installed for {model.name!r}; {choices}")


def _stored(content: bytes, path: Path) -> StoredPrompt:
    return StoredPrompt(parse_prompt(content, path), path, hashlib.sha256(content).hexdigest())


def _folder_of(fingerprint: str) -> Path:
    return user_prompts_dir() / fingerprint[:_SHORT]


def _name_of(path: Path) -> str:
    return path.name.removesuffix(ENDING)


def _prompts_in(folder: Path) -> Iterator[tuple[str, Path]]:
    try:
        files = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise _cannot_list(folder, error) from error
    for file in files:
        if file.name.endswith(ENDING) and file.is_file():
            try:
                check_prompt_name(_name_of(file))
            except PromptError:
                continue  # such a file cannot be named, so it is not one of ours
            yield _name_of(file), file


def _cannot_list(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{folder}: the prompts there cannot be listed ({error.strerror}); "
        "check who may read the folder."
    )
