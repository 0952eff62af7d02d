"""The clips that somebody teaches a sound with: read, trimmed, and looked at with doubt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.odd_clips import doubts
from unbraid.audio import MEDIA_EXTENSIONS, probe, read_blocks
from unbraid.dsp.resample import resample
from unbraid.errors import AudioError, in_brief

#: Of longer clips the beginning is taken.
LONGEST_S = 60.0
#: Less sound than this in all teaches nothing.
LEAST_SOUND_S = 0.2

_MARGIN_S = 0.05


@dataclass(frozen=True)
class ReadingRule:
    """What is read of a clip; as it is, what a prompt is taught from.

    Attributes:
        longest_s: Of longer clips the beginning is taken.
        silence_dbfs: Stretches below this level are silent.
        silence_below_loudest_db: So are those that are so far below the loudest one.
        stretch_s: Length of a stretch.
        keeps_pauses: Whether silence is cut off at the ends only.
    """

    longest_s: float = LONGEST_S
    silence_dbfs: float = -65.0
    silence_below_loudest_db: float = 45.0
    stretch_s: float = 0.02
    keeps_pauses: bool = True


_TO_TEACH = ReadingRule()


@dataclass(frozen=True, eq=False)
class ExampleClip:
    """A clip in which a sound is heard alone.

    Attributes:
        path: Its file.
        sha256: Of the file, in hexadecimal digits.
        samples: Mono, without silence as the rule has it.
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


def digest_of_clip(path: str | Path) -> str:
    """SHA-256 of a clip, in hexadecimal digits.

    Raises:
        AudioError: If it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}).") from error


def read_clip(path: Path, sample_rate: int, rule: ReadingRule = _TO_TEACH) -> ExampleClip:
    """Read the loudest channel of a recording, without silence.

    Args:
        path: The recording, or a video.
        sample_rate: What to bring it to, in Hz.
        rule: How much is read, and what is silence.

    Returns:
        The clip; without samples if it is silent.

    Raises:
        AudioError: If it cannot be read, or holds samples that are no finite numbers.
    """
    info = probe(path)
    most = rule.longest_s * info.sample_rate
    blocks: list[Tensor] = []
    length = 0
    for block in read_blocks(path):
        blocks.append(block)
        length += block.shape[1]
        if length > most:
            blocks[-1] = block[:, : block.shape[1] - (length - round(most))]
            break
    samples = torch.cat(blocks, dim=1) if blocks else torch.zeros(1, 0)
    loudest = samples[int(samples.square().sum(dim=1).argmax())]
    mono = resample(loudest[None], info.sample_rate, sample_rate)[0]
    return ExampleClip(
        path=path,
        sha256=digest_of_clip(path),
        samples=_without_silence(mono, sample_rate, rule),
        bandwidth_hz=info.sample_rate / 2,
        is_cut=length > most,
    )


def _stretch(sample_rate: int, rule: ReadingRule) -> int:
    return max(1, round(rule.stretch_s * sample_rate))


def _is_sound(samples: Float[Tensor, "time"], sample_rate: int, rule: ReadingRule) -> Tensor:
    """Of every stretch, whether it is none of silence."""
    if not samples.numel():
        return torch.zeros(0, dtype=torch.bool)
    stretch = _stretch(sample_rate, rule)
    padded = torch.nn.functional.pad(samples, (0, -samples.numel() % stretch))
    levels = 10.0 * (padded.unflatten(0, (-1, stretch)).square().mean(dim=1) + 1e-12).log10()
    return levels > max(rule.silence_dbfs, float(levels.max()) - rule.silence_below_loudest_db)


def _without_silence(
    samples: Float[Tensor, "time"], sample_rate: int, rule: ReadingRule
) -> Float[Tensor, "_"]:
    is_sound = _is_sound(samples, sample_rate, rule)
    places = is_sound.nonzero().flatten()
    if not places.numel():
        return samples[:0]
    stretch, margin = _stretch(sample_rate, rule), round(_MARGIN_S * sample_rate)
    if not rule.keeps_pauses:
        return samples[is_sound.repeat_interleave(stretch)[: samples.numel()]]
    first = max(0, int(places[0]) * stretch - margin)
    return samples[first : (int(places[-1]) + 1) * stretch + margin].clone()


def sound_s(clip: ExampleClip, sample_rate: int) -> float:
    """Seconds of a clip that are no silence, in steps of 20 ms."""
    # The last stretch may be a short one.
    parts = clip.samples.split(_stretch(sample_rate, _TO_TEACH)) if clip.samples.numel() else ()
    sounding = _is_sound(clip.samples, sample_rate, _TO_TEACH).tolist()
    num_samples = sum(len(part) for part, is_it in zip(parts, sounding, strict=True) if is_it)
    return num_samples / sample_rate
