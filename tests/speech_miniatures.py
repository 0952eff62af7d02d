"""Copies of speech corpora that take milliseconds to write: the real layouts, with known content.

Every file is constant. Where a mixture is stored beside its sources it is their sum, so that
what a lister says can be checked by adding up.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

#: Levels of the sources in all mixtures.
FIRST, SECOND, NOISE = 0.25, 0.125, 0.0625

LENGTH = 480


def write_constant(
    path: Path,
    value: float,
    sample_rate: int,
    num_samples: int = LENGTH,
    num_channels: int = 1,
    **options: str,
) -> None:
    """A file that has one value throughout, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.full((num_samples, num_channels), value)
    soundfile.write(path, samples, sample_rate, **options)


def make_vctk(folder: Path) -> Path:
    """Four speakers, of each split at least one; two microphones."""
    for speaker in ("p225", "p226", "p232", "s5"):
        for microphone in ("mic1", "mic2"):
            for number in ("001", "002"):
                name = f"wav48_silence_trimmed/{speaker}/{speaker}_{number}_{microphone}.flac"
                write_constant(folder / name, FIRST, 48000)
    (folder / "wav48_silence_trimmed" / "log.txt").write_text("")
    return folder


def make_vctk_demand(folder: Path) -> Path:
    """Two test sentences, and two training sentences of which one is for validation."""
    for which, names in {
        "testset_wav": ("p232_001", "p257_001"),
        "trainset_28spk_wav": ("p226_001", "p228_001"),
    }.items():
        for name in names:
            write_constant(folder / f"clean_{which}" / f"{name}.wav", FIRST, 48000)
            write_constant(folder / f"noisy_{which}" / f"{name}.wav", FIRST + NOISE, 48000)
    return folder


_UTTERANCES = {
    "tr": ("si_tr_s/40n/40na010x", "si_tr_s/01x/01xo031a"),
    "cv": ("si_tr_s/40n/40na010x", "si_tr_s/02a/02ac0201"),
    "tt": ("si_dt_05/050/050a0501", "si_et_05/440/440c0401"),
}


def make_wsj0(folder: Path) -> Path:
    """Five utterances on two discs as LDC writes them, one of them converted as well."""
    for split, utterances in _UTTERANCES.items():
        first, second = (f"wsj0/{utterance}.wav" for utterance in utterances)
        (folder / f"mix_2_spk_{split}.txt").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"mix_2_spk_{split}.txt").write_text(f"{first} 1.9857 {second} -1.9857\n")
        for disc, utterance in zip(("11-1.1", "11-6.1"), utterances, strict=True):
            for suffix in (".wv1", ".wv2"):
                path = folder / disc / "wsj0" / f"{utterance}{suffix}"
                write_constant(path, FIRST, 16000, format="NIST", subtype="PCM_16")
    write_constant(folder / "converted/wsj0/si_tr_s/01x/01xo031a.wav", FIRST, 16000)
    return folder


def make_parallel(
    folder: Path, levels: Mapping[str, float], sample_rate: int, names: tuple[str, ...]
) -> None:
    """Files of the same names in several folders, with a level for each folder."""
    for name in names:
        for each, level in levels.items():
            write_constant(folder / each / f"{name}.wav", level, sample_rate)


_TWO = {"s1": FIRST, "s2": SECOND}
_NAMES = ("050a050a_0.1_441c0401_-0.1", "051a050c_1.5_442o030v_-1.5")


def make_wsj0_2mix(folder: Path) -> Path:
    """Two mixtures in each split at 8 kHz, and the test set at 16 kHz."""
    levels = _TWO | {"mix": FIRST + SECOND}
    for variant in ("wav8k/min/tr", "wav8k/min/cv", "wav8k/min/tt", "wav16k/max/tt"):
        rate = 8000 if variant.startswith("wav8k") else 16000
        make_parallel(folder / "2speakers" / variant, levels, rate, _NAMES)
    return folder


def make_wham(folder: Path) -> Path:
    """The test mixtures in two variants, and three recordings of noise, one for each split."""
    levels = _TWO | {"noise": NOISE, "mix_both": FIRST + SECOND + NOISE}
    make_parallel(folder / "wav16k/max/tt", levels, 16000, _NAMES)
    make_parallel(folder / "wav8k/min/tt", levels, 8000, _NAMES)
    make_wham_noise(folder)
    return folder


def make_wham_noise(folder: Path) -> Path:
    """The noise alone: 17 s for training, less than a piece for the others."""
    rows = (("a.wav", "Train", 17.0), ("b.wav", "Valid", 1.0), ("c.wav", "Test", 1.0))
    for name, _, seconds in rows:
        path = folder / "high_res_wham/audio" / name
        write_constant(path, NOISE, 48000, round(seconds * 48000), num_channels=2)
    with (folder / "high_res_wham/high_res_metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("Filename", "File Length (sec)", "WHAM! Split", "Location ID"))
        writer.writerows((name, seconds, split, 7) for name, split, seconds in rows)
    return folder


def make_whamr(folder: Path) -> Path:
    """The test mixtures at 8 kHz, reverberant and not."""
    levels = {
        "s1_anechoic": FIRST,
        "s2_anechoic": SECOND,
        "s1_reverb": 1.5 * FIRST,
        "s2_reverb": 1.5 * SECOND,
        "noise": NOISE,
        "mix_both_reverb": 1.5 * (FIRST + SECOND) + NOISE,
        "mix_clean_anechoic": FIRST + SECOND,
    }
    make_parallel(folder / "wav8k/min/tt", levels, 8000, _NAMES)
    return folder


def make_librispeech(folder: Path) -> Path:
    """Two sentences in each of three parts."""
    for part, chapter in {
        "train-clean-100": "19/198",
        "dev-clean": "84/121123",
        "test-other": "367/130732",
    }.items():
        place = folder / "LibriSpeech" / part / chapter
        stem = chapter.replace("/", "-")
        names = [f"{stem}-0000", f"{stem}-0001"]
        for name in names:
            write_constant(place / f"{name}.flac", FIRST, 16000)
        lines = "".join(f"{name} NORTHANGER ABBEY\n" for name in names)
        (place / f"{stem}.trans.txt").write_text(lines)
    return folder


def make_libri2mix(folder: Path) -> Path:
    """Two test mixtures with noise and a table of them, and two for validation without either."""
    home = folder / "Libri2Mix/wav8k/min"
    names = ("4077-13754-0001_5142-33396-0065", "61-70968-0000_8455-210777-0012")
    clean = _TWO | {"mix_clean": FIRST + SECOND}
    noisy = {"noise": NOISE, "mix_both": FIRST + SECOND + NOISE}
    make_parallel(home / "test", clean | noisy, 8000, names)
    make_parallel(home / "dev", clean, 8000, names)
    (home / "metadata").mkdir()
    with (home / "metadata/mixture_test_mix_clean.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("mixture_ID", "mixture_path", "source_1_path", "source_2_path", "length"))
        writer.writerows((name, f"/elsewhere/{name}.wav", "", "", LENGTH) for name in names)
    return folder


def make_librivox_urgent(folder: Path) -> Path:
    """Three books: one resampled, one at its full rate, one for validation."""
    resampled = "./dns5_fullband/Track1_Headset/resampled/clean/read_speech/0"
    original = "./dns5_fullband/Track1_Headset/mnt/dnsv5/clean/read_speech"
    lists = {
        "train": [
            ("book_00000_chp_0009_reader_06709_0_seg_1", 24000, resampled),
            ("book_00001_chp_0002_reader_00812_3_seg_0", 48000, original),
        ],
        "validation": [("book_00003_chp_0001_reader_00017_1_seg_2", 16000, resampled)],
    }
    for split, rows in lists.items():
        lines = ""
        for name, rate, place in rows:
            write_constant(folder / place / f"{name}.wav", FIRST, rate)
            lines += f"{name} {rate} {place}/{name}.wav\n"
        name = f"dns5_clean_read_speech_resampled_filtered_{split}.scp"
        (folder / name).write_text(lines)
    return folder


def make_dns(folder: Path) -> Path:
    """Two mixtures in each test set, a clean file and a noise."""
    for reverb in ("no_reverb", "with_reverb"):
        home = folder / "datasets/test_set/synthetic" / reverb
        for name in (
            "clnsp1_train_69005_1_snr15_tl-21_fileid_158",
            "clnsp126_3Wjw0nadnM4_snr15_tl-22_fileid_0",
        ):
            number = name.rpartition("_")[2]
            write_constant(home / f"noisy/{name}.wav", FIRST + NOISE, 16000)
            write_constant(home / f"clean/clean_fileid_{number}.wav", FIRST, 16000)
    clean = "datasets/clean/book_00000_chp_0009_reader_06709_0_seg_1.wav"
    write_constant(folder / clean, FIRST, 16000)
    write_constant(folder / "datasets/noise/-1O4ym0ozp0.wav", NOISE, 16000)
    return folder
