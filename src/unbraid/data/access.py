"""What mixtures are cut from, however it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.data.unreadable import UnreadableClips
from unbraid.dsp.resample import input_span, resample, resampled_length

#: How recordings are read: from a file into which all were decoded, from their own files, or
#: from the shards that ``unbraid data pack`` wrote.
Access: TypeAlias = Literal["cache", "direct", "shards"]


@runtime_checkable
class ClipSource(Protocol):
    """Recordings at one rate, by key. May be sent to the workers of a loader.

    Attributes:
        sample_rate: Of all that is read.
        unreadable: Which of them could not be read so far.
    """

    sample_rate: int
    unreadable: UnreadableClips

    def __contains__(self, key: str) -> bool:
        """Whether it has a recording, as far as it knows."""
        ...

    def active_s(self, key: str) -> tuple[float, ...]:
        """Starts of the stretches of a recording that are not silent."""
        ...

    def read(self, key: str, start: int, count: int) -> Float[Tensor, "*channel time"]:
        """Samples of a recording; zeros before its beginning and after its end.

        Mono has no axis for channels.

        Raises:
            UnreadableClip: If it cannot be read.
            DataError: If that makes too many that cannot.
        """
        ...


def read_resampled(
    read: Callable[[int, int], Float[Tensor, "*channel time"]],
    num_samples: int,
    from_rate: int,
    to_rate: int,
    start: int,
    count: int,
    num_channels: int = 1,
) -> Float[Tensor, "*channel time"]:
    """A crop of a recording at another rate, equal to a crop of the whole at that rate.

    Args:
        read: Gives samples of the recording: the first, and how many; asked for what there is.
        num_samples: Length of the recording.
        from_rate: Its rate.
        to_rate: The rate that is wanted.
        start: First sample of the crop at that rate; zeros come before the recording's first.
        count: Samples of the crop; zeros come after the recording's last.
        num_channels: How many channels it has; one has no axis.
    """
    output = torch.zeros((num_channels, count) if num_channels > 1 else count)
    length = resampled_length(num_samples, from_rate, to_rate)
    begin, end = max(0, start), min(length, start + count)
    if end <= begin:
        return output
    first, num_inputs, skip = input_span(begin, end - begin, from_rate, to_rate)
    last = min(num_samples, first + num_inputs)
    inside = read(max(0, first), last - max(0, first))
    margins = (max(0, -first), first + num_inputs - last)
    span = torch.nn.functional.pad(inside, margins)
    resampled = resample(span.reshape(num_channels, -1), from_rate, to_rate)
    inside = resampled[:, skip : skip + end - begin]
    output[..., begin - start : end - start] = inside if num_channels > 1 else inside[0]
    return output
