"""The catalogue: which name means which model."""

from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
import pytest

from released_tuss import TINY, random_state
from unbraid.checkpoints import (
    Card,
    catalogue,
    list_models,
    load_bundle,
    model_info,
    resolve_model,
    save_bundle,
)
from unbraid.checkpoints.bundle import CONFIG
from unbraid.checkpoints.catalogue import missing_models
from unbraid.checkpoints.importers.tuss import build_released
from unbraid.errors import CheckpointError
from unbraid.folders import user_cache_dir, user_home, user_models_dir

Add = Callable[[Path], Path]


@pytest.fixture(scope="module")
def whole_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = build_released(TINY, random_state(TINY), "tiny")
    card = Card("tiny", "CC0-1.0", source="random", description="knows nothing")
    return save_bundle(model, tmp_path_factory.mktemp("bundles") / "whole", card)


@pytest.fixture
def add(whole_bundle: Path) -> Add:
    """Put a bundle at a path."""

    def copy(folder: Path) -> Path:
        folder.mkdir(parents=True)
        for file in whole_bundle.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    return copy


@pytest.fixture
def embedded(tmp_path: Path, add: Add, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that has one model, `mini`."""
    monkeypatch.setattr(catalogue.resources, "files", lambda _: tmp_path / "package")
    return add(tmp_path / "package" / "weights" / "mini")


def test_the_home_of_the_user(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_home() == own_home
    assert user_models_dir() == own_home / "models"
    assert user_cache_dir() == own_home / "cache"
    monkeypatch.delenv("UNBRAID_HOME")
    assert user_home() == platformdirs.user_data_path("unbraid")
    assert user_cache_dir() == platformdirs.user_cache_path("unbraid")
    monkeypatch.setenv("UNBRAID_HOME", "")
    assert user_home() == platformdirs.user_data_path("unbraid")


def test_names_of_the_package_and_of_the_user(embedded: Path, add: Add) -> None:
    mine = add(user_models_dir() / "mine")
    assert resolve_model("mini") == embedded
    assert resolve_model("mine") == mine
    assert [(info.name, info.origin) for info in list_models()] == [
        ("mini", "embedded"),
        ("mine", "user"),
    ]


def test_a_name_of_the_package_cannot_be_taken(embedded: Path, add: Add) -> None:
    mine = add(user_models_dir() / "mini")
    assert resolve_model("mini") == embedded
    assert resolve_model(str(mine)) == mine
    assert [info.name for info in list_models()] == ["mini", str(mine)]


def test_a_folder_anywhere(
    embedded: Path, add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = add(tmp_path / "work" / "mini")
    monkeypatch.chdir(tmp_path / "work")
    assert resolve_model(folder) == folder
    assert resolve_model(str(folder)) == folder
    assert resolve_model("./mini").resolve() == folder
    # A name means the same in every working directory; a Path is always a place.
    assert resolve_model("mini") == embedded
    assert resolve_model(Path("mini")).resolve() == folder


def test_an_unknown_name_is_answered_with_near_names_and_the_place(embedded: Path) -> None:
    with pytest.raises(CheckpointError, match=r"mini\?") as raised:
        resolve_model("mimi")
    assert str(user_models_dir()) in str(raised.value)
    with pytest.raises(CheckpointError, match="known: mini"):
        resolve_model("something-else")


def test_a_released_model_that_is_not_here_can_be_downloaded(embedded: Path, add: Add) -> None:
    name = "tuss.large.2-4src"
    with pytest.raises(CheckpointError, match=f"not here yet; .*models download {name}"):
        resolve_model(name)
    assert name in [model.name for model in missing_models()]
    mine = add(user_models_dir() / name)
    assert resolve_model(name) == mine
    assert name not in [model.name for model in missing_models()]
    assert [info.name for info in list_models()] == ["mini", name]


def test_a_released_model_that_only_people_can_fetch_says_where(embedded: Path) -> None:
    with pytest.raises(CheckpointError, match=r"look at https://huggingface\.co/"):
        resolve_model("sfc")


def test_without_any_model_the_answer_still_makes_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue.resources, "files", lambda _: tmp_path)
    assert list_models() == ()
    with pytest.raises(CheckpointError, match="no such model; there are none yet"):
        resolve_model("mini")


def test_a_file_is_no_model(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.pth"
    checkpoint.write_bytes(b"")
    with pytest.raises(CheckpointError, match="unbraid models import"):
        resolve_model(str(checkpoint))


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-that-name/model", "a\0b", "", ".", "\n"])
def test_names_that_no_folder_can_have(embedded: Path, name: str) -> None:
    with pytest.raises(CheckpointError):
        load_bundle(resolve_model(name))


def test_a_models_folder_that_may_not_be_read(
    embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_models_dir().mkdir(parents=True)
    iterdir = Path.iterdir

    def refuse(self: Path) -> Iterator[Path]:
        if self == user_models_dir():
            raise PermissionError(13, "Permission denied")
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(CheckpointError, match="cannot be listed"):
        list_models()


def test_info_says_what_the_bundle_says(embedded: Path) -> None:
    info = model_info("mini")
    bundle = load_bundle(embedded)
    assert (info.name, info.licence, info.source) == ("mini", "CC0-1.0", "random")
    assert (info.path, info.origin, info.is_damaged) == (embedded, "embedded", False)
    assert info.num_parameters == bundle.model.num_parameters
    assert info.sample_rate == bundle.model.sample_rate
    assert info.prompts == bundle.model.prompts.names
    assert info.description == "knows nothing"
    assert info.digest == bundle.digest


def test_info_of_a_folder_and_of_the_users(embedded: Path, add: Add, tmp_path: Path) -> None:
    assert model_info(add(tmp_path / "somewhere")).origin == "path"
    add(user_models_dir() / "mine")
    assert model_info("mine").origin == "user"


def test_a_damaged_model_is_listed_as_damaged(embedded: Path, add: Add) -> None:
    folder = add(user_models_dir() / "broken")
    (folder / CONFIG).write_text("{")
    good, damaged = list_models()
    assert not good.is_damaged
    assert damaged.is_damaged
    assert damaged.name == "broken"
    assert "not valid json" in damaged.description
    with pytest.raises(CheckpointError, match="not valid json"):
        model_info("broken")


def test_leftovers_and_other_folders_are_not_listed(embedded: Path, add: Add) -> None:
    add(user_models_dir() / ".mine.1234.partial")
    (user_models_dir() / "notes").mkdir()
    assert [info.name for info in list_models()] == ["mini"]
