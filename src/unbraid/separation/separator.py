"""The separator: any waveform and prompt names in, one waveform per prompt out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.dsp.resample import Resampler
from unbraid.errors import AudioError, ConfigError
from unbraid.models.waveform import WaveformModel
from unbraid.separation.chunking import Chunk, cut, make_plan
from unbraid.separation.stitching import Stitcher
from unbraid.types import Progress, ProgressCallback, Separation, Waveform


class Separator:
    """Separates recordings of any length, rate and channel count with one model.

    Channels are separated one by one; sources with equal prompts keep their places across
    chunks and channels. What comes out has the rate, the channels and exactly the samples
    of what went in.

    Args:
        model: The model; it is put into evaluation mode and moved to ``device``.
        segment_s: Length of the chunks; None for what suits the model.
        overlap_s: How much neighbouring chunks share; None for what suits the model, or a
            quarter of the segment where that is less.
        device: Where to compute.
        join: How chunks are joined; see ``separation.chunking.ChunkPlan``.

    Raises:
        ConfigError: If the segment is not positive or not longer than the overlap.
    """

    def __init__(
        self,
        model: WaveformModel,
        *,
        segment_s: float | None = None,
        overlap_s: float | None = None,
        device: torch.device | str = "cpu",
        join: Literal["crossfade", "mean"] = "crossfade",
    ) -> None:
        self.segment_s = model.config.segment_s if segment_s is None else segment_s
        default_overlap_s = min(model.config.overlap_s, self.segment_s / 4)
        self.overlap_s = default_overlap_s if overlap_s is None else overlap_s
        self.device = torch.device(device)
        self.model = model.eval().to(self.device)
        self._plan = make_plan(self.segment_s, self.overlap_s, model.sample_rate, join)

    @property
    def sample_rate(self) -> int:
        """The rate that the model works at, in Hz; input of any other rate is welcome."""
        return self.model.sample_rate

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts that the model knows."""
        return self.model.prompts.names

    def separate(
        self,
        waveform: Waveform,
        prompts: Sequence[str],
        progress: ProgressCallback | None = None,
    ) -> Separation:
        """Separate a recording that is in memory.

        Args:
            waveform: The mixture: any rate, one channel or more, also without samples.
            prompts: One name per wanted source; names may repeat.
            progress: Called with the seconds that are done; may raise ``Cancelled``.

        Raises:
            PromptError: If a prompt is unknown, or none is given.
            AudioError: If a sample is not a finite number.
            ConfigError: If there is no channel, or the rate is not positive.
        """
        names = self.model.prompts.resolve(prompts)
        shape = (len(names), waveform.num_channels, 0)
        pieces = [waveform.samples.new_zeros(shape)]
        done = 0
        for piece in self.stream([waveform.samples], waveform.sample_rate, prompts):
            pieces.append(piece)
            done += piece.shape[-1]
            if progress is not None:
                progress(Progress(done / waveform.sample_rate, waveform.duration_s))
        return Separation(torch.cat(pieces, dim=-1), names, waveform.sample_rate)

    def stream(
        self,
        blocks: Iterable[Float[Tensor, "channel _"]],
        sample_rate: int,
        prompts: Sequence[str],
    ) -> Iterator[Float[Tensor, "source channel _"]]:
        """Separate a recording that comes in blocks, in memory that does not grow.

        Args:
            blocks: Consecutive samples in blocks of any size, all with the same channels.
            sample_rate: Of the blocks, in Hz.
            prompts: One name per wanted source; names may repeat.

        Returns:
            Finished samples, block by block; together exactly as many as came in.

        Raises:
            PromptError: If a prompt is unknown or none is given; before a block is read.
            AudioError: If a sample is not a finite number, with its time.
            ConfigError: If the blocks differ in their channels, have none, or the rate is
                not positive.
        """
        names = self.model.prompts.resolve(prompts)
        indices = self.model.prompts.indices(prompts).to(self.device)
        to_model = Resampler(sample_rate, self.sample_rate)
        to_input = Resampler(self.sample_rate, sample_rate)
        return self._stream(blocks, sample_rate, names, indices, to_model, to_input)

    def _stream(
        self,
        blocks: Iterable[Float[Tensor, "channel _"]],
        sample_rate: int,
        names: tuple[str, ...],
        indices: Int[Tensor, "source"],
        to_model: Resampler,
        to_input: Resampler,
    ) -> Iterator[Float[Tensor, "source channel _"]]:
        stitcher = Stitcher(self._plan, names)
        checked = _Checked(blocks, sample_rate)
        num_out = 0
        for chunk in cut(_resampled(checked, to_model), self._plan):
            finished = stitcher.add(self._separate_chunk(chunk, indices), chunk)
            # Resampling works on channels: sources and channels become one axis.
            rows = to_input.push(finished.flatten(0, 1))
            if chunk.is_last and (tail := to_input.finish()) is not None:
                rows = torch.cat([rows, tail], dim=-1)
            if chunk.is_last:  # the way there and back may round the length up
                rows = rows[:, : checked.num_samples - num_out]
            num_out += rows.shape[-1]
            if rows.shape[-1]:
                yield rows.unflatten(0, finished.shape[:2])

    def _separate_chunk(
        self, chunk: Chunk, indices: Int[Tensor, "source"]
    ) -> Float[Tensor, "source channel time"]:
        channels, length = chunk.samples.shape
        estimates = torch.zeros(len(indices), channels, length)
        samples = chunk.samples
        if self._plan.join == "mean":
            samples = torch.nn.functional.pad(samples, (0, self._plan.segment - length))
        for channel in range(channels):
            if not bool(samples[channel].any()):  # silence needs no model
                continue
            with torch.inference_mode():
                sources = self.model(samples[channel : channel + 1].to(self.device), indices[None])
            estimates[:, channel] = sources[0, :, :length].cpu()
        return estimates


class _Checked:
    """The blocks of an input, counted, and refused where they make no sense."""

    def __init__(self, blocks: Iterable[Float[Tensor, "channel _"]], sample_rate: int) -> None:
        self._blocks = blocks
        self._sample_rate = sample_rate
        self.num_samples = 0

    def __iter__(self) -> Iterator[Float[Tensor, "channel _"]]:
        channels: int | None = None
        for block in self._blocks:
            if block.shape[0] == 0 or block.shape[0] != (channels or block.shape[0]):
                raise ConfigError(
                    f"every block must have the same channels, at least one; after blocks of "
                    f"{channels} came one of {block.shape[0]}."
                )
            channels = block.shape[0]
            finite = torch.isfinite(block).all(dim=0)
            if not bool(finite.all()):
                position = self.num_samples + int((~finite).float().argmax())
                raise AudioError(
                    f"the sample at {position / self._sample_rate:.3f} s is not a finite number; "
                    "repair or export the audio again."
                )
            self.num_samples += block.shape[1]
            yield block


def _resampled(
    blocks: Iterable[Float[Tensor, "channel _"]], resampler: Resampler
) -> Iterator[Float[Tensor, "channel _"]]:
    for block in blocks:
        yield resampler.push(block)
    tail = resampler.finish()
    if tail is not None:
        yield tail
