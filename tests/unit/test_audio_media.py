"""Media files through FFmpeg: every sample of the track, in time, or a word about it."""

from __future__ import annotations

import re
import shutil
import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from media_samples import SMALL_FILES, Track, noise, sweep, write_media, write_sound
from unbraid.audio import probe, read, read_blocks
from unbraid.errors import AudioError

RATE = 48_000
FRAME = 1024  # of AAC


def check_agreement(path: Path, track: int | None = None) -> np.ndarray:
    """Blocks of any length hold what ``probe`` announces; return it ``[channel, time]``."""
    info = probe(path, track)
    blocks = list(read_blocks(path, 0.03, track))
    whole = read(path, track)
    assert {block.shape[0] for block in blocks} <= {info.num_channels}
    assert sum(block.shape[1] for block in blocks) == info.num_samples == whole.num_samples
    assert whole.sample_rate == info.sample_rate
    if blocks:
        torch.testing.assert_close(torch.cat(blocks, dim=1), whole.samples, atol=0, rtol=0)
    return whole.samples.numpy()


@pytest.mark.parametrize("name", SMALL_FILES)
def test_every_format_keeps_its_length(tmp_path: Path, name: str) -> None:
    path = SMALL_FILES[name](tmp_path)

    samples = check_agreement(path)

    info = probe(path)
    assert samples.shape == (2, 14_411)
    assert (info.sample_rate, info.track, info.start_s, info.warnings) == (RATE, 1, 0.0, ())
    assert info.has_video == (name in ("mp4", "mkv", "mov"))
    assert info.num_tracks == (2 if name == "mkv" else 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wav", ("WAV", "PCM_16")),
        ("rf64", ("RF64", "PCM_16")),
        ("ogg", ("OGG", "VORBIS")),
        ("opus", ("OGG", "OPUS")),
        ("mp3", ("MP3", "MPEG_LAYER_III")),
        ("m4a", ("MP4", "AAC")),
        ("mkv", ("MATROSKA", "PCM_16")),
        ("mov", ("MOV", "PCM_24")),
        ("webm", ("WEBM", "OPUS")),
    ],
)
def test_format_and_subtype(tmp_path: Path, name: str, expected: tuple[str, str]) -> None:
    info = probe(SMALL_FILES[name](tmp_path))

    assert (info.format, info.subtype) == expected


@pytest.mark.parametrize(
    ("codec", "extension", "rate"),
    [
        ("aac", "m4a", 44_100),
        ("aac", "mp4", 8_000),
        ("libopus", "webm", 48_000),
        ("libopus", "mp4", 48_000),
        ("alac", "m4a", 96_000),
        ("flac", "mkv", 192_000),
        ("pcm_s24le", "mov", 44_100),
    ],
)
@pytest.mark.parametrize("num_samples", [2_000, 4_096, 10_007])
def test_nothing_is_added_before_or_after(
    tmp_path: Path, codec: str, extension: str, rate: int, num_samples: int
) -> None:
    time_s = np.arange(num_samples) / rate
    tone = np.stack([np.sin(2 * np.pi * 440 * time_s)] * 2).astype(np.float32) / 2
    path = write_media(tmp_path / f"a.{extension}", Track(tone, codec, rate))

    samples = check_agreement(path)

    assert samples.shape == tone.shape
    middle = slice(num_samples // 4, -num_samples // 4)
    error = np.mean((samples - tone)[:, middle] ** 2) / np.mean(tone[:, middle] ** 2)
    assert error < 0.02, "a shift by a few samples would be a larger error"


@pytest.mark.parametrize("num_samples", [1, 1_000, 1_151, 1_152, 1_153, 20_011])
def test_mp3_is_as_long_as_what_was_encoded(tmp_path: Path, num_samples: int) -> None:
    path = write_sound(
        tmp_path / "a.mp3", noise(num_samples), 44_100, format="MP3", subtype="MPEG_LAYER_III"
    )

    assert check_agreement(path).shape == (2, num_samples)


@pytest.mark.parametrize("num_samples", [1, 100, 4_000, 24_001])
def test_vorbis_is_as_long_as_what_was_encoded(tmp_path: Path, num_samples: int) -> None:
    path = write_sound(tmp_path / "a.ogg", noise(num_samples), format="OGG", subtype="VORBIS")

    assert check_agreement(path).shape == (2, num_samples)


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_u8", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_samples_that_are_stored_plainly_come_back(tmp_path: Path, codec: str) -> None:
    expected = np.round(noise(3_000) * 64) / 64
    path = write_media(tmp_path / "a.mkv", Track(expected, codec))

    np.testing.assert_array_equal(check_agreement(path), expected)


@pytest.mark.parametrize("num_channels", [1, 6, 8])
def test_many_channels_in_planes(tmp_path: Path, num_channels: int) -> None:
    """Each channel is a tone of its own; none gets lost or moved."""
    num_samples = 9_600
    time_s = np.arange(num_samples) / RATE
    tones = [np.sin(2 * np.pi * 100 * (1 + number) * time_s) for number in range(num_channels)]
    expected = (np.stack(tones) / 4).astype(np.float32)
    path = write_media(tmp_path / "a.mkv", Track(expected, "flac"))

    np.testing.assert_allclose(check_agreement(path), expected, atol=1 / 32768)


def test_sixteen_channels_of_a_lossy_codec(tmp_path: Path) -> None:
    time_s = np.arange(4_800) / RATE
    tones = [np.sin(2 * np.pi * 200 * (1 + number) * time_s) / 4 for number in range(16)]
    path = write_sound(tmp_path / "a.ogg", np.stack(tones), format="OGG", subtype="VORBIS")

    samples = check_agreement(path)

    assert samples.shape == (16, 4_800)
    np.testing.assert_allclose(samples, tones, atol=0.1)


def test_a_track_is_chosen_by_its_number(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "film.mkv",
        Track(noise(4_800, seed=1), "flac", tags={"language": "eng"}),
        Track(noise(9_600, 1, seed=2), "flac", 44_100, tags={"title": "Director's words"}),
        video_s=0.2,
        tags={"title": "The film"},
    )

    first, second = probe(path, 1), probe(path, track=2)

    assert (first.num_tracks, first.track, first.num_samples) == (2, 1, 4_800)
    assert (second.track, second.num_samples, second.sample_rate) == (2, 9_600, 44_100)
    assert (first.channel_layout, second.channel_layout) == ("stereo", "mono")
    assert first.tags == {"title": "The film", "language": "eng"}
    np.testing.assert_allclose(check_agreement(path, 2), noise(9_600, 1, seed=2), atol=1e-4)
    for wrong in (0, 3, -1):
        with pytest.raises(AudioError, match=f"no audio track {wrong}; it has 2 tracks") as caught:
            probe(path, wrong)
        assert "1 (eng), 2 (Director's words)" in str(caught.value)


def test_a_file_of_one_track_has_no_second(tmp_path: Path) -> None:
    path = SMALL_FILES["wav"](tmp_path)

    assert probe(path, 1).num_samples == 14_411
    with pytest.raises(AudioError, match=r"a\.wav: has no audio track 2; it has 1 track"):
        read(path, 2)


def test_pictures_without_sound(tmp_path: Path) -> None:
    path = write_media(tmp_path / "silent.mp4", video_s=0.2)

    with pytest.raises(AudioError, match="holds pictures but no sound"):
        probe(path)


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    plain = SMALL_FILES["flac"](tmp_path)
    cover = av.CodecContext.create("mjpeg", "w")
    cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
    cover.time_base = Fraction(1)
    picture = av.VideoFrame(16, 16, "yuvj420p")
    jpeg = b"".join(bytes(packet) for packet in [*cover.encode(picture), *cover.encode(None)])
    # Source: RFC 9639, section 8.8: a picture block behind STREAMINFO.
    mime = b"image/jpeg"
    block = struct.pack(">II", 3, len(mime)) + mime + struct.pack(">IIIIII", 0, 16, 16, 24, 0, 0)
    block = block[:-4] + struct.pack(">I", len(jpeg)) + jpeg
    content = plain.read_bytes()
    header = b"\x06" + len(block).to_bytes(3, "big")
    plain.write_bytes(content[:42] + header + block + content[42:])

    info = probe(plain)

    assert (info.has_video, info.num_samples) == (False, 14_411)


@pytest.mark.parametrize("start_s", [0.0, 0.25])
@pytest.mark.parametrize("extension", ["mkv", "mp4", "mov"])
def test_the_sound_of_a_film_may_begin_late(tmp_path: Path, extension: str, start_s: float) -> None:
    click = np.zeros((2, 9_600), dtype=np.float32)
    click[:, 4_800] = 0.9
    track = Track(click, "aac", start_s=start_s)
    path = write_media(tmp_path / f"a.{extension}", track, video_s=0.6)

    heard_s = probe(path).start_s + np.argmax(np.abs(check_agreement(path)[0])) / RATE

    assert heard_s == pytest.approx(start_s + 0.1, abs=0.0015)
    assert probe(path).start_s == pytest.approx(start_s, abs=FRAME / RATE + 0.0015)
    assert probe(path).warnings == ()  # beginning late is not being cut short


def test_a_second_track_may_begin_late(tmp_path: Path) -> None:
    tracks = [Track(noise(9_600), "pcm_s16le"), Track(noise(4_800), "pcm_s16le", start_s=0.1)]
    path = write_media(tmp_path / "a.mka", *tracks, container="matroska")

    assert [probe(path, track).start_s for track in (1, 2)] == [0.0, pytest.approx(0.1)]


def test_tags_are_kept_by_lower_case_names(tmp_path: Path) -> None:
    tags = {"title": "Lied", "artist": "Wir", "ALBUM": "Grün"}
    for extension, codec in (("mp3", "libmp3lame"), ("m4a", "aac"), ("ogg", "libopus")):
        path = write_media(tmp_path / f"a.{extension}", Track(noise(4_800), codec), tags=tags)
        expected = {"title": "Lied", "artist": "Wir", "album": "Grün"}
        assert expected.items() <= probe(path).tags.items(), extension
        assert not {"encoder", "major_brand", "handler_name"} & set(probe(path).tags)


def test_a_broadcast_wav_says_when_it_was_recorded(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "a.wav",
        Track(noise(4_800), "pcm_s24le"),
        tags={"time_reference": "172800000", "originator": "Recorder"},
        options={"write_bext": "1"},
    )

    info = probe(path)

    assert info.subtype == "PCM_24"
    assert (info.tags["time_reference"], info.tags["encoded_by"]) == ("172800000", "Recorder")
    assert info.start_s == 0.0


def test_a_name_says_nothing(tmp_path: Path) -> None:
    for name, wrong in (("mp3", "a.wav"), ("wav", "b.mp3"), ("mp4", "c: 50%d.flac"), ("flac", "d")):
        path = SMALL_FILES[name](tmp_path).rename(tmp_path / wrong)
        assert check_agreement(path).shape == (2, 14_411)


def test_playlists_open_no_other_files(tmp_path: Path) -> None:
    song = SMALL_FILES["mp3"](tmp_path)
    playlists = {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{song.name}\n#EXT-X-ENDLIST\n",
        "a.ffconcat": f"ffconcat version 1.0\nfile {song.name}\n",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(AudioError, match="not an audio file"):
            probe(tmp_path / name)


# Pieces joined end to end -------------------------------------------------------------------


def test_joined_mp3_files_are_read_whole(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp3", Track(noise(24_001), "libmp3lame"), tags={"title": "a"})
    path.write_bytes(path.read_bytes() * 3)

    samples = check_agreement(path)

    assert samples.shape[1] == pytest.approx(3 * 24_001, abs=3 * 2_500)
    assert np.abs(samples[:, -20_000:]).max() > 0.2
    assert probe(path).warnings == ()


@pytest.mark.parametrize("name", ["ogg", "opus"])
def test_joined_ogg_files_are_read_whole(tmp_path: Path, name: str) -> None:
    path = SMALL_FILES[name](tmp_path)
    path.write_bytes(path.read_bytes() * 2)

    samples = check_agreement(path)

    assert samples.shape[1] == pytest.approx(2 * 14_411, abs=600)
    assert "starts anew 1 time, first at 0.3" in probe(path).warnings[0]


# Holes and overlaps ---------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    first=st.integers(5, 30),
    length=st.integers(1, 25),
    codec=st.sampled_from(["aac", "pcm_s16le", "libopus"]),
)
def test_what_follows_a_hole_stays_in_time(
    tmp_path_factory: pytest.TempPathFactory, first: int, length: int, codec: str
) -> None:
    folder = tmp_path_factory.mktemp("holes")
    original = sweep(3 * RATE // 2)
    whole = write_media(folder / "whole.mkv", Track(original, codec))
    hole = range(first, first + length)
    holed = write_media(folder / "a.mkv", Track(original, codec, keep=lambda n: n not in hole))
    expected = read(whole).samples.numpy()

    samples = check_agreement(holed)

    frame = {"aac": 1024, "pcm_s16le": 1000, "libopus": 960}[codec]
    assert samples.shape == expected.shape
    # Behind the hole, decoders need some frames until they are back on track.
    tail = slice(-(RATE // 10), None)
    np.testing.assert_allclose(samples[:, tail], expected[:, tail], atol=0.1)
    (warning,) = probe(holed).warnings
    assert warning.startswith("filled 1 hole in the track with silence")
    assert f"{length * frame / RATE:.2f} s in all" in warning


def test_what_a_track_holds_twice_is_used_once(tmp_path: Path) -> None:
    original = noise(RATE)
    path = write_media(tmp_path / "a.mkv", Track(original, "pcm_s16le"))
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mkv"), "w") as output:
        track = source.streams.audio[0]
        copy = output.add_stream_from_template(track)
        packets = [packet for packet in source.demux(track) if packet.size]
        offset = 0
        for number, packet in enumerate(packets):
            packet.stream = copy
            packet.dts = None
            offset -= 100 if number == 20 else 0
            packet.pts += offset
            packet.dts = packet.pts
        # A muxer refuses to go back in time; so the packets that come again come first.
        for packet in sorted(packets, key=lambda packet: packet.pts):
            output.mux(packet)

    samples = check_agreement(tmp_path / "b.mkv")

    assert samples.shape[1] < original.shape[1]
    assert any("holds twice" in warning for warning in probe(tmp_path / "b.mkv").warnings)


# Damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "extension"), [("aac", "m4a"), ("alac", "m4a"), ("flac", "mp4"), ("aac", "mkv")]
)
def test_damage_in_the_middle_names_the_time(tmp_path: Path, codec: str, extension: str) -> None:
    path = write_media(tmp_path / f"a.{extension}", Track(noise(4 * RATE), codec))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    rng = np.random.default_rng(0)
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        packets = [(packet.pos, packet.size) for packet in container.demux(stream) if packet.size]
    for at, size in [packet for packet in packets if packet[0] > middle][:3]:
        content[at + 8 : at + size] = rng.bytes(size - 8)
    path.write_bytes(content)

    for attempt in (probe, read):
        with pytest.raises(AudioError, match=rf"a\.{extension}: damaged at about [12]\.\d\d s"):
            attempt(path)


@pytest.mark.parametrize(
    ("codec", "extension", "options"),
    [
        ("libmp3lame", "mp3", {}),
        ("aac", "mp4", {"movflags": "faststart"}),
        ("aac", "mkv", {}),
        ("libopus", "webm", {}),
    ],
)
def test_a_file_that_was_cut_short_is_read_with_a_warning(
    tmp_path: Path, codec: str, extension: str, options: dict[str, str]
) -> None:
    path = write_media(tmp_path / f"a.{extension}", Track(noise(4 * RATE), codec), options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    samples = check_agreement(path)

    assert 1.5 * RATE < samples.shape[1] < 2.5 * RATE
    (warning,) = probe(path).warnings
    assert warning.startswith("the file was cut short: its header says 4.0")


def test_an_mp4_without_its_index_is_refused(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", Track(noise(RATE), "aac"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(AudioError, match="not an audio file that can be read"):
        probe(path)


def test_junk_in_an_mp3_is_skipped_with_a_warning(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp3", Track(noise(2 * RATE), "libmp3lame"))
    content = path.read_bytes()
    middle = len(content) // 2
    rng = np.random.default_rng(0)
    path.write_bytes(content[:middle] + bytes(1_000) + rng.bytes(1_000) + content[middle:])

    samples = check_agreement(path)

    assert samples.shape[1] == pytest.approx(2 * RATE, abs=3 * 1_152)
    (warning,) = probe(path).warnings
    assert re.match(r"left out \d pieces? that cannot be decoded, the first at about \d", warning)


def test_garbage_before_an_mp3_does_not_matter(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp3", Track(noise(RATE), "libmp3lame"))
    path.write_bytes(np.random.default_rng(1).bytes(500) + path.read_bytes())

    assert check_agreement(path).shape[1] == pytest.approx(RATE, abs=4 * 1_152)


def test_an_id3_tag_in_the_middle_is_no_junk(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp3", Track(noise(RATE), "libmp3lame"))
    joined = write_media(tmp_path / "b.mp3", Track(noise(RATE), "libmp3lame"), tags={"title": "b"})
    path.write_bytes(path.read_bytes() + joined.read_bytes())

    assert check_agreement(path).shape[1] > 1.9 * RATE
    assert probe(path).warnings == ()


def test_a_change_of_rate_names_the_time(tmp_path: Path) -> None:
    parts = [
        write_media(tmp_path / f"{rate}.aac", Track(noise(rate // 2), "aac", rate)).read_bytes()
        for rate in (48_000, 44_100)
    ]
    path = tmp_path / "a.aac"
    path.write_bytes(b"".join(parts))

    with pytest.raises(
        AudioError, match=r"changes at 0\.5\d s from 2 channels at 48000 Hz to 2 at"
    ):
        read(path)


def test_a_rate_that_no_recording_has(tmp_path: Path) -> None:
    path = SMALL_FILES["wav"](tmp_path)
    content = bytearray(path.read_bytes())
    content[24:28] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(content)

    with pytest.raises(AudioError, match="2147483647 samples per second"):
        probe(path)


def test_what_is_not_a_number_is_refused_with_its_time(tmp_path: Path) -> None:
    samples = noise(RATE)
    samples[1, 12_000] = np.nan
    for path in (
        write_sound(tmp_path / "a.wav", samples, subtype="FLOAT"),
        write_media(tmp_path / "a.mkv", Track(samples, "pcm_f32le")),
    ):
        with pytest.raises(AudioError, match=r"the sample at 0\.2500 s is not a finite number"):
            read(path)


def test_many_channels_make_short_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((30_000, 1024), dtype=np.float32), 30_000)

    lengths = [block.shape[1] for block in read_blocks(path)]

    assert sum(lengths) == 30_000
    assert max(lengths) * 1024 * 4 <= 2**25


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = write_media(tmp_path / "a.m4a", Track(np.zeros((2, 120 * RATE), np.float32), "aac"))
    for _ in read_blocks(path):
        break
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    num_samples = sum(block.shape[1] for block in read_blocks(path))

    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert num_samples == 120 * RATE
    assert grown_kib < 20 * 1024, "two minutes are 45 MiB"


def test_reading_again_gives_the_same(tmp_path: Path) -> None:
    path = SMALL_FILES["mp4"](tmp_path)
    shutil.copy(path, tmp_path / "copy.mp4")

    for one, other in pairwise([read(path), read(path), read(tmp_path / "copy.mp4")]):
        torch.testing.assert_close(one.samples, other.samples, atol=0, rtol=0)


@pytest.mark.parametrize("length", [1, 255, 1024, 30007, 144005])
def test_the_last_samples_of_a_vorbis_file_are_there(tmp_path: Path, length: int) -> None:
    # FFmpeg's mark in the last packet would drop up to 256 of them.
    path = tmp_path / "sound.ogg"
    sound = 0.1 * np.random.default_rng(length).standard_normal((length, 2))
    soundfile.write(path, sound, 48000, format="OGG", subtype="VORBIS")
    expected, _ = soundfile.read(path, dtype="float32")
    assert len(expected) == probe(path).num_samples == length
    np.testing.assert_allclose(read(path).samples.numpy(), expected.T, atol=1e-6)
