"""Output paths stay inside their folder and are accepted everywhere."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbraid.audio import DEFAULT_TEMPLATE, check_template, safe_name, stem_path
from unbraid.errors import ConfigError

OUT = Path("out")


def filled(template: str = DEFAULT_TEMPLATE, **values: str) -> Path:
    fields = {"model": "mini", "track": "song", "stem": "speech", "ext": "wav"} | values
    return stem_path(template, OUT, **fields)


def test_default_layout() -> None:
    assert filled() == OUT / "mini" / "song" / "speech.wav"


def test_other_layouts() -> None:
    assert filled("{track} - {stem}.{ext}") == OUT / "song - speech.wav"
    assert filled("{stem}/{track}.{ext}") == OUT / "speech" / "song.wav"
    assert filled("./a//b\\{stem}.{ext}") == OUT / "a" / "b" / "speech.wav"


@given(st.text(max_size=300))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    path = filled(track=name, model=name)

    assert path.parts[0] == "out"
    assert len(path.parts) == 4
    assert not {"..", ".", ""} & set(path.parts)
    assert all(len(part.encode()) <= 255 for part in path.parts)
    assert not set('<>:"\\|?*\0\n') & set("".join(path.parts[1:]))


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("..", "_"),
        ("", "_"),
        ("name. ", "name"),
        ("con", "con_"),
        ("LPT1.old", "LPT1_.old"),
        ("console", "console"),
        ("Grüße 🎧", "Grüße 🎧"),
        ("tab\there", "tab_here"),
        ("\udcff", "_"),
    ],
)
def test_safe_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_long_titles_keep_stem_and_extension() -> None:
    path = filled("{track}_{stem}.{ext}", track="長" * 200)

    assert path.name.endswith("_speech.wav")
    assert len(path.name.encode()) <= 255


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{model}/{track}.{ext}", r"needs \{stem\}"),
        ("{stem}.wav", r"needs \{ext\}"),
        ("{stem}.{extension}", r"unknown field \{extension\}"),
        ("{stem.__class__}.{ext}", "unknown field"),
        ("{stem!r}.{ext}", r"unknown field \{stem!r\}"),
        ("{stem:>99}.{ext}", r"unknown field \{stem:>99\}"),
        ("{}{stem}.{ext}", "unknown field"),
        ("{stem.{ext}", "file name template"),
        ("../{stem}.{ext}", "inside the output folder"),
        ("a\\..\\{stem}.{ext}", "inside the output folder"),
        ("/tmp/{stem}.{ext}", "inside the output folder"),
        ("C:/{stem}.{ext}", "inside the output folder"),
        ("", r"needs \{stem\}"),
    ],
)
def test_templates_that_are_refused(template: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_template(template)
