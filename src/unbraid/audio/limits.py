"""What a file may ask of the memory, whatever its header claims."""

from __future__ import annotations

from pathlib import Path

from unbraid.errors import AudioError

MOST_CHANNELS = 1024
LOWEST_RATE = 100
HIGHEST_RATE = 1_000_000
_MOST_BLOCK_BYTES = 2**25
_BYTES_PER_SAMPLE = 4


def check_plausible(path: Path, sample_rate: int, num_channels: int) -> None:
    """Refuse rates and channel counts that only a damaged header claims.

    Raises:
        AudioError: For a rate outside 100 Hz to 1 MHz, or channels outside 1 to 1024.
    """
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise AudioError(
            f"{path}: its header says {sample_rate} samples per second, which no recording "
            "has; the file is damaged. Fetch it again."
        )
    if not 1 <= num_channels <= MOST_CHANNELS:
        raise AudioError(
            f"{path}: its header says {num_channels} channels; 1 to {MOST_CHANNELS} can be "
            "read. If it has fewer, the file is damaged; fetch it again."
        )


def block_length(block_s: float, sample_rate: int, num_channels: int) -> int:
    """Samples in a block of ``block_s`` seconds, or as many as fit into 32 MiB."""
    most = _MOST_BLOCK_BYTES // (_BYTES_PER_SAMPLE * num_channels)
    return max(1, min(round(block_s * sample_rate), most))
