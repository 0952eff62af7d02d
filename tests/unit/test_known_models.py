"""Released checkpoints that go by name: what is written down about them holds together."""

import re

import pytest
import torch
import yaml

from unbraid.checkpoints import known_models
from unbraid.checkpoints.catalogue import embedded_models
from unbraid.checkpoints.importers import tf_locoformer
from unbraid.checkpoints.known_models import KNOWN_MODELS, KnownModel, PublishedFile
from unbraid.config import dump
from unbraid.dsp.stft import StftConfig
from unbraid.models.architectures import tuss
from unbraid.models.waveform import ModelConfig, build_model

#: Size and SHA-256 of the weights, as their publishers' lists of large files have them.
PUBLISHED = {
    "tuss.medium.2-4src": (
        44_864_630,
        "112174a8c894b008cfd676052e8a3d60c876bc2ba063c77a3a4700a257655eec",
    ),
    "tuss.large.2-4src": (
        153_210_470,
        "1ed66c06944ef197c9f0ff585c1643ffec25a9925641c02ad6c108a88dfe5acd",
    ),
    "tf-locoformer.wsj0-2mix": (
        59_979_488,
        "c536fa8499b28e2cf812b1906d899ae6337665232ca523dbe628682dd7df983c",
    ),
    "tf-locoformer.whamr": (
        59_942_624,
        "3e14c736d19cd2158e09f0446fe214be4b47e28ed6d6c11d037cf2d4dae82d6a",
    ),
    "tf-locoformer.whamr.small": (
        20_553_016,
        "4ba8ffd35258687aeb6f4dd0cf30622728d440b2581e35ae6b4e1f8274dc5dd8",
    ),
    "tf-locoformer.libri2mix": (
        59_979_488,
        "9c691cee4bb0d9664a3fac024b031dfdf8ca3e66fc22a66f2f17119767b49129",
    ),
    "tf-locoformer.dns": (
        59_972_116,
        "6ffa518f2b73bed289e38349366eb777c94b9130acc32bf4c085cb049d9d1666",
    ),
}

FETCHED = [model for model in KNOWN_MODELS if model.can_be_fetched]
LOCOFORMERS = [model for model in FETCHED if model.settings is not None]


def name_of(model: KnownModel) -> str:
    return model.name


def test_sizes_and_digests_are_those_that_were_published() -> None:
    found = {model.name: (model.files[-1].size_bytes, model.files[-1].sha256) for model in FETCHED}
    assert found == PUBLISHED


def test_names_are_unique_and_can_be_folders_beside_those_of_the_package() -> None:
    names = [model.name for model in KNOWN_MODELS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) for name in names)
    assert not set(names) & embedded_models().keys()


def test_a_model_is_found_by_its_name_only() -> None:
    found = known_models.find("tuss.medium.2-4src")
    assert found is not None
    assert found.num_parameters == 11_132_352
    assert known_models.find("tuss") is None


@pytest.mark.parametrize("model", FETCHED, ids=name_of)
def test_addresses_name_a_commit_of_the_publishers_repository(model: KnownModel) -> None:
    repository = model.source.removeprefix("https://github.com/")
    for file in model.files:
        host = r"(raw\.githubusercontent\.com|media\.githubusercontent\.com/media)"
        assert re.fullmatch(rf"https://{host}/{repository}/[0-9a-f]{{40}}/[\w./-]+", file.url)
        assert file.url.endswith(file.name)
    # What git-lfs keeps lies on the other server; raw would give a pointer of 133 bytes.
    assert "/media/" in model.files[-1].url


@pytest.mark.parametrize("model", FETCHED, ids=name_of)
def test_a_file_is_as_large_as_its_parameters(model: KnownModel) -> None:
    # Four bytes each, and a directory of the archive with several hundred names.
    assert model.num_parameters is not None
    assert 0 < model.size_bytes - 4 * model.num_parameters < 0.01 * model.size_bytes


@pytest.mark.parametrize("model", LOCOFORMERS, ids=name_of)
def test_settings_describe_a_network_of_that_many_parameters(model: KnownModel) -> None:
    # Through YAML and back, as they reach the importer.
    settings = yaml.safe_load(yaml.safe_dump(model.settings))
    config = tf_locoformer.read_config(settings, "here")
    with torch.device("meta"):
        built = build_model(config)
    assert built.num_parameters == model.num_parameters
    assert config.sample_rate == model.sample_rate
    assert config.outputs == model.outputs


@pytest.mark.parametrize("size", ["medium", "large"])
def test_tuss_has_as_many_parameters_as_its_architecture(size: str) -> None:
    model = known_models.find(f"tuss.{size}.2-4src")
    assert model is not None
    network = dump(tuss.ARCHITECTURE.presets[size])
    with torch.device("meta"):
        built = build_model(ModelConfig("tuss", 48000, StftConfig(), network))
    assert built.num_parameters == model.num_parameters
    assert built.prompts.names == model.outputs


def test_consent_is_needed_where_a_licence_asks_for_more_than_its_notice() -> None:
    needed = {model.name for model in FETCHED if model.needs_consent}
    assert needed == {"tuss.medium.2-4src", "tuss.large.2-4src"}
    assert {model.licence for model in LOCOFORMERS} == {"Apache-2.0"}


def test_a_model_whose_files_nobody_told_us_can_only_be_fetched_by_hand() -> None:
    sfc = known_models.find("sfc")
    assert sfc is not None
    assert not sfc.can_be_fetched
    assert sfc.size_bytes == 0
    assert "MIT" in sfc.notes


def test_sizes_are_added_up_as_far_as_they_are_known() -> None:
    files = (PublishedFile("a", "https://a"), PublishedFile("b", "https://b", 5, "0" * 64))
    model = KnownModel("n", "t", "MIT", "", ("drums", "bass"), 8000, 1, files)
    assert model.size_bytes == 5
    assert [file.digest for file in files] == ["", f"sha256:{'0' * 64}"]
    assert model.outputs_in_words == "drums, bass"
