"""Anybody's own stems: what is understood, and what is said where it is not."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unbraid.errors import DataError
from unbraid.evaluation.stem_folders import list_mixtures
from unbraid.prompts import STANDARD_PROMPTS


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(100), 8000)


def found(path: Path, **prompt_of: str) -> dict[str, tuple[list[tuple[str, str]], str | None]]:
    """Mixture → prompts with their files, and the mixture's file."""
    root, mixtures = list_mixtures(path, STANDARD_PROMPTS, prompt_of)
    result = {}
    for files in mixtures:
        for reference in files.references:
            assert all((root / track.path).is_file() for track in reference.add)
        stems = [(each.prompt, each.add[0].path) for each in files.references]
        result[files.name] = (stems, files.mixture.path if files.mixture else None)
    return result


def test_folders_of_songs(tmp_path: Path) -> None:
    for song in ("b", "a"):
        touch(*(tmp_path / song / f"{stem}.wav" for stem in ("mixture", "vocals", "drums")))
    touch(tmp_path / ".hidden" / "vocals.wav", tmp_path / "a" / ".vocals.wav")
    (tmp_path / "a" / "notes.txt").write_text("not audio")
    assert found(tmp_path) == {
        name: (
            [("drums", f"{name}/drums.wav"), ("vocals", f"{name}/vocals.wav")],
            f"{name}/mixture.wav",
        )
        for name in ("a", "b")
    }


def test_folders_of_stems(tmp_path: Path) -> None:
    touch(*(tmp_path / stem / "take 1.flac" for stem in ("mix", "speech", "effects")))
    assert found(tmp_path) == {
        "take 1": (
            [("sfx-mix", "effects/take 1.flac"), ("speech", "speech/take 1.flac")],
            "mix/take 1.flac",
        )
    }


def test_numbered_stems_are_equal_prompts_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ("speech_10", "speech_2", "speech_1", "sfx")
    touch(*(tmp_path / "one" / f"{name}.wav" for name in names))
    stems, mixture = found(tmp_path)["one"]
    assert [path for _, path in stems] == [
        "one/sfx.wav", "one/speech_1.wav", "one/speech_2.wav", "one/speech_10.wav",
    ]  # fmt: skip
    assert [prompt for prompt, _ in stems] == ["sfx", "speech", "speech", "speech"]
    assert mixture is None


def test_a_csv_file_with_a_column_per_stem(tmp_path: Path) -> None:
    touch(tmp_path / "m.wav", tmp_path / "in" / "v.wav", tmp_path / "o.wav")
    table = tmp_path / "list.csv"
    table.write_text("\ufeffname,mixture,vocals,other\nsong,m.wav,in/v.wav,o.wav\n,,in/v.wav,\n")
    assert found(table) == {
        "song": ([("other", "o.wav"), ("vocals", "in/v.wav")], "m.wav"),
        "line 3": ([("vocals", "in/v.wav")], None),
    }


def test_names_can_be_translated_and_left_out(tmp_path: Path) -> None:
    touch(*(tmp_path / "film" / f"{stem}.wav" for stem in ("dialog", "fx", "click")))
    stems, _ = found(tmp_path, dialog="speech", fx="sfx-mix", click="-")["film"]
    assert stems == [("speech", "film/dialog.wav"), ("sfx-mix", "film/fx.wav")]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("song/vocals.wav", "song/gutar.wav"), "'gutar' is no prompt"),
        (("song/mixture.wav",), "holds no stems, only mixture"),
        (("vocals/a.wav", "drums/a.wav", "drums/b.wav"), "vocals: holds no b"),
    ],
)
def test_what_is_not_understood_is_named(
    files: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    touch(*(tmp_path / file for file in files))
    with pytest.raises(DataError) as caught:
        found(tmp_path)
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_without_audio_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"SONG/STEM\.wav"):
        found(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        found(tmp_path / "gone")


def test_a_csv_file_that_names_what_is_not_there(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("vocals\nv.wav\n")
    with pytest.raises(DataError, match=r"list\.csv, line 2: .*v\.wav does not exist"):
        found(table)
    table.write_text("vocals\n")
    with pytest.raises(DataError, match="has no rows"):
        found(table)


def test_the_list_that_data_prepare_writes(tmp_path: Path) -> None:
    one = {"path": "a.wav", "track": None}
    two = {"path": "b.wav", "track": None}
    line = {
        "name": "film", "split": "test", "group": "", "mixture": None,
        "references": [
            {"prompt": "speech", "add": [one], "subtract": []},
            {"prompt": "sfx-mix", "add": [two], "subtract": [one]},
        ],
    }  # fmt: skip
    table = tmp_path / "unbraid-mixtures.jsonl"
    table.write_text(json.dumps(line) + "\n" + json.dumps({**line, "split": "train"}) + "\n")
    root, mixtures = list_mixtures(table, STANDARD_PROMPTS, {})
    assert root == tmp_path
    assert [files.split for files in mixtures] == ["test", "train"]
    [chosen] = list_mixtures(table, STANDARD_PROMPTS, {}, "train")[1]
    assert chosen.references[1].subtract[0].path == "a.wav"
    with pytest.raises(DataError, match="its splits: test, train"):
        list_mixtures(table, STANDARD_PROMPTS, {}, "eval")
    table.write_text("{}\n")
    with pytest.raises(DataError, match=r"unbraid-mixtures\.jsonl, line 1: not a mixture"):
        list_mixtures(table, STANDARD_PROMPTS, {})
