"""From what a user asks for to prompts: names that were learned, installed ones, and files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unbraid.checkpoints.bundle import Bundle, read_config
from unbraid.checkpoints.prompt_files import MODEL_NAME, is_prompt_path, model_fingerprint
from unbraid.checkpoints.prompt_store import (
    StoredPrompt,
    check_made_for,
    installed_elsewhere,
    installed_prompts,
    open_installed,
    open_prompt,
)
from unbraid.config import nearest
from unbraid.errors import CheckpointError, PromptError
from unbraid.prompts import ALIASES, NO_NAMES, canonical_name


@dataclass(frozen=True, eq=False)
class AskedPrompts:
    """What was asked for, found.

    Attributes:
        names: One canonical name for each thing that was asked for, in order.
        taught: Those that the model has not learned, each once, by name.
    """

    names: tuple[str, ...] = ()
    taught: Mapping[str, StoredPrompt] = field(default_factory=dict)

    @property
    def digests(self) -> dict[str, str]:
        """Name → SHA-256 of the file, of those that the model has not learned."""
        return {name: stored.digest for name, stored in self.taught.items()}


def find_prompts(folder: Path, asked: Sequence[str | Path]) -> AskedPrompts:
    """Find what each of these means to a model.

    A path that ends in ``.prompt.safetensors`` is a prompt file, which goes by the name that
    stands in it. A name means, in this order: a prompt from one of these files, one that the model
    has learned, one that is installed for it, another name of a learned one.

    Args:
        folder: The model's bundle.
        asked: Names and paths; they may repeat.

    Raises:
        PromptError: For an unknown name, a prompt of another model, or two different prompts of
            one name.
        CheckpointError: If the model or a prompt file is missing or damaged.
    """
    learned = read_config(folder).prompts
    fingerprint = ""
    texts = [str(each).strip() for each in asked]
    # Behind a comma, no shell expands ``~``; this function leaves alone what it does not know.
    from_path = {
        text: open_prompt(Path(os.path.expanduser(text)))  # noqa: PTH111
        for text in texts
        if is_prompt_path(text)
    }
    taught: dict[str, StoredPrompt] = {}
    if from_path or not set(texts) <= set(learned):  # reading all weights takes its time
        fingerprint = model_fingerprint(folder)
    for stored in from_path.values():
        check_made_for(stored, fingerprint, folder.name)
        _check_distinct(stored, learned, taught)
        taught[stored.name] = stored
    names = []
    for text in texts:
        if text in from_path:
            name = from_path[text].name
        elif text in taught or text in learned:
            name = text
        elif (path := installed_prompts(fingerprint).get(text)) is not None:
            stored = open_installed(path)
            check_made_for(stored, fingerprint, folder.name)
            taught[text] = stored
            name = text
        else:
            name = canonical_name(text)
            if name not in learned:
                raise _unknown(text, learned, fingerprint, folder.name)
        names.append(name)
    return AskedPrompts(tuple(names), taught)


def with_taught(bundle: Bundle, asked: AskedPrompts) -> Bundle:
    """The bundle with a model that also knows the prompts that were taught.

    Raises:
        PromptError: If one does not fit the model.
    """
    if not asked.taught:
        return bundle
    vectors = {name: stored.prompt.vectors for name, stored in asked.taught.items()}
    return replace(bundle, model=bundle.model.with_prompts(vectors))


def _check_distinct(
    stored: StoredPrompt, learned: Sequence[str], taught: Mapping[str, StoredPrompt]
) -> None:
    if stored.name in learned:
        raise PromptError(
            f"{stored.path}: the model has learned a prompt {stored.name!r} itself; give this one "
            "another name with `unbraid prompts install --as NAME`."
        )
    other = taught.get(stored.name)
    if other is not None and other.digest != stored.digest:
        raise PromptError(
            f"{stored.path}: another prompt {stored.name!r} stands in {other.path}; give one of "
            "them another name with `unbraid prompts install --as NAME`."
        )


def _unknown(name: str, learned: Sequence[str], fingerprint: str, model: str) -> PromptError:
    installed = installed_prompts(fingerprint)
    close = nearest(name, [*learned, *installed, *ALIASES])
    guess = f" {close}" if close.startswith("did you mean") else ""
    if learned or installed:
        known = f" {model!r} has learned {', '.join(learned) or 'none'}"
        known += f", and installed for it are {', '.join(installed)}." if installed else "."
    else:
        known = f" {NO_NAMES}"
    elsewhere = "".join(
        f" A prompt of that name is installed for another model{_model_of(path)}."
        for path in installed_elsewhere(name, fingerprint)[:1]
    )
    return PromptError(f"unknown prompt {name!r};{guess}{known}{elsewhere}")


def _model_of(path: Path) -> str:
    try:
        prompt = open_installed(path).prompt
    except (CheckpointError, PromptError):
        return ""
    return f" ({prompt.text(MODEL_NAME) or prompt.fingerprint[:12]})"
