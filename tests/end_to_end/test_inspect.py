"""``unbraid models inspect``: a picture of where queries look."""

from pathlib import Path

import pytest
import torch

from command_line import unbraid, write_audio
from unbraid.apps.inspect_attention import inspect_attention
from unbraid.checkpoints import load_bundle, save_bundle
from unbraid.checkpoints.card import Card
from unbraid.config import dump
from unbraid.dsp.stft import StftConfig
from unbraid.models.registry import find_architecture
from unbraid.models.waveform import ModelConfig, build_model


@pytest.fixture
def compressing(tmp_path: Path) -> Path:
    """A bundle whose codec is spectral feature compression."""
    torch.manual_seed(0)
    network = dump(find_architecture("tuss").examples["attention"])
    model = build_model(ModelConfig("tuss", 16_000, StftConfig(256, 128), network))
    return save_bundle(model, tmp_path / "looking", Card("looking", "CC0-1.0", "a test"))


def test_the_picture_shows_every_head(compressing: Path, tmp_path: Path) -> None:
    picture = tmp_path / "looks.png"
    outcome = unbraid("models", "inspect", compressing, "--attention", picture)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.startswith("2 heads, 8 bands, 129 bins")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_is_drawn_are_shares_that_begin_inside_the_bands(
    compressing: Path, tmp_path: Path
) -> None:
    recording = write_audio(tmp_path / "song.wav", 8_000, rate=44_100)
    bundle = load_bundle(compressing)
    weights = inspect_attention(bundle, tmp_path / "a.png", recording, ["drums", "speech"])
    for shares in weights:
        torch.testing.assert_close(shares.sum(-1), torch.ones(shares.shape[:2]))
    # Untrained, the bias leads: the lowest band looks at the lowest bins, the highest at the top.
    centres = (weights.encoder[0] * torch.arange(129.0)).sum(-1)
    assert bool((centres.diff() > 0).all())


def test_a_model_without_queries_says_so(tmp_path: Path) -> None:
    outcome = unbraid("models", "inspect", "mini", "--attention", tmp_path / "a.png")
    assert outcome.code == 2
    assert "mini: has no queries to look at" in outcome.error
    assert not (tmp_path / "a.png").exists()
