"""What happens to models that are here: noting what was written, comparing with it, removing.

The digest of a bundle (see ``bundle``) is noted on its card when it is imported, as ``digest`` in
the front matter. The card is not part of the digest, so the note can stand inside the bundle and
travels with it.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from unbraid.checkpoints.bundle import CARD, POSSIBLE_FILES, digest, read_card, read_config
from unbraid.checkpoints.catalogue import embedded_models, resolve_model, user_models
from unbraid.checkpoints.hub import PREFIX
from unbraid.config import nearest
from unbraid.errors import CheckpointError, in_brief

#: How a bundle compares with what was written when it was made.
#:
#: ``intact``: its digest is the one that was noted.
#: ``changed``: it is another one.
#: ``unnoted``: none was noted, so nothing can be said.
#: ``damaged``: a file is missing or cannot be read.
State: TypeAlias = Literal["intact", "changed", "unnoted", "damaged"]

_NOTE = "digest"


@dataclass(frozen=True)
class Verification:
    """How a model compares with what was written when it was imported.

    Attributes:
        name: The model.
        path: Its folder.
        state: The verdict.
        noted: The digest on its card; empty if there is none.
        found: The digest of its files; empty if they cannot be read.
        problem: What is wrong with it; empty unless it is damaged.
    """

    name: str
    path: Path
    state: State
    noted: str = ""
    found: str = ""
    problem: str = ""

    @property
    def is_as_written(self) -> bool:
        """Whether nothing speaks against using it."""
        return self.state in ("intact", "unnoted")


def note_digest(folder: Path) -> str:
    """Write the digest of a bundle on its card.

    Returns:
        The digest.

    Raises:
        CheckpointError: If a file of the bundle cannot be read, or its card cannot be written.
    """
    found = digest(folder)
    card = read_card(folder)
    text = replace(card, more={**card.more, _NOTE: found}).render()
    partial = folder / f".{CARD}.{uuid.uuid4().hex[:8]}.partial"
    try:
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(folder / CARD)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{folder / CARD}: the digest cannot be noted ({error.strerror})."
        ) from error
    return found


def verify_models(name: str | None = None) -> tuple[Verification, ...]:
    """Compare models with what was written when they were imported.

    Args:
        name: One model, as in ``resolve_model``; None for all inside the package and all of
            the user's.

    Raises:
        CheckpointError: If there is no such model.
    """
    if name is not None:
        return (verify_bundle(resolve_model(name), name),)
    at_hand = embedded_models() | user_models()
    return tuple(verify_bundle(folder, known) for known, folder in at_hand.items())


def verify_bundle(folder: Path, name: str) -> Verification:
    """Compare a bundle with what was written when it was imported.

    Args:
        folder: Where it lies.
        name: What to call it.
    """
    try:
        read_config(folder)
        noted = str(read_card(folder).more.get(_NOTE, ""))
        found = digest(folder)
    except CheckpointError as error:
        return Verification(name, folder, "damaged", problem=str(error))
    if not noted:
        return Verification(name, folder, "unnoted", found=found)
    return Verification(name, folder, "intact" if noted == found else "changed", noted, found)


def remove_model(name: str) -> Path:
    """Remove one of the user's models from the disk.

    A model whose folder is a link loses the link and nothing else.

    Returns:
        The folder that was removed.

    Raises:
        CheckpointError: If there is no such model among the user's, its folder holds other
            files too, or it cannot be removed.
    """
    folder = removable_model(name)
    try:
        if folder.is_symlink():
            folder.unlink()
            return folder
        # Under a name that is not listed first, so that no half of a model is ever seen.
        hidden = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.former")
        folder.rename(hidden)
        shutil.rmtree(hidden)
    except OSError as error:
        problem = error.strerror or str(error)
        raise CheckpointError(f"{folder}: the model cannot be removed ({problem}).") from error
    return folder


def removable_model(name: str) -> Path:
    """The folder that ``remove_model`` would remove.

    Raises:
        CheckpointError: As ``remove_model``.
    """
    if name in embedded_models():
        raise CheckpointError(f"{name}: comes with unbraid, so it is not yours to remove.")
    if name.startswith(PREFIX):
        raise CheckpointError(
            f"{name}: lies in the cache of the hub, which other programs share; "
            "remove it there (`hf cache --help`)."
        )
    users = user_models()
    if name not in users:
        choices = nearest(name, list(users)) if users else "you have none."
        raise CheckpointError(
            f"{name}: you have no such model ({choices.rstrip('.')}); a folder elsewhere is "
            "deleted by hand."
        )
    folder = users[name]
    if others := sorted(_other_files(folder)):
        raise CheckpointError(
            f"{folder}: holds other files than a model does ({in_brief(others)}); "
            "move them away first, or delete the folder by hand."
        )
    return folder


def _other_files(folder: Path) -> Iterator[str]:
    if folder.is_symlink():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in POSSIBLE_FILES:
                yield entry.name
