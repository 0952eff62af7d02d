"""Whether a model becomes better on recordings that it was adapted to without references.

A room: the response of a seminar room, a noise of a class that ``mini`` has never heard, and
talkers of the evaluation split, all through the same response. The model is adapted to mixtures of
some talkers and the first three fifths of the noise's recordings, which are written to files as a
user would have them, and measured on mixtures of other talkers and the rest of the noise. What the
sources are is known for measuring only: the reverberant signals. The control does nothing.

    python bench/adapting.py                                   # the default
    python bench/adapting.py --methods remixit self-remixing both --noises snoring
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile
import torch
from jaxtyping import Float
from torch import Tensor

from material import has_manifest, parser_of
from unbraid.apps.adapt import AdaptOptions, adapt, learning_rate_for
from unbraid.audio import read
from unbraid.checkpoints import Bundle, load_bundle, resolve_model
from unbraid.data.manifest import Recording, read_manifest
from unbraid.dsp.resample import resample
from unbraid.evaluation.statistics import bootstrap_interval
from unbraid.mixing.rooms import reverberate
from unbraid.models.inference import for_inference
from unbraid.models.waveform import WaveformModel
from unbraid.objectives.measures import si_sdr_db
from unbraid.training.methods.adapting import REMIXING
from unbraid.training.methods.remixing import RemixingConfig

PROMPTS = ("speech", "sfx-mix")
#: Classes of the evaluation split that the training split does not have.
NOISES = ("snoring", "wind", "crowd_cheering")
NUM_RECORDINGS, RECORDING_S = 40, 6.0
NUM_TESTS, TEST_S = 24, 4.0
#: Level of the speech over the noise.
SNR_DB = (-5.0, 5.0)
_NOISE_SHARE = 0.6
_TALKER_SHARE = 0.6
_LEVEL = 0.1
_METHODS = {"remixit": (1.0, 0.0), "self-remixing": (0.0, 1.0), "both": (1.0, 1.0)}


@dataclass(frozen=True, eq=False)
class Room:
    """Mixtures of one room and noise, speech first.

    Attributes:
        recordings: To adapt to.
        tests: To measure on.
    """

    recordings: Float[Tensor, "mixture 2 time"]
    tests: Float[Tensor, "mixture 2 _"]


def make_room(manifest: Path, rows: Sequence[Recording], noise: str, rate: int) -> Room:
    """The mixtures of a noise, the same at every call."""
    held = [row for row in rows if row.split == "eval"]

    def sounds(pattern: Callable[[Recording], bool]) -> list[tuple[str, Tensor]]:
        found = []
        for row in held:
            if pattern(row):
                waveform = read(manifest.parent / row.path)
                samples = resample(waveform.samples[:1], waveform.sample_rate, rate)[0]
                found.append((row.speaker, samples))
        return found

    talk = sounds(lambda row: row.kind == "speech/en")
    noises = [samples for _, samples in sounds(lambda row: row.kind == f"sfx/{noise}")]
    ((_, response),) = sounds(lambda row: row.kind == "rir/seminar_room")
    talkers = sorted({speaker for speaker, _ in talk})
    random.Random(0).shuffle(talkers)
    first = set(talkers[: round(_TALKER_SHARE * len(talkers))])
    cuts = [round(_NOISE_SHARE * samples.numel()) for samples in noises]
    parts = (
        (
            [samples for speaker, samples in talk if speaker in first],
            [samples[:cut] for samples, cut in zip(noises, cuts, strict=True)],
        ),
        (
            [samples for speaker, samples in talk if speaker not in first],
            [samples[cut:] for samples, cut in zip(noises, cuts, strict=True)],
        ),
    )

    def mixtures(part: int, count: int, length_s: float) -> Tensor:
        rng = random.Random(f"{noise}/{part}")
        length = round(length_s * rate)
        return torch.stack(
            [_mixture(*parts[part], response, length, rate, rng) for _ in range(count)]
        )

    return Room(mixtures(0, NUM_RECORDINGS, RECORDING_S), mixtures(1, NUM_TESTS, TEST_S))


def _mixture(
    speech: Sequence[Tensor],
    noises: Sequence[Tensor],
    response: Tensor,
    length: int,
    rate: int,
    rng: random.Random,
) -> Float[Tensor, "2 time"]:
    talker, noise = (
        reverberate(_stretch(pool, length, rng), response, rate, None)[0]
        for pool in (speech, noises)
    )
    ratio = talker.square().mean() / noise.square().mean().clamp_min(1e-12)
    noise = noise * ratio.sqrt() * 10.0 ** (-rng.uniform(*SNR_DB) / 20.0)
    sources = torch.stack([talker, noise])
    return sources * _LEVEL / sources.sum(dim=0).square().mean().sqrt()


def _stretch(pool: Sequence[Tensor], length: int, rng: random.Random) -> Tensor:
    pieces: list[Tensor] = []
    while sum(piece.numel() for piece in pieces) < length:
        pieces.append(rng.choice(pool))
    joined = torch.cat(pieces)
    start = rng.randrange(joined.numel() - length + 1)
    return joined[start : start + length]


@torch.no_grad()
def measure(model: WaveformModel, tests: Tensor) -> Float[Tensor, "mixture 2"]:
    """SI-SDR of each source of each mixture."""
    fast = for_inference(model)
    rows = model.prompts.indices(PROMPTS)[None]
    return torch.cat([si_sdr_db(fast(each.sum(dim=0)[None], rows), each[None]) for each in tests])


def options_of(arguments: argparse.Namespace, method: str) -> AdaptOptions:
    remixit, self_remixing = _METHODS[method]
    options = AdaptOptions(PROMPTS, minutes=60.0, tolerance_db=100.0, seed=arguments.seed)
    remixing: RemixingConfig = dataclasses.replace(
        options.remixing,
        remixit_weight=remixit,
        self_remixing_weight=self_remixing,
        teacher=dataclasses.replace(options.remixing.teacher, decay=arguments.teacher_decay),
    )
    tuning = dataclasses.replace(
        options.tuning,
        what=arguments.what,
        num_steps=arguments.steps,
        learning_rate=arguments.learning_rate or learning_rate_for(arguments.what),
    )
    return dataclasses.replace(options, remixing=remixing, tuning=tuning, keeps_last=True)


def compare(bundle: Bundle, room: Room, noise: str, arguments: argparse.Namespace) -> None:
    model = bundle.model
    control = measure(model, room.tests)
    mixture = si_sdr_db(room.tests.sum(dim=1, keepdim=True).expand_as(room.tests), room.tests)
    _row(noise, "the mixture itself", mixture)
    _row(noise, "nothing (control)", control)
    with tempfile.TemporaryDirectory() as folder:
        for number, sources in enumerate(room.recordings):
            path = Path(folder) / f"{number:02}.wav"
            soundfile.write(path, sources.sum(dim=0).numpy(), model.sample_rate, subtype="FLOAT")
        for method in arguments.methods:
            options = dataclasses.replace(
                options_of(arguments, method), cache_dir=Path(folder) / "notes"
            )
            begun = time.process_time()
            adapted = adapt(bundle, [Path(folder)], options)
            seconds = time.process_time() - begun
            found = measure(adapted.model, room.tests)
            start, last = adapted.before, adapted.kept
            checked = (
                f"{start.held_back_loss:.2f} → {last.held_back_loss:.2f}",
                f"{start.known_db or 0.0:.2f} → {last.known_db or 0.0:.2f}",
                f"{seconds:.0f}",
            )
            _row(noise, f"{method}, {last.step} steps", found, found - control, checked)


def _row(
    noise: str,
    name: str,
    values: Tensor,
    gains: Tensor | None = None,
    checked: Sequence[str] = ("", "", ""),
) -> None:
    cells = [noise, name, *(f"{value:.2f}" for value in values.mean(dim=0).tolist())]
    if gains is None:
        cells += ["", ""]
    else:
        for place in range(len(PROMPTS)):
            gain = bootstrap_interval(gains[:, place].tolist())
            cells.append(f"{gain.value:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})")
    print(f"| {' | '.join([*cells, *checked])} |", flush=True)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--noises", nargs="*", default=list(NOISES))
    parser.add_argument("--methods", nargs="*", default=["remixit"], choices=list(_METHODS))
    parser.add_argument("--steps", type=int, default=AdaptOptions(PROMPTS).tuning.num_steps)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--what", default="network")
    parser.add_argument("--teacher-decay", type=float, default=REMIXING.teacher.decay)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not has_manifest(arguments.manifest):
        return
    bundle = load_bundle(resolve_model(arguments.model))
    rows = read_manifest(arguments.manifest)
    headers = [
        "noise",
        "adapted by",
        *PROMPTS,
        *(f"gain of {prompt}" for prompt in PROMPTS),
        "loss held back",
        "SI-SDR not to be forgotten",
        "seconds of the processor",
    ]
    print(f"| {' | '.join(headers)} |")
    print("|---" * len(headers) + "|", flush=True)
    for noise in arguments.noises:
        room = make_room(arguments.manifest, rows, noise, bundle.model.sample_rate)
        compare(bundle, room, noise, arguments)


if __name__ == "__main__":
    main()
