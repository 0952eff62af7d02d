"""Corpora of sounds and music, from miniature copies that have the real layout."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sound_miniatures import (
    DEMAND_PLACES,
    FMA_TRACKS,
    MOISES_TRACKS,
    MUSDB_TEST,
    PACKED_ELSEWHERE,
    STEM_LEVELS,
    make_audioset,
    make_audioset_packed,
    make_demand,
    make_dnr_v2,
    make_dnr_v3,
    make_esc50,
    make_fma,
    make_fsd50k,
    make_fuss,
    make_moisesdb,
    make_musdb18,
    make_musdb18_hq,
    write_packed,
    write_packed_index,
    write_rows,
    write_wav,
)
from unbraid.audio import read
from unbraid.data.activity import SFC
from unbraid.data.corpora import (
    demand,
    dnr_v2,
    dnr_v3,
    esc10,
    esc50,
    find_corpus,
    fma,
    fsd50k,
    fuss,
    moisesdb,
    musdb18,
    musdb18_hq,
)
from unbraid.data.corpora.base import Corpus, MixtureFiles
from unbraid.data.manifest import Recording
from unbraid.errors import DataError

MAKERS: dict[str, Callable[[Path], Path]] = {
    "demand": make_demand,
    "fsd50k": make_fsd50k,
    "fuss": make_fuss,
    "dnr-v2": make_dnr_v2,
    "dnr-v3": make_dnr_v3,
    "musdb18": lambda folder: make_musdb18(folder, duration_s=8.2),
    "musdb18-hq": lambda folder: make_musdb18_hq(folder, duration_s=8.2, rate=1000),
    "moisesdb": lambda folder: make_moisesdb(folder, duration_s=8.2),
    "fma": make_fma,
    "esc50": make_esc50,
    "esc10": make_esc50,
    "audioset": make_audioset,
}


def listed(corpus: Corpus, root: Path) -> tuple[list[Recording], list[MixtureFiles]]:
    return (
        list(corpus.recordings(root)) if corpus.recordings else [],
        list(corpus.mixtures(root)) if corpus.mixtures else [],
    )


def paths_of(files: MixtureFiles) -> list[str]:
    return [track.path for reference in files.references for track in reference.add]


def told(found: Iterator[object], *texts: str) -> None:
    """Listing fails, and the message has all of these texts."""
    with pytest.raises(DataError) as caught:
        list(found)
    for text in texts:
        assert text in str(caught.value)


# ------------------------------------------------------------------ what holds for all


@pytest.mark.parametrize("name", MAKERS)
def test_a_corpus_lists_files_that_are_there_and_can_be_read(name: str, tmp_path: Path) -> None:
    root = MAKERS[name](tmp_path)
    recordings, mixtures = listed(find_corpus(name), root)
    assert recordings or mixtures
    for recording in recordings:
        assert (root / recording.path).is_file()
        assert re.fullmatch(r"[a-z_]+/\S+", recording.kind)
        assert recording.licence
    for files in mixtures:
        for reference in files.references:
            for track in reference.add:
                assert read(root / track.path, track.track).num_samples > 0
    assert len({recording.key for recording in recordings}) == len(recordings)
    assert len({(files.split, files.name) for files in mixtures}) == len(mixtures)


@pytest.mark.parametrize("name", MAKERS)
def test_a_corpus_without_its_folder_says_which_folder_is_missing(
    name: str, tmp_path: Path
) -> None:
    corpus = find_corpus(name)
    for lister in filter(None, (corpus.recordings, corpus.mixtures)):
        told(lister(tmp_path / "nowhere"), str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", MAKERS)
def test_an_empty_folder_is_not_a_whole_copy(name: str, tmp_path: Path) -> None:
    corpus = find_corpus(name)
    for lister in filter(None, (corpus.recordings, corpus.mixtures)):
        told(lister(tmp_path), str(tmp_path), corpus.title)


@pytest.mark.parametrize("name", MAKERS)
def test_a_corpus_tells_where_it_comes_from(name: str) -> None:
    corpus = find_corpus(name)
    assert corpus.url.startswith("https://")
    assert corpus.how_to_get.endswith(".")
    names = [archive.name for archive in corpus.archives]
    assert len(set(names)) == len(names)
    for archive in corpus.archives:
        assert archive.url.startswith("https://")
        assert not archive.digest or re.fullmatch(
            r"md5:[0-9a-f]{32}|sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64}", archive.digest
        )


# ------------------------------------------------------------------ DEMAND


def test_demand_keeps_the_noises_of_vctk_demand_for_the_test(tmp_path: Path) -> None:
    found = list(demand.recordings(make_demand(tmp_path)))
    assert [row.path for row in found] == [f"{place}/ch01.wav" for place in DEMAND_PLACES]
    assert {row.kind for row in found if row.split == "test"} == {
        "sfx/ambience_dliving", "sfx/ambience_ooffice", "sfx/ambience_tbus",
        "sfx/ambience_pcafeter", "sfx/ambience_spsquare",
    }  # fmt: skip
    assert len([row for row in found if row.split == "train"]) == 13
    assert len(demand.CORPUS.archives) == 18


def test_demand_is_cut_into_pieces(tmp_path: Path) -> None:
    make_demand(tmp_path)
    write_wav(tmp_path / "NPARK" / "ch01.wav", 0.1, 17.0, 48000)
    found = {row.path: row.pieces_s for row in demand.recordings(tmp_path)}
    assert found["NPARK/ch01.wav"] == (0.0, 4.0, 8.0)
    assert found["DKITCHEN/ch01.wav"] == (0.0,)


def test_demand_unpacked_at_the_wrong_rate_is_refused(tmp_path: Path) -> None:
    make_demand(tmp_path)
    path = write_wav(tmp_path / "NFIELD" / "ch01.wav", rate=16000)
    told(demand.recordings(tmp_path), str(path), "16000 Hz", "NFIELD_48k.zip")


# ------------------------------------------------------------------ FSD50K


def test_fsd50k_is_sorted_by_length_and_labels(tmp_path: Path) -> None:
    found = {Path(row.path).stem: row for row in fsd50k.recordings(make_fsd50k(tmp_path))}
    assert {name: (row.kind, row.split) for name, row in found.items()} == {
        "1": ("sfx/dog", "train"),
        "2": ("sfx/ambience_cat", "train"),  # one label, long
        # 3 is short and has two labels; 5 is music, 6 a voice
        "4": ("sfx/ambience_rain+wind+animal", "valid"),  # exactly 8 s
        "7": ("sfx/wind", "valid"),
        "8": ("sfx/rain", "train"),
        "9": ("sfx/animal", "train"),  # nothing more specific is known
        "10": ("sfx/domestic_animals_and_pets", "train"),
        "21": ("sfx/dog", "test"),  # 22 are people
    }
    assert found["1"].licence == "http://cc0"
    assert "CC BY 4.0" in found["7"].licence


def test_fsd50k_without_its_eval_part_lists_the_rest(tmp_path: Path) -> None:
    root = make_fsd50k(tmp_path)
    for path in (root / "FSD50K.eval_audio").iterdir():
        path.unlink()
    told(fsd50k.recordings(root), str(root / "FSD50K.eval_audio" / "21.wav"), "eval.csv")
    (root / "FSD50K.eval_audio").rmdir()
    assert {row.split for row in fsd50k.recordings(root)} == {"train", "valid"}


def test_labels_that_always_come_together_count_as_one() -> None:
    implied = fsd50k.implied_labels([["Owl", "Bird"], ["Owl", "Bird"]])
    assert fsd50k.most_specific(["Owl", "Bird"], implied) == ["Owl"]


def test_a_list_of_fsd50k_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    root = make_fsd50k(tmp_path)
    path = root / "FSD50K.ground_truth" / "dev.csv"
    write_rows(path, [("name", "tags"), ("1", "Dog")])
    told(fsd50k.recordings(root), str(path), "fname")
    write_rows(path, [("fname", "labels", "mids", "split"), ("1", "Dog", "/m/0", "holdout")])
    told(fsd50k.recordings(root), str(path), "holdout")


def test_damaged_licences_of_fsd50k_are_named(tmp_path: Path) -> None:
    root = make_fsd50k(tmp_path)
    path = root / "FSD50K.metadata" / "dev_clips_info_FSD50K.json"
    for text in ("{", "[]", '{"1": {}}'):
        path.write_text(text)
        told(fsd50k.recordings(root), str(path))


# ------------------------------------------------------------------ FUSS


def test_fuss_gives_a_source_for_every_file_of_its_list(tmp_path: Path) -> None:
    root = make_fuss(tmp_path)
    two, one, four = fuss.mixtures(root, split="eval")
    assert (two.name, two.split, two.group, two.mixture) == ("example00000", "eval", "", None)
    assert paths_of(two) == [
        "ssdata/eval/example00000_sources/background0_sound.wav",
        "ssdata/eval/example00000_sources/foreground0_sound.wav",
    ]
    assert [len(files.references) for files in (two, one, four)] == [2, 1, 4]
    assert {reference.prompt for reference in four.references} == {"sfx"}
    assert read(root / paths_of(two)[1]).samples.max() == pytest.approx(0.2, abs=1e-4)


def test_fuss_may_be_given_as_its_inner_folder_and_with_reverberation(tmp_path: Path) -> None:
    make_fuss(tmp_path)
    make_fuss(tmp_path, "ssdata_reverb")
    inner = next(fuss.mixtures(tmp_path / "ssdata"))
    assert paths_of(inner)[0] == "eval/example00000_sources/background0_sound.wav"
    assert (tmp_path / "ssdata" / paths_of(inner)[0]).is_file()
    wet = next(fuss.mixtures(tmp_path, reverb=True))
    assert paths_of(wet)[0].startswith("ssdata_reverb/eval/")


def test_fuss_lists_only_the_splits_that_are_there(tmp_path: Path) -> None:
    root = make_fuss(tmp_path)
    (root / "ssdata" / "train_example_list.txt").unlink()
    mixtures = find_corpus("fuss").mixtures
    assert mixtures is not None
    assert [files.split for files in mixtures(root)] == ["validation"] * 3 + ["eval"] * 3


def test_mixtures_of_fuss_are_recordings_beside_their_sources(tmp_path: Path) -> None:
    root = make_fuss(tmp_path)
    (root / "ssdata" / "train_example_list.txt").unlink()
    rows = list(fuss.recordings(root))
    assert {row.split for row in rows} == {"validation", "eval"}
    assert [row.kind for row in rows[:3]] == [
        "mixture/fuss", "sfx/fuss_background", "sfx/fuss_foreground",
    ]  # fmt: skip
    assert len(rows) == 2 * (3 + 7)
    assert rows[0].path == "ssdata/validation/example00000.wav"
    (root / rows[0].path).unlink()
    told(fuss.recordings(root), str(root / rows[0].path), "validation_example_list.txt")


def test_a_missing_source_of_fuss_is_named_with_its_list(tmp_path: Path) -> None:
    root = make_fuss(tmp_path)
    path = root / "ssdata" / "eval" / "example00002_sources" / "foreground2_sound.wav"
    path.unlink()
    told(fuss.mixtures(root), str(path), "eval_example_list.txt")


def test_a_line_of_fuss_without_sources_is_named(tmp_path: Path) -> None:
    root = make_fuss(tmp_path)
    path = root / "ssdata" / "eval_example_list.txt"
    path.write_text("eval/example00000.wav\n")
    told(fuss.mixtures(root), f"{path}, line 1", "no source")


# ------------------------------------------------------------------ Divide and Remaster


def test_dnr_v2_asks_for_speech_music_and_effects(tmp_path: Path) -> None:
    root = make_dnr_v2(tmp_path)
    first, second = dnr_v2.mixtures(root)
    assert [first.name, second.name] == ["1002", "21"]
    assert {reference.prompt: reference.add[0].path for reference in first.references} == {
        "speech": "dnr_v2/tt/1002/speech.wav",
        "music-mix": "dnr_v2/tt/1002/music.wav",
        "sfx-mix": "dnr_v2/tt/1002/sfx.wav",
    }
    assert [reference.prompt for reference in first.references] == [
        "speech", "music-mix", "sfx-mix",
    ]  # fmt: skip
    assert first.mixture is None


def test_dnr_v2_may_be_given_as_its_inner_folder(tmp_path: Path) -> None:
    root = make_dnr_v2(tmp_path) / "dnr_v2"
    assert [files.name for files in dnr_v2.mixtures(root, split="valid")] == ["7"]
    assert paths_of(next(dnr_v2.mixtures(root, split="train")))[0] == "tr/5/speech.wav"


@pytest.mark.parametrize("extension", [".flac", ".wav"])
def test_dnr_v3_is_read_by_language(tmp_path: Path, extension: str) -> None:
    root = make_dnr_v3(tmp_path, extension)
    assert [files.name for files in dnr_v3.mixtures(root)] == ["multi_00000", "multi_00001"]
    (english,) = dnr_v3.mixtures(root, language="eng")
    assert paths_of(english) == [
        f"eng/audio/test/00000/{stem}{extension}" for stem in ("speech", "music", "sfx")
    ]
    mixtures = find_corpus("dnr-v3").mixtures
    assert mixtures is not None
    assert sorted(files.name for files in mixtures(root) if files.split == "test") == [
        "eng_00000", "multi_00000", "multi_00001",
    ]  # fmt: skip


def test_a_missing_stem_of_dnr_is_named(tmp_path: Path) -> None:
    root = make_dnr_v2(tmp_path)
    path = root / "dnr_v2" / "tt" / "21" / "sfx.wav"
    path.unlink()
    told(dnr_v2.mixtures(root), str(path))


def test_a_language_that_dnr_v3_lacks_is_named(tmp_path: Path) -> None:
    root = make_dnr_v3(tmp_path)
    told(dnr_v3.mixtures(root, language="deu"), "deu/audio/test")


# ------------------------------------------------------------------ MUSDB18


def test_the_tracks_of_a_song_are_the_stems_they_are_said_to_be(tmp_path: Path) -> None:
    root = make_musdb18(tmp_path)
    (song,) = musdb18.mixtures(root)
    assert (song.name, song.group, song.split) == (MUSDB_TEST[0], MUSDB_TEST[0], "test")
    assert [reference.prompt for reference in song.references] == [
        "vocals", "drums", "bass", "other",
    ]  # fmt: skip
    for reference in song.references:
        (track,) = reference.add
        heard = read(root / track.path, track.track).samples
        # A sine of that peak, give or take what AAC changes.
        assert float(heard.square().mean().sqrt()) * 2**0.5 == pytest.approx(
            STEM_LEVELS[reference.prompt], rel=0.1
        )


@pytest.mark.parametrize(
    ("make", "mixtures"),
    [(make_musdb18, musdb18.mixtures), (make_musdb18_hq, musdb18_hq.mixtures)],
)
def test_the_usual_songs_are_set_aside_for_validation(
    make: Callable[[Path], Path],
    mixtures: Callable[..., Iterator[MixtureFiles]],
    tmp_path: Path,
) -> None:
    root = make(tmp_path)
    assert len(musdb18.VALIDATION_SONGS) == 14
    assert [files.name for files in mixtures(root, split="train")] == ["A Band - A Song"]
    assert [files.name for files in mixtures(root, split="valid")] == ["ANiMAL - Rockshow"]


def test_musdb18_hq_takes_the_stems_from_the_song_s_folder(tmp_path: Path) -> None:
    (song,) = musdb18_hq.mixtures(make_musdb18_hq(tmp_path))
    assert (song.group, song.mixture) == (MUSDB_TEST[0], None)
    assert paths_of(song) == [
        f"test/{MUSDB_TEST[0]}/{stem}.wav" for stem in ("vocals", "drums", "bass", "other")
    ]


def test_stems_are_listed_with_the_pieces_in_which_they_are_heard(tmp_path: Path) -> None:
    root = make_musdb18_hq(tmp_path)
    song = root / "train" / "A Band - A Song"
    rate = 1000
    loud_then_silent = np.zeros((20 * rate, 2))
    loud_then_silent[: 8 * rate] = np.random.default_rng(0).uniform(-1, 1, (8 * rate, 1))
    soundfile.write(song / "vocals.wav", loud_then_silent, rate)
    only_right = loud_then_silent * (0, 1)
    soundfile.write(song / "bass.wav", only_right, rate)
    found = {row.path: row for row in musdb18_hq.recordings(root)}
    # The other stems are too short for a piece, and of the bass only the left channel counts.
    assert list(found) == ["train/A Band - A Song/vocals.wav"]
    vocals = found["train/A Band - A Song/vocals.wav"]
    assert (vocals.kind, vocals.split, vocals.duration_s) == ("music_stems/vocals", "train", 20.0)
    # The piece at 4 s has 8 loud chunks of 16; in the one at 8 s there are none.
    assert vocals.pieces_s == (0.0, 4.0)


@pytest.mark.slow
def test_stems_of_one_file_are_told_apart_by_their_track(tmp_path: Path) -> None:
    root = make_musdb18(tmp_path, duration_s=8.2)
    found = {row.key: row for row in musdb18.recordings(root, activity=SFC)}
    song = f"test/{MUSDB_TEST[0]}.stem.mp4"
    by_track = {2: "drums", 3: "bass", 4: "other", 5: "vocals"}
    heard = {row.track: row.kind for row in found.values() if row.path == song}
    assert heard == {track: f"music_stems/{stem}" for track, stem in by_track.items()}
    assert {row.split for row in found.values()} == {"train", "valid", "test"}


def test_a_missing_stem_of_musdb18_hq_is_named(tmp_path: Path) -> None:
    root = make_musdb18_hq(tmp_path)
    path = root / "test" / MUSDB_TEST[0] / "bass.wav"
    path.unlink()
    told(musdb18_hq.mixtures(root), str(path))


def test_a_song_of_musdb18_that_is_no_media_file_is_named(tmp_path: Path) -> None:
    root = make_musdb18(tmp_path)
    path = root / "train" / "A Band - A Song.stem.mp4"
    path.write_bytes(b"nothing that can be heard")
    told(musdb18.recordings(root), str(path))


# ------------------------------------------------------------------ MoisesDB


def test_moisesdb_adds_up_the_tracks_of_a_stem(tmp_path: Path) -> None:
    root = make_moisesdb(tmp_path)
    (song,) = moisesdb.mixtures(root)
    assert (song.name, song.group, song.split) == ("0ccc", "Artist 2 - Song 2", "test")
    home = "moisesdb_v0.1/0ccc"
    assert {
        reference.prompt: [track.path for track in reference.add] for reference in song.references
    } == {
        "vocals": [f"{home}/vocals/v1.wav", f"{home}/vocals/v2.wav"],
        "drums": [f"{home}/drums/d1.wav"],
        "bass": [],
        "other": [f"{home}/guitar/g1.wav", f"{home}/percussion/p1.wav"],
    }
    assert [reference.prompt for reference in song.references] == [
        "vocals", "drums", "bass", "other",
    ]  # fmt: skip


def test_moisesdb_takes_its_splits_from_the_list_beside_it(tmp_path: Path) -> None:
    root = make_moisesdb(tmp_path, duration_s=8.2)
    # Constants are no louder than their own 15th percentile, so every track is made to fade.
    for path in root.glob("moisesdb_v0.1/*/*/*.wav"):
        fading(path)
    found = list(moisesdb.recordings(root))
    assert len(found) == 3 * sum(len(tracks) for tracks in MOISES_TRACKS.values())
    assert {row.path.split("/")[1]: row.split for row in found} == {
        "0aaa": "train", "0bbb": "valid", "0ccc": "test",
    }  # fmt: skip
    kinds = {Path(row.path).stem: row.kind for row in found}
    assert kinds == {
        "v1": "music_stems/vocals", "v2": "music_stems/vocals", "d1": "music_stems/drums",
        "g1": "music_stems/other", "p1": "music_stems/other",
    }  # fmt: skip
    assert {row.pieces_s for row in found} == {(0.0,)}


def fading(path: Path) -> None:
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples * np.linspace(1, 0.9, len(samples)), rate)


def test_moisesdb_without_splits_says_where_they_are(tmp_path: Path) -> None:
    root = make_moisesdb(tmp_path, with_splits=False)
    told(moisesdb.mixtures(root), str(root / "splits.csv"), "query-bandit")
    assert [files.split for files in moisesdb.mixtures(root, split="all")] == ["all"] * 3


def test_a_list_of_splits_that_does_not_fit_is_named(tmp_path: Path) -> None:
    root = make_moisesdb(tmp_path)
    write_rows(root / "splits.csv", [("song_id", "split"), ("0aaa", "6")])
    told(moisesdb.mixtures(root), str(root / "splits.csv"), "6")
    write_rows(root / "splits.csv", [("song_id", "split"), ("0aaa", "1")])
    told(moisesdb.mixtures(root), str(root / "splits.csv"), "0bbb")


def test_a_missing_track_of_moisesdb_is_named_with_its_song(tmp_path: Path) -> None:
    root = make_moisesdb(tmp_path)
    path = root / "moisesdb_v0.1" / "0bbb" / "guitar" / "g1.wav"
    path.unlink()
    told(moisesdb.mixtures(root), str(path), "0bbb/data.json")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"artist": "", "song": "", "stems": []}'])
def test_a_song_of_moisesdb_that_is_not_described_is_named(tmp_path: Path, text: str) -> None:
    root = make_moisesdb(tmp_path)
    path = root / "moisesdb_v0.1" / "0aaa" / "data.json"
    path.write_text(text)
    told(moisesdb.mixtures(root), str(path))


def test_tracks_of_moisesdb_at_different_rates_are_refused(tmp_path: Path) -> None:
    root = make_moisesdb(tmp_path)
    path = write_wav(root / "moisesdb_v0.1" / "0ccc" / "drums" / "d1.wav", rate=16000)
    told(moisesdb.mixtures(root), str(path), "16000 Hz")


# ------------------------------------------------------------------ FMA


def test_fma_lists_the_medium_set_with_its_own_splits(tmp_path: Path) -> None:
    found = list(fma.recordings(make_fma(tmp_path)))
    assert [(row.path, row.split, row.licence) for row in found] == [
        ("fma_medium/000/000002.mp3", "train", "CC BY"),
        ("fma_medium/001/001486.mp3", "valid", "CC BY-NC"),
        ("fma_medium/003/003000.mp3", "test", "CC0"),
    ]
    assert {row.kind for row in found} == {"music/mix"}
    assert [row.duration_s for row in found] == pytest.approx([0.2] * 3, abs=0.1)
    assert {row.sample_rate for row in found} == {16000}


def test_a_clip_of_fma_without_sound_is_left_to_whoever_decodes_it(tmp_path: Path) -> None:
    root = make_fma(tmp_path)
    (root / "fma_medium" / "001" / "001486.mp3").write_bytes(b"ID3 and nothing else")
    broken = list(fma.recordings(root))[1]
    assert (broken.path, broken.duration_s, broken.sample_rate) == (
        "fma_medium/001/001486.mp3", 30.0, 44100,
    )  # fmt: skip


def test_a_missing_clip_of_fma_is_named(tmp_path: Path) -> None:
    root = make_fma(tmp_path)
    path = root / "fma_medium" / "003" / "003000.mp3"
    path.unlink()
    told(fma.recordings(root), str(path), "tracks.csv")


@pytest.mark.parametrize("text", ["", "a,b\n", "a,b\nc,d\n\n", ",set\n,split\ntrack_id,\n"])
def test_a_list_of_fma_that_makes_no_sense_is_named(tmp_path: Path, text: str) -> None:
    root = make_fma(tmp_path)
    path = root / "fma_metadata" / "tracks.csv"
    path.write_text(text)
    told(fma.recordings(root), str(path))


def test_a_list_of_fma_without_the_medium_set_is_named(tmp_path: Path) -> None:
    root = make_fma(tmp_path)
    path = root / "fma_metadata" / "tracks.csv"
    assert any(subset == "large" for _, subset, _ in FMA_TRACKS.values())
    text = path.read_text().replace("small", "large").replace("medium", "large")
    path.write_text(text)
    told(fma.recordings(root), str(path), "medium")


# ------------------------------------------------------------------ ESC-50


@pytest.mark.parametrize("name", ["ESC-50-master", "ESC-50", "."])
def test_esc50_is_found_under_all_names_it_has(tmp_path: Path, name: str) -> None:
    root = make_esc50(tmp_path, name)
    found = list(esc50.recordings(root))
    assert [(row.kind, row.split) for row in found] == [
        ("sfx/dog", "fold1"), ("sfx/vacuum_cleaner", "fold1"), ("sfx/dog", "fold5"),
    ]  # fmt: skip
    assert all((root / row.path).is_file() for row in found)
    assert [row.licence for row in found] == ["CC BY", "CC BY-NC 3.0", "CC BY"]


def test_esc10_is_the_marked_part_of_esc50(tmp_path: Path) -> None:
    found = list(esc10.recordings(make_esc50(tmp_path)))
    assert [(row.kind, row.split) for row in found] == [("sfx/dog", "fold1"), ("sfx/dog", "fold5")]


def test_a_missing_clip_of_esc50_is_named_with_its_list(tmp_path: Path) -> None:
    root = make_esc50(tmp_path)
    path = root / "ESC-50-master" / "audio" / "5-200-B-0.wav"
    path.unlink()
    told(esc50.recordings(root), str(path), "meta/esc50.csv")


def test_a_list_of_esc50_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    root = make_esc50(tmp_path)
    path = root / "ESC-50-master" / "meta" / "esc50.csv"
    write_rows(path, [("filename", "fold", "category", "esc10"), ("a.wav", "x", "dog", "True")])
    told(esc50.recordings(root), str(path))
    write_rows(path, [("filename", "category"), ("a.wav", "dog")])
    told(esc50.recordings(root), str(path), "fold")


# ------------------------------------------------------------------ AudioSet


def test_audioset_lists_what_is_there_by_its_labels(tmp_path: Path) -> None:
    found = list(make_and_list_audioset(tmp_path))
    assert [(row.path, row.kind, row.split) for row in found] == [
        (
            "audios/balanced_train_segments/Y--abc.wav",
            "weak/speech+male_speech_man_speaking",
            "train",
        ),
        (
            "audios/unbalanced_train_segments/unbalanced_train_segments_part00/Ydef_Y.wav",
            "weak/dog",
            "train",
        ),
        ("audios/eval_segments/Yghi.wav", "weak/dog", "test"),
    ]


def make_and_list_audioset(folder: Path) -> Iterator[Recording]:
    recordings = find_corpus("audioset").recordings
    assert recordings is not None
    return recordings(make_audioset(folder))


def test_labels_of_audioset_stand_in_the_order_of_their_list(tmp_path: Path) -> None:
    root = make_audioset(tmp_path)
    clips = root / "metadata" / "balanced_train_segments.csv"
    clips.write_text(clips.read_text().replace("/m/09x0r,/m/05zppz", "/m/05zppz,/m/09x0r"))
    recordings = find_corpus("audioset").recordings
    assert recordings is not None
    assert next(recordings(root)).kind == "weak/speech+male_speech_man_speaking"


def test_a_clip_that_no_list_of_audioset_knows_is_named(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "audios" / "eval_segments" / "Ystranger.wav")
    told(make_and_list_audioset(tmp_path), str(path), "stranger")


def test_damaged_lists_of_audioset_are_named(tmp_path: Path) -> None:
    recordings = find_corpus("audioset").recordings
    assert recordings is not None
    root = make_audioset(tmp_path)
    clips = root / "metadata" / "eval_segments.csv"
    clips.write_text("#\n#\n#\nghi, 0.0\n")
    told(recordings(root), str(clips))
    labels = root / "metadata" / "class_labels_indices.csv"
    labels.write_text("index,name\n0,Speech\n")
    told(recordings(root), str(labels), "mid")
    labels.unlink()
    told(recordings(root), "metadata/class_labels_indices.csv")


# ------------------------------------------------------------------ AudioSet, packed


def packed_rows(root: Path) -> Iterator[Recording]:
    pytest.importorskip("h5py")
    recordings = find_corpus("audioset").recordings
    assert recordings is not None
    return recordings(root)


PACKED = "hdf5s/waveforms"
PART = f"{PACKED}/unbalanced_train/unbalanced_train_part00.h5"
PACKED_ROWS = {
    (f"{PACKED}/balanced_train.h5", 1, "weak/speech+male_speech_man_speaking", "train"),
    (f"{PACKED}/balanced_train.h5", 3, "weak/dog", "train"),
    (f"{PACKED}/eval.h5", 1, "weak/dog", "test"),
    (PART, 2, "weak/dog", "train"),
}


def facts(rows: Iterator[Recording]) -> list[tuple[str, int | None, str, str]]:
    return sorted((row.path, row.track, row.kind, row.split) for row in rows)


@pytest.fixture
def packed_root(tmp_path: Path) -> Path:
    pytest.importorskip("h5py")
    return make_audioset_packed(tmp_path)


@pytest.mark.parametrize("with_indexes", [True, False])
def test_packed_clips_of_audioset_are_tracks_and_none_comes_twice(
    tmp_path: Path, with_indexes: bool
) -> None:
    pytest.importorskip("h5py")
    root = make_audioset_packed(tmp_path, with_indexes)
    rows = list(packed_rows(root))
    assert facts(iter(rows)) == sorted(PACKED_ROWS)
    assert {(row.duration_s, row.sample_rate, row.bandwidth_hz) for row in rows} == {
        (0.05, 32000, 16000.0)
    }
    for row in rows:
        assert read(root / row.path, row.track).num_samples == 1600


def test_packed_clips_are_read_instead_of_the_wav_files_they_come_from(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    make_audioset(tmp_path)
    assert facts(packed_rows(make_audioset_packed(tmp_path))) == sorted(PACKED_ROWS)


def test_the_full_index_of_audioset_is_enough_for_training(packed_root: Path) -> None:
    indexes = packed_root / "hdf5s" / "indexes"
    for path in (indexes / "balanced_train.h5", *indexes.glob("*/*.h5")):
        path.unlink()
    assert facts(packed_rows(packed_root)) == sorted(PACKED_ROWS)


def test_an_index_may_leave_clips_out(packed_root: Path) -> None:
    indexes = packed_root / "hdf5s" / "indexes"
    (indexes / "full_train.h5").unlink()
    clip = ("Yxyz.wav", 0.2, (2,))
    write_packed_index(
        indexes / "balanced_train.h5", [(clip, f"{PACKED_ELSEWHERE}/balanced_train.h5", 2)]
    )
    left_out = {row for row in PACKED_ROWS if row[0].endswith("balanced_train.h5") and row[1] == 1}
    assert facts(packed_rows(packed_root)) == sorted(PACKED_ROWS - left_out)


def test_a_packed_file_that_no_index_names_is_listed_whole(packed_root: Path) -> None:
    (packed_root / "hdf5s" / "indexes" / "eval.h5").unlink()
    assert facts(packed_rows(packed_root)) == sorted(PACKED_ROWS)


def test_indexes_of_cut_copies_are_left_out(packed_root: Path) -> None:
    clip = ("Yxyz.wav", 0.2, (2,))
    path = packed_root / "hdf5s" / "indexes" / "mini_balanced_train.h5"
    write_packed_index(path, [(clip, f"{PACKED_ELSEWHERE}/balanced_train.h5.mini", 0)])
    assert facts(packed_rows(packed_root)) == sorted(PACKED_ROWS)


@pytest.mark.parametrize(
    "named",
    [
        "C:\\audioset\\hdf5s\\waveforms\\eval.h5",
        "waveforms/eval.h5",
        "./workspaces/audioset_tagging/hdf5s/waveforms/eval.h5",
    ],
)
def test_a_packed_file_is_found_wherever_it_was_packed(packed_root: Path, named: str) -> None:
    index = packed_root / "hdf5s" / "indexes" / "eval.h5"
    write_packed_index(index, [(("Yghi.wav", 0.3, (2,)), named, 0)])
    assert facts(packed_rows(packed_root)) == sorted(PACKED_ROWS)


def test_the_index_tells_the_split_where_the_packed_file_does_not(packed_root: Path) -> None:
    clip = ("Ynew.wav", 0.2, (0,))
    write_packed(packed_root / PACKED / "part.h5", [clip])
    told(packed_rows(packed_root), str(packed_root / PACKED / "part.h5"), "train or eval")
    index = packed_root / "hdf5s" / "indexes" / "my_eval.h5"
    write_packed_index(index, [(clip, f"{PACKED_ELSEWHERE}/part.h5", 0)])
    new = (f"{PACKED}/part.h5", 1, "weak/speech", "test")
    assert facts(packed_rows(packed_root)) == sorted({*PACKED_ROWS, new})


def test_a_packed_file_that_an_index_names_and_that_is_missing_is_named(packed_root: Path) -> None:
    (packed_root / PART).unlink()
    told(packed_rows(packed_root), str(packed_root / PART), "full_train.h5", "names it")


@pytest.mark.parametrize(
    "named", ["/data/indexes/eval.h5", "waveforms", "waveforms/../eval.h5", ""]
)
def test_an_index_that_names_no_packed_file_is_named(packed_root: Path, named: str) -> None:
    index = packed_root / "hdf5s" / "indexes" / "eval.h5"
    write_packed_index(index, [(("Yghi.wav", 0.3, (2,)), named, 0)])
    told(packed_rows(packed_root), str(index), repr(named), "waveforms")


@pytest.mark.parametrize("row", [-1, 1])
def test_an_index_that_names_a_row_that_is_not_there_is_named(packed_root: Path, row: int) -> None:
    index = packed_root / "hdf5s" / "indexes" / "eval.h5"
    write_packed_index(index, [(("Yghi.wav", 0.3, (2,)), f"{PACKED_ELSEWHERE}/eval.h5", row)])
    told(packed_rows(packed_root), str(index), str(packed_root / PACKED / "eval.h5"), "1 clips")


def test_a_packed_clip_without_a_label_is_named(packed_root: Path) -> None:
    index = packed_root / "hdf5s" / "indexes" / "eval.h5"
    write_packed_index(index, [(("Yghi.wav", 0.3, ()), f"{PACKED_ELSEWHERE}/eval.h5", 0)])
    told(packed_rows(packed_root), str(index), "clip 1", "no label")


def test_packed_clips_with_other_labels_than_those_listed_are_refused(packed_root: Path) -> None:
    labels = packed_root / "metadata" / "class_labels_indices.csv"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:-1]))
    told(packed_rows(packed_root), "balanced_train.h5", "3 classes", "lists 2")


@pytest.mark.parametrize("folder", ["indexes", "waveforms"])
@pytest.mark.parametrize("content", [b"", b"no HDF5 at all", b"\x89HDF\r\n\x1a\n and no more"])
def test_a_packed_file_or_index_that_is_damaged_is_named(
    packed_root: Path, folder: str, content: bytes
) -> None:
    path = packed_root / "hdf5s" / folder / "eval.h5"
    path.write_bytes(content)
    told(packed_rows(packed_root), str(path), "HDF5")


def test_a_packed_file_in_the_place_of_an_index_is_named(packed_root: Path) -> None:
    index = packed_root / "hdf5s" / "indexes" / "eval.h5"
    index.write_bytes((packed_root / PACKED / "eval.h5").read_bytes())
    told(packed_rows(packed_root), str(index), "hdf5_path")


def test_packed_clips_need_the_list_of_labels_and_the_packed_files(packed_root: Path) -> None:
    for path in packed_root.glob("hdf5s/indexes/**/*.h5"):
        path.unlink()
    for path in packed_root.glob("hdf5s/waveforms/**/*.h5"):
        path.unlink()
    told(packed_rows(packed_root), str(packed_root / PACKED), "*.h5")
    (packed_root / "metadata" / "class_labels_indices.csv").unlink()
    told(packed_rows(packed_root), str(packed_root), "metadata/class_labels_indices.csv")


# ------------------------------------------------------------------ bad input


LISTERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Iterator[object]], str]] = {
    "demand": (make_demand, demand.recordings, "NPARK/ch01.wav"),
    "fsd50k": (make_fsd50k, fsd50k.recordings, "FSD50K.dev_audio/7.wav"),
    "fuss": (
        make_fuss,
        fuss.mixtures,
        "ssdata/eval/example00002_sources/foreground1_sound.wav",
    ),
    "dnr_v2": (make_dnr_v2, dnr_v2.mixtures, "dnr_v2/tt/21/music.wav"),
    "dnr_v3": (make_dnr_v3, dnr_v3.mixtures, "multi/audio/test/00001/sfx.flac"),
    "musdb18_hq": (make_musdb18_hq, musdb18_hq.mixtures, f"test/{MUSDB_TEST[0]}/other.wav"),
    "moisesdb": (make_moisesdb, moisesdb.mixtures, "moisesdb_v0.1/0ccc/vocals/v2.wav"),
    "esc50": (make_esc50, esc50.recordings, "ESC-50-master/audio/1-101-A-36.wav"),
}


@pytest.mark.parametrize("name", LISTERS)
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    make, lister, path = LISTERS[name]
    root = make(tmp_path)
    (root / path).write_bytes(b"this is no sound")
    told(lister(root), str(root / path))


@pytest.mark.parametrize("name", ["fuss", "dnr_v2", "dnr_v3", "musdb18_hq"])
def test_stems_of_different_length_are_named(name: str, tmp_path: Path) -> None:
    make, lister, path = LISTERS[name]
    root = make(tmp_path)
    rate = read(root / path).sample_rate
    write_wav(root / path, duration_s=0.3, rate=rate)
    told(lister(root), str(root / path), "samples", "one length")


@pytest.mark.parametrize(
    ("mixtures", "make", "known"),
    [
        (fuss.mixtures, make_fuss, "validation"),
        (dnr_v2.mixtures, make_dnr_v2, "valid"),
        (dnr_v3.mixtures, make_dnr_v3, "valid"),
        (musdb18.mixtures, make_musdb18, "valid"),
        (musdb18_hq.mixtures, make_musdb18_hq, "valid"),
        (moisesdb.mixtures, make_moisesdb, "valid"),
    ],
)
def test_an_unknown_split_names_those_there_are(
    mixtures: Callable[..., Iterator[MixtureFiles]],
    make: Callable[[Path], Path],
    known: str,
    tmp_path: Path,
) -> None:
    told(mixtures(make(tmp_path), split="holdout"), "'holdout'", known, "train")


@pytest.mark.parametrize(
    ("mixtures", "folder"), [(musdb18_hq.mixtures, "test"), (dnr_v2.mixtures, "tt")]
)
def test_a_split_without_content_is_no_whole_copy(
    mixtures: Callable[..., Iterator[MixtureFiles]], folder: str, tmp_path: Path
) -> None:
    (tmp_path / folder).mkdir()
    told(mixtures(tmp_path), str(tmp_path / folder), "holds no folder")


def test_a_folder_of_moisesdb_without_songs_is_no_whole_copy(tmp_path: Path) -> None:
    (tmp_path / "moisesdb_v0.1").mkdir()
    write_rows(tmp_path / "splits.csv", [("song_id", "split")])
    told(moisesdb.mixtures(tmp_path), str(tmp_path / "moisesdb_v0.1"), "data.json")


def test_a_song_of_moisesdb_may_say_more_than_is_needed(tmp_path: Path) -> None:
    root = make_moisesdb(tmp_path)
    path = root / "moisesdb_v0.1" / "0ccc" / "data.json"
    data = json.loads(path.read_text()) | {"provider": "someone"}
    path.write_text(json.dumps(data))
    assert len(list(moisesdb.mixtures(root))) == 1
