"""Log-mel spectrograms, as sound taggers hear them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dsp.levels import power_db
from unbraid.dsp.stft import StftConfig
from unbraid.errors import ConfigError

#: Slaney's scale is linear up to this frequency and logarithmic above it.
_KNEE_HZ = 1000.0
_LINEAR_HZ_PER_MEL = 200.0 / 3.0
_KNEE_MEL = _KNEE_HZ / _LINEAR_HZ_PER_MEL
#: Natural logarithm of the ratio of neighbouring mels above the knee: 27 of them make 6.4.
_LOG_STEP = math.log(6.4) / 27.0


@dataclass(frozen=True)
class MelConfig:
    """A log-mel spectrogram.

    Attributes:
        sample_rate: Of the waveforms, in Hz.
        stft: The transform; its padding is by reflection, whatever it says.
        num_mels: How many bands.
        low_hz: Where the lowest band begins.
        high_hz: Where the highest band ends.
    """

    sample_rate: int
    stft: StftConfig
    num_mels: int
    low_hz: float
    high_hz: float

    def __post_init__(self) -> None:
        if self.num_mels < 1 or not 0.0 <= self.low_hz < self.high_hz <= self.sample_rate / 2:
            raise ConfigError(
                f"mel bands need a number of at least 1, not {self.num_mels}, and edges in order "
                f"from 0 to {self.sample_rate / 2:g} Hz, not {self.low_hz:g} and "
                f"{self.high_hz:g} Hz."
            )


def log_mel(
    waveform: Float[Tensor, "batch time"], config: MelConfig
) -> Float[Tensor, "batch frame mel"]:
    """Level of every mel band in dB of power, at least -100 dB.

    Frame ``t`` is centred on sample ``t * hop_length``, and there are ``time // hop_length + 1``
    of them. What lies beyond the ends is reflected; a waveform that is too short for that is
    filled up with zeros to more than half a window.

    Source: The definition that librosa made common: ``power_to_db(melspectrogram(...))`` with
        Slaney's scale and norm, and no limit below the peak.
    """
    num_frames = waveform.shape[-1] // config.stft.hop_length + 1
    # Not ``dsp.stft.stft``: that fills up to a whole hop first, so the last frames would hear
    # silence where these hear a reflection.
    missing = config.stft.n_fft // 2 + 1 - waveform.shape[-1]
    spectrum = torch.stft(
        torch.nn.functional.pad(waveform.float(), (0, max(missing, 0))),
        config.stft.n_fft,
        config.stft.hop_length,
        window=config.stft.make_window(waveform.device),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )[..., :num_frames]
    power = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)
    return power_db(power @ mel_filters(config).to(waveform.device), floor=1e-10)


@lru_cache(maxsize=8)
def mel_filters(config: MelConfig) -> Float[Tensor, "bin mel"]:
    """What each bin's power counts in each band: triangles on Slaney's scale, of equal area.

    A triangle from a over b to c Hz has the height 2 / (c - a).

    Source: M. Slaney, "Auditory toolbox", version 2, 1998.
    """
    edges = torch.linspace(
        _to_mel(config.low_hz), _to_mel(config.high_hz), config.num_mels + 2, dtype=torch.float64
    )
    linear_hz = edges * _LINEAR_HZ_PER_MEL
    logarithmic_hz = _KNEE_HZ * torch.exp(_LOG_STEP * (edges - _KNEE_MEL))
    edges_hz = torch.where(edges < _KNEE_MEL, linear_hz, logarithmic_hz)
    low, centre, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    bins_hz = torch.arange(config.stft.num_bins, dtype=torch.float64)[:, None]
    bins_hz = bins_hz * config.sample_rate / config.stft.n_fft
    rising = (bins_hz - low) / (centre - low)
    falling = (high - bins_hz) / (high - centre)
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    return (triangles * 2.0 / (high - low)).float()


def _to_mel(hz: float) -> float:
    if hz < _KNEE_HZ:
        return hz / _LINEAR_HZ_PER_MEL
    return _KNEE_MEL + math.log(hz / _KNEE_HZ) / _LOG_STEP
