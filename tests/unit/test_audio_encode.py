"""Encoding: exact samples, exact lengths, whole files or none, plain words about what is not."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from full_disk import limit_files
from unbraid.audio import AtomicWriter, AudioFormat, write
from unbraid.audio import encoders as encoders_module
from unbraid.errors import AudioError, DiskError
from unbraid.types import Waveform

RATE = 16_000
LOSSLESS = [
    AudioFormat("wav", "PCM_16"),
    AudioFormat("wav", "PCM_24"),
    AudioFormat("wav", "PCM_32"),
    AudioFormat("wav", "FLOAT"),
    AudioFormat("flac", "PCM_16"),
    AudioFormat("flac", "PCM_24"),
]
OGG = AudioFormat("ogg", "VORBIS")
OPUS = AudioFormat("opus", "OPUS")
MP3 = AudioFormat("mp3", "MPEG_LAYER_III")
M4A = AudioFormat("m4a", "AAC")
LOSSY = [OGG, OPUS, MP3, M4A]
BITS = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}


def noise(num_samples: int, num_channels: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num_channels, num_samples, generator=generator) * 1.8 - 0.9


def clicks(num_samples: int, positions: list[int], num_channels: int = 1) -> torch.Tensor:
    samples = torch.zeros(num_channels, num_samples)
    samples[:, positions] = 0.9
    return samples


def rate_of(audio_format: AudioFormat) -> int:
    return audio_format.rate_for(RATE)


def read_with_libsndfile(path: Path) -> torch.Tensor:
    samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T)


def read_with_ffmpeg(path: Path) -> torch.Tensor:
    """Samples, cut to the length that the container states where it states one."""
    blocks = []
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        num_channels = stream.codec_context.channels
        to_floats = av.AudioResampler(format="flt")
        for frame in container.decode(stream):
            for same in to_floats.resample(frame):
                blocks.append(same.to_ndarray().reshape(-1, num_channels).T)
        length = None
        if container.format.name.startswith("mov"):
            length = round(stream.duration * stream.time_base * stream.codec_context.sample_rate)
    samples = np.concatenate([np.zeros((num_channels, 0), np.float32), *blocks], axis=1)
    return torch.from_numpy(samples[:, :length].copy())


def read_back(path: Path) -> torch.Tensor:
    return (read_with_ffmpeg if path.suffix == ".m4a" else read_with_libsndfile)(path)


def tags_of(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        tags = {**container.streams.audio[0].metadata, **container.metadata}
    return {key.lower(): value for key, value in tags.items()}


def layout_of(path: Path) -> str:
    with av.open(str(path)) as container:
        return container.streams.audio[0].layout.name


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def write_blocks(
    path: Path,
    *blocks: torch.Tensor,
    audio_format: AudioFormat | None = None,
    rate: int = RATE,
    then: type[BaseException] | None = None,
    **known: object,
) -> None:
    """Write block by block, and fail afterwards if asked to."""
    chosen = audio_format or AudioFormat()
    num_channels = blocks[0].shape[0] if blocks else 2
    with AtomicWriter(path, chosen, rate, num_channels, **known) as writer:
        for block in blocks:
            writer.write(block)
        if then is not None:
            raise then


# ------------------------------------------------------------------ samples and lengths


@pytest.mark.parametrize("audio_format", LOSSLESS, ids=str)
@pytest.mark.parametrize("num_samples", [1, 3, RATE])
def test_length_rate_and_channels_come_back(
    tmp_path: Path, audio_format: AudioFormat, num_samples: int
) -> None:
    path = tmp_path / f"a.{audio_format.extension}"
    samples = noise(num_samples)

    write(path, Waveform(samples, RATE), audio_format)

    info = soundfile.info(path)
    assert (info.samplerate, info.frames) == (RATE, num_samples)
    assert info.format.removesuffix("EX") == audio_format.container.upper()
    assert info.subtype == audio_format.subtype
    step = 2.0 ** -(BITS.get(audio_format.subtype, 25) - 1)
    for read in (read_with_libsndfile, read_with_ffmpeg):
        torch.testing.assert_close(read(path), samples, atol=step / 2 + 6e-8, rtol=0)


@pytest.mark.parametrize("audio_format", LOSSLESS + LOSSY, ids=str)
def test_files_without_samples_are_files(tmp_path: Path, audio_format: AudioFormat) -> None:
    path = tmp_path / f"a.{audio_format.extension}"

    write_blocks(path, torch.zeros(2, 0), audio_format=audio_format, rate=48_000)

    assert read_with_ffmpeg(path).shape == (2, 0)
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec_context.sample_rate == 48_000
    if audio_format.container not in ("flac", "m4a"):
        assert read_with_libsndfile(path).shape == (2, 0)


@pytest.mark.parametrize("container", ["wav", "flac"])
def test_every_16_bit_value_goes_back_unchanged(tmp_path: Path, container: str) -> None:
    values = torch.arange(-32768, 32768)[None] / 32768
    path = tmp_path / f"a.{container}"

    write(path, Waveform(values, RATE), AudioFormat(container, "PCM_16"))

    assert torch.equal(read_with_libsndfile(path), values)


@pytest.mark.parametrize("container", ["wav", "flac"])
def test_24_bit_values_go_back_unchanged(tmp_path: Path, container: str) -> None:
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(-(2**23), 2**23, (2, 10_000), generator=generator)
    whole[:, :4] = torch.tensor([-(2**23), 2**23 - 1, -1, 1])
    path = tmp_path / f"a.{container}"

    write(path, Waveform(whole / 2.0**23, RATE), AudioFormat(container, "PCM_24"))

    stored, _ = soundfile.read(path, dtype="int32")
    assert np.array_equal(stored.T >> 8, whole.numpy())


def test_rounding_has_no_offset(tmp_path: Path) -> None:
    quiet = noise(RATE) / 32768 * 4
    path = tmp_path / "a.wav"

    write(path, Waveform(quiet, RATE), AudioFormat("wav", "PCM_16"))

    error = read_with_libsndfile(path).double() - quiet.double()
    assert abs(error.mean()) * 32768 < 0.01


def test_beyond_full_scale_is_clipped_not_wrapped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with AtomicWriter(path, AudioFormat(), RATE, 1) as writer:
        writer.write(torch.tensor([[0.5, 1.7, -2.0, 3e38, -3e38]]))
        assert writer.peak == pytest.approx(3e38)

    largest = 32767 / 32768
    assert read_with_libsndfile(path).tolist() == [[0.5, largest, -1.0, largest, -1.0]]


def test_float_keeps_what_is_beyond_full_scale(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path, Waveform(torch.tensor([[1.7, -2.0]]), RATE))

    torch.testing.assert_close(read_with_libsndfile(path), torch.tensor([[1.7, -2.0]]))


@pytest.mark.parametrize(
    ("audio_format", "scale"),
    [
        *((audio_format, 1e-30) for audio_format in LOSSY),
        *((audio_format, 0.9) for audio_format in LOSSY),
        *((audio_format, audio_format.highest_peak) for audio_format in LOSSY),
    ],
    ids=str,
)
def test_lossy_formats_keep_levels_up_to_their_highest_peak(
    tmp_path: Path, audio_format: AudioFormat, scale: float
) -> None:
    path = tmp_path / f"a.{audio_format.extension}"
    samples = torch.sin(torch.arange(24_000) / 20)[None] * scale

    with AtomicWriter(path, audio_format, 48_000, 1) as writer:
        writer.write(samples)
    assert writer.peak == pytest.approx(scale)

    heard = slice(2400, -2400)
    level = read_back(path)[0, heard].double().square().mean().sqrt()
    expected = samples[0, heard].double().square().mean().sqrt()
    assert float(level) == pytest.approx(float(expected), rel=0.02, abs=1e-4)


@pytest.mark.parametrize("audio_format", LOSSY, ids=str)
def test_absurd_values_do_no_harm(tmp_path: Path, audio_format: AudioFormat) -> None:
    """Far beyond full scale libopus falls silent and LAME ends the process."""
    path = tmp_path / f"a.{audio_format.extension}"

    write_blocks(path, noise(24_000) * 3e38, audio_format=audio_format, rate=48_000)

    found = read_back(path)
    assert found.shape == (2, 24_000)
    assert found.isfinite().all()
    assert found.abs().max() > 0.5


def test_highest_peaks_of_lossless_formats() -> None:
    assert AudioFormat("flac").highest_peak == 1.0
    assert AudioFormat("wav", "FLOAT").highest_peak == float("inf")


def test_many_channels_and_192_khz(tmp_path: Path) -> None:
    samples = noise(100, 255)
    write(tmp_path / "a.wav", Waveform(samples, 192_000))

    assert torch.equal(read_with_libsndfile(tmp_path / "a.wav"), samples)
    assert soundfile.info(tmp_path / "a.wav").samplerate == 192_000


@pytest.mark.parametrize("rate", [8_000, 65_535, 192_000, 655_350])
def test_rates_that_flac_holds(tmp_path: Path, rate: int) -> None:
    write(tmp_path / "a.flac", Waveform(noise(10), rate), AudioFormat("flac"))

    assert soundfile.info(tmp_path / "a.flac").samplerate == rate


@pytest.mark.parametrize(
    ("audio_format", "rate"),
    [
        *(
            (AudioFormat(container), rate)
            for container in ("wav", "flac")
            for rate in (8_000, 192_000)
        ),
        *((OGG, rate) for rate in (8_000, 44_100, 192_000)),
        (OPUS, 48_000),
        *((MP3, rate) for rate in (8_000, 22_050, 44_100, 48_000)),
        *((M4A, rate) for rate in (8_000, 44_100, 96_000)),
    ],
    ids=str,
)
def test_clicks_stay_where_they_are(tmp_path: Path, audio_format: AudioFormat, rate: int) -> None:
    path = tmp_path / f"a.{audio_format.extension}"
    num_samples = rate + 7
    positions = [0, rate // 3, rate // 2 + 1, num_samples - 1]
    samples = clicks(num_samples, positions)

    write_blocks(path, *samples.split(777, dim=1), audio_format=audio_format, rate=rate)

    readers = [read_with_ffmpeg] if path.suffix == ".m4a" else [read_with_libsndfile]
    if path.suffix in (".wav", ".flac", ".opus", ".mp3"):
        readers.append(read_with_ffmpeg)
    for read in readers:
        found = read(path)
        assert found.shape == (1, num_samples)
        for position in positions:
            near = found[0, max(0, position - 200) : position + 200].abs()
            assert int(near.argmax()) + max(0, position - 200) == position


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    audio_format=st.sampled_from([AudioFormat("flac"), AudioFormat(), *LOSSY]),
    lengths=st.lists(st.integers(0, 2500), max_size=4),
    rate=st.sampled_from([8_000, 22_050, 44_100, 48_000]),
)
def test_length_is_exact_whatever_the_blocks(
    tmp_path: Path, audio_format: AudioFormat, lengths: list[int], rate: int
) -> None:
    path = tmp_path / f"a.{audio_format.extension}"
    rate = audio_format.rate_for(rate)

    write_blocks(
        path, *(noise(length, 1) for length in lengths), audio_format=audio_format, rate=rate
    )

    if sum(lengths) or audio_format.container != "flac":
        assert read_back(path).shape[1] == sum(lengths)


@pytest.mark.parametrize("audio_format", [AudioFormat("flac"), OPUS, MP3, M4A], ids=str)
def test_blocks_of_one_sample_give_the_same_file(tmp_path: Path, audio_format: AudioFormat) -> None:
    samples = noise(1500)
    rate = rate_of(audio_format)
    one, many = (tmp_path / f"{name}.{audio_format.extension}" for name in ("one", "many"))

    write_blocks(one, samples, audio_format=audio_format, rate=rate)
    write_blocks(many, *samples.split(1, dim=1), audio_format=audio_format, rate=rate)

    torch.testing.assert_close(read_back(one), read_back(many), atol=0, rtol=0)


@pytest.mark.parametrize("audio_format", [*LOSSLESS, OPUS, MP3, M4A], ids=str)
def test_same_samples_give_the_same_bytes(tmp_path: Path, audio_format: AudioFormat) -> None:
    files = [tmp_path / f"{name}.{audio_format.extension}" for name in ("a", "b")]
    for path in files:
        write_blocks(path, noise(5000), audio_format=audio_format, rate=rate_of(audio_format))

    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("audio_format", [OGG, OPUS, MP3, M4A], ids=str)
def test_more_bits_make_larger_files(tmp_path: Path, audio_format: AudioFormat) -> None:
    sizes = []
    for kbps in (64, 128, 256):
        chosen = AudioFormat(audio_format.container, audio_format.subtype, kbps)
        path = tmp_path / f"{kbps}.{chosen.extension}"
        write_blocks(path, noise(48_000), audio_format=chosen, rate=48_000)
        sizes.append(path.stat().st_size)

    assert sizes[0] < sizes[1] < sizes[2]
    if audio_format is MP3:
        assert sizes[1] == pytest.approx(16_000, rel=0.1)  # a second at 128 kbit/s


# ------------------------------------------------------------------ channels


@pytest.mark.parametrize(
    "layout", ["2.1", "3.0", "quad", "5.0", "5.1", "5.1(side)", "6.1", "7.1", "7.1(wide)"]
)
@pytest.mark.parametrize("container", ["wav", "flac"])
def test_layout_is_kept(tmp_path: Path, container: str, layout: str) -> None:
    path = tmp_path / f"a.{container}"
    num_channels = av.AudioLayout(layout).nb_channels

    write_blocks(
        path, noise(9, num_channels), audio_format=AudioFormat(container), channel_layout=layout
    )

    assert layout_of(path) == layout


@pytest.mark.parametrize("layout", ["", "3 channels", "nonsense", "stereo", "FL+FR+LFE"])
def test_layouts_that_are_not_known_are_left_open(tmp_path: Path, layout: str) -> None:
    write_blocks(tmp_path / "a.wav", noise(9, 3), channel_layout=layout)

    assert layout_of(tmp_path / "a.wav") == "3 channels"


@pytest.mark.parametrize(
    ("audio_format", "counts"),
    [
        (OGG, range(1, 9)),
        (OPUS, (1, 2, 3, 4, 6, 8)),
        (M4A, range(1, 9)),
        (AudioFormat("flac"), range(1, 9)),
    ],
    ids=str,
)
def test_every_channel_comes_back_in_its_place(
    tmp_path: Path, audio_format: AudioFormat, counts: range
) -> None:
    """Vorbis and Opus have orders of their own; a player must not notice."""
    path = tmp_path / f"a.{audio_format.extension}"
    for num_channels in counts:
        length = 3000 * (num_channels + 1)
        samples = torch.zeros(num_channels, length)
        for channel in range(num_channels):  # one after the other
            samples[channel, 3000 * (channel + 1) - 500 : 3000 * (channel + 1) + 500] = (
                torch.sin(torch.arange(1000) / 8) * 0.8
            )

        write_blocks(path, samples, audio_format=audio_format, rate=48_000)

        energy = read_with_ffmpeg(path)[:, : length // 3000 * 3000].square()
        centres = (energy * torch.arange(energy.shape[1])).sum(dim=1) / energy.sum(dim=1)
        assert (centres / 3000).round().tolist() == list(range(1, num_channels + 1))


def test_speakers_at_the_side_are_speakers_at_the_back_in_lossy_files(tmp_path: Path) -> None:
    for audio_format in (OPUS, M4A):
        path = tmp_path / f"a.{audio_format.extension}"
        write_blocks(
            path,
            noise(999, 6),
            audio_format=audio_format,
            rate=48_000,
            channel_layout="5.1(side)",
        )
        assert layout_of(path) == "5.1"


def test_layout_that_opus_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"opus cannot hold 2\.1 channels, only 3\.0"):
        AtomicWriter(tmp_path / "new" / "a.opus", OPUS, 48_000, 3, channel_layout="2.1")
    assert leftovers(tmp_path) == []


def test_what_does_not_fit_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="2 channels at most, not 6"):
        AtomicWriter(tmp_path / "new" / "a.mp3", MP3, 48_000, 6)
    assert leftovers(tmp_path) == []


# ------------------------------------------------------------------ tags and place in time

TAGS = {
    "title": "Grüße 🎧",
    "artist": "Ærøskøbing",
    "album": "長い",
    "date": "2024-05-06",
    "genre": "Rock",
    "track": "3",
    "comment": "two\nlines",
    "copyright": "© 2024",
}


@pytest.mark.parametrize("audio_format", [AudioFormat(), AudioFormat("flac"), *LOSSY], ids=str)
def test_tags_are_kept(tmp_path: Path, audio_format: AudioFormat) -> None:
    path = tmp_path / f"a.{audio_format.extension}"

    write_blocks(
        path, noise(2000), audio_format=audio_format, rate=rate_of(audio_format), tags=TAGS
    )

    found = tags_of(path)
    assert {key: found.get(key) for key in TAGS} == TAGS


@pytest.mark.parametrize("audio_format", [AudioFormat(), AudioFormat("flac"), MP3, M4A], ids=str)
def test_language_is_kept(tmp_path: Path, audio_format: AudioFormat) -> None:
    path = tmp_path / f"a.{audio_format.extension}"

    write_blocks(path, noise(2000), audio_format=audio_format, tags={"language": "deu"})

    assert tags_of(path)["language"] == "deu"


@pytest.mark.parametrize("audio_format", [AudioFormat(), AudioFormat("flac"), *LOSSY], ids=str)
def test_absurd_tags_do_no_harm(tmp_path: Path, audio_format: AudioFormat) -> None:
    path = tmp_path / f"a.{audio_format.extension}"
    absurd = {
        "title": "a\x00b\x1b[31mc",
        "artist": "half a pair \ud83d.",
        "comment": "x" * 10**6,
        "key=with equals": "y",
        "": "nameless",
        "empty": "",
        **{f"tag{number}": "z" * 10**6 for number in range(40)},
    }

    write_blocks(
        path, noise(2000), audio_format=audio_format, rate=rate_of(audio_format), tags=absurd
    )

    found = tags_of(path)
    assert found["title"] == "ab[31mc"
    assert found["artist"] == "half a pair ."
    assert set(found["comment"]) == {"x"}
    assert path.stat().st_size < 2_500_000
    assert read_back(path).shape == (2, 2000)


def test_what_is_true_of_the_recording_only_is_left_out(tmp_path: Path) -> None:
    stale = {
        "encoder": "X",
        "REPLAYGAIN_TRACK_GAIN": "-3 dB",
        "iTunSMPB": "0",
        "major_brand": "M4A",
    }

    write_blocks(tmp_path / "a.flac", noise(9), audio_format=AudioFormat("flac"), tags=stale)

    assert tags_of(tmp_path / "a.flac") == {}


@pytest.mark.parametrize(
    ("tags", "start_s", "reference"),
    [
        ({}, 0.0, None),
        ({}, 2.5, 40_000),
        ({"time_reference": "1000"}, 0.0, 1_000),
        ({"TIME_REFERENCE": "1000"}, 0.5, 9_000),
        ({"time_reference": "0"}, 0.0, 0),
        ({"time_reference": "86400000000"}, 0.0, 86_400_000_000),
        pytest.param({"time_reference": "9" * 5000}, 0.0, None, id="absurd"),
        ({"time_reference": "noon"}, 0.0, None),
        ({}, -1.0, 0),
    ],
)
@pytest.mark.parametrize("container", ["wav", "flac"])
def test_place_in_time_is_kept(
    tmp_path: Path, container: str, tags: dict[str, str], start_s: float, reference: int | None
) -> None:
    path = tmp_path / f"a.{container}"

    write_blocks(path, noise(9), audio_format=AudioFormat(container), tags=tags, start_s=start_s)

    found = tags_of(path).get("time_reference")
    assert found == (None if reference is None else str(reference))
    content = path.read_bytes()
    if container == "wav":
        assert (b"bext" in content) == (reference is not None)
        if reference is not None:
            # EBU Tech 3285: 338 bytes of text stand before the 64 bits of the reference.
            start = content.index(b"bext") + 8 + 338
            assert struct.unpack_from("<Q", content, start) == (reference,)


# ------------------------------------------------------------------ size, errors, appearance


def test_wav_has_room_to_grow_past_4_gb(tmp_path: Path) -> None:
    write_blocks(tmp_path / "a.wav", noise(RATE), audio_format=AudioFormat("wav", "FLOAT"))

    content = (tmp_path / "a.wav").read_bytes()
    assert content[:4] == b"RIFF"
    assert content[12:16] == b"JUNK", "where the 64-bit sizes go once they are needed"
    assert struct.unpack_from("<I", content, 16)[0] >= 28


@pytest.mark.slow
def test_wav_past_4_gb_is_rf64(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    block = torch.zeros(8, 1 << 20)
    block[:, 0] = 0.5
    with AtomicWriter(path, AudioFormat("wav", "FLOAT"), 48_000, 8) as writer:
        for _ in range(130):
            writer.write(block)

    info = soundfile.info(path)
    assert (info.format, info.frames) == ("RF64", 130 << 20)
    with soundfile.SoundFile(path) as file:
        file.seek(129 << 20)
        assert file.read(2)[:, 0].tolist() == [0.5, 0.0]


def test_samples_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    block = noise(RATE)
    broken = block.clone()
    broken[0, 5] = torch.nan
    with pytest.raises(AudioError, match=r"after 1\.00 s is not a finite number"):
        write_blocks(tmp_path / "a.wav", block, broken)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("audio_format", [AudioFormat(), *LOSSY], ids=str)
def test_file_is_invisible_until_it_is_whole(tmp_path: Path, audio_format: AudioFormat) -> None:
    path = tmp_path / "new" / "folder" / f"a.{audio_format.extension}"
    with AtomicWriter(path, audio_format, rate_of(audio_format), 2) as writer:
        writer.write(noise(RATE))
        assert not path.exists()
    assert leftovers(path.parent) == [path.name]


def test_several_files_can_wait_for_each_other(tmp_path: Path) -> None:
    writers = [AtomicWriter(tmp_path / f"{name}.wav", AudioFormat(), RATE, 1) for name in "ab"]
    for writer in writers:
        writer.write(noise(10, 1))
        writer.finish()
    assert not list(tmp_path.glob("*.wav"))
    for writer in writers:
        writer.publish()
        writer.discard()
    assert leftovers(tmp_path) == ["a.wav", "b.wav"]


@pytest.mark.parametrize("audio_format", [AudioFormat(), *LOSSY], ids=str)
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_interruption_leaves_neither_files_nor_folders(
    tmp_path: Path, audio_format: AudioFormat, interruption: type[BaseException]
) -> None:
    path = tmp_path / "new" / "folder" / f"a.{audio_format.extension}"
    with pytest.raises(interruption):
        write_blocks(
            path,
            noise(RATE),
            audio_format=audio_format,
            rate=rate_of(audio_format),
            then=interruption,
        )
    assert leftovers(tmp_path) == []


def test_interruption_keeps_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path, Waveform(noise(10), RATE))
    former = path.read_bytes()
    with pytest.raises(RuntimeError):
        write_blocks(path, noise(RATE), then=RuntimeError)
    assert path.read_bytes() == former
    assert leftovers(tmp_path) == ["a.wav"]


@pytest.mark.parametrize(
    "audio_format", [AudioFormat(), AudioFormat("flac"), OPUS, MP3, M4A], ids=str
)
@pytest.mark.parametrize("num_bytes", [0, 10, 3000])
def test_full_disk_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, audio_format: AudioFormat, num_bytes: int
) -> None:
    limit_files(monkeypatch, num_bytes)
    path = tmp_path / "new" / f"a.{audio_format.extension}"
    with pytest.raises(DiskError, match=r"No space left on device.*nothing half-written") as caught:
        write_blocks(path, noise(48_000), audio_format=audio_format, rate=48_000)
    assert str(path) in str(caught.value)
    assert leftovers(tmp_path) == []


def test_samples_that_do_not_arrive_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_files(monkeypatch, 40_000, complains=False)
    with pytest.raises(AudioError, match="not all samples have arrived"):
        write_blocks(tmp_path / "a.wav", noise(RATE))
    assert leftovers(tmp_path) == []


class FullDisk(soundfile.SoundFile):
    """Fails at the second write, as libsndfile does on a full disk."""

    num_writes = 0

    def write(self, data: np.ndarray) -> None:
        type(self).num_writes += 1
        if type(self).num_writes == 2:
            raise soundfile.LibsndfileError(2)
        super().write(data)


class SwallowedWrite(soundfile.SoundFile):
    """Takes samples and stores half of them without a word."""

    def write(self, data: np.ndarray) -> None:
        super().write(data[: len(data) // 2])


@pytest.mark.parametrize("kind", [FullDisk, SwallowedWrite])
def test_full_disk_with_libsndfile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    monkeypatch.setattr(encoders_module.soundfile, "SoundFile", kind)
    with pytest.raises(DiskError, match="nothing half-written was kept"):
        write_blocks(tmp_path / "new" / "a.ogg", noise(RATE), noise(RATE), audio_format=OGG)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("audio_format", [AudioFormat(), OGG], ids=str)
def test_folder_that_is_a_file(tmp_path: Path, audio_format: AudioFormat) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(AudioError, match="cannot be written"):
        write(tmp_path / "taken" / "a.wav", Waveform(noise(10), RATE), audio_format)
    assert leftovers(tmp_path) == ["taken"]


def test_name_that_is_too_long_shows_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="cannot be written"):
        AtomicWriter(tmp_path / ("a" * 300), AudioFormat(), RATE, 2)
    assert leftovers(tmp_path) == []


def refuse(*args: object, **kwargs: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("name", ["open", "replace"])
def test_no_permission_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(Path, name, refuse)  # root is refused nothing otherwise
    with pytest.raises(AudioError, match="no permission to write there"):
        write(tmp_path / "new" / "a.wav", Waveform(noise(10), RATE))
    monkeypatch.undo()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("make_name", [str, "ü:{}\n%".format, "concat:{}".format])
def test_odd_names_are_names(tmp_path: Path, make_name: Callable[[str], str]) -> None:
    for audio_format in (AudioFormat(), OGG, M4A):
        path = tmp_path / make_name(f"a.{audio_format.extension}")
        write(path, Waveform(noise(1000), RATE), audio_format)
        assert path.is_file()
