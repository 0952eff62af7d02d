"""Prompt files: what comes back, what names may be, and what damaged or hostile files do."""

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from unbraid.checkpoints import (
    Card,
    PromptFile,
    load_prompt,
    model_fingerprint,
    save_bundle,
    save_prompt,
)
from unbraid.checkpoints.bundle import FILES
from unbraid.checkpoints.prompt_files import (
    ENDING,
    check_prompt_name,
    is_prompt_path,
    prompt_digest,
)
from unbraid.errors import CheckpointError, PromptError
from unbraid.models.waveform import WaveformModel
from unbraid.types import stem_names

FINGERPRINT = "0123456789abcdef" * 4
METADATA = {
    "format": "unbraid-prompt-1",
    "name": "door-bell",
    "fingerprint": FINGERPRINT,
    "provenance": "{}",
}


def prompt(**changes: Any) -> PromptFile:
    given = {
        "name": "door-bell",
        "vectors": torch.arange(6.0).view(3, 2),
        "fingerprint": FINGERPRINT,
        "provenance": {"model": "mini", "clips": [{"name": "ä.wav", "seconds": 1.5}]},
    }
    return PromptFile(**{**given, **changes})


# ------------------------------------------------------------------ there and back


def test_a_prompt_comes_back_as_it_went(tmp_path: Path) -> None:
    path = save_prompt(prompt(), tmp_path / "new" / "folder" / f"bell{ENDING}")
    again = load_prompt(path)
    assert (again.name, again.fingerprint) == ("door-bell", FINGERPRINT)
    assert torch.equal(again.vectors, prompt().vectors)
    assert again.provenance == prompt().provenance
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.stat().st_size < 1000


def test_other_programs_can_read_it(tmp_path: Path) -> None:
    path = save_prompt(prompt(), tmp_path)
    assert path == tmp_path / f"door-bell{ENDING}"
    assert torch.equal(load_file(path)["vectors"], prompt().vectors)


def test_equal_prompts_give_equal_files(tmp_path: Path) -> None:
    one = save_prompt(prompt(provenance={"b": 1, "a": 2}), tmp_path / f"one{ENDING}")
    other = save_prompt(prompt(provenance={"a": 2, "b": 1}), tmp_path / f"other{ENDING}")
    assert one.read_bytes() == other.read_bytes()
    assert prompt_digest(one) == hashlib.sha256(one.read_bytes()).hexdigest()
    changed = save_prompt(prompt(vectors=torch.ones(1, 2)), tmp_path / f"third{ENDING}")
    assert prompt_digest(changed) != prompt_digest(one)


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    path = save_prompt(prompt(vectors=torch.ones(1, 4, dtype=torch.bfloat16)), tmp_path)
    assert load_prompt(path).vectors.dtype == torch.float32


def test_a_file_that_is_there_is_replaced_only_if_asked(tmp_path: Path) -> None:
    path = save_prompt(prompt(), tmp_path)
    with pytest.raises(CheckpointError, match="is there already"):
        save_prompt(prompt(vectors=torch.ones(1, 2)), path)
    assert load_prompt(path).num_vectors == 3
    save_prompt(prompt(vectors=torch.ones(1, 2)), path, overwrite=True)
    assert load_prompt(path).num_vectors == 1


def test_places_that_are_no_place_for_a_prompt(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="ends in"):
        save_prompt(prompt(), tmp_path / "bell.safetensors")
    (tmp_path / f"folder{ENDING}").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_prompt(prompt(), tmp_path / "file" / f"bell{ENDING}")
    with pytest.raises(CheckpointError, match="too many for a prompt"):
        save_prompt(prompt(provenance={"note": "x" * 2**22}), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", f"folder{ENDING}"]


def test_what_the_provenance_says_is_read_with_care() -> None:
    good = prompt(provenance={"clips": [1, 2], "before_db": 1, "after_db": 2.5, "note": "ding"})
    assert (good.num_clips, good.before_db, good.after_db) == (2, 1.0, 2.5)
    assert good.text("note") == "ding"
    odd = {"clips": "many", "before_db": True, "after_db": 10**400, "note": ["no text"]}
    bad = prompt(provenance=odd)
    assert (bad.num_clips, bad.before_db, bad.after_db) == (None, None, None)
    assert bad.text("note") == ""


# ------------------------------------------------------------------ names


@pytest.mark.parametrize("name", ["a", "Door-Bell", "x" * 64, "r2-d2", "music", "dog_bark", "com"])
def test_names_that_are_fine(name: str) -> None:
    check_prompt_name(name)


@pytest.mark.parametrize(
    "name",
    ["", " bell", "bell ", "2nd", "-x", "_x", "a,b", "a b", "a/b", "a\\b", "..", "a.b", "x" * 65,
     "con", "CoM1", "nul", "lpt9", "bell_1", "a_b_02", "glöckchen", "bell\n", "bell\x00", "\u0661"],
)  # fmt: skip
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(PromptError, match="cannot be the name of a prompt: "):
        check_prompt_name(name)


@given(st.text(max_size=70))
def test_a_name_that_passes_is_safe_everywhere(name: str) -> None:
    try:
        check_prompt_name(name)
    except PromptError:
        return
    assert name.isascii()
    assert 1 <= len(name) <= 64
    assert not set(name) & set(",./\\: \n\x00")
    assert not is_prompt_path(name)


@given(
    st.lists(
        st.from_regex(r"[a-c][ab_1-]{0,3}", fullmatch=True).filter(
            lambda name: name.rpartition("_")[1] == "" or not name.rpartition("_")[2].isdigit()
        ),
        min_size=1,
        max_size=6,
    )
)
def test_stems_of_prompts_with_good_names_never_meet(names: list[str]) -> None:
    for name in names:
        check_prompt_name(name)
    assert len(set(stem_names(names))) == len(names)


# ------------------------------------------------------------------ damage and malice


def raw(tensors: dict[str, Any], metadata: object, data: bytes = b"") -> bytes:
    header = json.dumps({"__metadata__": metadata, **tensors}).encode()
    return struct.pack("<Q", len(header)) + header + data


ONE = {"vectors": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}
ZEROS = bytes(8)

DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a whole prompt file"),
    "text": (b"hello, this is no prompt", "not a whole prompt file"),
    "pickle": (b"\x80\x04\x95cos\nsystem\n", "not a whole prompt file"),
    "cut off": (raw(ONE, METADATA, ZEROS)[:-1], "not a whole prompt file"),
    "something behind": (raw(ONE, METADATA, ZEROS + b"x"), "not a whole prompt file"),
    "endless header": (struct.pack("<Q", 2**62) + b"{}", "not a whole prompt file"),
    "deep header": (struct.pack("<Q", 10**5) + b"[" * 10**5, "not a whole prompt file"),
    "outside": (
        raw({"vectors": {**ONE["vectors"], "data_offsets": [0, 2**40]}}, METADATA, ZEROS),
        "not a whole prompt file",
    ),
    "huge shape": (
        raw({"vectors": {**ONE["vectors"], "shape": [2**40, 2**40]}}, METADATA, ZEROS),
        "not a whole prompt file",
    ),
    "unknown numbers": (
        raw({"vectors": {**ONE["vectors"], "dtype": "F33"}}, METADATA, ZEROS),
        "not a whole prompt file",
    ),
    "metadata is no text": (raw(ONE, {"format": 1}, ZEROS), "not a whole prompt file"),
    "no metadata": (raw(ONE, {}, ZEROS), "not the file of a prompt"),
    "a model": (raw(ONE, {"format": "pt"}, ZEROS), "not the file of a prompt"),
    "strange format": (
        raw(ONE, {**METADATA, "format": "unbraid-prompt-x"}, ZEROS),
        "not the file of a prompt",
    ),
    "newer": (raw(ONE, {**METADATA, "format": "unbraid-prompt-2"}, ZEROS), "a newer unbraid"),
    "another tensor": (
        raw({**ONE, "more": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}},
            METADATA, ZEROS + bytes(4)),
        "holds the tensor vectors",
    ),
    "no tensor": (raw({}, METADATA), "holds the tensor vectors"),
    "one axis": (
        raw({"vectors": {**ONE["vectors"], "shape": [2]}}, METADATA, ZEROS),
        "holds the tensor vectors",
    ),
    "whole numbers": (
        raw({"vectors": {**ONE["vectors"], "dtype": "I32"}}, METADATA, ZEROS),
        "holds the tensor vectors",
    ),
    "no vectors": (
        raw({"vectors": {"dtype": "F32", "shape": [0, 2], "data_offsets": [0, 0]}}, METADATA),
        "no table of vectors",
    ),
    "no number": (raw(ONE, METADATA, struct.pack("<ff", 0, float("nan"))), "no finite numbers"),
    "infinite": (raw(ONE, METADATA, struct.pack("<ff", 0, float("inf"))), "no finite numbers"),
    "nameless": (
        raw(ONE, {key: METADATA[key] for key in ("format", "fingerprint", "provenance")}, ZEROS),
        "name, fingerprint, provenance",
    ),
    "no fingerprint": (raw(ONE, {**METADATA, "fingerprint": "../.."}, ZEROS), "no model's"),
    "no JSON": (raw(ONE, {**METADATA, "provenance": "{"}, ZEROS), "provenance is no JSON"),
    "a list": (raw(ONE, {**METADATA, "provenance": "[]"}, ZEROS), "provenance is no JSON"),
    "deep JSON": (raw(ONE, {**METADATA, "provenance": "[" * 10**5}, ZEROS), "provenance is no"),
    "long number": (
        raw(ONE, {**METADATA, "provenance": '{"a": ' + "9" * 5000 + "}"}, ZEROS),
        "provenance is no JSON",
    ),
    "NaN": (raw(ONE, {**METADATA, "provenance": '{"a": NaN}'}, ZEROS), "is no JSON"),
    "overflow": (raw(ONE, {**METADATA, "provenance": '{"a": 1e999}'}, ZEROS), "is no JSON"),
    "too big": (bytes(2**22 + 1), "too big for a prompt"),
}  # fmt: skip


def test_the_handmade_file_is_a_prompt(tmp_path: Path) -> None:
    path = tmp_path / f"x{ENDING}"
    path.write_bytes(raw(ONE, METADATA, ZEROS))
    assert load_prompt(path).name == "door-bell"


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_and_foreign_files_are_refused(tmp_path: Path, kind: str) -> None:
    content, words = DAMAGED[kind]
    path = tmp_path / f"x{ENDING}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_prompt(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../../evil", "a,b", "con", "\x1b[2J"])
def test_files_with_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"x{ENDING}"
    path.write_bytes(raw(ONE, {**METADATA, "name": name}, ZEROS))
    with pytest.raises(PromptError, match="cannot be the name"):
        load_prompt(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"folder{ENDING}").mkdir()
    for path in (tmp_path / f"none{ENDING}", tmp_path / f"folder{ENDING}", Path("\x00")):
        with pytest.raises(CheckpointError):
            load_prompt(path)


@given(st.data())
def test_any_changed_byte_is_either_harmless_or_an_error_of_ours(data: st.DataObject) -> None:
    import tempfile

    whole = raw(ONE, METADATA, ZEROS)
    position = data.draw(st.integers(0, len(whole) - 1))
    content = bytearray(whole)
    content[position] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{ENDING}"
        path.write_bytes(content)
        try:
            found = load_prompt(path)
        except (CheckpointError, PromptError):
            return
    assert torch.isfinite(found.vectors).all()
    check_prompt_name(found.name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "a,b"},
        {"fingerprint": "0" * 63},
        {"vectors": torch.full((1, 2), float("nan"))},
        {"vectors": torch.zeros(0, 2)},
        {"provenance": {"a": float("inf")}},
        {"provenance": {"a": object()}},
    ],
)
def test_nothing_wrong_is_ever_written(wrong: dict[str, Any]) -> None:
    with pytest.raises((CheckpointError, PromptError)):
        prompt(**wrong)


# ------------------------------------------------------------------ fingerprints


@pytest.fixture
def bundle(tiny_model: WaveformModel, tmp_path: Path) -> Path:
    return save_bundle(tiny_model, tmp_path / "tiny", Card("tiny", "CC0-1.0"))


def changed(bundle: Path, change: Callable[[dict[str, Any]], None]) -> str:
    other = bundle.with_name("other")
    shutil.copytree(bundle, other)
    settings = json.loads((other / "config.json").read_text())
    change(settings)
    (other / "config.json").write_text(json.dumps(settings))
    return model_fingerprint(other)


def test_fingerprints_never_change(tmp_path: Path) -> None:
    # Another value means that no prompt of any user fits its model any more.
    for name in FILES:
        (tmp_path / name).write_text("weights")
    settings = {"format": 1, "architecture": "tuss", "sample_rate": 8, "stft": {}, "network": {}}
    settings["stft"] = {"n_fft": 1024, "hop_length": 512}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    expected = hashlib.sha256(
        b'{"architecture": "tuss", "level": "deviation", "network": {}, "sample_rate": 8, '
        b'"stft": {"n_fft": 1024}}\nweights'
    ).hexdigest()
    assert model_fingerprint(tmp_path) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [("segment_s", 9.0), ("overlap_s", 0.1), ("stereo", "shared"), ("presence", {"sfx": {}}),
     ("prompts", ["speech"])],
)  # fmt: skip
def test_what_leaves_the_space_of_prompts_alone(bundle: Path, key: str, value: object) -> None:
    assert changed(bundle, lambda settings: settings.update({key: value})) == (
        model_fingerprint(bundle)
    )


def test_cards_and_learned_prompts_leave_it_alone(bundle: Path) -> None:
    before = model_fingerprint(bundle)
    (bundle / "README.md").write_text(Card("other", "CC0-1.0").render())
    save_file({"x": torch.zeros(1)}, bundle / "prompts.safetensors")
    assert model_fingerprint(bundle) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [("sample_rate", 44100), ("level", "spectrum"), ("architecture", "other"), ("network", {}),
     ("stft", {"n_fft": 2048, "hop_length": 512})],
)  # fmt: skip
def test_what_changes_the_space_of_prompts(bundle: Path, key: str, value: object) -> None:
    assert changed(bundle, lambda settings: settings.update({key: value})) != (
        model_fingerprint(bundle)
    )


def test_other_weights_are_another_space(bundle: Path) -> None:
    before = model_fingerprint(bundle)
    weights = bundle / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert model_fingerprint(bundle) != before


def test_no_model_has_no_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a whole model"):
        model_fingerprint(tmp_path)
