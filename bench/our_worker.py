"""The worker that measures our models, the machine's peak and the number of operations."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import unbraid
from machine import describe_machine, measured_peak_gflops
from scene import scene_blocks, scene_samples, write_scene
from unbraid.checkpoints import resolve_model
from unbraid.dsp.stft import StftConfig
from unbraid.models.architectures.tuss import ARCHITECTURE
from unbraid.models.inference import for_inference
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.types import Precision
from workers import serve

_WARM_UP_S = 2.0


def open_model(name: str) -> WaveformModel:
    """A published size of TUSS with random weights, or any model that a user could name."""
    if name in ARCHITECTURE.presets:
        torch.manual_seed(0)
        network = dataclasses.asdict(ARCHITECTURE.presets[name])
        return build_model(ModelConfig(ARCHITECTURE.name, 48000, StftConfig(), network)).eval()
    return unbraid.load_bundle(resolve_model(name)).model


def count_operations(name: str, seconds: float, num_prompts: int) -> int:
    """Multiplications and additions of one chunk through the plain model.

    Counted are convolutions, matrix products and attention, as the plain model calls them.
    They are counted on the meta device: it computes nothing, and it takes attention apart
    into the matrix products that the counter knows.
    """
    # The counter follows gradients, which parameters that pass through unchanged have none of.
    model = open_model(name).to("meta").requires_grad_(False)
    mixture = torch.empty(1, round(seconds * model.sample_rate), device="meta")
    prompts = torch.empty(1, num_prompts, dtype=torch.long, device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(mixture, prompts)
    return counter.get_total_flops()


class OurWorker:
    """Prepares one piece of work and does it as often as it is asked to."""

    def __init__(self) -> None:
        self._work: Callable[[], Tensor | None] | None = None
        self._result: Tensor | None = None

    def prepare_chunk(
        self, model: str, path: str, precision: Precision, seconds: float, num_prompts: int
    ) -> None:
        """One chunk of one channel through the model alone, ``plain`` or ``fast``."""
        network = open_model(model)
        if path == "fast":
            network = for_inference(network, precision)
        known = len(network.prompts.names)
        prompts = torch.arange(num_prompts)[None] % known
        mixture = scene_samples(seconds, network.sample_rate, 1)

        @torch.inference_mode()
        def separate(samples: Tensor = mixture) -> Tensor:
            return network(samples, prompts)

        separate(mixture[:, : round(_WARM_UP_S * network.sample_rate)])
        self._work = separate

    def prepare_stream(
        self, model: str, seconds: float, num_channels: int, num_prompts: int
    ) -> None:
        """A recording through ``Separator.separate_stream``; what is finished is let go."""
        separator = unbraid.Separator(open_model(model), device="cpu")
        names = [separator.prompts[index % len(separator.prompts)] for index in range(num_prompts)]
        rate = separator.sample_rate

        def separate(length_s: float = seconds) -> None:
            blocks = scene_blocks(length_s, rate, num_channels)
            for _ in separator.separate_stream(blocks, rate, names):
                pass

        separate(_WARM_UP_S)
        self._work = separate

    def prepare_file(self, model: str, file: str, prompts: list[str]) -> int:
        """A file through ``Separator.separate``, decoded and resampled; gives parameters."""
        separator = unbraid.Separator(open_model(model), device="cpu")
        separator.separate(scene_samples(_WARM_UP_S, 44100, 2), prompts, sample_rate=44100)
        self._work = lambda: separator.separate(file, prompts).sources
        return separator.model.num_parameters

    def run(self) -> float:
        """Do it once; how many seconds it took."""
        assert self._work is not None, "nothing was prepared"
        self._result = None
        started = time.perf_counter()
        self._result = self._work()
        return time.perf_counter() - started

    def save_result(self, file: str) -> None:
        """Write what the last run gave."""
        torch.save(self._result, file)

    def snr_db(self, file: str) -> float:
        """Signal-to-noise ratio of what the last run gave, against a saved result."""
        reference = torch.load(file).double()
        assert self._result is not None, "nothing was run"
        noise = (self._result.double() - reference).square().sum()
        return float(10 * torch.log10(reference.square().sum() / noise))


def write_recording(file: str, seconds: float, rate: int, num_channels: int) -> None:
    """The scene as a WAV file."""
    write_scene(Path(file), seconds, rate, num_channels)


def write_samples(file: str, seconds: float, rate: int, num_channels: int) -> None:
    """The scene as a tensor, for those who have no reader."""
    torch.save(scene_samples(seconds, rate, num_channels), file)


def main() -> None:
    worker = OurWorker()
    serve(
        {
            "prepare_chunk": worker.prepare_chunk,
            "prepare_stream": worker.prepare_stream,
            "prepare_file": worker.prepare_file,
            "run": worker.run,
            "save_result": worker.save_result,
            "snr_db": worker.snr_db,
            "write_recording": write_recording,
            "write_samples": write_samples,
            "count_operations": count_operations,
            "describe_machine": describe_machine,
            "measured_peak_gflops": measured_peak_gflops,
        }
    )


if __name__ == "__main__":
    main()
