"""Published sizes of TUSS on a GPU, one chunk and many, as a Markdown table.

The chunks of a recording go through the model in batches, on the plain path in float32, in
bfloat16 as ``--precision bfloat16`` does it, and with ``--compile`` in bfloat16 compiled by
PyTorch. The columns: wall (median of the runs), how many seconds of audio a second of work
takes along, the rate of nominal operations, its share of what large matrix products of that
precision reach, and the most memory that PyTorch held on the device.

    python bench/gpu.py [--models medium large] [--chunks 1 64] [--batch 8] [--compile]
"""

from __future__ import annotations

import argparse
import functools

import torch
from torch import Tensor

from machine import describe_machine, median_s, product_gflops
from our_worker import count_operations, open_model
from scene import scene_samples
from unbraid.models.inference import for_inference
from unbraid.models.waveform import WaveformModel


def ways(model: WaveformModel, is_compiled: bool) -> dict[str, tuple[WaveformModel, torch.dtype]]:
    """The model on each path, and the precision of its products."""
    found = {
        "plain, float32": (model, torch.float32),
        "bfloat16": (for_inference(model, "bfloat16"), torch.bfloat16),
    }
    if is_compiled:
        compiled = for_inference(model, "bfloat16")
        compiled.network.compile()
        found["bfloat16, compiled"] = (compiled, torch.bfloat16)
    return found


@torch.inference_mode()
def separate(model: WaveformModel, chunks: Tensor, prompts: Tensor, batch: int) -> None:
    for together in chunks.split(batch):
        model(together, prompts.expand(len(together), -1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", default=("medium", "large"))
    parser.add_argument("--chunks", type=int, nargs="+", default=(1, 64))
    parser.add_argument("--seconds", type=float, default=6.0, help="of a chunk")
    parser.add_argument("--prompts", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--peak-size", type=int, default=8192, help="of the matrix product")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    is_cuda = device.type == "cuda"
    print(torch.cuda.get_device_name(device) if is_cuda else describe_machine())
    print(f"{arguments.prompts} prompts, chunks of {arguments.seconds:g} s, {torch.__version__}\n")
    print("| model | chunks | path | wall | times real time | GFLOP/s | of peak | memory |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.models:
        operations = count_operations(name, arguments.seconds, arguments.prompts)
        model = open_model(name).to(device)
        prompts = torch.arange(arguments.prompts, device=device)[None]
        for count in arguments.chunks:
            length_s = count * arguments.seconds
            scene = scene_samples(length_s, model.sample_rate, 1)
            chunks = scene.reshape(count, -1).to(device)
            for path, (way, precision) in ways(model, arguments.compile).items():
                if is_cuda:
                    torch.cuda.reset_peak_memory_stats(device)
                work = functools.partial(separate, way, chunks, prompts, arguments.batch)
                wall_s = median_s(work, device, arguments.runs)
                memory = torch.cuda.max_memory_allocated(device) / 2**20 if is_cuda else 0.0
                gflops = count * operations / wall_s / 1e9
                share = gflops / product_gflops(device, precision, arguments.peak_size)
                print(
                    f"| {name} | {count} | {path} | {wall_s:.3f} s | {length_s / wall_s:.1f} "
                    f"| {gflops:,.0f} | {100 * share:.0f} % | {memory:,.0f} MiB |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
