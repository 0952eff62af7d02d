"""The files that the commands of the site name, cut from the sounds that ship with unbraid."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

import numpy as np
import soundfile

from media_samples import Track, write_media

RATE = 48_000
_SECONDS = 2.0


def shipped(name: str, start_s: float = 0.0, seconds: float = _SECONDS) -> np.ndarray:
    """A stretch of a sound of the demo, ``[time]``."""
    asset = resources.files("unbraid.apps") / "assets" / f"{name}.flac"
    with resources.as_file(asset) as path:
        samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    return samples[round(start_s * RATE) : round((start_s + seconds) * RATE)]


def make_material(folder: Path) -> None:
    """Write all of it: recordings, clips, songs with stems, stems of another tool."""
    woman, man = shipped("speech-woman"), shipped("speech-man")
    effects, knocks = shipped("effects"), shipped("effects", 2.5)
    drums, bass, other = shipped("drums"), shipped("bass"), shipped("other")
    scene = 0.4 * (woman + effects + drums + bass + other)
    stereo = np.stack([scene, 0.8 * scene + 0.1 * man], axis=1)
    band = np.stack([drums + other, drums + bass], axis=1) / 3
    for name, samples in {
        "film.wav": scene,
        "theirs.wav": stereo,
        "eight-hours.flac": stereo,
        "talk.flac": 0.5 * (woman + man),
        "street.wav": 0.5 * (knocks + man),
        "song.mp3": band,
        "dog.wav": knocks,
        "bird.wav": shipped("effects", 9.0),
        "recordings/monday.wav": effects,
        "place/morning.wav": other,
        "recordings/trip/tuesday.flac": stereo,
    }.items():
        _write(folder / name, samples)
    write_media(folder / "film.mkv", Track(stereo.T, "flac"), video_s=_SECONDS)
    write_media(folder / "rain.mp4", Track(effects[None], "aac"), video_s=_SECONDS)
    for number, day in enumerate(("wednesday", "thursday", "friday")):
        talk = shipped("speech-man", 0.5 * number, 5.0) + shipped("effects", 2.0 * number, 5.0)
        _write(folder / "recordings" / f"{day}.wav", 0.4 * talk)
    for number in range(3):
        _write(folder / "clips" / f"clip{number}.wav", shipped("effects", 2.0 + 3 * number, 1.0))
        for kind, name in (("rain", "effects"), ("drum", "drums")):
            clip = shipped(name, 2.0 * number, 1.0)
            _write(folder / "sounds" / kind / f"{number}.wav", clip)
    for number in range(2):
        parts = {"vocals": "speech-woman", "drums": "drums", "bass": "bass", "other": "other"}
        for stem, name in parts.items():
            samples = 0.5 * shipped(name, 1.5 * number)
            _write(folder / "songs" / f"song{number}" / f"{stem}.wav", samples)
            # Another tool, that lets a tenth of the drums through.
            leak = 0.05 * shipped("drums", 1.5 * number)
            _write(
                folder / "stems-of-another-tool" / f"song{number}" / f"{stem}.wav", samples + leak
            )
    for name, samples in {"dialog": woman, "fx": effects, "click": 0.1 * knocks}.items():
        _write(folder / "film-stems" / f"{name}.wav", samples)
    (folder / "list.csv").write_text("path,name\nfilm.wav,a film\ntalk.flac,a talk\n")
    with (folder / "films.csv").open("w", newline="") as file:
        names = ("dialog", "fx", "click")
        rows = csv.writer(file)
        rows.writerow(["name", *names])
        rows.writerow(["film", *(f"film-stems/{name}.wav" for name in names)])
    _make_prompt(folder / "siren.prompt.safetensors")


def _write(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE)


def _make_prompt(path: Path) -> None:
    from unbraid.checkpoints import (
        PromptFile,
        load_bundle,
        model_fingerprint,
        resolve_model,
        save_prompt,
    )

    model = resolve_model("mini")
    vectors = load_bundle(model).model.prompts.weight[:1].detach().clone()
    save_prompt(PromptFile("siren", vectors, model_fingerprint(model), {}), path)
