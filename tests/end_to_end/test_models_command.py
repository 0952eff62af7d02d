"""``unbraid models``: from a publisher's server to stems, and what becomes of models after that."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from command_line import Outcome, files_below, unbraid, write_audio
from file_server import running_file_server
from released_models import Publisher, publish
from released_tuss import TINY, random_state, write_folder
from unbraid import downloads
from unbraid.checkpoints import Card, load_bundle, save_bundle
from unbraid.checkpoints.bundle import FILES, MODEL
from unbraid.cli import app
from unbraid.cli import models as commands
from unbraid.cli.work_bar import WorkBar
from unbraid.models.waveform import WaveformModel
from unbraid.types import Step


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for switch in ("UNBRAID_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(switch, raising=False)
    monkeypatch.setattr(downloads, "_WAITS_S", (0.0, 0.0))
    with running_file_server() as server:
        yield publish(server, tmp_path / "publisher", monkeypatch)


@pytest.fixture
def own_model(tiny_model: WaveformModel, own_home: Path) -> Path:
    return save_bundle(tiny_model, own_home / "models" / "mine", Card("mine", "CC0-1.0"))


def answering(monkeypatch: pytest.MonkeyPatch, answer: str, *arguments: str) -> Outcome:
    """Run a command with somebody at the terminal who gives one answer."""
    monkeypatch.setattr(commands, "_somebody_is_there", lambda: True)
    result = CliRunner().invoke(app, list(arguments), input=f"{answer}\n")
    return Outcome(result.exit_code, result.stdout, result.stderr)


def listed() -> dict[str, dict[str, Any]]:
    return {model["name"]: model for model in unbraid("models", "list", "--json").json}


# ------------------------------------------------------------------ list, info


def test_the_list_shows_what_can_be_downloaded(own_home: Path) -> None:
    text = unbraid("models", "list").stdout
    for word in ("tuss.medium.2-4src", "not here", "AGPL-3.0-or-later", "44.9 MB to download"):
        assert word in text
    for word in ("tf-locoformer.dns", "16000 Hz", "2 x speech", "sfc", "by hand", "embedded"):
        assert word in text


def test_the_list_as_json_has_the_same_fields_for_all(publisher: Publisher) -> None:
    rows = listed()
    assert rows["mini"].keys() == rows["tiny.copyleft"].keys() == rows["sfc"].keys()
    assert (rows["mini"]["is_here"], rows["mini"]["download_bytes"]) == (True, None)
    row = rows["tiny.copyleft"]
    assert (row["is_here"], row["path"], row["origin"]) == (False, None, "released")
    assert row["download_bytes"] == publisher.copyleft.size_bytes
    assert rows["sfc"]["download_bytes"] is None


def test_a_downloaded_model_is_listed_once_as_the_users(publisher: Publisher) -> None:
    unbraid("models", "download", "tiny.permissive")
    names = [model["name"] for model in unbraid("models", "list", "--json").json]
    assert names.count("tiny.permissive") == 1
    assert listed()["tiny.permissive"]["origin"] == "user"


def test_a_model_that_is_not_here_is_described(own_home: Path) -> None:
    outcome = unbraid("models", "info", "tf-locoformer.whamr.small")
    assert outcome.code == 0
    for word in ("5,125,252", "8000 Hz", "Apache-2.0", "20.6 MB", "IWAENC 2024", "models download"):
        assert word in outcome.stdout
    by_hand = unbraid("models", "info", "sfc").stdout
    assert "cannot fetch it" in by_hand
    assert "to download" not in by_hand


# ------------------------------------------------------------------ download


def test_a_permissive_model_is_fetched_at_once_and_separates(
    publisher: Publisher, own_home: Path, tmp_path: Path
) -> None:
    outcome = unbraid("models", "download", "tiny.permissive")

    assert outcome.code == 0
    assert "Apache-2.0" in outcome.stdout
    assert "sources: 2 x speech" in outcome.stdout
    assert str(own_home / "models" / "tiny.permissive") in outcome.stdout
    assert outcome.stderr.splitlines()[2:] == [
        "fetching tiny.permissive: best.pth",
        "importing tiny.permissive",
    ]
    assert files_below(own_home / "cache" / "released") == []
    song = write_audio(tmp_path / "song.wav", rate=8000, num_channels=1)
    separated = unbraid(
        "separate", song, "-m", "tiny.permissive", "--prompts", "speech,speech", "-o", tmp_path
    )
    assert separated.code == 0, separated.stderr
    stems = files_below(tmp_path / "tiny.permissive" / "song")
    assert {"speech_1.wav", "speech_2.wav"} <= set(stems)


def test_a_licence_with_duties_needs_a_flag_where_nobody_can_be_asked(
    publisher: Publisher,
) -> None:
    refused = unbraid("models", "download", "tiny.copyleft")
    assert refused.code == 2
    assert "--accept-licence" in refused.stderr.splitlines()[-1]
    assert publisher.server.ranges == []

    accepted = unbraid("models", "download", "tiny.copyleft", "--accept-licence")
    assert accepted.code == 0
    assert "AGPL-3.0-or-later" in accepted.stdout


def test_somebody_who_is_there_is_asked(
    publisher: Publisher, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = answering(monkeypatch, "n", "models", "download", "tiny.copyleft")
    assert refused.code == 130
    assert "AGPL-3.0-or-later" in refused.stderr
    assert not (own_home / "models").exists()

    agreed = answering(monkeypatch, "y", "models", "download", "tiny.copyleft")
    assert agreed.code == 0
    assert (own_home / "models" / "tiny.copyleft").is_dir()


def test_what_is_here_is_not_fetched_again(publisher: Publisher) -> None:
    unbraid("models", "download", "tiny.permissive")
    publisher.server.ranges.clear()
    again = unbraid("models", "download", "tiny.permissive")
    assert again.code == 0
    assert "is here already" in again.stdout
    assert publisher.server.ranges == []


def test_files_can_be_kept_and_imported_by_hand(publisher: Publisher, own_home: Path) -> None:
    kept = unbraid("models", "download", "tiny.copyleft", "--accept-licence", "--keep-files")
    assert kept.code == 0
    folder = own_home / "cache" / "released" / "tiny.copyleft"
    again = unbraid("models", "import", folder, "-o", own_home / "models" / "again")
    assert again.code == 0
    rows = listed()
    assert rows["again"]["digest"] == rows["tiny.copyleft"]["digest"]


def test_a_wrong_file_is_refused_in_one_line(publisher: Publisher, own_home: Path) -> None:
    served = publisher.server.files["permissive/best.pth"]
    served.content = bytes(len(served.content))
    outcome = unbraid("models", "download", "tiny.permissive")
    assert outcome.code == 8
    assert "not what its publisher promised" in outcome.stderr.splitlines()[-1]
    assert not (own_home / "models").exists()


def test_a_network_that_is_forbidden_is_an_error_that_says_so(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNBRAID_OFFLINE", "1")
    outcome = unbraid("models", "download", "tiny.permissive")
    assert outcome.code == 8
    assert "UNBRAID_OFFLINE forbids the network" in outcome.stderr
    assert publisher.server.ranges == []


def test_ctrl_c_keeps_what_has_come(
    publisher: Publisher, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: WorkBar, step: Step) -> None:
        if step.unit == "bytes" and step.done:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkBar, "update", interrupt)
        patch.setattr(downloads, "_BLOCK_BYTES", 1000)
        outcome = unbraid("models", "download", "tiny.permissive")
    assert outcome.code == 130
    assert "kept for the next time" in outcome.stderr
    assert "best.pth.part" in files_below(own_home / "cache" / "released" / "tiny.permissive")
    publisher.server.ranges.clear()
    assert unbraid("models", "download", "tiny.permissive").code == 0
    assert publisher.server.ranges == ["bytes=1000-"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("tiny.permisive", "did you mean tiny.permissive?"), ("sfc", "cannot fetch it")],
)
def test_names_that_cannot_be_downloaded(publisher: Publisher, name: str, says: str) -> None:
    outcome = unbraid("models", "download", name)
    assert outcome.code == 5
    assert says in outcome.error


def test_a_model_on_the_hub_is_named_as_everywhere(publisher: Publisher) -> None:
    outcome = unbraid("models", "download", "hf:not a name")
    assert outcome.code == 5
    assert "not a model on the hub" in outcome.error


def test_a_model_that_is_not_here_says_how_to_get_it(own_home: Path, tmp_path: Path) -> None:
    song = write_audio(tmp_path / "song.wav")
    outcome = unbraid("separate", song, "-m", "tuss.medium.2-4src", "-o", tmp_path / "out")
    assert outcome.code == 5
    assert "unbraid models download tuss.medium.2-4src" in outcome.error


# ------------------------------------------------------------------ verify


def test_an_imported_model_is_intact_until_it_is_changed(own_home: Path, tmp_path: Path) -> None:
    released = write_folder(tmp_path / "tuss.tiny", TINY, random_state(TINY))
    unbraid("models", "import", released)
    bundle = load_bundle(own_home / "models" / "tuss.tiny")

    intact = unbraid("models", "verify", "tuss.tiny")
    assert (intact.code, intact.stdout) == (0, f"tuss.tiny: intact, {bundle.digest}\n")

    weights = bundle.folder / MODEL
    weights.write_bytes(weights.read_bytes() + b" ")
    changed = unbraid("models", "verify")
    assert changed.code == 5
    assert f"tuss.tiny: CHANGED, {bundle.digest} was written" in changed.stdout
    assert changed.error.startswith("error: tuss.tiny: not what was written")


def test_verify_tells_what_it_cannot_know_and_what_is_broken(own_model: Path) -> None:
    unnoted = unbraid("models", "verify", "mine")
    assert unnoted.code == 0
    assert "no digest was noted" in unnoted.stdout
    (own_model / FILES[0]).write_text("{")
    assert "mine: DAMAGED" in unbraid("models", "verify").stdout


def test_verify_as_json(own_model: Path) -> None:
    (row,) = unbraid("models", "verify", "mine", "--json").json
    digest = load_bundle(own_model).digest
    assert row == {
        "name": "mine",
        "path": str(own_model),
        "state": "unnoted",
        "noted": "",
        "found": digest,
        "problem": "",
    }


# ------------------------------------------------------------------ remove


def test_what_can_be_downloaded_again_is_removed_at_once(
    publisher: Publisher, own_home: Path
) -> None:
    unbraid("models", "download", "tiny.permissive")
    outcome = unbraid("models", "remove", "tiny.permissive")
    assert (outcome.code, outcome.stdout) == (
        0,
        f"removed {own_home / 'models' / 'tiny.permissive'}\n",
    )
    assert files_below(own_home / "models") == []
    assert not listed()["tiny.permissive"]["is_here"]


def test_ones_own_model_is_removed_only_if_that_is_wanted(
    own_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unasked = unbraid("models", "remove", "mine")
    assert unasked.code == 2
    assert "--yes" in unasked.error
    with monkeypatch.context() as patch:
        assert answering(patch, "n", "models", "remove", "mine").code == 130
    assert own_model.is_dir()
    assert unbraid("models", "remove", "mine", "--yes").code == 0
    assert not own_model.exists()


def test_the_model_of_the_package_stays() -> None:
    outcome = unbraid("models", "remove", "mini", "--yes")
    assert outcome.code == 5
    assert "comes with unbraid" in outcome.error
