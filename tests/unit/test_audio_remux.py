"""Remuxing: what was seen and heard together stays together, and pictures stay untouched."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from unbraid.audio import AtomicWriter, AudioFormat, AudioInfo, probe
from unbraid.audio.remux import put_under_video, remux_extension, remux_format
from unbraid.errors import AudioError

RATE = 48_000
FRAMES_PER_S = 10
NUM_FRAMES = 30
FLASHES = (5, 15, 25)
CLICKS_S = (0.4, 1.4, 2.4)
LAYOUTS = {1: "mono", 2: "stereo"}


@dataclass(frozen=True)
class Heard:
    """The sound of a file: when it begins on the container's time line, and samples."""

    start_s: Fraction
    samples: np.ndarray
    rate: int

    @property
    def clicks_s(self) -> list[float]:
        loudness = np.abs(self.samples[0]).copy()
        found = []
        while loudness.max() > 0.3:
            place = int(loudness.argmax())
            found.append(float(self.start_s + Fraction(place, self.rate)))
            loudness[max(0, place - 2000) : place + 2000] = 0
        return sorted(found)


def film(
    path: Path,
    picture_codec: str = "libx264",
    sound_codec: str | None = "aac",
    pictures_at_s: float = 0.0,
    sound_at_s: float = 0.0,
    num_b_frames: int = 2,
    has_subtitles: bool = False,
) -> Path:
    """Three seconds of grey with three white flashes, and of silence with three clicks."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream(picture_codec, rate=FRAMES_PER_S)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        pictures.codec_context.gop_size = 12
        if picture_codec in ("libx264", "mpeg4"):
            pictures.codec_context.max_b_frames = num_b_frames
            pictures.options = {"bf": str(num_b_frames)}
        if sound_codec is not None:
            sound = container.add_stream(sound_codec, rate=RATE, layout="stereo")
        container.metadata["title"] = "Ein Fülm"
        container.set_chapters(
            [
                {
                    "id": 1,
                    "start": 0,
                    "end": 2000,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": "one"},
                }
            ]
        )
        if has_subtitles:
            container.add_attachment("font.ttf", "application/x-truetype-font", b"letters")
        packets = []
        for number in range(NUM_FRAMES):
            grey = np.full((64, 64, 3), 255 if number in FLASHES else 30, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, "rgb24").reformat(format="yuv420p")
            frame.pts = number + round(pictures_at_s * FRAMES_PER_S)
            frame.time_base = Fraction(1, FRAMES_PER_S)
            packets += pictures.encode(frame)
        packets += pictures.encode(None)
        if sound_codec is not None:
            samples = np.zeros((3 * RATE, 2), np.float32)
            samples[[round(second * RATE) for second in CLICKS_S]] = 0.9
            heard = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "flt", "stereo")
            heard.sample_rate = RATE
            heard.pts = round(sound_at_s * RATE)
            heard.time_base = Fraction(1, RATE)
            packets += [*sound.encode(heard), *sound.encode(None)]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def hear(path: Path) -> Heard:
    blocks = []
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        to_floats = av.AudioResampler(format="fltp", layout="stereo")
        start = None
        for frame in container.decode(stream):
            start = frame.pts * frame.time_base if start is None else start
            blocks += [same.to_ndarray() for same in to_floats.resample(frame)]
        return Heard(start or Fraction(0), np.concatenate(blocks, axis=1), stream.sample_rate)


def pictures_of(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [
            (float(packet.pts * packet.time_base), bytes(packet))
            for packet in container.demux(stream)
            if packet.size
        ]


def flashes_s(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [
            float(frame.pts * frame.time_base)
            for frame in container.decode(video=0)
            if frame.to_ndarray(format="gray").mean() > 150
        ]


def info(subtype: str = "PCM_16") -> AudioInfo:
    return AudioInfo(RATE, 2, 3 * RATE, "X", subtype)


def stem_for(video: Path, heard: Heard, audio_format: AudioFormat | None = None) -> Path:
    chosen = audio_format or remux_format(video, info())
    path = video.with_name(f"stem.{chosen.extension}")
    with AtomicWriter(path, chosen, heard.rate, 2) as writer:
        writer.write(torch.from_numpy(heard.samples.copy()))
    return path


def remuxed(video: Path) -> Path:
    heard = hear(video)
    out = video.with_name(f"out.{remux_extension(video)}")
    stem = stem_for(video, heard)
    put_under_video(video, stem, out, start_s=probe(video).start_s, title="speech")
    return out


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.mp4", {}),
        ("a.mp4", {"sound_at_s": 0.25}),
        ("a.mp4", {"pictures_at_s": 0.7, "num_b_frames": 0}),
        ("a.mp4", {"picture_codec": "mpeg4", "sound_at_s": 0.123}),
        ("a.mov", {"pictures_at_s": 0.2}),
        ("a.mov", {"sound_at_s": 0.5, "sound_codec": "pcm_s16le"}),
        ("a.mkv", {"sound_codec": "flac"}),
        ("a.mkv", {"sound_at_s": 0.321, "sound_codec": "flac"}),
        ("a.mkv", {"pictures_at_s": 0.5, "sound_at_s": 0.1}),
        ("a.webm", {"picture_codec": "libvpx", "sound_codec": "libopus"}),
        ("a.webm", {"picture_codec": "libvpx", "sound_codec": "libopus", "sound_at_s": 0.3}),
        ("a.avi", {"picture_codec": "mpeg4", "sound_codec": "libmp3lame"}),
    ],
    ids=str,
)
def test_what_was_heard_together_with_a_picture_still_is(
    tmp_path: Path, name: str, kind: dict[str, object]
) -> None:
    video = film(tmp_path / name, **kind)

    out = remuxed(video)

    before, after = hear(video).clicks_s, hear(out).clicks_s
    assert len(before) == 3
    assert after == pytest.approx(before, abs=1 / RATE + 1e-9)
    assert flashes_s(out) == pytest.approx(flashes_s(video), abs=1e-9)
    pictures, copies = pictures_of(video), pictures_of(out)
    assert [data for _, data in copies] == [data for _, data in pictures]
    assert [at_s for at_s, _ in copies] == pytest.approx([at_s for at_s, _ in pictures])
    assert out.suffix == (".mkv" if video.suffix == ".avi" else video.suffix)


def test_transport_stream_becomes_matroska(tmp_path: Path) -> None:
    """The pictures are packed differently there, and times are whole milliseconds."""
    video = film(tmp_path / "a.ts", pictures_at_s=0.2)

    out = remuxed(video)

    assert hear(out).clicks_s == pytest.approx(hear(video).clicks_s, abs=1 / RATE)
    assert flashes_s(out) == pytest.approx(flashes_s(video), abs=0.0006)


def test_negative_times_are_kept_relative(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mp4", pictures_at_s=0.5)
    heard = hear(video)
    stem = stem_for(video, heard)
    out = tmp_path / "out.mp4"

    put_under_video(video, stem, out, start_s=probe(video).start_s - 0.1, title="speech")

    moved = hear(out).clicks_s[0] - flashes_s(out)[0]
    was = hear(video).clicks_s[0] - flashes_s(video)[0]
    assert moved == pytest.approx(was - 0.1, abs=1 / RATE)


def test_everything_else_comes_along(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mkv", sound_codec="flac", has_subtitles=True)

    with av.open(str(remuxed(video))) as copy:
        assert [stream.type for stream in copy.streams] == ["video", "audio", "attachment"]
        assert copy.metadata["title"] == "Ein Fülm"
        assert copy.streams.audio[0].metadata["title"] == "speech"
        (chapter,) = copy.chapters()
        assert chapter["metadata"]["title"] == "one"
        assert chapter["end"] * chapter["time_base"] == 2
        assert bytes(copy.streams[2].data) == b"letters"


def with_subtitles(film_path: Path, path: Path) -> Path:
    """The film again, with a line of text under it."""
    words = film_path.with_name("words.srt")
    words.write_text("1\n00:00:00,500 --> 00:00:01,500\nHallo\n")
    with (
        av.open(str(film_path)) as source,
        av.open(str(words)) as text,
        av.open(str(path), "w") as target,
    ):
        streams = [*source.streams.video, *source.streams.audio]
        copies = {s.index: target.add_stream_from_template(s, opaque=True) for s in streams}
        lines = target.add_stream_from_template(text.streams[0], opaque=True)
        lines.metadata["language"] = "deu"
        for packet in text.demux(text.streams[0]):
            if packet.dts is not None:
                packet.stream = lines
                target.mux(packet)
        for packet in source.demux(*streams):
            if packet.size:
                packet.stream = copies[packet.stream_index]
                packet.dts = packet.pts if packet.dts is None else packet.dts
                target.mux(packet)
    return path


def test_subtitles_come_along(tmp_path: Path) -> None:
    plain = film(tmp_path / "plain.mkv", sound_codec="flac", num_b_frames=0)
    video = with_subtitles(plain, tmp_path / "a.mkv")

    with av.open(str(remuxed(video))) as copy:
        (lines,) = copy.streams.subtitles
        assert lines.metadata["language"] == "deu"
        (packet,) = [packet for packet in copy.demux(lines) if packet.size]
        assert bytes(packet) == b"Hallo"
        assert (packet.pts * packet.time_base, packet.duration) == (Fraction(1, 2), 1000)


def test_subtitles_that_do_not_fit_are_named(tmp_path: Path) -> None:
    plain = film(tmp_path / "plain.mkv", "libvpx", "libopus")
    misnamed = tmp_path / "a.webm"
    with_subtitles(plain, tmp_path / "b.mkv").rename(misnamed)
    stem = stem_for(misnamed, hear(misnamed))

    left_out = put_under_video(misnamed, stem, tmp_path / "o.webm", start_s=0, title="x")

    assert left_out == ("webm cannot hold the subtitles deu",)


@pytest.mark.parametrize(
    ("name", "extension", "container", "subtype"),
    [
        ("a.mp4", "mp4", "m4a", "AAC"),
        ("a.M4V", "mp4", "m4a", "AAC"),
        ("a.mov", "mov", "m4a", "AAC"),
        ("a.webm", "webm", "opus", "OPUS"),
        ("a.mkv", "mkv", "flac", "PCM_24"),
        ("a.avi", "mkv", "flac", "PCM_24"),
        ("a", "mkv", "flac", "PCM_24"),
    ],
)
def test_container_and_format_follow_the_film(
    name: str, extension: str, container: str, subtype: str
) -> None:
    assert remux_extension(Path(name)) == extension
    assert remux_format(Path(name), info("PCM_24")) == AudioFormat(container, subtype)


def test_cover_picture_is_not_a_film(tmp_path: Path) -> None:
    song = tmp_path / "song.mp4"
    with av.open(str(song), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 64
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = container.add_stream("aac", rate=RATE, layout="stereo")
        container.start_encoding()
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        for packet in [*cover.encode(picture.reformat(format="yuvj420p")), *cover.encode(None)]:
            container.mux(packet)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 2 * RATE), np.float32), "flt", "stereo")
        silence.sample_rate = RATE
        for packet in [*sound.encode(silence), *sound.encode(None)]:
            container.mux(packet)
    before = leftovers(tmp_path)

    with pytest.raises(AudioError, match=r"song\.mp4: has no moving pictures to put a stem under"):
        put_under_video(song, song, tmp_path / "new" / "out.mp4", start_s=0, title="x")
    assert leftovers(tmp_path) == before


def test_pictures_that_the_container_cannot_hold(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mkv", sound_codec="flac").rename(tmp_path / "misnamed.webm")
    stem = stem_for(video, hear(video))

    with pytest.raises(AudioError, match=r"misnamed\.webm: its pictures cannot be copied"):
        put_under_video(video, stem, tmp_path / "out.webm", start_s=0, title="x")
    assert not (tmp_path / "out.webm").exists()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mkv", sound_codec="flac")
    stem = stem_for(video, hear(video))
    text = tmp_path / "text.mkv"
    text.write_text("not a film " * 100)
    before = leftovers(tmp_path)

    for film_path, sound_path, name in ((text, stem, text), (video, text, text)):
        with pytest.raises(AudioError, match=name.name):
            put_under_video(film_path, sound_path, tmp_path / "o.mkv", start_s=0, title="x")
    with pytest.raises(AudioError, match="nowhere"):
        put_under_video(video, tmp_path / "nowhere.flac", tmp_path / "o.mkv", start_s=0, title="x")
    assert leftovers(tmp_path) == before


def test_copy_that_cannot_be_written(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mkv", sound_codec="flac")
    stem = stem_for(video, hear(video))
    before = leftovers(tmp_path)

    with pytest.raises(AudioError, match="cannot be written"):
        put_under_video(video, stem, video / "inside.mkv", start_s=0, title="x")
    assert leftovers(tmp_path) == before


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mkv", sound_codec="flac")

    first = remuxed(video).read_bytes()

    assert remuxed(video).read_bytes() == first
