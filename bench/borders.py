"""What cutting a recording into chunks costs, at the joins and between them.

Recordings of a minute, each ten mixtures of the evaluation split one after another, are
separated in one pass and in chunks. For each pair of segment and overlap the table has

- the difference to the one pass, in dB relative to the stems: within 0.25 s of the joins
  (a join is the middle of an overlap) and elsewhere;
- the error against the references compared with that of the one pass at the same places, in
  dB: above 0 the chunks are worse. The one pass is no truth: it has more context, and longer
  input than the model was trained on;
- SI-SDR over whole recordings, and the share of the input that is separated twice.

    python bench/borders.py [--model mini] [--recordings 4] [--manifest manifest.csv]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from material import SEED, has_manifest, open_evaluation, parser_of
from unbraid.checkpoints import load_bundle, resolve_model
from unbraid.data.fixed import fixed_plans
from unbraid.dsp.levels import power_db
from unbraid.mixing.recipe import Planner, Scene
from unbraid.mixing.render import render
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.measures import si_sdr_db
from unbraid.separation.separator import StreamSeparator, separate_waveform
from unbraid.separation.settings import SeparationConfig
from unbraid.types import Waveform

SCENES = (
    Scene(("speech", "sfx-mix", "music-mix")),
    Scene(("vocals", "drums", "bass", "other")),
)
SEGMENTS_S = (4.0, 8.0, 16.0)
OVERLAPS_S = (0.0, 0.5, 1.0, 2.0, 4.0)
MIXTURES_PER_RECORDING = 10
NEAR_S = 0.25


@dataclasses.dataclass(frozen=True, eq=False)
class LongMixture:
    """A recording of which every source is known."""

    prompts: tuple[str, ...]
    references: Float[Tensor, "source time"]


def draw_recordings(manifest: Path, sample_rate: int, per_scene: int) -> tuple[LongMixture, ...]:
    recipe, clips, store = open_evaluation(manifest, sample_rate)
    count = per_scene * MIXTURES_PER_RECORDING
    plans = fixed_plans(Planner(recipe, clips), SCENES, count, store.read, sample_rate, SEED)
    recordings = []
    for scene in SCENES:
        scene_plans = plans[" + ".join(scene.prompts)]
        for first in range(0, count, MIXTURES_PER_RECORDING):
            parts = [
                render(plan, store.read, sample_rate).references
                for plan in scene_plans[first : first + MIXTURES_PER_RECORDING]
            ]
            recordings.append(LongMixture(scene.prompts, torch.cat(parts, dim=-1)))
    return tuple(recordings)


def separate(
    model: WaveformModel, recording: LongMixture, config: SeparationConfig
) -> Float[Tensor, "source time"]:
    mixture = Waveform(recording.references.sum(dim=0, keepdim=True), model.sample_rate)
    separator = StreamSeparator(model, config)
    return separate_waveform(separator, mixture, recording.prompts).sources[:, 0]


def near_joins(
    num_samples: int, segment_s: float, overlap_s: float, sample_rate: int
) -> Bool[Tensor, "time"]:
    """Which samples lie next to the middle of an overlap."""
    seconds = torch.arange(num_samples) / sample_rate
    hop_s = segment_s - overlap_s
    joins = torch.arange(hop_s + overlap_s / 2, num_samples / sample_rate, hop_s)
    return (seconds[:, None] - joins).abs().amin(dim=1) < NEAR_S


def power(
    signals: Sequence[Float[Tensor, "source time"]], places: Sequence[Bool[Tensor, "time"]]
) -> Float[Tensor, ""]:
    pairs = zip(signals, places, strict=True)
    return sum((signal[:, place].square().sum() for signal, place in pairs), torch.tensor(0.0))


def measure(model: WaveformModel, recordings: Sequence[LongMixture]) -> None:
    references = [recording.references for recording in recordings]
    length_s = references[0].shape[-1] / model.sample_rate
    in_one_s = SeparationConfig(segment_s=length_s + 1.0, overlap_s=0.0)
    whole = [separate(model, recording, in_one_s) for recording in recordings]
    whole_errors = [
        estimate - reference for estimate, reference in zip(whole, references, strict=True)
    ]
    print("| segment s | overlap s | difference at joins dB | elsewhere dB "
          "| excess error at joins dB | elsewhere dB | SI-SDR dB | twice |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    score = torch.cat([si_sdr_db(*pair) for pair in zip(whole, references, strict=True)]).mean()
    print(f"| one pass | | | | | | {score:.2f} | |")
    for segment_s in SEGMENTS_S:
        for overlap_s in OVERLAPS_S:
            if overlap_s >= segment_s:
                continue
            config = SeparationConfig(segment_s=segment_s, overlap_s=overlap_s)
            chunked = [separate(model, recording, config) for recording in recordings]
            differences = [one - other for one, other in zip(chunked, whole, strict=True)]
            errors = [one - other for one, other in zip(chunked, references, strict=True)]
            near = near_joins(references[0].shape[-1], segment_s, overlap_s, model.sample_rate)
            cells = []
            for signals, against in ((differences, whole), (errors, whole_errors)):
                for places in ([near] * len(recordings), [~near] * len(recordings)):
                    ratio = power_db(power(signals, places)) - power_db(power(against, places))
                    cells.append(f"{ratio:+.2f}")
            score = torch.cat(
                [si_sdr_db(*pair) for pair in zip(chunked, references, strict=True)]
            ).mean()
            twice = overlap_s / (segment_s - overlap_s)
            print(
                f"| {segment_s:g} | {overlap_s:g} | {' | '.join(cells)} | {score:.2f} "
                f"| {twice:.0%} |",
                flush=True,
            )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--recordings", type=int, default=4, help="of each scene")
    arguments = parser.parse_args()
    if not has_manifest(arguments.manifest):
        return
    model = load_bundle(resolve_model(arguments.model)).model.eval()
    measure(model, draw_recordings(arguments.manifest, model.sample_rate, arguments.recordings))


if __name__ == "__main__":
    main()
