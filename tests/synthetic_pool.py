"""A pool of recordings that a test makes itself: enough for every prompt, in seconds."""

import csv
import math
from pathlib import Path

import numpy as np
import soundfile

KINDS = {
    "speech/en": 4,
    "sfx/door": 3,
    "sfx/rain": 3,
    "music_stems/vocals": 2,
    "music_stems/drums": 2,
    "music_stems/bass": 2,
    "music_stems/other": 2,
    "music/mix": 2,
}

POOLS = {
    "speech": ["speech/*"],
    "sfx": ["sfx/*", "!sfx/rain"],
    "sfx-mix": ["sfx/rain"],
    "vocals": ["music_stems/vocals"],
    "drums": ["music_stems/drums"],
    "bass": ["music_stems/bass"],
    "other": ["music_stems/other"],
    "music-mix": ["music/mix"],
}


def make_pool(folder: Path) -> Path:
    """Write recordings of both splits and their manifest; give the manifest's path."""
    rows = []
    for number, (kind, count) in enumerate(KINDS.items()):
        category, name = kind.split("/")
        for split in ("train", "eval"):
            for take in range(count):
                rate = (16000, 48000)[take % 2]
                seconds = 1.5 + 0.5 * take
                time = np.arange(round(seconds * rate)) / rate
                pitch = 110.0 * (1 + number) * (1 + 0.1 * take)
                shape = 0.5 + 0.5 * np.sin(2 * math.pi * (1 + number) * time)
                noise = np.random.default_rng(number * 100 + take).standard_normal(len(time))
                samples = 0.2 * shape * np.sin(2 * math.pi * pitch * time) + 0.02 * noise
                path = f"{category}/{split}/{name}/song{take}__{name}.wav"
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(folder / path, samples, rate)
                rows.append(
                    {
                        "path": path, "category": category, "class": name, "split": split,
                        "seconds": f"{seconds:.3f}", "orig_sr": rate, "sample_rate": rate,
                        "speaker": f"{split}{take}" if category == "speech" else "",
                        "licence": "CC0",
                    }
                )  # fmt: skip
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest
