"""Presence scores, the gate and the projection of a model, measured on evaluation mixtures.

The recordings of the evaluation split are parted in two halves that share no speaker and no
song. ``--calibrate`` fits the weights of the presence scores on mixtures of the first half and
prints them, to be put into the model's config; without it, everything is measured on mixtures of
the second half. The features, the penalty and the gate's thresholds were chosen with both halves
in view, only the weights were fitted on the first alone: figures may be a little too good. Mixtures
last 6 to 10 s and ask for two to four prompts. Often the sound of one
or two of them is absent, sounds stop or begin in the middle, all is silent for a while, a sound
is there that nobody asked for, or there is nothing but noise.

    python bench/presence.py [--calibrate] [--model mini] [--mixtures 300] [--picture roc.png]
"""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import unbraid
from material import has_manifest, open_evaluation, parser_of
from unbraid.checkpoints import resolve_model
from unbraid.config import dump
from unbraid.data.store import ClipStore
from unbraid.mixing.recipe import Clip, Planner
from unbraid.mixing.render import render
from unbraid.models.waveform import PresenceWeights, WaveformModel
from unbraid.objectives.measures import si_sdr_db
from unbraid.separation.consistency import Projector
from unbraid.separation.gate import Gate
from unbraid.separation.presence import (
    GENERIC_WEIGHTS,
    PresenceMeter,
    recording_score,
    window_start,
)
from unbraid.separation.separator import StreamSeparator, separate_waveform
from unbraid.types import Waveform, equal_prompt_groups

#: Prompts that are asked for together, and how often. Nothing in a row is part of anything else
#: in it: no ``vocals`` beside ``speech``, no ``sfx`` beside ``sfx-mix``.
FAMILIES = {
    ("speech", "sfx-mix", "music-mix"): 0.35,
    ("speech", "sfx", "music-mix"): 0.12,
    ("vocals", "drums", "bass", "other"): 0.23,
    ("speech", "sfx-mix", "drums", "bass"): 0.08,
    ("speech", "music-mix", "drums"): 0.10,
    ("speech", "speech", "sfx-mix"): 0.06,
    ("speech", "speech", "music-mix"): 0.06,
}
NUM_ABSENT = {0: 0.2, 1: 0.4, 2: 0.4}
NOISE_PROBABILITY = 0.04
PART_OF_THE_TIME_PROBABILITY = 0.3
SILENCE_PROBABILITY = 0.15
UNASKED_PROBABILITY = 0.15
LONGEST_S = 10.0

#: A source counts as there above the first level relative to the mixture, in dB, and as absent
#: below the second; what lies between is left out. In a window, and in a recording.
THERE_DB, ABSENT_DB = -20.0, -50.0

#: Features that the weights for unknown prompts may use: those that say nothing of timbre.
NUM_GENERIC_FEATURES = 4
#: Beyond this SI-SDR counts as this: a single open stem that is the mixture has no bound.
LIMIT_DB = 30.0
#: How strongly large weights are held down, for features of unit variance.
PENALTY = 0.1


@dataclass(frozen=True, eq=False)
class Example:
    """A mixture, what it holds of each prompt, and what the model made of it, all mono."""

    prompts: tuple[str, ...]
    mixture: Tensor
    references: Tensor
    estimates: Tensor

    def is_there(self, start: int = 0, end: int | None = None) -> Tensor:
        """1 for each source that is there, 0 for absent, -1 for in between or silence."""
        total = self.mixture[start:end].square().sum()
        level_db = 10 * torch.log10(self.references[:, start:end].square().sum(-1) / total + 1e-20)
        labels = torch.full((len(self.prompts),), -1)
        labels[level_db > THERE_DB] = 1
        labels[level_db < ABSENT_DB] = 0
        return labels if total > 0 else torch.full_like(labels, -1)

    def holds_all(self) -> bool:
        """Whether every sound of the mixture was asked for."""
        rest = self.mixture - self.references.sum(dim=0)
        return bool(rest.square().sum() <= 1e-6 * self.mixture.square().sum())

    def window_labels(self, sample_rate: int) -> Tensor:
        """``is_there`` of each window, the last one as ``PresenceMeter`` takes it."""
        length = self.mixture.numel()
        labels = []
        for number in range(-(-length // window_start(1, sample_rate))):
            end = min(length, window_start(number + 1, sample_rate))
            labels.append(self.is_there(max(0, end - window_start(1, sample_rate)), end))
        return torch.stack(labels, dim=1)


def halve(clips: Mapping[str, Sequence[Clip]], half: int) -> dict[str, tuple[Clip, ...]]:
    """The clips of one half: speakers, songs and all other recordings are dealt out by name."""
    everything = [clip for pool in clips.values() for clip in pool]
    songs = sorted({clip.song for clip in everything if clip.song})
    middle = len(songs) // 2
    chosen = set(songs[middle:] if half else songs[:middle])
    chosen |= set(sorted({clip.performer for clip in everything if clip.performer})[half::2])
    others = {clip.key for clip in everything if not clip.song and not clip.performer}
    chosen |= set(sorted(others)[half::2])
    return {
        prompt: tuple(clip for clip in pool if (clip.song or clip.performer or clip.key) in chosen)
        for prompt, pool in clips.items()
    }


def draw(number: int, half: int, planner: Planner, store: ClipStore) -> Example:
    """Draw mixture ``number`` of a half; its estimates are still empty."""
    rng = random.Random(f"presence/{half}/{number}")
    rate = store.sample_rate
    duration_s = rng.uniform(6.0, LONGEST_S)
    length = round(duration_s * rate)
    if rng.random() < NOISE_PROBABILITY:
        mixture = 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(number))
        nothing = torch.zeros(3, length)
        return Example(("speech", "music-mix", "drums"), mixture, nothing, nothing)
    family = rng.choices(list(FAMILIES), list(FAMILIES.values()))[0]
    prompts = rng.sample(family, rng.choice((3, len(family))))
    num_absent = rng.choices(list(NUM_ABSENT), list(NUM_ABSENT.values()))[0]
    there = rng.sample(range(len(prompts)), len(prompts) - num_absent)
    references = torch.zeros(len(prompts), length)
    time_s = torch.arange(length) / rate
    while not bool((references[there].abs().amax(dim=-1) > 0).all()):
        plan = planner.draw_mixture([prompts[position] for position in there], rng)
        references[there] = render(plan, store.read, rate).references[:, :length]
    for position in there:
        if rng.random() < PART_OF_THE_TIME_PROBABILITY:
            start_s = rng.uniform(0.0, duration_s / 2)
            end_s = start_s + rng.uniform(1.5, duration_s / 2)
            references[position] *= ((time_s - start_s) / 0.01).clamp(0, 1)
            references[position] *= ((end_s - time_s) / 0.01).clamp(0, 1)
    if rng.random() < SILENCE_PROBABILITY:
        start = rng.randrange(length - round(1.3 * rate))
        references[:, start : start + round(1.3 * rate)] = 0.0
    level = 10 ** (rng.uniform(-40.0, 0.0) / 20)
    references *= level / references.sum(dim=0).abs().max().clamp_min(1e-6)
    mixture = references.sum(dim=0)
    asked = list(range(len(prompts)))
    if rng.random() < UNASKED_PROBABILITY and prompts.count(prompts[asked[-1]]) == 1:
        asked.pop()
    names = tuple(prompts[position] for position in asked)
    return Example(names, mixture, references[asked], torch.zeros(len(asked), length))


def examples(
    model: WaveformModel, manifest: Path, half: int, num_mixtures: int
) -> Iterator[Example]:
    recipe, clips, store = open_evaluation(
        manifest,
        model.sample_rate,
        crop_s=LONGEST_S,
        common_bandwidth_probability=0.3,
        random_bandwidth_probability=0.1,
        same_song_probability=0.7,
    )
    planner = Planner(recipe, halve(clips, half))
    separator = StreamSeparator(model)
    for number in range(num_mixtures):
        example = draw(number, half, planner, store)
        waveform = Waveform(example.mixture[None], store.sample_rate)
        estimates = separate_waveform(separator, waveform, example.prompts).sources[:, 0]
        references = example.references.clone()
        for group in equal_prompt_groups(example.prompts):
            if len(group) == 2:
                pair = list(group)
                products = references[pair] @ estimates[pair].T
                if products.trace() < products.flip(0).trace():
                    references[pair] = references[pair[::-1]]
        yield dataclasses.replace(example, references=references, estimates=estimates)


def weights_of(model: WaveformModel, prompts: Sequence[str]) -> list[PresenceWeights]:
    return [model.config.presence.get(prompt, GENERIC_WEIGHTS) for prompt in prompts]


def calibrate(model: WaveformModel, found: Iterator[Example]) -> dict[str, PresenceWeights]:
    """Fit the weights of every prompt, and those of ``generic`` on all prompts together."""
    features: dict[str, list[Tensor]] = defaultdict(list)
    labels: dict[str, list[Tensor]] = defaultdict(list)
    for example in found:
        meter = PresenceMeter(weights_of(model, example.prompts), model.sample_rate)
        described = meter.describe(example.mixture[None], example.estimates[:, None], is_last=True)
        for prompt, rows, truth in zip(
            example.prompts, described, example.window_labels(model.sample_rate), strict=True
        ):
            known = (truth >= 0) & ~rows.isnan().any(dim=-1)
            for name in (prompt, "generic"):
                features[name].append(rows[known])
                labels[name].append(truth[known])
    return {
        name: fit(
            torch.cat(features[name]),
            torch.cat(labels[name]),
            NUM_GENERIC_FEATURES if name == "generic" else features[name][0].shape[1],
        )
        for name in sorted(features)
    }


def fit(features: Tensor, labels: Tensor, num_used: int) -> PresenceWeights:
    """Logistic regression, both answers counting for half of the loss."""
    used = features[:, :num_used].double()
    mean, deviation = used.mean(dim=0), used.std(dim=0) + 1e-6
    is_there = labels.double()
    share = is_there.mean()
    importance = torch.where(labels == 1, 0.5 / share, 0.5 / (1 - share))
    weights = torch.zeros(num_used + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = ((used - mean) / deviation) @ weights[1:] + weights[0]
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, is_there, reduction="none"
        )
        loss = (importance * losses).mean() + PENALTY * weights[1:].square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    slopes = weights.detach()[1:] / deviation
    bias = weights.detach()[0] - (slopes * mean).sum()
    return PresenceWeights(*(round(value, 4) for value in (float(bias), *slopes.tolist())))


def roc(there: Sequence[float], absent: Sequence[float]) -> tuple[Tensor, Tensor]:
    """False and true positive rate at every threshold, from the highest to the lowest."""
    scores = torch.tensor([*there, *absent])
    truth = torch.tensor([1.0] * len(there) + [0.0] * len(absent))
    order = scores.argsort(descending=True)
    last_of_ties = torch.cat([scores[order].diff() != 0, torch.tensor([True])])
    true = (truth[order].cumsum(0) / max(1, len(there)))[last_of_ties]
    false = ((1 - truth[order]).cumsum(0) / max(1, len(absent)))[last_of_ties]
    zero = torch.zeros(1)
    return torch.cat([zero, false]), torch.cat([zero, true])


def roc_figures(there: Sequence[float], absent: Sequence[float]) -> str:
    """Area under the curve, hits at 5 % false alarms, equal error rate."""
    if not there or not absent:
        return "- | - | -"
    false, true = roc(there, absent)
    area = float(torch.trapezoid(true, false))
    hits = float(true[false <= 0.05].max())
    equal_error = float(((false + 1 - true) / 2)[(false - (1 - true)).abs().argmin()])
    return f"{area:.2f} | {hits:.0%} | {equal_error:.0%}"


def equal_shares(mixture: Tensor, sources: Tensor) -> Tensor:
    return sources + (mixture - sources.sum(dim=0)) / len(sources)


def shares_by_energy(mixture: Tensor, sources: Tensor) -> Tensor:
    """Shares by the energy within 85 ms (at 48 kHz) of each moment."""
    reach = 4096
    sums = torch.nn.functional.pad(sources.double().square(), (reach + 1, reach)).cumsum(dim=-1)
    smooth = (sums[:, 2 * reach + 1 :] - sums[:, : -2 * reach - 1]).clamp_min(0.0)
    weights = smooth / smooth.sum(dim=0).clamp_min(1e-30)
    return sources + (mixture - sources.sum(dim=0)) * weights.float()


def project(mixture: Tensor, sources: Tensor, sample_rate: int) -> Tensor:
    return Projector(sample_rate).push(mixture[None], sources[:, None], is_last=True)[1][:, 0]


@dataclass
class Tally:
    """Scores of sources that are there and of absent ones, name → scores."""

    there: dict[str, list[float]] = dataclasses.field(default_factory=lambda: defaultdict(list))
    absent: dict[str, list[float]] = dataclasses.field(default_factory=lambda: defaultdict(list))

    def add(self, names: Sequence[str], scores: Sequence[float], labels: Sequence[int]) -> None:
        """Take the scores of one mixture; labels as ``Example.is_there`` gives them."""
        for name, score, label in zip(names, scores, labels, strict=True):
            if label >= 0:
                (self.there if label else self.absent)[name].append(score)
                (self.there if label else self.absent)["all"].append(score)


def measure(model: WaveformModel, found: Iterator[Example], picture: Path | None) -> None:
    rate = model.sample_rate
    recordings, windows, twins, closed = Tally(), Tally(), Tally(), Tally()
    generic = Tally()
    lost_db: list[float] = []
    harm_db: list[float] = []
    sums: dict[str, dict[str, list[float]]] = {
        method: defaultdict(list)
        for method in ("off", "equal", "energy", "project", "gate", "gate, project")
    }
    null_db: list[float] = []
    for example in found:
        names, mixture, estimates = example.prompts, example.mixture, example.estimates
        sources = estimates[:, None]
        meter = PresenceMeter(weights_of(model, names), rate)
        timeline = meter.push(mixture[None], sources, is_last=True)
        labels = example.is_there().tolist()
        scores = [recording_score(row) for row in timeline]
        recordings.add(names, scores, labels)
        for name, row, truth in zip(
            names, timeline.tolist(), example.window_labels(rate).tolist(), strict=True
        ):
            windows.add([name] * len(row), row, truth)
        is_twin = [names.count(name) > 1 for name in names]
        twins.add(
            [name for name, twin in zip(names, is_twin, strict=True) if twin],
            [score for score, twin in zip(scores, is_twin, strict=True) if twin],
            [label for label, twin in zip(labels, is_twin, strict=True) if twin],
        )
        by_generic = PresenceMeter([GENERIC_WEIGHTS] * len(names), rate)
        unknown = by_generic.push(mixture[None], sources, is_last=True)
        generic.add(names, [recording_score(row) for row in unknown], labels)

        gate = Gate(rate, len(names))
        gated = gate.push(mixture[None], sources, timeline, is_last=True)[1][:, 0]
        is_closed = (~gated.bool().any(dim=-1)).tolist()
        closed.add(names, [float(each) for each in is_closed], labels)
        variants = {
            "off": estimates,
            "equal": equal_shares(mixture, estimates),
            "energy": shares_by_energy(mixture, estimates),
            "project": project(mixture, estimates, rate),
            "gate": gated,
            "gate, project": project(mixture, gated, rate),
        }
        asked = "all asked" if example.holds_all() else "some not asked"
        there = [i for i, label in enumerate(labels) if label == 1 and not is_closed[i]]
        quality_db = {
            method: si_sdr_db(stems[there], example.references[there]).clamp(-LIMIT_DB, LIMIT_DB)
            for method, stems in variants.items()
        }
        for method, figures_db in quality_db.items():
            sums[method][asked] += figures_db.tolist()
        harm_db += (quality_db["off"] - quality_db["gate"]).tolist()
        lost = [i for i, label in enumerate(labels) if label == 1 and is_closed[i]]
        lost_db += si_sdr_db(estimates[lost], example.references[lost]).tolist()
        if bool(mixture.any()):
            left = mixture - variants["project"].sum(dim=0)
            null_db.append(float(10 * torch.log10(left.square().sum() / mixture.square().sum())))

    prompts = (*sorted(set(recordings.there) - {"all"}), "all")
    print("| prompt | there / absent | AUC | hits at 5 % false alarms | equal error | "
          "AUC of windows | hits | equal error |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for title, tally, of_windows in (
        *((name, recordings, windows) for name in prompts),
        ("twins", twins, None),
        ("weights for unknown prompts", generic, None),
    ):
        key = title if of_windows is not None else "all"
        counts = f"{len(tally.there[key])} / {len(tally.absent[key])}"
        line = f"| {title} | {counts} | {roc_figures(tally.there[key], tally.absent[key])} |"
        if of_windows is not None:
            line += f" {roc_figures(of_windows.there[key], of_windows.absent[key])} |"
        print(line)
    print("\n| gate | absent and silent throughout | there but silent throughout |\n|---|---|---|")
    for name in prompts:
        print(f"| {name} | {_mean(closed.absent[name]):.0%} | {_mean(closed.there[name]):.0%} |")
    harmed = sum(harm > 1.0 for harm in harm_db) / max(1, len(harm_db))
    print(f"\n{harmed:.0%} of the sources that are there lose more than 1 dB to the gate;")
    print(f"the median loss is {sorted(harm_db)[len(harm_db) // 2]:.2f} dB")
    print(f"sources lost to the gate had a mean SI-SDR of {_mean(lost_db):.1f} dB before\n")
    print("| stems | SI-SDR, all asked | some sound not asked |\n|---|---|---|")
    for method, by_kind in sums.items():
        figures = (_mean(by_kind[kind]) for kind in ("all asked", "some not asked"))
        print(f"| {method} | {' | '.join(f'{figure:.2f}' for figure in figures)} |")
    print(f"\nmixture minus projected stems: {max(null_db):.0f} dB at worst")
    if picture is not None:
        draw_picture(recordings, picture)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def draw_picture(tally: Tally, path: Path) -> None:
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots()
    for name in sorted(set(tally.there) - {"all"}):
        false, true = roc(tally.there[name], tally.absent[name])
        axes.plot(false, true, label=name, linewidth=1.2)
    false, true = roc(tally.there["all"], tally.absent["all"])
    axes.plot(false, true, label="all", color="black", linewidth=2)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.set_xlabel("false alarms")
    axes.set_ylabel("hits")
    axes.set_title("Is the sound there? Whole recordings of 6 to 10 s")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--calibrate", action="store_true", help="print weights for the config")
    parser.add_argument("--mixtures", type=int, default=300)
    parser.add_argument("--picture", type=Path, help="draw the ROC of recordings to this file")
    arguments = parser.parse_args()
    if not has_manifest(arguments.manifest):
        return
    torch.manual_seed(0)
    started = time.perf_counter()
    model = unbraid.load_bundle(resolve_model(arguments.model)).model
    half = 0 if arguments.calibrate else 1
    found = examples(model, arguments.manifest, half, arguments.mixtures)
    if arguments.calibrate:
        weights = calibrate(model, found)
        print(json.dumps({name: dump(each) for name, each in weights.items()}, indent=2))
    else:
        measure(model, found, arguments.picture)
        print(f"({time.perf_counter() - started:.0f} s)")


if __name__ == "__main__":
    main()
