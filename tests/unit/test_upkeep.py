"""Models that are here: what was written is noted, compared and removed."""

import shutil
from pathlib import Path

import pytest

from unbraid.checkpoints import Card, catalogue, load_bundle, save_bundle
from unbraid.checkpoints.bundle import CARD, CONFIG, FILES, MODEL, digest
from unbraid.checkpoints.upkeep import note_digest, remove_model, verify_bundle, verify_models
from unbraid.errors import CheckpointError
from unbraid.folders import user_models_dir
from unbraid.models.waveform import WaveformModel


@pytest.fixture
def mine(tiny_model: WaveformModel) -> Path:
    """A model of the user whose card says more than unbraid needs."""
    card = Card("mine", "CC0-1.0", text="# Mine\n\nKnows little.", more={"tags": ["small"]})
    return save_bundle(tiny_model, user_models_dir() / "mine", card)


def state_of(folder: Path) -> str:
    return verify_bundle(folder, "mine").state


def test_noting_changes_the_card_and_nothing_else(mine: Path) -> None:
    before = load_bundle(mine)
    noted = note_digest(mine)
    after = load_bundle(mine)
    assert noted == before.digest == after.digest
    assert after.card.more == {"tags": ["small"], "digest": noted}
    assert (after.card.text, after.card.licence) == (before.card.text, "CC0-1.0")
    assert sorted(file.name for file in mine.iterdir()) == sorted(FILES)


def test_a_card_that_cannot_be_written_stays_as_it_was(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (mine / CARD).read_text()

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(CheckpointError, match="cannot be noted"):
        note_digest(mine)
    assert (mine / CARD).read_text() == card
    assert sorted(file.name for file in mine.iterdir()) == sorted(FILES)


def test_a_model_is_intact_until_one_of_its_numbers_changes(mine: Path) -> None:
    assert state_of(mine) == "unnoted"
    noted = note_digest(mine)
    assert state_of(mine) == "intact"
    content = (mine / MODEL).read_bytes()
    (mine / MODEL).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    found = verify_bundle(mine, "mine")
    assert (found.state, found.noted, found.found) == ("changed", noted, digest(mine))
    assert not found.is_as_written


def test_editing_the_card_is_no_change(mine: Path) -> None:
    note_digest(mine)
    card = mine / CARD
    card.write_text(card.read_text().replace("Knows little.", "Knows much."))
    assert state_of(mine) == "intact"


def test_another_config_is_a_change(mine: Path) -> None:
    note_digest(mine)
    config = mine / CONFIG
    config.write_text(config.read_text().replace('"segment_s": 1.0', '"segment_s": 2.0'))
    assert state_of(mine) == "changed"


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_damage_that_is_named(mine: Path, name: str) -> None:
    (mine / name).unlink()
    found = verify_bundle(mine, "mine")
    assert found.state == "damaged"
    assert name in found.problem


def test_all_models_are_compared_unless_one_is_named(mine: Path) -> None:
    note_digest(mine)
    assert {found.name for found in verify_models()} == {*catalogue.embedded_models(), "mine"}
    (found,) = verify_models("mine")
    assert (found.path, found.state) == (mine, "intact")
    with pytest.raises(CheckpointError, match="no such model"):
        verify_models("yours")


# ------------------------------------------------------------------ removing


def test_a_model_is_removed_with_all_that_belongs_to_it(mine: Path) -> None:
    assert remove_model("mine") == mine
    assert list(user_models_dir().iterdir()) == []


def test_a_folder_with_other_files_is_left_alone(mine: Path) -> None:
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"thesis\.txt"):
        remove_model("mine")
    assert len(list(mine.iterdir())) == len(FILES) + 1


def test_a_linked_model_loses_the_link_only(mine: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(mine, elsewhere)
    (elsewhere / "log.txt").write_text("")
    mine.symlink_to(elsewhere, target_is_directory=True)
    remove_model("mine")
    assert not mine.exists()
    assert (elsewhere / MODEL).is_file()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mini", "comes with unbraid"),
        ("hf:owner/name", "cache of the hub"),
        ("mien", r"did you mean mine\?"),
        ("..", "a folder elsewhere"),
        ("", "you have no such model"),
        ("x" * 5000, "known: mine"),
        ("a\0b", "you have no such model"),
    ],
)
def test_what_is_not_the_users_is_not_removed(mine: Path, name: str, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        remove_model(name)
    assert state_of(mine) == "unnoted"


def test_a_model_that_cannot_be_removed_is_said_to_be_there(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(CheckpointError, match=r"cannot be removed \(Permission denied\)"):
        remove_model("mine")
    assert state_of(mine) == "unnoted"
