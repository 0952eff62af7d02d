"""Source-activity detection: which pieces of a long recording are worth mixing.

Stems of songs are silent for long. A piece is kept where enough of its parts are louder than
the quietest parts of the whole recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.data.manifest import PIECE_HOP_S, PIECE_S

_QUIET_QUANTILE = 0.15
_LEAST_THRESHOLD = 1e-3
#: What a digitally silent chunk counts as; always below the threshold.
_SILENT_LEVEL = 1e-5


@dataclass(frozen=True)
class ActivityConfig:
    """How active pieces are told from others.

    Attributes:
        num_chunks: Equal parts that a piece of ``PIECE_S`` seconds is cut into; what does not
            divide is dropped at its end.
        min_active: How many of them must be above the threshold.
        level: What a chunk is measured by: ``power`` is the mean square over channels and time,
            ``energy`` the sum of squares, which grows with the sample rate.
        is_peak_normalised: Whether the recording is brought to a peak of 1 before. If it is,
            its level does not matter.
    """

    num_chunks: int
    min_active: int
    level: Literal["power", "energy"]
    is_peak_normalised: bool


#: As the data of TUSS are made.
TUSS = ActivityConfig(num_chunks=16, min_active=8, level="power", is_peak_normalised=True)
#: As the data of Spectral Feature Compression are made.
SFC = ActivityConfig(num_chunks=10, min_active=5, level="energy", is_peak_normalised=False)


def active_pieces_s(
    samples: Float[Tensor, "*channel time"], sample_rate: int, config: ActivityConfig = TUSS
) -> tuple[float, ...]:
    """Starts, in seconds, of the pieces of a recording in which its source is heard.

    Pieces are ``PIECE_S`` long and ``PIECE_HOP_S`` apart. The threshold is the 15th percentile
    of the levels of all chunks of all pieces, and 1e-3 at least. A piece is kept if
    ``config.min_active`` of its chunks are above, not at, the threshold.

    Args:
        samples: The recording; full scale is ±1.
        sample_rate: Its sample rate.
        config: ``TUSS`` or ``SFC``. TUSS hears the first channel only, SFC all of them.

    Returns:
        Nothing for a recording that is silent throughout or shorter than a piece. What follows
        the last whole piece is never part of one.

    Source: Y. Luo, J. Yu, Music Source Separation with Band-split RNN, 2023, section IV-A.
    """
    piece, hop = round(PIECE_S * sample_rate), round(PIECE_HOP_S * sample_rate)
    if samples.shape[-1] < piece:
        return ()
    signal = samples.reshape(-1, samples.shape[-1]).double()
    if config.is_peak_normalised:
        signal = signal / signal.abs().max().clamp_min(torch.finfo(signal.dtype).tiny)
    is_power = config.level == "power"
    squares = signal.square().mean(dim=0) if is_power else signal.square().sum(dim=0)
    chunk = piece // config.num_chunks
    chunks = squares.unfold(0, piece, hop)[:, : chunk * config.num_chunks].unflatten(
        1, (config.num_chunks, chunk)
    )
    levels = chunks.mean(dim=-1) if is_power else chunks.sum(dim=-1)
    levels = torch.where(levels == 0, _SILENT_LEVEL, levels)
    threshold = max(float(torch.quantile(levels, _QUIET_QUANTILE)), _LEAST_THRESHOLD)
    is_active = (levels > threshold).sum(dim=1) >= config.min_active
    return tuple(PIECE_HOP_S * number for number in is_active.nonzero().flatten().tolist())


def all_pieces_s(duration_s: float) -> tuple[float, ...]:
    """Starts of all whole pieces of a recording; one at 0 where it is shorter than a piece.

    >>> all_pieces_s(17.0), all_pieces_s(3.0)
    ((0.0, 4.0, 8.0), (0.0,))
    """
    # Durations are quotients of whole numbers: what misses a piece by rounding has it.
    num_pieces = int((duration_s - PIECE_S) / PIECE_HOP_S + 1 + 1e-9)
    return tuple(PIECE_HOP_S * number for number in range(max(1, num_pieces)))
