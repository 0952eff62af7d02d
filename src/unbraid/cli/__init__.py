"""The command line: ``unbraid separate``, ``models``, ``train``, ``demo``."""

from unbraid.cli.app import app, main

__all__ = ["app", "main"]
