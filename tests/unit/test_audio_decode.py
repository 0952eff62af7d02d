"""Decoding: every sample that is there, in blocks, or an error that says what is wrong."""

import itertools
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from unbraid.audio import probe, read, read_blocks
from unbraid.errors import AudioError

RATE = 16_000


def noise(num_samples: int, num_channels: int = 2) -> np.ndarray:
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (num_samples, num_channels))
    return samples.astype(np.float32)


def write(path: Path, samples: np.ndarray, subtype: str = "PCM_16", rate: int = RATE) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def without_length(flac: Path) -> Path:
    """What `ffmpeg -f flac - > file` leaves: a header that does not know the length."""
    content = bytearray(flac.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    flac.write_bytes(content)
    return flac


@pytest.mark.parametrize(
    ("name", "subtype", "rate", "num_channels"),
    [
        ("a.wav", "PCM_16", 8_000, 1),
        ("a.wav", "FLOAT", 44_100, 2),
        ("a.wav", "PCM_24", 192_000, 1),
        ("a.wav", "PCM_16", 48_000, 32),
        ("a.flac", "PCM_24", 48_000, 8),
        ("a.aiff", "PCM_16", 44_100, 2),
        ("a.ogg", "VORBIS", 44_100, 2),
        ("a.opus", "OPUS", 48_000, 2),
        ("a.mp3", "MPEG_LAYER_III", 44_100, 2),
    ],
)
def test_probe_agrees_with_what_comes_out(
    tmp_path: Path, name: str, subtype: str, rate: int, num_channels: int
) -> None:
    path = tmp_path / name
    format_ = "OGG" if name.endswith("opus") else None
    soundfile.write(path, noise(2 * rate + 7, num_channels), rate, subtype=subtype, format=format_)

    info = probe(path)
    waveform = read(path)

    assert (info.sample_rate, info.num_channels, info.num_samples) == (
        rate,
        num_channels,
        2 * rate + 7,
    )
    assert info.subtype == subtype
    assert info.warnings == ()
    assert waveform.samples.shape == (num_channels, 2 * rate + 7)
    assert waveform.sample_rate == rate


def test_blocks_hold_every_sample_in_order(tmp_path: Path) -> None:
    samples = noise(RATE + 123)
    path = write(tmp_path / "a.wav", samples, "FLOAT")

    blocks = list(read_blocks(path, block_s=0.25))

    assert [block.shape[1] for block in blocks] == [4000, 4000, 4000, 4000, 123]
    torch.testing.assert_close(
        torch.cat(blocks, dim=1), torch.from_numpy(samples.T), atol=0, rtol=0
    )


@pytest.mark.parametrize("num_samples", [0, 1, 3])
def test_tiny_files_are_files(tmp_path: Path, num_samples: int) -> None:
    path = write(tmp_path / "a.wav", noise(num_samples))

    assert probe(path).num_samples == num_samples
    assert read(path).samples.shape == (2, num_samples)


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.zeros((60 * RATE, 2)))
    blocks = read_blocks(path)
    next(blocks)

    tracemalloc.start()
    for _ in blocks:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 6 * RATE * 2 * 4, "a minute of audio must not need more than a few seconds"


@pytest.mark.parametrize("num_samples", [RATE // 2, 3 * RATE, 3 * RATE + 5])
def test_flac_without_a_length_is_read_to_its_end(tmp_path: Path, num_samples: int) -> None:
    samples = noise(num_samples)
    path = without_length(write(tmp_path / "a.flac", samples))

    assert probe(path).num_samples == num_samples
    np.testing.assert_allclose(read(path).samples.T, samples, atol=1 / 32768)


def test_truncated_flac_names_the_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", noise(10 * RATE))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(AudioError, match=r"a\.flac: damaged at about [345]\.\d\d s"):
        for _ in read_blocks(path):
            pass


def test_flac_that_ends_early_between_frames_is_not_cut_short_silently(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", noise(RATE))
    content = bytearray(path.read_bytes())
    content[22:26] = (2 * RATE).to_bytes(4, "big")  # the header promises twice as much
    path.write_bytes(content)

    with pytest.raises(AudioError, match=r"damaged at about|breaks off at"):
        read(path)


def test_damage_in_the_middle_of_a_flac_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", noise(10 * RATE))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 5000] = bytes(5000)
    path.write_bytes(content)

    with pytest.raises(AudioError, match="damaged at about"):
        read(path)


def test_wav_that_was_cut_short_is_read_with_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(4 * RATE))
    path.write_bytes(path.read_bytes()[: 44 + 4 * RATE])

    info = probe(path)

    assert info.num_samples == RATE == read(path).num_samples
    assert len(info.warnings) == 1
    assert "header says 4.00 s, it holds 1.00 s" in info.warnings[0]


def test_wav_from_a_pipe_needs_no_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(RATE))
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    path.write_bytes(content)

    assert probe(path).num_samples == RATE
    assert probe(path).warnings == ()


def test_float_files_keep_what_is_beyond_full_scale(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.full((10, 1), 1.5), "FLOAT")

    assert read(path).samples.max() == 1.5


def missing(folder: Path) -> Path:
    return folder / "nowhere.wav"


def folder_itself(folder: Path) -> Path:
    return folder


def empty(folder: Path) -> Path:
    path = folder / "empty.wav"
    path.touch()
    return path


def text(folder: Path) -> Path:
    path = folder / "text.wav"
    path.write_text("not audio " * 100)
    return path


def headerless(folder: Path) -> Path:
    path = folder / "samples.raw"
    path.write_bytes(bytes(1000))
    return path


def below_a_file(folder: Path) -> Path:
    return text(folder) / "inside.wav"


def dangling_link(folder: Path) -> Path:
    path = folder / "link.wav"
    path.symlink_to(folder / "gone.wav")
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (missing, "no such file"),
        (folder_itself, "is a folder"),
        (empty, r"empty \(0 bytes\)"),
        (text, "not an audio file"),
        (headerless, "not an audio file"),
        (below_a_file, "cannot be opened"),
        (dangling_link, "no such file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, make, words: str) -> None:
    path = make(tmp_path)
    for attempt in (probe, read, lambda path: next(read_blocks(path))):
        with pytest.raises(AudioError, match=words) as caught:
            attempt(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_no_permission_to_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(10))
    path.chmod(0)

    with pytest.raises(AudioError, match="no permission to read it"):
        probe(path)


def test_permission_error_of_the_system_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for tests that run as root, to whom nothing is forbidden."""
    path = write(tmp_path / "a.wav", noise(10))

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AudioError, match="no permission to read it"):
        probe(path)


def test_reading_stops_when_the_caller_stops(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(10 * RATE))

    blocks = list(itertools.islice(read_blocks(path), 2))

    assert len(blocks) == 2
