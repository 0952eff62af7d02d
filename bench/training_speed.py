"""Speed and memory of a training step: forward, loss, backward, clipping, optimiser, average.

The steps run in the loop of ``unbraid train``, on mixtures of real recordings where there is a
manifest, of the demo's sounds where there is none; mixing is measured beside them. The model is
the published medium TUSS at 48 kHz (``--network medium``), or that cut to about half a million
parameters at 16 kHz: 2 + 1 blocks in place of 4 + 2, half the channels, 24 mel bands, a hop of
16 ms. A batch is four mixtures of 4 s, each asked for two sources. Prints one line of a Markdown
table: ``of peak`` is the share of the rate of large matrix products, in the same precision, that
the multiplications and additions of forward and backward reach over the whole step (the model
FLOP utilisation).

    python bench/training_speed.py [--steps 20] [--threads 2] [--manifest manifest.csv]
    python bench/training_speed.py --rounds 3              with and without the heap kept
    python bench/training_speed.py --gradients             of bfloat16, held against float32
    python bench/training_speed.py --network medium --device cuda --precision bfloat16 --compile
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode

from machine import describe_machine, measured_peak_gflops, product_gflops
from material import open_evaluation, parser_of
from unbraid.apps.demo import SCENES, mix_scene
from unbraid.config import dump
from unbraid.data.dynamic import DynamicMixtures, MixtureBatch
from unbraid.dsp.resample import resample
from unbraid.dsp.stft import StftConfig
from unbraid.heap import keep_heap
from unbraid.mixing.recipe import Clip, MixRecipe, Planner, Scene
from unbraid.mixing.render import ClipReader
from unbraid.models.architectures.tuss import ARCHITECTURE, TussConfig
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.nn.band_split import BandSplitConfig
from unbraid.nn.locoformer import FeedForwardConfig, LocoformerConfig
from unbraid.training.config import DataConfig, TrainConfig, ValidationConfig
from unbraid.training.lightning import MixtureData, SeparationModule
from unbraid.training.methods.supervised import supervised_loss
from unbraid.training.run import make_trainer

SEGMENT_S = 4.0
BATCH_SIZE = 4
TWO_PROMPTS = (("speech", "music-mix"), ("speech", "sfx-mix"), ("speech", "speech"))
WARMUP_STEPS = 5

#: The matrix product that the most of a GPU is measured with.
PEAK_SIZE = 8192

#: What the flags call an arithmetic → what Lightning calls it.
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
}


@dataclasses.dataclass(frozen=True)
class Measured:
    """Medians over the steps, but for the peak; ``mixing_s`` passes between two of them."""

    parameters: int
    step_s: float
    mixing_s: float
    forward_s: float
    backward_s: float
    update_s: float
    page_faults: float
    peak_mib: float
    operations: int
    peak_gflops: float

    def row(self, title: str) -> str:
        """The line of a table."""
        shares = (self.forward_s, self.backward_s, self.update_s)
        cells = (
            title,
            f"{self.step_s:.2f} s",
            f"{BATCH_SIZE * SEGMENT_S / self.step_s:.1f} s",
            f"{100 * self.operations / self.step_s / 1e9 / self.peak_gflops:.0f} %",
            " / ".join(f"{100 * share / sum(shares):.0f}" for share in shares) + " %",
            f"{1e3 * self.mixing_s:.0f} ms",
            f"{self.page_faults:,.0f}",
            f"{self.peak_mib:,.0f} MiB",
        )
        return f"| {' | '.join(cells)} |"


HEADER = (
    "| | step | audio per second | of peak | forward / backward / update | mixing | page faults "
    "| peak memory |\n|---|---|---|---|---|---|---|---|"
)


# ------------------------------------------------------------------ what is trained, and on what


def half_medium() -> TussConfig:
    def stack(num_blocks: int, attention_dim: int, frame_kernel: int) -> LocoformerConfig:
        return LocoformerConfig(
            num_blocks=num_blocks,
            dim=32,
            num_groups=4,
            num_heads=4,
            attention_dim=attention_dim,
            freq_feed_forward=(FeedForwardConfig(96, 4),) * 2,
            frame_feed_forward=(FeedForwardConfig(96, frame_kernel),) * 2,
        )

    codec = BandSplitConfig(
        bands="mel",
        num_bands=24,
        decoder_expansion=1,
        compression=0.4,
        magnitude_input=True,
        initial_mask="gate",
    )
    return TussConfig(codec, stack(2, 64, 1), stack(1, 48, 4))


def model_config(network: str) -> ModelConfig:
    """What is trained, by its name on the command line."""
    if network == "medium":
        return ModelConfig("tuss", 48_000, StftConfig(), dump(ARCHITECTURE.presets["medium"]))
    return ModelConfig("tuss", 16_000, StftConfig(512, 256, "sqrt_hann"), dump(half_medium()))


def run_config(arguments: argparse.Namespace) -> TrainConfig:
    return TrainConfig(
        name="training-speed",
        model=model_config(arguments.network),
        data=DataConfig(str(arguments.manifest), {"speech": ("speech/*",)}),
        validation=ValidationConfig(every_steps=WARMUP_STEPS + arguments.steps + 1),
        batch_size=BATCH_SIZE,
        max_steps=WARMUP_STEPS + arguments.steps,
        precision=PRECISIONS[arguments.precision],
        accelerator="gpu" if arguments.device == "cuda" else "cpu",
    )


def open_material(manifest: Path, config: TrainConfig) -> MixtureData:
    sample_rate = config.model.sample_rate
    if manifest.is_file():
        recipe, clips, store = open_evaluation(manifest, sample_rate)
        read_clip: ClipReader = store.read
    else:
        recipe = MixRecipe()
        clips, read_clip = _demo_clips(sample_rate)
    scenes = tuple(Scene(pair) for pair in TWO_PROMPTS if all(clips.get(name) for name in pair))
    planner = Planner(dataclasses.replace(recipe, crop_s=SEGMENT_S, scenes=scenes), clips)
    rows = {name: row for row, name in enumerate(config.model.prompts)}
    source = DynamicMixtures(planner, read_clip, sample_rate, rows, BATCH_SIZE, config.seed)
    return MixtureData(source, {}, config)


def _demo_clips(sample_rate: int) -> tuple[dict[str, tuple[Clip, ...]], ClipReader]:
    """The sources of the demo's scenes, as recordings to mix anew."""
    clips: dict[str, tuple[Clip, ...]] = {}
    sounds: dict[str, torch.Tensor] = {}
    for scene in SCENES:
        mixture, references = mix_scene(scene)
        sources = resample(references, mixture.sample_rate, sample_rate)
        for number, (source, sound) in enumerate(zip(scene.sources, sources, strict=True)):
            key = f"{scene.name}/{number}"
            sounds[key] = sound
            clip = Clip(key, scene.duration_s, sample_rate / 2, performer=key)
            clips[source.prompt] = (*clips.get(source.prompt, ()), clip)

    def read_clip(key: str, start: int, count: int) -> torch.Tensor:
        found = sounds[key][max(0, start) : start + count]
        before = max(0, -start)
        return torch.nn.functional.pad(found, (before, count - before - len(found)))

    return clips, read_clip


# ------------------------------------------------------------------ measuring


class Stopwatch(Callback):
    """Times and page faults of every step, seen from inside the loop."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, ...]] = []
        self.faults: list[int] = []
        self._marks = [_now()]
        self._faults_before = 0

    def on_train_batch_start(self, *_: Any) -> None:
        """A step begins."""
        self._faults_before = _page_faults()
        self._marks.append(_now())

    def on_before_backward(self, *_: Any) -> None:
        """The loss is there."""
        self._marks.append(_now())

    def on_after_backward(self, *_: Any) -> None:
        """The gradients are there."""
        self._marks.append(_now())

    def on_train_batch_end(self, *_: Any) -> None:
        """Clipping, optimiser and average are done."""
        self._marks.append(_now())
        self.steps.append(tuple(end - start for start, end in itertools.pairwise(self._marks)))
        self._marks = self._marks[-1:]
        self.faults.append(_page_faults() - self._faults_before)


def _now() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()  # a GPU works on while the clock is read
    return time.perf_counter()


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _peak_mib(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def count_operations(config: ModelConfig) -> int:
    """Multiplications and additions of a step: forward and backward of one batch.

    Counted on the meta device, which computes nothing; the loss and the optimiser are left out.
    """
    model = build_model(config).to("meta")
    mixture = torch.empty(BATCH_SIZE, round(SEGMENT_S * config.sample_rate), device="meta")
    prompts = torch.zeros(BATCH_SIZE, 2, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(mixture, prompts).sum().backward()
    return counter.get_total_flops()


def reachable_gflops(arguments: argparse.Namespace) -> float:
    """The most that the device reaches in the precision of the run."""
    if arguments.device == "cpu" and arguments.precision == "float32":
        return measured_peak_gflops()
    precision = getattr(torch, arguments.precision)
    size = PEAK_SIZE if arguments.device == "cuda" else PEAK_SIZE // 8
    return product_gflops(torch.device(arguments.device), precision, size)


def compare_gradients(arguments: argparse.Namespace) -> None:
    """How far the gradients of bfloat16 lie from those of float32, on one real batch."""
    config = run_config(arguments)
    torch.manual_seed(0)
    model = build_model(config.model).to(arguments.device)
    batch = open_material(arguments.manifest, config).source.batch(0).to(arguments.device)
    exact, rounded = (
        gradients_of(model, batch, config, is_rounded=is_rounded) for is_rounded in (False, True)
    )
    likenesses = [
        torch.cosine_similarity(exact[name].flatten(), rounded[name].flatten(), dim=0).item()
        for name in exact
    ]
    whole, other = (
        torch.cat([gradient.flatten() for gradient in found.values()]).double()
        for found in (exact, rounded)
    )
    print(f"{len(exact)} tensors, {whole.numel():,} numbers")
    print(f"cosine of the whole gradient: {torch.cosine_similarity(whole, other, dim=0):.5f}")
    print(f"error relative to its norm: {(whole - other).norm() / whole.norm():.4f}")
    print(f"ratio of the norms: {other.norm() / whole.norm():.4f}")
    low, least = statistics.median(likenesses), min(likenesses)
    print(f"cosine of a tensor: median {low:.5f}, least {least:.5f}")


def gradients_of(
    model: WaveformModel, batch: MixtureBatch, config: TrainConfig, *, is_rounded: bool
) -> dict[str, torch.Tensor]:
    """Parameter → gradient of the loss of a batch; rounded as mixed bfloat16 rounds."""
    model.zero_grad()
    with torch.autocast(batch.mixture.device.type, torch.bfloat16, enabled=is_rounded):
        loss = supervised_loss(model, batch, config.loss)
    loss.backward()
    return {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None and weight.grad.any()
    }


def measure(arguments: argparse.Namespace) -> Measured:
    if arguments.heap == "kept":
        keep_heap()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = run_config(arguments)
    model = build_model(config.model)
    if arguments.compile:
        model.network.compile()  # in place: parameters keep their names and their groups
    data = open_material(arguments.manifest, config)
    stopwatch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer: pl.Trainer = make_trainer(config, Path(folder), observers=[stopwatch])
        trainer.fit(SeparationModule(model, config, scenes=()), datamodule=data)
    kept = slice(WARMUP_STEPS, None)
    mixing_s, forward_s, backward_s, update_s = (
        statistics.median(column) for column in zip(*stopwatch.steps[kept], strict=True)
    )
    return Measured(
        parameters=model.num_parameters,
        step_s=statistics.median(sum(step[1:]) for step in stopwatch.steps[kept]),
        mixing_s=mixing_s,
        forward_s=forward_s,
        backward_s=backward_s,
        update_s=update_s,
        page_faults=statistics.median(stopwatch.faults[kept]),
        peak_mib=_peak_mib(arguments.device),
        operations=count_operations(config.model),
        peak_gflops=reachable_gflops(arguments),
    )


def measure_in_child(heap: str) -> Measured:
    """The same command in a process of its own: a heap's settings cannot be taken back."""
    command = [sys.executable, *sys.argv, "--heap", heap, "--rounds", "0", "--json"]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(child.stdout.splitlines()[-1]))


def compare_heaps(rounds: int) -> None:
    """Both settings in turn, so that a machine that slows down slows both; the best of each."""
    runs: dict[str, list[Measured]] = {"kept": [], "default": []}
    for _ in range(rounds):
        for heap, measured in runs.items():
            measured.append(measure_in_child(heap))
    print(HEADER)
    for heap, measured in runs.items():
        print(min(measured, key=lambda run: run.step_s).row(f"heap {heap}, best of {rounds}"))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=20, help="steps that count")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=list(PRECISIONS), default="float32")
    parser.add_argument("--network", choices=["half", "medium"], default="half")
    parser.add_argument("--gradients", action="store_true", help="compare those of bfloat16")
    parser.add_argument("--compile", action="store_true", help="compile the network")
    parser.add_argument("--heap", choices=["kept", "default"], default="kept")
    parser.add_argument("--rounds", type=int, default=0, help="compare the heap's two settings")
    parser.add_argument("--json", action="store_true", help="print numbers for a program")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if arguments.gradients:
        print(describe_machine())
        compare_gradients(arguments)
        return
    if arguments.rounds:
        print(describe_machine())
        compare_heaps(arguments.rounds)
        return
    measured = measure(arguments)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(measured)))
        return
    print(describe_machine())
    print(f"{measured.parameters:,} parameters, {arguments.threads} threads")
    print(HEADER)
    title = (
        f"{arguments.network}, {arguments.device}, {arguments.precision}"
        + ", compiled" * arguments.compile
    )
    print(measured.row(title))


if __name__ == "__main__":
    main()
