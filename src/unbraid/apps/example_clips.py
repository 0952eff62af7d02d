"""The clips that somebody teaches a sound with: read, trimmed, and looked at with doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.odd_clips import doubts
from unbraid.apps.queries import digest_of_clip
from unbraid.audio import MEDIA_EXTENSIONS, probe, read_blocks
from unbraid.dsp.resample import resample
from unbraid.errors import AudioError, in_brief

#: Of longer clips the beginning is taken.
LONGEST_S = 60.0
#: Less sound than this in all teaches nothing.
LEAST_SOUND_S = 0.2

# Silence at the ends: below this level, and this far below the loudest stretch.
_SILENCE_DBFS = -65.0
_SILENCE_BELOW_LOUDEST_DB = 45.0
_STRETCH_S = 0.02
_MARGIN_S = 0.05


@dataclass(frozen=True, eq=False)
class ExampleClip:
    """A clip in which a sound is heard alone.

    Attributes:
        path: Its file.
        sha256: Of the file, in hexadecimal digits.
        samples: Mono, without the silence at both ends.
        bandwidth_hz: The highest frequency that the file can hold.
        is_cut: Whether the file is longer than what was read of it.
    """

    path: Path
    sha256: str
    samples: Float[Tensor, "time"]
    bandwidth_hz: float
    is_cut: bool = False


@dataclass(frozen=True, eq=False)
class ExampleClips:
    """All clips of one sound.

    Attributes:
        clips: Those that can be used, in the order in which they were named.
        sample_rate: Of all of them, in Hz.
        warnings: What is odd about them, a sentence each.
    """

    clips: tuple[ExampleClip, ...]
    sample_rate: int
    warnings: tuple[str, ...]

    def seconds(self, clip: ExampleClip) -> float:
        """Length of a clip."""
        return clip.samples.numel() / self.sample_rate


def read_examples(paths: Sequence[Path], sample_rate: int) -> ExampleClips:
    """Read the clips of one sound.

    The loudest channel is taken, since a mean of channels can cancel. Silent clips, those that
    cannot be read, and the same file twice are left out with a warning.

    Args:
        paths: Files, or folders whose recordings and videos are taken.
        sample_rate: What to bring them to, in Hz.

    Raises:
        AudioError: If nothing is found, no clip can be read, all that can are silent, or they
            hold next to no sound.
    """
    files = [file for path in paths for file in files_in(path)]
    if not files:
        raise AudioError(
            f"{in_brief(map(str, paths)) or 'no clips'}: no recordings there; give files, or a "
            "folder with some, in which the sound is heard alone."
        )
    clips: list[ExampleClip] = []
    warnings = []
    unreadable: list[AudioError] = []
    seen: dict[str, Path] = {}
    for file in files:
        try:
            clip = read_clip(file, sample_rate)
        except AudioError as error:
            unreadable.append(error)
            continue
        if clip.sha256 in seen:
            warnings.append(f"{file} is the same file as {seen[clip.sha256]}; it counts once.")
            continue
        seen[clip.sha256] = file
        if not clip.samples.numel():
            warnings.append(f"{file} is silent and was left out.")
            continue
        if clip.is_cut:
            warnings.append(f"{file}: only the first {LONGEST_S:.0f} s are used.")
        clips.append(clip)
    if not clips and unreadable:
        raise unreadable[0]
    warnings += [f"{error} It was left out." for error in unreadable]
    total_s = sum(sound_s(clip, sample_rate) for clip in clips)
    if not clips:
        raise AudioError(
            f"{in_brief(map(str, files))}: silent; give clips in which the sound is heard."
        )
    if total_s < LEAST_SOUND_S:
        raise AudioError(
            f"{in_brief(str(clip.path) for clip in clips)}: together {1000 * total_s:.0f} ms of "
            f"sound, too little to learn from; give at least {LEAST_SOUND_S:g} s, better five "
            "clips of a second or more."
        )
    warnings += doubts([clip.path for clip in clips], [clip.samples for clip in clips], sample_rate)
    return ExampleClips(tuple(clips), sample_rate, tuple(warnings))


def files_in(path: Path) -> list[Path]:
    """A file itself, or the recordings and videos that lie in a folder, by name."""
    if not path.is_dir():
        return [path]
    return sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in MEDIA_EXTENSIONS and not file.name.startswith(".")
    )


def read_clip(path: Path, sample_rate: int) -> ExampleClip:
    """Read at most ``LONGEST_S`` of a recording and cut the silence off its ends.

    Raises:
        AudioError: If it cannot be read, or holds samples that are no finite numbers.
    """
    info = probe(path)
    most = round(LONGEST_S * info.sample_rate)
    blocks: list[Tensor] = []
    length = 0
    for block in read_blocks(path):
        blocks.append(block[:, : most - length])
        length += block.shape[1]
        if length > most:
            break
    samples = torch.cat(blocks, dim=1) if blocks else torch.zeros(1, 0)
    loudest = samples[int(samples.square().sum(dim=1).argmax())]
    mono = resample(loudest[None], info.sample_rate, sample_rate)[0]
    return ExampleClip(
        path=path,
        sha256=digest_of_clip(path),
        samples=_without_silent_ends(mono, sample_rate),
        bandwidth_hz=info.sample_rate / 2,
        is_cut=length > most,
    )


def _stretches_db(samples: Float[Tensor, "time"], sample_rate: int) -> Float[Tensor, "stretch"]:
    stretch = max(1, round(_STRETCH_S * sample_rate))
    padded = torch.nn.functional.pad(samples, (0, -samples.numel() % stretch))
    return 10.0 * (padded.unflatten(0, (-1, stretch)).square().mean(dim=1) + 1e-12).log10()


def _is_sound(samples: Float[Tensor, "time"], sample_rate: int) -> Tensor:
    if not samples.numel():
        return torch.zeros(0, dtype=torch.bool)
    levels = _stretches_db(samples, sample_rate)
    return levels > max(_SILENCE_DBFS, float(levels.max()) - _SILENCE_BELOW_LOUDEST_DB)


def _without_silent_ends(samples: Float[Tensor, "time"], sample_rate: int) -> Tensor:
    places = _is_sound(samples, sample_rate).nonzero().flatten()
    if not places.numel():
        return samples[:0]
    stretch, margin = max(1, round(_STRETCH_S * sample_rate)), round(_MARGIN_S * sample_rate)
    first = max(0, int(places[0]) * stretch - margin)
    return samples[first : (int(places[-1]) + 1) * stretch + margin].clone()


def sound_s(clip: ExampleClip, sample_rate: int) -> float:
    """Seconds of a clip that are no silence, in steps of 20 ms."""
    stretch = max(1, round(_STRETCH_S * sample_rate))
    # The last stretch may be a short one.
    lengths = [len(part) for part in clip.samples.split(stretch)] if clip.samples.numel() else []
    sounding = _is_sound(clip.samples, sample_rate).tolist()
    return (
        sum(length for length, is_it in zip(lengths, sounding, strict=True) if is_it) / sample_rate
    )
