"""Models made ready to separate: the same numbers, sooner."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.models.base import SpectralModel
from unbraid.models.waveform import WaveformModel
from unbraid.nn.fast_locoformer import FastLocoformerStack
from unbraid.nn.locoformer import LocoformerStack
from unbraid.types import Precision


def for_inference(model: WaveformModel, precision: Precision = "float32") -> WaveformModel:
    """A twin of a model that separates sooner, without gradients.

    On a processor the network's TF-Locoformer stacks take the fast path; elsewhere its modules
    stay what they are. Whatever is not replaced, the prompts too, is the model's own: what is
    taught to one is known to the other. Later changes to the weights of the model's stacks
    do not reach the twin.

    Args:
        model: The model, in float32 on the device where it is to compute; it stays as it is.
        precision: What the network computes with. On a processor bfloat16 is for the
            feed-forward nets only, see ``FastLocoformerStack``.
    """
    device = next(model.parameters()).device
    on_processor = device.type == "cpu"
    stacks = {
        name: module
        for name, module in model.network.named_modules()
        if isinstance(module, LocoformerStack) and on_processor
    }
    # A copy of the tree of modules that shares the prompts, all tensors, and what is replaced.
    shared = [model.prompts, *stacks.values(), *model.parameters(), *model.buffers()]
    twin = copy.deepcopy(model, {id(part): part for part in shared}).eval()
    for name, stack in stacks.items():
        parent, _, attribute = name.rpartition(".")
        fast = FastLocoformerStack(stack, precision)
        setattr(twin.network.get_submodule(parent), attribute, fast)
    if precision == "bfloat16" and not on_processor:
        twin.network = _Autocast(twin.network, device.type)
    return twin


class _Autocast(SpectralModel):
    """A network whose products are computed in bfloat16 and whose sums in float32."""

    def __init__(self, network: SpectralModel, device_type: str) -> None:
        super().__init__()
        self.query_dim = network.query_dim
        self.query_vectors = network.query_vectors
        self.num_outputs = network.num_outputs
        self.num_channels = network.num_channels
        self.most_frames = network.most_frames
        self._network = network
        self._device_type = device_type

    def forward(
        self,
        mixture: Float[Tensor, "batch part frame bin"],
        queries: Float[Tensor, "batch source query"],
    ) -> Float[Tensor, "batch output part frame bin"]:
        with torch.autocast(self._device_type, torch.bfloat16):
            return self._network(mixture, queries).float()
