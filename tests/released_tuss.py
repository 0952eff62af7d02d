"""Checkpoints as the released TUSS code writes them, made of random numbers.

Names, shapes and settings are written down here from the published layout, on purpose
without the importer's help: they are what it is tested against.
"""

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

PROMPTS = ["speech", "sfx", "sfxbg", "drums", "bass", "vocals", "other", "musicbg"]


def block_shapes(stack: dict[str, Any], prefix: str) -> dict[str, tuple[int, ...]]:
    """Released names and shapes of one block, from the layout of the checkpoints."""
    dim, attention = stack["emb_dim"], stack["attention_dim"]
    shapes: dict[str, tuple[int, ...]] = {}
    for path in ("freq", "frame"):
        start = f"{prefix}.{path}_path"
        shapes[f"{start}.attn_norm.gamma"] = (dim,)
        shapes[f"{start}.attn.qkv.weight"] = (3 * attention, dim)
        shapes[f"{start}.attn.aggregate_heads.0.weight"] = (dim, attention)
        # The net before the attention is first in the settings and last in the state.
        for index, net in zip((1, 0), stack[f"{path}_ffn_config"], strict=True):
            hidden, kernel = net["conf"]["dim_inner"], net["conf"]["conv1d_kernel"]
            shapes[f"{start}.ffn_norm.{index}.gamma"] = (dim,)
            shapes[f"{start}.ffn.{index}.conv1d.weight"] = (2 * hidden, dim, kernel)
            shapes[f"{start}.ffn.{index}.conv1d.bias"] = (2 * hidden,)
            shapes[f"{start}.ffn.{index}.deconv1d.weight"] = (hidden, dim, kernel)
            shapes[f"{start}.ffn.{index}.deconv1d.bias"] = (dim,)
    return shapes


def released_shapes(model_conf: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Released names and shapes at 48 kHz, written down independently of the importer."""
    dim = model_conf["conf_cross_prompt_module"]["emb_dim"]
    shapes: dict[str, tuple[int, ...]] = {"sos_token": (dim, 1, 1)}
    shapes |= {f"prompts.{name}": (dim, 1, 1) for name in model_conf["prompts"]}
    for module in ("cross_prompt_module", "cond_tse_module"):
        for block in range(model_conf[f"nblocks_{module}"]):
            shapes |= block_shapes(model_conf[f"conf_{module}"], f"{module}.{block}")
    widths = [2] * 22 + [4] * 11 + [12] * 8 + [24] * 8 + [48] * 8 + [66, 66, 66, 67]
    for band, width in enumerate(widths):
        encoder = f"band_split_module.band_split_module.{band}"
        decoder = f"band_split_module.bandwise_decoding_module.{band}"
        layers = {
            f"{encoder}.1": (dim, 2 * width, 1),
            f"{decoder}.1": (4 * dim, dim, 1),
            f"{decoder}.3": (4 * dim, 4 * dim, 1),
            f"{decoder}.5": (4 * width, 4 * dim, 1),
        }
        for layer, shape in layers.items():
            shapes |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
        for norm, size in ((f"{encoder}.0", 2 * width), (f"{decoder}.0", dim)):
            shapes |= {f"{norm}.weight": (size,), f"{norm}.bias": (size,)}
    return shapes


def rotary_frequencies(model_conf: dict[str, Any]) -> dict[str, Tensor]:
    """The constants that every released block repeats."""
    found = {}
    for module in ("cross_prompt_module", "cond_tse_module"):
        stack = model_conf[f"conf_{module}"]
        head = stack["attention_dim"] // stack["n_heads"]
        for block in range(model_conf[f"nblocks_{module}"]):
            for path in ("freq", "frame"):
                found[f"{module}.{block}.{path}_path.attn.rope.freqs"] = torch.tensor(
                    [10000.0 ** (-2 * pair / head) for pair in range(head // 2)]
                )
    return found


def stack_settings(
    dim: int, groups: int, heads: int, attention: int, hidden: int, frame_kernel: int
) -> dict[str, Any]:
    def nets(kernel: int) -> list[dict[str, Any]]:
        return [{"conf": {"dim_inner": hidden, "conv1d_kernel": kernel, "conv1d_shift": 1}}] * 2

    return {
        "emb_dim": dim,
        "num_groups": groups,
        "tf_order": "ft",
        "n_heads": heads,
        "flash_attention": False,
        "attention_dim": attention,
        "freq_ffn_config": nets(4),
        "frame_ffn_config": nets(frame_kernel),
    }


def hyperparameters(
    cross: dict[str, Any], tse: dict[str, Any], n_cross: int, n_tse: int
) -> dict[str, Any]:
    transform = {
        "fft_size": 2048,
        "window_length": 2048,
        "hop_length": 512,
        "window_type": "sqrt_hann",
        "normalize": None,
    }
    return {
        "model_name": "tuss",
        "model_conf": {
            "prompts": PROMPTS,
            "conf_cross_prompt_module": cross,
            "nblocks_cross_prompt_module": n_cross,
            "conf_cond_tse_module": tse,
            "nblocks_cond_tse_module": n_tse,
            "sample_rate": 48000,
            "stft_size": 2048,
            "use_sos_token": True,
        },
        "encoder_conf": transform,
        "decoder_conf": transform,
        "variance_normalization": True,
    }


MEDIUM = hyperparameters(
    stack_settings(64, 8, 4, 128, 384, 1), stack_settings(64, 8, 4, 96, 256, 4), 4, 2
)
TINY = hyperparameters(stack_settings(8, 4, 2, 16, 6, 1), stack_settings(8, 4, 2, 16, 6, 4), 1, 1)


def random_state(hparams: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the released names, without a prefix."""
    generator = torch.Generator().manual_seed(seed)
    conf = hparams["model_conf"]
    return {
        name: torch.randn(shape, generator=generator) * 0.3
        for name, shape in released_shapes(conf).items()
    } | rotary_frequencies(conf)


def write_folder(folder: Path, hparams: dict[str, Any], state: dict[str, Tensor]) -> Path:
    """Write ``hparams.yaml`` and ``checkpoints/model.pth``, the released layout."""
    (folder / "checkpoints").mkdir(parents=True)
    training = {"css_datasets": ["musdb"], "num_epochs": 150, "optimizer": {"lr": 1e-3}}
    # PyYAML writes what stands twice as an anchor and an alias, as in the released files.
    (folder / "hparams.yaml").write_text(yaml.safe_dump(hparams | training), encoding="utf-8")
    prefixed = {f"model.separator.{name}": tensor for name, tensor in state.items()}
    torch.save(prefixed, folder / "checkpoints" / "model.pth")
    return folder
