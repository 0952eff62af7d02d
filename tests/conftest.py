"""Fixtures that many tests share, and the shape checks that run while tests run."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook

# Every shape annotation in the package is checked at run time while tests run.
install_import_hook("unbraid", "shape_checks.check")

if TYPE_CHECKING:
    from unbraid.models.waveform import ModelConfig, WaveformModel

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recordings and reference outputs that users do not have."""
    folder = Path(os.environ.get("UNBRAID_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "manifest.csv").is_file():
        pytest.skip("needs the folder of recordings and reference outputs (UNBRAID_SHARED)")
    return folder


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has user folders of its own, so that none sees a developer's models."""
    home = tmp_path_factory.mktemp("unbraid-home")
    monkeypatch.setenv("UNBRAID_HOME", str(home))
    return home


def tiny_config() -> ModelConfig:
    """A TUSS small enough that a test takes milliseconds."""
    from unbraid.dsp.stft import StftConfig
    from unbraid.models.waveform import ModelConfig

    stack = {
        "num_blocks": 1,
        "dim": 8,
        "num_groups": 2,
        "num_heads": 2,
        "attention_dim": 8,
        "freq_feed_forward": [{"hidden_dim": 8, "kernel_size": 3}],
        "frame_feed_forward": [{"hidden_dim": 8, "kernel_size": 1}],
    }
    network = {
        "codec": {"bands": "mel", "num_bands": 8, "decoder_expansion": 1, "initial_mask": "gate"},
        "cross_prompt": stack,
        "extraction": stack,
    }
    return ModelConfig(
        "tuss", 48000, StftConfig(2048, 1024), network, segment_s=1.0, overlap_s=0.25
    )


@pytest.fixture(scope="session")
def built_tiny_model() -> WaveformModel:
    """The one model that ``tiny_model`` copies."""
    import torch

    from unbraid.models.waveform import build_model

    torch.manual_seed(0)
    return build_model(tiny_config()).eval()


@pytest.fixture
def tiny_model(built_tiny_model: WaveformModel) -> WaveformModel:
    """An untrained model with all eight prompts, at 48 kHz; yours to change."""
    return copy.deepcopy(built_tiny_model)
