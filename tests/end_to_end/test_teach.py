"""``unbraid teach``: from clips to a prompt that works, and everything that is refused."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from command_line import unbraid
from unbraid.apps.keep_lesson import refuse_taken
from unbraid.apps.teach import TeachOptions, teach
from unbraid.checkpoints import Bundle, Card, load_bundle, load_prompt, resolve_model, save_bundle
from unbraid.errors import AudioError, Cancelled, ConfigError, PromptError
from unbraid.mixing.textures import events, textures
from unbraid.models.waveform import WaveformModel
from unbraid.training.methods.prompt_tuning import TuningConfig
from unbraid.types import Step

RATE = 48_000
QUICK = TeachOptions(start="sfx", tuning=TuningConfig(num_steps=2, check_every=2))


@pytest.fixture(autouse=True)
def quick_and_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNBRAID_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("unbraid.apps.lesson_plan._CHECKS_PER_SCENE", 2)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for seed in range(3):
        soundfile.write(
            folder / f"bell{seed}.wav", events(1.5, RATE, 10 + seed)["bells"].numpy(), RATE
        )
    return folder


def test_a_prompt_comes_out_and_works_everywhere(tmp_path: Path, clips: Path) -> None:
    out = tmp_path / "taught"
    done = unbraid("teach", "door-bell", clips, "-o", out, "--steps", "2", "--start", "sfx")
    assert done.code == 0, done.stderr
    assert "dB before" in done.stdout
    assert "ended after 2 steps, the most it was to take" in done.stdout
    assert "at worst" in done.stdout
    assert "Use it: unbraid separate RECORDING -m mini --prompts speech,door-bell" in done.stdout
    stored = load_prompt(out / "door-bell.prompt.safetensors")
    assert stored.vectors.shape == (24, 48)
    assert (out / "door-bell.prompt.safetensors").stat().st_size < 10_000
    facts = stored.provenance
    assert [clip["name"] for clip in facts["clips"]] == ["bell0.wav", "bell1.wav", "bell2.wav"]
    assert facts["settings"]["held_back"] == 1
    assert facts["verdict"] in done.stdout
    assert facts["gain_error_db"] >= 0
    assert facts["absent_db"] <= facts["absent_worst_db"]
    page = (out / "door-bell.html").read_text()
    assert facts["verdict"][1:] in page

    assert "<audio" in page
    assert "data:image/png" in page
    assert "door-bell" in unbraid("prompts", "list").stdout

    mixture = tmp_path / "mix.wav"
    bell, noise = events(1.5, RATE, 13)["bells"], textures(1.5, RATE)["rain"]
    soundfile.write(mixture, (bell + noise).numpy(), RATE)
    done = unbraid("separate", mixture, "-o", tmp_path / "stems", "-p", "door-bell,sfx-mix")
    assert done.code == 0, done.stderr
    assert (tmp_path / "stems" / "mini" / "mix" / "door-bell.wav").is_file()

    again = unbraid("teach", "door-bell", clips, "-o", out)
    assert again.code == 3
    assert "exists already" in again.stderr
    # Before any work, and also where only upper and lower case differ.
    for name, flags, words in (
        ("door-bell", (), "'door-bell' is installed"),
        ("Door-Bell", (), "unbraid prompts remove door-bell"),
        ("Door-Bell", ("--overwrite",), "unbraid prompts remove door-bell"),
    ):
        elsewhere = unbraid("teach", name, clips, "-o", tmp_path / "other", *flags)
        assert elsewhere.code == 3
        assert words in elsewhere.error
        assert not (tmp_path / "other").exists()


def test_what_is_in_the_way_is_found_before_any_work(tmp_path: Path) -> None:
    bundle = load_bundle(resolve_model("mini"))
    (tmp_path / "file").touch()
    for overwrite in (False, True):
        with pytest.raises(AudioError, match="file: cannot be written"):
            refuse_taken("a", tmp_path / "file", bundle, install=True, overwrite=overwrite)
    (tmp_path / "Ding.html").touch()
    for name, overwrite in (("Ding", False), ("ding", False), ("ding", True)):
        with pytest.raises(PromptError, match=r"Ding\.html: exists already"):
            refuse_taken(name, tmp_path, bundle, install=False, overwrite=overwrite)
    refuse_taken("Ding", tmp_path, bundle, install=False, overwrite=True)
    refuse_taken("a", tmp_path / "new" / "folder", bundle, install=False, overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Ding.html", "file"]


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("speech", 3, "means something already"),
        ("music", 3, "means something already"),
        ("Speech", 3, "means something already"),
        ("residual", 3, "means something already"),
        ("../escape", 3, "name"),
        ("a,b", 3, "name"),
        ("", 3, "name"),
    ],
)
def test_names_that_will_not_do(
    tmp_path: Path, clips: Path, name: str, code: int, words: str
) -> None:
    done = unbraid("teach", name, clips, "-o", tmp_path / "taught")
    assert done.code == code
    assert words in done.stderr
    assert not (tmp_path / "taught").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--loss", "l3"], "choose snr or l1"),
        (["--vectors", "many"], "choose band or one"),
        (["--start", "nothing"], "unknown; choose nearest, random, or a prompt of the model: sp"),
        (["--start", "clips"], "no tagger to hear them with; choose nearest, random"),
        (["-m", "query-mini", "--start", "nearest"], "no prompt that could be the nearest; choose"),
        (["--minutes", "0"], "more than 0"),
        (["--minutes", "inf"], "at most"),
        (["--minutes", "1e300"], "at most"),
        (["--seed", "99999999999999999999"], "less than or equal"),
        (["--seed", "-1"], "greater than or equal"),
        (["--steps", "0"], "num_steps"),
        (["--background", "gone"], "no such folder"),
    ],
)
def test_flags_that_make_no_sense(
    tmp_path: Path, clips: Path, flags: list[str], words: str
) -> None:
    done = unbraid("teach", "bell", clips, "-o", tmp_path / "taught", *flags)
    assert done.code in (2, 3)
    assert words in done.stderr
    assert not (tmp_path / "taught").exists()


def test_the_model_and_its_other_prompts_stay_as_they_are(clips: Path) -> None:
    bundle = load_bundle(resolve_model("mini"))
    before = {name: tensor.clone() for name, tensor in bundle.model.state_dict().items()}
    lesson = teach(bundle, "bell", [clips], QUICK)
    for name, tensor in bundle.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    mixture = torch.randn(1, RATE, generator=torch.Generator().manual_seed(1))
    asked = torch.tensor([[0, 2]])
    with torch.no_grad():
        assert torch.equal(lesson.model(mixture, asked), bundle.model(mixture, asked))
    assert lesson.prompt.fingerprint


@pytest.fixture
def tiny(tiny_model: WaveformModel, tmp_path: Path) -> Bundle:
    return load_bundle(save_bundle(tiny_model, tmp_path / "tiny", Card("tiny", "CC0-1.0")))


@pytest.fixture
def noises(tmp_path: Path) -> Path:
    folder = tmp_path / "noises"
    folder.mkdir()
    for name in ("rain", "hum"):
        soundfile.write(folder / f"{name}.wav", textures(5.0, RATE)[name].numpy(), RATE)
    return folder


def test_the_same_seed_teaches_the_same_whatever_the_name(
    tiny: Bundle, clips: Path, noises: Path
) -> None:
    options = dataclasses.replace(QUICK, background=noises)
    first, again = (teach(tiny, name, [clips], options) for name in ("bell", "chime"))
    assert torch.equal(first.prompt.vectors, again.prompt.vectors)
    assert [check.score for check in first.checks] == [check.score for check in again.checks]
    assert [each.before_db for each in first.examples] == [
        each.before_db for each in again.examples
    ]


def test_minutes_that_are_given_are_used(tiny: Bundle, clips: Path, noises: Path) -> None:
    tuning = TuningConfig(num_steps=2, check_every=1)
    options = dataclasses.replace(QUICK, background=noises, tuning=tuning)
    short = teach(tiny, "bell", [clips], options)
    assert short.checks[-1].step == 2
    assert short.ended == "after 2 steps, the most it was to take"
    impatient = dataclasses.replace(tuning, patience=1)
    options = dataclasses.replace(options, minutes=0.05, fills_time=True, tuning=impatient)
    long = teach(tiny, "bell", [clips], options)
    assert long.checks[-1].step > 4
    # As many checks as there would be in a short one, or fewer if the time is over.
    assert len(long.checks) <= len(short.checks) + 1
    assert "0.05 min" in long.ended


def test_a_gain_within_two_standard_errors_is_called_none(
    tiny: Bundle, clips: Path, noises: Path
) -> None:
    lesson = teach(tiny, "bell", [clips], dataclasses.replace(QUICK, background=noises))
    example = lesson.examples[0]

    def verdict(*gains: float) -> str:
        examples = [
            dataclasses.replace(example, before_db=1.0, after_db=1.0 + gain) for gain in gains
        ]
        return dataclasses.replace(lesson, examples=tuple(examples)).verdict

    # The standard error of the mean of 0 and 2 is 1.
    assert verdict(0.0, 2.0) == "no clear gain: +1.0 ± 1.0 dB"
    assert verdict(2.0, 4.0) == "gain of +3.0 ± 1.0 dB"
    assert verdict(-2.0, -4.0) == "loss of -3.0 ± 1.0 dB"
    assert verdict(0.0, 0.0) == "no clear gain: +0.0 ± 0.0 dB"


def test_one_clip_is_enough_and_it_is_said(clips: Path) -> None:
    bundle = load_bundle(resolve_model("mini"))
    lesson = teach(bundle, "bell", [clips / "bell0.wav"], QUICK)
    assert lesson.num_held_back == 0
    assert any("one clip only" in warning for warning in lesson.warnings)


def test_backgrounds_of_ones_own(tmp_path: Path, clips: Path) -> None:
    bundle = load_bundle(resolve_model("mini"))
    folder = tmp_path / "noises"
    (folder / "speech").mkdir(parents=True)
    soundfile.write(folder / "room.wav", textures(3.0, RATE)["pink noise"].numpy(), RATE)
    soundfile.write(folder / "speech" / "talk.wav", 0.1 * np.sin(np.arange(RATE) / 30), RATE)
    options = TeachOptions(
        background=folder, start="random", vectors="one", tuning=TuningConfig(num_steps=1)
    )
    lesson = teach(bundle, "bell", [clips], options)
    assert lesson.prompt.vectors.shape == (1, 48)
    described = lesson.prompt.text("background")
    assert re.fullmatch(r"noises: 2 files, SHA-256 [0-9a-f]{64}", described)
    assert {example.background for example in lesson.examples} == {("speech",), ("background",)}
    assert any("too few and too short" in warning for warning in lesson.warnings)
    (folder / "speech").rename(folder / "chatter")
    with pytest.raises(ConfigError, match="chatter"):
        teach(bundle, "bell", [clips], options)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(AudioError, match="no recordings with sound"):
        teach(bundle, "bell", [clips], TeachOptions(background=empty))


def test_it_can_be_stopped_and_leaves_nothing(tmp_path: Path, clips: Path) -> None:
    def stop(step: Step) -> None:
        if step.name.startswith("teaching"):
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        teach(load_bundle(resolve_model("mini")), "bell", [clips], QUICK, stop)


def test_a_taken_name_is_refused_by_the_function_too(clips: Path) -> None:
    with pytest.raises(PromptError, match="my-vocals"):
        teach(load_bundle(resolve_model("mini")), "vocals", [clips], QUICK)
