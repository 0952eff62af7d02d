"""The worker that runs other people's models, in the environment that ``peers.py`` makes.

Nothing of ours is there but torch and ``workers``. Every model has the shape of a published
one and random weights: nothing is downloaded, and they cost what trained ones do.
"""

from __future__ import annotations

import sys
import time
import types
import warnings
from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor, nn

from workers import serve

_STEMS = ["drums", "bass", "other", "vocals"]
_WARM_UP_S = 4
_RATE = 44100

#: Samples [channel, time] → stems [stem, channel, time].
_Separate = Callable[[Tensor], Tensor]


def htdemucs() -> tuple[nn.Module, _Separate]:
    """HTDemucs as released (``htdemucs``, 955717e8), by its own ``apply_model``.

    Its chunks of 7.8 s overlap by a quarter, as its command line has it by default. It does
    without the random shift of that command line, which costs a little more.
    """
    model = import_module("demucs.htdemucs").HTDemucs(
        sources=_STEMS, bottom_channels=512, dconv_mode=3, segment=7.8, samplerate=_RATE
    )
    apply_model = import_module("demucs.apply").apply_model
    return model.eval(), lambda samples: apply_model(
        model, samples[None], shifts=0, split=True, overlap=0.25, device="cpu"
    )[0]


def open_unmix() -> tuple[nn.Module, _Separate]:
    """Open-Unmix as released (``umxhq``): four networks, then a Wiener filter with one EM step.

    Its package imports torchaudio for reading files and for resampling. Neither is done here,
    so an empty module stands in.
    """
    sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))
    model = import_module("openunmix").umxhq(pretrained=False)
    return model.eval(), lambda samples: model(samples[None])[0]


def bs_roformer() -> tuple[nn.Module, _Separate]:
    """BS-RoFormer in the four-stem shape of ZFTurbo/Music-Source-Separation-Training.

    ``config_musdb18_bs_roformer_384_8_2_485100``: 384 wide, 8 deep, chunks of 11 s. That shape
    is older than the package's residual streams, which are off, and its mask estimators are
    half as wide as the package's. Chunks overlap by a quarter, as those of the others do;
    the published settings overlap by half and cost half as much again.
    """
    package = import_module("bs_roformer.bs_roformer")
    model = package.BSRoformer(
        dim=384,
        depth=8,
        stereo=True,
        num_stems=len(_STEMS),
        time_transformer_depth=1,
        freq_transformer_depth=1,
        num_residual_streams=1,
        stft_hop_length=441,
    )
    model.mask_estimators = nn.ModuleList(
        package.MaskEstimator(384, model.band_split.dim_inputs, depth=2, mlp_expansion_factor=2)
        for _ in _STEMS
    )
    return model.eval(), lambda samples: _in_chunks(model, samples, 485100)


def _in_chunks(model: nn.Module, samples: Tensor, chunk: int) -> Tensor:
    """Cross-faded chunks that overlap by a quarter; the package has no such thing."""
    step = chunk * 3 // 4
    total = torch.zeros(len(_STEMS), *samples.shape)
    weight = torch.zeros(samples.shape[1])
    for start in range(0, samples.shape[1], step):
        piece = samples[None, :, start : start + chunk]
        stems = model(piece)[0]
        length = stems.shape[-1]  # whole hops
        fade = torch.bartlett_window(length + 2, periodic=False)[1:-1]
        total[..., start : start + length] += fade * stems
        weight[start : start + length] += fade
    return total / weight.clamp_min(1e-8)


_MODELS = {"HTDemucs": htdemucs, "Open-Unmix": open_unmix, "BS-RoFormer": bs_roformer}


class PeerWorker:
    """One model that separates one recording as often as it is asked to."""

    def __init__(self) -> None:
        self._samples: Tensor | None = None
        self._separate: _Separate | None = None

    def prepare(self, model: str, file: str) -> int:
        """Make a model, warm it up; gives the number of its parameters."""
        torch.manual_seed(0)
        network, self._separate = _MODELS[model]()
        self._samples = torch.load(file)
        with torch.inference_mode():
            self._separate(self._samples[:, : _WARM_UP_S * _RATE])
        return sum(parameter.numel() for parameter in network.parameters())

    def run(self) -> float:
        """Separate the recording; how many seconds it took."""
        assert self._separate is not None, "nothing was prepared"
        assert self._samples is not None, "nothing was prepared"
        started = time.perf_counter()
        with torch.inference_mode():
            stems = self._separate(self._samples)
        wall_s = time.perf_counter() - started
        if stems.shape != (len(_STEMS), *self._samples.shape):
            raise ValueError(f"stems of shape {list(stems.shape)}")
        return wall_s


def main() -> None:
    warnings.simplefilter("ignore")  # of other people's code, about their own affairs
    worker = PeerWorker()
    serve({"prepare": worker.prepare, "run": worker.run})


if __name__ == "__main__":
    main()
