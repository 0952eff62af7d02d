"""What a sound that is taught is mixed with: the user's recordings, or sounds that ship with us."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unbraid.apps.example_clips import files_in, read_clip
from unbraid.apps.shown_sounds import joint_digest
from unbraid.audio.decode import read
from unbraid.data.shelf import ClipShelf
from unbraid.dsp.resample import resample
from unbraid.errors import AudioError, ConfigError, counted
from unbraid.mixing.recipe import Clip
from unbraid.mixing.textures import events, textures
from unbraid.prompts import BACKGROUND, canonical_name

#: Sounds of a folder that nobody asks for.
ANYTHING = BACKGROUND

_ASSETS = Path(__file__).with_name("assets")
_OUR_RECORDINGS = {
    "speech": ("speech-woman", "speech-man"),
    "sfx-mix": ("effects",),
    "drums": ("drums",),
    "bass": ("bass",),
    "other": ("other",),
}
_TEXTURE_S = 8.0


@dataclass(frozen=True, eq=False)
class Backgrounds:
    """Sounds to mix with.

    Attributes:
        clips: Prompt that brings a sound out → its recordings; ``ANYTHING`` for those that no
            prompt is known for.
        description: What they are, for people: the name of the folder, the number of its files,
            and one SHA-256 over them.
    """

    clips: Mapping[str, tuple[Clip, ...]]
    description: str


def our_backgrounds(shelf: ClipShelf) -> Backgrounds:
    """Two talkers, a band, and noises, all of our own making; see ``assets/README.md``."""
    clips: dict[str, tuple[Clip, ...]] = {}
    for prompt, names in _OUR_RECORDINGS.items():
        recordings = {}
        for name in names:
            waveform = read(_ASSETS / f"{name}.flac")
            samples = resample(waveform.samples[:1], waveform.sample_rate, shelf.sample_rate)
            recordings[f"ours/{name}"] = samples[0]
        clips[prompt] = shelf.add_all(recordings)
    for prompt, made in (("sfx-mix", textures), ("sfx", events)):
        sounds = made(_TEXTURE_S, shelf.sample_rate)
        clips[prompt] = clips.get(prompt, ()) + shelf.add_all(
            {f"computed/{name}": samples for name, samples in sounds.items()}
        )
    return Backgrounds(clips, "sounds that ship with unbraid")


def backgrounds_in(folder: Path, prompts: Sequence[str], shelf: ClipShelf) -> Backgrounds:
    """The recordings of a folder.

    Args:
        folder: Recordings in its sub-folders are known by the prompts these are named after;
            those that lie in it directly are just background.
        prompts: What the model knows.
        shelf: Where they are kept.

    Raises:
        ConfigError: If the folder or one of its sub-folders makes no sense.
        AudioError: If nothing usable is found, or a file cannot be read.
    """
    if not folder.is_dir():
        raise ConfigError(f"--background {folder}: there is no such folder.")
    clips = {}
    digests = []
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        prompt = ANYTHING if place == folder else canonical_name(place.name)
        files = files_in(place)
        if not files:
            continue
        if prompt not in (*prompts, ANYTHING):
            raise ConfigError(
                f"{place}: sub-folders of a background are named after the prompts of the model "
                f"({', '.join(prompts)}); rename it, or put its files into {folder} itself."
            )
        read_clips = [read_clip(file, shelf.sample_rate) for file in files]
        digests += [clip.sha256 for clip in read_clips]
        clips[prompt] = tuple(
            shelf.add(str(clip.path), clip.samples, clip.bandwidth_hz)
            for clip in read_clips
            if clip.samples.numel()
        )
    if not any(clips.values()):
        raise AudioError(f"{folder}: no recordings with sound in it; give a folder that has some.")
    # It is passed on with the prompt, and where a folder lies concerns nobody.
    size = counted(len(digests), "file")
    description = f"{folder.resolve().name}: {size}, SHA-256 {joint_digest(digests)}"
    return Backgrounds({prompt: some for prompt, some in clips.items() if some}, description)
