"""The unconditional baseline of TUSS: the same blocks without prompts, outputs always the same.

=====================  ==========================  =============================================
paper                  here                        what it is
=====================  ==========================  =============================================
X                      mixture                     spectrogram of the mixture
Z                      features                    the mixture's features
first block            first                       TUSS's cross-prompt module, without prompts
second block           second                      TUSS's conditional TSE module, unconditioned
band-split, decoder    codec                       spectrogram → Z, Z → a mask for each output
M_n, Y_n               masks, estimates            Y_n = M_n X
=====================  ==========================  =============================================

Source: K. Saijo, J. Ebbers, F. G. Germain, G. Wichern, J. Le Roux, "Task-aware unified source
    separation", ICASSP 2025, arXiv 2410.23987, section 4.
Differs: The release mixes up sources and parts behind its decoder, which training made good;
    the importer sorts the weights, and the network does what the paper says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from unbraid.dsp.masks import apply_masks
from unbraid.dsp.stft import StftConfig
from unbraid.errors import ConfigError
from unbraid.models.architectures import tuss
from unbraid.models.base import Architecture, SpectralModel
from unbraid.nn.codecs import MaskCodecConfig, build_mask_codec
from unbraid.nn.locoformer import LocoformerConfig, LocoformerStack


@dataclass(frozen=True)
class UnconditionalConfig:
    """One unconditional baseline.

    Attributes:
        codec: Entry and exit.
        first: The blocks that TUSS has before its prompts meet the features.
        second: The blocks that TUSS has behind.
        num_outputs: How many sources come out.
    """

    codec: MaskCodecConfig
    first: LocoformerConfig
    second: LocoformerConfig
    num_outputs: int

    def __post_init__(self) -> None:
        if self.first.dim != self.second.dim:
            raise ConfigError(
                f"first.dim ({self.first.dim}) and second.dim ({self.second.dim}) must be equal."
            )
        if self.num_outputs < 1:
            raise ConfigError(f"num_outputs must be positive, not {self.num_outputs}.")


class Unconditional(SpectralModel):
    """The body of TUSS with a decoder for all outputs at once."""

    def __init__(self, config: UnconditionalConfig, sample_rate: int, stft: StftConfig) -> None:
        super().__init__()
        self.query_dim = 0
        self.num_outputs = config.num_outputs
        self.codec = build_mask_codec(
            config.codec,
            config.first.dim,
            sample_rate,
            stft.n_fft,
            num_sources=config.num_outputs,
        )
        self.first = LocoformerStack(config.first)
        self.second = LocoformerStack(config.second)

    def forward(
        self,
        mixture: Float[Tensor, "batch part frame bin"],
        queries: Float[Tensor, "batch source dim"],
    ) -> Float[Tensor, "batch output part frame bin"]:
        """Estimate all sources; the queries have no numbers and are not looked at."""
        features, context = self.codec.encode(mixture)
        masks = self.codec.decode(self.second(self.first(features)), context)
        return apply_masks(masks, mixture)


def _without_prompts(preset: tuss.TussConfig, num_outputs: int) -> UnconditionalConfig:
    return UnconditionalConfig(preset.codec, preset.cross_prompt, preset.extraction, num_outputs)


#: What the outputs of a specialist answer: benchmark → prompts, sorted by name. With these as
#: ``ModelConfig.outputs`` the loss assigns sources within equal prompts only, as it does for the
#: specialists of the paper. Those for one task and those for one corpus differ in what they are
#: trained on. (FUSS has up to four sources of one kind.)
SPECIALISTS: dict[str, tuple[str, ...]] = {
    "vctk-demand": ("sfx-mix", "speech"),
    "wham": ("sfx-mix", "speech", "speech"),
    "fuss": ("sfx", "sfx", "sfx", "sfx"),
    "musdb": ("bass", "drums", "other", "vocals"),
    "dnr": ("music-mix", "sfx-mix", "speech"),
}


_MEDIUM, _LARGE = (tuss.ARCHITECTURE.presets[size] for size in ("medium", "large"))

ARCHITECTURE = Architecture(
    name="unconditional",
    config_type=UnconditionalConfig,
    build=Unconditional,
    presets={
        **{f"medium-{number}": _without_prompts(_MEDIUM, number) for number in (2, 3, 4)},
        **{f"large-{number}": _without_prompts(_LARGE, number) for number in (2, 3, 4)},
        **{
            f"{size}-{benchmark}": _without_prompts(preset, len(outputs))
            for size, preset in (("medium", _MEDIUM), ("large", _LARGE))
            for benchmark, outputs in SPECIALISTS.items()
        },
        # Smaller than large-4: the released settings do not follow the large TUSS.
        "released-large": replace(
            _without_prompts(_LARGE, 4),
            second=replace(_LARGE.extraction, num_blocks=2, attention_dim=96),
        ),
    },
    examples={
        name: _without_prompts(example, 2)
        for name, example in tuss.ARCHITECTURE.examples.items()
        if name in ("band-split", "adaptive attention")
    },
)
