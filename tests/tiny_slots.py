"""Sizes of an AudioSlots that a test builds and trains in milliseconds."""

from unbraid.dsp.stft import StftConfig
from unbraid.models.architectures.audio_slots import AudioSlotsConfig

RATE = 4000
STFT = StftConfig(64, 16, "hann", "reflect")
SMALL = AudioSlotsConfig(
    num_slots=3,
    frames=16,
    channels=(4, 4, 8, 8),
    depths=(1, 1, 1, 1),
    norm_groups=2,
    dim=16,
    num_heads=2,
    hidden_dim=16,
    num_layers=2,
    decoder_dim=16,
    decoder_layers=3,
)
