"""Low-rank adapters: a small change to the attention of a network, learnt in place of all of it.

To a weight W [out, in] that stays, a product B A is added, with B [out, rank] at zero and A
[rank, in] at random, so that a network begins as it was. In the end W + B A is an ordinary weight.

Source: E. Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022; the package
    is peft.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from unbraid.errors import ConfigError, MissingExtra
from unbraid.models.base import SpectralModel
from unbraid.nn.attention import SelfAttention


def add_adapters(
    network: SpectralModel, rank: int, seed: int = 0
) -> Callable[[], dict[str, torch.Tensor]]:
    """Let adapters on the linear layers of all self-attention learn, and nothing else; in place.

    Feed-forward nets are convolutions here and stay as they are.

    Args:
        network: The network.
        rank: Of the change to each weight.
        seed: Of A.

    Returns:
        Gives the tensors of a plain network with what the adapters have learnt so far.

    Raises:
        ConfigError: If the rank is less than 1, or the network has no self-attention.
        MissingExtra: If peft is not installed.
    """
    if rank < 1:
        raise ConfigError(f"rank must be at least 1, not {rank}.")
    layers = [
        f"{name}.{layer}"
        for name, module in network.named_modules()
        if isinstance(module, SelfAttention)
        for layer in ("queries_keys_values", "output")
    ]
    if not layers:
        raise ConfigError("this network has no self-attention that adapters could be added to.")
    try:
        import peft
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"low-rank adapters need the package {error.name}; install it with: pip install "
            "'unbraid[lora]'"
        ) from error
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = peft.get_peft_model(network, config)

    def merged() -> dict[str, torch.Tensor]:
        return dict(copy.deepcopy(adapted).merge_and_unload().state_dict())

    return merged
