"""The card of a model: who made it, from what, and what one may do with it.

A card is a Markdown file with YAML front matter, as model hubs use it::

    ---
    name: mini
    licence: Apache-2.0
    source: where the weights come from
    description: one line for lists
    ---
    Prose for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from unbraid.errors import CheckpointError

_FENCE = "---"
_KNOWN = ("name", "licence", "source", "description")


@dataclass(frozen=True)
class Card:
    """What a model says about itself.

    Attributes:
        name: Short name.
        licence: Licence of the weights, an SPDX identifier where there is one.
        source: Where the weights come from.
        description: One line for lists.
        text: Markdown for people, everything below the front matter.
        more: Front matter that unbraid does not use itself, such as a hub's tags; it is kept.
    """

    name: str
    licence: str
    source: str = ""
    description: str = ""
    text: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    def render(self) -> str:
        """The card as the text of a Markdown file; ``parse_card`` reads it back."""
        front = {key: getattr(self, key) for key in _KNOWN} | dict(self.more)
        header = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
        return f"{_FENCE}\n{header}{_FENCE}\n\n{self.text.strip()}\n"


def parse_card(text: str, where: str) -> Card:
    """Read a card.

    Args:
        text: The Markdown file.
        where: What to call it in error messages.

    Raises:
        CheckpointError: If the front matter is missing, is not YAML, or has no name or licence.
    """
    opening, *lines = text.splitlines() or [""]
    if opening.strip() != _FENCE or _FENCE not in (stripped := [line.rstrip() for line in lines]):
        raise CheckpointError(
            f"{where}: the card must begin with YAML between two lines of '{_FENCE}' "
            "that gives name and licence."
        )
    end = stripped.index(_FENCE)
    try:
        front = yaml.safe_load("\n".join(lines[:end]))
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise CheckpointError(
            f"{where}: the card's front matter is no YAML ({problem})."
        ) from error
    if not isinstance(front, dict):
        raise CheckpointError(f"{where}: the card's front matter must be keys with values.")
    known = {key: front.pop(key, None) or "" for key in _KNOWN}
    for key, value in known.items():
        if not isinstance(value, str):
            raise CheckpointError(f"{where}: {key} in the card must be text, not {value!r}.")
        if not value and key in ("name", "licence"):
            raise CheckpointError(f"{where}: the card must give the {key} of the model.")
    return Card(**known, text="\n".join(lines[end + 1 :]).strip(), more=front)
