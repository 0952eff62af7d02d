"""From a model without prompts to a TUSS that begins with its weights."""

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from command_line import unbraid, write_audio
from tiny_unconditional import RATE, tiny_unconditional
from unbraid.apps.convert_model import loudest_output
from unbraid.checkpoints import Card, load_bundle, save_bundle
from unbraid.checkpoints.conversion import tuss_from_unconditional
from unbraid.errors import CheckpointError, ConfigError, PromptError
from unbraid.models.architectures.unconditional import Unconditional
from unbraid.models.waveform import WaveformModel
from unbraid.prompts import STANDARD_PROMPTS

CODECS: dict[str, dict[str, Any]] = {
    "band-split": {"bands": "mel", "num_bands": 8},
    "compression": {"inner_dim": 8, "bands": "musical", "num_bands": 8, "num_heads": 2},
    "adaptive": {
        "inner_dim": 8, "bands": "musical", "num_bands": 8, "num_heads": 2, "queries": "adaptive",
    },
}  # fmt: skip


def source_model(codec: str, num_outputs: int = 3) -> WaveformModel:
    model = tiny_unconditional(num_outputs, codec=CODECS[codec]).eval()
    # Biases that start as zero would hide that they were not taken.
    with torch.no_grad():
        for each in model.network.parameters():
            if each.requires_grad:
                each.add_(0.01 * torch.randn_like(each))
    return model


@pytest.mark.parametrize("codec", CODECS)
@torch.no_grad()
def test_the_parts_compute_what_they_computed(codec: str) -> None:
    source = source_model(codec)
    body = source.network
    assert isinstance(body, Unconditional)
    spectrogram = torch.randn(2, 2, 7, 129)
    features, context = body.codec.encode(spectrogram)
    hidden = torch.randn_like(features)
    for output in range(3):
        network: Any = tuss_from_unconditional(source, "x", output=output).model.network
        ours, our_context = network.codec.encode(spectrogram)
        torch.testing.assert_close(ours, features, rtol=0.0, atol=0.0)
        torch.testing.assert_close(network.cross_prompt(hidden), body.first(hidden))
        torch.testing.assert_close(network.extraction(hidden), body.second(hidden))
        masks = body.codec.decode(hidden, context)
        torch.testing.assert_close(
            network.codec.decode(hidden, our_context)[:, 0], masks[:, output]
        )


@pytest.mark.parametrize("codec", CODECS)
def test_every_tensor_is_taken_or_fresh(codec: str) -> None:
    source = source_model(codec)
    found = tuss_from_unconditional(source, "x")
    state = found.model.network.state_dict()
    assert {*found.taken, *found.fresh} == set(state)
    assert not {*found.taken} & {*found.fresh}
    num_last = len(found.fresh) - 1
    assert num_last == (16 if codec == "band-split" else 2)
    assert len(found.taken) == len(source.network.state_dict()) - num_last
    kept = tuss_from_unconditional(source, "x", output=1)
    assert kept.fresh == ("start_of_sequence",)
    assert found.model.prompts.names == STANDARD_PROMPTS
    # Nothing is shared with the source.
    with torch.no_grad():
        for each in kept.model.parameters():
            each.fill_(7.0)
    assert not any(bool((each == 7.0).all()) for each in source.parameters() if each.numel())
    separated = found.model(torch.randn(1, 900), torch.tensor([[0, 3]]))
    assert separated.shape == (1, 2, 900)
    assert bool(torch.isfinite(separated).all())


def test_what_is_fresh_depends_on_the_seed_alone() -> None:
    source = source_model("band-split")
    torch.manual_seed(1)
    one = tuss_from_unconditional(source, "x").model.state_dict()
    before = torch.get_rng_state()
    two = tuss_from_unconditional(source, "x").model.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = tuss_from_unconditional(source, "x", seed=1).model.state_dict()
    assert not torch.equal(one["prompts.weight"], other["prompts.weight"])


def test_one_output_is_taken_over_as_it_is() -> None:
    source = source_model("band-split", num_outputs=1)
    assert tuss_from_unconditional(source, "x").fresh == ("start_of_sequence",)


def test_what_cannot_be_converted_is_refused(tiny_model: WaveformModel) -> None:
    with pytest.raises(CheckpointError, match="mine: only models of the architecture"):
        tuss_from_unconditional(tiny_model, "mine")
    source = source_model("band-split")
    with pytest.raises(ConfigError, match="outputs 0 to 2, so there is no 3"):
        tuss_from_unconditional(source, "mine", output=3)
    with pytest.raises(PromptError, match="unique"):
        tuss_from_unconditional(source, "mine", ["speech", "speech"])
    source.network.extra = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"not part of the model extra\.bias"):
        tuss_from_unconditional(source, "mine")


@pytest.fixture
def pretrained(own_home: Path) -> Path:
    model = source_model("band-split")
    # Output 2 is three times as loud as the others.
    with torch.no_grad():
        for decoder in model.network.codec.decoders:
            values = decoder.last.weight.unflatten(0, (4, 3, -1))
            biases = decoder.last.bias.unflatten(0, (4, 3, -1))
            values[:2, 2] *= 3.0
            biases[:2, 2] *= 3.0
    return save_bundle(model, own_home / "models/unlabelled", Card("unlabelled", "CC-BY-4.0"))


def test_the_command_makes_a_model_of_ones_own(pretrained: Path, own_home: Path) -> None:
    outcome = unbraid("models", "convert", "unlabelled", "--to", "tuss", "--out", "start")
    assert outcome.code == 0
    assert "parameters, licence: CC-BY-4.0\n" in outcome.stdout
    assert "-m start finds it anywhere" in outcome.stdout
    assert "fresh: 17 tensors and 8 prompts" in outcome.stdout
    bundle = load_bundle(own_home / "models/start")
    assert bundle.config.architecture == "tuss"
    assert bundle.config.prompts == STANDARD_PROMPTS
    assert "unlabelled, converted to TUSS" in bundle.card.source
    assert load_bundle(pretrained).digest in bundle.card.text
    assert unbraid("models", "verify", "start").stdout.startswith("start: intact")
    again = unbraid("models", "convert", "unlabelled", "--to", "tuss", "--out", "start")
    assert again.code == 5


def test_the_command_can_take_the_last_layer_of_the_loudest_output(
    pretrained: Path, tmp_path: Path
) -> None:
    recording = tmp_path / "noise.wav"
    write_audio(recording, 3 * 44100, rate=44100)
    model = load_bundle(pretrained).model
    assert loudest_output(model, recording) == 2
    out = tmp_path / "somewhere/start"
    outcome = unbraid(
        "models", "convert", str(pretrained), "--to", "tuss", "--out", str(out),
        "--prompts", "speech,music", "--loudest-on", str(recording),
    )  # fmt: skip
    assert outcome.code == 0
    assert "fresh: 1 tensors and 2 prompts" in outcome.stdout
    bundle = load_bundle(out)
    assert bundle.config.prompts == ("speech", "music-mix")
    assert "that of output 2" in bundle.card.text
    expected = tuss_from_unconditional(model, "x", ["speech", "music"], output=2).model
    assert all(
        torch.equal(tensor, expected.state_dict()[name])
        for name, tensor in bundle.model.state_dict().items()
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["mini", "--to", "tuss", "--out", "x"], 5, "this one is 'tuss'"),
        (["unlabelled", "--to", "tus", "--out", "x"], 2, "can be made to that; did you mean tuss?"),
        (["unlabelled", "--to", "tuss", "--out", "mini"], 5, "comes with unbraid"),
        (["unlabelled", "--to", "tuss", "--out", "a b"], 5, "cannot be the name"),
        (["nobody", "--to", "tuss", "--out", "x"], 5, "no such model"),
        (["unlabelled", "--to", "tuss", "--out", "x", "--loudest-on", "no.wav"], 4, "no.wav"),
    ],
)
def test_the_command_says_what_is_wrong(
    pretrained: Path, arguments: list[str], code: int, message: str
) -> None:
    outcome = unbraid("models", "convert", *arguments)
    assert outcome.code == code
    assert message in outcome.stderr


def test_no_more_than_the_beginning_is_decoded(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbraid.apps.convert_model._LISTEN_S", 1.0)
    samples = 0.1 * torch.randn(4 * RATE, generator=torch.Generator().manual_seed(0))
    samples[-RATE // 2 :] = torch.nan
    recording = tmp_path / "long.wav"
    soundfile.write(recording, samples.numpy(), RATE, subtype="FLOAT")
    assert loudest_output(load_bundle(pretrained).model, recording) == 2


def test_a_silent_recording_tells_nothing(pretrained: Path, tmp_path: Path) -> None:
    recording = tmp_path / "silence.wav"
    soundfile.write(recording, torch.zeros(RATE).numpy(), RATE)
    outcome = unbraid(
        "models", "convert", "unlabelled", "--to", "tuss", "-o", "x", "--loudest-on", str(recording)
    )
    assert outcome.code == 4
    assert "no output gives any sound" in outcome.stderr
