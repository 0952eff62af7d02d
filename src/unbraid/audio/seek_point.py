"""Where decoding can begin in the middle of a track."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SeekPoint:
    """A moment at which decoding can begin in the middle of a track.

    Attributes:
        mark: What the frame there is known by: its time stamp in ticks, or in a stream without
            a clock the byte at which its packet begins.
        sample: Which sample of the track, as it is delivered from the start, comes first there.
    """

    mark: int
    sample: int
