"""The separator: blocks of any audio and prompt names in, one source per prompt out."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.dsp.resample import Resampler
from unbraid.errors import AudioError, Cancelled, ConfigError
from unbraid.models.waveform import WaveformModel
from unbraid.separation.chunking import Chunk, cut, make_plan
from unbraid.separation.computing import RowSeparator
from unbraid.separation.finishing import Finisher
from unbraid.separation.settings import SeparationConfig
from unbraid.separation.stereo import ChannelPlan, plan_channels, plan_joint_channels
from unbraid.separation.stitching import Stitcher
from unbraid.types import SeparatedBlock, Waveform, equal_prompt_groups


class StreamSeparator:
    """Separates streams of any length, rate and channel count with one model.

    Sources with equal prompts keep their places across chunks and channels. What comes out
    has the rate, the channels and exactly the samples of what went in. Everything that
    belongs to one recording lives in the iterator that ``stream`` returns, so several
    threads may use one separator at the same time.

    Args:
        model: The model; it is put into evaluation mode and moved to ``device``. Weights that
            change later are not heard; prompts that change are.
        config: How to separate.
        device: Where to compute.

    Attributes:
        config: How it separates, with what was left to the model filled in.

    Raises:
        ConfigError: If the segment is not positive or not longer than the overlap, or a way to
            put channels together is chosen for a model that hears them together.
    """

    def __init__(
        self,
        model: WaveformModel,
        config: SeparationConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        config = config or SeparationConfig()
        segment_s, overlap_s = _lengths(config, model)
        self._hears_together = model.network.num_channels > 1
        if self._hears_together and config.stereo is not None:
            raise ConfigError(
                f"stereo {config.stereo!r}: this model hears {model.network.num_channels} channels "
                "together, there is nothing to choose; leave it out."
            )
        self._stereo = config.stereo or model.config.stereo
        self.config = replace(config, segment_s=segment_s, overlap_s=overlap_s, stereo=self._stereo)
        self.device = torch.device(device)
        self.model = model.eval().to(self.device)
        self._rows = RowSeparator(self.model, self.device, config.precision)
        self._plan = make_plan(segment_s, overlap_s, model.sample_rate, config.join)

    def finishing(
        self, *, gate: bool, consistency: Literal["off", "project"] = "off"
    ) -> StreamSeparator:
        """A separator that differs in these settings alone; it shares the model with this one.

        Args:
            gate: As in ``SeparationConfig``.
            consistency: The same.

        Raises:
            ConfigError: For a choice that does not exist.
        """
        twin = copy.copy(self)
        twin.config = replace(self.config, gate=gate, consistency=consistency)
        return twin

    def stream(
        self,
        blocks: Iterable[Float[Tensor, "channel _"]],
        sample_rate: int,
        prompts: Sequence[str],
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[SeparatedBlock]:
        """Separate a recording that comes in blocks, in memory that does not grow.

        Args:
            blocks: Consecutive samples in blocks of any size, all with the same channels.
            sample_rate: Of the blocks, in Hz.
            prompts: One name per wanted source; names may repeat.
            is_cancelled: Asked before each piece of work; True stops it.

        Returns:
            Finished samples, block by block; together exactly as many as came in.

        Raises:
            PromptError: If a prompt is unknown or none is given; before a block is read.
            AudioError: If a sample is not a finite number, with its time.
            ConfigError: If the blocks differ in their channels, have none, or the rate is
                not positive.
            Cancelled: If ``is_cancelled`` said so.
        """
        names = self.model.prompts.resolve(prompts)
        indices = self.model.prompts.indices(prompts).to(self.device)
        to_model = Resampler(sample_rate, self.model.sample_rate)
        to_input = Resampler(self.model.sample_rate, sample_rate)
        mixture = _Mixture(blocks, sample_rate)
        finisher = Finisher(self.config, self.model.config.presence, names, sample_rate)
        return self._stream(mixture, names, indices, to_model, to_input, finisher, is_cancelled)

    def _stream(
        self,
        mixture: _Mixture,
        names: tuple[str, ...],
        indices: Int[Tensor, "source"],
        to_model: Resampler,
        to_input: Resampler,
        finisher: Finisher,
        is_cancelled: Callable[[], bool],
    ) -> Iterator[SeparatedBlock]:
        stitcher = Stitcher(
            self._plan,
            names,
            sample_rate=self.model.sample_rate,
            channels_agree=self._hears_together or self._stereo != "channels",
        )
        chunks = cut(_resampled(mixture, to_model), self._plan)
        for chunk, estimates in self._separated(chunks, indices, is_cancelled):
            finished = stitcher.add(estimates, chunk)
            # Resampling works on channels: sources and channels become one axis.
            rows = to_input.push(finished.flatten(0, 1))
            if chunk.is_last and (tail := to_input.finish()) is not None:
                rows = torch.cat([rows, tail], dim=-1)
            if chunk.is_last:  # the way there and back may round the length up
                rows = rows[:, : mixture.num_waiting]
            sources = rows.unflatten(0, finished.shape[:2])
            taken = mixture.take(rows.shape[-1])
            block = finisher.push(taken, sources, is_last=chunk.is_last)
            if block.num_samples or block.presence.numel():
                yield block
        assert mixture.num_waiting == 0, "fewer samples came out than went in"

    def _separated(
        self,
        chunks: Iterable[Chunk],
        indices: Int[Tensor, "source"],
        is_cancelled: Callable[[], bool],
    ) -> Iterator[tuple[Chunk, Float[Tensor, "source channel time"]]]:
        groups = equal_prompt_groups(indices.tolist())
        for together in _grouped(chunks, self._rows.rows_at_once):
            plans = [self._channel_plan(self._padded(chunk.samples), groups) for chunk in together]
            if is_cancelled():  # also where all is silent and no row is left
                raise Cancelled("the separation was cancelled.")
            rows = [row for plan in plans for row in plan.rows]
            estimates = iter(self._rows.separate(rows, indices, is_cancelled))
            for chunk, plan in zip(together, plans, strict=True):
                combined = plan.combine(list(islice(estimates, len(plan.rows))))
                yield chunk, combined[..., : chunk.samples.shape[1]]

    def _channel_plan(
        self, samples: Float[Tensor, "channel time"], groups: Sequence[Sequence[int]]
    ) -> ChannelPlan:
        network = self.model.network
        if self._hears_together:
            num_sources = sum(len(group) for group in groups)
            return plan_joint_channels(samples, network.num_channels, num_sources)
        return plan_channels(samples, self._stereo, groups, self.model.config.stft)

    def _padded(self, samples: Float[Tensor, "channel _"]) -> Float[Tensor, "channel time"]:
        missing = self._plan.segment - samples.shape[1] if self._plan.join == "mean" else 0
        return torch.nn.functional.pad(samples, (0, missing))


def _grouped(chunks: Iterable[Chunk], num_rows: int) -> Iterator[list[Chunk]]:
    """Chunks with as many channels in all, or all that are left."""
    group: list[Chunk] = []
    for chunk in chunks:
        group.append(chunk)
        if sum(len(member.samples) for member in group) >= num_rows:
            yield group
            group = []
    if group:
        yield group


class _Mixture:
    """The blocks of an input: checked, passed on, and kept until their sources are finished.

    The separator is ahead by a chunk or two, so no more than that is kept.
    """

    def __init__(self, blocks: Iterable[Float[Tensor, "channel _"]], sample_rate: int) -> None:
        self._blocks = blocks
        self._sample_rate = sample_rate
        self._kept: deque[Tensor] = deque()
        self._num_channels = 0
        self._num_seen = 0
        self.num_waiting = 0

    def __iter__(self) -> Iterator[Float[Tensor, "channel _"]]:
        for block in self._blocks:
            channels = self._num_channels
            if block.shape[0] == 0 or block.shape[0] != (channels or block.shape[0]):
                raise ConfigError(
                    f"every block must have the same channels, at least one; after blocks of "
                    f"{channels} came one of {block.shape[0]}."
                )
            self._num_channels = block.shape[0]
            finite = torch.isfinite(block).all(dim=0)
            if not bool(finite.all()):
                position = self._num_seen + int((~finite).float().argmax())
                raise AudioError(
                    f"the sample at {position / self._sample_rate:.3f} s is not a finite number; "
                    "repair or export the audio again."
                )
            self._kept.append(block)
            self._num_seen += block.shape[1]
            self.num_waiting += block.shape[1]
            yield block

    def take(self, num_samples: int) -> Float[Tensor, "channel time"]:
        """The next samples, which must have been passed on already."""
        parts = [torch.zeros(self._num_channels, 0)]
        missing = num_samples
        while missing > 0:
            block = self._kept.popleft()
            if block.shape[-1] > missing:
                self._kept.appendleft(block[:, missing:])
                block = block[:, :missing]
            parts.append(block)
            missing -= block.shape[-1]
        self.num_waiting -= num_samples
        return torch.cat(parts, dim=-1)


def _resampled(
    blocks: Iterable[Float[Tensor, "channel _"]], resampler: Resampler
) -> Iterator[Float[Tensor, "channel _"]]:
    for block in blocks:
        yield resampler.push(block)
    tail = resampler.finish()
    if tail is not None:
        yield tail


def _lengths(config: SeparationConfig, model: WaveformModel) -> tuple[float, float]:
    """Seconds of a segment and of an overlap: what was asked for, or what suits the model."""
    most_s = _most_s(model)
    if (config.segment_s or model.config.segment_s) > most_s:
        # What was asked for cannot be had, and its overlap was meant for it.
        config = replace(config, segment_s=most_s, overlap_s=None)
    if config.segment_s is None or config.segment_s == model.config.segment_s:
        segment_s, default_overlap_s = model.config.segment_s, model.config.overlap_s
    else:
        segment_s = config.segment_s
        default_overlap_s = min(model.config.overlap_s, segment_s / 4)
    return segment_s, default_overlap_s if config.overlap_s is None else config.overlap_s


def _most_s(model: WaveformModel) -> float:
    """The longest chunk that the model can hear, in seconds."""
    if model.network.most_frames is None:
        return math.inf
    # A frame stands at the beginning and at the end of every hop.
    return (model.network.most_frames - 1) * model.config.stft.hop_length / model.sample_rate


def joined(blocks: Sequence[SeparatedBlock], num_sources: int, num_channels: int) -> SeparatedBlock:
    """The blocks of a stream, one behind the other; a recording without samples gave none."""
    if not blocks:
        nothing = torch.zeros(num_sources, num_channels, 0)
        return SeparatedBlock(nothing[0], nothing, nothing[:, 0])
    return SeparatedBlock(
        torch.cat([block.mixture for block in blocks], dim=-1),
        torch.cat([block.sources for block in blocks], dim=-1),
        torch.cat([block.presence for block in blocks], dim=-1),
    )


def separate_waveform(
    separator: StreamSeparator, waveform: Waveform, prompts: Sequence[str]
) -> SeparatedBlock:
    """Separate what is in memory in one go, also a waveform without samples.

    Raises:
        PromptError, AudioError, ConfigError: As ``StreamSeparator.stream``.
    """
    blocks = list(separator.stream([waveform.samples], waveform.sample_rate, prompts))
    return joined(blocks, len(prompts), waveform.num_channels)
