"""The mark by which FFmpeg says that the end of a packet is not to be heard."""

from __future__ import annotations

import struct
from typing import Any, cast

from av.packet import Packet


def mark_excess(packet: Packet[Any], num_samples: int) -> None:
    """Say in a packet how many samples at the end of the stream are not to be heard."""
    mark = packet.get_sidedata("skip_samples")
    struct.pack_into("<II", cast(Any, mark), 0, 0, num_samples)  # the stubs lack its buffer
    packet.set_sidedata(mark)
