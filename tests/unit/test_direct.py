"""Crops from the middle of files: exact, resampled as the whole, and gone without harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from media_samples import Track, sweep, write_media, write_sound
from synthetic_pool import POOLS, make_pool
from unbraid.audio import decode
from unbraid.audio.decode import read, read_span, read_with_seek_points
from unbraid.data import direct
from unbraid.data.access import read_resampled
from unbraid.data.catalogue import open_splits
from unbraid.data.direct import DirectClips
from unbraid.data.dynamic import DynamicMixtures
from unbraid.data.manifest import Recording
from unbraid.dsp.resample import resample
from unbraid.errors import AudioError, DataError, UnreadableClip
from unbraid.mixing.recipe import MixRecipe, Planner

LENGTH = 6 * 48_000 + 311


def sound() -> np.ndarray:
    """A gliding tone and noise that comes and goes ``[channel, time]``."""
    rng = np.random.default_rng(0)
    breath = np.abs(np.sin(np.arange(LENGTH) / 9000)) * rng.standard_normal((2, LENGTH))
    return (0.4 * sweep(LENGTH) + 0.1 * breath).astype(np.float32)


def write_mp3(path: Path, rate: int, **options: str) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libmp3lame", rate=rate, layout="mono", options=options)
        if "b" in options:
            stream.bit_rate = int(options["b"])
        samples = np.ascontiguousarray(sound()[:1, :: 48_000 // rate])
        for begin in range(0, samples.shape[1], 576):
            block = np.ascontiguousarray(samples[:, begin : begin + 576])
            frame = av.AudioFrame.from_ndarray(block, "fltp", "mono")
            frame.sample_rate = rate
            frame.pts = begin
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


FILES: dict[str, Callable[[Path], Path]] = {
    "wav": lambda folder: write_sound(folder / "a.wav", sound()),
    "flac": lambda folder: write_sound(folder / "a.flac", sound()),
    "vorbis": lambda folder: write_sound(folder / "a.ogg", sound(), format="OGG", subtype="VORBIS"),
    "opus": lambda folder: write_sound(folder / "a.opus", sound(), format="OGG", subtype="OPUS"),
    "mp3 of one rate": lambda folder: write_mp3(folder / "a.mp3", 48_000, b="128000"),
    "mp3 of many rates": lambda folder: write_mp3(folder / "a.mp3", 48_000, q="4"),
    # Few bits: they are kept for later over many frames.
    "narrow mp3": lambda folder: write_mp3(folder / "a.mp3", 24_000, b="16000"),
    "alac": lambda folder: write_media(folder / "a.m4a", Track(sound(), "alac")),
    "opus in webm": lambda folder: write_media(folder / "a.webm", Track(sound(), "libopus")),
    "flac in mkv": lambda folder: write_media(folder / "a.mkv", Track(sound(), "flac")),
}


@pytest.mark.parametrize("kind", list(FILES))
def test_a_span_is_what_decoding_from_the_start_gives(tmp_path: Path, kind: str) -> None:
    path = FILES[kind](tmp_path)
    whole, points = read_with_seek_points(path)
    has_points = kind not in ("wav", "flac")
    assert (len(points) > 5) == has_points
    rate, length = whole.sample_rate, whole.num_samples
    for first in (0, 7, rate, round(2.5 * rate) + 1, 5 * rate - 3, length - 1000):
        count = min(1000, length - first)
        expected = whole.samples[:, first : first + count]
        assert torch.equal(read_span(path, first, count, points=points), expected), first
        assert torch.equal(read_span(path, first, count), expected)


def test_aac_differs_by_the_noise_that_it_draws(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.m4a", Track(sweep(LENGTH), "aac"))
    whole, points = read_with_seek_points(path)
    expected = whole.samples[:, 120_001:130_001]
    difference = read_span(path, 120_001, 10_000, points=points) - expected
    assert 10 * torch.log10(difference.square().mean() / expected.square().mean()) < -40


@pytest.mark.parametrize("kind", ["vorbis", "narrow mp3", "opus in webm"])
def test_what_comes_long_before_a_span_is_not_decoded(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = FILES[kind](tmp_path)
    whole, points = read_with_seek_points(path)
    decoded = []
    original = decode.MediaReader._check_form
    monkeypatch.setattr(
        decode.MediaReader,
        "_check_form",
        lambda self, frame: (decoded.append(frame.samples), original(self, frame)),
    )
    read_span(path, 5 * whole.sample_rate, 100, points=points)
    assert 100 <= sum(decoded) < whole.sample_rate


def test_points_of_another_file_lead_to_decoding_from_the_start(tmp_path: Path) -> None:
    path = FILES["opus"](tmp_path)
    whole, points = read_with_seek_points(path)
    shifted = [type(point)(point.mark + 1, point.sample) for point in points]
    found = read_span(path, 3 * 48_000, 100, points=shifted)
    assert torch.equal(found, whole.samples[:, 3 * 48_000 : 3 * 48_000 + 100])


def test_a_span_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for kind in ("wav", "vorbis"):
        path = FILES[kind](tmp_path)
        with pytest.raises(AudioError, match=r"has no samples 300000 to 300100"):
            read_span(path, 300_000, 100)


@pytest.mark.parametrize(
    ("from_rate", "to_rate"),
    [(44_100, 48_000), (44_100, 16_000), (48_000, 16_000), (16_000, 48_000), (8_009, 8_000)],
)
def test_a_crop_that_is_resampled_is_a_crop_of_the_whole_resampled(
    from_rate: int, to_rate: int
) -> None:
    whole = torch.randn(2 * from_rate, generator=torch.Generator().manual_seed(0))
    expected = resample(whole[None], from_rate, to_rate)[0]
    asked = []

    def give(first: int, count: int) -> torch.Tensor:
        asked.append(count)
        assert 0 <= first <= first + count <= whole.numel()
        return whole[first : first + count]

    count = to_rate // 10
    for start in (-50, 0, 1, to_rate // 3 + 1, 2 * to_rate - count, 2 * to_rate - 20):
        crop = read_resampled(give, whole.numel(), from_rate, to_rate, start, count)
        padded = torch.nn.functional.pad(expected, (50, count))
        target = padded[start + 50 : start + 50 + count]
        error_db = 10 * torch.log10(
            (crop - target).square().mean() / expected.square().mean() + 1e-30
        )
        assert error_db < -100, start
    if to_rate == 16_000:
        assert max(asked) < from_rate // 5  # not the whole
    silence = read_resampled(give, whole.numel(), from_rate, to_rate, 9 * to_rate, 5)
    assert not silence.any()


# ------------------------------------------------------------------ as a source of mixtures


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pool(tmp_path_factory.mktemp("pool"))


def test_mixtures_are_those_of_the_cache(manifest: Path, tmp_path: Path) -> None:
    rows = {name: number for number, name in enumerate(POOLS)}
    streams = []
    for access in ("cache", "direct"):
        ((clips, source),) = open_splits(
            str(manifest), Path(), POOLS, ["train"], 16_000, tmp_path, access
        )
        planner = Planner(MixRecipe(crop_s=1.0), clips)
        streams.append(DynamicMixtures(planner, source.read, 16_000, rows, 4, 3))
    cached, direct = (stream.batch(0) for stream in streams)
    assert torch.equal(cached.prompt_indices, direct.prompt_indices)
    # The cache holds 16 bits.
    assert (cached.references - direct.references).abs().max() < 1e-3
    assert (cached.references - direct.references).square().mean() < 1e-7


def row(path: str, seconds: float = 1.0) -> Recording:
    return Recording(path, "sfx/x", "train", seconds, 24000.0, "", "", 48000)


def test_notes_are_taken_once_and_after_a_stop_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(f"{number}.wav") for number in range(4)]
    for each in rows:
        soundfile.write(tmp_path / each.path, np.full(4800, 0.5), 48000)
    heard: list[str] = []
    original = direct.listen

    def listen(path: Path, hear: Callable[..., None], track: int | None) -> object:
        heard.append(path.name)
        if len(heard) == 3:
            raise KeyboardInterrupt
        return original(path, hear, track)

    monkeypatch.setattr(direct, "listen", listen)
    with pytest.raises(KeyboardInterrupt):
        DirectClips(tmp_path, rows, 48000, tmp_path / "cache")
    (notes,) = (tmp_path / "cache").glob("*.jsonl")
    with notes.open("a") as file:
        file.write('{"key": "2.wav", "size_by')  # a line that was not finished
    DirectClips(tmp_path, rows, 48000, tmp_path / "cache")
    assert heard == ["0.wav", "1.wav", "2.wav", "2.wav", "3.wav"]
    soundfile.write(tmp_path / "1.wav", np.full(2400, 0.25), 48000)
    changed = DirectClips(tmp_path, rows, 48000, tmp_path / "cache")
    assert heard[5:] == ["1.wav"]
    assert changed.read("1.wav", 2000, 800).nonzero().numel() == 400
    DirectClips(tmp_path, rows, 48000, tmp_path / "cache")
    assert len(heard) == 6


def test_several_channels_are_read_together_and_mono_stands_on_all(tmp_path: Path) -> None:
    left = np.zeros(96_000)
    right = np.concatenate([np.zeros(48_000), np.full(48_000, 0.5)])
    soundfile.write(tmp_path / "both.wav", np.stack([left, right, right], 1), 48_000)
    soundfile.write(tmp_path / "mono.wav", right, 24_000)
    rows = [row("both.wav", 2.0), row("mono.wav", 4.0)]
    source = DirectClips(tmp_path, rows, 24_000, tmp_path / "cache", num_channels=2)
    assert source.active_s("both.wav") == (1.0, 1.5)
    crop = source.read("both.wav", 30_000, 100)
    assert crop.shape == (2, 100)
    assert not crop[0].any()
    assert torch.allclose(crop[1], torch.tensor(0.5), atol=1e-3)
    mono = source.read("mono.wav", 47_990, 20)
    assert torch.equal(mono[0], mono[1])
    assert mono[0].count_nonzero() == 10
    assert not source.read("mono.wav", 200_000, 5).any()
    assert source.duration_s("mono.wav") == 4.0
    first = DirectClips(tmp_path, rows, 24_000, tmp_path / "cache")
    assert first.active_s("both.wav") == ()
    assert first.read("both.wav", 0, 7).shape == (7,)


def test_a_codec_that_does_not_give_the_same_is_decoded_from_the_start(tmp_path: Path) -> None:
    long = np.tile(sound()[:1], 2)[:, :420_000]
    write_media(tmp_path / "a.ac3", Track(long, "ac3"))
    write_sound(tmp_path / "a.opus", long, format="OGG", subtype="OPUS")
    rows = [row("a.ac3", 8.75), row("a.opus", 8.75)]
    source = DirectClips(tmp_path, rows, 48_000, tmp_path / "cache")
    (notes,) = (tmp_path / "cache").glob("*.jsonl")
    marks = [json.loads(line)["marks"] for line in notes.read_text().splitlines() if line]
    assert not marks[0]
    assert marks[1]
    for key in ("a.ac3", "a.opus"):
        whole = read(tmp_path / key).samples[0]
        assert torch.equal(source.read(key, 350_000, 5000), whole[350_000:355_000])


def test_files_that_vanish_or_change_under_a_run_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = make_pool(tmp_path / "pool")

    def opened(max_unreadable: float) -> tuple[DynamicMixtures, DirectClips]:
        ((clips, source),) = open_splits(
            str(manifest), Path(), POOLS, ["train"], 16_000, tmp_path, "direct", max_unreadable
        )
        rows = {name: number for number, name in enumerate(POOLS)}
        planner = Planner(MixRecipe(crop_s=0.5), clips)
        assert isinstance(source, DirectClips)
        return DynamicMixtures(planner, source.read, 16_000, rows, 4, 3), source

    stream, source = opened(0.5)
    strict, _ = opened(0.0)
    (tmp_path / "pool/speech/train/en/song1__en.wav").unlink()
    damaged = tmp_path / "pool/sfx/train/door/song1__door.wav"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(UnreadableClip, match="no such file"):
        source.read("speech/train/en/song1__en.wav", 0, 10)
    first = [stream.batch(number) for number in range(3)]
    again = [stream.batch(number) for number in range(3)]
    assert all(
        torch.equal(one.mixture, other.mixture) for one, other in zip(first, again, strict=True)
    )
    assert set(source.unreadable.keys) == {
        "speech/train/en/song1__en.wav",
        "sfx/train/door/song1__door.wav",
    }
    assert sum("song1__en.wav" in record.getMessage() for record in caplog.records) == 1
    with pytest.raises(DataError, match=r"1 of 20 recordings cannot be read.*song1"):
        [strict.batch(number) for number in range(3)]
