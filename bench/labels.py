"""TUSS with few labels: from scratch, or with a body that learnt from recordings alone.

All clips of the train split are mixed in pairs to recordings, files like those that nobody has
taken apart. A body without prompts learns from them by Self-Remixing, by RemixIT and by MixIT,
each from scratch and for as many steps, and by Self-Remixing after MixIT, for twice as many. Its
weights become those of a TUSS (``unbraid models convert``), which then learns with references
from a share of the clips; so does a TUSS from scratch. All take the same steps on the same
mixtures, and are measured on the same mixtures of the eval split.

A crossover that cuts every recording at one frequency suits the remixing losses perfectly, and
tells no sources apart. So the first table says how much of what a body gives is a filter that never
changes, and what such filters are worth.

Shares are nested and drawn evenly over the classes of sound. What is left out of a share is never
heard alone, only in the recordings. A seed draws the share, what is fresh in the model, and the
mixtures; the pre-training is the same for all seeds.

    python bench/labels.py --out runs/labels [--seeds 0 1] [--picture labels.png]
    python bench/labels.py --out runs/labels --tables     # of what is finished

Every training is a folder of ``--out`` that ``unbraid train`` could go on with. What is finished is
left alone and what was stopped goes on, so start the same command again; several of them share
the work.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from functools import partial
from math import nan
from pathlib import Path
from statistics import fmean
from typing import Any

import soundfile
import torch
from torch import Tensor

from machine import describe_machine
from material import RECIPE, SEED, SHARED, has_manifest
from unbraid.apps.whole_files import write_whole
from unbraid.checkpoints import Card, load_bundle, save_bundle
from unbraid.checkpoints.bundle import CONFIG
from unbraid.checkpoints.conversion import tuss_from_unconditional
from unbraid.config import dump, read
from unbraid.data.catalogue import open_pools, select
from unbraid.data.dynamic import MixtureBatch, render_batch
from unbraid.data.fixed import fixed_plans
from unbraid.data.manifest import Recording, format_manifest, read_manifest
from unbraid.downloads import try_lock
from unbraid.dsp.stft import FftTransform, StftConfig
from unbraid.errors import ConfigError
from unbraid.evaluation.batches import best_si_sdr_db, mixture_si_sdr_db
from unbraid.evaluation.statistics import Interval, bootstrap_interval
from unbraid.mixing.recipe import MixRecipe, Planner, Scene
from unbraid.mixing.render import render
from unbraid.models.architectures.tuss import TussConfig
from unbraid.models.architectures.unconditional import UnconditionalConfig
from unbraid.models.waveform import ModelConfig, WaveformModel
from unbraid.nn.band_split import BandSplitConfig
from unbraid.nn.locoformer import FeedForwardConfig, LocoformerConfig
from unbraid.prompts import ANY_SOURCE
from unbraid.training.config import DataConfig, TrainConfig, ValidationConfig
from unbraid.training.methods.mixit import MixitConfig
from unbraid.training.methods.remixing import RemixingConfig, TeacherConfig
from unbraid.training.recipe_files import load_recipe, write_config
from unbraid.training.run import BUNDLE_DIR, learnt, open_material, train
from unbraid.training.schedule import OptimiserConfig

RATE = 8000
STFT = StftConfig(512, 256)
PROMPTS = ("speech", "sfx", "music-mix")
SCENES = (
    Scene(("speech", "sfx")),
    Scene(("speech", "music-mix")),
    Scene(("sfx", "music-mix")),
)
LEVELS_DB = (-6.0, 0.0)
CROP_S = 1.0
#: Length of the recordings, and of the mixtures to measure on.
LONG_S = 3.0


def _stack(frame_kernel: int) -> LocoformerConfig:
    return LocoformerConfig(
        num_blocks=1,
        dim=16,
        num_groups=4,
        num_heads=2,
        attention_dim=16,
        freq_feed_forward=(FeedForwardConfig(32, 3),),
        frame_feed_forward=(FeedForwardConfig(32, frame_kernel),),
    )


#: Kernels of 1 along frames where prompts and frames meet, before there are prompts as well.
TUSS = TussConfig(
    BandSplitConfig(
        bands="mel",
        num_bands=16,
        decoder_expansion=2,
        compression=0.4,
        magnitude_input=True,
        initial_mask="gate",
    ),
    cross_prompt=_stack(1),
    extraction=_stack(3),
)


@dataclass(frozen=True)
class Start:
    """What the body of a TUSS has learnt before.

    Attributes:
        title: What it is called in tables.
        method: How it learnt; None for not at all.
        num_outputs: Of the body. A recording has two sources, a sum of two recordings four.
        batch_size: Recordings per step. MixIT separates sums of two, so it needs twice as many
            for as many separations.
        after: The start whose body it goes on from; empty for none.
        more_steps: Whether it learns with references for so many more steps as others learn from
            recordings; then only from the smallest share.
    """

    title: str
    method: MixitConfig | RemixingConfig | None = None
    num_outputs: int = 0
    batch_size: int = 0
    after: str = ""
    more_steps: bool = False


#: Both shuffles from scratch; after MixIT only that of the batch, and the two loudest outputs, as
#: in the papers. The teacher begins as a copy, and follows within a hundredth of the run, as in
#: the released configurations (see ``pretraining``).
STARTS: Mapping[str, Start] = {
    "scratch": Start("scratch"),
    "self-remixing": Start("Self-Remixing", RemixingConfig(), num_outputs=2, batch_size=8),
    "remixit": Start(
        "RemixIT",
        RemixingConfig(remixit_weight=1.0, self_remixing_weight=0.0),
        num_outputs=2,
        batch_size=8,
    ),
    "mixit": Start("MixIT", MixitConfig(), num_outputs=4, batch_size=16),
    "mixit-self-remixing": Start(
        "MixIT, then Self-Remixing",
        RemixingConfig(channel_shuffle="none", num_sources=2),
        num_outputs=4,
        batch_size=8,
        after="mixit",
    ),
    "scratch-longer": Start("scratch, more steps", more_steps=True),
}
SCRATCH = "scratch"


@dataclass(frozen=True)
class Experiment:
    """What is trained, and where it is kept.

    Attributes:
        out: Folder of everything.
        manifest: Of the clips.
        starts: Names of ``STARTS``; each stands behind the one that it goes on from.
        shares: Of the clips that are labelled.
        seeds: Each share is learnt from once for each.
        steps: With references.
        pretraining_steps: From recordings.
        batch_size: Mixtures of a step with references.
        num_recordings: How many there are to pre-train on.
        mixtures_per_scene: How many to measure on.
        network: The TUSS.
    """

    out: Path
    manifest: Path
    starts: tuple[str, ...] = tuple(STARTS)
    shares: tuple[float, ...] = (0.05, 0.2, 1.0)
    seeds: tuple[int, ...] = (0,)
    steps: int = 1200
    pretraining_steps: int = 2000
    batch_size: int = 4
    num_recordings: int = 3000
    mixtures_per_scene: int = 40
    network: TussConfig = field(default=TUSS)

    def __post_init__(self) -> None:
        for number, name in enumerate(self.starts):
            if STARTS[name].after not in {"", *self.starts[:number]}:
                raise ConfigError(f"{name} goes on from {STARTS[name].after}: name that before it.")

    @property
    def cache(self) -> Path:
        """Decoded clips."""
        return self.out / "cache"

    @property
    def recordings(self) -> Path:
        """Manifest of the recordings to pre-train on."""
        return self.out / "recordings.csv"

    def labelled(self, share: float, seed: int) -> Path:
        """Manifest of the clips of a share."""
        return self.out / f"labelled-{100 * share:g}-seed-{seed}.csv"


# ------------------------------------------------------------------ clips


def pools() -> dict[str, tuple[str, ...]]:
    """Prompt → patterns of its clips. Single instruments count as music, too."""
    known = load_recipe(RECIPE).data.pools
    return {
        "speech": tuple(known["speech"]),
        "sfx": tuple(known["sfx"]),
        "music-mix": ("music/*", "music_stems/*"),
    }


def evenly_ordered(recordings: Sequence[Recording], seed: int) -> list[Recording]:
    """An order of which every beginning holds about the same share of each class.

    The clip at place k of the n of its class, in a random order, comes at (k + u) / n, where u is
    drawn for each class from 0 to 1. So a class of which a share would be less than one clip
    is there as often as that share says.
    """
    by_class = defaultdict(list)
    for recording in sorted(recordings, key=lambda each: each.key):
        by_class[recording.kind].append(recording)
    placed = []
    for kind, members in sorted(by_class.items()):
        rng = random.Random(f"{seed}/{kind}")
        offset = rng.random()
        shuffled = rng.sample(members, len(members))
        for rank, recording in enumerate(shuffled):
            placed.append(((rank + offset) / len(members), recording.key, recording))
    return [recording for _, _, recording in sorted(placed, key=lambda each: each[:2])]


def labelled_share(recordings: Sequence[Recording], share: float, seed: int) -> list[Recording]:
    """A share of a pool, at least one clip; smaller ones lie in larger ones.

    Raises:
        ConfigError: If it is no share.
    """
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"a share of labels lies above 0 and is at most 1, not {share:g}.")
    count = max(1, round(share * len(recordings)))
    return evenly_ordered(recordings, seed)[:count]


def write_labelled(experiment: Experiment) -> None:
    """A manifest for each share and seed, with all of the eval split."""
    folder = experiment.manifest.parent.resolve()
    rows = [replace(row, path=str(folder / row.path)) for row in read_manifest(experiment.manifest)]
    eval_rows = [row for chosen in select(rows, pools(), "eval").values() for row in chosen]
    for seed in experiment.seeds:
        for share in {*experiment.shares, 1.0}:
            kept = {
                row.key
                for pool in select(rows, pools(), "train").values()
                for row in labelled_share(pool, share, seed)
            }
            train_rows = [row for row in rows if row.split == "train" and row.key in kept]
            content = format_manifest([*train_rows, *eval_rows])
            write_whole(experiment.labelled(share, seed), content.encode())


def recipe_of(crop_s: float, scenes: Sequence[Scene] = SCENES) -> MixRecipe:
    """Two sources at levels that differ by up to 6 dB, as they were recorded."""
    return MixRecipe(
        crop_s=crop_s,
        scenes=tuple(scenes),
        gain_db=dict.fromkeys(PROMPTS, LEVELS_DB),
        composed={},
        common_bandwidth_probability=0.0,
        clip_weight_exponent=0.5,
    )


def write_recordings(experiment: Experiment) -> None:
    """Mix clips of the train split to files that nobody has the sources of."""
    manifest = experiment.labelled(1.0, experiment.seeds[0])
    rows = read_manifest(manifest)
    clips, store = open_pools(manifest, rows, pools(), "train", RATE, experiment.cache)
    planner = Planner(recipe_of(LONG_S), clips)
    folder = experiment.out / "recordings"
    folder.mkdir(exist_ok=True)
    recordings = []
    heard: set[str] = set()
    for number in range(experiment.num_recordings):
        (plan,) = planner.draw_batch(1, f"{SEED}/recordings/{number}")
        heard.update(part.clip for source in plan.sources for part in source.parts)
        mixture = render(plan, store.read, RATE).mixture
        path = folder / f"{number:05}.flac"
        soundfile.write(path, (0.9 * mixture / mixture.abs().max()).numpy(), RATE)
        recordings.append(
            Recording(
                path=str(path.relative_to(experiment.out)),
                kind="recording/mixture",
                split="train",
                duration_s=LONG_S,
                bandwidth_hz=RATE / 2,
                speaker="",
                licence="",
                sample_rate=RATE,
            )
        )
    count = sum(map(len, clips.values()))
    print(f"{len(recordings)} recordings hold {len(heard)} of {count} clips", flush=True)
    eval_rows = [row for row in rows if row.split == "eval"]
    write_whole(experiment.recordings, format_manifest([*recordings, *eval_rows]).encode())


# ------------------------------------------------------------------ training


def _optimiser(steps: int) -> OptimiserConfig:
    return OptimiserConfig(
        learning_rate=2e-3,
        warmup_steps=min(100, steps // 4),
        decay_steps=steps // 2,
        average_decay=None,
    )


def _run(
    name: str,
    steps: int,
    model: ModelConfig,
    data: DataConfig,
    recipe: MixRecipe,
    batch_size: int,
    start: str,
    method: MixitConfig | RemixingConfig | None,
    seed: int,
) -> TrainConfig:
    return TrainConfig(
        name=name,
        model=model,
        data=data,
        start=start,
        recipe=recipe,
        method=method,
        optimiser=_optimiser(steps),
        validation=ValidationConfig(
            every_steps=max(1, steps // 4), scenes=SCENES, mixtures_per_scene=8
        ),
        batch_size=batch_size,
        max_steps=steps,
        checkpoint_every_steps=100,
        seed=seed,
        accelerator="cpu",
        loggers=("csv",),
        num_threads=1,
    )


def pretraining(experiment: Experiment, name: str) -> TrainConfig:
    """The run in which the body for one of the starts learns from recordings."""
    start = STARTS[name]
    method, steps = start.method, experiment.pretraining_steps
    if isinstance(method, RemixingConfig):
        teacher = TeacherConfig(decay=0.8, every="step", steps_per_epoch=max(1, steps // 100))
        method = replace(method, teacher=teacher)
    network = UnconditionalConfig(
        experiment.network.codec,
        first=experiment.network.cross_prompt,
        second=experiment.network.extraction,
        num_outputs=start.num_outputs,
    )
    model = ModelConfig(
        "unconditional", RATE, STFT, dump(network), outputs=(ANY_SOURCE,) * start.num_outputs
    )
    data = DataConfig(
        manifest=experiment.recordings.name,
        pools={"recording": ("recording/*",), **pools()},
        root=str(experiment.out),
        cache_dir=str(experiment.cache),
    )
    recipe = replace(
        recipe_of(CROP_S, [Scene(("recording",))]),
        gain_db={"recording": (0.0, 0.0), **dict.fromkeys(PROMPTS, LEVELS_DB)},
    )
    before = str(run_dir(experiment, start.after) / BUNDLE_DIR) if start.after else ""
    return _run(name, steps, model, data, recipe, start.batch_size, before, method, seed=0)


def with_references(experiment: Experiment, name: str, share: float, seed: int) -> TrainConfig:
    """The run in which a TUSS with one of the starts learns from a share of the clips."""
    start = STARTS[name]
    steps = experiment.steps + (experiment.pretraining_steps if start.more_steps else 0)
    model = ModelConfig("tuss", RATE, STFT, dump(experiment.network), prompts=PROMPTS)
    data = DataConfig(
        manifest=experiment.labelled(share, seed).name,
        pools=pools(),
        root=str(experiment.out),
        cache_dir=str(experiment.cache),
    )
    folder = "" if start.method is None else str(converted_dir(experiment, name, seed))
    full_name = f"{name}-{100 * share:g}-seed-{seed}"
    recipe, batch_size = recipe_of(CROP_S), experiment.batch_size
    return _run(full_name, steps, model, data, recipe, batch_size, folder, None, seed)


def run_dir(experiment: Experiment, name: str) -> Path:
    return experiment.out / "runs" / name


def converted_dir(experiment: Experiment, name: str, seed: int) -> Path:
    """Where the TUSS lies that a body has become."""
    return experiment.out / "starts" / f"{name}-start-{seed}"


def convert(experiment: Experiment, name: str, seed: int) -> None:
    """Make the TUSS that a body becomes; what is fresh in it is drawn by the seed."""
    body = load_bundle(run_dir(experiment, name) / BUNDLE_DIR).model
    model = tuss_from_unconditional(body, name, PROMPTS, seed=seed).model
    card = Card(name, "not stated", f"pre-trained by {STARTS[name].title}, converted to TUSS")
    save_bundle(model, converted_dir(experiment, name, seed), card)


def learn(experiment: Experiment, config: TrainConfig) -> WaveformModel:
    """Train to the end, from where it was stopped, and note the time that it took.

    Raises:
        ConfigError: If the folder holds a run with other settings.
    """
    folder = run_dir(experiment, config.name)
    folder.mkdir(parents=True, exist_ok=True)
    recipe, content = folder / "recipe.yaml", write_config(config)
    if recipe.is_file() and recipe.read_text(encoding="utf-8") != content:
        raise ConfigError(f"{folder}: holds a run with other settings; choose another --out.")
    write_whole(recipe, content.encode())
    # What is decoded once serves many runs, so it is no part of their time.
    open_material(config, experiment.out, 1)
    last = folder / "checkpoints" / "last.ckpt"
    first_step = learnt(folder)[1] if last.is_file() else 0
    started_s = time.process_time()
    bundle = train(recipe, (), folder, resume=True)
    session = {
        "steps": learnt(folder)[1] - first_step,
        "cpu_s": round(time.process_time() - started_s, 2),
    }
    with (folder / "sessions.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(session) + "\n")
    return load_bundle(bundle).model


def cpu_minutes(folder: Path, steps: int) -> float:
    """What a run took of a core; what was lost when it was stopped is made up for; nan if unknown.

    A session that is killed notes no time, so its steps count as much as those of the others.
    """
    path = folder / "sessions.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    sessions = [json.loads(line) for line in lines]
    counted = sum(session["steps"] for session in sessions)
    if not counted:
        return nan
    return sum(session["cpu_s"] for session in sessions) / counted * steps / 60


def pretraining_minutes(experiment: Experiment, name: str) -> float:
    """What a body took of a core, with the body that it went on from."""
    took = cpu_minutes(run_dir(experiment, name), experiment.pretraining_steps)
    before = STARTS[name].after
    return took + (pretraining_minutes(experiment, before) if before else 0.0)


# ------------------------------------------------------------------ measuring


@dataclass(frozen=True)
class Score:
    """How much better one source of one mixture got.

    Attributes:
        run: Name of the run.
        start: A key of ``STARTS``.
        share: Of the clips with labels; 0 for a body that never had any.
        seed: Of the share, the fresh weights and the mixtures.
        scene: Its prompts.
        mixture: Its number in the scene.
        prompt: Of the source.
        si_sdri_db: SI-SDR improvement.
    """

    run: str
    start: str
    share: float
    seed: int
    scene: str
    mixture: int
    prompt: str
    si_sdri_db: float


def measured_on(experiment: Experiment) -> dict[str, list[MixtureBatch]]:
    """Scene → mixtures of the eval split, the same for all models."""
    clips, store = open_pools(
        experiment.manifest,
        read_manifest(experiment.manifest),
        pools(),
        "eval",
        RATE,
        experiment.cache,
    )
    planner = Planner(recipe_of(LONG_S), clips)
    plans = fixed_plans(planner, SCENES, experiment.mixtures_per_scene, store.read, RATE, SEED)
    rows = {name: row for row, name in enumerate(PROMPTS)}
    return {
        scene: [render_batch((plan,), store.read, RATE, rows) for plan in some]
        for scene, some in plans.items()
    }


def estimates_of(model: WaveformModel, batch: MixtureBatch) -> Tensor:
    """All outputs of a model without prompts, or the sources that are asked for."""
    if model.config.outputs:
        return model.separate_all(batch.mixture)
    return model(batch.mixture, batch.prompt_indices)


def improvements(model: WaveformModel, estimates: Tensor, batch: MixtureBatch) -> list[float]:
    """SI-SDR improvement of each source of a mixture; without prompts, by the best outputs."""
    if model.config.outputs:
        batch = replace(batch, prompt_indices=torch.zeros_like(batch.prompt_indices))
    gains: list[float] = (best_si_sdr_db(estimates, batch) - mixture_si_sdr_db(batch))[0].tolist()
    return gains


@dataclass(frozen=True)
class FixedFilters:
    """What is left of a body if each output is a filter that never changes.

    Attributes:
        likeness_db: Power of the outputs over that of what the filters get wrong: many dB for a
            crossover, few where sources are told apart.
        si_sdri_db: How much better sources get by the filters alone.
    """

    likeness_db: float
    si_sdri_db: float


@torch.no_grad()
def fixed_filters(model: WaveformModel, batches: Sequence[MixtureBatch]) -> FixedFilters:
    """Fit a filter to each output over all mixtures, and measure both.

    The filter of output o has the real gains g_of that make

        E = sum_tf |Y_otf - g_of X_tf|^2

    smallest: g_of = sum_t Re(Y_otf X*_tf) / sum_t |X_tf|^2.
    """
    transform = FftTransform(STFT)
    heard = [transform.analyse(batch.mixture) for batch in batches]
    given = [transform.analyse(estimates_of(model, batch).flatten(0, 1)) for batch in batches]
    mixtures, outputs = torch.cat(heard, dim=2), torch.cat(given, dim=2)
    gains = (outputs * mixtures).sum(dim=(1, 2)) / mixtures.square().sum(dim=(1, 2)).add(1e-12)
    gains = gains[:, None, None]
    left = outputs - gains * mixtures
    improved = [
        gain
        for batch, mixture in zip(batches, heard, strict=True)
        for filtered in (transform.synthesise(gains * mixture, batch.mixture.shape[-1])[None],)
        for gain in improvements(model, filtered, batch)
    ]
    likeness_db = 10 * torch.log10(outputs.square().sum() / left.square().sum())
    return FixedFilters(float(likeness_db), fmean(improved))


def fixed_filters_path(experiment: Experiment, name: str) -> Path:
    return run_dir(experiment, name) / "fixed-filters.json"


def write_fixed_filters(experiment: Experiment, name: str) -> None:
    body = load_bundle(run_dir(experiment, name) / BUNDLE_DIR).model
    batches = [batch for some in measured_on(experiment).values() for batch in some]
    content = json.dumps(dump(fixed_filters(body, batches)))
    write_whole(fixed_filters_path(experiment, name), content.encode())


@torch.no_grad()
def score(
    experiment: Experiment, model: WaveformModel, run: str, start: str, share: float, seed: int
) -> None:
    """Measure a model, and write its scores beside it."""
    model.eval()
    scores = []
    for scene, batches in measured_on(experiment).items():
        for number, batch in enumerate(batches):
            gains = improvements(model, estimates_of(model, batch), batch)
            for prompt, gain in zip(scene.split(" + "), gains, strict=True):
                about = (run, start, share, seed, scene, number, prompt)
                scores.append(Score(*about, round(gain, 3)))
    write_whole(run_dir(experiment, run) / "scores.csv", format_scores(scores).encode())


def format_scores(scores: Iterable[Score]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(each.name for each in fields(Score))
    writer.writerows(map(astuple, scores))
    return text.getvalue()


def read_scores(path: Path) -> list[Score]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Score(
                row["run"],
                row["start"],
                float(row["share"]),
                int(row["seed"]),
                row["scene"],
                int(row["mixture"]),
                row["prompt"],
                float(row["si_sdri_db"]),
            )
            for row in csv.DictReader(file)
        ]


# ------------------------------------------------------------------ stages


@dataclass(frozen=True)
class Stage:
    """A piece of the work.

    Attributes:
        name: What it is called.
        result: The file that is there once it is done.
        needs: Files that must be there before.
        run: Does it.
    """

    name: str
    result: Path
    needs: tuple[Path, ...]
    run: Callable[[], None]


def stages(experiment: Experiment) -> list[Stage]:
    """All that is to do, in the order in which it is best done."""

    def scores_of(name: str) -> Path:
        return run_dir(experiment, name) / "scores.csv"

    def pretrain(name: str) -> None:
        config = pretraining(experiment, name)
        score(experiment, learn(experiment, config), config.name, name, 0.0, config.seed)

    def learn_labels(name: str, share: float, seed: int) -> None:
        config = with_references(experiment, name, share, seed)
        score(experiment, learn(experiment, config), config.name, name, share, seed)

    pretrained = [name for name in experiment.starts if STARTS[name].method is not None]
    todo = []
    if pretrained:
        todo.append(
            Stage(
                "recordings",
                experiment.recordings,
                (),
                partial(write_recordings, experiment),
            )
        )
    todo += [
        Stage(
            name,
            scores_of(name),
            (scores_of(STARTS[name].after) if STARTS[name].after else experiment.recordings,),
            partial(pretrain, name),
        )
        for name in pretrained
    ]
    todo += [
        Stage(
            f"{name}-filters",
            fixed_filters_path(experiment, name),
            (scores_of(name),),
            partial(write_fixed_filters, experiment, name),
        )
        for name in pretrained
    ]
    todo += [
        Stage(
            folder.name,
            folder / CONFIG,
            (scores_of(name),),
            partial(convert, experiment, name, seed),
        )
        for name in pretrained
        for seed in experiment.seeds
        for folder in (converted_dir(experiment, name, seed),)
    ]
    few = min(experiment.shares)
    trainings = [
        (name, share, seed)
        for seed in experiment.seeds
        for share in sorted(experiment.shares)
        for name in experiment.starts
        if share == few or not STARTS[name].more_steps
    ]
    # The longest last.
    for name, share, seed in sorted(trainings, key=lambda each: STARTS[each[0]].more_steps):
        run = with_references(experiment, name, share, seed).name
        needs = (converted_dir(experiment, name, seed) / CONFIG,) if name in pretrained else ()
        todo.append(Stage(run, scores_of(run), needs, partial(learn_labels, name, share, seed)))
    return todo


def work(todo: Sequence[Stage], locks: Path, wait_s: float = 5.0) -> None:
    """Do what is not done yet and nobody else is at, until all is done."""
    locks.mkdir(parents=True, exist_ok=True)
    left = list(todo)
    while left:
        left = [stage for stage in left if not stage.result.is_file()]
        if not any(_take(stage, locks) for stage in left) and left:
            time.sleep(wait_s)


def _take(stage: Stage, locks: Path) -> bool:
    """Do a stage, unless something is missing, or somebody is at it or was meanwhile."""
    if not all(path.is_file() for path in stage.needs):
        return False
    with (locks / f"{stage.name}.lock").open("ab") as file:
        if not try_lock(file) or stage.result.is_file():
            return False
        print(f"begins: {stage.name}", flush=True)
        stage.run()
        print(f"done: {stage.name}", flush=True)
    return True


# ------------------------------------------------------------------ tables


def mean_of(scores: Sequence[Score]) -> Interval:
    """Mean improvement over all sources and seeds, by resampling mixtures."""
    return bootstrap_interval(
        [each.si_sdri_db for each in scores],
        groups=[(each.scene, each.mixture) for each in scores],
    )


def difference(scores: Sequence[Score], others: Sequence[Score]) -> Interval:
    """Mean of what is better than in other scores, of the same sources and seeds."""
    known = {_source(each): each.si_sdri_db for each in others}
    both = [each for each in scores if _source(each) in known]
    return bootstrap_interval(
        [each.si_sdri_db - known[_source(each)] for each in both],
        groups=[(each.scene, each.mixture) for each in both],
    )


def _source(each: Score) -> tuple[int, str, int, str]:
    return each.seed, each.scene, each.mixture, each.prompt


def in_cells(scores: Iterable[Score]) -> dict[tuple[float, str], list[Score]]:
    """Share and start → scores; shares in order, starts as in ``STARTS``."""
    cells = defaultdict(list)
    for each in scores:
        cells[each.share, each.start].append(each)
    order = list(STARTS)
    return dict(sorted(cells.items(), key=lambda cell: (cell[0][0], order.index(cell[0][1]))))


def tables(experiment: Experiment, scores: Sequence[Score]) -> str:
    """What the bodies learnt, and what they are worth to TUSS."""
    cells = in_cells(scores)
    before = {
        name: pretraining_minutes(experiment, name)
        for _, name in cells
        if STARTS[name].method is not None
    }
    lines = [
        "Bodies without prompts, by the best outputs:",
        "",
        "| learnt by | SI-SDRi, dB | like fixed filters, dB | SI-SDRi of these, dB | CPU minutes |",
        "|---|---|---|---|---|",
    ]
    for (share, name), some in cells.items():
        if share == 0.0:
            path = fixed_filters_path(experiment, name)
            fixed = read(FixedFilters, path) if path.is_file() else FixedFilters(nan, nan)
            columns = [
                STARTS[name].title,
                _shown(mean_of(some)),
                f"{fixed.likeness_db:.1f}",
                f"{fixed.si_sdri_db:.2f}",
                f"{before[name]:.1f}",
            ]
            lines.append(f"| {' | '.join(columns)} |")
    lines += [
        "",
        "TUSS (CPU minutes with pre-training):",
        "",
        f"| labels | start | {' | '.join(PROMPTS)} | SI-SDRi, dB | against scratch, dB | seed by "
        "seed, dB | CPU minutes |",
        "|---" * (len(PROMPTS) + 6) + "|",
    ]
    for (share, name), some in cells.items():
        if share == 0.0:
            continue
        by_prompt = [mean_of([each for each in some if each.prompt == one]) for one in PROMPTS]
        against = (
            ""
            if name == SCRATCH
            else _shown(difference(some, cells.get((share, SCRATCH), [])), "+")
        )
        seeds = sorted({each.seed for each in some})
        means = [mean_of([each for each in some if each.seed == seed]).value for seed in seeds]
        config = with_references(experiment, name, share, seeds[0])
        took = cpu_minutes(run_dir(experiment, config.name), config.max_steps)
        columns = [
            f"{100 * share:g} %",
            STARTS[name].title,
            *(f"{one.value:.1f}" for one in by_prompt),
            _shown(mean_of(some)),
            against,
            ", ".join(f"{mean:.2f}" for mean in means),
            f"{took + before.get(name, 0.0):.1f}",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def _shown(found: Interval, sign: str = "") -> str:
    return f"{found.value:{sign}.2f} ({found.low:{sign}.2f} to {found.high:{sign}.2f})"


def draw(scores: Sequence[Score], path: Path) -> None:
    """Improvement against the share of labels, a line for each start, and what it is worth."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot, ticker

    cells = {cell: some for cell, some in in_cells(scores).items() if cell[0] > 0.0}
    shares = sorted({share for share, _ in cells})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for number, (name, start) in enumerate(STARTS.items()):
        at = [share for share in shares if (share, name) in cells]
        if not at:
            continue
        # Beside each other, so that intervals can be told apart.
        places = [100 * share * 1.04 ** (number - 2.5) for share in at]
        means = [mean_of(cells[share, name]) for share in at]
        style = {"color": f"C{number}", "marker": "o", "markersize": 4, "capsize": 2}
        _draw_intervals(left, places, means, {**style, "label": start.title})
        if name != SCRATCH:
            known = [
                (place, share)
                for place, share in zip(places, at, strict=True)
                if (share, SCRATCH) in cells
            ]
            gains = [difference(cells[share, name], cells[share, SCRATCH]) for _, share in known]
            _draw_intervals(right, [place for place, _ in known], gains, style)
    right.axhline(0.0, color="C0", linewidth=1)
    for axes, title in ((left, "SI-SDR improvement, dB"), (right, "against scratch, dB")):
        axes.set_xscale("log")
        axes.set_xticks(
            [100 * share for share in shares], [f"{100 * share:g} %" for share in shares]
        )
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.set_xlabel("clips with labels")
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(STARTS), fontsize="small")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _draw_intervals(
    axes: Any, places: Sequence[float], found: Sequence[Interval], style: Mapping[str, Any]
) -> None:
    below = [each.value - each.low for each in found]
    above = [each.high - each.value for each in found]
    axes.errorbar(places, [each.value for each in found], yerr=[below, above], **style)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, default=SHARED / "data" / "manifest.csv")
    parser.add_argument("--out", type=Path, default=Path("runs/labels"))
    parser.add_argument("--starts", nargs="+", choices=list(STARTS), default=list(STARTS))
    parser.add_argument("--shares", nargs="+", type=float, default=list(Experiment.shares))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(Experiment.seeds))
    parser.add_argument("--steps", type=int, default=Experiment.steps)
    parser.add_argument("--pretraining-steps", type=int, default=Experiment.pretraining_steps)
    parser.add_argument("--recordings", type=int, default=Experiment.num_recordings)
    parser.add_argument("--mixtures", type=int, default=Experiment.mixtures_per_scene)
    parser.add_argument("--tables", action="store_true", help="train nothing, show what there is")
    parser.add_argument("--picture", type=Path, help="where to draw the curves")
    options = parser.parse_args(arguments)
    if not has_manifest(options.manifest):
        return
    experiment = Experiment(
        out=options.out.resolve(),
        manifest=options.manifest,
        starts=tuple(options.starts),
        shares=tuple(options.shares),
        seeds=tuple(options.seeds),
        steps=options.steps,
        pretraining_steps=options.pretraining_steps,
        num_recordings=options.recordings,
        mixtures_per_scene=options.mixtures,
    )
    if not options.tables:
        experiment.out.mkdir(parents=True, exist_ok=True)
        write_labelled(experiment)
        work(stages(experiment), experiment.out / "locks")
    scores = [
        each
        for path in sorted((experiment.out / "runs").glob("*/scores.csv"))
        for each in read_scores(path)
    ]
    if not scores:
        print(f"{experiment.out}: nothing is finished yet")
        return
    write_whole(experiment.out / "labels.csv", format_scores(scores).encode())
    print(describe_machine())
    print(f"\n{tables(experiment, scores)}")
    draw(scores, options.picture or experiment.out / "labels.png")


if __name__ == "__main__":
    main()
