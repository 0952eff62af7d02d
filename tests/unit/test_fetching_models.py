"""Downloading released checkpoints, against a publisher here that misbehaves as asked."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from command_line import files_below
from file_server import running_file_server
from released_models import Publisher, locoformer_state, publish
from released_tuss import TINY, random_state, write_folder
from unbraid import downloads
from unbraid.checkpoints import import_released, known_models, load_bundle, resolve_model
from unbraid.checkpoints.bundle import CARD, MODEL, digest
from unbraid.checkpoints.fetching import download_model, find_downloadable
from unbraid.checkpoints.upkeep import verify_models
from unbraid.errors import Cancelled, CheckpointError, ConfigError, DownloadError
from unbraid.folders import user_cache_dir, user_models_dir
from unbraid.types import Step


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for switch in ("UNBRAID_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(switch, raising=False)
    monkeypatch.setattr(downloads, "_WAITS_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(downloads, "_BLOCK_BYTES", 1000)
    with running_file_server() as server:
        yield publish(server, tmp_path / "publisher", monkeypatch)


def cached(publisher_model: str) -> list[str]:
    return files_below(user_cache_dir() / "released" / publisher_model)


def test_a_model_with_settings_becomes_what_importing_it_by_hand_gives(
    publisher: Publisher, tmp_path: Path
) -> None:
    by_hand = import_released(
        write_folder(tmp_path / "released", TINY, random_state(TINY)), tmp_path / "bundle"
    )

    bundle = download_model("tiny.copyleft", accept_licence=True)

    assert bundle.folder == user_models_dir() / "tiny.copyleft" == resolve_model("tiny.copyleft")
    assert bundle.digest == by_hand.digest
    assert bundle.card.licence == "AGPL-3.0-or-later"
    assert bundle.card.name == "tiny.copyleft"
    assert publisher.copyleft.files[-1].url in bundle.card.text
    assert publisher.copyleft.files[-1].sha256 in bundle.card.text


def test_a_model_without_settings_is_built_from_those_that_are_known(publisher: Publisher) -> None:
    bundle = download_model("tiny.permissive")

    assert bundle.config.sample_rate == 8000
    assert bundle.config.outputs == ("speech", "speech")
    assert bundle.card.licence == "Apache-2.0"
    mixture = torch.randn(1, 400, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        sources = bundle.model(mixture, torch.tensor([[0, 0]]))
    assert sources.shape == (1, 2, 400)
    assert sources.isfinite().all()
    found = bundle.model.state_dict()["network.codec.reduce.bias"]
    torch.testing.assert_close(found, locoformer_state()["separator.deconv.bias"])


def test_steps_tell_what_comes_how_far_it_is_and_when_it_is_imported(
    publisher: Publisher,
) -> None:
    steps: list[Step] = []
    download_model("tiny.copyleft", accept_licence=True, progress=steps.append)
    names = list(dict.fromkeys(step.name for step in steps))
    assert names == [
        "fetching tiny.copyleft: hparams.yaml",
        "fetching tiny.copyleft: checkpoints/model.pth",
        "importing tiny.copyleft",
    ]
    weights = [step for step in steps if step.name == names[1]]
    assert (weights[-1].done, weights[-1].unit) == (
        publisher.copyleft.files[-1].size_bytes,
        "bytes",
    )


def test_the_files_of_the_publisher_are_removed_unless_asked_for(publisher: Publisher) -> None:
    download_model("tiny.copyleft", accept_licence=True)
    download_model("tiny.permissive", keep_files=True)
    assert not (user_cache_dir() / "released" / "tiny.copyleft").exists()
    assert cached("tiny.permissive") == ["best.pth", "hparams.yaml"]


def test_the_digest_is_noted_and_holds(publisher: Publisher) -> None:
    bundle = download_model("tiny.permissive")
    assert bundle.card.more == {"digest": digest(bundle.folder)}
    (found,) = verify_models("tiny.permissive")
    assert found.state == "intact"


def test_a_model_that_is_here_is_not_fetched_again(publisher: Publisher) -> None:
    first = download_model("tiny.permissive")
    publisher.server.ranges.clear()
    assert download_model("tiny.permissive").digest == first.digest
    assert publisher.server.ranges == []


def test_a_model_that_was_changed_is_neither_used_nor_replaced(publisher: Publisher) -> None:
    folder = download_model("tiny.permissive").folder
    changed = (folder / MODEL).read_bytes() + b" "
    (folder / MODEL).write_bytes(changed)
    with pytest.raises(CheckpointError, match=r"changed; remove it with `unbraid models remove"):
        download_model("tiny.permissive")
    assert (folder / MODEL).read_bytes() == changed


def test_what_is_in_the_way_is_never_replaced(publisher: Publisher) -> None:
    folder = user_models_dir() / "tiny.permissive"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="in the way"):
        download_model("tiny.permissive")
    assert files_below(folder) == ["thesis.txt"]
    assert publisher.server.ranges == []


# ------------------------------------------------------------------ consent and network


def test_without_consent_nothing_is_fetched(publisher: Publisher) -> None:
    with pytest.raises(ConfigError, match=r"AGPL-3\.0-or-later.*--accept-licence"):
        download_model("tiny.copyleft")
    assert publisher.server.ranges == []


@pytest.mark.parametrize("switch", ["UNBRAID_OFFLINE", "HF_HUB_OFFLINE"])
def test_a_forbidden_network_is_not_asked(
    publisher: Publisher, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(switch, "1")
    with pytest.raises(DownloadError, match=f"{switch} forbids the network") as raised:
        download_model("tiny.permissive")
    assert str(user_models_dir()) in str(raised.value)
    assert publisher.server.ranges == []
    monkeypatch.setenv(switch, "0")
    download_model("tiny.permissive")


def test_files_that_were_kept_need_no_network(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = download_model("tiny.permissive", keep_files=True)
    for file in first.folder.iterdir():
        file.unlink()
    first.folder.rmdir()
    monkeypatch.setenv("UNBRAID_OFFLINE", "1")
    assert download_model("tiny.permissive").digest == first.digest


# ------------------------------------------------------------------ servers that fail or lie


def test_a_cut_connection_goes_on_where_it_stopped(publisher: Publisher) -> None:
    publisher.server.files[publisher.weights_of_copyleft].breaks = [3000, 2000, None]
    download_model("tiny.copyleft", accept_licence=True)
    assert publisher.server.ranges == ["", "", "bytes=3000-", "bytes=5000-"]


def test_a_download_that_was_stopped_goes_on_next_time(publisher: Publisher) -> None:
    cancel = threading.Event()

    def stop(step: Step) -> None:
        if step.name.endswith("model.pth") and step.done >= 4000:
            cancel.set()

    with pytest.raises(Cancelled):
        download_model("tiny.copyleft", accept_licence=True, progress=stop, cancel=cancel)
    assert "checkpoints/model.pth.part" in cached("tiny.copyleft")
    assert not user_models_dir().exists()
    publisher.server.ranges.clear()

    download_model("tiny.copyleft", accept_licence=True)
    assert publisher.server.ranges == ["bytes=4000-"]


def test_a_file_of_the_right_length_and_wrong_content_is_thrown_away(publisher: Publisher) -> None:
    served = publisher.server.files[publisher.weights_of_copyleft]
    served.content = served.content[:-1] + bytes([served.content[-1] ^ 1])
    with pytest.raises(DownloadError, match="not what its publisher promised"):
        download_model("tiny.copyleft", accept_licence=True)
    assert cached("tiny.copyleft") == ["checkpoints", "hparams.yaml"]
    assert not user_models_dir().exists()


@pytest.mark.parametrize("says_length", [True, False])
def test_a_pointer_in_place_of_the_weights_is_refused(
    publisher: Publisher, says_length: bool
) -> None:
    served = publisher.server.files[publisher.weights_of_copyleft]
    served.content = b"version https://git-lfs.github.com/spec/v1\n"
    served.says_length = says_length
    with pytest.raises(DownloadError, match=r"43 bytes|broke after 43"):
        download_model("tiny.copyleft", accept_licence=True)
    assert not user_models_dir().exists()


def test_settings_that_are_no_settings_give_no_model(publisher: Publisher) -> None:
    publisher.server.files["copyleft/hparams.yaml"].content = b"<html>Not found</html>"
    with pytest.raises(CheckpointError, match=r"hparams\.yaml"):
        download_model("tiny.copyleft", accept_licence=True)
    assert not user_models_dir().exists()


def test_right_bytes_that_are_no_checkpoint_give_no_model(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"no pickle at all"
    publisher.server.files["permissive/best.pth"].content = content
    (file,) = publisher.permissive.files
    file = replace(file, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    model = replace(publisher.permissive, files=(file,))
    monkeypatch.setattr(known_models, "KNOWN_MODELS", (model,))
    with pytest.raises(CheckpointError, match=r"best\.pth: damaged"):
        download_model("tiny.permissive")
    assert not user_models_dir().exists()


def test_a_file_that_is_gone_is_said_to_be_gone(publisher: Publisher) -> None:
    del publisher.server.files["permissive/best.pth"]
    with pytest.raises(DownloadError, match="there is no such file"):
        download_model("tiny.permissive")


# ------------------------------------------------------------------ names


def test_an_unknown_name_is_answered_with_near_ones(publisher: Publisher) -> None:
    with pytest.raises(CheckpointError, match=r"did you mean tiny\.permissive"):
        find_downloadable("tiny.permisive")


def test_a_model_by_hand_says_where_to_look(publisher: Publisher) -> None:
    with pytest.raises(CheckpointError, match=r"cannot fetch it, look at https://huggingface\.co"):
        download_model("sfc")


def test_the_card_of_a_downloaded_model_is_readable(publisher: Publisher) -> None:
    bundle = download_model("tiny.permissive")
    text = (bundle.folder / CARD).read_text()
    assert "IWAENC 2024" in text
    assert load_bundle(bundle.folder).card == bundle.card
