"""Names of prompts, and configs that refuse what they do not know."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch

from unbraid.config import dump, parse, read
from unbraid.errors import ConfigError, PromptError
from unbraid.models.waveform import ModelConfig, build_model
from unbraid.prompts import STANDARD_PROMPTS, PromptBank
from unbraid.types import equal_prompt_groups, stem_names


def test_names_become_rows() -> None:
    bank = PromptBank(STANDARD_PROMPTS, 4)
    indices = bank.indices(["music-mix", "speech", "speech", "sfxbg"])
    assert indices.tolist() == [7, 0, 0, 2]
    assert torch.equal(bank(indices[None])[0], bank.weight[[7, 0, 0, 2]])


def test_a_name_of_the_bank_wins_over_an_alias() -> None:
    bank = PromptBank(["music-mix", "music"], 4)
    assert bank.resolve([" music ", "musicbg"]) == ("music", "music-mix")


def test_unknown_and_missing_names_are_refused() -> None:
    bank = PromptBank(STANDARD_PROMPTS, 4)
    with pytest.raises(PromptError, match="did you mean vocals"):
        bank.indices(["vocal"])
    with pytest.raises(PromptError, match="name at least one of: speech"):
        bank.indices([])
    with pytest.raises(PromptError, match="unique"):
        PromptBank(["speech", "speech"], 4)


def test_repeats_are_numbered_and_grouped() -> None:
    assert stem_names(["speech", "drums", "speech"]) == ("speech_1", "drums", "speech_2")
    assert equal_prompt_groups(["a", "b", "a", "a"]) == ((0, 2, 3), (1,))


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass(frozen=True)
class Outer:
    inner: Inner
    many: tuple[Inner, ...] = ()
    maybe: Inner | None = None


def test_configs_come_back_as_they_went() -> None:
    config = Outer(Inner(3), (Inner(4), Inner(5)), Inner(6))
    assert parse(Outer, dump(config)) == config


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inner": {"siz": 1}}, r"config\.inner: unknown key 'siz'; did you mean size\?"),
        ({"inner": {}, "many": [{"size": 1}, {"sise": 2}]}, r"many\[1\].*did you mean size"),
        ({"inner": {}, "maybe": {"else": 2}}, r"maybe: unknown key 'else'; known: size"),
        ({"inner": {"size": "much"}}, r"config\.inner\.size: .*integer"),
        ({}, r"config\.inner: Field required"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(data: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(Outer, data)


@dataclass(frozen=True)
class Round:
    kind: Literal["round"] = "round"
    radius: int = 1


@dataclass(frozen=True)
class Square:
    kind: Literal["square"] = "square"
    side: int = 1


@dataclass(frozen=True)
class Drawing:
    shape: Round | Square


def test_keys_of_another_kind_are_unknown() -> None:
    assert parse(Drawing, {"shape": {"kind": "square", "side": 2}}) == Drawing(Square(side=2))
    with pytest.raises(ConfigError, match="unknown key 'radius'; known: kind, side"):
        parse(Drawing, {"shape": {"kind": "square", "radius": 2}})


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2", "\x00", "{" * 3000])
def test_files_that_hold_no_mapping_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        read(Outer, path)


@pytest.mark.parametrize("text", ["[" * 100000, '{"inner": ' + "9" * 5000 + "}", "{"])
def test_hostile_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not valid json"):
        read(Outer, path)


def test_models_that_make_no_sense_are_refused() -> None:
    good = {
        "architecture": "tuss", "sample_rate": 48000, "stft": {}, "network": {},
    }  # fmt: skip
    with pytest.raises(ConfigError, match="longer than overlap_s"):
        parse(ModelConfig, {**good, "segment_s": 1.0, "overlap_s": 2.0})
    with pytest.raises(ConfigError, match="did you mean tuss"):
        build_model(parse(ModelConfig, {**good, "architecture": "tus"}))
    with pytest.raises(ConfigError, match=r"network\.codec: Field required"):
        build_model(parse(ModelConfig, good))
