"""The model that ships for asking by example, on real recordings that it has never heard."""

from pathlib import Path

import pytest
import soundfile
import torch

from command_line import unbraid
from unbraid.audio import read
from unbraid.checkpoints import load_bundle, resolve_model
from unbraid.dsp.resample import resample
from unbraid.objectives.measures import si_sdr_db

RATE = 32_000


def test_what_it_is() -> None:
    bundle = load_bundle(resolve_model("query-mini"))
    assert bundle.model.num_parameters == 1_395_067
    assert bundle.model.tagger is not None
    assert sum(each.numel() for each in bundle.model.tagger.parameters()) == 627_844
    assert sum(file.stat().st_size for file in bundle.folder.iterdir()) < 4.2e6


def clips(shared: Path, kind: str) -> list[Path]:
    """Clips of ESC-10, whose classes were kept out of its training."""
    return sorted((shared / "data/sfx/eval" / kind).glob("ESC-10__*"))


def sound(path: Path) -> torch.Tensor:
    waveform = read(path)
    mono = resample(waveform.samples[:1], waveform.sample_rate, RATE)[0, : 4 * RATE]
    return 0.1 * mono / mono.square().mean().sqrt()


@pytest.mark.parametrize(("wanted", "other"), [("dog_bark", "rain"), ("rain", "dog_bark")])
def test_another_clip_of_a_sound_brings_it_out(
    shared: Path, tmp_path: Path, wanted: str, other: str
) -> None:
    reference = sound(clips(shared, wanted)[0])
    mixture = reference + sound(clips(shared, other)[0])
    soundfile.write(tmp_path / "mix.wav", mixture.numpy(), RATE, subtype="FLOAT")
    example = clips(shared, wanted)[1]
    out = tmp_path / "out"
    outcome = unbraid(
        "separate", tmp_path / "mix.wav", "-m", "query-mini", "--query", example, "-o", out
    )
    assert outcome.code == 0, outcome.stderr
    (stem,) = out.rglob("ESC-10*.wav")
    estimate = read(stem).samples[0]
    assert si_sdr_db(estimate, reference) - si_sdr_db(mixture, reference) > 2.0
