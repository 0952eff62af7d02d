"""The command line: ``unbraid separate``, ``models``, ``export``, ``train``, ``demo``."""

from unbraid.cli.app import app, main

__all__ = ["app", "main"]
