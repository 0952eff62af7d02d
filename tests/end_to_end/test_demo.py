"""The demo from its sounds to its page, with a model that has learnt nothing."""

from __future__ import annotations

import importlib.util
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from unbraid.apps.demo import SCENES, DemoResult, mix_scene, run_demo
from unbraid.apps.demo_page import format_db
from unbraid.apps.separator import Separation, Separator
from unbraid.audio.decode import read
from unbraid.dsp.stft import StftConfig
from unbraid.errors import AudioError, Cancelled, PromptError
from unbraid.models.waveform import ModelConfig, build_model
from unbraid.types import Progress, SeparatedBlock, Waveform

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "src" / "unbraid" / "apps" / "assets"


@pytest.fixture(scope="module")
def separator() -> Separator:
    """Small enough to run the whole demo in a test, with weights that mean nothing."""

    def stack(frame_kernel: int) -> dict[str, object]:
        return {
            "num_blocks": 1,
            "dim": 16,
            "num_groups": 2,
            "num_heads": 2,
            "attention_dim": 16,
            "freq_feed_forward": [{"hidden_dim": 16, "kernel_size": 3}],
            "frame_feed_forward": [{"hidden_dim": 16, "kernel_size": frame_kernel}],
        }

    torch.manual_seed(0)
    network = {
        "codec": {"bands": "mel", "num_bands": 20},
        "cross_prompt": stack(1),
        "extraction": stack(3),
    }
    return Separator(build_model(ModelConfig("tuss", 48_000, StftConfig(2048, 1024), network)))


@pytest.fixture(scope="module")
def demo(
    separator: Separator, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DemoResult, list[Progress]]:
    calls: list[Progress] = []
    out_dir = tmp_path_factory.mktemp("demo") / "new" / "demo"
    return run_demo(separator, out_dir, calls.append), calls


@pytest.fixture(scope="module")
def result(demo: tuple[DemoResult, list[Progress]]) -> DemoResult:
    return demo[0]


class Page(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.players: list[dict[str, str | None]] = []
        self.tables: list[list[list[str]]] = []
        self.ids: list[str] = []
        self.language: str | None = None
        self._cell: list[str] | None = None
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        for key in ("src", "href"):
            if named.get(key):
                self.sources.append(str(named[key]))
        if "id" in named:
            self.ids.append(str(named["id"]))
        if tag == "html":
            self.language = named.get("lang")
        elif tag == "img":
            self.images.append(named)
        elif tag == "audio":
            self.players.append(named)
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append("".join(self._cell).strip())
            self._cell = None


@pytest.fixture(scope="module")
def page(result: DemoResult) -> Page:
    return Page(result.page)


def si_sdr_by_hand_db(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Le Roux et al. 2019, equation 3, once more and in double precision."""
    estimate, reference = estimate - estimate.mean(), reference - reference.mean()
    target = (estimate @ reference) / (reference @ reference) * reference
    return float(10 * np.log10((target @ target) / np.sum((estimate - target) ** 2)))


def samples_of(path: Path) -> np.ndarray:
    return read(path).samples[0].double().numpy()


def all_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------ the scenes


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_scene_has_sensible_levels(scene: object) -> None:
    mixture, references = mix_scene(scene)
    assert mixture.samples.abs().max() < 10 ** (-3 / 20), "head room"
    assert torch.equal(mixture.samples[0], references.sum(dim=0))
    rms_db = 10 * references.square().mean(dim=1).log10()
    assert rms_db.min() > -40, "nobody is inaudible"
    assert rms_db.max() - rms_db.min() < 12, "nobody drowns"


def test_no_clip_is_cut_off() -> None:
    for scene in SCENES:
        for source in scene.sources:
            for clip in source.clips:
                end_s = clip.start_s + read(ASSETS / f"{clip.asset}.flac").duration_s
                assert end_s <= scene.duration_s + 1e-6


def test_assets_are_small_and_all_used() -> None:
    files = list(ASSETS.glob("*.flac"))
    used = {clip.asset for scene in SCENES for source in scene.sources for clip in source.clips}
    assert {file.stem for file in files} == used
    assert sum(file.stat().st_size for file in files) < 1_500_000


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location(
        "make_demo_scene", ROOT / "examples" / "make_demo_scene.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["effects", "drums", "bass", "other"])
def test_committed_sound_is_what_the_script_makes(
    script: ModuleType, tmp_path: Path, name: str
) -> None:
    script.make_sound(name, tmp_path)
    made, committed = samples_of(tmp_path / f"{name}.flac"), samples_of(ASSETS / f"{name}.flac")
    # Another machine's sine may round differently here and there: one step of 12 bits.
    assert np.max(np.abs(made - committed)) <= 2.0**-11


# ------------------------------------------------------------------ the files


def test_every_scene_is_scored(result: DemoResult) -> None:
    assert [row[0] for row in result.rows] == [
        "at-the-door/speech",
        "at-the-door/sfx-mix",
        "at-the-door/music-mix",
        "the-band/drums",
        "the-band/bass",
        "the-band/other",
        "two-at-once/speech_1",
        "two-at-once/speech_2",
    ]
    for _, before_db, after_db, improvement_db in result.rows:
        assert improvement_db == pytest.approx(after_db - before_db)
    assert result.real_time_factor > 0


def test_mixture_is_the_sum_of_the_references(result: DemoResult) -> None:
    for scene in result.scenes:
        folder = result.page.parent / scene.scene.name
        total = sum(samples_of(path) for path in sorted(folder.glob("*-reference.wav")))
        mixture = samples_of(folder / "mixture.wav")
        # Each of the files was rounded to 16 bits by itself, half a step at most.
        num_files = len(scene.scores) + 1
        assert np.max(np.abs(mixture - total)) <= num_files * 0.5 * 2.0**-15 + 1e-9
        null_db = 10 * np.log10(np.sum((mixture - total) ** 2) / np.sum(mixture**2))
        assert null_db < -60


def test_scores_are_those_of_the_written_files(result: DemoResult) -> None:
    for scene in result.scenes:
        folder = result.page.parent / scene.scene.name
        mixture = samples_of(folder / "mixture.wav")
        for score in scene.scores:
            reference = samples_of(folder / f"{score.name}-reference.wav")
            estimate = samples_of(folder / f"{score.name}-estimate.wav")
            assert score.before_db == pytest.approx(si_sdr_by_hand_db(mixture, reference), abs=0.05)
            # Estimates of an untrained model are anything; rounding may weigh more there.
            if abs(score.after_db) < 30:
                assert score.after_db == pytest.approx(
                    si_sdr_by_hand_db(estimate, reference), abs=0.2
                )


def test_stems_are_as_long_as_the_mixture(result: DemoResult) -> None:
    for scene in result.scenes:
        folder = result.page.parent / scene.scene.name
        lengths = {read(path).num_samples for path in folder.glob("*.wav")}
        assert lengths == {round(scene.scene.duration_s * 48_000)}


def test_pictures_show_something(result: DemoResult) -> None:
    pictures = sorted(result.page.parent.rglob("*.png"))
    assert len(pictures) == 2 * 8 + 3
    for picture in pictures:
        pixels = imread(picture)
        assert min(pixels.shape[:2]) >= 300
        if not picture.name.endswith("-estimate.png"):
            # A picture of silence, with its labels, has a standard deviation of 0.135.
            assert pixels[..., :3].std() > 0.17, picture.name


# ------------------------------------------------------------------ the page


def test_page_names_every_file_and_no_other(result: DemoResult, page: Page) -> None:
    assert set(page.sources) == all_files(result.page.parent) - {"index.html"}
    assert len(page.sources) == len(set(page.sources))


def test_page_needs_nothing_from_elsewhere(page: Page) -> None:
    for word in ("http:", "https:", "//", "@import", "url(", "<script", "<link", "$"):
        assert word not in page.text


def test_page_says_the_numbers_of_the_result(result: DemoResult, page: Page) -> None:
    assert len(page.tables) == len(result.scenes)
    for scene, (_, *rows) in zip(result.scenes, page.tables, strict=True):
        assert rows == [
            [
                score.name,
                format_db(score.before_db),
                format_db(score.after_db),
                format_db(score.improvement_db, signed=True),
            ]
            for score in scene.scores
        ]


def test_page_is_for_everybody(page: Page) -> None:
    assert page.language == "en"
    assert all(image.get("alt") for image in page.images)
    assert all(player.get("aria-label") and "controls" in player for player in page.players)
    labels = [player["aria-label"] for player in page.players]
    assert len(labels) == len(set(labels))
    assert len(page.ids) == len(set(page.ids))
    assert "prefers-color-scheme: dark" in page.text
    assert "width=device-width" in page.text


def test_numbers_have_a_real_minus_sign() -> None:
    assert format_db(-3.16) == "\N{MINUS SIGN}3.2"
    assert format_db(-0.04, signed=True) == "+0.0"
    assert format_db(12.345, signed=True) == "+12.3"


# ------------------------------------------------------------------ behaviour


def test_progress_runs_over_all_scenes(demo: tuple[DemoResult, list[Progress]]) -> None:
    result, calls = demo
    total_s = sum(scene.scene.duration_s for scene in result.scenes)
    done = [call.done_s for call in calls]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(total_s)
    assert {call.total_s for call in calls} == {total_s}


def test_swapped_talkers_are_recognised(
    separator: Separator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = SCENES[2]

    def perfect_but_swapped(waveform: Waveform, prompts: object, **_: object) -> Separation:
        _, references = mix_scene(two)
        block = SeparatedBlock(waveform.samples, references.flip(0)[:, None], torch.zeros(2, 0))
        return Separation(block, two.prompts, waveform.sample_rate)

    monkeypatch.setattr(separator, "separate", perfect_but_swapped)
    result = run_demo(separator, tmp_path / "demo", scenes=[two])
    assert all(after_db > 60 for _, _, after_db, _ in result.rows)


@pytest.fixture
def earlier_demo(tmp_path: Path) -> Path:
    out_dir = tmp_path / "demo"
    (out_dir / SCENES[0].name).mkdir(parents=True)
    (out_dir / "index.html").write_text("an earlier page")
    (out_dir / SCENES[0].name / "mixture.wav").write_text("an earlier mixture")
    (out_dir / "mine.txt").write_text("something of the user's")
    return out_dir


def test_interrupted_demo_changes_nothing(separator: Separator, earlier_demo: Path) -> None:
    before = {name: (earlier_demo / name).read_bytes() for name in all_files(earlier_demo)}

    first, second = SCENES[2], SCENES[0]

    def stop_in_the_second_scene(progress: Progress) -> None:
        if progress.done_s > first.duration_s:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        run_demo(separator, earlier_demo, stop_in_the_second_scene, [first, second])
    assert {n: (earlier_demo / n).read_bytes() for n in all_files(earlier_demo)} == before
    assert list(earlier_demo.parent.iterdir()) == [earlier_demo]


def test_second_demo_replaces_the_first_and_keeps_other_files(
    separator: Separator, earlier_demo: Path
) -> None:
    result = run_demo(separator, earlier_demo, scenes=SCENES[2:])
    assert "earlier" not in result.page.read_text(encoding="utf-8")
    assert (earlier_demo / "mine.txt").read_text() == "something of the user's"
    assert list(earlier_demo.parent.iterdir()) == [earlier_demo]


def test_file_in_the_way_is_one_clear_error(separator: Separator, tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file")
    with pytest.raises(AudioError, match="demo: cannot be written"):
        run_demo(separator, tmp_path / "demo")
    assert (tmp_path / "demo").read_text() == "a file"


def test_model_without_the_prompts_writes_nothing(
    separator: Separator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Separation:
        raise PromptError("This model does not know 'drums'.")

    monkeypatch.setattr(separator, "separate", refuse)
    with pytest.raises(PromptError):
        run_demo(separator, tmp_path / "demo")
    assert not list(tmp_path.iterdir())
