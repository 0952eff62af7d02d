"""Encoding: exact samples, whole files or none, and plain words about what does not fit."""

import errno
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from unbraid.audio import AtomicWriter, AudioFormat, AudioInfo, FormatChoice, read, write
from unbraid.audio import encode as encode_module
from unbraid.errors import AudioError, ConfigError
from unbraid.types import Waveform

RATE = 16_000
EVERY_FORMAT = [
    AudioFormat("wav", "PCM_16"),
    AudioFormat("wav", "PCM_24"),
    AudioFormat("wav", "PCM_32"),
    AudioFormat("wav", "FLOAT"),
    AudioFormat("flac", "PCM_16"),
    AudioFormat("flac", "PCM_24"),
]
BITS = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}


def noise(num_samples: int, num_channels: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num_channels, num_samples, generator=generator) * 1.8 - 0.9


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def write_blocks(
    path: Path, *blocks: torch.Tensor, then: type[BaseException] | None = None
) -> None:
    """Write block by block, and fail afterwards if asked to."""
    with AtomicWriter(path, AudioFormat(), RATE, 2) as writer:
        for block in blocks:
            writer.write(block)
        if then is not None:
            raise then


@pytest.mark.parametrize("audio_format", EVERY_FORMAT, ids=str)
@pytest.mark.parametrize("num_samples", [0, 1, 3, RATE])
def test_length_rate_and_channels_come_back(
    tmp_path: Path, audio_format: AudioFormat, num_samples: int
) -> None:
    path = tmp_path / f"a.{audio_format.extension}"
    samples = noise(num_samples)

    write(path, Waveform(samples, RATE), audio_format)

    info = soundfile.info(path)
    assert info.format == audio_format.container.upper()
    assert info.subtype == audio_format.subtype
    found = read(path)
    assert found.sample_rate == RATE
    assert found.samples.shape == (2, num_samples)
    step = 2.0 ** -(BITS.get(audio_format.subtype, 25) - 1)
    torch.testing.assert_close(found.samples, samples, atol=step / 2 + 6e-8, rtol=0)


@pytest.mark.parametrize("container", ["wav", "flac"])
def test_every_16_bit_value_goes_back_unchanged(tmp_path: Path, container: str) -> None:
    values = torch.arange(-32768, 32768)[None] / 32768
    path = tmp_path / f"a.{container}"

    write(path, Waveform(values, RATE), AudioFormat(container, "PCM_16"))

    assert torch.equal(read(path).samples, values)


def test_rounding_has_no_offset(tmp_path: Path) -> None:
    """libsndfile's own conversion rounds down, an offset of half a step."""
    quiet = noise(RATE) / 32768 * 4
    path = tmp_path / "a.wav"

    write(path, Waveform(quiet, RATE), AudioFormat("wav", "PCM_16"))

    error = read(path).samples.double() - quiet.double()
    assert abs(error.mean()) * 32768 < 0.01


def test_beyond_full_scale_is_clipped_not_wrapped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with AtomicWriter(path, AudioFormat(), RATE, 1) as writer:
        writer.write(torch.tensor([[0.5, 1.7, -2.0]]))
        assert writer.peak == 2.0

    assert read(path).samples.tolist() == [[0.5, 32767 / 32768, -1.0]]


def test_float_keeps_what_is_beyond_full_scale(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path, Waveform(torch.tensor([[1.7, -2.0]]), RATE))

    torch.testing.assert_close(read(path).samples, torch.tensor([[1.7, -2.0]]))


def test_32_channels_and_192_khz(tmp_path: Path) -> None:
    samples = noise(100, 32)
    write(tmp_path / "a.wav", Waveform(samples, 192_000))

    found = read(tmp_path / "a.wav")
    assert found.samples.shape == (32, 100)
    assert found.sample_rate == 192_000


@pytest.mark.parametrize(
    ("num_channels", "rate", "words"),
    [(9, 48_000, "8 channels at most, not 9"), (1, 700_000, "700000 Hz"), (1, 88_201, "88201 Hz")],
)
def test_what_flac_cannot_hold(tmp_path: Path, num_channels: int, rate: int, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        AtomicWriter(tmp_path / "new" / "a.flac", AudioFormat("flac"), rate, num_channels)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("rate", [8_000, 65_535, 192_000, 655_350])
def test_rates_that_flac_holds(tmp_path: Path, rate: int) -> None:
    write(tmp_path / "a.flac", Waveform(noise(10), rate), AudioFormat("flac"))

    assert read(tmp_path / "a.flac").sample_rate == rate


def test_large_wav_becomes_rf64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_module, "_LARGEST_WAV_BYTES", 1000)
    samples = noise(RATE)

    write(tmp_path / "a.wav", Waveform(samples, RATE), AudioFormat("wav", "FLOAT"))

    assert soundfile.info(tmp_path / "a.wav").format == "RF64"
    assert torch.equal(read(tmp_path / "a.wav").samples, samples)


def test_wav_of_unknown_length_does_not_outgrow_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_module, "_LARGEST_WAV_BYTES", 1000)
    with pytest.raises(AudioError, match="cannot grow beyond 4 GB"):
        write_blocks(tmp_path / "a.wav", noise(RATE))
    assert leftovers(tmp_path) == []


def test_samples_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    block = noise(RATE)
    broken = block.clone()
    broken[0, 5] = torch.nan
    with pytest.raises(AudioError, match=r"after 1\.00 s is not a finite number"):
        write_blocks(tmp_path / "a.wav", block, broken)
    assert leftovers(tmp_path) == []


def test_file_is_invisible_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.wav"
    with AtomicWriter(path, AudioFormat(), RATE, 2) as writer:
        writer.write(noise(RATE))
        assert not path.exists()
    assert leftovers(path.parent) == ["a.wav"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_interruption_leaves_neither_files_nor_folders(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    with pytest.raises(interruption):
        write_blocks(tmp_path / "new" / "folder" / "a.wav", noise(RATE), then=interruption)
    assert leftovers(tmp_path) == []


def test_interruption_keeps_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path, Waveform(noise(10), RATE))
    former = path.read_bytes()
    with pytest.raises(RuntimeError):
        write_blocks(path, noise(RATE), then=RuntimeError)
    assert path.read_bytes() == former
    assert leftovers(tmp_path) == ["a.wav"]


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


class FullFromTheStart(soundfile.SoundFile):
    def __init__(self, *args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("kind", [FullDisk, SwallowedWrite, FullFromTheStart])
def test_full_disk_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    monkeypatch.setattr(encode_module.soundfile, "SoundFile", kind)
    path = tmp_path / "new" / "a.wav"
    with pytest.raises(AudioError, match="nothing half-written was kept") as caught:
        write_blocks(path, noise(RATE), noise(RATE))
    assert str(path) in str(caught.value)
    assert leftovers(tmp_path) == []


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(AudioError, match="cannot be written"):
        write(tmp_path / "taken" / "a.wav", Waveform(noise(10), RATE))
    assert leftovers(tmp_path) == ["taken"]


def test_no_permission_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root is refused nothing otherwise
    with pytest.raises(AudioError, match="no permission to write there"):
        write(tmp_path / "new" / "a.wav", Waveform(noise(10), RATE))
    monkeypatch.undo()
    assert leftovers(tmp_path) == []


def source(subtype: str, container: str = "WAV") -> AudioInfo:
    return AudioInfo(RATE, 2, 10, container, subtype)


@pytest.mark.parametrize(
    ("stored", "in_wav", "in_flac"),
    [
        ("PCM_16", "PCM_16", "PCM_16"),
        ("PCM_24", "PCM_24", "PCM_24"),
        ("PCM_32", "PCM_32", "PCM_24"),
        ("FLOAT", "FLOAT", "PCM_24"),
        ("DOUBLE", "FLOAT", "PCM_24"),
        ("PCM_U8", "PCM_16", "PCM_16"),
        ("ULAW", "PCM_16", "PCM_16"),
        ("VORBIS", "PCM_16", "PCM_16"),
        ("MPEG_LAYER_III", "PCM_16", "PCM_16"),
    ],
)
def test_depth_follows_the_recording(stored: str, in_wav: str, in_flac: str) -> None:
    assert FormatChoice().for_source(source(stored)) == AudioFormat("wav", in_wav)
    assert FormatChoice(flac=True).for_source(source(stored)) == AudioFormat("flac", in_flac)
    assert FormatChoice(int24=True).for_source(source(stored)) == AudioFormat("wav", "PCM_24")
    assert FormatChoice(float32=True).for_source(source(stored)) == AudioFormat("wav", "FLOAT")


@pytest.mark.parametrize("wishes", [{"flac": True}, {"int24": True}])
def test_wishes_that_exclude_each_other(wishes: dict[str, bool]) -> None:
    with pytest.raises(ConfigError, match="--float32"):
        FormatChoice(float32=True, **wishes)
    with pytest.raises(ConfigError, match="FLAC cannot hold"):
        AudioFormat("flac", "FLOAT")
