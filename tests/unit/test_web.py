"""What the page does, without a browser: visitors, choices, separating, teaching, files."""

from __future__ import annotations

import io
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from command_line import unbraid, write_audio
from handmade_prompts import write_copy
from unbraid.apps.pictures import spectrogram_strip_png
from unbraid.checkpoints import load_prompt, resolve_model
from unbraid.cli import app
from unbraid.errors import (
    AudioError,
    Cancelled,
    CheckpointError,
    ConfigError,
    PromptError,
    UnbraidError,
)
from unbraid.mixing.textures import events
from unbraid.types import Progress, Step
from unbraid.web.choices import listed_folder, model_choices, prompt_choices
from unbraid.web.options import WebOptions
from unbraid.web.separating import Wishes, readable, separate, take_recording
from unbraid.web.teaching import show_examples, take_clips, take_prompt, teach_prompt
from unbraid.web.visitors import Visitor, Visitors
from unbraid.web.working import HowFar, Outcome, Pace, follow

pytest.importorskip("gradio", reason="the page needs Gradio (extra [web])")

from starlette.applications import Starlette
from starlette.testclient import TestClient

from unbraid.web import showing
from unbraid.web.files import routes, zip_stream
from unbraid.web.server import middleware

OPTIONS = WebOptions(device="cpu", max_minutes=1.0)
RATE = 48_000
MINI = resolve_model("mini")


def silent(report: HowFar) -> None:
    """Nobody looks at the reports."""


@pytest.fixture
def visitor(tmp_path: Path) -> Visitor:
    return Visitors(tmp_path / "page").of("session")


def uploaded(tmp_path: Path, name: str = "noise.wav", **kind: int) -> Path:
    """A file where Gradio puts what arrives: in a folder named after its content."""
    return write_audio(tmp_path / "uploads" / "digest" / name, **kind)


# ------------------------------------------------------------------ visitors


def test_everything_of_a_visitor_goes_when_they_leave(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path)
    first, second = visitors.of("one"), visitors.of("two")
    assert visitors.of("one") is first
    assert first.token != second.token
    take_recording(first, uploaded(tmp_path), OPTIONS)
    assert not (tmp_path / "uploads" / "digest").exists()
    visitors.leave("one")
    assert not first.folder.exists()
    assert visitors.with_token(first.token) is None
    assert visitors.with_token(second.token) is second
    with pytest.raises(ConfigError, match="reload"):
        visitors.of("one")
    visitors.leave_all()
    assert not second.folder.exists()
    assert len(visitors) == 0


def test_who_leaves_stops_the_work_and_takes_its_results_along(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path)
    visitor = visitors.of("session")
    entered = threading.Event()

    def work() -> None:
        with visitor.working():
            entered.set()
            assert visitor.cancel.wait(10)
            (visitor.folder / "late.wav").write_bytes(b"late")

    worker = threading.Thread(target=work)
    worker.start()
    assert entered.wait(10)
    with pytest.raises(ConfigError, match="already"), visitor.working():
        pass
    visitors.leave_all()
    worker.join(10)
    assert not visitor.folder.exists()
    with pytest.raises(Cancelled), visitor.working():
        pass


# ------------------------------------------------------------------ recordings


def test_recordings_are_taken_within_limits(tmp_path: Path, visitor: Visitor) -> None:
    upload = take_recording(visitor, uploaded(tmp_path, num_samples=24_000), OPTIONS)
    assert upload.info.duration_s == 0.5
    assert "noise.wav" in showing.upload_html(upload)
    long = uploaded(tmp_path, "long.wav", num_samples=61 * 8000, rate=8000)
    with pytest.raises(AudioError, match=r"long\.wav: is 1:01 long.*up to 1 minutes"):
        take_recording(visitor, long, OPTIONS)
    assert visitor.upload is None
    text = tmp_path / "uploads" / "x" / "<b>.txt"
    text.parent.mkdir()
    text.write_text("no sound")
    with pytest.raises(AudioError) as caught:
        take_recording(visitor, text, OPTIONS)
    told = readable(caught.value, visitor)
    assert str(visitor.folder) not in told
    assert "<b>" not in showing.message_html(told, is_error=True)
    with pytest.raises(AudioError, match="did not arrive"):
        take_recording(visitor, tmp_path / "gone.wav", OPTIONS)


def test_limits_that_make_no_sense_are_refused() -> None:
    for wrong in ({"max_size_mb": 0}, {"max_minutes": -1}, {"port": 70_000}, {"jobs": 0}):
        with pytest.raises(ConfigError):
            WebOptions(**wrong)  # type: ignore[arg-type]
    assert WebOptions().is_private
    assert WebOptions().host == "127.0.0.1"
    assert not WebOptions().is_shared
    assert WebOptions().may_download
    for public in (WebOptions(host="0.0.0.0"), WebOptions(is_shared=True)):
        assert not public.may_download


# ------------------------------------------------------------------ choices


def test_every_model_of_the_list_can_be_picked_and_says_its_licence() -> None:
    listed = {row["name"]: row for row in unbraid("models", "list", "--json").json}
    choices = {choice.name: choice for choice in model_choices()}
    assert choices.keys() == listed.keys()
    for name, choice in choices.items():
        assert choice.licence == listed[name]["licence"]
        assert choice.licence in choice.label
        assert choice.licence in showing.model_html(choice, OPTIONS)
    assert choices["mini"].is_here
    assert choices["mini"].about.count("48 kHz") == 1
    assert not choices["tuss.medium.2-4src"].is_here
    assert "models download tuss.medium.2-4src" in showing.model_html(
        choices["tuss.medium.2-4src"], WebOptions(host="0.0.0.0")
    )


def test_only_listed_models_can_be_asked_for(tmp_path: Path) -> None:
    for name in (str(tmp_path), "hf:owner/name", "tuss.medium.2-4src", "../mini"):
        with pytest.raises(CheckpointError, match="pick one of the list"):
            listed_folder(name)


def test_prompts_stand_in_the_order_in_which_models_are_asked(visitor: Visitor) -> None:
    choices = prompt_choices("mini", visitor)
    assert [choice.name for choice in choices][:3] == ["speech", "sfx", "sfx-mix"]
    assert choices[-1].name == "music-mix"
    ticked = showing.picked_counts(showing.picker_value(choices))
    assert ticked == {"speech": 1, "sfx-mix": 1, "music-mix": 1}
    assert prompt_choices("query-mini", visitor) == ()
    assert "Teach it a sound" in showing.picker_value(())["note"]


@pytest.mark.parametrize("sent", [None, [], {"prompts": [{}, 3, {"name": 1, "count": "x"}]}])
def test_nonsense_from_the_page_picks_nothing(sent: object) -> None:
    assert showing.picked_counts(sent) == {}
    assert showing.chosen_model(sent) == ""
    absurd = {"prompts": [{"name": "speech", "count": 10**9}]}
    assert showing.picked_counts(absurd) == {"speech": 8}


# ------------------------------------------------------------------ separating


def test_stems_are_those_of_the_command_line(tmp_path: Path, visitor: Visitor) -> None:
    recording = uploaded(tmp_path, "scene.wav", num_samples=30_000)
    same = tmp_path / "scene.wav"
    same.write_bytes(recording.read_bytes())
    reports: list[HowFar] = []
    take_recording(visitor, recording, OPTIONS)
    counts = {"speech": 2, "music-mix": 1}
    found = separate(visitor, Wishes("mini", counts, has_residual=True), OPTIONS, reports.append)
    done = unbraid(
        *("separate", same, "-p", "speech,speech,music-mix", "--residual"),
        *("-o", tmp_path / "out", "--device", "cpu"),
    )
    assert done.code == 0, done.stderr
    stems = ["speech_1", "speech_2", "music-mix", "residual"]
    assert [track.name for track in found.tracks] == ["mixture", *stems]
    assert found.command == (
        "unbraid separate scene.wav -m mini -p speech,speech,music-mix --residual"
    )
    for name in stems:
        ours = visitor.files[f"{name}.wav"].read_bytes()
        assert ours == (tmp_path / "out" / "mini" / "scene" / f"{name}.wav").read_bytes()
    assert {"separation.json", "presence.csv"} <= visitor.archive.keys()
    assert any(report.share for report in reports)
    shown = showing.mixer_value(found, visitor)
    assert [row["name"] for row in shown["tracks"]] == ["mixture", *stems]
    assert shown["tracks"][1]["sound"].startswith(f"visits/{visitor.token}/")
    assert 0 <= shown["tracks"][1]["score"] <= 1
    assert shown["tracks"][4]["score"] is None
    assert "4 stems" in " ".join(showing.separated_html(found, visitor).split())


def test_other_formats_have_a_wav_to_play(tmp_path: Path, visitor: Visitor) -> None:
    take_recording(visitor, uploaded(tmp_path, "scene.wav", num_samples=20_000), OPTIONS)
    found = separate(visitor, Wishes("mini", {"speech": 1}, "flac"), OPTIONS, silent)
    track = found.tracks[1]
    assert track.download == "speech.flac"
    kept, rate = soundfile.read(visitor.files["speech.flac"], dtype="int16")
    played = soundfile.read(visitor.files[track.sound], dtype="int16")[0]
    assert visitor.files[track.sound].suffix == ".wav"
    assert rate == RATE
    np.testing.assert_array_equal(played, kept)


def test_what_cannot_be_separated_is_said(tmp_path: Path, visitor: Visitor) -> None:
    with pytest.raises(ConfigError, match="nothing to separate"):
        separate(visitor, Wishes("mini", {"speech": 1}), OPTIONS, silent)
    take_recording(visitor, uploaded(tmp_path), OPTIONS)
    wrong: list[tuple[Wishes, type[UnbraidError], str]] = [
        (Wishes("mini", {}), PromptError, "nothing is ticked"),
        (Wishes("mini", {"speech": 9, "sfx": 8}), ConfigError, "too many"),
        (Wishes("mini", {"no-such": 1}), PromptError, "unknown prompt"),
        (Wishes("no-such", {"speech": 1}), CheckpointError, "pick one"),
    ]
    for wishes, kind, words in wrong:
        with pytest.raises(kind, match=words):
            separate(visitor, wishes, OPTIONS, silent)

    def stop(report: HowFar) -> None:
        visitor.cancel.set()

    with pytest.raises(Cancelled):
        separate(visitor, Wishes("mini", {"speech": 1}), OPTIONS, stop)
    assert list((visitor.folder / "stems").iterdir()) == []


# ------------------------------------------------------------------ teaching


@pytest.fixture
def bells(tmp_path: Path) -> list[Path]:
    paths = []
    for seed in range(2):
        path = tmp_path / "uploads" / str(seed) / "bell.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, events(1.0, RATE, seed)["bells"].numpy(), RATE)
        paths.append(path)
    return paths


@pytest.mark.slow
def test_a_taught_prompt_is_the_visitors_alone(
    tmp_path: Path, visitor: Visitor, bells: list[Path]
) -> None:
    clips = take_clips(visitor, bells)
    assert [clip.name for clip in clips] == ["bell.wav", "bell.wav"]
    options = WebOptions(device="cpu", teach_minutes=0.001)
    taught = teach_prompt(visitor, "mini", "door-bell", clips, options, silent)
    assert load_prompt(taught.prompt).name == "door-bell"
    assert "door-bell.prompt.safetensors" in showing.taught_html(taught, visitor)
    assert "door-bell" in [choice.name for choice in prompt_choices("mini", visitor)]
    assert "door-bell" not in unbraid("prompts", "list").stdout


def test_a_prompt_that_is_brought_is_the_visitors_alone(tmp_path: Path, visitor: Visitor) -> None:
    def brought(place: str) -> Path:
        return write_copy(tmp_path / "uploads" / place, MINI, "sfx", "door-bell")

    assert take_prompt(visitor, "mini", brought("one")) == "door-bell"
    assert take_prompt(visitor, "mini", brought("two")) == "door-bell"
    assert len(visitor.prompts) == 1
    names = [choice.name for choice in prompt_choices("mini", visitor)]
    assert names.index("sfx-mix") < names.index("door-bell") < names.index("music-mix")
    other = Visitors(tmp_path / "others").of("other")
    assert "door-bell" not in [choice.name for choice in prompt_choices("mini", other)]
    with pytest.raises(PromptError, match="another model"):
        take_prompt(visitor, "query-mini", brought("three"))

    take_recording(visitor, uploaded(tmp_path, "-my noise.wav"), OPTIONS)
    found = separate(visitor, Wishes("mini", {"speech": 1, "door-bell": 1}), OPTIONS, silent)
    assert [track.name for track in found.tracks] == ["mixture", "speech", "door-bell"]
    assert found.command == (
        "unbraid separate './-my noise.wav' -m mini -p speech,door-bell.prompt.safetensors"
    )


def test_a_model_with_a_tagger_is_asked_by_example(
    tmp_path: Path, visitor: Visitor, bells: list[Path]
) -> None:
    clips = take_clips(visitor, bells)
    assert show_examples(visitor, "query-mini", clips) == ("bell", "bell-2")
    assert [choice.name for choice in prompt_choices("query-mini", visitor)] == ["bell", "bell-2"]
    take_recording(visitor, uploaded(tmp_path), OPTIONS)
    found = separate(visitor, Wishes("query-mini", {"bell": 1}), OPTIONS, silent)
    assert [track.name for track in found.tracks] == ["mixture", "bell"]
    assert found.command == "unbraid separate noise.wav -m query-mini --query bell.wav"
    with pytest.raises(PromptError, match="cannot be asked by example"):
        show_examples(visitor, "mini", clips)


def test_lessons_that_cannot_be_are_refused(visitor: Visitor, bells: list[Path]) -> None:
    for name, clips, words in (("../up", bells, "name"), ("bell", [], "bring some clips")):
        with pytest.raises(PromptError, match=words):
            teach_prompt(visitor, "mini", name, clips, OPTIONS, silent)
    with pytest.raises(PromptError, match="bring a clip"):
        show_examples(visitor, "query-mini", [])
    with pytest.raises(CheckpointError):
        take_prompt(visitor, "mini", bells[0])


# ------------------------------------------------------------------ work that takes long


def test_work_reports_and_ends() -> None:
    reports = list(follow(lambda tell: tell(HowFar("half", 0.5)) or 7))
    assert reports[-1] == Outcome(7)
    assert reports[:-1] in ([], [HowFar("half", 0.5)])

    def refuse(tell: object) -> None:
        raise Cancelled("stopped")

    (outcome,) = follow(refuse)
    assert isinstance(outcome, Outcome)
    assert outcome.is_cancelled

    def stumble(tell: object) -> None:
        raise KeyError("unforeseen")

    with pytest.raises(KeyError):
        list(follow(stumble))


def test_the_pace_tells_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace("Separating")
    assert pace.of_audio(Progress(0.0, 80.0)).left_s is None
    now[0] += 10.0
    report = pace.of_audio(Progress(20.0, 80.0))
    assert (report.share, report.left_s) == (0.25, 30.0)
    page = showing.progress_html(report)
    assert 'aria-valuenow="25"' in page
    assert "0:20 of 1:20, about 0:31 left" in page
    assert pace.of_audio(Progress(20.0, None)).share is None
    assert pace.of_step(Step("learning", 1, 4, "mixtures")).amount == "1 of 4 mixtures"


# ------------------------------------------------------------------ files and pictures


@pytest.fixture
def client(tmp_path: Path) -> Iterator[tuple[TestClient, Visitors]]:
    visitors = Visitors(tmp_path / "page")
    with TestClient(Starlette(routes=routes(visitors))) as client:
        yield client, visitors


def test_files_are_served_to_who_knows_the_token(client: tuple[TestClient, Visitors]) -> None:
    browser, visitors = client
    visitor = visitors.of("session")
    path = visitor.folder / "a.wav"
    path.write_bytes(bytes(range(100)))
    visitor.files["a.wav"] = path
    visitor.archive = {"a.wav": path}
    found = browser.get(f"/visits/{visitor.token}/a.wav", headers={"Range": "bytes=10-19"})
    assert (found.status_code, found.content) == (206, bytes(range(10, 20)))
    whole = browser.get(f"/visits/{visitor.token}/stems.zip")
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert archive.testzip() is None
        assert archive.read("a.wav") == bytes(range(100))
    for wrong in ("nobody/a.wav", f"{visitor.token}/b.wav", f"{visitor.token}/..%2Fa.wav"):
        assert browser.get(f"/visits/{wrong}").status_code == 404
    visitors.leave("session")
    assert browser.get(f"/visits/{visitor.token}/a.wav").status_code == 404


@pytest.mark.parametrize(
    ("options", "is_checked"),
    [
        (WebOptions(), True),
        (WebOptions(host="::1"), True),
        (WebOptions(host="0.0.0.0"), False),
        (WebOptions(is_shared=True), False),
    ],
)
def test_a_page_of_this_machine_answers_to_its_own_name_only(
    options: WebOptions, is_checked: bool
) -> None:
    page = Starlette(middleware=middleware(options))
    with TestClient(page) as browser:
        for host, is_foreign in (
            ("evil.example", True),
            ("127.0.0.1.evil.example:7860", True),
            ("[::", True),
            ("127.0.0.1:7860", False),
            ("localhost", False),
            ("[::1]:7860", False),
        ):
            found = browser.get("/", headers={"Host": host})
            assert found.status_code == (403 if is_checked and is_foreign else 404), host
            assert "default-src 'self'" in found.headers["Content-Security-Policy"]


def test_a_zip_comes_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "big.wav"
    path.write_bytes(np.random.default_rng(0).bytes(3_000_000))
    pieces = list(zip_stream({"big.wav": path}))
    assert max(map(len, pieces)) < 1_200_000
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.read("big.wav") == path.read_bytes()


def test_strips_show_time_from_left_to_right_whatever_the_length() -> None:
    from matplotlib.image import imread

    quiet, loud = torch.zeros(1, 8000), torch.rand(1, 8000) - 0.5
    for num_quiet in (1, 70):
        blocks = [quiet] * num_quiet + [loud] * num_quiet
        content = spectrogram_strip_png(iter(blocks), 8000, 2.0 * num_quiet)
        picture = imread(io.BytesIO(content))[..., :3].sum(axis=2)
        assert picture.shape[0] == 180
        assert picture.shape[1] <= 1210
        middle = picture.shape[1] // 2
        assert picture[:, : middle - 8].max() < picture[90, middle + 8 :].min()
    assert imread(io.BytesIO(spectrogram_strip_png(iter([]), 8000, 0.0))).shape[0] == 180


# ------------------------------------------------------------------ the page and the command


def test_the_command_refuses_what_makes_no_sense() -> None:
    assert unbraid("web", "--max-minutes", "0").code == 2
    assert unbraid("web", "--port", "99999").code == 2
    assert unbraid("web", "--device", "cpu,cpu").code == 2


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "gradio"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("unbraid.web.page", "unbraid.web.server"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = CliRunner().invoke(app, ["web"])
    assert result.exit_code == 7
    assert "pip install 'unbraid[web]'" in result.stderr
