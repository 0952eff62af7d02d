"""Whether sources with equal prompts keep their places, as Markdown tables.

Ten-minute scenes are built from the evaluation split of a manifest: two speakers who take
turns with long pauses, in which only quiet room noise is heard, and three effects that come
and go. ``oracle`` estimates are the references with leakage of each other, in a new random
order in every chunk and channel: they test the stitching alone. Those of a model are for speakers.
A turn counts as swapped when most of it is not in the place where most turns of its source
are, each channel by itself; ``with`` and ``without`` say whether sources are remembered.

    python bench/identity.py [--model mini] [--manifest manifest.csv] [--scenes 8]
    python bench/identity.py --model ''            oracle estimates only
    python bench/identity.py --recognition         how well sources are recognised
    python bench/identity.py --fit                 measure the table of separation/identity.py
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import unbraid
from material import has_manifest, parser_of
from unbraid.checkpoints import resolve_model
from unbraid.data.manifest import Recording, read_manifest
from unbraid.data.store import ClipStore
from unbraid.dsp.levels import db_to_gain
from unbraid.folders import user_cache_dir
from unbraid.models.waveform import WaveformModel
from unbraid.separation.chunking import Chunk, ChunkPlan, cut, make_plan
from unbraid.separation.identity import (
    Frames,
    Impression,
    Level,
    Memory,
    audibility,
    cepstra_of,
    frames_of,
)
from unbraid.separation.stitching import Stitcher

RATE = 48000
SEED = 2027
SCENE_S = 600.0
NOISE_DB = -55.0
#: Collections in which one name may stand for several speakers, or several for one.
UNSURE_SPEAKERS = ("picovoice_", "precise_")
#: Clips of one reading sound more alike than a voice does over an hour: at least this share
#: of the variance between speakers is taken to last.
LEAST_LASTING = 0.05
LEAKAGE_DB = (-15.0, -6.0)

#: Gains and delays in ms of each source in the left and the right channel.
PANNED = (((1.0, 0.6), (0.0, 0.4)), ((0.5, 1.0), (0.5, 0.0)), ((0.8, 0.8), (0.2, 0.2)))
HARD_PANNED = (((1.0, 0.0), (0.0, 0.0)), ((0.0, 1.0), (0.0, 0.0)), ((0.7, 0.7), (0.0, 0.0)))

Separate = Callable[[Chunk, int], Float[Tensor, "source channel time"]]


@dataclass(frozen=True)
class Turn:
    """A stretch in which a source sounds, in samples."""

    source: int
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Scene:
    """What is heard, and who when."""

    references: Float[Tensor, "source channel time"]
    noise: Float[Tensor, "channel time"]
    turns: tuple[Turn, ...]


def open_pool(manifest: Path, split: str) -> tuple[tuple[Recording, ...], ClipStore]:
    recordings = tuple(
        recording
        for recording in read_manifest(manifest)
        if recording.split == split
        and (
            recording.kind.startswith("sfx/")
            or (
                recording.kind.startswith("speech/")
                and recording.speaker
                and not recording.speaker.startswith(UNSURE_SPEAKERS)
            )
        )
    )
    store = ClipStore(manifest.parent, recordings, RATE, user_cache_dir())
    return tuple(recording for recording in recordings if recording.path in store), store


def by_source(recordings: Iterable[Recording], kind: str) -> dict[str, list[Recording]]:
    """Speakers, or single recordings of effects."""
    sources = defaultdict(list)
    for recording in recordings:
        if recording.kind.startswith(f"{kind}/"):
            sources[recording.speaker if kind == "speech" else recording.path].append(recording)
    return dict(sources)


def material(recordings: Sequence[Recording], store: ClipStore) -> Float[Tensor, "time"]:
    """All of a source, one recording after the other, each at the level of the others."""
    clips = []
    for recording in recordings:
        active_s = store.active_s(recording.path)
        if not active_s:
            continue
        start, end = round(active_s[0] * RATE), round((active_s[-1] + 0.3) * RATE)
        end = min(end, round(recording.duration_s * RATE))
        clip = store.read(recording.path, start, end - start)
        clips.append(clip / clip.square().mean().sqrt())
    return torch.cat(clips)


# Scenes


def take_turns(
    num_sources: int, turn_s: tuple[float, float], pause_s: tuple[float, float], rng: random.Random
) -> tuple[Turn, ...]:
    """Sources that mostly alternate; one turn in five begins before the last one has ended."""
    turns: list[Turn] = []
    now_s = rng.uniform(0.0, 3.0)
    source = 0
    while True:
        length_s = rng.uniform(*turn_s)
        if now_s + length_s > SCENE_S:
            return tuple(turns)
        turns.append(Turn(source, round(now_s * RATE), round((now_s + length_s) * RATE)))
        others = [other for other in range(num_sources) if other != source]
        interrupted = rng.random() < 0.2
        if interrupted or rng.random() < 0.7:
            source = rng.choice(others)
        gap_s = -rng.uniform(0.5, min(3.0, length_s / 2)) if interrupted else rng.uniform(*pause_s)
        now_s += length_s + gap_s


def make_scene(
    sounds: Sequence[Tensor],
    turns: tuple[Turn, ...],
    panning: Sequence[tuple[tuple[float, ...], tuple[float, ...]]],
    rng: random.Random,
) -> Scene:
    length = round(SCENE_S * RATE)
    num_channels = len(panning[0][0])
    references = torch.zeros(len(sounds), num_channels, length)
    position = [0] * len(sounds)
    fade = torch.linspace(0.0, 1.0, RATE // 50)
    level_db = [rng.uniform(-29.0, -23.0) for _ in sounds]
    for turn in turns:
        sound = sounds[turn.source]
        count = turn.end - turn.start
        indices = (torch.arange(count) + position[turn.source]) % len(sound)
        position[turn.source] = int(indices[-1]) + 1
        piece = sound[indices] * db_to_gain(level_db[turn.source])
        piece[: len(fade)] *= fade
        piece[-len(fade) :] *= fade.flip(0)
        gains, delays_ms = panning[turn.source]
        for channel in range(num_channels):
            delay = round(delays_ms[channel] * RATE / 1000)
            end = min(length, turn.end + delay)
            references[turn.source, channel, turn.start + delay : end] += (
                gains[channel] * piece[: end - turn.start - delay]
            )
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    spectrum = torch.fft.rfft(torch.randn(num_channels, length, generator=generator))
    frequency_hz = torch.fft.rfftfreq(length, 1 / RATE)
    # The noise of a room falls with frequency.
    noise = torch.fft.irfft(spectrum / frequency_hz.clamp_min(50.0), n=length)
    noise *= db_to_gain(-26.0 + NOISE_DB) / noise.square().mean().sqrt()
    return Scene(references, noise, turns)


# Estimates


def oracle(scene: Scene, leakage_db: float, seed: int) -> Separate:
    """The truth with leakage, in a random order in every chunk and channel."""
    num_sources, num_channels, _ = scene.references.shape
    leakage = db_to_gain(leakage_db)
    rng = random.Random(seed)

    def separate(chunk: Chunk, start: int) -> Tensor:
        end = start + chunk.samples.shape[1]
        own = scene.references[..., start:end]
        estimates = (1 - leakage) * own + leakage * own.sum(dim=0, keepdim=True)
        estimates = estimates + scene.noise[:, start:end] / num_sources
        for channel in range(num_channels):
            order = rng.sample(range(num_sources), num_sources)
            estimates[:, channel] = estimates[order, channel]
        return estimates

    return separate


def with_model(model: WaveformModel, prompts: Sequence[str]) -> Separate:
    indices = model.prompts.indices(prompts)[None]

    def separate(chunk: Chunk, start: int) -> Tensor:
        with torch.inference_mode():
            sources = [model(channel[None], indices)[0] for channel in chunk.samples]
        return torch.stack(sources, dim=1).clone()

    return separate


def stitched(
    scene: Scene, separate: Separate, plan: ChunkPlan, prompts: Sequence[str]
) -> dict[bool, Float[Tensor, "source channel time"]]:
    """Outputs with and without memory, from the same estimates."""
    stitchers = {
        remembers: Stitcher(plan, prompts, sample_rate=RATE, remembers=remembers)
        for remembers in (False, True)
    }
    pieces: dict[bool, list[Tensor]] = {False: [], True: []}
    mixture = scene.references.sum(dim=0) + scene.noise
    for number, chunk in enumerate(cut([mixture], plan)):
        estimates = separate(chunk, number * plan.hop)
        for remembers, stitcher in stitchers.items():
            pieces[remembers].append(stitcher.add(estimates, chunk))
    return {remembers: torch.cat(parts, dim=-1) for remembers, parts in pieces.items()}


# Scores


@dataclass(frozen=True)
class Swaps:
    """Turns and seconds that are in a wrong place, of how many; each channel counts."""

    turns: int
    num_turns: int
    seconds: int
    num_seconds: int


def count_swaps(scene: Scene, outputs: Float[Tensor, "source channel time"]) -> Swaps:
    """A turn is where most of its source's sound is; a second of it likewise."""
    num_sources, num_channels, _ = scene.references.shape
    turns = []
    seconds = []
    for turn in scene.turns:
        reference = scene.references[turn.source, :, turn.start : turn.end]
        estimates = outputs[:, :, turn.start : turn.end]
        products = (estimates * reference).split(RATE, dim=-1)
        shares = torch.stack([part.sum(dim=-1) for part in products], dim=-1)
        power = torch.stack([part.square().sum(-1) for part in reference.split(RATE, -1)], -1)
        for channel in range(num_channels):
            if not reference[channel].any():
                continue
            turns.append((channel, turn.source, int(shares[:, channel].sum(-1).argmax())))
            is_loud = power[channel] > 0.1 * power[channel].mean()
            places = shares[:, channel].argmax(dim=0)[is_loud]
            seconds += [(channel, turn.source, int(place)) for place in places]

    # One assignment for the whole recording, all channels.
    def right(kept: Sequence[tuple[int, int, int]], order: tuple[int, ...]) -> int:
        return sum(order[source] == place for _, source, place in kept)

    orders = list(itertools.permutations(range(num_sources)))
    best = max(orders, key=lambda order: right(seconds, order))
    return Swaps(
        len(turns) - right(turns, best),
        len(turns),
        len(seconds) - right(seconds, best),
        len(seconds),
    )


def total(counts: Sequence[Swaps]) -> Swaps:
    return Swaps(
        sum(count.turns for count in counts),
        sum(count.num_turns for count in counts),
        sum(count.seconds for count in counts),
        sum(count.num_seconds for count in counts),
    )


def measure(manifest: Path, model: WaveformModel | None, num_scenes: int) -> None:
    recordings, store = open_pool(manifest, "eval")
    plan = make_plan(8.0, 2.0, RATE)
    if model is not None:
        plan = make_plan(model.config.segment_s, model.config.overlap_s, RATE)
    speakers = {
        name: material(rows, store)
        for name, rows in by_source(recordings, "speech").items()
        if sum(row.duration_s for row in rows) > 15.0
    }
    effects = {
        path: material(rows, store)
        for path, rows in by_source(recordings, "sfx").items()
        if len(store.active_s(path)) * 0.3 > 3.0
    }
    print("| scene | estimates | turns | swapped without | with | s wrong without | with |")
    print("|---|---|---|---|---|---|---|")
    mono = (((1.0,), (0.0,)),) * 3
    kinds = (
        ("two speakers, mono", speakers, 2, mono),
        ("two speakers, stereo", speakers, 2, PANNED),
        ("two speakers, hard left and right", speakers, 2, HARD_PANNED),
        ("three effects, mono", effects, 3, mono),
        ("three effects, stereo", effects, 3, PANNED),
    )
    for name, pool, num_sources, panning in kinds:
        is_speech = pool is speakers
        prompts = ("speech" if is_speech else "sfx",) * num_sources
        counts: dict[tuple[str, bool], list[Swaps]] = defaultdict(list)
        for number in range(num_scenes):
            rng = random.Random(f"{SEED} {num_sources} {number}")
            chosen = rng.sample(sorted(pool), num_sources)
            turns = take_turns(
                num_sources,
                (4.0, 25.0) if is_speech else (2.0, 8.0),
                (5.0, 40.0) if is_speech else (3.0, 20.0),
                rng,
            )
            scene = make_scene([pool[key] for key in chosen], turns, panning, rng)
            separators = {
                f"oracle, leakage {leakage_db:g} dB": oracle(scene, leakage_db, number)
                for leakage_db in LEAKAGE_DB
            }
            if model is not None and is_speech:
                separators["model"] = with_model(model, prompts)
            for estimates, separate in separators.items():
                outputs = stitched(scene, separate, plan, prompts)
                for remembers, output in outputs.items():
                    counts[estimates, remembers].append(count_swaps(scene, output))
        for estimates in dict.fromkeys(estimates for estimates, _ in counts):
            without, remembering = (total(counts[estimates, kind]) for kind in (False, True))
            print(
                f"| {name} | {estimates} | {without.num_turns} "
                f"| {100 * without.turns / without.num_turns:.1f} % "
                f"| {100 * remembering.turns / remembering.num_turns:.1f} % "
                f"| {100 * without.seconds / without.num_seconds:.1f} % "
                f"| {100 * remembering.seconds / remembering.num_seconds:.1f} % |",
                flush=True,
            )


# Recognition, and the table behind it


@dataclass(frozen=True, eq=False)
class Heard:
    """The audible frames of a source: their weights, and what they sound like."""

    audible: Float[Tensor, "frame"]
    cepstra: Float[Tensor, "frame cepstrum"]
    frame_s: float

    def cut(self, length_s: float) -> list[Impression]:
        """What is heard in stretches of so many seconds with audible frames."""
        count = max(1, round(length_s / self.frame_s))
        pieces = zip(self.audible.split(count), self.cepstra.split(count), strict=True)
        return [
            Impression(
                audible.sum()[None] * self.frame_s, (audible @ cepstra / audible.sum())[None]
            )
            for audible, cepstra in pieces
            if len(audible) == count
        ]


def hear(recordings: Sequence[Recording], store: ClipStore) -> Heard | None:
    audible, cepstra = [], []
    frame_s = 1.0
    for recording in recordings:
        samples = store.read(recording.path, 0, round(recording.duration_s * RATE))[None]
        if not samples.any():
            continue
        frames: Frames = frames_of(samples, RATE)
        level = Level()
        level.hear(frames.amplitudes[0], frames.scale, frames.frame_s)
        weights = audibility(frames, level.usual)[0]
        audible.append(weights[weights > 0])
        cepstra.append(cepstra_of(frames)[0][weights > 0])
        frame_s = frames.frame_s
    return Heard(torch.cat(audible), torch.cat(cepstra), frame_s) if audible else None


def hear_all(manifest: Path, split: str, kind: str) -> list[Heard]:
    recordings, store = open_pool(manifest, split)
    heard = (hear(rows, store) for rows in by_source(recordings, kind).values())
    return [source for source in heard if source is not None]


def fit(manifest: Path) -> None:
    """Print the table of ``unbraid.separation.identity``, from the speakers of ``train``."""
    sources = hear_all(manifest, "train", "speech")
    lengths_s = (0.5, 1.0, 2.0, 4.0)
    inverse, variances = [], []
    for length_s in lengths_s:
        squares, degrees, seconds = torch.zeros(()), 0, []
        for source in sources:
            pieces = source.cut(length_s)[:40]
            if len(pieces) < 2:
                continue
            means = torch.cat([piece.cepstra for piece in pieces])
            squares = squares + (means - means.mean(dim=0)).square().sum(dim=0)
            degrees += len(pieces) - 1
            seconds += [float(piece.heard_s) for piece in pieces]
        variances.append(squares / degrees)
        inverse.append(len(seconds) / sum(seconds))
    # The variance of a mean over n seconds is within / n + lasting: a line over 1 / n.
    line = torch.stack([torch.tensor(inverse), torch.ones(len(inverse))], dim=1)
    within, lasting = torch.linalg.lstsq(line, torch.stack(variances)).solution
    long = [source for source in sources if float(source.audible.sum()) * source.frame_s > 3.0]
    means = torch.stack([s.audible @ s.cepstra / s.audible.sum() for s in long])
    heard_s = torch.tensor([float(s.audible.sum()) * s.frame_s for s in long])
    lasting = lasting.clamp_min(LEAST_LASTING * means.var(dim=0))
    between = means.var(dim=0) - within * (1 / heard_s).mean() - lasting
    print(f"{len(sources)} speakers")
    for name, values in (
        ("CENTRE", means.mean(dim=0)),
        ("BETWEEN", between),
        ("WITHIN", within),
        ("LASTING", lasting),
    ):
        print(f"_{name} = (" + ", ".join(f"{value:.2f}" for value in values.tolist()) + ")")


def recognition(manifest: Path) -> None:
    """Print how well a stretch of a source is told from stretches of others."""
    print("| sources | trials same / other | heard before | heard now | equal errors | cost |")
    print("|---|---|---|---|---|---|")
    for split, kind, before_s, now_s in (
        ("train", "speech", 20.0, 3.0),
        ("eval", "speech", 20.0, 3.0),
        ("eval", "speech", 20.0, 1.0),
        ("train", "sfx", 3.0, 1.5),
        ("eval", "sfx", 3.0, 1.5),
    ):
        memories, tests = [], []
        for source in hear_all(manifest, split, kind):
            pieces = source.cut(now_s)
            num_now = min(10, len(pieces) // 4)
            if num_now == 0:
                continue
            memory = Memory(1)
            for piece in pieces[num_now:][: math.ceil(before_s / now_s)]:
                memory.learn(piece)
            memories.append(memory)
            tests.append(pieces[:num_now])
        same: list[float] = []
        other: list[float] = []
        for number, memory in enumerate(memories):
            for owner, pieces in enumerate(tests):
                scores = [float(memory.recognise(piece)) for piece in pieces]
                (same if number == owner else other).extend(scores)
        error, cost = errors(torch.tensor(same), torch.tensor(other))
        print(
            f"| {len(memories)} {kind} ({split}) | {len(same)} / {len(other)} | ≤ {before_s:g} s "
            f"| {now_s:g} s | {100 * error:.1f} % | {cost:.2f} |"
        )


def errors(same: Float[Tensor, "trial"], other: Float[Tensor, "trial_2"]) -> tuple[float, float]:
    """The equal error rate, and the cost of evidence in bits (0 perfect, 1 worthless)."""
    thresholds = torch.cat([same, other]).sort().values
    missed = torch.searchsorted(same.sort().values, thresholds) / len(same)
    taken = 1 - torch.searchsorted(other.sort().values, thresholds) / len(other)
    nearest = int((missed - taken).abs().argmin())
    softplus = torch.nn.functional.softplus
    cost = (softplus(-same).mean() + softplus(other).mean()) / 2 / math.log(2)
    return float(missed[nearest] + taken[nearest]) / 2, float(cost)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--scenes", type=int, default=8, help="of each kind")
    parser.add_argument("--recognition", action="store_true")
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    if not has_manifest(arguments.manifest):
        return
    started = time.perf_counter()
    if arguments.fit:
        fit(arguments.manifest)
    elif arguments.recognition:
        recognition(arguments.manifest)
    else:
        name = arguments.model
        model = unbraid.load_bundle(resolve_model(name)).model if name else None
        measure(arguments.manifest, model, arguments.scenes)
    print(f"({time.perf_counter() - started:.0f} s)")


if __name__ == "__main__":
    main()
