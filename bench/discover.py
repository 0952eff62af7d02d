"""How often ``unbraid discover`` is right about what is in a recording.

Mixtures of 5 s of sixteen kinds, from one voice to two voices with music. What is in them is said
in wholes: an effect and an ambience are ``sfx-mix``, the parts of a song are ``music-mix``, voices
are counted. Measured are the names (are they exactly those?), the number of sources, and precision
and recall of the names; the number of voices, where there are any; and, of music by itself, what
is printed: ``music-mix``, or its parts, which are scored as such. For that there are instruments by
themselves, too. Beside it stand two simpler ways: to believe the presence scores of
``speech,sfx-mix,music-mix``, and to leave out the least present prompt until none is below 0.5.

``--calibrate`` fits the weights on mixtures of the training split and prints them, to be put into
the model's config. They are measured on the half of the evaluation split on which nothing was
fitted: the presence scores have the other one. ``--recordings`` measures whole recordings of 30 s
instead, whose sounds come and go, from file to files; also whether the times are right.

    python bench/discover.py [--calibrate | --recordings 8] [--model mini] [--mixtures 4]
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import unbraid
from material import RECIPE, as_recorded, has_manifest, parser_of
from presence import halve
from unbraid.apps.discover import DiscoverOptions, attempt_on, discover_file
from unbraid.apps.separator import Separator
from unbraid.audio import AudioFormat, write
from unbraid.checkpoints import resolve_model
from unbraid.config import dump
from unbraid.data.catalogue import open_pools
from unbraid.data.manifest import read_manifest
from unbraid.data.store import ClipStore
from unbraid.errors import DataError
from unbraid.folders import user_cache_dir
from unbraid.mixing.recipe import Planner
from unbraid.mixing.render import render
from unbraid.models.waveform import DiscoveryWeights
from unbraid.separation.discovery import PARTS, WHOLES, Attempt, describe, hear
from unbraid.separation.presence import WINDOW_S
from unbraid.training.recipe_files import load_recipe
from unbraid.types import Waveform

SCENES = (
    ("speech",),
    ("sfx-mix",),
    ("sfx",),
    ("music-mix",),
    ("vocals", "drums", "bass", "other"),
    ("speech", "sfx-mix"),
    ("speech", "music-mix"),
    ("sfx-mix", "music-mix"),
    ("speech", "sfx"),
    ("speech", "speech"),
    ("vocals", "other"),
    ("drums", "bass"),
    ("vocals", "drums", "other"),
    ("speech", "sfx-mix", "music-mix"),
    ("speech", "speech", "sfx-mix"),
    ("speech", "speech", "music-mix"),
)
#: An instrument by itself, of which there are more: it is easily taken for several.
SOLO = ("other",)
_SOLOS = 3
#: Scenes of the recordings of 30 s.
LONG_SCENES = (
    ("speech", "sfx-mix"),
    ("speech", "music-mix"),
    ("sfx-mix", "music-mix"),
    ("speech", "sfx-mix", "music-mix"),
)
CROP_S, LONG_S = 5.0, 30.0
_MAX_DRAWS = 20
_PENALTY = 0.1
#: A source is heard in a window whose level is above this, relative to its loudest window.
_AUDIBLE_DB = -30.0


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of known sounds: the prompts that they were drawn for, one row for each."""

    scene: tuple[str, ...]
    references: Tensor

    @property
    def truth(self) -> Counter[str]:
        """Whole → how many of it; only voices are counted."""
        names = Counter(whole_of(name) for name in self.scene)
        return Counter({name: n if name == "speech" else 1 for name, n in names.items()})


def whole_of(prompt: str) -> str:
    if prompt in PARTS:
        return "music-mix"
    return "sfx-mix" if prompt == "sfx" else prompt


def mixtures(
    manifest: Path,
    sample_rate: int,
    split: str,
    half: int | None,
    per_scene: int,
    scenes: Sequence[tuple[str, ...]] = SCENES,
) -> Iterator[Mixture]:
    planner, store = open_split(manifest, sample_rate, split, half, CROP_S)
    for number in range(per_scene):
        for scene in scenes:
            where = -1 if half is None else half
            rng = random.Random(f"discover/{split}/{where}/{'+'.join(scene)}/{number}")
            references = draw(planner, store, scene, rng)
            if references is not None:
                yield Mixture(scene, references)


def open_split(
    manifest: Path, sample_rate: int, split: str, half: int | None, crop_s: float
) -> tuple[Planner, ClipStore]:
    config = load_recipe(RECIPE)
    clips, store = open_pools(
        manifest,
        read_manifest(manifest),
        config.data.pools,
        split,
        sample_rate,
        user_cache_dir(),
    )
    recipe = as_recorded(
        config.recipe,
        crop_s=crop_s,
        common_bandwidth_probability=0.3,
        random_bandwidth_probability=0.1,
        same_song_probability=0.9,
    )
    return Planner(recipe, clips if half is None else halve(clips, half)), store


def draw(
    planner: Planner, store: ClipStore, scene: Sequence[str], rng: random.Random
) -> Tensor | None:
    """References of a mixture, none of them silent; None where there are too few clips."""
    for _ in range(_MAX_DRAWS):
        try:
            plan = planner.draw_mixture(scene, rng)
        except DataError:
            continue
        references = render(plan, store.read, store.sample_rate).references
        if bool((references.abs().amax(dim=-1) > 0).all()):
            return references
    return None


# ------------------------------------------------------------------ calibration


def calibrate(
    separator: Separator, found: Iterator[Mixture], rate: int
) -> dict[str, DiscoveryWeights]:
    features, truths = [], []
    for mixture in found:
        attempt = attempt_on(separator, mixture.references.sum(dim=0, keepdim=True), rate)
        features.append(describe(attempt))
        truths.append(mixture.truth)
    described = torch.stack(features)
    return {
        name: fit(described, torch.tensor([float(name in truth) for truth in truths]))
        for name in WHOLES
    }


def fit(features: Tensor, labels: Tensor) -> DiscoveryWeights:
    """Logistic regression, both answers counting for half of the loss."""
    used, is_there = features.double(), labels.double()
    mean, deviation = used.mean(dim=0), used.std(dim=0) + 1e-9
    share = is_there.mean()
    importance = torch.where(is_there > 0, 0.5 / share, 0.5 / (1 - share))
    weights = torch.zeros(used.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            ((used - mean) / deviation) @ weights[1:] + weights[0], is_there, reduction="none"
        )
        loss = (importance * losses).mean() + _PENALTY * weights[1:].square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    slopes = weights.detach()[1:] / deviation
    bias = float(weights.detach()[0] - (slopes * mean).sum())
    values = [round(value, 4) for value in slopes.tolist()]
    lengths = (3, 3, 3, 3, 3, 3, 4)
    groups = [tuple(group) for group in torch.tensor(values).split(lengths)]
    rounded = (tuple(round(float(value), 4) for value in group) for group in groups)
    return DiscoveryWeights(round(bias, 4), *rounded)  # type: ignore[arg-type]


# ------------------------------------------------------------------ measuring


@dataclass
class Tally:
    """Names that were found, against those that are there."""

    hits: Counter[str] = dataclasses.field(default_factory=Counter)
    false: Counter[str] = dataclasses.field(default_factory=Counter)
    missed: Counter[str] = dataclasses.field(default_factory=Counter)
    exact: list[bool] = dataclasses.field(default_factory=list)
    counted: list[bool] = dataclasses.field(default_factory=list)

    def add(self, truth: Mapping[str, int], found: Mapping[str, int]) -> None:
        """Take what was found in one mixture, and how many of it."""
        self.hits.update(set(truth) & set(found))
        self.false.update(set(found) - set(truth))
        self.missed.update(set(truth) - set(found))
        self.exact.append(set(truth) == set(found))
        self.counted.append(sum(truth.values()) == sum(found.values()))

    def precision_and_recall(self, names: Sequence[str]) -> str:
        """Over all mixtures and these names, as cells of a table."""
        hits = sum(self.hits[name] for name in names)
        false = sum(self.false[name] for name in names)
        missed = sum(self.missed[name] for name in names)
        return f"{_share(hits, hits + false)} | {_share(hits, hits + missed)}"

    def row(self) -> str:
        """Share of mixtures with exactly the right names, with the right number; and the above."""
        exact, counted = (_share(sum(each), len(each)) for each in (self.exact, self.counted))
        return f"{exact} | {counted} | {self.precision_and_recall(WHOLES)}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def by_presence(attempt: Attempt) -> dict[str, int]:
    """Believe the scores of the three wholes."""
    scores = attempt(WHOLES).scores
    return {name: 1 for name, score in zip(WHOLES, scores, strict=True) if score >= 0.5}


def by_elimination(attempt: Attempt) -> dict[str, int]:
    """What ``hear`` does for models that nobody has calibrated."""
    return dict(hear(attempt, WHOLES, {}, 0.5).counts)


def measure(separator: Separator, found: Iterator[Mixture], rate: int, threshold: float) -> None:
    ways = {"discover": Tally(), "presence": Tally(), "elimination": Tally()}
    by_scene: dict[tuple[str, ...], Tally] = defaultdict(Tally)
    voices: Counter[tuple[int, int]] = Counter()
    parts = Tally()
    printed: dict[str, Counter[str]] = defaultdict(Counter)
    model = separator.model
    for mixture in found:
        attempt = attempt_on(separator, mixture.references.sum(dim=0, keepdim=True), rate)
        heard = hear(attempt, model.prompts.names, model.config.discovery, threshold)
        ways["discover"].add(mixture.truth, heard.counts)
        by_scene[mixture.scene].add(mixture.truth, heard.counts)
        ways["presence"].add(mixture.truth, by_presence(attempt))
        ways["elimination"].add(mixture.truth, by_elimination(attempt))
        if "speech" in mixture.truth:
            voices[mixture.truth["speech"], heard.counts.get("speech", 0)] += 1
        if set(mixture.truth) == {"music-mix"}:
            printed[kind_of_music(mixture.scene)].update(answers_of(heard.prompts))
            if set(mixture.scene) | set(heard.prompts) <= set(PARTS):
                parts.add(Counter(mixture.scene), Counter(heard.prompts))
    print("| way | names right | number right | precision | recall |\n|---|---|---|---|---|")
    for name, tally in ways.items():
        print(f"| {name} | {tally.row()} |")
    print("\n| prompt | precision | recall |\n|---|---|---|")
    for name in WHOLES:
        print(f"| {name} | {ways['discover'].precision_and_recall([name])} |")
    print("\n| what is there | names right | number right | precision | recall |")
    print("|---|---|---|---|---|")
    for scene, tally in by_scene.items():
        print(f"| {' + '.join(scene)} | {tally.row()} |")
    print("\n| voices there | found none | one | two |\n|---|---|---|---|")
    for there in (1, 2):
        counts = " | ".join(str(voices[there, number]) for number in range(3))
        print(f"| {there} | {counts} |")
    print(f"\n| music by itself | {' | '.join(ANSWERS)} |")
    print("|---" * (1 + len(ANSWERS)) + "|")
    for kind, answers in printed.items():
        print(f"| {kind} | {' | '.join(str(answers[answer]) for answer in ANSWERS)} |")
    print("\n| part that is printed | precision | recall |\n|---|---|---|")
    for name in PARTS:
        print(f"| {name} | {parts.precision_and_recall([name])} |")
    print(f"| all | {parts.precision_and_recall(PARTS)} |")


#: What may be printed of music by itself.
ANSWERS = ("recordings", "music-mix alone", "parts", "vocals", "speech or effects")


def answers_of(prompts: Sequence[str]) -> Iterator[str]:
    """Which of ``ANSWERS`` this is."""
    yield "recordings"
    if tuple(prompts) == ("music-mix",):
        yield "music-mix alone"
    if set(prompts) <= set(PARTS):
        yield "parts"
    if "vocals" in prompts:
        yield "vocals"
    if {"speech", "sfx-mix"} & set(prompts):
        yield "speech or effects"


def kind_of_music(scene: tuple[str, ...]) -> str:
    if scene == ("music-mix",):
        return "finished music"
    if scene == SOLO:
        return "an instrument"
    return "a song with vocals" if "vocals" in scene else "a song without"


def measure_recordings(
    separator: Separator, planner: Planner, store: ClipStore, count: int, threshold: float
) -> None:
    rate = store.sample_rate
    tally = Tally()
    agreeing, num_windows, always = 0, 0, 0
    for number in range(count):
        scene = LONG_SCENES[number % len(LONG_SCENES)]
        rng = random.Random(f"discover/recording/{number}")
        references = draw(planner, store, scene, rng)
        if references is None:
            continue
        for row in references:  # sounds come and go
            start = rng.randrange(0, row.numel() // 2)
            row[:start] = 0.0
            row[start + rng.randrange(row.numel() // 4, row.numel() // 2) :] = 0.0
        mixture = references.sum(dim=0, keepdim=True)
        mixture *= 0.5 / mixture.abs().max().clamp_min(1e-6)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "recording.wav"
            write(path, Waveform(mixture, rate), AudioFormat("wav", "FLOAT"))
            options = DiscoverOptions("model", "0" * 64, threshold)
            found = discover_file(separator, path, Path(folder) / "out", options)
        names = Counter(whole_of(prompt) for prompt in found.prompts)
        one_each = {name: number if name == "speech" else 1 for name, number in names.items()}
        tally.add(Mixture(scene, references).truth, one_each)
        for source in found.sources:
            whole = whole_of(source.prompt)
            rows = [row for name, row in zip(scene, references, strict=True) if name == whole]
            if not rows or names[whole] > 1:
                continue
            truth = audible(rows[0], rate)
            times = (torch.arange(len(truth)) + 0.5) * WINDOW_S
            heard = torch.zeros_like(truth)
            for start_s, end_s in source.intervals:
                heard |= (times >= start_s) & (times < end_s)
            agreeing += int((truth == heard).sum())
            num_windows += len(truth)
            always += int(truth.sum())
    print(
        "| recordings | names right | number right | precision | recall | windows right | always |"
    )
    print("|---|---|---|---|---|---|---|")
    right, naive = _share(agreeing, num_windows), _share(always, num_windows)
    print(f"| {len(tally.exact)} | {tally.row()} | {right} | {naive} |")


def audible(reference: Tensor, rate: int) -> Tensor:
    """In which windows a source is heard."""
    windows = reference.split(round(WINDOW_S * rate))
    power = torch.stack([window.square().mean() for window in windows])
    return power > power.max() * 10 ** (_AUDIBLE_DB / 10)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--calibrate", action="store_true", help="print weights for the config")
    parser.add_argument("--recordings", type=int, default=0, help="measure so many of 30 s")
    parser.add_argument("--mixtures", type=int, default=4, help="of each kind")
    parser.add_argument("--threshold", type=float, default=0.5)
    arguments = parser.parse_args()
    if not has_manifest(arguments.manifest):
        return
    model = unbraid.load_bundle(resolve_model(arguments.model)).model
    separator, rate = Separator(model), model.sample_rate
    if arguments.recordings:
        planner, store = open_split(arguments.manifest, rate, "eval", 1, LONG_S)
        measure_recordings(separator, planner, store, arguments.recordings, arguments.threshold)
        return
    split, half = ("train", None) if arguments.calibrate else ("eval", 1)
    count = arguments.mixtures
    found = mixtures(arguments.manifest, rate, split, half, count)
    if arguments.calibrate:
        weights = calibrate(separator, found, rate)
        print(json.dumps({name: dump(each) for name, each in weights.items()}, indent=2))
    else:
        solos = mixtures(arguments.manifest, rate, split, half, _SOLOS * count, (SOLO,))
        measure(separator, itertools.chain(found, solos), rate, arguments.threshold)


if __name__ == "__main__":
    main()
