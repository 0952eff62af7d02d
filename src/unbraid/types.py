"""Small frozen records that travel between the rooms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Waveform:
    """Audio samples and the rate that gives them meaning.

    Attributes:
        samples: One row per channel; full scale is ±1, values beyond are kept.
        sample_rate: Samples per second, a positive whole number.
    """

    samples: Float[Tensor, "channel time"]
    sample_rate: int

    @property
    def num_channels(self) -> int:
        """How many channels there are."""
        return self.samples.shape[0]

    @property
    def num_samples(self) -> int:
        """How many samples each channel has."""
        return self.samples.shape[1]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate


@dataclass(frozen=True, eq=False)
class SeparatedBlock:
    """A finished stretch of a separation, or the whole of one.

    Attributes:
        mixture: What was separated.
        sources: The estimates, one per prompt in the order of the prompts, with the channels
            and the length of the mixture.
        presence: How sure it is, from 0 to 1, that the sound of each source is there: scores
            of the windows of ``separation.presence`` that were completed with this stretch.
    """

    mixture: Float[Tensor, "channel time"]
    sources: Float[Tensor, "source channel time"]
    presence: Float[Tensor, "source window"]

    @property
    def num_samples(self) -> int:
        """How many samples each channel has."""
        return self.mixture.shape[1]

    @property
    def residual(self) -> Float[Tensor, "channel time"]:
        """What the sources leave: the mixture minus their sum."""
        return self.mixture - self.sources.sum(dim=0)


@dataclass(frozen=True)
class Progress:
    """How far a task has come.

    Attributes:
        done_s: Seconds of audio finished.
        total_s: Seconds of audio in all; None where the length is not known before the end.
    """

    done_s: float
    total_s: float | None


@dataclass(frozen=True)
class Step:
    """How far a step of a long task has come.

    Attributes:
        name: What is being done.
        done: How much of it is.
        total: How much there is in all; None where nobody knows.
        unit: What is counted.
        detail: What else there is to say about it, such as a loss; empty for nothing.
    """

    name: str
    done: int
    total: int | None
    unit: Literal["bytes", "files", "mixtures", "steps"]
    detail: str = ""


#: How the channels of a recording are put together; see ``separation.stereo``.
#:
#: ``channels``: every channel by itself.
#: ``mid-side``: half the sum and half the difference of two channels by themselves; other
#: numbers of channels as ``channels``.
#: ``shared``: one mask per source for all channels; each keeps the mixture's image bin by bin.
#: ``wiener``: a filter per source that also uses from where in the image each source comes;
#: beyond eight channels as ``shared``.
StereoMode: TypeAlias = Literal["channels", "mid-side", "shared", "wiener"]

#: Numbers that networks compute with; waveforms are float32 always.
Precision: TypeAlias = Literal["float32", "bfloat16"]

#: Called now and then from the working thread. Raise ``errors.Cancelled`` in it to stop.
ProgressCallback: TypeAlias = Callable[[Progress], None]

#: Called now and then; may raise ``errors.Cancelled``.
StepCallback: TypeAlias = Callable[[Step], None]


def stem_names(prompts: Sequence[str]) -> tuple[str, ...]:
    """Give each source a unique name: the prompt, numbered from 1 where it repeats.

    >>> stem_names(["speech", "sfx-mix", "speech"])
    ('speech_1', 'sfx-mix', 'speech_2')
    """
    totals = Counter(prompts)
    seen: Counter[str] = Counter()
    names = []
    for prompt in prompts:
        seen[prompt] += 1
        names.append(f"{prompt}_{seen[prompt]}" if totals[prompt] > 1 else prompt)
    return tuple(names)


def equal_prompt_groups(prompts: Sequence[Hashable]) -> tuple[tuple[int, ...], ...]:
    """Positions that share a prompt (a name or a row), in order of first appearance.

    Outputs inside such a group are interchangeable: nothing in the model says which
    speaker comes first. Everything that compares or joins outputs may permute inside
    a group and never across groups.

    >>> equal_prompt_groups(["speech", "sfx-mix", "speech"])
    ((0, 2), (1,))
    """
    groups: dict[Hashable, list[int]] = {}
    for position, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(position)
    return tuple(tuple(positions) for positions in groups.values())
