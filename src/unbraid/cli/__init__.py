"""The command line: ``unbraid separate``, ``models``, ``prompts``, ``train`` and more."""

from unbraid.cli.app import app, main

__all__ = ["app", "main"]
