"""From a model that was trained without prompts to a TUSS that can be asked for sources.

TUSS is hard to train from recordings alone, since nothing says how finely to separate. Its body
without prompts can be: so that is trained first, and TUSS begins with its weights.

=========================  =======================  ==============================================
unconditional              TUSS                     what becomes of it
=========================  =======================  ==============================================
codec, but its last layer  codec                    taken over
first                      cross_prompt             taken over
second                     extraction               taken over
last layer, S outputs      last layer, one output   fresh, or the rows of one output
                           start_of_sequence        fresh
                           prompts                  fresh
=========================  =======================  ==============================================

The idea of training the body first is that of the authors of TUSS; this mapping is ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unbraid.checkpoints.accounting import check_tensors
from unbraid.config import dump, parse
from unbraid.errors import CheckpointError, ConfigError
from unbraid.models.architectures.tuss import TussConfig
from unbraid.models.architectures.unconditional import Unconditional, UnconditionalConfig
from unbraid.models.waveform import WaveformModel, build_model
from unbraid.prompts import STANDARD_PROMPTS, canonical_name

#: What our modules are called in TUSS.
_MODULES = {"codec": "codec", "first": "cross_prompt", "second": "extraction"}

#: The last layers of both codecs. Their outputs are counted by value or gate (band-split only),
#: part, source, and bin (band-split only).
_LAST_LAYERS = re.compile(
    r"codec\.(?:decoders\.\d+\.last|decoder\.output_convolution)\.(?:weight|bias)"
)

#: TUSS has it besides.
_START = "start_of_sequence"


@dataclass(frozen=True, eq=False)
class Conversion:
    """A TUSS that begins with the weights of another model.

    Attributes:
        model: It.
        taken: Names of its tensors that were taken over.
        fresh: Names of those that were not; its prompts are fresh besides.
    """

    model: WaveformModel
    taken: tuple[str, ...]
    fresh: tuple[str, ...]


def tuss_from_unconditional(
    source: WaveformModel,
    where: str,
    prompts: Sequence[str] = STANDARD_PROMPTS,
    *,
    output: int | None = None,
    seed: int = 0,
) -> Conversion:
    """Make a TUSS of a model that always gives the same outputs.

    It has to be trained before it can be asked for anything: its prompts mean nothing yet.

    Args:
        source: A model of the architecture ``unconditional``; it stays as it is.
        where: What to call it in error messages.
        prompts: Names of the prompts of the TUSS.
        output: Which output's last layer to take over; None for a fresh one.
        seed: Of what is fresh.

    Raises:
        CheckpointError: If the model is of another architecture, or the tensors do not fit.
        ConfigError: If there is no such output.
        PromptError: If a prompt stands twice or has no name.
    """
    if not isinstance(source.network, Unconditional):
        raise CheckpointError(
            f"{where}: only models of the architecture 'unconditional' can become TUSS, and this "
            f"one is '{source.config.architecture}'."
        )
    settings = parse(UnconditionalConfig, dict(source.config.network), where=where)
    if output is not None and not 0 <= output < settings.num_outputs:
        raise ConfigError(
            f"{where}: has the outputs 0 to {settings.num_outputs - 1}, so there is no {output}."
        )
    network = TussConfig(settings.codec, cross_prompt=settings.first, extraction=settings.second)
    config = replace(
        source.config,
        architecture="tuss",
        network=dump(network),
        outputs=(),
        prompts=tuple(map(canonical_name, prompts)),
        presence={},
        discovery={},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(config)

    found = {_renamed(name): tensor for name, tensor in source.network.state_dict().items()}
    expected = model.network.state_dict()
    if output is None and settings.num_outputs > 1:
        found = {name: tensor for name, tensor in found.items() if not _LAST_LAYERS.match(name)}
    else:
        found = {
            name: _of_one_output(name, tensor, settings.num_outputs, output or 0)
            for name, tensor in found.items()
        }
    fresh = [_START]
    if output is None and settings.num_outputs > 1:
        fresh += filter(_LAST_LAYERS.match, expected)
    check_tensors(
        found, {name: tensor for name, tensor in expected.items() if name not in fresh}, where
    )
    model.network.load_state_dict(expected | found)
    return Conversion(model.eval(), tuple(found), tuple(fresh))


def _renamed(name: str) -> str:
    module, _, rest = name.partition(".")
    return f"{_MODULES.get(module, module)}.{rest}"


def _of_one_output(name: str, tensor: Tensor, num_outputs: int, output: int) -> Tensor:
    """Of a last layer, what makes one of the outputs; other tensors as they are."""
    if not _LAST_LAYERS.match(name):
        return tensor
    is_band_split = "decoders" in name
    # Transposed convolutions have their outputs on the second axis.
    axis = 0 if is_band_split or tensor.ndim == 1 else 1
    groups = 4 if is_band_split else 2
    by_output = tensor.unflatten(axis, (groups, num_outputs, -1))
    return by_output.select(axis + 1, output).flatten(axis, axis + 1)
