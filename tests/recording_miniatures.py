"""Recordings of a few seconds that nobody has taken apart: a low tone over high noise."""

from pathlib import Path

import numpy as np
import soundfile

from song_miniatures import STEMS, stem

RATE = 48_000


def recording(seed: int, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """Samples of one; the seed gives the pitch and the noise."""
    parts = [stem(name, 10 * seed + place, seconds, rate) for place, name in enumerate(STEMS)]
    return np.sum(parts, axis=0)


def make_recordings(folder: Path, count: int = 6, seconds: float = 2.0) -> Path:
    """Write so many files: wav and FLAC, of two rates, mono and stereo."""
    folder.mkdir(parents=True)
    for number in range(count):
        rate = (RATE, 24_000)[number % 2]
        samples = recording(number, seconds, rate)
        if number % 3 == 0:
            samples = np.stack([samples, 0.5 * samples], axis=1)
        ending = ("wav", "flac")[number // 2 % 2]
        soundfile.write(folder / f"{number}.{ending}", samples, rate)
    return folder
