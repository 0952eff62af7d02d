"""Small media files of every format, made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def noise(num_samples: int, num_channels: int = 2, seed: int = 0) -> np.ndarray:
    """Half-loud noise ``[channel, time]``."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, (num_channels, num_samples)).astype(np.float32)


def sweep(num_samples: int, num_channels: int = 2) -> np.ndarray:
    """Tones that glide upwards ``[channel, time]``: no moment is like another one."""
    time_s = np.arange(num_samples) / 48_000
    tones = [np.sin(1000 * time_s * (1 + time_s + number)) for number in range(num_channels)]
    return (np.stack(tones) / 2).astype(np.float32)


@dataclass(frozen=True)
class Track:
    """One audio track of a file to be written.

    Attributes:
        samples: ``[channel, time]``.
        codec: FFmpeg's name of the encoder.
        start_s: When it begins.
        tags: Language, title.
        keep: Says by its number which packets are written.
    """

    samples: np.ndarray
    codec: str = "aac"
    rate: int = 48_000
    start_s: float = 0.0
    tags: Mapping[str, str] = field(default_factory=dict)
    keep: Callable[[int], bool] = lambda number: True


def write_media(
    path: Path,
    *tracks: Track,
    video_s: float = 0.0,
    container: str | None = None,
    tags: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write tracks with FFmpeg, beside ``video_s`` seconds of pictures."""
    with av.open(str(path), "w", format=container, options=dict(options or {})) as output:
        output.metadata.update(tags or {})
        video = output.add_stream("mpeg4", rate=25) if video_s else None
        if video is not None:
            video.width = video.height = 32
            video.pix_fmt = "yuv420p"
        streams = []
        for track in tracks:
            layout = LAYOUTS[len(track.samples)]
            stream = output.add_stream(track.codec, rate=track.rate, layout=layout)
            stream.metadata.update(track.tags)
            streams.append(stream)
        if video is not None:
            for number in range(round(video_s * 25)):
                picture = av.VideoFrame(32, 32, "yuv420p")
                picture.pts = number
                output.mux(video.encode(picture))
            output.mux(video.encode(None))
        for track, stream in zip(tracks, streams, strict=True):
            packets = _encoded(track, stream)
            output.mux([packet for number, packet in enumerate(packets) if track.keep(number)])
    return path


def _encoded(track: Track, stream: av.AudioStream) -> Sequence[av.Packet]:
    layout = LAYOUTS[len(track.samples)]
    to_codec = av.AudioResampler(stream.codec_context.format.name, layout, track.rate)
    packets: list[av.Packet] = []
    for begin in range(0, track.samples.shape[1], 1000):
        # Interleaved: PyAV miscounts the planes of eight channels.
        block = track.samples[:, begin : begin + 1000].T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "flt", layout)
        frame.sample_rate = track.rate
        frame.time_base = Fraction(1, track.rate)
        frame.pts = begin + round(track.start_s * track.rate)
        for converted in to_codec.resample(frame):
            packets += stream.encode(converted)
    for converted in to_codec.resample(None):
        packets += stream.encode(converted)
    return packets + stream.encode(None)


def write_sound(path: Path, samples: np.ndarray, rate: int = 48_000, **form: str) -> Path:
    """Write ``[channel, time]`` with libsndfile."""
    soundfile.write(path, samples.T, rate, **form)
    return path


def _sound(name: str, **form: str) -> Callable[[Path], Path]:
    return lambda folder: write_sound(folder / name, noise(14_411), **form)


def _media(
    name: str, codec: str, video_s: float = 0.0, num_tracks: int = 1
) -> Callable[[Path], Path]:
    tracks = [Track(noise(14_411, seed=seed), codec) for seed in range(num_tracks)]
    return lambda folder: write_media(folder / name, *tracks, video_s=video_s)


# One small recording of 0.3 s for each format: made in a folder, its path comes back.
SMALL_FILES: dict[str, Callable[[Path], Path]] = {
    "wav": _sound("a.wav"),
    "w64": _sound("a.w64", format="W64"),
    "rf64": _sound("a.rf64", format="RF64"),
    "flac": _sound("a.flac"),
    "aiff": _sound("a.aiff"),
    "ogg": _sound("a.ogg", format="OGG", subtype="VORBIS"),
    "opus": _sound("a.opus", format="OGG", subtype="OPUS"),
    "mp3": _media("a.mp3", "libmp3lame"),
    "m4a": _media("a.m4a", "aac"),
    "mp4": _media("a.mp4", "aac", video_s=0.3),
    "mkv": _media("a.mkv", "flac", video_s=0.3, num_tracks=2),
    "mov": _media("a.mov", "pcm_s24le", video_s=0.3),
    "webm": _media("a.webm", "libopus"),
}
