"""Mixtures to measure on, in memory, and how a benchmark wants them treated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.audio import read
from unbraid.data.corpora.base import MixtureFiles, Track
from unbraid.dsp.resample import resample
from unbraid.errors import AudioError, DataError
from unbraid.types import Waveform


@dataclass(frozen=True, eq=False)
class Item:
    """A mixture whose sources are known.

    Attributes:
        name: Unique in its benchmark.
        mixture: What is to be separated.
        references: Its sources, with the channels and the length of the mixture; they need
            not add up to it.
        prompts: What is asked for, one per reference.
        part: The part of the benchmark that it belongs to; may be empty.
        group: What several items belong to, such as a song; empty for nothing.
    """

    name: str
    mixture: Waveform
    references: Float[Tensor, "source channel time"]
    prompts: tuple[str, ...]
    part: str = ""
    group: str = ""


@dataclass(frozen=True)
class Protocol:
    """How the mixtures of a benchmark are separated and scored.

    Attributes:
        chunks: ``whole`` lets the model hear a mixture in one piece, ``fixed`` in chunks of
            ``segment_s`` that share ``overlap_s`` and are averaged, ``model`` as suits it.
        segment_s: Length of fixed chunks; the last one is filled up with zeros.
        overlap_s: How much fixed chunks share.
        channels: ``first`` drops all channels but one, ``mono`` takes their mean, ``each``
            takes every channel for a mixture of its own, ``all`` keeps them together.
        sample_rate: Mixture and references are brought to this rate before; None for theirs.
        duration_s: Mixtures are cut, or filled up with zeros, to this length; None for theirs.
        pieces_s: Mixtures are cut into pieces of this length, each an item of its own, and a
            shorter rest is dropped; None for whole mixtures.
        single_prompt: Ask for each distinct prompt by itself.
        wiener: Pass the estimates of a mixture through a Wiener filter together.
        measures: What is measured, by name; the first decides the order inside equal prompts
            and leads the table.
        ceiling_db: Values in dB above this count as this; None for no ceiling of its own.
        summary: How one number comes from many. ``mean``: over a mixture's sources, then over
            mixtures. ``mean-of-sources``: over all sources at once. ``median``: over the
            sources of each prompt. ``median-of-groups``: over a group's mixtures, then over
            groups, for each prompt. After the last two, one number for everything is the
            median over all sources.
        medians: Measures for which that does not hold: the median over the sources of each
            prompt, then the mean over prompts.
        oracle_stft: Window and hop of the oracles' masks, in samples; None for what suits
            the rate.
    """

    chunks: Literal["whole", "fixed", "model"] = "whole"
    segment_s: float = 0.0
    overlap_s: float = 0.0
    channels: Literal["first", "mono", "each", "all"] = "first"
    sample_rate: int | None = None
    duration_s: float | None = None
    pieces_s: float | None = None
    single_prompt: bool = False
    wiener: bool = False
    measures: tuple[str, ...] = ("si_sdr_db",)
    ceiling_db: float | None = None
    summary: Literal["mean", "mean-of-sources", "median", "median-of-groups"] = "mean"
    medians: tuple[str, ...] = ()
    oracle_stft: tuple[int, int] | None = None


def items_of(root: Path, mixtures: Iterable[MixtureFiles], protocol: Protocol) -> Iterator[Item]:
    """Read mixtures from files, treated as a protocol wants them.

    Args:
        root: The folder that their paths are relative to.
        mixtures: What to read.
        protocol: Which channels, rate, length and pieces.

    Raises:
        DataError: If a file is missing or cannot be read, or the tracks of a mixture differ in
            rate, channels or length.
    """
    for files in mixtures:
        item = _read(root, files)
        for one in _by_channels(_at_rate(item, protocol.sample_rate), protocol.channels):
            fitted = _fitted(one, protocol.duration_s)
            yield from _pieces(fitted, protocol.pieces_s)


def _read(root: Path, files: MixtureFiles) -> Item:
    references = []
    first: tuple[Path, Waveform] | None = None
    wanted = [reference.add + reference.subtract for reference in files.references]
    tracks = [track for each in wanted for track in each] + [files.mixture] * bool(files.mixture)
    if not any(wanted):
        raise DataError(f"{root}: the mixture {files.name} has no sources.")
    waveforms: dict[Track, Waveform] = {}
    for track in tracks:
        assert track is not None, "the mixture is among the tracks only where there is one"
        waveforms[track] = _read_track(root, track)
        if first is None:
            first = (root / track.path, waveforms[track])
        _check_alike(root / track.path, waveforms[track], *first, is_ragged=files.is_ragged)
    assert first is not None, "there is at least one track"
    length = min(waveform.num_samples for waveform in waveforms.values())
    channels = max(waveform.num_channels for waveform in waveforms.values())
    read_tracks = {
        track: waveform.samples[:, :length].expand(channels, -1)
        for track, waveform in waveforms.items()
    }
    silence = torch.zeros(channels, length)
    for reference in files.references:
        total = silence
        for track in reference.add:
            total = total + read_tracks[track]
        for track in reference.subtract:
            total = total - read_tracks[track]
        references.append(total)
    sources = torch.stack(references)
    mixture = sources.sum(dim=0) if files.mixture is None else read_tracks[files.mixture]
    return Item(
        name=files.name,
        mixture=Waveform(mixture, first[1].sample_rate),
        references=sources,
        prompts=tuple(reference.prompt for reference in files.references),
        group=files.group,
    )


def _read_track(root: Path, track: Track) -> Waveform:
    try:
        return read(root / track.path, track.track)
    except AudioError as error:
        raise DataError(str(error)) from error


def _check_alike(
    path: Path, waveform: Waveform, other_path: Path, other: Waveform, *, is_ragged: bool
) -> None:
    facts = [("Hz", waveform.sample_rate, other.sample_rate)]
    if not (is_ragged and {waveform.num_channels, other.num_channels} == {1, 2}):
        facts.append(("channels", waveform.num_channels, other.num_channels))
    if not is_ragged:
        facts.append(("samples", waveform.num_samples, other.num_samples))
    for what, has, expected in facts:
        if has != expected:
            raise DataError(
                f"{path}: {has} {what}, but {other_path} has {expected}; a mixture and its stems "
                "must be alike in rate, channels and length."
            )


def _at_rate(item: Item, sample_rate: int | None) -> Item:
    rate = item.mixture.sample_rate
    if sample_rate in (None, rate):
        return item
    assert sample_rate is not None, "None was handled above"
    mixture = resample(item.mixture.samples, rate, sample_rate)
    references = resample(item.references.flatten(0, 1), rate, sample_rate)
    return replace(
        item,
        mixture=Waveform(mixture, sample_rate),
        references=references.unflatten(0, item.references.shape[:2]),
    )


def _by_channels(item: Item, channels: str) -> Iterator[Item]:
    if channels == "all" or item.mixture.num_channels == 1:
        yield item
    elif channels == "mono":
        yield _with_samples(
            item,
            item.mixture.samples.mean(dim=0, keepdim=True),
            item.references.mean(dim=1, keepdim=True),
        )
    elif channels == "first":
        yield _with_samples(item, item.mixture.samples[:1], item.references[:, :1])
    else:
        for channel in range(item.mixture.num_channels):
            one = slice(channel, channel + 1)
            part = _with_samples(item, item.mixture.samples[one], item.references[:, one])
            yield replace(
                part, name=f"{item.name} (channel {channel + 1})", group=item.group or item.name
            )


def _fitted(item: Item, duration_s: float | None) -> Item:
    if duration_s is None:
        return item
    missing = round(duration_s * item.mixture.sample_rate) - item.mixture.num_samples
    return _with_samples(
        item,
        torch.nn.functional.pad(item.mixture.samples, (0, missing)),
        torch.nn.functional.pad(item.references, (0, missing)),
    )


def _pieces(item: Item, pieces_s: float | None) -> Iterator[Item]:
    if pieces_s is None:
        yield item
        return
    length = round(pieces_s * item.mixture.sample_rate)
    for number in range(item.mixture.num_samples // length):
        stretch = slice(number * length, (number + 1) * length)
        piece = _with_samples(item, item.mixture.samples[:, stretch], item.references[..., stretch])
        yield replace(
            piece, name=f"{item.name} @ {number * pieces_s:g} s", group=item.group or item.name
        )


def _with_samples(
    item: Item,
    mixture: Float[Tensor, "channel time"],
    references: Float[Tensor, "source channel time"],
) -> Item:
    return replace(item, mixture=Waveform(mixture, item.mixture.sample_rate), references=references)
