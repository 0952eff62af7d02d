"""Miniature copies of corpora of sounds and music: the real layout, a fraction of a second each.

Where a test must tell files apart, they hold a constant of their own (wav) or a tone (AAC, mp3).
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from media_samples import Track, write_media

DEMAND_PLACES = (
    "DKITCHEN", "DLIVING", "DWASHING", "NFIELD", "NPARK", "NRIVER", "OHALLWAY", "OMEETING",
    "OOFFICE", "PCAFETER", "PRESTO", "PSTATION", "SCAFE", "SPSQUARE", "STRAFFIC", "TBUS", "TCAR",
    "TMETRO",
)  # fmt: skip

#: Level of each stem in ``make_musdb18``, ``make_musdb18_hq`` and ``make_moisesdb``.
STEM_LEVELS = {"vocals": 0.1, "drums": 0.2, "bass": 0.3, "other": 0.05}

MUSDB_TRAIN = ("A Band - A Song", "ANiMAL - Rockshow")
MUSDB_TEST = ("Z Band - Z Song",)

MOISES_SONGS = ("0aaa", "0bbb", "0ccc")


def constant(level: float, duration_s: float, rate: int, num_channels: int = 1) -> np.ndarray:
    """The same value throughout ``[time, channel]``."""
    return np.full((round(duration_s * rate), num_channels), level)


def write_wav(
    path: Path, level: float = 0.1, duration_s: float = 0.1, rate: int = 8000, num_channels: int = 1
) -> Path:
    """A constant in a wav or flac file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, constant(level, duration_s, rate, num_channels), rate)
    return path


def write_rows(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    """A csv file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def tone(level: float, duration_s: float, rate: int) -> np.ndarray:
    """A stereo sine of that peak ``[channel, time]``."""
    time_s = np.arange(round(duration_s * rate)) / rate
    return np.tile(level * np.sin(2 * np.pi * 440 * time_s), (2, 1)).astype(np.float32)


def make_demand(folder: Path, duration_s: float = 0.01) -> Path:
    for place in DEMAND_PLACES:
        for channel in ("ch01", "ch02"):
            write_wav(folder / place / f"{channel}.wav", 0.1, duration_s, 48000)
    return folder


#: Name → (labels, length, split); what comes of them is in the tests.
FSD50K_DEV = {
    "1": ("Dog,Domestic_animals_and_pets,Animal", 1.0, "train"),
    "2": ("Cat,Domestic_animals_and_pets,Animal", 9.0, "train"),
    "3": ("Dog,Cat,Domestic_animals_and_pets,Animal", 1.0, "train"),
    "4": ("Rain,Wind,Animal", 8.0, "val"),
    "5": ("Guitar,Musical_instrument,Music", 1.0, "train"),
    "6": ("Speech,Human_voice", 9.0, "train"),
    "7": ("Wind", 1.0, "val"),
    "8": ("Rain", 1.0, "train"),
    "9": ("Animal", 1.0, "train"),
    "10": ("Domestic_animals_and_pets,Animal", 1.0, "train"),
}
FSD50K_EVAL = {
    "21": ("Dog,Domestic_animals_and_pets,Animal", 1.0),
    "22": ("Clapping,Human_group_actions", 1.0),
}


def make_fsd50k(folder: Path) -> Path:
    truth = folder / "FSD50K.ground_truth"
    dev = [(name, labels, "/m/0", split) for name, (labels, _, split) in FSD50K_DEV.items()]
    write_rows(truth / "dev.csv", [("fname", "labels", "mids", "split"), *dev])
    evaluated = [(name, labels, "/m/0") for name, (labels, _) in FSD50K_EVAL.items()]
    write_rows(truth / "eval.csv", [("fname", "labels", "mids"), *evaluated])
    for name, (_, duration_s, _) in FSD50K_DEV.items():
        write_wav(folder / "FSD50K.dev_audio" / f"{name}.wav", 0.1, duration_s)
    for name, (_, duration_s) in FSD50K_EVAL.items():
        write_wav(folder / "FSD50K.eval_audio" / f"{name}.wav", 0.1, duration_s)
    info = folder / "FSD50K.metadata" / "dev_clips_info_FSD50K.json"
    info.parent.mkdir()
    info.write_text(json.dumps({"1": {"license": "http://cc0", "title": "a dog"}}))
    return folder


def make_fuss(folder: Path, name: str = "ssdata") -> Path:
    for split in ("train", "validation", "eval"):
        lines = []
        for number, num_sources in enumerate((2, 1, 4)):
            example = f"{split}/example{number:05d}"
            sources = [
                f"{example}_sources/{'foreground' if place else 'background'}{max(0, place - 1)}"
                "_sound.wav"
                for place in range(num_sources)
            ]
            for place, path in enumerate(sources):
                write_wav(folder / name / path, 0.1 * (place + 1), 0.05, 16000)
            write_wav(folder / name / f"{example}.wav", 0.1, 0.05, 16000)
            lines.append("\t".join([f"{example}.wav", *sources]))
        (folder / name / f"{split}_example_list.txt").write_text("\n".join(lines) + "\n")
    return folder


def make_dnr_v2(folder: Path) -> Path:
    for split, clips in {"tr": ("5", "60"), "cv": ("7",), "tt": ("1002", "21")}.items():
        for clip in clips:
            home = folder / "dnr_v2" / split / clip
            for place, stem in enumerate(("speech", "music", "sfx", "mix"), start=1):
                write_wav(home / f"{stem}.wav", 0.1 * place)
            (home / "annots.csv").write_text("")
    return folder


def make_dnr_v3(folder: Path, extension: str = ".flac") -> Path:
    for language, split, clip in (
        ("multi", "train", "00000"),
        ("multi", "test", "00000"),
        ("multi", "test", "00001"),
        ("eng", "test", "00000"),
    ):
        home = folder / language / "audio" / split / clip
        for place, stem in enumerate(("speech", "music", "sfx", "sfx_fg", "sfx_bg", "mixture")):
            write_wav(home / f"{stem}{extension}", 0.1 * (place + 1))
        (folder / language / "manifest" / split / clip).mkdir(parents=True)
    return folder


def make_musdb18(folder: Path, duration_s: float = 0.2, rate: int = 16000) -> Path:
    order = ("drums", "bass", "other", "vocals")
    mixture = sum(STEM_LEVELS.values())
    for split, songs in {"train": MUSDB_TRAIN, "test": MUSDB_TEST}.items():
        (folder / split).mkdir(parents=True)
        for song in songs:
            levels = (mixture, *(STEM_LEVELS[stem] for stem in order))
            tracks = [Track(tone(level, duration_s, rate), rate=rate) for level in levels]
            write_media(folder / split / f"{song}.stem.mp4", *tracks, container="mp4")
    return folder


def make_musdb18_hq(folder: Path, duration_s: float = 0.1, rate: int = 8000) -> Path:
    for split, songs in {"train": MUSDB_TRAIN, "test": MUSDB_TEST}.items():
        for song in songs:
            home = folder / split / song
            for stem, level in STEM_LEVELS.items():
                write_wav(home / f"{stem}.wav", level, duration_s, rate, num_channels=2)
            write_wav(home / "mixture.wav", sum(STEM_LEVELS.values()), duration_s, rate, 2)
    return folder


#: Stem → tracks of a song in ``make_moisesdb``.
MOISES_TRACKS: Mapping[str, Sequence[str]] = {
    "vocals": ("v1", "v2"),
    "drums": ("d1",),
    "guitar": ("g1",),
    "percussion": ("p1",),
}


def make_moisesdb(folder: Path, duration_s: float = 0.1, with_splits: bool = True) -> Path:
    for number, song in enumerate(MOISES_SONGS):
        home = folder / "moisesdb_v0.1" / song
        stems = []
        for stem, names in MOISES_TRACKS.items():
            described = [
                {"id": name, "trackType": stem, "extension": "wav", "has_bleed": False}
                for name in names
            ]
            stems.append({"id": f"{stem}-id", "stemName": stem, "tracks": described})
            for place, name in enumerate(names):
                # Tracks of one song are not of one length.
                length_s = duration_s + 0.01 * place
                write_wav(home / stem / f"{name}.wav", STEM_LEVELS.get(stem, 0.1), length_s)
        data = {"artist": f"Artist {number}", "song": f"Song {number}", "genre": "rock"}
        (home / "data.json").write_text(json.dumps(data | {"stems": stems}))
    if with_splits:
        folds = zip(MOISES_SONGS, (2, 4, 5), strict=True)
        write_rows(folder / "splits.csv", [("song_id", "split"), *folds])
    return folder


#: Track → (split, subset, licence) in ``make_fma``.
FMA_TRACKS = {
    2: ("training", "small", "CC BY"),
    1486: ("validation", "medium", "CC BY-NC"),
    3000: ("test", "medium", "CC0"),
    4000: ("training", "large", "CC0"),
}


def make_fma(folder: Path) -> Path:
    rows: list[Sequence[object]] = [
        ("", "album", "set", "set", "track", "track"),
        ("", "title", "split", "subset", "license", "title"),
        ("track_id", "", "", "", "", ""),
    ]
    for track, (split, subset, licence) in FMA_TRACKS.items():
        rows.append((track, "an album, with\nlines", split, subset, licence, "a title"))
        if subset == "large":
            continue
        path = folder / "fma_medium" / f"{track:06d}"[:3] / f"{track:06d}.mp3"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_media(path, Track(tone(0.1, 0.2, 16000), "libmp3lame", 16000))
    write_rows(folder / "fma_metadata" / "tracks.csv", rows)
    return folder


#: File → (fold, class, whether in ESC-10) in ``make_esc50``.
ESC50_CLIPS = {
    "1-100-A-0.wav": (1, "dog", True),
    "1-101-A-36.wav": (1, "vacuum_cleaner", False),
    "5-200-B-0.wav": (5, "dog", True),
}


def make_esc50(folder: Path, name: str = "ESC-50-master") -> Path:
    home = folder / name
    columns = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
    rows = [
        (file, fold, file.rpartition("-")[2][:-4], category, in_esc10, file.split("-")[1], "A")
        for file, (fold, category, in_esc10) in ESC50_CLIPS.items()
    ]
    write_rows(home / "meta" / "esc50.csv", [columns, *rows])
    for file in ESC50_CLIPS:
        write_wav(home / "audio" / file, duration_s=0.5)
    return folder


def make_audioset(folder: Path) -> Path:
    write_rows(
        folder / "metadata" / "class_labels_indices.csv",
        [
            ("index", "mid", "display_name"),
            (0, "/m/09x0r", "Speech"),
            (1, "/m/05zppz", "Male speech, man speaking"),
            (74, "/m/0bt9lr", "Dog"),
        ],
    )
    comments = "# Segments csv created Sun Mar  5\n# num_ytids=2\n# YTID, start, end, labels\n"
    for name, lines in {
        "balanced_train_segments": ('--abc, 30.000, 40.000, "/m/09x0r,/m/05zppz"',),
        "unbalanced_train_segments": ('def_Y, 0.000, 10.000, "/m/0bt9lr"',),
        "eval_segments": (
            'ghi, 0.000, 10.000, "/m/0bt9lr"',
            'gone, 0.000, 10.000, "/m/0bt9lr"',
        ),
    }.items():
        (folder / "metadata" / f"{name}.csv").write_text(comments + "\n".join(lines) + "\n")
    audios = folder / "audios"
    write_wav(audios / "balanced_train_segments" / "Y--abc.wav")
    part = audios / "unbalanced_train_segments" / "unbalanced_train_segments_part00"
    write_wav(part / "Ydef_Y.wav")
    write_wav(audios / "eval_segments" / "Yghi.wav")
    return folder


#: Packed file → its clips: name (none where it was missing), level, numbers of its classes.
AUDIOSET_PACKED: Mapping[str, Sequence[tuple[str, float, Sequence[int]]]] = {
    "balanced_train": (("Y--abc.wav", 0.1, (0, 1)), ("", 0.0, ()), ("Yxyz.wav", 0.2, (2,))),
    "eval": (("Yghi.wav", 0.3, (2,)),),
    "unbalanced_train/unbalanced_train_part00": (("", 0.0, ()), ("Ydef_Y.wav", 0.4, (2,))),
}
#: Where the packed files lay on the machine that made the indexes.
PACKED_ELSEWHERE = "/home/someone/waveforms/audioset/hdf5s/waveforms"


def make_audioset_packed(folder: Path, with_indexes: bool = True) -> Path:
    labels = (("/m/09x0r", "Speech"), ("/m/05zppz", "Male speech, man speaking"), ("/m/0", "Dog"))
    numbered = [(number, *label) for number, label in enumerate(labels)]
    write_rows(
        folder / "metadata" / "class_labels_indices.csv",
        [("index", "mid", "display_name"), *numbered],
    )
    home = folder / "hdf5s"
    training = []
    for name, clips in AUDIOSET_PACKED.items():
        write_packed(home / "waveforms" / f"{name}.h5", clips)
        rows = [(clip, f"{PACKED_ELSEWHERE}/{name}.h5", row) for row, clip in enumerate(clips)]
        if with_indexes:
            write_packed_index(home / "indexes" / f"{name}.h5", rows)
        if name != "eval":
            training += rows
    if with_indexes:
        write_packed_index(home / "indexes" / "full_train.h5", training)
    return folder


def write_packed(
    path: Path,
    clips: Sequence[tuple[str, float, Sequence[int]]],
    rate: int = 32000,
    duration_s: float = 0.05,
) -> Path:
    """Constants of these levels, packed as the tools of PANNs do it."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.array([level for _, level, _ in clips])
    samples = np.repeat(levels[:, np.newaxis], round(duration_s * rate), axis=1)
    with h5py.File(path, "w") as file:
        file["waveform"] = (samples * 32767).astype(np.int16)
        _write_names(file, clips)
        file.attrs.create("sample_rate", data=rate, dtype=np.int32)
    return path


def write_packed_index(
    path: Path, rows: Sequence[tuple[tuple[str, float, Sequence[int]], str, int]]
) -> Path:
    """An index: each clip, the packed file it lies in, and its row there."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        _write_names(file, [clip for clip, _, _ in rows])
        file["hdf5_path"] = np.array([named.encode() for _, named, _ in rows], "S200")
        file["index_in_hdf5"] = np.array([row for _, _, row in rows], np.int32)
    return path


def _write_names(file: Any, clips: Sequence[tuple[str, float, Sequence[int]]]) -> None:
    file["audio_name"] = np.array([name.encode() for name, _, _ in clips], "S20")
    file["target"] = np.array([[k in classes for k in range(3)] for _, _, classes in clips])
