"""Audio prompt tuning: prompts for the classes of a corpus, from 1, 5, 10 and all clips of each.

Three systems on the same test mixtures: the *baseline* asks with the mean of what the model's
tagger hears in the clips (a model without a tagger: with its nearest prompt), *APT* tunes these
vectors, *joint* tunes the network with them. Median SDR by the rules of the paper.

    python bench/apt.py                                   # ESC-10 in the manifest, query-mini
    python bench/apt.py --model mini                      # the same with prompts of TUSS
    python bench/apt.py --corpus esc50 --root ESC-50-master --model asp
    python bench/apt.py --corpus musdb18 --root musdb18 --model asp

ESC: folds 1 to 3 to learn from, 4 and 5 to measure, each clip with one of another class. MUSDB18:
the loudest 30 s of each train song to learn from, the test songs in pieces of 2 s to measure.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

import torch

from material import SHARED, has_manifest
from unbraid import SeparationConfig
from unbraid.apps.class_prompts import (
    ClassClips,
    class_mixtures,
    few_shots,
    mean_embeddings,
    tune_classes,
)
from unbraid.apps.separator import Separator
from unbraid.audio import read
from unbraid.checkpoints import load_bundle, resolve_model
from unbraid.data.corpora import esc10, esc50, musdb18
from unbraid.data.manifest import Recording, read_manifest
from unbraid.dsp.resample import resample
from unbraid.evaluation.benchmarks import class_of, class_pairs, find_benchmark
from unbraid.evaluation.items import Item, Protocol, items_of
from unbraid.evaluation.results import Run, RunInfo
from unbraid.evaluation.runner import measure_item
from unbraid.evaluation.summary import Summary, SummaryRow, summarise
from unbraid.models.waveform import WaveformModel
from unbraid.training.methods.prompt_tuning import TuningConfig, nearest_prompt
from unbraid.types import Waveform

#: Of what is learnt from, and of the pieces in which songs are heard.
CROP_S = 2.0
#: Of the clips of ESC-50.
CLIP_S = 5.0
HIGHLIGHT_S = 30.0
SHOTS = ("1", "5", "10", "all")
#: Of the classes of ESC-10 in a manifest, the fold is the first digit of the original name.
FOLD = re.compile(r"ESC-10__(\d)-")


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """What is learnt from and what is measured on.

    Attributes:
        clips: To learn from, at the rate that was asked for.
        items: To measure on; a new iterator at each call.
        protocol: By which rules.
        pieces_s: How queries hear the clips, see ``mean_embeddings``.
    """

    clips: ClassClips
    items: Callable[[], Iterator[Item]]
    protocol: Protocol
    pieces_s: float | None = None


def of_manifest(manifest: Path, sample_rate: int) -> Experiment:
    """ESC-10 as it lies in a manifest."""
    recordings = []
    for row in read_manifest(manifest):
        fold = FOLD.search(row.path)
        if fold:
            recordings.append(dataclasses.replace(row, split=f"fold{fold[1]}"))
    return of_folds(manifest.parent, recordings, sample_rate)


def of_folds(root: Path, recordings: Sequence[Recording], sample_rate: int) -> Experiment:
    """Clips in folds, as ESC-50 has them."""
    train = [clip for clip in recordings if clip.split in ("fold1", "fold2", "fold3")]
    test = [clip for clip in recordings if clip.split in ("fold4", "fold5")]
    clips: dict[str, list[torch.Tensor]] = {}
    for clip in train:
        clips.setdefault(class_of(clip), []).append(_mono(root / clip.path, sample_rate))
    protocol = find_benchmark("esc50-pairs").protocol
    assert protocol.sample_rate is not None, "the paper's is 32 kHz"
    rate = protocol.sample_rate

    def items() -> Iterator[Item]:
        # Recordings that were encoded anew are a little longer or shorter than 5 s.
        length = round(CLIP_S * rate)
        for files in class_pairs(test):
            tracks = [reference.add[0].path for reference in files.references]
            waveforms = [_mono(root / path, rate)[:length] for path in tracks]
            sources = torch.stack(
                [torch.nn.functional.pad(each, (0, length - len(each))) for each in waveforms]
            )
            yield Item(
                name=files.name,
                mixture=Waveform(sources.sum(dim=0, keepdim=True), rate),
                references=sources[:, None],
                prompts=tuple(reference.prompt for reference in files.references),
                group=files.group,
            )

    return Experiment(clips, items, protocol)


def of_songs(root: Path, sample_rate: int) -> Experiment:
    """MUSDB18."""
    protocol = find_benchmark("musdb18-pieces").protocol
    whole = Protocol(channels="mono", sample_rate=sample_rate)
    clips: dict[str, list[torch.Tensor]] = {}
    for split in ("train", "valid"):
        for item in items_of(root, musdb18.mixtures(root, split), whole):
            start = loudest_start(item.mixture.samples[0], round(HIGHLIGHT_S * sample_rate))
            for stem, reference in zip(item.prompts, item.references, strict=True):
                highlight = reference[0, start : start + round(HIGHLIGHT_S * sample_rate)]
                clips.setdefault(stem, []).append(highlight.clone())
    return Experiment(
        clips,
        lambda: items_of(root, musdb18.mixtures(root, "test"), protocol),
        protocol,
        pieces_s=CROP_S,
    )


def loudest_start(mono: torch.Tensor, length: int) -> int:
    """Where the stretch of a length with the most energy begins."""
    energy = torch.nn.functional.pad(mono.double().square().cumsum(0), (1, 0))
    if len(mono) <= length:
        return 0
    return int((energy[length:] - energy[:-length]).argmax())


def _mono(path: Path, sample_rate: int) -> torch.Tensor:
    waveform = read(path)
    return resample(waveform.samples.mean(dim=0, keepdim=True), waveform.sample_rate, sample_rate)[
        0
    ]


def starts(
    model: WaveformModel, clips: ClassClips, pieces_s: float | None, seed: int
) -> dict[str, torch.Tensor]:
    """The vectors that prompts begin with."""
    if model.tagger is not None:
        return mean_embeddings(model.tagger, clips, model.sample_rate, pieces_s)
    first = len(model.prompts.names)
    found = {}
    for name in clips:
        looks = class_mixtures(
            clips, {name: first}, round(CROP_S * model.sample_rate), 4, seed, targets=[name]
        )
        nearest = nearest_prompt(model, name, [next(looks) for _ in range(3)])
        row = model.prompts.names.index(nearest)
        vector = model.prompts.weight[row].detach()[: model.prompts.dim]
        found[name] = vector.repeat(max(model.network.query_vectors), 1)
        print(f"  {name}: begins as {nearest}", flush=True)
    return found


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A system on all test mixtures.

    Attributes:
        summary: By the rules of the paper, which take medians.
        mean_db: Mean SDR over all sources, to which failures count in full.
    """

    summary: Summary
    mean_db: float


def measured(model: WaveformModel, experiment: Experiment, title: str) -> Outcome:
    """A model on all test mixtures, by the rules."""
    separator = Separator(model, SeparationConfig(segment_s=60.0, overlap_s=0.0))

    def separate(item: Item, prompts: tuple[str, ...]) -> torch.Tensor:
        stems = separator.separate(
            item.mixture.samples, prompts, sample_rate=item.mixture.sample_rate
        )
        return torch.stack([stems[prompt] for prompt in prompts])

    results = tuple(
        measure_item(item, separate, experiment.protocol, with_oracles=False)[0]
        for item in experiment.items()
    )
    info = RunInfo(
        title, "", "", experiment.protocol.measures, dataclasses.asdict(experiment.protocol), "", ""
    )
    values = [source.value("sdr_v4_db") for result in results for source in result.sources]
    mean_db = fmean(value for value in values if not math.isnan(value))
    return Outcome(summarise(Run(info, results)), mean_db)


def compare(
    model: WaveformModel,
    experiment: Experiment,
    shots: Sequence[str],
    tuning: TuningConfig,
    joint_rate: float | None,
    seed: int,
) -> dict[tuple[str, str], Outcome]:
    """Shots and system → its results; prints a line for each as it comes."""
    found: dict[tuple[str, str], Outcome] = {}

    def note(shot: str, system: str, tuned: WaveformModel, begun: float) -> None:
        seconds = time.perf_counter() - begun
        found[shot, system] = measured(tuned, experiment, system)
        outcome = found[shot, system]
        values = f"{_value(outcome.summary.rows[0]):6.2f} dB, mean {outcome.mean_db:6.2f} dB"
        print(f"  {shot:>3} {system:>8}: {values}, {seconds:.0f} s", flush=True)

    for shot in shots:
        clips = experiment.clips
        if shot != "all":
            clips = few_shots(clips, int(shot), seed)
        begun = time.perf_counter()
        vectors = starts(model, clips, experiment.pieces_s, seed)
        note(shot, "baseline", model.with_prompts(vectors), begun)
        tune = partial(
            tune_classes,
            model,
            vectors,
            clips,
            crop_samples=round(CROP_S * model.sample_rate),
            seed=seed,
        )
        begun = time.perf_counter()
        note(shot, "APT", tune(tuning).model, begun)
        if joint_rate is not None:
            begun = time.perf_counter()
            together = dataclasses.replace(tuning, network_learning_rate=joint_rate)
            note(shot, "joint", tune(together).model, begun)
    return found


def print_tables(found: Mapping[tuple[str, str], Outcome], unit: str) -> None:
    """Everything, then class by class."""
    shots = list(dict.fromkeys(shot for shot, _ in found))
    systems = list(dict.fromkeys(system for _, system in found))
    any_summary = next(iter(found.values())).summary
    mixture = any_summary.rows[0].mixture[any_summary.measures[0]]
    print(f"\nMedian SDR in dB, and the mean; median of the mixture as it is: {mixture:.2f}\n")
    print(f"| {unit} | {' | '.join(systems)} |")
    print("|---" * (len(systems) + 1) + "|")
    for shot in shots:
        outcomes = [found[shot, system] for system in systems]
        cells = [f"{_value(each.summary.rows[0]):.2f} ({each.mean_db:.2f})" for each in outcomes]
        print(f"| {shot} | {' | '.join(cells)} |")
    columns = [(shot, system) for shot in shots for system in systems]
    print(f"\n| class | {' | '.join(f'{shot}, {system}' for shot, system in columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for position, row in enumerate(any_summary.rows[1:], 1):
        values = [_value(found[column].summary.rows[position]) for column in columns]
        print(f"| {row.title} | {' | '.join(f'{value:.2f}' for value in values)} |")


def write_csv(found: Mapping[tuple[str, str], Outcome], path: Path) -> None:
    """All medians, a line each."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("shots", "system", "class", "median_sdr_db"))
        for (shot, system), outcome in found.items():
            for row in outcome.summary.rows:
                writer.writerow((shot, system, row.title, f"{_value(row):.3f}"))


def _value(row: SummaryRow) -> float:
    (interval,) = row.estimate.values()
    return interval.value


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus", choices=("manifest", "esc10", "esc50", "musdb18"), default="manifest"
    )
    parser.add_argument("--manifest", type=Path, default=SHARED / "data" / "manifest.csv")
    parser.add_argument("--root", type=Path, help="folder of the corpus")
    parser.add_argument("--model", default="query-mini")
    parser.add_argument("--shots", nargs="*", default=list(SHOTS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=0.005,
        help="relative to the vectors' root mean square",
    )
    parser.add_argument("--loss", choices=("l1", "snr"), default="l1")
    parser.add_argument("--joint", type=float, metavar="RATE", help="of the network; 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    if options.corpus == "manifest" and not has_manifest(options.manifest):
        return
    model = load_bundle(resolve_model(options.model)).model
    if options.corpus == "manifest":
        experiment = of_manifest(options.manifest, model.sample_rate)
    elif options.root is None:
        parser.error(f"--corpus {options.corpus} needs --root, its folder")
    elif options.corpus == "musdb18":
        experiment = of_songs(options.root, model.sample_rate)
    else:
        corpus = esc50 if options.corpus == "esc50" else esc10
        recordings = list(corpus.recordings(options.root))
        experiment = of_folds(options.root, recordings, model.sample_rate)
    tuning = TuningConfig(
        loss=options.loss,
        learning_rate=options.learning_rate,
        num_steps=options.steps,
        check_every=max(1, options.steps // 10),
        patience=10,
    )
    found = compare(model, experiment, options.shots, tuning, options.joint or None, options.seed)
    print_tables(found, "songs" if options.corpus == "musdb18" else "clips of each class")
    if options.csv:
        write_csv(found, options.csv)


if __name__ == "__main__":
    main()
