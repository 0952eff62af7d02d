"""Where a run starts, and what of its model learns: all from scratch, or less from further on."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import torch
from torch import nn

from unbraid.checkpoints.bundle import Bundle
from unbraid.config import dump, nearest
from unbraid.errors import ConfigError
from unbraid.models.waveform import WaveformModel
from unbraid.nn.norms import BatchNorm


def take_weights(model: WaveformModel, start: Bundle) -> None:
    """Let a model begin with the weights of another one, in place.

    The two must compute in the same way. The prompts of ``model`` may be fewer than those of
    ``start`` and stand in another order.

    Raises:
        ConfigError: If the network, the rate, the transform or the outputs differ, or ``start``
            lacks a prompt.
    """
    ours, theirs = dump(model.config), dump(start.config)
    for key in ("architecture", "sample_rate", "stft", "level", "outputs", "network"):
        # Settings that a config leaves out have their defaults, so networks are held against
        # each other below by their tensors as well.
        if key != "network" and ours[key] != theirs[key]:
            raise ConfigError(
                f"start: {start.card.name} has model.{key} {theirs[key]}, but this run has "
                f"{ours[key]}; they must be equal."
            )
    wanted, given = model.network.state_dict(), start.model.network.state_dict()
    for name in (*wanted, *given):
        shapes = [tuple(state[name].shape) if name in state else None for state in (wanted, given)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"start: the network of {start.card.name} is another one: {name} is "
                f"{shapes[1] or 'not there'}, but here it is {shapes[0] or 'not there'}; give "
                "model.network as its config.json has it."
            )
    known = start.model.prompts.names
    for name in model.prompts.names:
        if name not in known:
            raise ConfigError(
                f"start: {start.card.name} has no prompt {name!r}; {nearest(name, known)}"
            )
    model.network.load_state_dict(given)
    rows = [known.index(name) for name in model.prompts.names]
    with torch.no_grad():
        model.prompts.weight.copy_(start.model.prompts.weight[rows])


def choose_learning(model: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Let only some parameters of a model learn, in place; the rest stays as it is to the last bit.

    What never learns, such as rotary frequencies, does not learn here either. Batch normalisation
    without a parameter that learns keeps its running statistics, too.

    Args:
        model: The model.
        patterns: As in shells, over the names of parameters: ``prompts.*``. Empty for all.

    Returns:
        The names of the parameters that learn.

    Raises:
        ConfigError: If a pattern matches no parameter that could learn.
    """
    learnable = [name for name, each in model.named_parameters() if each.requires_grad]
    chosen = set(learnable) if not patterns else set[str]()
    for pattern in patterns:
        matching = fnmatch.filter(learnable, pattern)
        if not matching:
            raise ConfigError(
                f"learns: the pattern {pattern!r} matches no parameter; "
                f"{nearest(pattern, _groups(learnable))}"
            )
        chosen.update(matching)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    for module in model.modules():
        if isinstance(module, BatchNorm) and not any(
            parameter.requires_grad for parameter in module.parameters()
        ):
            module.eval()
    return tuple(name for name in learnable if name in chosen)


def _groups(names: Sequence[str]) -> list[str]:
    """Patterns for the parts of a model: a few words in place of a thousand names."""
    return list(dict.fromkeys(f"{'.'.join(name.split('.')[:2])}*" for name in names))
