"""The last steps of a separation: is the sound there, gate it if not, make it all add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from unbraid.models.waveform import PresenceWeights
from unbraid.separation.consistency import Projector
from unbraid.separation.gate import Gate
from unbraid.separation.presence import GENERIC_WEIGHTS, PresenceMeter
from unbraid.separation.settings import SeparationConfig
from unbraid.types import SeparatedBlock


class Finisher:
    """State of one recording whose raw estimates are made into what the caller gets.

    Presence is judged by the raw estimates; the gate follows it; what the gate took away is
    then shared out among the sources that are open, if the stems are to add up.

    Args:
        config: Which steps are wanted.
        presence: Prompt → weights, from the model's config.
        prompts: Canonical prompt of each source.
        sample_rate: Of mixture and sources, in Hz.
    """

    def __init__(
        self,
        config: SeparationConfig,
        presence: Mapping[str, PresenceWeights],
        prompts: Sequence[str],
        sample_rate: int,
    ) -> None:
        weights = [presence.get(prompt, GENERIC_WEIGHTS) for prompt in prompts]
        self._meter = PresenceMeter(weights, sample_rate)
        self._gate = Gate(sample_rate, len(prompts)) if config.gate else None
        self._projector = Projector(sample_rate) if config.consistency == "project" else None

    def push(
        self,
        mixture: Float[Tensor, "channel time"],
        sources: Float[Tensor, "source channel time"],
        *,
        is_last: bool,
    ) -> SeparatedBlock:
        """Take the next samples; give those that are finished, and the windows scored.

        The gate looks some two seconds ahead, the projection some hundredths of a second, so
        a block may be shorter than what was pushed, or empty. The last push gives the rest.
        """
        scores = self._meter.push(mixture, sources, is_last=is_last)
        if self._gate is not None:
            mixture, sources = self._gate.push(mixture, sources, scores, is_last=is_last)
        if self._projector is not None:
            mixture, sources = self._projector.push(mixture, sources, is_last=is_last)
        return SeparatedBlock(mixture, sources, scores)
