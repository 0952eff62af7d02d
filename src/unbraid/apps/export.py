"""Export a model for other programs, and prove that it computes the same there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.demo import SCENES, mix_scene
from unbraid.apps.whole_files import make_folder, remove_empty, write_whole
from unbraid.checkpoints import Bundle, find_prompts, load_bundle, resolve_model, with_taught
from unbraid.dsp.resample import resample
from unbraid.errors import CheckpointError, ConfigError
from unbraid.models.architectures.audio_slots import AudioSlots
from unbraid.models.inference import for_inference
from unbraid.nn.selective_scan import SelectiveScan

#: How far the graph's sources must agree with ours, each of them.
LEAST_SNR_DB = 80.0

# The fastest of some runs: the others were disturbed.
_NUM_TIMED_RUNS = 3


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares.

    Attributes:
        path: The file.
        prompts: The canonical prompts, in the order of the outputs.
        num_bytes: Size of the file.
        snr_db: onnxruntime against our model: signal to difference, of the worst source.
        onnx_real_time_factor: Seconds of work of onnxruntime per second of audio.
        our_real_time_factor: The same of our model as ``separate`` runs it.
        num_threads: Threads that both had.
    """

    path: Path
    prompts: tuple[str, ...]
    num_bytes: int
    snr_db: float
    onnx_real_time_factor: float
    our_real_time_factor: float
    num_threads: int


def export_onnx(
    model: str | Path,
    path: Path,
    prompts: Sequence[str | Path],
    *,
    length_s: float | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a model with chosen prompts as an ONNX file, once it is known to compute the same.

    Args:
        model: A name, a folder or a model on the hub, as in ``checkpoints.resolve_model``.
        path: Where to; it appears when it is whole and has been compared.
        prompts: One name or prompt file per wanted source, in the order of the outputs; they may
            repeat.
        length_s: Fix the length of the input, and its batch to one; None leaves both open.
        overwrite: Replace a file that is there already.

    Raises:
        MissingExtra: If onnx, onnxruntime or onnxscript is not installed.
        CheckpointError: If there is no such model, it is damaged, a file is in the way, or the
            graph's output differs from ours.
        PromptError: For an empty list, a name that the model does not know, or a prompt that was
            made for another one.
        ConfigError: If ``length_s`` is not a length, or the network is of a kind that makes no
            useful graph: one that hears several channels, one with a recurrence over bins, or one
            of slots without ``length_s``.
        AudioError: If the file cannot be written.
    """
    if path.is_dir() or (path.exists() and not overwrite):
        raise CheckpointError(
            f"{path}: is there already; choose another name"
            + (" or say --overwrite." if path.is_file() else ".")
        )
    # Here and not above, so that whoever does not export needs no extra.
    from unbraid.checkpoints.onnx_graph import as_onnx, onnx_runner

    folder = resolve_model(model)
    asked = find_prompts(folder, prompts)
    bundle = with_taught(load_bundle(folder), asked)
    _refuse_what_cannot_be_exported(bundle, is_open=length_s is None)
    names = bundle.model.prompts.resolve(asked.names)
    rate = bundle.config.sample_rate
    num_samples = None if length_s is None else _num_samples(length_s, rate)
    new_folders = make_folder(path.parent)
    try:
        content = as_onnx(bundle, names, num_samples)
        num_threads = torch.get_num_threads()
        mixture = _test_signal(rate, num_samples or round(bundle.config.segment_s * rate))
        rows = bundle.model.prompts.indices(names)[None]
        with torch.inference_mode():
            ours = for_inference(bundle.model)
            # First, because threads of onnxruntime wait busily for more work.
            our_s = _fastest_s(lambda: ours(mixture, rows))
            run_onnx = onnx_runner(content, num_threads)
            compared = [mixture, torch.zeros_like(mixture)]
            if num_samples is None:
                # No whole number of hops, where graphs may round another way than we do.
                compared.append(mixture[:, bundle.config.stft.hop_length // 2 + 1 :])
            snr_db = min(
                worst_snr_db(bundle.model(signal, rows), run_onnx(signal)) for signal in compared
            )
            if not snr_db > LEAST_SNR_DB:
                raise CheckpointError(
                    f"{path}: not written, for onnxruntime's output agrees with ours to "
                    f"{snr_db:.1f} dB only, and {LEAST_SNR_DB:g} dB are wanted; try other "
                    "versions of torch, onnxscript and onnxruntime."
                )
            onnx_s = _fastest_s(lambda: run_onnx(mixture))
        write_whole(path, content)
    except BaseException:
        remove_empty(new_folders)
        raise
    duration_s = mixture.shape[-1] / rate
    return Exported(
        path, names, len(content), snr_db, onnx_s / duration_s, our_s / duration_s, num_threads
    )


def _refuse_what_cannot_be_exported(bundle: Bundle, *, is_open: bool) -> None:
    network, name = bundle.model.network, bundle.card.name
    if is_open and isinstance(network, AudioSlots):
        raise ConfigError(
            f"{name}: hears chunks of one length, so the length of the graph cannot stay open; "
            f"say --length {bundle.config.segment_s:g}."
        )
    if network.num_channels > 1:
        raise ConfigError(
            f"{name}: hears {network.num_channels} channels together, and graphs take one; "
            "export a mono model."
        )
    if any(isinstance(module, SelectiveScan) for module in network.modules()):
        raise ConfigError(
            f"{name}: has a recurrence over bins (Mamba), which ONNX would spell out step by step, "
            "a thousand times over; export a model with mixer: attention."
        )


def worst_snr_db(
    expected: Float[Tensor, "batch source time"], got: Float[Tensor, "batch source time"]
) -> float:
    """Power of what was expected over power of the difference; of the source where it is least."""
    difference = (expected.double() - got.double()).square().sum(dim=-1)
    power = expected.double().square().sum(dim=-1)
    ratios_db = 10 * torch.log10(power / difference)
    # Equal sources, silent ones among them, differ by nothing at all.
    return float(torch.where(difference == 0, math.inf, ratios_db).min())


def _num_samples(length_s: float, sample_rate: int) -> int:
    if not math.isfinite(length_s) or round(length_s * sample_rate) < 2:
        raise ConfigError(f"--length must be a time in seconds, not {length_s:g}.")
    return round(length_s * sample_rate)


def _test_signal(sample_rate: int, num_samples: int) -> Float[Tensor, "1 time"]:
    """The demo's scene with speech, sounds and music, repeated to length."""
    scene, _ = mix_scene(SCENES[0])
    samples = resample(scene.samples, scene.sample_rate, sample_rate)
    return samples.repeat(1, math.ceil(num_samples / samples.shape[-1]))[:, :num_samples]


def _fastest_s(run: Callable[[], object]) -> float:
    times_s = []
    for _ in range(_NUM_TIMED_RUNS):
        started_s = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - started_s)
    return min(times_s)
