"""Keeping samples in step with the time stamps of their container.

A track whose packets were lost has time stamps that jump. Played without a look at them,
everything after the hole would come too early.
"""

from __future__ import annotations

from dataclasses import dataclass

# Time stamps in whole milliseconds, or of packets of odd lengths, waver by a little.
_SMALLEST_JUMP_S = 0.005
# Below the 20 ms of a single packet of Opus.
_TOLERATED_OFFSET_S = 0.015
_LONGEST_OVERLAP_S = 1.0


@dataclass(frozen=True)
class Placement:
    """What to do with a frame of samples.

    Attributes:
        num_silent: Zeros to put before it.
        num_dropped: Samples at its beginning that have been delivered before.
    """

    num_silent: int = 0
    num_dropped: int = 0


class Timeline:
    """The clock of one track, fed frame by frame.

    A jump forward of more than 15 ms is a hole and becomes silence; a jump back of up to a
    second is an overlap and is dropped. Steps below 5 ms are no jumps: a clock that is
    slightly fast or slow never tears the sound apart. Jumps back beyond a second or to the
    beginning, and jumps forward beyond ``latest_s``, are a clock that was started anew, as
    in recordings that were joined end to end: nothing is filled in or dropped.

    Args:
        sample_rate: Samples per second.
        tick_s: Resolution of the time stamps.
        latest_s: No frame can begin later than this.

    Attributes:
        num_samples: Samples placed so far, silence included.
        first_s: Time stamp of the first sample; None before it.
        holes: (position in seconds, seconds of silence) of every hole.
        overlaps: The same of every overlap.
        restarts: Positions in seconds at which the clock was started anew.
    """

    def __init__(self, sample_rate: int, tick_s: float, latest_s: float) -> None:
        self.num_samples = 0
        self.first_s: float | None = None
        self.holes: list[tuple[float, float]] = []
        self.overlaps: list[tuple[float, float]] = []
        self.restarts: list[float] = []
        self._rate = sample_rate
        self._tick_s = tick_s
        self._latest_s = latest_s
        self._zero_s = 0.0  # the time stamp at which sample 0 stands
        self._next_s = 0.0  # where the frame before this one ended
        self._num_to_drop = 0

    @property
    def is_untouched(self) -> bool:
        """Whether every frame followed on the one before it."""
        return not (self.holes or self.overlaps or self.restarts)

    def position_of(self, time_s: float) -> int:
        """The sample at which a time stamp stands."""
        return round((time_s - self._zero_s) * self._rate)

    def place(self, time_s: float | None, num_samples: int) -> Placement:
        """Place the next frame.

        Args:
            time_s: Its time stamp; None for a frame that simply follows.
            num_samples: Its length.
        """
        position_s = self.num_samples / self._rate
        if self.first_s is None:
            self.first_s = self._zero_s = self._next_s = time_s or 0.0
        if time_s is None:
            time_s = self._next_s
        jump_s = time_s - self._next_s
        self._next_s = time_s + num_samples / self._rate
        num_silent = 0
        offset_s = time_s - self._zero_s - position_s
        is_jump = abs(jump_s) > _SMALLEST_JUMP_S and abs(offset_s) > _TOLERATED_OFFSET_S
        if not self._num_to_drop and is_jump:
            is_at_beginning = time_s <= self.first_s + _TOLERATED_OFFSET_S
            if offset_s < -_LONGEST_OVERLAP_S or is_at_beginning or time_s > self._latest_s:
                self.restarts.append(position_s)
                self._zero_s += offset_s
            elif offset_s > 0:
                num_silent = self._silence(offset_s, num_samples)
                self.holes.append((position_s, num_silent / self._rate))
            else:
                self._num_to_drop = round(-offset_s * self._rate)
                self.overlaps.append((position_s, -offset_s))
        num_dropped = min(self._num_to_drop, num_samples)
        self._num_to_drop -= num_dropped
        self.num_samples += num_silent + num_samples - num_dropped
        return Placement(num_silent, num_dropped)

    def _silence(self, offset_s: float, frame_length: int) -> int:
        """The length of a hole: whole frames if the time stamps are too coarse to tell."""
        num_silent = round(offset_s * self._rate)
        whole_frames = round(num_silent / frame_length) * frame_length
        is_within_a_tick = abs(whole_frames - num_silent) <= self._tick_s * self._rate
        return whole_frames if whole_frames and is_within_a_tick else num_silent
