"""The user's folders: what is kept for them lies here and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def user_home() -> Path:
    """The folder for what the user adds: ``$UNBRAID_HOME``, or the platform's data folder."""
    return _own_home() or platformdirs.user_data_path("unbraid")


def user_models_dir() -> Path:
    """Where the user's models are kept, one folder each. It may not exist yet."""
    return user_home() / "models"


def user_prompts_dir() -> Path:
    """Where installed prompts are kept, a folder for each model. It may not exist yet."""
    return user_home() / "prompts"


def user_cache_dir() -> Path:
    """Where decoded recordings are kept; can be deleted at any time. It may not exist yet."""
    home = _own_home()
    return home / "cache" if home else platformdirs.user_cache_path("unbraid")


def _own_home() -> Path | None:
    home = os.environ.get("UNBRAID_HOME")
    return Path(home).expanduser() if home else None
