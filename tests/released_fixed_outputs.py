"""Checkpoints of the released separators with fixed outputs, made of numbers of one's own.

Names, shapes and settings are written down here from the published layouts, on purpose without
the importers' help: they are what it is tested against.
"""

from typing import Any

import torch
from torch import Tensor

from released_tuss import block_shapes, stack_settings

Shapes = dict[str, tuple[int, ...]]

# ------------------------------------------------------------------ TF-Locoformer, in ESPnet


def espnet_settings(
    n_fft: int = 64, hop_length: int = 32, sample_rate: int = 8000, **separator: Any
) -> dict[str, Any]:
    """What ESPnet's config.yaml says about a separator; tiny where nothing else is wanted."""
    transform = {"n_fft": n_fft, "hop_length": hop_length}
    tiny = {
        "num_spk": 2,
        "n_layers": 2,
        "emb_dim": 8,
        "norm_type": "rmsgroupnorm",
        "num_groups": 2,
        "tf_order": "ft",
        "n_heads": 2,
        "flash_attention": False,
        "attention_dim": 12,
        "ffn_type": ["swiglu_conv1d", "swiglu_conv1d"],
        "ffn_hidden_dim": [6, 10],
        "conv1d_kernel": 3,
        "conv1d_shift": 1,
        "dropout": 0.0,
        "eps": 1e-5,
    }
    return {
        "max_epoch": 150,
        "optim": "adamw",
        "sample_rate": sample_rate,
        "encoder": "stft",
        "encoder_conf": transform,
        "separator": "tflocoformer",
        "separator_conf": tiny | separator,
        "decoder": "stft",
        "decoder_conf": transform,
        "mask_module": "multi_mask",
        "model_conf": {"normalize_variance": True},
    }


def locoformer_shapes(conf: dict[str, Any]) -> Shapes:
    """Names and shapes of everything but the rotary frequencies."""
    dim, kernel = conf["emb_dim"], conf["conv1d_kernel"]
    attention = conf.get("attention_dim", 128)
    norm = ("gamma",) if conf["norm_type"] == "rmsgroupnorm" else ("weight", "bias")
    shapes: Shapes = {
        "conv.0.weight": (dim, 2, 3, 3),
        "conv.0.bias": (dim,),
        "conv.1.weight": (dim,),
        "conv.1.bias": (dim,),
        "deconv.weight": (dim, 2 * conf["num_spk"], 3, 3),
        "deconv.bias": (2 * conf["num_spk"],),
    }
    for block in range(conf["n_layers"]):
        for path in ("freq_path", "frame_path"):
            start = f"blocks.{block}.{path}"
            shapes |= {f"{start}.attn_norm.{kind}": (dim,) for kind in norm}
            shapes[f"{start}.attn.qkv.weight"] = (3 * attention, dim)
            shapes[f"{start}.attn.aggregate_heads.0.weight"] = (dim, attention)
            # The net before the attention is first in the settings and last in the state.
            for index, hidden in enumerate(reversed(conf["ffn_hidden_dim"])):
                shapes |= {f"{start}.ffn_norm.{index}.{kind}": (dim,) for kind in norm}
                net = f"{start}.ffn.{index}"
                shapes[f"{net}.conv1d.weight"] = (2 * hidden, dim, kernel)
                shapes[f"{net}.conv1d.bias"] = (2 * hidden,)
                shapes[f"{net}.deconv1d.weight"] = (hidden, dim, kernel)
                shapes[f"{net}.deconv1d.bias"] = (dim,)
    return shapes


def locoformer_rotary(conf: dict[str, Any]) -> dict[str, Tensor]:
    """The constants that every released block repeats."""
    head = conf.get("attention_dim", 128) // conf["n_heads"]
    return {
        f"blocks.{block}.{path}.attn.rope.freqs": _frequencies(head)
        for block in range(conf["n_layers"])
        for path in ("freq_path", "frame_path")
    }


# ------------------------------------------------------------------ the unconditional baseline

WIDTHS_48K = [2] * 22 + [4] * 11 + [12] * 8 + [24] * 8 + [48] * 8 + [66, 66, 66, 67]


def unconditional_settings(
    first: dict[str, Any], second: dict[str, Any], numbers: tuple[int, int], num_spk: int
) -> dict[str, Any]:
    """What hparams.yaml says."""
    transform = {
        "fft_size": 2048,
        "window_length": 2048,
        "hop_length": 512,
        "window_type": "sqrt_hann",
        "normalize": None,
    }
    return {
        "model_name": "bslocoformer_stack",
        "model_conf": {
            "num_spk": num_spk,
            "config_first_block": first,
            "config_second_block": second,
            "n_first_blocks": numbers[0],
            "n_second_blocks": numbers[1],
            "sample_rate": 48000,
            "stft_size": 2048,
        },
        "encoder_conf": transform,
        "decoder_conf": transform,
        "variance_normalization": True,
        "css_conf": {"segment_size": 6, "shift_size": 6, "sample_rate": 48000},
        "num_epochs": 150,
    }


TINY_UNCONDITIONAL = unconditional_settings(
    stack_settings(8, 4, 2, 16, 6, 1), stack_settings(8, 4, 2, 12, 6, 4), (1, 1), 3
)


def unconditional_shapes(conf: dict[str, Any]) -> Shapes:
    """Names and shapes at 48 kHz of everything but the rotary frequencies."""
    dim, outputs = conf["config_first_block"]["emb_dim"], conf["num_spk"]
    shapes: Shapes = {}
    for place in ("first", "second"):
        for block in range(conf[f"n_{place}_blocks"]):
            shapes |= block_shapes(conf[f"config_{place}_block"], f"{place}_block.{block}")
    for band, width in enumerate(WIDTHS_48K):
        encoder = f"band_split_module.band_split_module.{band}"
        decoder = f"band_split_module.bandwise_decoding_module.{band}"
        for layer, shape in {
            f"{encoder}.1": (dim, 2 * width, 1),
            f"{decoder}.1": (4 * dim, dim, 1),
            f"{decoder}.3": (4 * dim, 4 * dim, 1),
            f"{decoder}.5": (4 * width * outputs, 4 * dim, 1),
        }.items():
            shapes |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
        for norm, size in ((f"{encoder}.0", 2 * width), (f"{decoder}.0", dim)):
            shapes |= {f"{norm}.weight": (size,), f"{norm}.bias": (size,)}
    return shapes


def unconditional_rotary(conf: dict[str, Any]) -> dict[str, Tensor]:
    """The constants that every released block repeats."""
    found = {}
    for place in ("first", "second"):
        stack = conf[f"config_{place}_block"]
        for block in range(conf[f"n_{place}_blocks"]):
            for path in ("freq", "frame"):
                found[f"{place}_block.{block}.{path}_path.attn.rope.freqs"] = _frequencies(
                    stack["attention_dim"] // stack["n_heads"]
                )
    return found


# ------------------------------------------------------------------ both


def random_state(shapes: Shapes, rotary: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the released names, without a prefix."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()
    } | {name: tensor.clone() for name, tensor in rotary.items()}


def _frequencies(head_dim: int) -> Tensor:
    return torch.tensor([10000.0 ** (-2 * pair / head_dim) for pair in range(head_dim // 2)])
