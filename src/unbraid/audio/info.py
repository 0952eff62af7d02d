"""What is known about a recording before its samples are decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class AudioInfo:
    """What a media file holds, and what its stems should keep.

    Attributes:
        sample_rate: Samples per second.
        num_channels: Channels, at least one.
        num_samples: Samples in each channel, zero or more; exact also where the header
            does not say it.
        format: The container, for example ``WAV``, ``FLAC``, ``MP4`` or ``MATROSKA``.
        subtype: How samples are stored, for example ``PCM_16``, ``FLOAT``, ``VORBIS`` or
            ``AAC``.
        channel_layout: Which channel is which, in FFmpeg's words (``stereo``,
            ``5.1(side)``); empty where the file does not say.
        start_s: When the first sample sounds, in seconds after the first picture (negative
            if before it); without pictures, after the earliest of several tracks. Zero for
            a file that is nothing but one track.
        tags: Title, artist and the like, by FFmpeg's lower-case names; a broadcast wav's
            ``time_reference`` (samples since midnight) is one of them.
        track: Which audio track this is, counted from 1.
        num_tracks: How many audio tracks the file has.
        has_video: Whether moving pictures are in the file; a cover picture does not count.
        warnings: What the caller should tell the user, for example that the file is
            shorter than its header says.
    """

    sample_rate: int
    num_channels: int
    num_samples: int
    format: str
    subtype: str
    channel_layout: str = ""
    start_s: float = 0.0
    tags: Mapping[str, str] = field(default_factory=dict)
    track: int = 1
    num_tracks: int = 1
    has_video: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate


def cut_short(promised_s: float, actual_s: float) -> str:
    """The warning about a file that holds less than its header says."""
    return (
        f"the file was cut short: its header says {promised_s:.2f} s, it holds {actual_s:.2f} s; "
        "the stems are as long as what is there"
    )
