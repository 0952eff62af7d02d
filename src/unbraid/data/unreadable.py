"""Recordings that cannot be read: counted, named, and too many of them are an error."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch

from unbraid.errors import DataError, in_brief

log = logging.getLogger(__name__)

#: More unreadable recordings than this share of all is no accident.
MAX_UNREADABLE = 0.01


class UnreadableClips:
    """Which recordings of a set could not be read.

    The workers of a loader share it, whether they are forked or started anew: each recording
    is logged once and counted once. Ranks count for themselves.

    It is a record, not a memory that draws depend on: a mixture that falls on an unreadable
    recording is drawn again whether it is the first to fall on it or not, so that all workers
    and ranks draw the same.

    Args:
        keys: All recordings of the set.
        max_share: How large a share of them may be unreadable.
    """

    def __init__(self, keys: Iterable[str], max_share: float = MAX_UNREADABLE) -> None:
        self._positions = {key: position for position, key in enumerate(keys)}
        self._max_share = max_share
        # Whether each is unreadable; a tensor, since PyTorch shares those between processes.
        self._marks = torch.zeros(max(1, len(self._positions)), dtype=torch.uint8).share_memory_()

    @property
    def keys(self) -> tuple[str, ...]:
        """Those that could not be read so far, in the order of the set."""
        return tuple(key for key, position in self._positions.items() if self._marks[position])

    def note(self, key: str, reason: str) -> None:
        """Count a recording, and log it if it is new.

        Args:
            key: The recording; one of the set.
            reason: What is wrong with it, naming the file.

        Raises:
            DataError: If too many of them are unreadable by now.
        """
        position = self._positions[key]
        if self._marks[position]:
            return
        self._marks[position] = 1
        log.warning("left out: %s", reason)
        count, total = int(self._marks.sum()), len(self._positions)
        if count > self._max_share * total:
            raise DataError(
                f"{count} of {total} recordings cannot be read, which is more than max_unreadable "
                f"allows ({100 * self._max_share:g} %): {in_brief(self.keys)}. Repair them or take "
                f"them out of the manifest; the last one: {reason}"
            )
