"""What a lossy codec leaves of a sound: encoded, and decoded again."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch.nn.functional import pad

from unbraid.audio.decode import read
from unbraid.audio.encoders import open_encoder
from unbraid.audio.formats import AudioFormat
from unbraid.dsp.resample import resample
from unbraid.types import Waveform


def through_codec(waveform: Waveform, audio_format: AudioFormat) -> Waveform:
    """Store a sound in a format, and read it again.

    Length and place of every sample stay (see ``encode`` for how exactly), and so does the
    sampling rate, also where the codec works at another.

    Args:
        waveform: At least one sample. Keep it below the format's ``highest_peak``.
        audio_format: How to store it.

    Raises:
        AudioError: If the format cannot hold this audio.
    """
    rate = audio_format.rate_for(waveform.sample_rate)
    audio_format.check_fits(waveform.num_channels, rate)
    samples = resample(waveform.samples, waveform.sample_rate, rate)
    with tempfile.TemporaryDirectory(prefix="unbraid-") as folder:
        path = Path(folder) / f"sound.{audio_format.extension}"
        encoder = open_encoder(path.open("wb"), audio_format, rate, waveform.num_channels, "", {})
        encoder.write(samples.numpy().T)
        encoder.close()
        decoded = read(path).samples
    back = resample(decoded, rate, waveform.sample_rate)[:, : waveform.num_samples]
    missing = waveform.num_samples - back.shape[1]
    return Waveform(pad(back, (0, missing)), waveform.sample_rate)
