"""What Python users hold: paths and arrays in, a mapping out."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import unbraid
from unbraid.errors import AudioError, Cancelled, ConfigError, PromptError
from unbraid.models.waveform import WaveformModel

RATE = 48000


def noise(channels: int, length: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(channels, length, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def separator(tiny_model: WaveformModel) -> unbraid.Separator:
    return unbraid.Separator(tiny_model)


def test_paths_and_arrays_of_all_kinds_give_the_same(
    separator: unbraid.Separator, tmp_path: Path
) -> None:
    samples = noise(2, 30000)
    path = tmp_path / "mixture.wav"
    unbraid.write(path, unbraid.Waveform(samples, 44100))
    recordings = {
        "path": separator.separate(path, ["speech", "sfx"]),
        "text": separator.separate(str(path), ["speech", "sfx"]),
        "waveform": separator.separate(unbraid.Waveform(samples, 44100), ["speech", "sfx"]),
        "torch": separator.separate(samples, ["speech", "sfx"], sample_rate=44100),
        "numpy": separator.separate(samples.numpy(), ["speech", "sfx"], sample_rate=44100),
        "double": separator.separate(samples.double(), ["speech", "sfx"], sample_rate=44100),
    }
    for kind, result in recordings.items():
        assert list(result) == ["speech", "sfx"], kind
        assert result.sample_rate == 44100
        for name, stem in result.items():
            assert stem.dtype == torch.float32
            torch.testing.assert_close(stem, recordings["path"][name], atol=1e-6, rtol=0)


def test_the_result_is_a_mapping_with_the_rest(separator: unbraid.Separator) -> None:
    samples = noise(1, 20000)
    result = separator.separate(samples[0], ["speech", "musicbg", "speech"], sample_rate=RATE)
    assert list(result) == ["speech_1", "music-mix", "speech_2"]
    assert result.prompts == ("speech", "music-mix", "speech")
    assert len(result) == 3
    assert torch.equal(result.mixture, samples)
    assert torch.equal(result["music-mix"], result.sources[1])
    total = sum(result.values()) + result.residual
    torch.testing.assert_close(total, samples, atol=1e-6, rtol=0)
    presence = result.presence["speech_2"]
    assert presence.name == "speech_2"
    assert 0 <= presence.score <= 1
    assert len(presence.timeline) == 1  # of half a second
    assert "speech_1, music-mix, speech_2: 1 channels, 20000 samples" in repr(result)
    with pytest.raises(KeyError):
        result["speech"]


def test_saving_writes_every_stem(separator: unbraid.Separator, tmp_path: Path) -> None:
    result = separator.separate(noise(2, 5000), ["speech", "speech"], sample_rate=RATE)
    files = result.save(tmp_path / "stems")
    assert files == {name: tmp_path / "stems" / f"{name}.wav" for name in result}
    for name, file in files.items():
        assert torch.equal(unbraid.read(file).samples, result[name])


@pytest.mark.parametrize("length", [0, 1, 17])
def test_tiny_arrays(separator: unbraid.Separator, length: int) -> None:
    result = separator.separate(noise(2, length), ["drums"], sample_rate=22050)
    assert result["drums"].shape == (2, length)
    assert result.residual.shape == (2, length)


def test_progress_has_numbers_and_can_stop_the_work(separator: unbraid.Separator) -> None:
    mixture = unbraid.Waveform(noise(1, RATE * 3), RATE)
    seen: list[unbraid.Progress] = []
    separator.separate(mixture, ["speech"], progress=seen.append)
    assert [step.done_s for step in seen] == sorted(step.done_s for step in seen)
    assert seen[-1] == unbraid.Progress(3.0, 3.0)

    def stop(_: unbraid.Progress) -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        separator.separate(mixture, ["speech"], progress=stop)


def test_another_thread_can_cancel(separator: unbraid.Separator) -> None:
    cancel = threading.Event()
    seconds_seen = []

    def endless() -> object:
        while True:
            yield noise(1, RATE)

    def watch() -> None:
        for block in separator.separate_stream(endless(), RATE, ["speech"], cancel=cancel):
            seconds_seen.append(block.num_samples / RATE)
            started.set()

    started = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(watch)
        assert started.wait(timeout=30)
        cancel.set()
        with pytest.raises(Cancelled):
            work.result(timeout=30)
    assert seconds_seen


def test_one_separator_serves_many_threads(separator: unbraid.Separator) -> None:
    jobs = [
        (noise(1 + number % 2, 70000 + 999 * number, seed=number), rate, prompts)
        for number, (rate, prompts) in enumerate(
            [(48000, ["speech"]), (44100, ["sfx", "sfx"]), (48000, ["drums", "bass", "other"])] * 3
        )
    ]

    def separate(job: tuple[torch.Tensor, int, list[str]]) -> torch.Tensor:
        samples, rate, prompts = job
        return separator.separate(samples, prompts, sample_rate=rate).sources

    alone = [separate(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(separate, jobs))
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("recording", "words"),
    [
        (np.zeros((2, 100), np.int16), "no full scale"),
        (np.zeros((2, 3, 100), np.float32), "not of shape"),
        (np.zeros((48000, 2), np.float32), "transpose"),
        (np.zeros((1, 100), np.complex64), "no full scale"),
        (np.array(["a"]), "not audio"),
        ([object()], "not audio"),
    ],
)
def test_arrays_that_are_no_audio(
    separator: unbraid.Separator, recording: np.ndarray, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        separator.separate(recording, ["speech"], sample_rate=RATE)


def test_rates_and_tracks_where_they_belong(separator: unbraid.Separator, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs its rate"):
        separator.separate(noise(1, 100), ["speech"])
    with pytest.raises(ConfigError, match="knows its own rate"):
        separator.separate(tmp_path / "x.wav", ["speech"], sample_rate=RATE)
    with pytest.raises(ConfigError, match="track belongs to files"):
        separator.separate(noise(1, 100), ["speech"], sample_rate=RATE, track=1)
    with pytest.raises(ConfigError, match="leave sample_rate out"):
        separator.separate(unbraid.Waveform(noise(1, 9), 8000), ["speech"], sample_rate=RATE)
    with pytest.raises(AudioError, match="no such file"):
        separator.separate(tmp_path / "x.wav", ["speech"])
    with pytest.raises(PromptError, match="did you mean speech"):
        separator.separate(noise(1, 100), ["spech"], sample_rate=RATE)


def test_load_separator(tmp_path: Path) -> None:
    config = unbraid.SeparationConfig(segment_s=4.0)
    separator = unbraid.load_separator("mini", config, device="cpu")
    assert separator.engine.config.segment_s == 4.0
    assert separator.sample_rate == RATE
    assert "speech" in separator.prompts
    result = separator.separate(noise(1, 3000), ["speech", "sfxbg"], sample_rate=RATE)
    assert result.prompts == ("speech", "sfx-mix")
