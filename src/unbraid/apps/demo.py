"""The demo: mix scenes of known sounds, take them apart, and show how well that went.

The sounds are our own (see ``assets/README.md``), so the references are exact and every
estimate can be measured against them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.demo_page import PageScene, PageSource, render_page
from unbraid.apps.pictures import spectrogram_picture, spectrogram_row
from unbraid.apps.separator import Separator
from unbraid.apps.whole_files import publish_folder, write_whole
from unbraid.audio import AudioFormat, write
from unbraid.audio.decode import read
from unbraid.dsp.levels import db_to_gain
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.assignment import assign_within_equal_prompts, gather_sources
from unbraid.objectives.measures import si_sdr_db
from unbraid.types import Progress, ProgressCallback, Waveform, stem_names

_ASSETS = Path(__file__).with_name("assets")
_SAMPLE_RATE = 48_000
_PAGE_NAME = "index.html"
_FORMAT = AudioFormat("wav", "PCM_16")  # what every browser plays


# ------------------------------------------------------------------ scenes as data


@dataclass(frozen=True)
class Clip:
    """One sound file, placed.

    Attributes:
        asset: Name of the file in ``assets``, without ``.flac``.
        gain_db: Level relative to the file.
        start_s: When it begins.
    """

    asset: str
    gain_db: float
    start_s: float = 0.0


@dataclass(frozen=True)
class SceneSource:
    """One source of a scene.

    Attributes:
        prompt: The prompt that should bring it out.
        clips: The sounds it is made of, added up.
        description: What is to be heard, for the page.
    """

    prompt: str
    clips: tuple[Clip, ...]
    description: str


@dataclass(frozen=True)
class Scene:
    """A mixture whose parts are known.

    Attributes:
        name: Folder name.
        title: Headline on the page.
        description: A sentence or two for the page.
        duration_s: Length; clips that run over are cut.
        sources: Its parts, in the order in which they are asked for.
    """

    name: str
    title: str
    description: str
    duration_s: float
    sources: tuple[SceneSource, ...]

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts of the sources."""
        return tuple(source.prompt for source in self.sources)


SCENES: tuple[Scene, ...] = (
    Scene(
        name="at-the-door",
        title="A knock at the door",
        description="Two people talk while it rains outside and music plays.",
        duration_s=12.0,
        sources=(
            SceneSource(
                "speech",
                (Clip("speech-woman", -3.0, 0.3), Clip("speech-man", -4.0, 5.7)),
                "A woman, then a man.",
            ),
            SceneSource(
                "sfx-mix",
                (Clip("effects", -4.0),),
                "Rain, knocks, a passing car, thunder and a bird.",
            ),
            SceneSource(
                "music-mix",
                (Clip("drums", -12.0), Clip("bass", -18.0), Clip("other", -15.0)),
                "Drums, bass, electric piano and guitar.",
            ),
        ),
    ),
    Scene(
        name="the-band",
        title="The band",
        description="The same music by itself, louder, taken apart into its instruments.",
        duration_s=12.0,
        sources=(
            SceneSource("drums", (Clip("drums", -4.0),), "Kick, snare, hats and a shaker."),
            SceneSource("bass", (Clip("bass", -10.0),), "An electric bass."),
            SceneSource("other", (Clip("other", -7.0),), "Electric piano, guitar and a pad."),
        ),
    ),
    Scene(
        name="two-at-once",
        title="Two at once",
        description="The two people again, speaking at the same time: one prompt, twice.",
        duration_s=6.5,
        sources=(
            SceneSource("speech", (Clip("speech-woman", -3.0, 0.6),), "The woman."),
            SceneSource("speech", (Clip("speech-man", -4.0, 0.2),), "The man."),
        ),
    ),
)


# ------------------------------------------------------------------ results


@dataclass(frozen=True)
class SourceScore:
    """How near one source came to its reference.

    Attributes:
        name: Stem name: the prompt, numbered where it repeats.
        before_db: SI-SDR of the unprocessed mixture, taken as the estimate.
        after_db: SI-SDR of the estimate.
    """

    name: str
    before_db: float
    after_db: float

    @property
    def improvement_db(self) -> float:
        """What the separation gained."""
        return self.after_db - self.before_db


@dataclass(frozen=True)
class SceneResult:
    """One scene, separated and measured.

    Attributes:
        scene: What was separated.
        scores: One per source, in the order of the scene.
        elapsed_s: Seconds that the separation took, without reading, writing and drawing.
    """

    scene: Scene
    scores: tuple[SourceScore, ...]
    elapsed_s: float


@dataclass(frozen=True)
class DemoResult:
    """What the demo did.

    Attributes:
        page: The page to open in a browser.
        scenes: One result per scene.
    """

    page: Path
    scenes: tuple[SceneResult, ...]

    @property
    def rows(self) -> tuple[tuple[str, float, float, float], ...]:
        """``(scene/stem, before_db, after_db, improvement_db)`` of every source."""
        return tuple(
            (
                f"{result.scene.name}/{score.name}",
                score.before_db,
                score.after_db,
                score.improvement_db,
            )
            for result in self.scenes
            for score in result.scores
        )

    @property
    def real_time_factor(self) -> float:
        """Seconds of computing per second of audio; below 1 is faster than real time."""
        return sum(result.elapsed_s for result in self.scenes) / sum(
            result.scene.duration_s for result in self.scenes
        )


# ------------------------------------------------------------------ the demo


def run_demo(
    separator: Separator,
    out_dir: Path,
    progress: ProgressCallback | None = None,
    scenes: Sequence[Scene] = SCENES,
) -> DemoResult:
    """Mix, separate, measure and show the scenes.

    Writes ``index.html`` and one folder per scene with ``mixture.wav``, the references,
    the estimates and their spectrograms. All of it is made in a temporary folder first
    and moved when it is complete, the page last; after an error or a cancellation nothing
    has changed. Files of an earlier demo are replaced.

    Args:
        separator: What separates; it has to know the prompts of the scenes.
        out_dir: Where everything goes; made where it does not exist.
        progress: Called with the seconds of audio done, over all scenes.
        scenes: What to separate.

    Raises:
        PromptError: If the model does not know a prompt of a scene.
        AudioError: If ``out_dir`` cannot be written.
    """
    total_s = sum(scene.duration_s for scene in scenes)
    done_s = 0.0
    results = []
    with publish_folder(out_dir) as folder:
        for scene in scenes:
            results.append(_run_scene(separator, scene, folder, _offset(progress, done_s, total_s)))
            done_s += scene.duration_s
        result = DemoResult(out_dir / _PAGE_NAME, tuple(results))
        write_whole(folder / _PAGE_NAME, _page_of(result, separator.model).encode())
    return result


def mix_scene(scene: Scene) -> tuple[Waveform, Float[Tensor, "source time"]]:
    """Build a scene: the mixture (one channel, 48 kHz) and the sources that it is the sum of."""
    num_samples = round(scene.duration_s * _SAMPLE_RATE)
    references = torch.zeros(len(scene.sources), num_samples)
    for track, source in zip(references, scene.sources, strict=True):
        for clip in source.clips:
            sound = read(_ASSETS / f"{clip.asset}.flac").samples[0] * db_to_gain(clip.gain_db)
            start = round(clip.start_s * _SAMPLE_RATE)
            room = track[start : start + len(sound)]
            room += sound[: len(room)]
    return Waveform(references.sum(dim=0, keepdim=True), _SAMPLE_RATE), references


def _run_scene(
    separator: Separator, scene: Scene, folder: Path, progress: ProgressCallback | None
) -> SceneResult:
    mixture, references = mix_scene(scene)
    started_s = time.perf_counter()
    separation = separator.separate(mixture, scene.prompts, progress=progress)
    elapsed_s = time.perf_counter() - started_s
    estimates = _in_order_of_references(
        separator, scene.prompts, separation.sources[:, 0].cpu(), references
    )
    before_db = si_sdr_db(mixture.samples.expand_as(references), references)
    after_db = si_sdr_db(estimates, references)
    names = stem_names(scene.prompts)
    _write_scene(folder / scene.name, names, mixture, references, estimates)
    scores = tuple(
        SourceScore(name, float(before), float(after))
        for name, before, after in zip(names, before_db, after_db, strict=True)
    )
    return SceneResult(scene, scores, elapsed_s)


def _in_order_of_references(
    separator: Separator,
    prompts: Sequence[str],
    estimates: Float[Tensor, "source time"],
    references: Float[Tensor, "source time"],
) -> Float[Tensor, "source time"]:
    """Exchange estimates that share a prompt so that they fit the references best.

    Which of two talkers comes first is nobody's decision, so no order is wrong.
    """
    fit_db = si_sdr_db(*torch.broadcast_tensors(estimates[:, None], references[None]))
    indices = separator.model.prompts.indices(prompts)
    assignment = assign_within_equal_prompts(-fit_db[None], indices[None].cpu())
    return gather_sources(estimates[None], assignment)[0]


def _write_scene(
    folder: Path,
    names: Sequence[str],
    mixture: Waveform,
    references: Float[Tensor, "source time"],
    estimates: Float[Tensor, "source time"],
) -> None:
    """Write the sounds and the pictures of one scene."""
    folder.mkdir()
    write(folder / "mixture.wav", mixture, _FORMAT)
    overview = [("Mixture", mixture)]
    for name, reference, estimate in zip(names, references, estimates, strict=True):
        for role, samples in (("reference", reference), ("estimate", estimate)):
            waveform = Waveform(samples[None], mixture.sample_rate)
            write(folder / f"{name}-{role}.wav", waveform, _FORMAT)
            spectrogram_picture(waveform, folder / f"{name}-{role}.png", f"{name}, {role}")
        overview.append((name, Waveform(estimate[None], mixture.sample_rate)))
    spectrogram_row(overview, folder / "overview.png")


def _offset(
    progress: ProgressCallback | None, done_s: float, total_s: float
) -> ProgressCallback | None:
    """Turn the progress of one scene into the progress of the whole demo."""
    if progress is None:
        return None
    return lambda scene: progress(Progress(done_s + scene.done_s, total_s))


def _page_of(result: DemoResult, model: WaveformModel) -> str:
    """Lay the results out for the page."""
    return render_page(
        [
            PageScene(
                folder=scene_result.scene.name,
                prompts=scene_result.scene.prompts,
                title=scene_result.scene.title,
                description=scene_result.scene.description,
                duration_s=scene_result.scene.duration_s,
                elapsed_s=scene_result.elapsed_s,
                sources=tuple(
                    PageSource(
                        name=score.name,
                        description=source.description,
                        before_db=score.before_db,
                        after_db=score.after_db,
                    )
                    for source, score in zip(
                        scene_result.scene.sources, scene_result.scores, strict=True
                    )
                ),
            )
            for scene_result in result.scenes
        ],
        num_parameters=model.num_parameters,
    )
