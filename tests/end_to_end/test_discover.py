"""``unbraid discover`` on our own sounds, and on what is no recording."""

import dataclasses
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import unbraid as package
from command_line import files_below, noise, unbraid, write_audio
from media_samples import Track, write_media
from tiny_slots import RATE, SMALL, STFT
from unbraid.apps.demo import SCENES, mix_scene
from unbraid.apps.discover import DiscoverOptions, discover, discover_file
from unbraid.audio import AudioFormat, probe, write
from unbraid.checkpoints import Card
from unbraid.config import dump
from unbraid.errors import AudioError, Cancelled
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.types import Progress, Waveform

MADE = ["discovery.json", "discovery.png", "presence.csv", "separation.json"]


@pytest.fixture
def tiny(tiny_model: WaveformModel, tmp_path: Path) -> Path:
    """A bundle of a model that nobody has calibrated."""
    return package.save_bundle(tiny_model, tmp_path / "tiny", Card("tiny", "CC0-1.0", "a test"))


def scene(path: Path, number: int, start_s: float, end_s: float) -> Path:
    mixture, _ = mix_scene(SCENES[number])
    rate = mixture.sample_rate
    samples = mixture.samples[:, round(start_s * rate) : round(end_s * rate)]
    write(path, Waveform(samples, rate), AudioFormat("flac", "PCM_16"))
    return path


def test_a_scene_of_our_own(tmp_path: Path) -> None:
    recording = scene(tmp_path / "at the door.flac", 0, 7.0, 10.0)
    outcome = unbraid("discover", recording, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    folder = tmp_path / "out" / "mini" / "at the door"
    record = json.loads((folder / "discovery.json").read_text())
    prompts = [source["prompt"] for source in record["sources"].values()]
    assert "speech" in prompts
    assert record["sureness"].keys() == {"speech", "sfx-mix", "music-mix"}
    assert files_below(folder) == sorted([*MADE, *(f"{name}.wav" for name in record["sources"])])
    for name, source in record["sources"].items():
        info = probe(folder / source["file"])
        assert (info.num_samples, info.num_channels) == (3 * 48_000, 1)
        assert name in outcome.stdout
        assert all(0.0 <= start_s < end_s <= 3.0 for start_s, end_s in source["intervals"])
        assert len(source["classes"]) == 3
    expected = f"unbraid separate '{recording}' --prompts {','.join(prompts)}"
    assert record["command"] == expected
    assert f"Separate it so: {expected}" in outcome.stdout
    assert unbraid("separate", recording, "--prompts", ",".join(prompts), "-o", tmp_path).code == 0


def test_from_python_stereo_and_shorter_than_a_chunk(tmp_path: Path, tiny: Path) -> None:
    stages = []

    def progress(stage: str, progress: Progress) -> None:
        stages.append(stage)

    recording = write_audio(tmp_path / "x.wav", 5000, rate=44_100)
    found = discover(recording, tiny, tmp_path / "out", progress=progress)
    assert list(dict.fromkeys(stages)) == ["listening", "trying prompts", "separating"]
    assert found.status == "written"
    assert len(found.sources) >= 1
    assert found.warnings == ("only 0.11 s of sound: that is too short to be sure of what it is",)
    assert found.picture.read_bytes().startswith(b"\x89PNG")
    for source in found.sources:
        info = probe(source.file)
        assert (info.num_samples, info.num_channels, info.sample_rate) == (5000, 2, 44_100)
    assert found.prompts == tuple(source.prompt for source in found.sources)
    assert package.discover is discover


def test_the_sound_of_a_video(tmp_path: Path, tiny: Path) -> None:
    sound = Track(noise(24_000, 2).T)
    video = write_media(tmp_path / "film.mp4", sound, video_s=0.5)
    found = discover(video, tiny, tmp_path / "out")
    assert found.sources
    for source in found.sources:
        assert probe(source.file).num_samples == probe(video).num_samples


def test_a_second_run_finds_it_done_and_another_threshold_does_not(
    tmp_path: Path, tiny: Path
) -> None:
    recording = write_audio(tmp_path / "x.wav")
    arguments = ("discover", recording, "-m", tiny, "-o", tmp_path / "out", "--json")
    first, second = unbraid(*arguments), unbraid(*arguments)
    assert first.json["status"] == "written"
    assert second.json | {"status": "written"} == first.json
    assert second.json["status"] == "skipped"
    Path(first.json["picture"]).unlink()
    assert unbraid(*arguments).json["status"] == "written"
    folder = Path(first.json["folder"])
    (folder / "mine.wav").write_text("not listed")
    for threshold in ("0.001", "0.999"):
        outcome = unbraid(*arguments, "--threshold", threshold)
        assert outcome.json["status"] == "written"
        files = {source["file"] for source in outcome.json["sources"].values()}
        assert set(files_below(folder)) == {*MADE, *files, "mine.wav"}
    assert len(files) == 1, "fewer than with the lower threshold"


def test_the_command_that_it_suggests_works(
    tmp_path: Path, tiny_model: WaveformModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = Path("deep", "my bundle")
    package.save_bundle(tiny_model, model, Card("mine", "CC0-1.0", "a test"))
    tracks = [Track(noise(4800 * number, 1).T) for number in (1, 2)]
    write_media(tmp_path / "-x.mkv", *tracks)
    found = discover("-x.mkv", str(model), track=2)
    assert found.command is not None
    words = shlex.split(found.command)
    assert words[:3] == ["unbraid", "separate", "./-x.mkv"]
    assert words[3:7] == ["-m", str(model), "--track", "2"]
    outcome = unbraid(*words[1:])
    assert outcome.code == 0, outcome.stderr
    (stem, *_) = Path("separated").rglob("*.wav")
    assert probe(stem).num_samples == found.record["num_samples"]
    again = discover(tmp_path / "-x.mkv", str(model.absolute()), track=2)
    assert again.status == "skipped"
    assert again.command is not None
    assert shlex.split(again.command)[2:5] == [
        str(tmp_path / "-x.mkv"),
        "-m",
        str(model.absolute()),
    ]


def test_a_recording_of_the_same_name_is_not_overwritten(tmp_path: Path, tiny: Path) -> None:
    mine, other = write_audio(tmp_path / "a" / "x.wav"), write_audio(tmp_path / "b" / "x.wav", 9999)
    arguments = ("-m", tiny, "-o", tmp_path / "out", "--quiet")
    assert unbraid("discover", mine, *arguments).code == 0
    outcome = unbraid("discover", other, *arguments)
    assert outcome.code == 2
    assert "of another recording" in outcome.error
    assert unbraid("discover", other, *arguments, "--overwrite").code == 0
    (tmp_path / "out" / "tiny" / "x" / "discovery.json").write_text("mine")
    assert "not ours" in unbraid("discover", other, *arguments).error


@pytest.mark.parametrize(
    ("samples", "is_nothing"),
    [
        (np.zeros((0, 2)), True),
        (np.zeros((48_000, 2)), True),
        (np.full((48_000, 2), 0.25), False),
        (2e-5 * noise(48_000), False),
        (noise(1), False),
    ],
    ids=["empty", "zeros", "constant", "below -80 dBFS", "one sample"],
)
def test_silence_holds_no_source(
    tmp_path: Path, tiny: Path, samples: np.ndarray, is_nothing: bool
) -> None:
    recording = tmp_path / "silence.wav"
    soundfile.write(recording, samples.astype(np.float32), 48_000, subtype="FLOAT")
    outcome = unbraid("discover", recording, "-m", tiny, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    assert "no sound is in it" in outcome.stdout
    assert ("counts as silence" in outcome.stderr) is not is_nothing
    folder = tmp_path / "out" / "tiny" / "silence"
    assert files_below(folder) == ["discovery.json", "discovery.png"]
    record = json.loads((folder / "discovery.json").read_text())
    assert (record["sources"], record["command"]) == ({}, None)


def test_a_song_is_taken_apart_where_a_model_knows_nothing_but_parts(
    tmp_path: Path, tiny_model: WaveformModel
) -> None:
    tiny_model.config = dataclasses.replace(tiny_model.config, prompts=("drums", "bass"))
    tiny_model.prompts = type(tiny_model.prompts)(("drums", "bass"), tiny_model.prompts.dim)
    recording = write_audio(tmp_path / "x.wav")
    found = discover_file(
        package.Separator(tiny_model), recording, tmp_path, DiscoverOptions("tiny", "0" * 64)
    )
    assert set(found.prompts) <= {"drums", "bass"}


def test_slots_are_sources_and_named_by_trying(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        "audio_slots",
        RATE,
        STFT,
        dump(SMALL),
        outputs=("source",) * 3,
        segment_s=1.0,
        overlap_s=0.25,
    )
    bundle = package.save_bundle(
        build_model(config).eval(), tmp_path / "slots", Card("slots", "CC0-1.0", "a test")
    )
    recording = tmp_path / "x.wav"
    soundfile.write(recording, noise(2000, 1), RATE)
    outcome = unbraid("discover", recording, "-m", bundle, "-o", tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.stderr
    sources = outcome.json["sources"]
    assert 1 <= len(sources) <= 3
    assert set(sources) <= {"source_1", "source_2", "source_3"}
    assert all(
        source["prompt"] in ("speech", "sfx-mix", "music-mix") and source["sureness"] is None
        for source in sources.values()
    )
    assert " -m " not in outcome.json["command"]


def test_what_is_no_recording(tmp_path: Path, tiny: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no sound")
    for path, word in ((text, "notes.txt"), (tmp_path / "missing.wav", "missing.wav")):
        outcome = unbraid("discover", path, "-m", tiny, "-o", tmp_path / "out")
        assert outcome.code == 4
        assert word in outcome.error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--threshold", "1.5"), 2, "between 0 and 1"),
        (("--threshold", "nan"), 2, "between 0 and 1"),
        (("--track", "0"), 2, "counted from 1"),
        (("--device", "cpu,cpu"), 2, "one device"),
        (("-m", "query-mini"), 3, "no prompt by name"),
        (("-m", "nothing-here"), 5, "nothing-here"),
    ],
)
def test_bad_flags(tmp_path: Path, flags: tuple[str, ...], code: int, words: str) -> None:
    outcome = unbraid("discover", write_audio(tmp_path / "x.wav"), "-o", tmp_path / "out", *flags)
    assert outcome.code == code
    assert words in outcome.error
    assert not (tmp_path / "out").exists()


def test_stopping_leaves_nothing(tmp_path: Path, tiny: Path) -> None:
    def stop(stage: str, progress: Progress) -> None:
        if stage == "separating":
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        discover(write_audio(tmp_path / "x.wav"), tiny, tmp_path / "out", progress=stop)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(AudioError, match="out"):
        discover(write_audio(tmp_path / "x.wav"), tiny, tmp_path / "out")
