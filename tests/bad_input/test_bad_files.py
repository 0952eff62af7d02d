"""Recordings that cannot be read, and places that cannot be written.

Each gives one clear line, the documented exit code, no traceback, no half-written file.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from command_line import files_below, noise, unbraid, write_audio
from full_disk import limit_files

AUDIO_ERROR = 4


def missing(folder: Path) -> Path:
    return folder / "missing.wav"


def folder_without_recordings(folder: Path) -> Path:
    (folder / "songs.wav").mkdir()
    return folder / "songs.wav"


def empty(folder: Path) -> Path:
    (folder / "empty.wav").touch()
    return folder / "empty.wav"


def text_renamed(folder: Path) -> Path:
    path = folder / "text.wav"
    path.write_text("These are the lyrics, not the song.\n" * 40)
    return path


def truncated_flac(folder: Path) -> Path:
    path = folder / "truncated.flac"
    soundfile.write(path, noise(96_000), 48_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def not_a_number(folder: Path) -> Path:
    path = folder / "nan.wav"
    samples = noise(48_000)
    samples[24_000] = np.nan
    soundfile.write(path, samples, 48_000, subtype="FLOAT")
    return path


def infinite(folder: Path) -> Path:
    path = folder / "inf.wav"
    samples = noise(48_000)
    samples[24_000, 1] = np.inf
    soundfile.write(path, samples, 48_000, subtype="FLOAT")
    return path


BAD_FILES = {
    missing: "no such file",
    folder_without_recordings: "no recording is in this folder",
    empty: "is empty",
    text_renamed: "not an audio file",
    truncated_flac: "damaged at about",
    not_a_number: "0.5",
    infinite: "0.5",
}


@pytest.mark.parametrize(
    ("make", "words"), BAD_FILES.items(), ids=[make.__name__ for make in BAD_FILES]
)
def test_bad_recording(tmp_path: Path, bundle: Path, make, words: str) -> None:
    path = make(tmp_path)
    before = files_below(tmp_path)

    outcome = unbraid("separate", path, "-m", bundle, "-o", tmp_path / "out")

    assert outcome.code == AUDIO_ERROR
    assert str(path) in outcome.error
    assert words in outcome.error
    assert files_below(tmp_path) == before


def test_the_other_recordings_are_separated(tmp_path: Path, bundle: Path) -> None:
    good = [write_audio(tmp_path / f"good-{number}.wav") for number in (1, 2)]
    bad = truncated_flac(tmp_path)

    outcome = unbraid(
        "separate", good[0], bad, good[1], "-m", bundle, "-o", tmp_path / "out", "--json"
    )

    assert outcome.code == AUDIO_ERROR
    assert "truncated.flac" in outcome.error
    statuses = [result["status"] for result in outcome.results]
    assert statuses == ["written", "failed", "written"]
    assert outcome.results[1]["error"]["kind"] == "AudioError"
    assert sorted(path.name for path in (tmp_path / "out" / "tiny").iterdir()) == [
        "good-1",
        "good-2",
    ]


UNUSUAL = [
    (0, 48_000, 2),
    (1, 48_000, 2),
    (3, 48_000, 1),
    (1, 44_100, 1),
    (3, 8_000, 2),
    (4_001, 8_000, 1),
    (20_011, 192_000, 2),
]


@pytest.mark.parametrize(
    ("num_samples", "rate", "num_channels", "flag"),
    [(*form, flag) for form in UNUSUAL for flag in ("--wav", "--flac")]
    + [(4_800, 48_000, 32, "--wav")],
)
def test_unusual_but_legitimate(
    tmp_path: Path, bundle: Path, num_samples: int, rate: int, num_channels: int, flag: str
) -> None:
    path = write_audio(tmp_path / "a.wav", num_samples, rate=rate, num_channels=num_channels)

    outcome = unbraid(
        "separate", path, "-m", bundle, "-o", tmp_path / "out", "-p", "speech,speech", "--residual",
        flag, "--json",
    )  # fmt: skip

    assert outcome.code == 0
    assert outcome.stderr == ""
    (result,) = outcome.results
    assert list(result["stems"]) == ["speech_1", "speech_2", "residual"]
    for stem in result["stems"].values():
        # libsndfile takes a FLAC without samples for one of unknown length.
        if num_samples or flag == "--wav":
            info = soundfile.info(stem)
            found = (info.frames, info.samplerate, info.channels)
            assert found == (num_samples, rate, num_channels)
        assert Path(stem).stat().st_size > 0


def test_more_channels_than_flac_holds(tmp_path: Path, bundle: Path) -> None:
    path = write_audio(tmp_path / "a.wav", num_channels=9)

    outcome = unbraid("separate", path, "-m", bundle, "-o", tmp_path / "out", "--flac")

    assert outcome.code == AUDIO_ERROR
    assert "8 channels at most" in outcome.error
    assert files_below(tmp_path) == ["a.wav"]


def test_name_that_is_too_long(tmp_path: Path, bundle: Path) -> None:
    path = write_audio(tmp_path / f"{'a' * 140}.wav")

    outcome = unbraid(
        "separate", path, "-m", bundle, "-o", tmp_path / "out",
        "--filename", "{track} {track} {stem}.{ext}",
    )  # fmt: skip

    assert outcome.code == AUDIO_ERROR
    assert "cannot be written" in outcome.error
    assert files_below(tmp_path) == [path.name]


def test_output_folder_is_a_file(tmp_path: Path, bundle: Path) -> None:
    path = write_audio(tmp_path / "a.wav")
    (tmp_path / "out").write_text("in the way")

    outcome = unbraid("separate", path, "-m", bundle, "-o", tmp_path / "out")

    assert outcome.code == AUDIO_ERROR
    assert "cannot be written" in outcome.error
    assert files_below(tmp_path) == ["a.wav", "out"]


def test_no_permission_to_write(tmp_path: Path, bundle: Path) -> None:
    if os.geteuid() == 0:
        # Even root can create nothing in there.
        out = Path("/proc/self/stems")
    else:
        out = tmp_path / "locked"
        out.mkdir()
        out.chmod(0o500)
    path = write_audio(tmp_path / "a.wav")

    outcome = unbraid("separate", path, "-m", bundle, "-o", out)

    assert outcome.code == AUDIO_ERROR
    assert "cannot be written" in outcome.error


@pytest.mark.parametrize("complains", [True, False])
def test_disk_full(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, complains: bool
) -> None:
    path = write_audio(tmp_path / "a.wav")
    limit_files(monkeypatch, 3000, complains)

    outcome = unbraid("separate", path, "-m", bundle, "-o", tmp_path / "out")

    assert outcome.code == AUDIO_ERROR
    assert "cannot be written" in outcome.error
    assert files_below(tmp_path) == ["a.wav"]


def test_disk_full_at_the_sidecar_takes_the_stems_back(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unbraid.apps import separate_files
    from unbraid.errors import AudioError

    write_whole = separate_files.write_whole

    def refuse(path: Path, content: bytes) -> None:
        if path.name != "separation.json":
            write_whole(path, content)
            return
        raise AudioError(f"{path}: cannot be written (No space left on device).")

    path = write_audio(tmp_path / "a.wav")
    monkeypatch.setattr(separate_files, "write_whole", refuse)

    outcome = unbraid("separate", path, "-m", bundle, "-o", tmp_path / "out")

    assert outcome.code == AUDIO_ERROR
    assert "separation.json" in outcome.error
    assert files_below(tmp_path) == ["a.wav"]
