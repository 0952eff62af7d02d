"""AudioSlots on mixtures of two speakers, in the layout of its paper, and its ways of stitching.

Mixtures of 4 s of two speakers of the evaluation split of a manifest, at 16 kHz and at levels that
differ by up to 8 dB, are cut into chunks of 0.5 s or 1 s and masked chunk by chunk. (The paper's
last 10 s.) Clips that are shorter than the mixture are left out, since with silence around them
speakers seldom speak at once; ``--pauses`` takes them all. The masks come from

- the compressed magnitudes of the sources themselves (oracle),
- what a model with one slot makes of each source (autoencoder),
- what a model makes of the mixture (AudioSlots).

The first table joins chunks side by side, in the order that suits the references best, as the
paper does. The second one looks at the same estimates band by band, where the paper finds slots
blurred. The third one compares bundles mixture by mixture. The last one has what is left without
references, with Wiener-like masks:

- ``overlap``: chunks share half, and agree in it (``Stitcher`` without memory);
- ``overlap, voices``: the same, and voices are remembered: what ``unbraid separate`` does;
- ``slots``: a slot is followed by the one that is most like it;
- ``overlap, slots``: both, the correlation of the waveforms and the cosine of the slots;
- ``sequential``: the slots of a chunk start the next one. For models that were trained so it
  is what they always do; for others it is tried.

Oracle masks are there too, in a random order in every chunk: they test the stitching alone.
SI-SNR is that of the paper, without removal of means. Brackets hold the 95 % interval of a mean
over mixtures, by bootstrap; that clips and speakers come again in several mixtures is not in it.

    python bench/slots.py [BUNDLE ...] [--mixtures 50] [--length 4] [--manifest manifest.csv]
    python bench/slots.py --length 10 --pauses      what stitching makes of pauses
    python bench/slots.py plain/bundle detail/bundle autoencoder/bundle    all against the first

Each bundle is a slot model at 16 kHz with two slots or, for the autoencoder, with one; how long
its chunks are it says itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from material import SEED, SHARED, has_manifest, open_evaluation
from unbraid.checkpoints import load_bundle, resolve_model
from unbraid.config import parse
from unbraid.data.dynamic import MixtureBatch
from unbraid.data.fixed import fixed_plans
from unbraid.dsp.levels import scale_of
from unbraid.dsp.overlap_add import OverlapAdder, trapezoid
from unbraid.dsp.stft import FftTransform, StftConfig
from unbraid.errors import ConfigError
from unbraid.evaluation.oracles import in_oracle_order
from unbraid.evaluation.statistics import Interval, bootstrap_interval
from unbraid.mixing.recipe import Planner, Scene
from unbraid.mixing.render import render
from unbraid.models.architectures.audio_slots import (
    AudioSlots,
    AudioSlotsConfig,
    Masks,
    compressed_magnitudes,
    masked,
)
from unbraid.models.waveform import WaveformModel, build_model
from unbraid.objectives.assignment import assign_freely
from unbraid.objectives.measures import si_sdr_db
from unbraid.separation.chunking import ChunkPlan, cut
from unbraid.separation.stitching import Stitcher, best_order
from unbraid.training.methods.slots import autoencoder_estimates

RATE = 16_000
STFT = StftConfig(512, 125, "hann", "reflect")
SCENE = Scene(("speech", "speech"))
LEVELS_DB = (-8.0, 0.0)
CHUNKS_S = (0.5, 1.0)
EDGES_HZ = (0, 1000, 2000, 4000, 8000)
MASKS: tuple[Masks, ...] = ("binary", "wiener")

#: Mixtures and their references → estimates, and slots where there are any.
Estimator = Callable[[MixtureBatch, Masks], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Score:
    """Means over the speakers of each mixture.

    Attributes:
        values_db: SI-SNR.
        gains_db: What was gained over the mixture.
    """

    values_db: tuple[float, ...]
    gains_db: tuple[float, ...]

    @property
    def si_snr_db(self) -> float:
        """Mean over mixtures."""
        return sum(self.values_db) / len(self.values_db)

    @property
    def si_snri_db(self) -> float:
        """Mean over mixtures."""
        return sum(self.gains_db) / len(self.gains_db)


# Material and scores


def draw_references(
    manifest: Path, count: int, length_s: float, *, has_pauses: bool
) -> list[Float[Tensor, "source time"]]:
    recipe, clips, store = open_evaluation(
        manifest, RATE, ("speech",), crop_s=length_s, scenes=(SCENE,), gain_db={"speech": LEVELS_DB}
    )
    if not has_pauses:
        clips = {
            name: tuple(clip for clip in pool if clip.duration_s >= length_s)
            for name, pool in clips.items()
        }
    plans = fixed_plans(Planner(recipe, clips), (SCENE,), count, store.read, RATE, SEED)
    (chosen,) = plans.values()
    return [render(plan, store.read, RATE).references for plan in chosen]


def score_of(
    estimates: Sequence[Float[Tensor, "source time"]],
    references: Sequence[Float[Tensor, "source time"]],
) -> Score:
    """Each mixture in its best order."""
    values, gains = [], []
    for mine, truth in zip(estimates, references, strict=True):
        pairwise = si_sdr_db(
            mine[:, None].expand(-1, len(truth), -1),
            truth[None].expand(len(mine), -1, -1),
            remove_mean=False,
        )
        order = assign_freely(-pairwise[None])[0]
        best = pairwise[order, torch.arange(len(truth))]
        mixture = truth.sum(dim=0).expand_as(truth)
        values.append(float(best.mean()))
        gains.append(float((best - si_sdr_db(mixture, truth, remove_mean=False)).mean()))
    return Score(tuple(values), tuple(gains))


def within(
    signals: Float[Tensor, "source time"], low_hz: float, high_hz: float
) -> Float[Tensor, "source time"]:
    """What signals hold from one frequency up to, but not including, another one."""
    spectrum = torch.fft.rfft(signals)
    hz = torch.fft.rfftfreq(signals.shape[-1], 1 / RATE)
    return torch.fft.irfft(spectrum * ((hz >= low_hz) & (hz < high_hz)), n=signals.shape[-1])


# Estimates of chunks


def oracle(batch: MixtureBatch, kind: Masks) -> tuple[Tensor, None]:
    """Masks from the sources themselves, at the level at which a model would hear them."""
    transform = FftTransform(STFT)
    references = (batch.references / scale_of(batch.mixture)[:, None]).flatten(0, 1)
    compressed = compressed_magnitudes(transform.analyse(references))
    compressed = compressed.unflatten(0, batch.references.shape[:2])
    sources = masked(transform.analyse(batch.mixture), compressed, kind)
    estimates = transform.synthesise(sources.flatten(0, 1), batch.mixture.shape[-1])
    return estimates.unflatten(0, sources.shape[:2]), None


def with_model(model: WaveformModel) -> Estimator:
    network = model.network
    if not isinstance(network, AudioSlots) or model.sample_rate != RATE:
        raise ConfigError(f"only slot models at {RATE} Hz are measured here.")
    transform = FftTransform(model.config.stft)

    def separate(batch: MixtureBatch, kind: Masks) -> tuple[Tensor, Tensor | None]:
        if network.num_outputs == 1:
            return autoencoder_estimates(model, batch, kind), None
        scaled = batch.mixture / scale_of(batch.mixture)
        slots, generated = network.generate(network.image(transform.analyse(scaled)))
        sources = masked(transform.analyse(batch.mixture), generated, kind)
        estimates = transform.synthesise(sources.flatten(0, 1), batch.mixture.shape[-1])
        return estimates.unflatten(0, sources.shape[:2]), slots[:, 0]

    return separate


def side_by_side(references: Float[Tensor, "source time"], length: int) -> MixtureBatch:
    """Chunks that do not overlap, the last one filled up with silence."""
    padded = torch.nn.functional.pad(references, (0, -references.shape[-1] % length))
    chunks = padded.unflatten(-1, (-1, length)).transpose(0, 1)
    return _batch_of(chunks)


def _batch_of(chunks: Float[Tensor, "chunk source time"]) -> MixtureBatch:
    rows = torch.zeros(chunks.shape[:2], dtype=torch.long)
    return MixtureBatch(chunks.sum(dim=1), chunks, rows)


# Ways to stitch


def in_the_papers_way(
    estimator: Estimator, references: Float[Tensor, "source time"], length: int, kind: Masks
) -> Float[Tensor, "source time"]:
    batch = side_by_side(references, length)
    ordered = in_oracle_order(estimator(batch, kind)[0], batch.references)
    return ordered.transpose(0, 1).flatten(1, 2)[:, : references.shape[-1]]


def without_references(
    estimator: Estimator, references: Float[Tensor, "source time"], length: int, rng: random.Random
) -> dict[str, Float[Tensor, "source time"]]:
    """All ways that join the estimates of chunks, from the same estimates."""
    plan = ChunkPlan(length, length // 2)
    chunks = list(cut([references], plan))
    stitchers = {
        "overlap": Stitcher(plan, SCENE.prompts, sample_rate=RATE, remembers=False),
        "overlap, voices": Stitcher(plan, SCENE.prompts, sample_rate=RATE),
    }
    pieces: dict[str, list[Tensor]] = {name: [] for name in stitchers}
    found: list[tuple[Tensor, Tensor]] = []
    for chunk in chunks:
        estimates, slots = estimator(_batch_of(chunk.samples[None]), "wiener")
        order = rng.sample(range(len(references)), len(references))
        shuffled = estimates[0, order]
        for name, stitcher in stitchers.items():
            pieces[name].append(stitcher.add(shuffled[:, None], chunk)[:, 0])
        if slots is not None:
            found.append((shuffled, slots[0, order]))
    joined = {name: torch.cat(parts, dim=-1) for name, parts in pieces.items()}
    if found:
        joined["slots"] = by_slots(found, plan, listens=False)
        joined["overlap, slots"] = by_slots(found, plan, listens=True)
    return joined


def by_slots(
    found: Sequence[tuple[Float[Tensor, "source time"], Float[Tensor, "source dim"]]],
    plan: ChunkPlan,
    *,
    listens: bool,
) -> Float[Tensor, "source time"]:
    """Join estimates in the order in which their slots, and what overlaps, are most alike."""
    adder = OverlapAdder()
    pieces = []
    before: tuple[Tensor, Tensor] | None = None
    for number, (estimates, slots) in enumerate(found):
        is_last = number == len(found) - 1
        if before is not None:
            alike = _cosines(before[1], slots)
            if listens:
                alike = alike + _cosines(before[0][:, plan.hop :], estimates[:, : plan.overlap])
            order = best_order(alike)
            estimates, slots = estimates[order], slots[order]
        before = (estimates, slots)
        size = estimates.shape[-1]
        weights = trapezoid(size, plan.overlap, plan.fade, first=not number, last=is_last)
        adder.add(estimates, weights)
        pieces.append(adder.take(size if is_last else plan.hop))
    return torch.cat(pieces, dim=-1)


def _cosines(
    places: Float[Tensor, "place value"], candidates: Float[Tensor, "candidate value"]
) -> Float[Tensor, "place candidate"]:
    normalised = [
        each / each.norm(dim=1, keepdim=True).clamp_min(1e-12) for each in (places, candidates)
    ]
    return normalised[0] @ normalised[1].mT


def sequential(model: WaveformModel) -> Callable[[Float[Tensor, "source time"]], Tensor]:
    """The same weights in a network that carries its slots."""
    network = dict(model.config.network) | {"carries_slots": True, "masks": "wiener"}
    twin = build_model(dataclasses.replace(model.config, network=network)).eval()
    twin.load_state_dict(model.state_dict())
    return lambda references: twin(references.sum(dim=0)[None], twin.all_outputs[None])[0]


# Tables


def print_layout(rows: Mapping[str, Mapping[Masks, Score]]) -> None:
    print("| | chunk | SI-SNR, IBM | SI-SNR, Wiener | SI-SNRi, IBM | SI-SNRi, Wiener |")
    print("|---|---|---|---|---|---|")
    for title, scores in rows.items():
        cells = [f"{scores[kind].si_snr_db:.2f}" for kind in MASKS]
        cells += [_cell(bootstrap_interval(scores[kind].gains_db)) for kind in MASKS]
        print(f"| {title} | {' | '.join(cells)} |")


def print_bands(rows: Mapping[str, Sequence[Score]]) -> None:
    bands = [f"{low / 1000:g} to {high / 1000:g} kHz" for low, high in itertools.pairwise(EDGES_HZ)]
    print(f"\n| SI-SNRi, Wiener | chunk | {' | '.join(bands)} |")
    print(f"|---|---|{'---|' * len(bands)}")
    for title, scores in rows.items():
        cells = [_cell(bootstrap_interval(score.gains_db)) for score in scores]
        print(f"| {title} | {' | '.join(cells)} |")


def print_differences(rows: Mapping[str, Score]) -> None:
    """Against the first one."""
    (first, base), *others = rows.items()
    print(f"\n| | chunk | SI-SNRi, Wiener, above that of {first.split(' | ')[0]} |")
    print("|---|---|---|")
    for title, score in others:
        above = [mine - theirs for mine, theirs in zip(score.gains_db, base.gains_db, strict=True)]
        print(f"| {title} | {_cell(bootstrap_interval(above))} |")


def _cell(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def print_stitching(rows: Mapping[str, Mapping[str, Score]]) -> None:
    print("\n| | chunk | stitching | SI-SNR | SI-SNRi | kept of the oracle's SI-SNRi |")
    print("|---|---|---|---|---|---|")
    for title, ways in rows.items():
        bound = ways["oracle order"].si_snri_db
        for way, score in ways.items():
            kept = f"{score.si_snri_db / bound:.0%}" if bound > 0.0 else ""
            print(
                f"| {title} | {way} | {score.si_snr_db:.2f} "
                f"| {_cell(bootstrap_interval(score.gains_db))} | {kept} |",
                flush=True,
            )


@torch.inference_mode()
def measure(references: Sequence[Float[Tensor, "source time"]], bundles: Sequence[str]) -> None:
    methods: list[tuple[str, float, Estimator, WaveformModel | None]] = [
        ("oracle", chunk_s, oracle, None) for chunk_s in CHUNKS_S
    ]
    for bundle in bundles:
        opened = load_bundle(resolve_model(bundle))
        loaded = opened.model.eval()
        estimator = with_model(loaded)
        network = parse(AudioSlotsConfig, dict(loaded.config.network))
        chunk_s = network.frames * loaded.config.stft.hop_length / RATE
        methods.append((opened.card.name, chunk_s, estimator, loaded))
    layout: dict[str, dict[Masks, Score]] = {}
    bands: dict[str, list[Score]] = {}
    stitching: dict[str, dict[str, Score]] = {}
    for name, chunk_s, estimator, model in methods:
        title, length = f"{name} | {chunk_s:g} s", round(chunk_s * RATE)
        joined_by = {
            kind: [in_the_papers_way(estimator, each, length, kind) for each in references]
            for kind in MASKS
        }
        layout[title] = {
            kind: score_of(estimates, references) for kind, estimates in joined_by.items()
        }
        bands[title] = [
            score_of(
                [within(each, *edges) for each in joined_by["wiener"]],
                [within(each, *edges) for each in references],
            )
            for edges in itertools.pairwise(EDGES_HZ)
        ]
        if model is not None and model.network.num_outputs == 1:
            continue
        rng = random.Random(SEED)
        joined = [without_references(estimator, each, length, rng) for each in references]
        ways = {way: score_of([each[way] for each in joined], references) for way in joined[0]}
        if model is not None:
            run = sequential(model)
            ways["sequential"] = score_of([run(each) for each in references], references)
        stitching[title] = {"oracle order": layout[title]["wiener"], **ways}
    print_layout(layout)
    print_bands(bands)
    measured = list(layout.items())[len(CHUNKS_S) :]
    if len(measured) > 1:
        print_differences({title: scores["wiener"] for title, scores in measured})
    print_stitching(stitching)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="*", help="names or folders of slot models")
    parser.add_argument("--manifest", type=Path, default=SHARED / "data" / "manifest.csv")
    parser.add_argument("--mixtures", type=int, default=50)
    parser.add_argument("--length", type=float, default=4.0, help="of a mixture, in seconds")
    parser.add_argument("--pauses", action="store_true", help="take short clips, too")
    arguments = parser.parse_args()
    if has_manifest(arguments.manifest):
        references = draw_references(
            arguments.manifest, arguments.mixtures, arguments.length, has_pauses=arguments.pauses
        )
        measure(references, arguments.bundles)


if __name__ == "__main__":
    main()
