"""Which recordings are meant, and what their results are called."""

import os
import sys
from pathlib import Path, PurePath

import pytest

from unbraid.apps.recordings import RecordingFile, Unusable, find_recordings
from unbraid.audio import DEFAULT_TEMPLATE, stem_path
from unbraid.errors import ConfigError

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def find(
    *inputs: str, recursive: bool = False, out: str = "out", template: str = DEFAULT_TEMPLATE
) -> list[tuple[str, str]]:
    """Path and track of each recording; ``error`` as the track of what gives none."""

    def place_of(track: PurePath) -> Path:
        return stem_path(template, Path(out), model="m", track=track, stem="s", ext="json")

    found = find_recordings(inputs, Path(out), place_of, is_recursive=recursive)
    return [
        (
            entry.path.as_posix(),
            entry.track.as_posix() if isinstance(entry, RecordingFile) else "error",
        )
        for entry in found
    ]


def test_files_are_taken_whatever_they_are_called() -> None:
    make("a.wav", "notes", ".hidden.wav")

    assert find("notes", "a.wav", "missing.wav", ".hidden.wav") == [
        ("notes", "notes"),
        ("a.wav", "a"),
        ("missing.wav", "missing"),
        (".hidden.wav", ".hidden"),
    ]


def test_folder_gives_its_recordings_sorted() -> None:
    make("in/b.WAV", "in/a.mp4", "in/notes.txt", "in/.c.wav", "in/deep/d.wav", "in/.e/e.wav")

    assert find("in") == [("in/a.mp4", "a"), ("in/b.WAV", "b")]


def test_recursion_keeps_sub_folders_in_the_names() -> None:
    make("in/x.wav", "in/b/x.wav", "in/a/x.wav", "in/a/deep/y.flac", "in/.hidden/z.wav")

    assert find("in", recursive=True) == [
        ("in/x.wav", "x"),
        ("in/a/x.wav", "a/x"),
        ("in/a/deep/y.flac", "a/deep/y"),
        ("in/b/x.wav", "b/x"),
    ]


def test_what_is_ours_is_left_out() -> None:
    make("in/x.wav", "in/out/m/x/speech.wav", "in/old/speech.wav", "in/theirs/y.wav")
    Path("in/old/separation.json").write_text('{"unbraid": "0.1.0", "source": {}}')
    Path("in/theirs/separation.json").write_text('{"somebody": "else"}')
    make("in/.unbraid-0a.partial/speech.wav")

    assert find("in", recursive=True, out="in/out") == [
        ("in/x.wav", "x"),
        ("in/theirs/y.wav", "theirs/y"),
    ]
    assert find("in/**/*.wav", out="in/out") == [
        ("in/theirs/y.wav", "theirs/y"),
        ("in/x.wav", "x"),
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("empty", "no recording is in this folder; --recursive"),
        ("out/m", "inside the folder for results"),
        ("old", "holds stems that unbraid made"),
        ("*.wav", "no recording has a name like this pattern"),
        ("nowhere/**/*.wav", "no recording has a name like this pattern"),
    ],
)
def test_what_gives_no_recording_is_an_error_and_the_others_go_on(given: str, words: str) -> None:
    make("in/x.wav", "empty/notes.txt", "out/m/x/speech.wav", "old/speech.wav")
    Path("old/separation.json").write_text('{"unbraid": "0.1.0", "source": {}}')

    assert find(given, "in") == [(given, "error"), ("in/x.wav", "x")]
    unusable, _ = find_recordings([given, "in"], Path("out"), Path)
    assert isinstance(unusable, Unusable)
    assert words in str(unusable.error)
    assert given in str(unusable.error)


def test_patterns_that_no_shell_has_expanded() -> None:
    make("in/a.wav", "in/b.flac", "in/c.txt", "in/deep/d.wav", "in/.e.wav", "in/f.raw16")
    make("in/g.wav/h.wav")

    assert find("in/*") == [("in/a.wav", "a"), ("in/b.flac", "b")]
    assert find("in/?.wav") == [("in/a.wav", "a")]
    assert find("in/*.raw16") == [("in/f.raw16", "f")]
    assert find("in/**/*.wav") == [
        ("in/a.wav", "a"),
        ("in/deep/d.wav", "deep/d"),
        ("in/g.wav/h.wav", "g.wav/h"),
    ]
    absolute = str(Path("in").absolute() / "*.flac")
    assert find(absolute) == [(Path("in/b.flac").absolute().as_posix(), "b")]


def test_name_with_brackets_that_exists_is_no_pattern() -> None:
    make("take[1].wav", "take1.wav")

    assert find("take[1].wav") == [("take[1].wav", "take[1]")]
    make("live[2]/a.wav")
    assert find("live[2]") == [("live[2]/a.wav", "a")]


def test_each_file_once_however_it_is_named() -> None:
    make("in/a.wav", "in/b.wav")

    assert find("in/b.wav", "in", "./in/../in/a.wav", "in/*.wav") == [
        ("in/b.wav", "b"),
        ("in/a.wav", "a"),
    ]


@needs_links
def test_each_file_once_also_through_links() -> None:
    make("in/a.wav")
    Path("in/b.wav").symlink_to("a.wav")
    os.link("in/a.wav", "in/c.wav")
    Path("in/same").symlink_to(Path("in").absolute(), target_is_directory=True)

    assert find("in", recursive=True) == [("in/a.wav", "a")]


def test_neighbours_of_one_name_carry_their_extensions() -> None:
    make("in/x.wav", "in/x.flac", "in/y.wav", "in/X.MP3")

    expected = [
        ("in/X.MP3", "X.MP3"),
        ("in/x.flac", "x.flac"),
        ("in/x.wav", "x.wav"),
        ("in/y.wav", "y"),
    ]
    assert find("in") == expected
    assert sorted(find("in/y.wav", "in/x.wav", "in/X.MP3", "in/x.flac")) == expected


def test_extension_that_is_another_files_name() -> None:
    make("in/x.wav", "in/x.flac", "in/x.wav.mp3")

    assert find("in") == [
        ("in/x.flac", "x.flac"),
        ("in/x.wav", "x.wav"),
        ("in/x.wav.mp3", "x.wav.mp3"),
    ]


def test_searched_folders_tell_their_recordings_apart() -> None:
    make("a/x.wav", "b/x.wav", "b/x.flac", "b/y.wav")

    assert find("a", "b") == [
        ("a/x.wav", "a/x"),
        ("b/x.flac", "x.flac"),
        ("b/x.wav", "b/x"),
        ("b/y.wav", "y"),
    ]
    assert sorted(find("b", "a")) == sorted(find("a", "b"))


def test_files_that_cannot_be_told_apart_are_refused() -> None:
    make("a/x.wav", "b/x.wav")

    with pytest.raises(ConfigError, match=r"a/x\.wav and b/x\.wav would write to the same stems"):
        find("a/x.wav", "b/x.wav")
    with pytest.raises(ConfigError, match="same stems"):
        find("a", template="{stem}.{ext}") and find("a", "b", template="{stem}.{ext}")


def test_spellings_that_some_system_takes_for_one() -> None:
    make("in/Caf\u00e9.wav", "in/cafe\u0301.flac")

    assert sorted(track for _, track in find("in")) == ["Caf\u00e9.wav", "cafe\u0301.flac"]


@pytest.mark.parametrize("name", ["..wav", "...wav", " .wav", "a..wav", ".wav"])
def test_odd_names(name: str) -> None:
    make(name)

    ((path, track),) = find(name)
    assert path == name
    assert track not in ("", ".", "..")


def test_names_come_out_safe(tmp_path: Path) -> None:
    track = PurePath("a: b", "con", "..")

    path = stem_path(DEFAULT_TEMPLATE, tmp_path, model="m", track=track, stem="s", ext="wav")

    assert path == tmp_path / "m" / "a_ b" / "con_" / "_" / "s.wav"
