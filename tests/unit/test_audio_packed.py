"""Clips that were packed into one HDF5 file: each is a track, and reading one reads one."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sound_miniatures import AUDIOSET_PACKED, make_audioset_packed, write_packed
from unbraid.audio import probe, read, read_blocks
from unbraid.audio.packed_file import PackedFileReader, PackedShape, packed_shape, read_columns
from unbraid.data.corpora import find_corpus
from unbraid.data.manifest import format_manifest, read_manifest
from unbraid.data.store import ClipStore
from unbraid.errors import AudioError, MissingExtra

h5py = pytest.importorskip("h5py")

RATE = 32_000
CLIPS = AUDIOSET_PACKED["balanced_train"]


def told(path: Path, *texts: str, track: int | None = 1) -> None:
    """The file is refused, in one line that has its path and all of these texts."""
    with pytest.raises(AudioError) as caught:
        read(path, track)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for text in texts:
        assert text in message


def packed(path: Path, samples: np.ndarray, sample_rate: object = RATE) -> Path:
    with h5py.File(path, "w") as file:
        file["waveform"] = samples
        if sample_rate is not None:
            file.attrs["sample_rate"] = sample_rate
    return path


# ------------------------------------------------------------------ reading


def test_each_clip_is_a_track(tmp_path: Path) -> None:
    path = write_packed(tmp_path / "clips.h5", CLIPS)
    info = probe(path, 3)
    assert (info.sample_rate, info.num_channels, info.num_samples) == (RATE, 1, 1600)
    assert (info.track, info.num_tracks, info.format, info.subtype) == (3, 3, "HDF5", "PCM_16")
    assert info.tags == {"title": "Yxyz"}
    waveform = read(path, 3)
    assert (waveform.sample_rate, waveform.samples.shape) == (RATE, (1, 1600))
    assert waveform.samples.unique().tolist() == pytest.approx([0.2], abs=1 / 32767)
    assert read(path).samples[0, 0] == pytest.approx(0.1, abs=1 / 32767)
    assert probe(path).track == 1


def test_full_scale_comes_back_as_it_was_packed(tmp_path: Path) -> None:
    rows = np.array([[0, 1, -1, 32767, -32767], [5, 4, 3, 2, 1]], np.int16)
    found = read(packed(tmp_path / "clips.h5", rows)).samples[0].tolist()
    assert found == pytest.approx([0.0, 1 / 32767, -1 / 32767, 1.0, -1.0], abs=1e-9)
    assert read(tmp_path / "clips.h5", 2).samples[0].tolist() == pytest.approx(
        [number / 32767 for number in (5, 4, 3, 2, 1)], abs=1e-9
    )


def test_blocks_hold_every_sample_in_order(tmp_path: Path) -> None:
    rows = np.arange(3 * 1000, dtype=np.int16).reshape(3, 1000)
    path = packed(tmp_path / "clips.h5", rows, 1000)
    blocks = list(read_blocks(path, 0.3, track=2))
    assert [block.shape for block in blocks] == [(1, 300), (1, 300), (1, 300), (1, 100)]
    joined = np.concatenate([block.numpy() for block in blocks], axis=1)[0]
    np.testing.assert_allclose(joined * 32767, np.arange(1000, 2000), rtol=1e-6)


@pytest.mark.parametrize("kind", ["float32", "float64", ">f4", ">i2"])
def test_other_ways_to_store_samples_are_read_as_well(tmp_path: Path, kind: str) -> None:
    scale = 32767 if kind == ">i2" else 1
    path = packed(tmp_path / "clips.h5", (np.array([[0.5, -0.25, 1.0]]) * scale).astype(kind))
    assert read(path).samples[0].tolist() == pytest.approx([0.5, -0.25, 1.0], abs=1 / 32767)
    assert probe(path).subtype == ("PCM_16" if kind == ">i2" else "FLOAT")


def test_compressed_clips_are_read(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(-9, 9, (5, 4000)).astype(np.int16)
    with h5py.File(tmp_path / "clips.h5", "w") as file:
        file.create_dataset("waveform", data=rows, chunks=(2, 700), compression="gzip")
    found = read(tmp_path / "clips.h5", 5).samples[0].numpy()
    np.testing.assert_allclose(found * 32767, rows[4], rtol=1e-5)


def test_without_its_rate_a_file_has_the_usual_one(tmp_path: Path) -> None:
    path = packed(tmp_path / "clips.h5", np.zeros((1, 10), np.int16), None)
    assert probe(path).sample_rate == 32_000
    assert probe(packed(path, np.zeros((1, 10), np.int16), np.array([16_000]))).sample_rate == 16000


def test_the_name_of_a_packed_file_does_not_matter(tmp_path: Path) -> None:
    path = write_packed(tmp_path / "clips.h5", CLIPS).rename(tmp_path / "clips.wav")
    assert probe(path, 3).format == "HDF5"


def test_a_file_is_let_go_of_when_it_has_been_read(tmp_path: Path) -> None:
    path = write_packed(tmp_path / "clips.h5", CLIPS)
    reader = PackedFileReader(path, 3)
    reader.close()
    told(path, "track 9", track=9)
    next(iter(read_columns(path, ["audio_name"])))
    # HDF5 would refuse this while the file is open for reading.
    with h5py.File(path, "a") as file:
        file["waveform"][2] = 0
    assert not read(path, 3).samples.any()


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux to count bytes")
def test_a_track_of_many_costs_no_more_than_itself(tmp_path: Path) -> None:
    num_clips, num_samples = 20_000, 1000
    path = tmp_path / "clips.h5"
    with h5py.File(path, "w") as file:
        file["waveform"] = np.ones((num_clips, num_samples), np.int16)
        file["audio_name"] = np.array([f"Y{number}.wav".encode() for number in range(num_clips)])
        file["target"] = np.ones((num_clips, 527), bool)

    probed_bytes = bytes_read_by(lambda: probe(path, num_clips))
    read_bytes = bytes_read_by(lambda: read(path, num_clips))

    assert path.stat().st_size > 50_000_000
    # Headers come in pages of some kilobytes.
    assert probed_bytes < 50_000
    assert probed_bytes <= read_bytes < 50_000 + 2 * num_samples


def bytes_read_by(work: Callable[[], object]) -> int:
    def count() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("rchar:")).split()[1])

    work()  # what is imported late is imported now
    before = count()
    work()
    return count() - before


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize("track", [0, -1, 4, 10**20])
def test_a_track_that_is_not_there_is_named(tmp_path: Path, track: int) -> None:
    path = write_packed(tmp_path / "clips.h5", CLIPS)
    told(path, f"no audio track {track}", "3 tracks", track=track)


def test_a_file_without_clips_has_no_first_track(tmp_path: Path) -> None:
    path = packed(tmp_path / "clips.h5", np.zeros((0, 100), np.int16))
    told(path, "0 tracks", track=None)


def test_clips_without_samples_are_read_as_such(tmp_path: Path) -> None:
    path = packed(tmp_path / "clips.h5", np.zeros((2, 0), np.int16))
    assert probe(path, 2).num_samples == 0
    assert read(path, 2).samples.shape == (1, 0)


def test_a_clip_that_was_missing_is_not_read_as_silence(tmp_path: Path) -> None:
    told(write_packed(tmp_path / "clips.h5", CLIPS), "track 2 is empty", "missing", track=2)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(100, np.int16),
        np.zeros((2, 3, 100), np.int16),
        np.zeros((2, 100), np.int32),
        np.zeros((2, 100), np.uint8),
        np.zeros((2, 100), "S4"),
    ],
)
def test_other_waveforms_are_refused(tmp_path: Path, samples: np.ndarray) -> None:
    told(packed(tmp_path / "clips.h5", samples), "waveform")


def test_other_hdf5_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file.create_group("waveform")
        file["embedding"] = np.zeros((3, 4))
    told(path, "no data set waveform [clip, time]", "PANNs")


@pytest.mark.parametrize(
    ("sample_rate", "words"),
    [
        (0, "0 samples per second"),
        ("fast", "sample_rate is not a number"),
        ([1, 2], "not a number"),
    ],
)
def test_a_rate_that_makes_no_sense_is_named(
    tmp_path: Path, sample_rate: object, words: str
) -> None:
    told(packed(tmp_path / "clips.h5", np.zeros((1, 9), np.int16), sample_rate), words)


def test_a_float_that_is_no_number_is_named_with_its_time(tmp_path: Path) -> None:
    samples = np.zeros((2, 3200), np.float32)
    samples[1, 1600] = np.nan
    path = packed(tmp_path / "clips.h5", samples)
    assert read(path, 1).num_samples == 3200
    told(path, "0.0500 s", "not a finite number", track=2)


def test_a_file_that_was_cut_short_is_damaged(tmp_path: Path) -> None:
    path = write_packed(tmp_path / "clips.h5", CLIPS)
    path.write_bytes(path.read_bytes()[:-500])
    told(path, "truncated file", "Fetch it again")
    path.write_bytes(path.read_bytes()[:20])
    told(path, "damaged")


def test_damage_in_the_middle_of_a_track_names_the_time(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(-(2**15), 2**15, (2, 3200)).astype(np.int16)
    path = tmp_path / "clips.h5"
    with h5py.File(path, "w") as file:
        samples = file.create_dataset(
            "waveform", data=rows, chunks=(1, 800), compression="gzip", fletcher32=True
        )
        place = samples.id.get_chunk_info_by_coord((1, 1600))
    content = bytearray(path.read_bytes())
    content[place.byte_offset + place.size // 2] ^= 0xFF
    path.write_bytes(content)
    assert read(path, 1).num_samples == 3200
    with pytest.raises(AudioError, match=r"clips\.h5: track 2 is damaged at about 0\.04 s"):
        list(read_blocks(path, 0.02, track=2))


def test_no_damage_makes_another_error_than_an_audio_error(tmp_path: Path) -> None:
    path = write_packed(tmp_path / "clips.h5", CLIPS)
    content = path.read_bytes()
    chance = random.Random(0)
    refusals = []
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(chance.choice((1, 4, 20))):
            changed[chance.randrange(8, 3000)] = chance.randrange(256)
        path.write_bytes(changed)
        try:
            for block in read_blocks(path, track=3):
                assert block.shape[0] == 1
            list(read_columns(path, ["audio_name", "target"]))
        except AudioError as error:
            refusals.append(str(error))
    assert len(refusals) > 50
    assert all(str(path) in refusal for refusal in refusals)


def test_without_h5py_the_message_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_packed(tmp_path / "clips.h5", CLIPS)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"pip install 'unbraid\[hdf5\]'"):
        probe(path, 1)


# ------------------------------------------------------------------ lists


def test_the_shape_is_known_without_a_track(tmp_path: Path) -> None:
    assert packed_shape(write_packed(tmp_path / "a.h5", CLIPS, 8000, 0.1)) == PackedShape(
        num_tracks=3, num_samples=800, sample_rate=8000
    )


def test_columns_come_side_by_side_in_pieces(tmp_path: Path) -> None:
    path = write_packed(tmp_path / "clips.h5", CLIPS)
    pieces = list(read_columns(path, ["audio_name", "target"], num_rows=2))
    assert [piece[0].tolist() for piece in pieces] == [[b"Y--abc.wav", b""], [b"Yxyz.wav"]]
    assert pieces[1][1].tolist() == [[False, False, True]]


def test_columns_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    path = write_packed(tmp_path / "clips.h5", CLIPS)
    with h5py.File(path, "a") as file:
        del file["target"]
        file["target"] = np.zeros((2, 3), bool)
    with pytest.raises(AudioError, match=r"3 of audio_name, 2 of target"):
        list(read_columns(path, ["audio_name", "target"]))
    with pytest.raises(AudioError, match=r"no data set hdf5_path \[clip\] with paths"):
        list(read_columns(path, ["hdf5_path"]))


# ------------------------------------------------------------------ the way into a pool


def test_packed_clips_go_through_a_manifest_into_the_store(tmp_path: Path) -> None:
    root = make_audioset_packed(tmp_path / "audioset")
    recordings = find_corpus("audioset").recordings
    assert recordings is not None
    manifest = root / "manifest.csv"
    manifest.write_text(format_manifest(recordings(root)), encoding="utf-8")
    rows = read_manifest(manifest)
    store = ClipStore(root, rows, RATE, tmp_path / "cache")
    levels = {row.key: float(store.read(row.key, 800, 1)) for row in rows}
    home = "hdf5s/waveforms"
    assert levels == pytest.approx(
        {
            f"{home}/balanced_train.h5#1": 0.1,
            f"{home}/balanced_train.h5#3": 0.2,
            f"{home}/eval.h5#1": 0.3,
            f"{home}/unbalanced_train/unbalanced_train_part00.h5#2": 0.4,
        },
        abs=1e-4,
    )
