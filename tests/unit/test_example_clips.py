"""Clips to teach with: what is read, what is cut off, and what is refused or doubted."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from unbraid.apps.example_clips import LONGEST_S, read_examples
from unbraid.apps.odd_clips import least_alike, likeness, our_tagger
from unbraid.errors import AudioError
from unbraid.mixing.textures import events, textures

RATE = 16_000


def tone(seconds: float, hz: float = 700.0, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * hz * time)


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


def test_silence_at_both_ends_goes_and_pauses_stay(tmp_path: Path) -> None:
    pause = np.zeros(RATE // 2)
    samples = np.concatenate([np.zeros(RATE), tone(0.4), pause, tone(0.3), np.zeros(2 * RATE)])
    (clip,) = read_examples([write(tmp_path / "a.wav", samples)], RATE).clips
    assert clip.samples.numel() / RATE == pytest.approx(1.2 + 2 * 0.05, abs=0.05)


def test_clips_come_at_the_rate_that_is_asked_for_and_know_their_bandwidth(tmp_path: Path) -> None:
    examples = read_examples([write(tmp_path / "a.flac", tone(1.0, rate=8000), 8000)], RATE)
    (clip,) = examples.clips
    assert examples.seconds(clip) == pytest.approx(1.0, abs=0.01)
    assert clip.bandwidth_hz == 4000


def test_the_louder_channel_is_taken(tmp_path: Path) -> None:
    # The mean of these two channels is silence.
    stereo = np.stack([tone(0.5), -tone(0.5)], axis=1)
    (clip,) = read_examples([write(tmp_path / "a.wav", stereo)], RATE).clips
    assert clip.samples.abs().max() == pytest.approx(0.3, rel=0.01)


def test_folders_give_their_recordings(tmp_path: Path) -> None:
    for name in ("b.wav", "a.flac"):
        write(tmp_path / name, tone(0.5, hz=500 if name == "b.wav" else 900))
    (tmp_path / "notes.txt").write_text("no sound")
    found = read_examples([tmp_path], RATE)
    assert [clip.path.name for clip in found.clips] == ["a.flac", "b.wav"]
    assert found.warnings == ()


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no recordings there"):
        read_examples([tmp_path], RATE)
    with pytest.raises(AudioError, match="no clips"):
        read_examples([], RATE)
    with pytest.raises(AudioError, match=r"gone\.wav"):
        read_examples([tmp_path / "gone.wav"], RATE)


def test_silent_clips_are_left_out_and_only_silence_is_an_error(tmp_path: Path) -> None:
    silent = write(tmp_path / "silent.wav", np.zeros(RATE))
    sound = write(tmp_path / "sound.wav", tone(1.0))
    found = read_examples([silent, sound], RATE)
    assert [clip.path for clip in found.clips] == [sound]
    assert any("silent.wav is silent" in warning for warning in found.warnings)
    with pytest.raises(AudioError, match="silent"):
        read_examples([silent], RATE)


def test_clips_that_cannot_be_read_are_left_out_unless_there_are_no_others(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    sound = write(tmp_path / "sound.wav", tone(1.0))
    found = read_examples([tmp_path], RATE)
    assert [clip.path for clip in found.clips] == [sound]
    (warning,) = found.warnings
    assert re.fullmatch(r".*broken\.wav: .*\. It was left out\.", warning)
    with pytest.raises(AudioError, match=r"broken\.wav"):
        read_examples([tmp_path / "broken.wav"], RATE)


def test_fifty_milliseconds_are_too_little(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="together 50 ms of sound, too little"):
        read_examples([write(tmp_path / "tick.wav", tone(0.05))], RATE)


def test_the_same_file_counts_once(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, tone(1.0)) for name in ("a.wav", "b.wav")]
    found = read_examples(paths, RATE)
    assert len(found.clips) == 1
    assert any("same file" in warning for warning in found.warnings)


def test_long_clips_are_cut_and_it_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "long.flac", tone(LONGEST_S + 5, rate=8000), 8000)
    found = read_examples([path], 8000)
    assert found.seconds(found.clips[0]) == pytest.approx(LONGEST_S, abs=0.1)
    assert any("first 60 s" in warning for warning in found.warnings)


def test_broken_samples_are_refused(tmp_path: Path) -> None:
    samples = tone(0.5)
    samples[100] = np.nan
    with pytest.raises(AudioError, match="not a finite number"):
        read_examples([write(tmp_path / "a.wav", samples)], RATE)


def test_a_clip_of_another_sound_is_doubted_with_the_evidence(tmp_path: Path) -> None:
    rains = [textures(1.5, RATE, seed)["rain"].numpy() for seed in range(4)]
    beeps = events(1.5, RATE)["beeps"].numpy()
    paths = [write(tmp_path / f"rain{n}.wav", rain) for n, rain in enumerate(rains)]
    assert read_examples(paths, RATE).warnings == ()
    paths.append(write(tmp_path / "beeps.wav", beeps))
    (warning,) = read_examples(paths, RATE).warnings
    assert re.search(
        r"beeps\.wav sounds unlike the other 4 clips: .* is -?0\.\d\d .* Is it the same", warning
    )


def test_two_sounds_are_noticed_though_none_of_their_clips_is_alone(tmp_path: Path) -> None:
    kinds = [("rain", textures), ("beeps", events)]
    paths = [
        write(tmp_path / f"{name}{seed}.wav", made(1.5, RATE, seed)[name].numpy())
        for name, made in kinds
        for seed in range(3)
    ]
    (warning,) = read_examples(paths, RATE).warnings
    for group in ("rain", "beeps"):
        named = ", ".join(str(tmp_path / f"{group}{seed}.wav") for seed in range(3))
        if warning.startswith(f"{named} sound unlike the other 3 clips"):
            break
    else:
        pytest.fail(warning)
    assert "teach a prompt for each" in warning


def test_likeness_is_a_mean_of_cosines() -> None:
    sounds = [*events(1.0, RATE).values(), events(1.0, RATE, seed=1)["chirps"]]
    alike = likeness(sounds, RATE, our_tagger())
    assert alike.shape == (len(sounds), len(sounds))
    torch.testing.assert_close(alike, alike.T)
    torch.testing.assert_close(alike.diagonal(), torch.ones(len(sounds)))
    assert alike.abs().max() <= 1 + 1e-5
    chirps = list(events(1.0, RATE)).index("chirps")
    others = alike[-1, :-1].clone()
    others[chirps] = -1
    assert alike[-1, chirps] > others.max()


def test_the_two_least_alike_groups_are_found() -> None:
    alike = torch.full((5, 5), 0.1)
    for group in ([0, 3], [1, 2, 4]):
        for one in group:
            alike[one, group] = 0.8
    parting = least_alike(alike.fill_diagonal_(1.0))
    assert (parting.fewer, parting.more) == ((0, 3), (1, 2, 4))
    assert parting.between == pytest.approx(0.1)
    assert parting.within == pytest.approx(0.8)
    assert least_alike(torch.tensor([[1.0, 0.3], [0.3, 1.0]])).within == 0.0
