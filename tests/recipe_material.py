"""What the recipes that ship ask for: folders of corpora as `unbraid data prepare` leaves them.

The corpora are made up, a few sounds of a second or two each; their lists have the names, kinds and
splits of the real ones.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from unbraid.data.corpora.base import MixtureFiles, ReferenceFiles, Track
from unbraid.data.manifest import Recording, format_manifest
from unbraid.data.mixture_lists import format_mixtures

SECONDS = 1.5

#: Corpus → kinds of its recordings, rate, channels, and the splits it has.
RECORDINGS: dict[str, tuple[Sequence[str], int, int, Sequence[str]]] = {
    "vctk": (["speech/vctk"], 48000, 1, ["train", "valid", "test"]),
    "wsj0": (["speech/wsj0"], 16000, 1, ["train", "valid", "test"]),
    "librivox-urgent": (["speech/librivox_urgent"], 24000, 1, ["train", "valid"]),
    "fsd50k": (["sfx/dog", "sfx/wind", "sfx/ambience_rain"], 44100, 1, ["train", "valid"]),
    "wham": (["sfx/ambience_wham"], 48000, 2, ["train", "valid", "test"]),
    "demand": (["sfx/ambience_dkitchen"], 48000, 1, ["train", "test"]),
    "musdb18-hq": (
        [f"music_stems/{stem}" for stem in ("vocals", "drums", "bass", "other")],
        44100, 2, ["train", "valid", "test"],
    ),
    "moisesdb": (
        [f"music_stems/{stem}" for stem in ("vocals", "drums", "bass", "other")],
        44100, 2, ["train", "valid", "test"],
    ),
    "fma": (["music/mix"], 44100, 2, ["train", "valid", "test"]),
    "dns": (["speech/dns", "sfx/ambience_dns"], 16000, 1, ["train", "valid"]),
}  # fmt: skip

_SPEAKERS = ("speech", "speech")
_STEMS = ("vocals", "drums", "bass", "other")

#: Corpus → splits, beginning of names, rate, channels, prompts, and whether mixtures are stored.
MIXTURES: dict[str, tuple[Sequence[str], str, int, int, Sequence[Sequence[str]], bool]] = {
    "vctk-demand": (["valid"], "", 48000, 1, [("speech", "sfx-mix")], False),
    "musdb18-hq": (["valid", "test"], "", 44100, 2, [_STEMS], False),
    "dnr-v2": (["train", "valid"], "", 44100, 1, [("speech", "music-mix", "sfx-mix")], False),
    "wham": (["cv"], "wav16k/max/cv/", 16000, 1, [(*_SPEAKERS, "sfx-mix")], False),
    "fuss": (
        ["train", "validation"], "", 16000, 1,
        [("sfx",) * number for number in (1, 2, 3, 4)], False,
    ),
    "wsj0-2mix": (["tr", "cv"], "wav8k/min/", 8000, 1, [_SPEAKERS], True),
    "whamr": (["tr", "cv"], "wav8k/min/", 8000, 1, [_SPEAKERS], True),
    "libri2mix": (["train-360", "dev"], "wav8k/min/", 8000, 1, [_SPEAKERS], True),
}  # fmt: skip


def make_material(root: Path) -> Path:
    """All corpora, each in a folder of its name."""
    for number, corpus in enumerate(RECORDINGS):
        (root / corpus).mkdir(parents=True, exist_ok=True)
        rows = list(_recordings(root / corpus, corpus, 1000 * number))
        (root / corpus / "unbraid-manifest.csv").write_text(format_manifest(rows))
    for number, corpus in enumerate(MIXTURES):
        (root / corpus).mkdir(parents=True, exist_ok=True)
        entries = list(_mixtures(root / corpus, corpus, 1000 * number + 500))
        (root / corpus / "unbraid-mixtures.jsonl").write_text(format_mixtures(entries))
    return root


def _recordings(folder: Path, corpus: str, seed: int) -> Iterator[Recording]:
    kinds, rate, channels, splits = RECORDINGS[corpus]
    for kind in kinds:
        for split in splits:
            for take in range(3):
                path = f"{kind.replace('/', '_')}_{split}_{take}.wav"
                seed += 1
                _write(folder / path, seed, rate, channels)
                is_speech = kind.startswith("speech/")
                yield Recording(
                    path, kind, split, SECONDS, rate / 2,
                    f"{split}{take}" if is_speech else "", "CC0", rate,
                    song=f"{split}{take}" if kind.startswith("music_stems/") else "",
                )  # fmt: skip


def _mixtures(folder: Path, corpus: str, seed: int) -> Iterator[MixtureFiles]:
    splits, prefix, rate, channels, kinds, is_stored = MIXTURES[corpus]
    for split in splits:
        for prompts in kinds:
            for take in range(2):
                name = f"{prefix}{split}-{len(prompts)}-{take}"
                tracks = []
                total = np.zeros((round(SECONDS * rate), channels))
                for place in range(len(prompts)):
                    seed += 1
                    path = f"{name.replace('/', '_')}_s{place}.wav"
                    total += _write(folder / path, seed, rate, channels)
                    tracks.append(Track(path))
                mixture = None
                if is_stored:
                    mixture = Track(f"{name.replace('/', '_')}_mix.wav")
                    soundfile.write(folder / mixture.path, total, rate)
                references = tuple(
                    ReferenceFiles(prompt, (track,))
                    for prompt, track in zip(prompts, tracks, strict=True)
                )
                yield MixtureFiles(name, split, references, mixture)


def _write(path: Path, seed: int, rate: int, channels: int) -> np.ndarray:
    """A tone that comes and goes, with some noise, different in every channel."""
    time = np.arange(round(SECONDS * rate)) / rate
    rng = np.random.default_rng(seed)
    shape = 0.5 + 0.5 * np.sin(2 * math.pi * (1 + seed % 5) * time)
    tone = 0.1 * shape * np.sin(2 * math.pi * (110.0 + 7.0 * (seed % 300)) * time)
    samples = tone[:, None] + 0.01 * rng.standard_normal((len(time), channels))
    soundfile.write(path, samples, rate)
    return samples
