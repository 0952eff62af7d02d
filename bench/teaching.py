"""How well a sound is taught from a few clips: vectors, losses and starts compared.

Sounds are classes of effects of a manifest; clips to teach with come from its train split, and
what is taught is measured on recordings of its eval split: other clips of the sound, mixed with
speech, effects and music that nobody taught or was taught with. The same mixtures without the
sound tell how silent its stem is then: the median level relative to the mixture, and the highest.
``mini`` has heard the train split, the clips to teach with among them, as ``sfx`` among hundreds of
other effects.

    python bench/teaching.py [--manifest manifest.csv] [--clips 5] [--steps 200] [--sounds ...]
    python bench/teaching.py --curves    # how many clips, and how long?
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import soundfile
import torch

from material import RECIPE, SHARED, has_manifest
from unbraid.apps.example_clips import read_clip
from unbraid.apps.queries import mean_embedding
from unbraid.apps.teach import TeachOptions, teach
from unbraid.audio import read
from unbraid.checkpoints import Bundle, load_bundle, resolve_model
from unbraid.data.catalogue import open_pools, select
from unbraid.data.dynamic import MixtureBatch, render_batch
from unbraid.data.fixed import fixed_plans
from unbraid.data.manifest import Recording, read_manifest
from unbraid.folders import user_cache_dir
from unbraid.mixing.recipe import MixRecipe, Planner, Scene
from unbraid.models.inference import for_inference
from unbraid.models.taggers.htsat import Htsat
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.measures import si_sdr_db
from unbraid.training.recipe_files import load_recipe

SOUNDS = ("rooster", "dog_bark", "clock_tick")
NEW = "taught"
MAPPED = "mapped"
SCENES = (("speech", NEW), ("sfx", NEW), (NEW, "music-mix"))
PER_SCENE = 8

#: What is compared → options that differ from the default.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "one vector": {"vectors": "one"},
    "l1": {"loss": "l1"},
    "random start": {"start": "random"},
    "mapped start": {"start": MAPPED},
}
#: The curves: how many clips, and how long each of five; clips of ESC-10 have 5 s.
COUNTS = (1, 2, 5, 10, 20)
FEW = 5
LENGTHS_S = (0.25, 0.5, 1.0, 2.0)
WHOLE_S = 5.0
#: Recordings of each prompt that the map from what a tagger hears to prompts is made of.
PER_PROMPT = 12


def checks(
    manifest: Path, recordings: list[Recording], sound: str, model: WaveformModel
) -> list[MixtureBatch]:
    """Mixtures of the eval split with the sound in them."""
    kind = f"sfx/{sound}"
    pools = {
        NEW: [kind],
        "speech": ["speech/*"],
        "sfx": ["sfx/*", f"!{kind}", "!sfx/ambience_*", "!sfx/*crowd*"],
        "music-mix": ["music/mix*"],
    }
    rate = model.sample_rate
    clips, store = open_pools(manifest, recordings, pools, "eval", rate, user_cache_dir())
    recipe = MixRecipe(
        crop_s=3.0,
        gain_db=dict.fromkeys(pools, (-10.0, 0.0)),
        composed={},
        scenes=tuple(Scene(prompts) for prompts in SCENES),
    )
    plans = fixed_plans(Planner(recipe, clips), recipe.scenes, PER_SCENE, store.read, rate, 0)
    rows = {name: row for row, name in enumerate((*model.prompts.names, NEW))}
    return [
        render_batch((plan,), store.read, rate, rows) for some in plans.values() for plan in some
    ]


@torch.no_grad()
def gain_db(model: WaveformModel, batches: list[MixtureBatch]) -> float:
    """Mean SI-SDR improvement of the sound."""
    fast = for_inference(model)
    gains = []
    for batch in batches:
        place = int((batch.prompt_indices[0] == len(model.prompts.names) - 1).nonzero()[0])
        estimate = fast(batch.mixture, batch.prompt_indices)[0, place]
        reference = batch.references[0, place]
        before = si_sdr_db(batch.mixture[0], reference)
        gains.append(float(si_sdr_db(estimate, reference) - before))
    return fmean(gains)


@torch.no_grad()
def levels_when_absent_db(model: WaveformModel, batches: list[MixtureBatch]) -> list[float]:
    """Level of the sound's stem relative to the mixtures when these are without the sound."""
    fast = for_inference(model)
    levels = []
    for batch in batches:
        place = int((batch.prompt_indices[0] == len(model.prompts.names) - 1).nonzero()[0])
        mixture = batch.mixture - batch.references[:, place]
        estimate = fast(mixture, batch.prompt_indices)[0, place]
        ratio = estimate.square().sum() / mixture.square().sum()
        levels.append(10.0 * float(ratio.clamp_min(1e-12).log10()))
    return levels


def options(changes: Mapping[str, Any], steps: int) -> TeachOptions:
    changes = dict(changes)
    tuning = dataclasses.replace(
        TeachOptions().tuning, num_steps=steps, loss=changes.pop("loss", "snr")
    )
    return TeachOptions(minutes=60.0, tuning=tuning, **changes)


def prompt_map(
    model: WaveformModel, tagger: Htsat, manifest: Path, recordings: list[Recording]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """From what a tagger hears to the space of prompts: the ridge regression of the known ones.

    Its examples are the model's prompts, and what the tagger hears on average in recordings that
    the model has learned each of them from.
    """
    pools = select(recordings, load_recipe(RECIPE).data.pools, "train")
    heard = []
    for name in model.prompts.names:
        chosen = random.Random(0).sample(pools[name], min(PER_PROMPT, len(pools[name])))
        paths = [manifest.parent / row.path for row in chosen]
        heard.append(heard_in(paths, tagger))
    sounds, prompts = torch.stack(heard), model.prompts.weight.detach()
    centre, middle = sounds.mean(dim=0), prompts.mean(dim=0)
    alike = (sounds - centre) @ (sounds - centre).T
    ridge = 0.1 * alike.diagonal().mean() * torch.eye(len(sounds))
    weights = torch.linalg.solve(alike + ridge, prompts - middle)
    return lambda embedding: middle + (embedding - centre) @ (sounds - centre).T @ weights


def heard_in(paths: Sequence[Path], tagger: Htsat) -> torch.Tensor:
    clips = [read_clip(path, tagger.sample_rate).samples for path in paths]
    return mean_embedding(tagger, clips, tagger.sample_rate)


def measure(
    bundle: Bundle, tagger: Htsat, manifest: Path, sounds: list[str], clips: int, steps: int
) -> None:
    recordings = list(read_manifest(manifest))
    to_prompt = prompt_map(bundle.model, tagger, manifest, recordings)
    heads = (f"{clips} clips of", "prompt", "mixture + dB", *VARIANTS, "absent, before", "absent")
    print(f"| {' | '.join((*heads, 'seconds'))} |")
    print("|---" * (len(heads) + 1) + "|", flush=True)
    for sound in sounds:
        batches = checks(manifest, recordings, sound, bundle.model)
        paths = some_clips(manifest, recordings, sound, clips)
        cells = []
        seconds = []
        start = ""
        first_db = float("nan")
        absent = []
        mapped = to_prompt(heard_in(paths, tagger))[None]
        with_map = dataclasses.replace(bundle, model=bundle.model.with_prompts({MAPPED: mapped}))
        for name, changes in VARIANTS.items():
            # Where it is not asked for, nobody is to find it the nearest.
            knows = with_map if changes.get("start") == MAPPED else bundle
            lesson = teach(knows, NEW, paths, options(changes, steps))
            taught = bundle.model.with_prompts({NEW: lesson.prompt.vectors})
            cells.append(f"{gain_db(taught, batches):+.1f}")
            seconds.append(lesson.seconds)
            if name == "default":
                start = lesson.start
                row = bundle.model.prompts.names.index(start)
                vector = bundle.model.prompts.weight[row].detach()[None]
                first = bundle.model.with_prompts({NEW: vector})
                first_db = gain_db(first, batches)
                absent = [levels_when_absent_db(model, batches) for model in (first, taught)]
        cells += [f"{median(levels):.1f} ({max(levels):.1f})" for levels in absent]
        print(
            f"| {sound} | {start} | {first_db:+.1f} | {' | '.join(cells)} | {fmean(seconds):.0f} |",
            flush=True,
        )


@dataclasses.dataclass(frozen=True)
class Point:
    """Improvement of each sound, taught with so many clips of such a length."""

    count: int
    length_s: float
    gains_db: tuple[float, ...]

    @property
    def mean_db(self) -> float:
        """Mean over the sounds."""
        return fmean(self.gains_db)


def measure_curves(
    bundle: Bundle, manifest: Path, sounds: list[str], steps: int
) -> tuple[list[Point], list[Point]]:
    """Improvement against the number of clips, and against the length of each of five."""
    recordings = list(read_manifest(manifest))
    batches = {sound: checks(manifest, recordings, sound, bundle.model) for sound in sounds}
    print(f"| clips | {' | '.join(sounds)} | mean |")
    print("|---" * (len(sounds) + 2) + "|", flush=True)

    def point(count: int, length_s: float, folder: Path) -> Point:
        gains = []
        for sound in sounds:
            paths = some_clips(manifest, recordings, sound, count)
            if length_s < WHOLE_S:
                paths = [loudest_part(path, length_s, folder) for path in paths]
            lesson = teach(bundle, NEW, paths, options({}, steps))
            gains.append(gain_db(lesson.model, batches[sound]))
        found = Point(count, length_s, tuple(gains))
        cells = " | ".join(f"{gain:+.1f}" for gain in gains)
        print(f"| {count} of {length_s:g} s | {cells} | {found.mean_db:+.1f} |", flush=True)
        return found

    with tempfile.TemporaryDirectory() as folder:
        by_count = [point(count, WHOLE_S, Path(folder)) for count in COUNTS]
        shorter = [point(FEW, length_s, Path(folder)) for length_s in LENGTHS_S]
    return by_count, [*shorter, *(each for each in by_count if each.count == FEW)]


def draw(curves: tuple[list[Point], list[Point]], sounds: list[str], path: Path) -> None:
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    labels = ("clips of 5 s", f"seconds of each of {FEW} clips")
    for axis, curve, label in zip(axes, curves, labels, strict=True):
        places = [point.count if axis is axes[0] else point.length_s for point in curve]
        for number, sound in enumerate(sounds):
            gains = [point.gains_db[number] for point in curve]
            axis.plot(places, gains, marker="o", markersize=3, linewidth=1, alpha=0.6, label=sound)
        means = [point.mean_db for point in curve]
        axis.plot(places, means, marker="o", color="black", linewidth=2, label="mean")
        axis.set_xscale("log")
        axis.set_xticks(places, [f"{place:g}" for place in places])
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("SI-SDR improvement, dB")
    axes[0].set_ylim(bottom=0)
    axes[1].legend()
    figure.savefig(path, dpi=100)


def some_clips(manifest: Path, recordings: list[Recording], sound: str, count: int) -> list[Path]:
    """Clips of the train split; more of them hold the fewer."""
    pool = [row for row in recordings if row.kind == f"sfx/{sound}" and row.split == "train"]
    shuffled = random.Random(0).sample(pool, len(pool))
    return [manifest.parent / row.path for row in shuffled[:count]]


def loudest_part(path: Path, length_s: float, folder: Path) -> Path:
    """A file with the loudest stretch of a recording."""
    waveform = read(path)
    length = round(length_s * waveform.sample_rate)
    energy = waveform.samples[0].double().square().cumsum(0)
    start = int((energy[length:] - energy[:-length]).argmax())
    part = folder / f"{path.stem}-{length_s:g}.wav"
    samples = waveform.samples[:, start : start + length]
    soundfile.write(part, samples.T.numpy(), waveform.sample_rate, subtype="FLOAT")
    return part


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, default=SHARED / "data" / "manifest.csv")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--tagger", default="query-mini", help="model whose tagger is mapped")
    parser.add_argument("--clips", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--sounds", nargs="*", default=list(SOUNDS))
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--picture", type=Path, help="where to draw the curves")
    arguments = parser.parse_args()
    if not has_manifest(arguments.manifest):
        return
    bundle = load_bundle(resolve_model(arguments.model))
    tagger = load_bundle(resolve_model(arguments.tagger)).model.tagger
    if tagger is None:
        parser.error(f"--tagger {arguments.tagger}: has none")
    if arguments.curves:
        curves = measure_curves(bundle, arguments.manifest, arguments.sounds, arguments.steps)
        if arguments.picture is not None:
            draw(curves, arguments.sounds, arguments.picture)
        return
    measure(bundle, tagger, arguments.manifest, arguments.sounds, arguments.clips, arguments.steps)


if __name__ == "__main__":
    main()
