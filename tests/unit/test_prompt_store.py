"""Installed prompts, and what names and paths mean to a model."""

import shutil
from pathlib import Path

import pytest
import torch

import unbraid
from command_line import files_below
from handmade_prompts import copy_of_learned, write_copy
from unbraid.checkpoints import Card, find_prompts, model_fingerprint, save_bundle
from unbraid.checkpoints.prompt_files import ENDING
from unbraid.checkpoints.prompt_store import (
    find_installed,
    install_prompt,
    installed_prompts,
    open_installed,
    remove_prompt,
)
from unbraid.config import dump
from unbraid.dsp.stft import StftConfig
from unbraid.errors import CheckpointError, PromptError
from unbraid.models.registry import find_architecture
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model


@pytest.fixture
def bundle(tiny_model: WaveformModel, tmp_path: Path) -> Path:
    return save_bundle(tiny_model, tmp_path / "tiny", Card("tiny", "CC0-1.0"))


@pytest.fixture
def other(tiny_model: WaveformModel, tmp_path: Path) -> Path:
    """The same network with other weights."""
    with torch.no_grad():
        next(tiny_model.network.parameters()).add_(1.0)
    return save_bundle(tiny_model, tmp_path / "other", Card("other", "CC0-1.0"))


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    """A model that always gives the same two outputs."""
    network = dump(find_architecture("unconditional").examples["band-split"])
    config = ModelConfig(
        "unconditional", 16000, StftConfig(256, 128), network, outputs=("speech", "sfx")
    )
    return save_bundle(build_model(config), tmp_path / "fixed", Card("fixed", "CC0-1.0"))


@pytest.fixture
def bell(bundle: Path, tmp_path: Path) -> Path:
    return write_copy(tmp_path / "files", bundle, "speech", "door-bell")


# ------------------------------------------------------------------ the store


def test_installed_prompts_lie_under_the_models_fingerprint(
    bundle: Path, bell: Path, own_home: Path
) -> None:
    stored = install_prompt(bell, bundle)
    fingerprint = model_fingerprint(bundle)
    folder = own_home / "prompts" / fingerprint[:16]
    assert stored.path == folder / f"door-bell{ENDING}"
    assert stored.path.read_bytes() == bell.read_bytes()
    assert files_below(folder) == [f"door-bell{ENDING}"]
    assert installed_prompts(fingerprint) == {"door-bell": stored.path}
    assert find_installed("door-bell", bundle) == stored.path


def test_models_that_differ_in_other_things_share_prompts(bundle: Path, bell: Path) -> None:
    install_prompt(bell, bundle)
    twin = bundle.with_name("twin")
    shutil.copytree(bundle, twin)
    config = twin / "config.json"
    config.write_text(config.read_text().replace('"segment_s": 1.0', '"segment_s": 2.0'))
    assert list(installed_prompts(model_fingerprint(twin))) == ["door-bell"]


def test_an_installed_prompt_is_replaced_only_if_asked(bundle: Path, tmp_path: Path) -> None:
    one = write_copy(tmp_path / "one", bundle, "speech", "door-bell")
    two = write_copy(tmp_path / "two", bundle, "drums", "door-bell")
    install_prompt(one, bundle)
    with pytest.raises(CheckpointError, match="installed already"):
        install_prompt(two, bundle)
    assert find_installed("door-bell", bundle).read_bytes() == one.read_bytes()
    install_prompt(two, bundle, overwrite=True)
    assert find_installed("door-bell", bundle).read_bytes() == two.read_bytes()


def test_names_that_differ_in_case_only_are_one_on_some_disks(bundle: Path, bell: Path) -> None:
    install_prompt(bell, bundle)
    with pytest.raises(CheckpointError, match="'door-bell' is installed already"):
        install_prompt(bell, bundle, name="Door-Bell", overwrite=True)


def test_a_prompt_can_be_installed_under_another_name(bundle: Path, bell: Path) -> None:
    stored = install_prompt(bell, bundle, name="ding")
    assert (stored.name, stored.path.name) == ("ding", f"ding{ENDING}")
    assert find_prompts(bundle, ["ding"]).names == ("ding",)
    with pytest.raises(PromptError, match="cannot be the name"):
        install_prompt(bell, bundle, name="a/b")


def test_what_can_never_be_used_is_not_installed(
    bundle: Path, other: Path, fixed: Path, bell: Path, tmp_path: Path
) -> None:
    speech = write_copy(tmp_path / "files", bundle, "drums", "speech")
    narrow = write_copy(tmp_path / "narrow", bundle, "drums", "narrow", num_vectors=3)
    foreign = write_copy(tmp_path / "foreign", bundle, "drums", "bell")
    text = copy_of_learned(bundle, "drums", "bell")
    for path, model, words in [
        (bell, other, r"made for another model \('tiny', fingerprint [0-9a-f]{12}\) than 'other'"),
        (bell, fixed, "made for another model"),
        (speech, bundle, "'speech': means something already"),
        (narrow, bundle, r"shape \[3, 8\], but this model takes \[1, 8\] or \[8, 8\]"),
    ]:
        with pytest.raises(PromptError, match=words) as caught:
            install_prompt(path, model)
        assert str(path) in str(caught.value)
    in_its_space = unbraid.checkpoints.PromptFile("bell", text.vectors, model_fingerprint(fixed))
    unbraid.checkpoints.save_prompt(in_its_space, foreign, overwrite=True)
    with pytest.raises(PromptError, match=r"same outputs \(speech, sfx\)"):
        install_prompt(foreign, fixed)
    bell.write_bytes(bell.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="not a whole prompt file"):
        install_prompt(bell, bundle)
    assert installed_prompts(model_fingerprint(bundle)) == {}


def test_removing(bundle: Path, bell: Path) -> None:
    path = install_prompt(bell, bundle).path
    path.write_bytes(b"damaged")
    assert remove_prompt("door-bell", bundle) == path
    assert not path.exists()
    for name, words in [
        ("speech", "learned by the model"),
        ("door-bell", "no such prompt is installed for 'tiny'; there are none"),
        ("../x", "no such prompt"),
    ]:
        with pytest.raises(PromptError, match=words):
            remove_prompt(name, bundle)


def test_strangers_in_the_folder_are_left_alone(bundle: Path, bell: Path) -> None:
    path = install_prompt(bell, bundle).path
    for name in (".unbraid-1.partial", "notes.txt", f"a b{ENDING}", f".x{ENDING}"):
        (path.parent / name).write_text("")
    assert list(installed_prompts(model_fingerprint(bundle))) == ["door-bell"]
    path.rename(path.with_name(f"renamed{ENDING}"))
    with pytest.raises(CheckpointError, match="somebody renamed or replaced"):
        open_installed(path.with_name(f"renamed{ENDING}"))


# ------------------------------------------------------------------ names and paths


def test_names_mean_learned_ones_then_files_then_aliases(bundle: Path, tmp_path: Path) -> None:
    assert find_prompts(bundle, ["speech", "music"]).names == ("speech", "music-mix")
    music = write_copy(tmp_path / "files", bundle, "drums", "music")
    with pytest.raises(PromptError, match="'music': means something already"):
        install_prompt(music, bundle)
    install_prompt(music, bundle, name="my-music")
    found = find_prompts(bundle, [" speech", "my-music", "musicbg", "speech"])
    assert found.names == ("speech", "my-music", "music-mix", "speech")
    assert list(found.taught) == ["my-music"]
    assert find_prompts(bundle, [music]).names == ("music",)
    assert find_prompts(bundle, []).names == ()


def test_learned_names_need_no_fingerprint(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("unbraid.checkpoints.asked_prompts.model_fingerprint")
    assert find_prompts(bundle, ["speech", "sfx-mix"]).names == ("speech", "sfx-mix")


def test_a_file_goes_by_the_name_inside(bundle: Path, bell: Path, tmp_path: Path) -> None:
    moved = bell.rename(tmp_path / f"anything{ENDING}")
    found = find_prompts(bundle, [moved, "speech", str(moved), "door-bell"])
    assert found.names == ("door-bell", "speech", "door-bell", "door-bell")
    assert found.digests == {"door-bell": found.taught["door-bell"].digest}


def test_a_home_folder_is_found_behind_a_comma(
    bundle: Path, bell: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(bell.parent))
    monkeypatch.setenv("USERPROFILE", str(bell.parent))
    assert find_prompts(bundle, [f"~/{bell.name}"]).names == ("door-bell",)
    with pytest.raises(CheckpointError, match="no such file"):
        find_prompts(bundle, [f"~nobody-of-this-name/{bell.name}"])


def test_a_file_wins_over_an_installed_prompt(bundle: Path, bell: Path, tmp_path: Path) -> None:
    install_prompt(bell, bundle)
    mine = write_copy(tmp_path / "mine", bundle, "drums", "door-bell")
    assert find_prompts(bundle, ["door-bell", mine]).taught["door-bell"].path == mine


def test_prompts_that_cannot_be_told_apart_are_refused(
    bundle: Path, bell: Path, tmp_path: Path
) -> None:
    mine = write_copy(tmp_path / "mine", bundle, "drums", "door-bell")
    with pytest.raises(PromptError, match="another prompt 'door-bell' stands in"):
        find_prompts(bundle, [bell, mine])
    speech = write_copy(tmp_path / "files", bundle, "drums", "speech")
    with pytest.raises(PromptError, match=r"has learned a prompt 'speech' itself.*--as NAME"):
        find_prompts(bundle, [speech])


def test_a_prompt_of_another_model_is_refused(bundle: Path, other: Path, bell: Path) -> None:
    with pytest.raises(PromptError, match="made for another model") as caught:
        find_prompts(other, [bell])
    for model in (bundle, other):
        assert model_fingerprint(model)[:12] in str(caught.value)
    assert "--model tiny" in str(caught.value)
    # Also where somebody put it among those of this model.
    folder = install_prompt(bell, bundle).path.parent
    folder.rename(folder.with_name(model_fingerprint(other)[:16]))
    with pytest.raises(PromptError, match="made for another model"):
        find_prompts(other, ["door-bell"])


def test_unknown_names_say_what_there_is(bundle: Path, other: Path, bell: Path) -> None:
    install_prompt(bell, bundle)
    with pytest.raises(PromptError, match="unknown prompt 'dor-bell'; did you mean door-bell") as e:
        find_prompts(bundle, ["dor-bell"])
    assert "'tiny' has learned speech, sfx, " in str(e.value)
    assert "and installed for it are door-bell" in str(e.value)
    with pytest.raises(PromptError, match=r"is installed for another model \(tiny\)"):
        find_prompts(other, ["door-bell"])


# ------------------------------------------------------------------ from Python


def test_separators_know_the_prompts_they_were_given(bundle: Path, bell: Path) -> None:
    wide = write_copy(bell.parent, bundle, "drums", "knock", num_vectors=8)
    install_prompt(wide, bundle)
    mixture = unbraid.Waveform(0.1 * torch.randn(1, 30000), 48000)
    plain = unbraid.load_separator(bundle, device="cpu")
    separator = unbraid.load_separator(bundle, device="cpu", prompts=["knock", bell])
    assert separator.prompts == (*plain.prompts, "door-bell", "knock")
    assert separator.prompt_digests.keys() == {"door-bell", "knock"}
    stems = separator.separate(mixture, ["door-bell", "knock", "speech"])
    expected = plain.separate(mixture, ["speech", "drums", "speech"])
    # Two of "speech" may change places where they are joined, so one after the other.
    assert torch.equal(stems["knock"], expected["drums"])
    assert torch.equal(stems["door-bell"], expected["speech_1"])
    with pytest.raises(PromptError, match="unknown prompt 'door-bell'"):
        plain.separate(mixture, ["door-bell"])
