"""The flag ``--stem``."""

from __future__ import annotations

from collections.abc import Sequence

from unbraid.cli.separate import split_names


def parse_stems(stems: Sequence[str]) -> dict[str, str]:
    """Stem name → prompt, from texts like ``dialog=speech``.

    Raises:
        ConfigError: If one is written otherwise.
    """
    from unbraid.errors import ConfigError

    translation = {}
    for each in split_names(stems):
        name, separator, prompt = each.partition("=")
        if not (name and separator and prompt):
            raise ConfigError(f"--stem {each}: write it as NAME=PROMPT, for example dialog=speech.")
        translation[name.strip()] = prompt.strip()
    return translation
