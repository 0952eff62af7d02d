"""Released checkpoints of ST-SED-SEP and its tagger, as names and shapes of any size."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

#: A separator of two levels, and a tagger of two stages whose latent is its query.
TINY_CHANNELS = (2, 3, 4)
TINY_TAGGER = (4, (1, 2), (1, 2), 3)
TINY_QUERY_DIM = 8


def separator_shapes(channels: Sequence[int], query_dim: int, num_bins: int = 1025) -> Shapes:
    """Names and shapes of a separator, without the kernels of its transforms."""
    *levels, centre = channels
    shapes = norm_shapes("bn0", num_bins)
    for number, (before, after) in enumerate(zip((1, *levels), levels, strict=False), start=1):
        shapes |= _block(f"encoder_block{number}.conv_block", before, after, query_dim)
    shapes |= _block("conv_block7", levels[-1], centre, query_dim)
    upwards = [centre, *reversed(levels)]
    for number, (before, after) in enumerate(itertools.pairwise(upwards), start=1):
        block = f"decoder_block{number}"
        shapes[f"{block}.conv1.weight"] = (before, after, 3, 3)
        shapes |= norm_shapes(f"{block}.bn1", after)
        shapes |= _block(f"{block}.conv_block2", 2 * after, after, query_dim)
        shapes |= {f"{block}.emb1.weight": (after, query_dim), f"{block}.emb1.bias": (after,)}
    shapes |= _block("after_conv_block1", levels[0], levels[0], query_dim)
    return shapes | {"after_conv2.weight": (1, levels[0], 1, 1), "after_conv2.bias": (1,)}


def tagger_shapes(
    dim: int,
    depths: Sequence[int],
    heads: Sequence[int],
    num_classes: int,
    window: int = 8,
    patch_size: int = 4,
) -> Shapes:
    """Names and shapes of a tagger on 64 mel bands, without its prefix and its front end."""
    shapes = norm_shapes("bn0", 64)
    shapes |= {"patch_embed.proj.weight": (dim, 1, patch_size, patch_size)}
    shapes |= {"patch_embed.proj.bias": (dim,)} | _affine("patch_embed.norm", dim)
    for stage, depth in enumerate(depths):
        width = dim << stage
        for number in range(depth):
            block = f"layers.{stage}.blocks.{number}"
            shapes |= _affine(f"{block}.norm1", width) | _affine(f"{block}.norm2", width)
            table = f"{block}.attn.relative_position_bias_table"
            shapes[table] = ((2 * window - 1) ** 2, heads[stage])
            for layer, before, after in (
                ("attn.qkv", width, 3 * width),
                ("attn.proj", width, width),
                ("mlp.fc1", width, 4 * width),
                ("mlp.fc2", 4 * width, width),
            ):
                shapes |= {f"{block}.{layer}.weight": (after, before)}
                shapes |= {f"{block}.{layer}.bias": (after,)}
        if stage < len(depths) - 1:
            merge = f"layers.{stage}.downsample"
            shapes |= {f"{merge}.reduction.weight": (2 * width, 4 * width)}
            shapes |= _affine(f"{merge}.norm", 4 * width)
    last = dim << (len(depths) - 1)
    rows = 64 // (patch_size << (len(depths) - 1))
    shapes |= _affine("norm", last) | {"tscam_conv.weight": (num_classes, last, rows, 3)}
    shapes |= {"tscam_conv.bias": (num_classes,), "head.bias": (num_classes,)}
    return shapes | {"head.weight": (num_classes, num_classes)}


def norm_shapes(name: str, size: int) -> Shapes:
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": (size,) for kind in kinds}


def random_state(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random weights, whose variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {
        name: 1.0 + tensor.abs() if name.endswith("running_var") else 0.3 * tensor
        for name, tensor in state.items()
    }


def separator_state() -> dict[str, Tensor]:
    """The tiny separator, with all that a released file holds beside the weights."""
    return random_state(separator_shapes(TINY_CHANNELS, TINY_QUERY_DIM)) | {
        "stft.conv_real.weight": torch.zeros(1025, 1, 2048),
        "istft.conv_imag.weight": torch.zeros(3, 3, 1),
        "istft.ola_window": torch.zeros(2048),
        "bn0.num_batches_tracked": torch.tensor(7),
        "at_model.sed_model.norm.weight": torch.zeros(8),
    }


def tagger_state() -> dict[str, Tensor]:
    """The tiny tagger, likewise."""
    state = random_state(tagger_shapes(*TINY_TAGGER)) | {
        "spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024),
        "logmel_extractor.melW": torch.zeros(513, 64),
        "bn0.num_batches_tracked": torch.tensor(7),
        "layers.1.blocks.1.attn_mask": torch.zeros(16, 64, 64),
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(64, 64).long(),
    }
    return {f"sed_model.{name}": tensor for name, tensor in state.items()}


def write_checkpoint(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"epoch": 3, "state_dict": state}, path)
    return path


def _block(name: str, before: int, after: int, query_dim: int) -> Shapes:
    shapes: Shapes = {}
    for number, entering in ((1, before), (2, after)):
        shapes[f"{name}.conv{number}.weight"] = (after, entering, 3, 3)
        shapes |= norm_shapes(f"{name}.bn{number}", after)
        shapes |= {f"{name}.emb{number}.weight": (after, query_dim)}
        shapes |= {f"{name}.emb{number}.bias": (after,)}
    return shapes


def _affine(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}
