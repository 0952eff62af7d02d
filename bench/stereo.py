"""What the ways of treating stereo do to the sources and to their places in the image.

Mixtures of two channels are drawn from the evaluation split of a manifest, always the same
ones, in four kinds:

- ``panned``: every source in mono at a random place by the constant-power law;
- ``spaced``: the same, and one channel hears it up to 0.6 ms later, as with spaced microphones;
- ``recorded``: recordings of two channels as they are, all others panned;
- ``opposite``: panned, and one source has the opposite polarity in the right channel.

Measured on every source:

- SI-SDR, over both channels as one signal, and its gain over the mixture;
- ISR, the image measure of BSS-eval: the estimate's channels are projected on the reference's
  channels; power of the reference over power of what the projection differs from it by. Here
  the projection has one tap, so it hears wrong gains between channels, and a wrong level;
- the level error in dB and the phase error in radians between the channels, as binaural cue
  coding has them: in cells of one mel band of 40 by 43 ms, in which an ear keeps no detail, the
  difference of the channels' powers in dB (held within 30 dB) and the angle of their cross
  spectrum (below 1.5 kHz, above which ears do not follow phase). Mean of the absolute
  difference to the reference's, weighted by the reference's energy in the cell. One number for
  the whole source would let errors in opposite directions cancel.

    python bench/stereo.py [--model mini] [--mixtures 24] [--manifest manifest.csv]
"""

from __future__ import annotations

import dataclasses
import functools
import math
import random
import time
from pathlib import Path
from typing import get_args

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from material import CROP_S, has_manifest, open_evaluation, parser_of
from unbraid.audio import read
from unbraid.checkpoints import load_bundle, resolve_model
from unbraid.data.fixed import fixed_plans
from unbraid.dsp.bands import mel_bands
from unbraid.dsp.levels import db_to_gain, power_db
from unbraid.dsp.resample import resample
from unbraid.dsp.stft import StftConfig, stft
from unbraid.mixing.recipe import MixPlan, Planner, Scene, SourcePlan
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.assignment import assign_within_equal_prompts
from unbraid.objectives.measures import LIMIT_DB, si_sdr_db
from unbraid.separation.stereo import plan_channels
from unbraid.types import StereoMode, equal_prompt_groups

KINDS = ("panned", "spaced", "recorded", "opposite")
SCENES = (
    Scene(("speech", "sfx-mix", "music-mix")),
    Scene(("vocals", "drums", "bass", "other")),
    Scene(("speech", "speech")),
)
#: Not ``material.SEED``, with which the constants of ``separation.stereo`` were chosen.
SEED = 2027
LONGEST_DELAY_S = 0.6e-3
CELLS = StftConfig(2048, 1024)
NUM_BANDS = 40
PHASE_LIMIT_HZ = 1500.0
LEVEL_LIMIT_DB = 30.0


@dataclasses.dataclass(frozen=True, eq=False)
class StereoMixture:
    """A mixture of two channels and the image of each of its sources."""

    kind: str
    prompts: tuple[str, ...]
    references: Float[Tensor, "source 2 time"]

    @property
    def mixture(self) -> Float[Tensor, "2 time"]:
        """The sum of the images."""
        return self.references.sum(dim=0)


@dataclasses.dataclass(frozen=True)
class ImageScore:
    """Measures of one source of one mixture."""

    si_sdr_db: float
    gain_db: float
    isr_db: float
    level_error_db: float
    phase_error_rad: float


def draw_mixtures(
    manifest: Path, sample_rate: int, per_scene: int
) -> dict[str, tuple[StereoMixture, ...]]:
    """Scene → its mixtures, the kinds in turn."""
    recipe, clips, store = open_evaluation(manifest, sample_rate)
    plans = fixed_plans(Planner(recipe, clips), SCENES, per_scene, store.read, sample_rate, SEED)

    @functools.lru_cache(maxsize=16)
    def read_whole(clip: str) -> Float[Tensor, "channel time"]:
        waveform = read(manifest.parent / clip)
        return resample(waveform.samples, waveform.sample_rate, sample_rate)

    def image_of(
        source: SourcePlan, kind: str, is_opposite: bool, rng: random.Random
    ) -> Float[Tensor, "2 time"]:
        """The sum of a source's parts in two channels, at its level over both."""
        length = round(CROP_S * sample_rate)
        angle = rng.uniform(0.0, math.pi / 2)
        delay = round(rng.uniform(-LONGEST_DELAY_S, LONGEST_DELAY_S) * sample_rate)
        image = torch.zeros(2, length)
        for part in source.parts:
            start = round(part.start_s * sample_rate)
            whole = read_whole(part.clip)
            if kind == "recorded" and whole.shape[0] == 2:
                stretch = whole[:, max(0, start) : max(0, start + length)]
                before = max(0, -start)
                heard = torch.nn.functional.pad(
                    stretch, (before, length - before - stretch.shape[1])
                )
            else:
                mono = store.read(part.clip, start - abs(delay), length + abs(delay))
                shift = abs(delay) if kind == "spaced" else 0
                early, late = mono[shift : shift + length], mono[:length]
                left, right = (early, late) if delay > 0 else (late, early)
                heard = torch.stack([math.cos(angle) * left, math.sin(angle) * right])
            image += at_level(heard, part.gain_db)
        if is_opposite:
            image[1] = -image[1]
        return at_level(image, source.gain_db)

    def render(plan: MixPlan, number: int) -> StereoMixture:
        rng = random.Random(f"{SEED}/{number}")
        kind = KINDS[number % len(KINDS)]
        opposite = rng.randrange(len(plan.sources)) if kind == "opposite" else None
        images = [
            image_of(source, kind, position == opposite, rng)
            for position, source in enumerate(plan.sources)
        ]
        prompts = tuple(source.prompt for source in plan.sources)
        return StereoMixture(kind, prompts, torch.stack(images))

    return {
        scene: tuple(render(plan, number) for number, plan in enumerate(scene_plans))
        for scene, scene_plans in plans.items()
    }


def at_level(image: Float[Tensor, "2 time"], level_db: float) -> Float[Tensor, "2 time"]:
    """Bring the root mean square over both channels to a level; silence stays silence."""
    level = float(image.square().mean().sqrt())
    return image * (db_to_gain(level_db) / level) if level > 1e-8 else image


def score(
    estimates: Float[Tensor, "source 2 time"], mixture: StereoMixture, sample_rate: int
) -> list[ImageScore]:
    """Measures of every source, the best order inside equal prompts."""
    references = mixture.references
    count = len(references)
    pairwise = si_sdr_db(
        estimates.flatten(1).unsqueeze(1).expand(-1, count, -1),
        references.flatten(1).unsqueeze(0).expand(count, -1, -1),
    )
    rows = [sorted(set(mixture.prompts)).index(prompt) for prompt in mixture.prompts]
    order = assign_within_equal_prompts(-pairwise[None], torch.tensor([rows]))[0]
    estimates = estimates[order]
    after = si_sdr_db(estimates.flatten(1), references.flatten(1))
    before = si_sdr_db(mixture.mixture.flatten().expand(count, -1), references.flatten(1))
    return [
        ImageScore(
            float(after[source]),
            float(after[source] - before[source]),
            image_to_spatial_db(estimates[source], references[source]),
            *image_errors(estimates[source], references[source], sample_rate),
        )
        for source in range(count)
    ]


def image_to_spatial_db(
    estimate: Float[Tensor, "2 time"], reference: Float[Tensor, "2 time"]
) -> float:
    """ISR with filters of one tap.

    Source: E. Vincent et al., "First stereo audio source separation evaluation campaign",
        ICA 2007. Differs: a tap instead of 512, so that a filter cannot excuse the error.
    """
    gram = (reference @ reference.T).double()
    gains = (estimate @ reference.T).double() @ torch.linalg.pinv(gram, rtol=1e-6, hermitian=True)
    error = gains.float() @ reference - reference
    ratio = power_db(reference.square().sum()) - power_db(error.square().sum())
    return float(ratio.clamp(-LIMIT_DB, LIMIT_DB))


def image_errors(
    estimate: Float[Tensor, "2 time"], reference: Float[Tensor, "2 time"], sample_rate: int
) -> tuple[float, float]:
    """Level error in dB and phase error in radians between the channels, as said above.

    Source: C. Faller and F. Baumgarte, "Binaural cue coding, part II", TSAP 2003, for the cues.
    """
    power, cross = _cells(estimate, sample_rate)
    reference_power, reference_cross = _cells(reference, sample_rate)
    weights = reference_power.sum(dim=0)
    difference = _level_difference_db(power) - _level_difference_db(reference_power)
    level_error = float((weights * difference.abs()).sum() / weights.sum())
    weights = reference_cross.abs()
    widths = torch.tensor(mel_bands(sample_rate, CELLS.n_fft, NUM_BANDS))
    below = widths.cumsum(0) * (sample_rate / CELLS.n_fft) <= PHASE_LIMIT_HZ
    weights = weights * below
    angle = (cross * reference_cross.conj()).angle().abs()
    return level_error, float((weights * angle).sum() / weights.sum().clamp_min(1e-20))


def _cells(
    image: Float[Tensor, "2 time"], sample_rate: int
) -> tuple[Float[Tensor, "2 frame band"], Complex[Tensor, "frame band"]]:
    """Power of both channels and their cross spectrum, cell by cell."""
    spectrum = stft(image, CELLS)
    widths = mel_bands(sample_rate, CELLS.n_fft, NUM_BANDS)
    products = [*spectrum.abs().square().to(spectrum.dtype), spectrum[0] * spectrum[1].conj()]
    bands = [
        torch.stack([band.sum(dim=-1) for band in product.split(widths, dim=-1)], dim=-1)
        for product in products
    ]
    return torch.stack(bands[:2]).real, bands[2]


def _level_difference_db(power: Float[Tensor, "2 frame band"]) -> Float[Tensor, "frame band"]:
    difference = power_db(power[0]) - power_db(power[1])
    return difference.clamp(-LEVEL_LIMIT_DB, LEVEL_LIMIT_DB)


@torch.inference_mode()
def measure(
    model: WaveformModel, scenes: dict[str, tuple[StereoMixture, ...]], mode: StereoMode
) -> tuple[list[tuple[str, str, ImageScore]], int, float]:
    """Scene, kind and measures of every source; calls of the model; seconds."""
    calls = 0
    seconds = 0.0
    scores = []
    for scene, mixtures in scenes.items():
        for mixture in mixtures:
            indices = model.prompts.indices(mixture.prompts)
            started = time.perf_counter()
            groups = equal_prompt_groups(mixture.prompts)
            plan = plan_channels(mixture.mixture, mode, groups, model.config.stft)
            estimates = plan.combine([model(row[None], indices[None])[0] for row in plan.rows])
            calls += len(plan.rows)
            seconds += time.perf_counter() - started
            measured = score(estimates, mixture, model.sample_rate)
            scores += [(scene, mixture.kind, source) for source in measured]
    return scores, calls, seconds


def do_nothing(
    scenes: dict[str, tuple[StereoMixture, ...]], sample_rate: int
) -> list[tuple[str, str, ImageScore]]:
    """The measures with the mixture as every estimate, to hold image errors against."""
    return [
        (scene, mixture.kind, source)
        for scene, mixtures in scenes.items()
        for mixture in mixtures
        for source in score(mixture.mixture.expand_as(mixture.references), mixture, sample_rate)
    ]


def print_table(
    results: dict[str, list[tuple[str, str, ImageScore]]], costs: dict[str, tuple[int, float]]
) -> None:
    """One table over everything, and one per scene and kind of SI-SDR and level error."""
    print(
        "| mode | SI-SDR dB | gain dB | ISR dB | level error dB | phase error rad "
        "| model calls | s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for mode, scores in results.items():
        calls, seconds = costs[mode]
        fields = [
            f"{sum(getattr(source, field.name) for *_, source in scores) / len(scores):.2f}"
            for field in dataclasses.fields(ImageScore)
        ]
        print(f"| {mode} | {' | '.join(fields)} | {calls} | {seconds:.1f} |")
    parts = {
        part for scores in results.values() for scene, kind, _ in scores for part in (scene, kind)
    }
    print("\nSI-SDR gain dB / level error dB / phase error rad\n")
    print(f"| part | {' | '.join(results)} |")
    print(f"|---|{'---|' * len(results)}")
    for part in sorted(parts, key=lambda name: (name not in KINDS, name)):
        cells = []
        for scores in results.values():
            chosen = [source for scene, kind, source in scores if part in (scene, kind)]
            means = [
                sum(getattr(source, name) for source in chosen) / len(chosen)
                for name in ("gain_db", "level_error_db", "phase_error_rad")
            ]
            cells.append(f"{means[0]:.1f} / {means[1]:.1f} / {means[2]:.2f}")
        print(f"| {part} | {' | '.join(cells)} |")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--mixtures", type=int, default=24, help="of each scene")
    arguments = parser.parse_args()
    if not has_manifest(arguments.manifest):
        return
    model = load_bundle(resolve_model(arguments.model)).model.eval()
    scenes = draw_mixtures(arguments.manifest, model.sample_rate, arguments.mixtures)
    results = {"mixture": do_nothing(scenes, model.sample_rate)}
    costs = {"mixture": (0, 0.0)}
    for mode in get_args(StereoMode):
        results[mode], calls, seconds = measure(model, scenes, mode)
        costs[mode] = (calls, seconds)
    print_table(results, costs)


if __name__ == "__main__":
    main()
