"""Songs of a few seconds whose stems a network can tell apart: a low tone and high noise."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

STEMS = ("vocals", "drums")


def stem(name: str, seed: int, seconds: float, rate: int) -> np.ndarray:
    """Samples of a stem; the seed gives the pitch and the noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    if name == "vocals":
        return 0.2 * np.sin(2 * np.pi * rng.uniform(200, 400) * time)
    noise = rng.standard_normal(len(time))
    return 0.1 * np.diff(noise, prepend=0.0)


def make_songs(
    folder: Path,
    num_songs: int = 3,
    *,
    seconds: float = 2.5,
    rate: int = 48_000,
    stems: Sequence[str] = STEMS,
    num_channels: int = 1,
) -> Path:
    """Write SONG/STEM.wav; channels after the first are softer."""
    for number in range(num_songs):
        song = folder / f"song{number}"
        song.mkdir(parents=True)
        for place, name in enumerate(stems):
            samples = stem(name, 10 * number + place, seconds, rate)
            channels = np.stack([samples / (channel + 1) for channel in range(num_channels)], 1)
            soundfile.write(song / f"{name}.wav", channels, rate)
    return folder
