"""What Python users hold: a separator that takes paths and arrays, and its results."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.queries import Queries, with_queries
from unbraid.audio import AudioFormat, AudioInfo, probe, read_blocks, safe_name, write
from unbraid.checkpoints import (
    DEFAULT_MODEL,
    find_prompts,
    load_bundle,
    resolve_model,
    with_taught,
)
from unbraid.errors import ConfigError
from unbraid.models.waveform import WaveformModel
from unbraid.separation.presence import Presence, PresenceTimeline
from unbraid.separation.separator import StreamSeparator, joined
from unbraid.separation.settings import SeparationConfig
from unbraid.types import Progress, ProgressCallback, SeparatedBlock, Waveform, stem_names

if TYPE_CHECKING:
    import numpy as np

#: A file, a waveform, or samples as ``[channel, time]`` or ``[time]`` of any real type.
Recording: TypeAlias = "str | Path | Waveform | Tensor | np.ndarray"

#: More channels than samples, and more than this: the axes are the wrong way round.
_MOST_CHANNELS_OF_SHORT_ARRAYS = 32


class Separation(Mapping[str, Tensor]):
    """The stems of one recording: name → samples ``[channel, time]``, float32.

    Names are the prompts, numbered where they repeat (``speech_1``, ``speech_2``).

    Attributes:
        mixture: The recording, as it was separated.
        prompts: The canonical prompt of each stem, in order.
        sample_rate: Samples per second of everything in here.
    """

    def __init__(self, block: SeparatedBlock, prompts: tuple[str, ...], sample_rate: int) -> None:
        self.mixture = block.mixture
        self.prompts = prompts
        self.sample_rate = sample_rate
        self._block = block
        self._stems = dict(zip(stem_names(prompts), block.sources, strict=True))

    def __getitem__(self, name: str) -> Float[Tensor, "channel time"]:
        return self._stems[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stems)

    def __len__(self) -> int:
        return len(self._stems)

    def __repr__(self) -> str:
        channels, samples = self.mixture.shape
        return (
            f"Separation({', '.join(self)}: {channels} channels, {samples} samples "
            f"at {self.sample_rate} Hz)"
        )

    @property
    def sources(self) -> Float[Tensor, "source channel time"]:
        """All stems in one tensor, in the order of the prompts."""
        return self._block.sources

    @property
    def residual(self) -> Float[Tensor, "channel time"]:
        """What the stems leave: the mixture minus their sum."""
        return self._block.residual

    @property
    def presence(self) -> dict[str, Presence]:
        """Stem name → whether, and when, its sound is there."""
        timeline = PresenceTimeline(list(self))
        timeline.add(self._block.presence)
        return {presence.name: presence for presence in timeline.result()}

    def save(self, folder: str | Path, audio_format: AudioFormat | None = None) -> dict[str, Path]:
        """Write every stem to ``folder/{stem}.{ext}``.

        Args:
            folder: Where to; it is made if it is not there.
            audio_format: How to store samples; None for WAV of 32-bit floats.

        Returns:
            Stem name → file.

        Raises:
            AudioError: If a file cannot be written; those before it stay.
        """
        chosen = audio_format or AudioFormat("wav", "FLOAT")
        files = {}
        for name, samples in self.items():
            files[name] = Path(folder) / f"{safe_name(name)}.{chosen.extension}"
            write(files[name], Waveform(samples, self.sample_rate), chosen)
        return files


class Separator:
    """Separates recordings of any length, rate and channel count with one model.

    One separator may be used from several threads at the same time.

    Args:
        model: The model; it is put into evaluation mode and moved to ``device``.
        config: How to separate; None for what suits the model.
        device: Where to compute.
        prompt_digests: Name → SHA-256 of prompts that come from files of their own.

    Attributes:
        engine: What does the work, on streams of tensors.
        prompt_digests: The same; it goes into the sidecar of what is separated with them.

    Raises:
        ConfigError: If the segment is not positive or not longer than the overlap.
    """

    def __init__(
        self,
        model: WaveformModel,
        config: SeparationConfig | None = None,
        *,
        device: torch.device | str = "cpu",
        prompt_digests: Mapping[str, str] | None = None,
    ) -> None:
        self.engine = StreamSeparator(model, config, device)
        self.prompt_digests = dict(prompt_digests or {})

    @property
    def model(self) -> WaveformModel:
        """The model."""
        return self.engine.model

    @property
    def sample_rate(self) -> int:
        """The rate that the model works at, in Hz; input of any other rate is welcome."""
        return self.model.sample_rate

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts that the model knows."""
        return self.model.prompts.names

    def finishing(self, *, gate: bool, consistency: Literal["off", "project"] = "off") -> Separator:
        """A separator that differs in these settings alone; it shares the model with this one.

        Args:
            gate: As in ``SeparationConfig``.
            consistency: The same.

        Raises:
            ConfigError: For a choice that does not exist.
        """
        twin = copy.copy(self)
        twin.engine = self.engine.finishing(gate=gate, consistency=consistency)
        return twin

    def separate(
        self,
        recording: Recording,
        prompts: Sequence[str],
        *,
        sample_rate: int | None = None,
        track: int | None = None,
        progress: ProgressCallback | None = None,
        cancel: threading.Event | None = None,
    ) -> Separation:
        """Separate a recording into memory.

        Args:
            recording: A file, a ``Waveform``, or samples (numpy or torch, floats with full
                scale ±1, ``[channel, time]`` or ``[time]``) that come with ``sample_rate``.
            prompts: One name per wanted source; names may repeat.
            sample_rate: Of an array's samples, in Hz.
            track: Which audio track of a file, counted from 1; None for its default.
            progress: Called with the seconds that are done; may raise ``Cancelled``.
            cancel: Set it, from any thread, to stop.

        Raises:
            PromptError: If a prompt is unknown, or none is given.
            AudioError: If the file cannot be read, or a sample is not a finite number.
            ConfigError: If the array is not one or two-dimensional, not of real numbers, or
                comes without its rate; or if a rate or track is given where none belongs.
            Cancelled: If ``cancel`` was set.
        """
        if isinstance(recording, str | Path):
            if sample_rate is not None:
                raise ConfigError("sample_rate belongs to arrays; a file knows its own rate.")
            info = probe(recording, track=track)
            blocks: Iterable[Tensor] = read_blocks(recording, track=track)
        else:
            if track is not None:
                raise ConfigError("track belongs to files; an array has only one.")
            waveform = as_waveform(recording, sample_rate)
            info = AudioInfo(
                waveform.sample_rate, waveform.num_channels, waveform.num_samples, "", ""
            )
            blocks = [waveform.samples]
        finished = []
        done = 0
        for block in self.separate_stream(blocks, info.sample_rate, prompts, cancel=cancel):
            finished.append(block)
            done += block.num_samples
            if progress is not None:
                progress(Progress(done / info.sample_rate, info.duration_s))
        names = self.model.prompts.resolve(prompts)
        whole = joined(finished, len(names), info.num_channels)
        return Separation(whole, names, info.sample_rate)

    def separate_stream(
        self,
        blocks: Iterable[Float[Tensor, "channel _"]],
        sample_rate: int,
        prompts: Sequence[str],
        *,
        cancel: threading.Event | None = None,
    ) -> Iterator[SeparatedBlock]:
        """Separate a recording that comes in blocks, in memory that does not grow.

        Args:
            blocks: Consecutive samples in blocks of any size, all with the same channels.
            sample_rate: Of the blocks, in Hz.
            prompts: One name per wanted source; names may repeat.
            cancel: Set it, from any thread, to stop.

        Returns:
            Finished stretches of mixture and sources; together exactly as many samples as
            came in.

        Raises:
            PromptError, AudioError, ConfigError, Cancelled: As ``separate``.
        """
        is_cancelled = (cancel or threading.Event()).is_set
        return self.engine.stream(blocks, sample_rate, prompts, is_cancelled)


def load_separator(
    model: str | Path = DEFAULT_MODEL,
    config: SeparationConfig | None = None,
    *,
    device: torch.device | str | None = None,
    prompts: Sequence[str | Path] = (),
    queries: Queries | None = None,
) -> Separator:
    """Load a model, ready to separate.

    Args:
        model: A name, a folder or a model on the hub, as in ``checkpoints.resolve_model``.
        config: How to separate; None for what suits the model.
        device: Where to compute; None takes the first of cuda, mps and cpu that is there.
        prompts: Prompts to add to those that the model has learned: names of installed ones, or
            paths of files, ``door-bell.prompt.safetensors``.
        queries: Sounds that are shown by example, for a model with a tagger: name → clips. The
            names are prompts from then on.

    Raises:
        CheckpointError: If there is no such model or prompt file, or it is damaged.
        PromptError: If no prompt of such a name is installed, or one is for another model.
        ConfigError: If segment and overlap make no sense together.
        PromptError, AudioError: As ``queries.with_queries``.
    """
    folder = resolve_model(model)
    asked = find_prompts(folder, prompts)
    loaded = with_taught(load_bundle(folder), asked).model
    loaded = with_queries(loaded, queries) if queries else loaded
    return Separator(
        loaded,
        config,
        device=best_device() if device is None else device,
        prompt_digests=asked.digests,
    )


def as_waveform(recording: Waveform | Tensor | np.ndarray, sample_rate: int | None) -> Waveform:
    """Samples of any kind as a waveform; a waveform stays what it is.

    Raises:
        ConfigError: As ``Separator.separate``.
    """
    if isinstance(recording, Waveform):
        if sample_rate not in (None, recording.sample_rate):
            raise ConfigError(
                f"the waveform has {recording.sample_rate} Hz, not {sample_rate}; leave "
                "sample_rate out."
            )
        return recording
    if sample_rate is None:
        raise ConfigError("an array needs its rate: separate(array, prompts, sample_rate=48000).")
    try:
        samples = torch.as_tensor(recording)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{type(recording).__name__} is not audio: give a path, a Waveform, or an array "
            "of floats."
        ) from error
    if not samples.is_floating_point():
        raise ConfigError(
            f"samples of type {samples.dtype} have no full scale; convert them to floats in ±1 "
            "(16-bit whole numbers: divide by 32768)."
        )
    if samples.ndim not in (1, 2):
        raise ConfigError(
            f"samples must be [channel, time] or [time], not of shape {list(samples.shape)}."
        )
    samples = samples[None] if samples.ndim == 1 else samples
    channels, length = samples.shape
    if channels > max(length, _MOST_CHANNELS_OF_SHORT_ARRAYS):
        raise ConfigError(
            f"an array of shape {[channels, length]} would have {channels} channels; "
            "transpose it: separate(array.T, ...)."
        )
    return Waveform(samples.detach().float().cpu(), sample_rate)


def best_device() -> str:
    """The device that is used where none is named: a GPU if there is one."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
