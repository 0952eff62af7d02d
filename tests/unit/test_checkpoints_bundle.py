"""Bundles: what is saved comes back, and what is damaged does not."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unbraid.checkpoints import Card, load_bundle, save_bundle
from unbraid.checkpoints.bundle import CARD, CONFIG, FILES, MODEL, PROMPTS, count_parameters
from unbraid.checkpoints.card import parse_card
from unbraid.config import dump
from unbraid.dsp.stft import StftConfig
from unbraid.errors import CheckpointError
from unbraid.models.architectures.tuss import TussConfig
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.nn.band_split import BandSplitConfig
from unbraid.nn.locoformer import FeedForwardConfig, LocoformerConfig

CARD_OF_TEST = Card(
    name="test",
    licence="CC0-1.0",
    source="random numbers",
    description="knows nothing: but loads",
    text="# Test\n\nOf no use.",
    more={"tags": ["audio"], "license": "cc0-1.0"},
)


@pytest.fixture
def model() -> WaveformModel:
    stack = LocoformerConfig(
        1, 8, 2, 2, 8, (FeedForwardConfig(6, 4),) * 2, (FeedForwardConfig(6, 1),)
    )
    network = TussConfig(BandSplitConfig("mel", num_bands=6), stack, stack)
    torch.manual_seed(0)
    return build_model(
        ModelConfig(
            "tuss",
            8000,
            StftConfig(256, 64),
            dump(network),
            prompts=("speech", "music-mix", "sfx"),
            segment_s=1.5,
            overlap_s=0.25,
        )
    )


@pytest.fixture
def bundle(model: WaveformModel, tmp_path: Path) -> Path:
    return save_bundle(model, tmp_path / "bundle", CARD_OF_TEST)


def run(model: WaveformModel) -> torch.Tensor:
    noise = torch.randn(1, 1000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(noise, model.prompts.indices(["sfx", "speech"])[None])


def test_what_is_saved_comes_back(model: WaveformModel, bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert torch.equal(run(loaded.model), run(model))
    assert loaded.config == model.config
    assert loaded.card == CARD_OF_TEST
    assert loaded.folder == bundle
    assert not loaded.model.training
    assert sorted(path.name for path in bundle.iterdir()) == sorted(FILES)


def test_who_may_read_one_file_may_read_all(bundle: Path) -> None:
    assert len({(bundle / name).stat().st_mode for name in FILES}) == 1


def test_prompts_are_stored_by_name(model: WaveformModel, bundle: Path) -> None:
    prompts = load_file(bundle / PROMPTS)
    assert set(prompts) == {"speech", "music-mix", "sfx"}
    assert torch.equal(prompts["music-mix"], model.prompts.weight[1])


def test_digest_is_that_of_the_three_files(bundle: Path) -> None:
    content = b"".join((bundle / name).read_bytes() for name in (MODEL, PROMPTS, CONFIG))
    assert load_bundle(bundle).digest == hashlib.sha256(content).hexdigest()


def test_digest_follows_the_weights_and_not_the_card(
    model: WaveformModel, bundle: Path, tmp_path: Path
) -> None:
    first = load_bundle(bundle).digest
    other_card = Card(name="other", licence="MIT")
    assert load_bundle(save_bundle(model, tmp_path / "again", other_card)).digest == first
    with torch.no_grad():
        model.prompts.weight[0, 0] += 1
    assert load_bundle(save_bundle(model, tmp_path / "taught", CARD_OF_TEST)).digest != first


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-4), (torch.bfloat16, 4e-3)])
def test_half_precision_on_disk_is_float32_in_memory(
    model: WaveformModel, tmp_path: Path, dtype: torch.dtype, tolerance: float
) -> None:
    # A network that is frozen while prompts are taught is stored like any other.
    model.network.requires_grad_(False)
    folder = save_bundle(model, tmp_path / "half", CARD_OF_TEST, dtype=dtype)
    full = save_bundle(model, tmp_path / "full", CARD_OF_TEST)
    assert (folder / MODEL).stat().st_size < 0.65 * (full / MODEL).stat().st_size
    loaded = load_bundle(folder).model
    for name, tensor in loaded.network.state_dict().items():
        original = model.network.state_dict()[name]
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, original, rtol=tolerance, atol=1e-6)
        if "rotary" in name:
            # A rounding error here would grow with the position.
            assert torch.equal(tensor, original)


def test_only_known_dtypes(model: WaveformModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="int8"):
        save_bundle(model, tmp_path / "x", CARD_OF_TEST, dtype=torch.int8)


def test_weights_that_do_not_fit_half_precision_are_refused(
    model: WaveformModel, tmp_path: Path
) -> None:
    with torch.no_grad():
        model.prompts.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"speech.*float32"):
        save_bundle(model, tmp_path / "half", CARD_OF_TEST, dtype=torch.float16)
    assert not list(tmp_path.iterdir())


def test_count_parameters(model: WaveformModel, bundle: Path) -> None:
    assert count_parameters(bundle) == model.num_parameters


def test_a_bundle_is_replaced_only_when_asked(model: WaveformModel, bundle: Path) -> None:
    with torch.no_grad():
        model.prompts.weight.zero_()
    with pytest.raises(CheckpointError, match="there is a model already"):
        save_bundle(model, bundle, CARD_OF_TEST)
    assert load_bundle(bundle).model.prompts.weight.any()
    save_bundle(model, bundle, CARD_OF_TEST, overwrite=True)
    assert not load_bundle(bundle).model.prompts.weight.any()
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_bundle_is_never_replaced(
    model: WaveformModel, tmp_path: Path, overwrite: bool
) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.txt").write_text("years of work")
    for target in (precious, precious / "chapter.txt"):
        with pytest.raises(CheckpointError, match="no model"):
            save_bundle(model, target, CARD_OF_TEST, overwrite=overwrite)
    assert (precious / "chapter.txt").read_text() == "years of work"


@pytest.mark.parametrize("there_before", [False, True])
def test_nothing_half_written_stays(
    model: WaveformModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there_before: bool,
) -> None:
    target = tmp_path / "bundle"
    if there_before:
        save_bundle(model, target, CARD_OF_TEST)
    before = sorted(tmp_path.rglob("*"))

    def disk_full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", disk_full)
    with pytest.raises(CheckpointError, match=r"cannot be written.*No space left"):
        save_bundle(model, target, CARD_OF_TEST, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_when_the_last_rename_fails_the_former_bundle_is_back(
    model: WaveformModel, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def refuse_partial(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(13, "Permission denied")
        return rename(self, target)

    digest = load_bundle(bundle).digest
    monkeypatch.setattr(Path, "rename", refuse_partial)
    with pytest.raises(CheckpointError, match="Permission denied"):
        save_bundle(model, bundle, CARD_OF_TEST, overwrite=True)
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]
    assert load_bundle(bundle).digest == digest


# Damage: each case edits a good bundle and says what the error must name.


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def with_content(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return damage


def cut(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def with_tensors(
    name: str, edit: Callable[[dict[str, torch.Tensor]], object]
) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / name)
        edit(tensors)
        save_file(tensors, folder / name)

    return damage


def with_setting(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        settings = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(settings | changes))

    return damage


def huge(folder: Path) -> None:
    settings = json.loads((folder / CONFIG).read_text())
    for stack in ("cross_prompt", "extraction"):
        settings["network"][stack]["dim"] = 2**40
    (folder / CONFIG).write_text(json.dumps(settings))


START = "start_of_sequence"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (without(CONFIG), "config.json is missing"),
    "no weights": (without(MODEL), "model.safetensors is missing"),
    "no prompts": (without(PROMPTS), "prompts.safetensors is missing"),
    "no card": (without(CARD), "README.md is missing"),
    "config is no JSON": (with_content(CONFIG, b"{"), "not valid json"),
    "config is a list": (with_content(CONFIG, b"[]"), "top level"),
    "config is not text": (with_content(CONFIG, b"\xff\xfe"), "cannot be read"),
    "newer format": (with_setting(format=2), "newer unbraid"),
    "foreign config": (with_content(CONFIG, b'{"model_type": "bert"}'), "format None"),
    "misspelt key": (with_setting(sample_rat=1), "did you mean sample_rate"),
    "unknown architecture": (with_setting(architecture="tus"), "did you mean tuss"),
    "wrong type": (with_setting(sample_rate="fast"), "sample_rate"),
    "too big for any machine": (huge, "wrong shape|no model can be built"),
    "weights cut off": (cut(MODEL), "not a whole safetensors file"),
    "prompts cut off": (cut(PROMPTS), "not a whole safetensors file"),
    "weights are text": (with_content(MODEL, b"not at all"), "not a whole safetensors file"),
    "empty weights": (with_content(MODEL, b""), "not a whole safetensors file"),
    "a tensor less": (with_tensors(MODEL, lambda t: t.pop(START)), f"missing {START}"),
    "a tensor more": (
        with_tensors(MODEL, lambda t: t.update(stowaway=torch.zeros(1))),
        "not part of the model stowaway",
    ),
    "another shape": (
        with_tensors(MODEL, lambda t: t.update({START: torch.zeros(9)})),
        rf"{START} is \[9\] instead of \[8\]",
    ),
    "no numbers": (
        with_tensors(MODEL, lambda t: t[START].fill_(float("nan"))),
        f"{START} hold values that are no numbers",
    ),
    "integers": (
        with_tensors(MODEL, lambda t: t.update({START: torch.zeros(8, dtype=torch.int64)})),
        START,
    ),
    "a prompt less": (with_tensors(PROMPTS, lambda t: t.pop("sfx")), "missing sfx"),
    "another prompt": (
        with_tensors(PROMPTS, lambda t: t.update(cats=torch.zeros(8))),
        "not part of the model cats",
    ),
    "prompt of another model": (
        with_tensors(PROMPTS, lambda t: t.update(sfx=torch.zeros(4))),
        r"sfx is \[4\] instead of \[8\]",
    ),
    "card without front matter": (with_content(CARD, b"# Hello\n"), "must begin with YAML"),
    "card without end of front matter": (with_content(CARD, b"---\nname: x\n"), "must begin"),
    "card without licence": (with_content(CARD, b"---\nname: x\n---\n"), "licence"),
    "card with a list": (with_content(CARD, b"---\n- x\n---\n"), "keys with values"),
    "card with broken YAML": (with_content(CARD, b"---\nname: [\n---\n"), "no YAML"),
    "card with a number": (with_content(CARD, b"---\nname: 3\nlicence: x\n---\n"), "text, not 3"),
    "card is empty": (with_content(CARD, b""), "must begin with YAML"),
    "card is not text": (with_content(CARD, b"\xff\xfe"), "cannot be read"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_named_in_one_line(bundle: Path, case: str) -> None:
    damage, message = DAMAGES[case]
    damage(bundle)
    with pytest.raises(CheckpointError, match=message) as raised:
        load_bundle(bundle)
    assert str(bundle) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load_bundle(tmp_path / "nothing")


def test_the_text_of_a_card_survives() -> None:
    card = Card("näme", "MIT", text="One.\n\n---\n\nTwo: a rule above, not front matter.")
    assert parse_card(card.render(), "test") == card
