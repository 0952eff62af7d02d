"""FLAC in memory, and of a FLAC file only the frames that are needed.

A FLAC file is a header and frames that each can be decoded by itself. Who knows where a frame
begins can read from there without what comes before; libsndfile is told so by a header that
counts only the frames which it is given.
"""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import soundfile
from av.audio.frame import AudioFrame
from av.codec import CodecContext

from unbraid.errors import AudioError

#: Samples in a frame; only the last one has fewer.
FRAME_SAMPLES = 4096

_MARK = b"fLaC"
_LAST_BLOCK_IS_STREAM_INFO = b"\x80\x00\x00\x22"


def encode_flac(samples: np.ndarray, sample_rate: int) -> tuple[bytes, tuple[int, ...]]:
    """Make a FLAC file of 16-bit mono samples ``[time]``.

    Returns:
        The file, and the byte at which each of its frames begins.

    Raises:
        AudioError: If FLAC cannot hold the rate.
    """
    context = CodecContext.create("flac", "w")
    context.sample_rate = sample_rate
    context.layout = "mono"
    context.format = "s16"
    context.time_base = Fraction(1, sample_rate)
    context.options = {"frame_size": str(FRAME_SAMPLES)}
    try:
        context.open()
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(f"FLAC cannot hold {sample_rate} samples per second ({error}).") from error
    packets = []
    for first in range(0, len(samples), FRAME_SAMPLES):
        block = np.ascontiguousarray(samples[np.newaxis, first : first + FRAME_SAMPLES])
        frame = AudioFrame.from_ndarray(block, "s16", "mono")
        frame.sample_rate = sample_rate
        frame.pts = first
        packets += context.encode(frame)
    packets += context.encode(None)
    frames = [bytes(packet) for packet in packets if packet.size]
    # Comes last, with an MD5 sum of all samples.
    stream_info = bytes(packets[-1].get_sidedata("new_extradata"))
    header = _MARK + _LAST_BLOCK_IS_STREAM_INFO + stream_info
    begins = np.cumsum([len(header), *map(len, frames)])[: len(frames)]
    return header + b"".join(frames), tuple(begins.tolist())


def decode_flac_frames(frames: bytes, num_samples: int, sample_rate: int) -> np.ndarray:
    """Decode neighbouring frames of a file that ``encode_flac`` made.

    Args:
        frames: From the first byte of one to the last byte of another one.
        num_samples: How many samples are in them.
        sample_rate: Of the file.

    Returns:
        16-bit samples ``[time]``.

    Raises:
        AudioError: If they are damaged or fewer.
    """
    # The stream info of RFC 9639, section 8.2: 16 + 16 bits for the block's size, 24 + 24 for
    # that of a frame (not known), 20 for the rate, 3 for channels - 1, 5 for bits - 1, 36 for the
    # length, 128 for the MD5 sum (not known).
    fields = (
        (FRAME_SAMPLES, 16), (FRAME_SAMPLES, 16), (0, 24), (0, 24),
        (sample_rate, 20), (0, 3), (15, 5), (num_samples, 36), (0, 128),
    )  # fmt: skip
    packed = 0
    for value, bits in fields:
        packed = packed << bits | value
    header = _MARK + _LAST_BLOCK_IS_STREAM_INFO + packed.to_bytes(34, "big")
    try:
        with soundfile.SoundFile(io.BytesIO(header + frames)) as file:
            samples: np.ndarray = file.read(num_samples, dtype="int16")
    except soundfile.LibsndfileError as error:
        raise AudioError(f"damaged FLAC frames ({error.error_string})") from error
    if len(samples) < num_samples:
        raise AudioError(f"damaged FLAC frames: {len(samples)} of {num_samples} samples are there")
    return samples
