"""A model as other programs want it: prompts chosen, waveform to sources, real numbers only."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from unbraid.dsp.matrix_stft import MatrixTransform
from unbraid.models.waveform import WaveformModel, separate


class ExportableModel(nn.Module):
    """What an exported graph computes: the road of ``WaveformModel`` without complex numbers.

    Args:
        model: Where the network comes from; it is shared, not copied.
        prompts: One name per wanted source, in the order of the outputs; names may repeat.

    Raises:
        PromptError: For an empty list, or a name that the model does not know.
    """

    queries: Tensor
    outputs: Tensor | None

    def __init__(self, model: WaveformModel, prompts: Sequence[str]) -> None:
        super().__init__()
        indices = model.prompts.indices(prompts).to(model.prompts.weight.device)
        self.network = model.network
        self.level = model.config.level
        self.register_buffer("outputs", model.outputs_for(indices[None]), persistent=False)
        self.transform = MatrixTransform(model.config.stft).to(indices.device)
        self.register_buffer("queries", model.prompts(indices[None]).detach(), persistent=False)

    def forward(self, mixture: Float[Tensor, "batch time"]) -> Float[Tensor, "batch source time"]:
        """Separate mono mixtures at the model's rate; sources are as long as the mixture."""
        queries = self.queries.expand(mixture.shape[0], -1, -1)
        outputs = None if self.outputs is None else self.outputs.expand(mixture.shape[0], -1)
        return separate(
            mixture, queries, self.network, self.transform, level=self.level, outputs=outputs
        )
