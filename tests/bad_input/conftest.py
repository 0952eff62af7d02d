"""A model that separates nothing well, quickly."""

from pathlib import Path

import pytest

from unbraid.checkpoints import Card, save_bundle
from unbraid.models.waveform import WaveformModel


@pytest.fixture
def bundle(tiny_model: WaveformModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model on disk."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return save_bundle(tiny_model, folder, Card(name="tiny", licence="Apache-2.0"))
