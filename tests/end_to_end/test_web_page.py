"""The page in a browser: headless Chromium of the system, driven by Playwright.

Pictures of what it looked like are kept in ``$UNBRAID_SCREENSHOTS``, or ``build/screenshots``.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from command_line import unbraid
from conftest import ROOT
from unbraid.apps.demo import SCENES, mix_scene
from unbraid.audio import AudioFormat, write
from unbraid.checkpoints import load_prompt
from unbraid.mixing.textures import events

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
pytest.importorskip("gradio", reason="the page needs Gradio (extra [web])")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs the system's Chromium: apt-get install chromium", allow_module_level=True)

PICTURES = Path(os.environ.get("UNBRAID_SCREENSHOTS", ROOT / "build" / "screenshots"))
#: Everything is slow where others work on the machine, too.
PATIENCE_MS = 90_000
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@dataclass
class Served:
    """The page as a program of its own."""

    address: str
    process: subprocess.Popen[str]
    #: Where it keeps what visitors bring.
    temporary: Path

    @property
    def visitors(self) -> list[Path]:
        """The folders of those who are there."""
        return list(self.temporary.glob("unbraid-web-*/visitors/*"))


@contextmanager
def serving(folder: Path, *program: str) -> Iterator[Served]:
    temporary = folder / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, *program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, line
        yield Served(found[0], process, temporary)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()
    assert list(temporary.glob("unbraid-web-*")) == []


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    limits = ("--teach-minutes", "0.05", "--max-minutes", "30")
    with serving(folder, "-m", "unbraid", "web", "--device", "cpu", *limits) as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
            ],
        )
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, served: Served, **kind: Any) -> Iterator[Page]:
    """The page in a new window; it must load nothing from elsewhere and raise no error."""
    context = browser.new_context(**{"viewport": DESKTOP, "accept_downloads": True, **kind})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((served.address, "data:", "blob:"))
            else problems.append(request.url)
        ),
    )
    page.goto(served.address)
    page.wait_for_selector("#ub-picker li")
    yield page
    context.close()
    assert problems == []


def picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(PICTURES / f"{name}.png"), full_page=True)


def bring(page: Page, *files: Path, to: str = "#ub-file") -> None:
    page.set_input_files(f"{to} input[type=file]", [str(file) for file in files])


def separate(page: Page) -> None:
    page.click("#ub-go")
    page.wait_for_selector("#ub-mixer li, #ub-progress .ub-error")
    assert page.query_selector("#ub-progress .ub-error") is None, page.inner_text("#ub-progress")


def level(page: Page) -> float:
    """How far the meter shows, in percent."""
    width = page.evaluate("document.querySelector('.ub-meter i').style.width")
    return float(str(width).removesuffix("%") or 0)


def loudest(page: Page) -> float:
    """The most that the meter shows within half a second."""
    levels = []
    for _ in range(10):
        page.wait_for_timeout(50)
        levels.append(level(page))
    return max(levels)


def position(page: Page) -> float:
    return float(page.input_value(".ub-seek"))


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "scene.wav"
    mixture, _ = mix_scene(SCENES[0])
    write(path, mixture, AudioFormat("wav", "PCM_16"))
    return path


def test_from_a_mixture_to_stems_that_are_those_of_the_command_line(
    browser: Browser, served: Served, scene: Path, tmp_path: Path
) -> None:
    with visit(browser, served) as page:
        picture(page, "1-start")
        # There is no other way in than the page: that would get around its limits.
        interface = page.request.get(f"{served.address}gradio_api/info").json()
        assert interface["named_endpoints"] == interface["unnamed_endpoints"] == {}
        bring(page, scene)
        page.wait_for_selector("#ub-recording >> text=scene.wav")
        press(page, "One more speech")
        page.get_by_role("checkbox", name="music-mix").uncheck()
        page.get_by_role("checkbox", name="music-mix").check()
        page.click("#ub-go")
        page.wait_for_selector("[role=progressbar]")
        picture(page, "2-progress")
        page.wait_for_selector("#ub-mixer li")
        page.wait_for_timeout(500)
        picture(page, "3-stems")

        # Playing goes on, is heard, and obeys mute and solo.
        press(page, "Play")
        page.wait_for_function("Number(document.querySelector('.ub-seek').value) > 0.4")
        assert loudest(page) > 1
        picture(page, "4-playing")
        before = position(page)
        page.wait_for_timeout(500)
        assert position(page) > before
        for stem in ("speech_1", "speech_2", "sfx-mix", "music-mix"):
            press(page, f"Mute {stem}")
        page.wait_for_timeout(200)
        assert loudest(page) < 0.5
        press(page, "Solo the mixture")
        page.wait_for_timeout(200)
        assert loudest(page) > 1
        page.locator("#ub-mixer img").nth(1).click(position={"x": 5, "y": 5})
        press(page, "Pause")
        stopped = position(page)
        assert stopped < 3
        page.wait_for_timeout(300)
        assert position(page) == stopped

        # What is downloaded is what the command line writes, to the sample.
        done = unbraid(
            *("separate", scene, "-p", "speech,speech,sfx-mix,music-mix"),
            *("-o", tmp_path / "out", "--device", "cpu"),
        )
        assert done.code == 0, done.stderr
        for file in sorted((tmp_path / "out" / "mini" / "scene").glob("*.wav")):
            with page.expect_download() as coming:
                page.get_by_role("link", name=f"Download {file.stem},").click()
            ours, rate = soundfile.read(coming.value.path(), dtype="int32")
            theirs, same_rate = soundfile.read(file, dtype="int32")
            assert coming.value.suggested_filename == file.name
            assert rate == same_rate
            np.testing.assert_array_equal(ours, theirs)
        with page.expect_download() as coming:
            page.get_by_role("link", name="Download all").click()
        with zipfile.ZipFile(coming.value.path()) as archive:
            assert archive.testzip() is None
            assert {"speech_1.wav", "presence.csv", "separation.json"} <= set(archive.namelist())
        assert len(served.visitors) == 1
    deadline = time.monotonic() + 30
    while served.visitors and time.monotonic() < deadline:
        time.sleep(0.2)
    assert served.visitors == []


def test_on_a_phone_in_the_dark_by_keyboard_alone(
    browser: Browser, served: Served, scene: Path
) -> None:
    phone = {"viewport": PHONE, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
    with visit(browser, served, **phone, color_scheme="dark") as page:
        bring(page, scene)
        page.wait_for_selector("#ub-recording >> text=scene.wav")

        def tab_to(name: str) -> None:
            for _ in range(80):
                page.keyboard.press("Tab")
                if page.evaluate(
                    "name => { const e = document.activeElement;"
                    " const label = e.labels?.[0]?.querySelector('strong')?.innerText;"
                    " return [e.getAttribute('aria-label'), label, e.innerText].includes(name) }",
                    name,
                ):
                    return
            raise AssertionError(f"{name} cannot be reached with Tab")

        tab_to("sfx-mix")
        page.keyboard.press("Space")
        tab_to("How many music-mix")
        tab_to("Separate")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        page.keyboard.press("Enter")
        page.wait_for_selector("#ub-mixer li")
        assert page.locator("#ub-mixer li").count() == 3
        tab_to("Play")
        page.keyboard.press("Space")
        page.wait_for_function("Number(document.querySelector('.ub-seek').value) > 0.3")
        tab_to("Position")
        page.keyboard.press("ArrowRight")
        page.wait_for_function("Number(document.querySelector('.ub-seek').value) > 5")
        tab_to("Solo speech")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
        tab_to("Mute music-mix")
        page.wait_for_timeout(300)
        picture(page, "5-phone")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        small = page.evaluate(
            "[...document.querySelectorAll('#ub-mixer button, #ub-mixer a, #ub-go')]"
            ".filter(e => e.getBoundingClientRect().height < 36).map(e => e.innerText)"
        )
        assert small == []  # a finger needs some room


def test_what_takes_long_can_be_cancelled_and_errors_are_told(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    long, text = tmp_path / "long.flac", tmp_path / "letter.txt"
    rng = np.random.default_rng(0)
    soundfile.write(long, 0.1 * rng.standard_normal((20 * 60 * 48_000, 1)), 48_000)
    text.write_text("Dear reader")
    with visit(browser, served) as page:
        press(page, "Separate")
        page.wait_for_selector("#ub-progress >> text=nothing to separate yet")
        bring(page, text)
        page.wait_for_selector("#ub-recording .ub-error")
        told = page.inner_text("#ub-recording")
        assert "letter.txt" in told
        assert str(served.temporary) not in told
        picture(page, "6-error")
        bring(page, long)
        page.wait_for_selector("#ub-recording >> text=20:00")
        page.click("#ub-go")
        page.wait_for_selector("#ub-progress >> text=of 20:00")
        page.click("#ub-stop")
        page.wait_for_selector("#ub-progress >> text=Cancelled")
        assert page.is_enabled("#ub-go")
        (folder,) = served.visitors
        assert list((folder / "stems").iterdir()) == []
        # Who leaves in the middle stops the work as well.
        page.click("#ub-go")
        page.wait_for_selector("#ub-progress >> text=of 20:00")
    deadline = time.monotonic() + 60
    while served.visitors and time.monotonic() < deadline:
        time.sleep(0.2)
    assert served.visitors == []


def test_a_sound_is_taught_and_its_prompt_comes_along(
    browser: Browser, served: Served, scene: Path, tmp_path: Path
) -> None:
    clips = [tmp_path / f"bell{seed}.wav" for seed in range(3)]
    for seed, clip in enumerate(clips):
        soundfile.write(clip, events(1.0, 48_000, seed)["bells"].numpy(), 48_000)
    with visit(browser, served) as page:
        page.get_by_role("button", name="Teach it a sound").click()
        bring(page, *clips, to="#ub-clips")
        page.wait_for_selector("text=3 clips: bell0.wav, bell1.wav, bell2.wav")
        page.get_by_label("What to call it").fill("door-bell")
        page.click("#ub-teach")
        page.wait_for_selector("#ub-taught .ub-button, #ub-taught .ub-error", timeout=240_000)
        picture(page, "7-taught")
        assert page.get_by_role("checkbox", name="door-bell").is_checked()
        with page.expect_download() as coming:
            page.get_by_role("link", name="Download the prompt").click()
        prompt = tmp_path / coming.value.suggested_filename
        coming.value.save_as(prompt)
        assert load_prompt(prompt).name == "door-bell"
    with visit(browser, served) as page:
        assert page.get_by_role("checkbox", name="door-bell").count() == 0
        page.get_by_role("button", name="Teach it a sound").click()
        page.get_by_role("button", name="I have a prompt file").click()
        bring(page, prompt, to="#ub-prompt")
        page.wait_for_selector("#ub-picker >> text=door-bell")
        bring(page, scene)
        page.wait_for_selector("#ub-recording >> text=scene.wav")
        separate(page)
        assert page.get_by_role("link", name="Download door-bell,").count() == 1


def test_every_model_shows_its_licence_and_sound_can_be_recorded_here(
    browser: Browser, served: Served
) -> None:
    with visit(browser, served, permissions=["microphone"]) as page:
        options = page.locator("#ub-model option").all_inner_texts()
        assert any("tuss.medium.2-4src" in option and "AGPL-3.0" in option for option in options)
        page.select_option("#ub-model select", "tuss.medium.2-4src")
        page.wait_for_selector("text=Licence: AGPL-3.0-or-later.")
        page.get_by_label("I agree to its licence").wait_for()
        press(page, "Download this model")
        page.wait_for_selector("text=Tick that you agree")
        picture(page, "8-licence")
        page.select_option("#ub-model select", "mini")
        page.wait_for_selector("text=Licence: Apache-2.0.")
        page.get_by_role("tab", name="Microphone").click()
        page.get_by_role("button", name="Record").click()
        page.wait_for_timeout(1500)
        page.get_by_role("button", name="Stop").first.click()
        page.wait_for_selector("#ub-recording >> text=audio")
        assert page.query_selector(".ub-error") is None
        picture(page, "9-recorded")
        separate(page)


def test_the_space_runs_the_same_page_with_its_own_limits(browser: Browser, tmp_path: Path) -> None:
    with (
        serving(tmp_path, str(ROOT / "examples" / "space" / "app.py")) as space,
        visit(browser, space) as page,
    ):
        page.wait_for_selector("text=Up to 10 minutes and 200.0 MB.")
        page.select_option("#ub-model select", "tuss.medium.2-4src")
        page.wait_for_selector("text=unbraid models download tuss.medium.2-4src")
        assert page.get_by_role("button", name="Download this model").count() == 0
