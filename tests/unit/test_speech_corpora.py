"""Speech corpora: what they list from miniature copies, and what they say of broken ones."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import speech_miniatures as miniatures
from speech_miniatures import FIRST, NOISE, SECOND
from unbraid.audio import read
from unbraid.data.corpora import (
    dns,
    find_corpus,
    libri2mix,
    librispeech,
    librivox_urgent,
    vctk,
    vctk_demand,
    wham,
    whamr,
    wsj0,
    wsj0_2mix,
)
from unbraid.data.corpora.base import MixtureFiles, ReferenceFiles, Track
from unbraid.data.manifest import Recording, format_manifest, read_manifest
from unbraid.errors import DataError

MIXTURES = {
    "vctk_demand": (miniatures.make_vctk_demand, vctk_demand.mixtures),
    "wsj0_2mix": (miniatures.make_wsj0_2mix, wsj0_2mix.mixtures),
    "wham": (miniatures.make_wham, wham.mixtures),
    "whamr": (miniatures.make_whamr, whamr.mixtures),
    "libri2mix": (miniatures.make_libri2mix, libri2mix.mixtures),
    "dns": (miniatures.make_dns, dns.mixtures),
}
RECORDINGS = {
    "vctk": (miniatures.make_vctk, vctk.recordings),
    "wsj0": (miniatures.make_wsj0, wsj0.recordings),
    "wham": (miniatures.make_wham, wham.recordings),
    "librispeech": (miniatures.make_librispeech, librispeech.recordings),
    "librivox_urgent": (miniatures.make_librivox_urgent, librivox_urgent.recordings),
    "dns": (miniatures.make_dns, dns.recordings),
}


def level(root: Path, track: Track) -> float:
    """What a constant file holds."""
    samples = read(root / track.path, track.track).samples
    assert samples.min() == samples.max()
    return float(samples[0, 0])


def reference_level(root: Path, reference: ReferenceFiles) -> float:
    added = sum(level(root, track) for track in reference.add)
    return added - sum(level(root, track) for track in reference.subtract)


def prompts(mixture: MixtureFiles) -> list[str]:
    return [reference.prompt for reference in mixture.references]


def by_path(recordings: list[Recording]) -> dict[str, Recording]:
    return {recording.path: recording for recording in recordings}


# ------------------------------------------------------------------ mixtures


@pytest.mark.parametrize("name", MIXTURES)
def test_names_are_unique_and_levels_are_those_of_the_files(name: str, tmp_path: Path) -> None:
    make, mixtures = MIXTURES[name]
    root = make(tmp_path)
    listed = list(mixtures(root))
    assert len(listed) == 2
    assert len({mixture.name for mixture in listed}) == 2
    expected = {"sfx-mix": [NOISE], "speech": [FIRST, SECOND]}
    for mixture in listed:
        left = {prompt: list(levels) for prompt, levels in expected.items()}
        for reference in mixture.references:
            wanted = left[reference.prompt].pop(0)
            assert reference_level(root, reference) == pytest.approx(wanted, abs=2**-14)


@pytest.mark.parametrize(
    ("name", "prompts_wanted", "mixture_level"),
    [
        ("vctk_demand", ["speech", "sfx-mix"], None),
        ("wsj0_2mix", ["speech", "speech"], FIRST + SECOND),
        ("wham", ["speech", "speech", "sfx-mix"], None),
        ("whamr", ["speech", "speech"], 1.5 * (FIRST + SECOND) + NOISE),
        ("libri2mix", ["speech", "speech"], FIRST + SECOND),
        ("dns", ["speech"], FIRST + NOISE),
    ],
)
def test_each_benchmark_has_its_own_sources_and_mixture(
    name: str, prompts_wanted: list[str], mixture_level: float | None, tmp_path: Path
) -> None:
    make, mixtures = MIXTURES[name]
    root = make(tmp_path)
    for mixture in mixtures(root):
        assert prompts(mixture) == prompts_wanted
        if mixture_level is None:
            assert mixture.mixture is None
        else:
            assert mixture.mixture is not None
            assert level(root, mixture.mixture) == pytest.approx(mixture_level, abs=2**-14)


def test_the_noise_of_vctk_demand_is_what_speech_leaves_of_the_noisy_file(tmp_path: Path) -> None:
    root = miniatures.make_vctk_demand(tmp_path)
    first, _ = vctk_demand.mixtures(root)
    assert first == MixtureFiles(
        name="p232_001",
        split="test",
        references=(
            ReferenceFiles("speech", (Track("clean_testset_wav/p232_001.wav"),)),
            ReferenceFiles(
                "sfx-mix",
                (Track("noisy_testset_wav/p232_001.wav"),),
                subtract=(Track("clean_testset_wav/p232_001.wav"),),
            ),
        ),
    )
    assert sum(reference_level(root, each) for each in first.references) == pytest.approx(
        level(root, Track("noisy_testset_wav/p232_001.wav"))
    )


def test_two_training_speakers_of_vctk_demand_are_for_validation(tmp_path: Path) -> None:
    root = miniatures.make_vctk_demand(tmp_path)
    assert [each.name for each in vctk_demand.mixtures(root, "train")] == ["p228_001"]
    assert [each.name for each in vctk_demand.mixtures(root, "valid")] == ["p226_001"]
    everything = vctk_demand.CORPUS.mixtures(root)
    assert [each.split for each in everything] == ["test", "test", "train", "valid"]
    shutil.rmtree(root / "noisy_trainset_28spk_wav")
    assert [each.split for each in vctk_demand.CORPUS.mixtures(root)] == ["test", "test"]


@pytest.mark.parametrize("mixtures", [wsj0_2mix.mixtures, wham.mixtures])
def test_variants_lie_in_folders_of_their_own(
    mixtures: Callable[..., object], tmp_path: Path
) -> None:
    make = {wsj0_2mix.mixtures: miniatures.make_wsj0_2mix, wham.mixtures: miniatures.make_wham}
    root = make[mixtures](tmp_path)
    for rate, length in ((8000, "min"), (16000, "max")):
        for mixture in mixtures(root, "tt", sample_rate=rate, length=length):
            for reference in mixture.references:
                assert f"wav{rate // 1000}k/{length}/tt/" in reference.add[0].path
                assert read(root / reference.add[0].path).sample_rate == rate


def test_wsj0_2mix_is_found_in_its_own_folder_and_above_it(tmp_path: Path) -> None:
    root = miniatures.make_wsj0_2mix(tmp_path)
    above, inside = list(wsj0_2mix.mixtures(root)), list(wsj0_2mix.mixtures(root / "2speakers"))
    assert above[0].mixture == Track(f"2speakers/wav8k/min/tt/mix/{above[0].name}.wav")
    assert inside[0].mixture == Track(f"wav8k/min/tt/mix/{above[0].name}.wav")


def test_every_variant_of_a_corpus_is_listed_under_its_folder(tmp_path: Path) -> None:
    root = miniatures.make_wsj0_2mix(tmp_path)
    listed = list(wsj0_2mix.CORPUS.mixtures(root))
    assert [each.name.rpartition("/")[0] for each in listed[::2]] == [
        "wav8k/min/tr", "wav8k/min/cv", "wav8k/min/tt", "wav16k/max/tt"
    ]  # fmt: skip
    assert len({each.name for each in listed}) == 8
    assert listed[0].split == "tr"
    whamr_root = miniatures.make_whamr(tmp_path / "whamr")
    assert {each.split for each in whamr.CORPUS.mixtures(whamr_root)} == {"tt"}


def test_wham_can_be_had_without_noise(tmp_path: Path) -> None:
    root = miniatures.make_wham(tmp_path)
    mixture = next(wham.mixtures(root, task="sep_clean"))
    assert prompts(mixture) == ["speech", "speech"]
    assert mixture.mixture is None
    shutil.rmtree(root / "wav16k/max/tt/noise")
    assert next(wham.mixtures(root, task="sep_clean")) == mixture
    with pytest.raises(DataError, match=r"has no wav16k/max/tt/noise"):
        next(wham.mixtures(root))


def test_whamr_takes_other_mixtures_and_targets(tmp_path: Path) -> None:
    root = miniatures.make_whamr(tmp_path)
    mixture = next(whamr.mixtures(root, mixture="mix_clean_anechoic", target="reverb"))
    assert level(root, mixture.mixture) == pytest.approx(FIRST + SECOND, abs=2**-14)
    levels = [reference_level(root, each) for each in mixture.references]
    assert levels == pytest.approx([1.5 * FIRST, 1.5 * SECOND], abs=2**-14)


def test_libri2mix_has_noise_where_it_was_made_with_it(tmp_path: Path) -> None:
    root = miniatures.make_libri2mix(tmp_path)
    mixture = next(libri2mix.mixtures(root, task="mix_both"))
    assert prompts(mixture) == ["speech", "speech", "sfx-mix"]
    assert level(root, mixture.mixture) == pytest.approx(FIRST + SECOND + NOISE, abs=2**-14)
    with pytest.raises(DataError, match=r"has no .*dev/noise, .*dev/mix_both"):
        next(libri2mix.mixtures(root, "dev", task="mix_both"))


def test_libri2mix_follows_its_own_table(tmp_path: Path) -> None:
    root = miniatures.make_libri2mix(tmp_path)
    names = [each.name for each in libri2mix.mixtures(root)]
    folder = root / "Libri2Mix/wav8k/min/test"
    for each in ("mix_clean", "s1", "s2"):
        shutil.copy(folder / each / f"{names[0]}.wav", folder / each / "stray.wav")
    assert [each.name for each in libri2mix.mixtures(root)] == names
    for each in ("mix_clean", "s1", "s2"):
        (folder / each / f"{names[1]}.wav").unlink()
    with pytest.raises(DataError, match=rf"{names[1]}\.wav: missing .*mixture_test_mix_clean\.csv"):
        next(libri2mix.mixtures(root))
    (root / "Libri2Mix/wav8k/min/metadata/mixture_test_mix_clean.csv").write_text("id\n1\n")
    with pytest.raises(DataError, match="lacks rows or the column 'mixture_ID'"):
        next(libri2mix.mixtures(root))


def test_all_of_libri2mix_falls_back_to_the_noisy_mixtures(tmp_path: Path) -> None:
    root = miniatures.make_libri2mix(tmp_path)
    shutil.rmtree(root / "Libri2Mix/wav8k/min/test/mix_clean")
    listed = list(libri2mix.CORPUS.mixtures(root))
    assert [(each.split, len(each.references)) for each in listed] == [
        ("dev", 2), ("dev", 2), ("test", 3), ("test", 3)
    ]  # fmt: skip


def test_dns_files_are_matched_by_their_numbers(tmp_path: Path) -> None:
    root = miniatures.make_dns(tmp_path)
    first, second = dns.mixtures(root, reverb=True, noise=True)
    folder = "datasets/test_set/synthetic/with_reverb"
    noisy = Track(f"{folder}/noisy/clnsp126_3Wjw0nadnM4_snr15_tl-22_fileid_0.wav")
    clean = Track(f"{folder}/clean/clean_fileid_0.wav")
    assert first.mixture == noisy
    assert first.references == (
        ReferenceFiles("speech", (clean,)),
        ReferenceFiles("sfx-mix", (noisy,), subtract=(clean,)),
    )
    assert second.name.endswith("fileid_158")
    assert second.split == "with_reverb"


def test_dns_files_without_a_partner_or_a_number_are_named(tmp_path: Path) -> None:
    root = miniatures.make_dns(tmp_path)
    folder = root / "datasets/test_set/synthetic/no_reverb"
    (folder / "clean/clean_fileid_158.wav").unlink()
    with pytest.raises(DataError, match=r"fileid_158\.wav: has no clean file with number 158"):
        next(dns.mixtures(root))
    (folder / "clean/clean_158.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"clean_158\.wav: does not end with _fileid_"):
        next(dns.mixtures(root))


@pytest.mark.parametrize("name", MIXTURES)
def test_a_missing_file_of_a_mixture_is_named(name: str, tmp_path: Path) -> None:
    make, mixtures = MIXTURES[name]
    root = make(tmp_path)
    path = root / next(mixtures(root)).references[0].add[0].path
    path.unlink()
    with pytest.raises(DataError, match=path.name if name != "dns" else "number 0 in .*/clean"):
        list(mixtures(root))


@pytest.mark.parametrize("name", MIXTURES)
def test_sources_of_different_lengths_are_named_with_both(name: str, tmp_path: Path) -> None:
    make, mixtures = MIXTURES[name]
    root = make(tmp_path)
    path = root / list(mixtures(root))[1].references[0].add[0].path
    rate = read(path).sample_rate
    miniatures.write_constant(path, FIRST, rate, miniatures.LENGTH - 1)
    listed = mixtures(root)
    next(listed)  # items before it are given
    with pytest.raises(DataError, match=r"479 samples, but .* 480|480 samples, but .* 479"):
        next(listed)
    miniatures.write_constant(path, FIRST, rate + 1)
    with pytest.raises(DataError, match="must have one rate"):
        list(mixtures(root))


@pytest.mark.parametrize("name", MIXTURES)
def test_an_unreadable_file_of_a_mixture_is_named(name: str, tmp_path: Path) -> None:
    make, mixtures = MIXTURES[name]
    root = make(tmp_path)
    path = root / next(mixtures(root)).references[0].add[0].path
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match=rf"{path.name}: not an audio file"):
        list(mixtures(root))


@pytest.mark.parametrize("name", MIXTURES)
def test_folders_that_hold_no_mixtures_are_refused(name: str, tmp_path: Path) -> None:
    make, mixtures = MIXTURES[name]
    with pytest.raises(DataError, match="nowhere: no such folder; give the folder of"):
        next(mixtures(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="not a whole copy of"):
        next(mixtures(tmp_path))
    corpus = find_corpus(name)
    assert corpus.mixtures is not None
    with pytest.raises(DataError, match="not a whole copy of"):
        next(corpus.mixtures(tmp_path))
    root = make(tmp_path / "copy")
    for path in root.rglob("*.wav"):
        path.unlink()
    with pytest.raises(DataError, match=r"holds no \*\.wav|missing"):
        next(mixtures(root))


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (lambda root: vctk_demand.mixtures(root, "tt"), "VCTK-DEMAND has no split 'tt'; .*test"),
        (lambda root: wsj0_2mix.mixtures(root, "test"), "WSJ0-2mix has no split 'test'; .*cv, tt"),
        (
            lambda root: wham.mixtures(root, sample_rate=48000),
            "no sample rate 48000; .*8000, 16000",
        ),
        (lambda root: wham.mixtures(root, length="mid"), "no length 'mid'; choose one of min, max"),
        (lambda root: wham.mixtures(root, task="enh"), "no task 'enh'; .*sep_clean, sep_noisy"),
        (lambda root: whamr.mixtures(root, mixture="mix"), "no mixture 'mix'; .*mix_both_reverb"),
        (lambda root: whamr.mixtures(root, target="dry"), "no target 'dry'; .*anechoic, reverb"),
        (lambda root: libri2mix.mixtures(root, task="sep"), "no task 'sep'; .*mix_clean, mix_both"),
        (lambda root: libri2mix.mixtures(root, "tt"), "no split 'tt'; .*train-100"),
    ],
)
def test_unknown_variants_are_refused_with_what_there_is(
    listing: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        next(listing(tmp_path))


# ------------------------------------------------------------------ recordings


@pytest.mark.parametrize("name", RECORDINGS)
def test_recordings_survive_a_manifest(name: str, tmp_path: Path) -> None:
    make, recordings = RECORDINGS[name]
    listed = list(recordings(make(tmp_path)))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(format_manifest(listed))
    assert read_manifest(manifest) == tuple(listed)
    assert len({recording.key for recording in listed}) == len(listed) > 1
    for recording in listed:
        assert recording.licence
        assert recording.bandwidth_hz == recording.sample_rate / 2
        assert (tmp_path / recording.path).is_file()


def test_vctk_gives_one_microphone_and_keeps_test_speakers_apart(tmp_path: Path) -> None:
    listed = list(vctk.recordings(miniatures.make_vctk(tmp_path)))
    assert len(listed) == 8
    assert {recording.speaker: recording.split for recording in listed} == {
        "p225": "train", "p226": "valid", "p232": "test", "s5": "train"
    }  # fmt: skip
    assert listed[0] == Recording(
        path="wav48_silence_trimmed/p225/p225_001_mic1.flac",
        kind="speech/vctk",
        split="train",
        duration_s=miniatures.LENGTH / 48000,
        bandwidth_hz=24000.0,
        speaker="p225",
        licence="CC BY 4.0",
        sample_rate=48000,
    )


def test_vctk_is_found_in_the_folder_that_others_unpack_it_to(tmp_path: Path) -> None:
    miniatures.make_vctk(tmp_path / "VCTK-Corpus-0.92")
    first = next(vctk.recordings(tmp_path))
    assert first.path == "VCTK-Corpus-0.92/wav48_silence_trimmed/p225/p225_001_mic1.flac"


def test_wsj0_gives_the_utterances_of_the_lists_wherever_they_lie(tmp_path: Path) -> None:
    listed = by_path(list(wsj0.recordings(miniatures.make_wsj0(tmp_path))))
    assert {path: (each.split, each.speaker) for path, each in listed.items()} == {
        "11-1.1/wsj0/si_tr_s/40n/40na010x.wv1": ("train", "40n"),  # in the validation list too
        "converted/wsj0/si_tr_s/01x/01xo031a.wav": ("train", "01x"),
        "11-6.1/wsj0/si_tr_s/02a/02ac0201.wv1": ("valid", "02a"),
        "11-1.1/wsj0/si_dt_05/050/050a0501.wv1": ("test", "050"),
        "11-6.1/wsj0/si_et_05/440/440c0401.wv1": ("test", "440"),
    }
    sphere = listed["11-1.1/wsj0/si_tr_s/40n/40na010x.wv1"]
    assert (sphere.sample_rate, sphere.duration_s) == (16000, miniatures.LENGTH / 16000)


def test_wsj0_discs_may_be_in_capitals(tmp_path: Path) -> None:
    root = miniatures.make_wsj0(tmp_path)
    upper = root / "11-1.1/WSJ0/SI_DT_05/050/050A0501.WV1"
    upper.parent.mkdir(parents=True)
    (root / "11-1.1/wsj0/si_dt_05/050/050a0501.wv1").rename(upper)
    paths = [recording.path for recording in wsj0.recordings(root)]
    assert upper.relative_to(root).as_posix() in paths


def test_missing_utterances_and_broken_lists_of_wsj0_are_named(tmp_path: Path) -> None:
    root = miniatures.make_wsj0(tmp_path)
    (root / "11-6.1/wsj0/si_et_05/440/440c0401.wv1").unlink()
    with pytest.raises(DataError, match=r"1 of 5 utterances .*: si_et_05/440/440c0401;"):
        next(wsj0.recordings(root))
    for line in ("wsj0/si_tr_s/a/b.wav 1.0", "b.wav 1.0 wsj0/si_tr_s/a/b.wav -1.0"):
        (root / "mix_2_spk_tt.txt").write_text(f"\n{line}\n")
        with pytest.raises(DataError, match=r"mix_2_spk_tt\.txt, line 2: not two files"):
            next(wsj0.recordings(root))
    (root / "mix_2_spk_cv.txt").unlink()
    with pytest.raises(DataError, match=r"has no mix_2_spk_cv\.txt"):
        next(wsj0.recordings(root))


def test_noise_of_wham_comes_in_pieces_and_in_its_own_splits(tmp_path: Path) -> None:
    listed = list(wham.recordings(miniatures.make_wham_noise(tmp_path)))
    assert [(each.split, each.duration_s, each.pieces_s) for each in listed] == [
        ("train", 17.0, (0.0, 4.0, 8.0)), ("valid", 1.0, (0.0,)), ("test", 1.0, (0.0,))
    ]  # fmt: skip
    assert {each.kind for each in listed} == {"sfx/ambience_wham"}
    assert {each.licence for each in listed} == {"CC BY-NC 4.0"}


def test_either_half_of_wham_does_without_the_other(tmp_path: Path) -> None:
    noise = miniatures.make_wham_noise(tmp_path / "noise")
    assert list(wham.CORPUS.mixtures(noise)) == []
    assert len(list(wham.CORPUS.recordings(noise))) == 3
    both = miniatures.make_wham(tmp_path / "both")
    assert len(list(wham.CORPUS.recordings(both))) == 3
    shutil.rmtree(both / "high_res_wham")
    assert list(wham.CORPUS.recordings(both)) == []
    assert len(list(wham.CORPUS.mixtures(both))) == 4
    with pytest.raises(DataError, match=r"has no high_res_wham/high_res_metadata\.csv"):
        next(wham.CORPUS.recordings(tmp_path))


def test_a_broken_table_of_wham_is_refused(tmp_path: Path) -> None:
    root = miniatures.make_wham_noise(tmp_path)
    (root / "high_res_wham/audio/b.wav").unlink()
    with pytest.raises(DataError, match=r"audio/b\.wav: missing, though .*high_res_metadata\.csv"):
        next(wham.recordings(root))
    (root / "high_res_wham/high_res_metadata.csv").write_text("Filename,Split\na.wav,Train\n")
    with pytest.raises(DataError, match="lacks rows or the columns 'Filename' and 'WHAM! Split'"):
        next(wham.recordings(root))


def test_librispeech_takes_the_parts_that_are_there(tmp_path: Path) -> None:
    root = miniatures.make_librispeech(tmp_path)
    listed = list(librispeech.recordings(root))
    assert [(each.split, each.speaker) for each in listed[::2]] == [
        ("train", "19"), ("valid", "84"), ("test", "367")
    ]  # fmt: skip
    assert listed[0].path == "LibriSpeech/train-clean-100/19/198/19-198-0000.flac"
    assert next(librispeech.recordings(root / "LibriSpeech")).path.startswith("train-clean-100/19/")


def test_sentences_that_a_transcript_of_librispeech_names_have_to_be_there(tmp_path: Path) -> None:
    root = miniatures.make_librispeech(tmp_path)
    (root / "LibriSpeech/dev-clean/84/121123/84-121123-0001.flac").unlink()
    with pytest.raises(DataError, match=r"84-121123-0001\.flac: missing, though 84-121123\.trans"):
        list(librispeech.recordings(root))


def test_librivox_of_urgent_follows_the_lists_of_the_challenge(tmp_path: Path) -> None:
    root = miniatures.make_librivox_urgent(tmp_path)
    listed = list(librivox_urgent.recordings(root))
    assert [(each.split, each.speaker, each.bandwidth_hz) for each in listed] == [
        ("train", "reader_06709", 12000.0),
        ("train", "reader_00812", 24000.0),
        ("valid", "reader_00017", 8000.0),
    ]
    assert listed[1].path.startswith("dns5_fullband/Track1_Headset/mnt/")
    (root / "data/tmp").mkdir(parents=True)
    for path in root.glob("*.scp"):
        path.rename(root / "data/tmp" / path.name)
    assert list(librivox_urgent.recordings(root)) == listed


def test_lists_of_urgent_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    root = miniatures.make_librivox_urgent(tmp_path / "urgent")
    path = root / "dns5_clean_read_speech_resampled_filtered_train.scp"
    good = path.read_text()
    for line, message in {
        f"book 48000 {tmp_path}/book.wav": "line 3: .*book.wav is not below",
        "book 48000 ../book.wav": "line 3: .*book.wav is not below",
        "book book.wav": "line 3: not a name, a rate and a path",
        "book 48000 gone.wav": "gone.wav: missing, though dns5_clean_read_speech.*train",
    }.items():
        path.write_text(f"{good}{line}\n")
        with pytest.raises(DataError, match=message):
            next(librivox_urgent.recordings(root))


def test_dns_gives_speech_and_noise_to_mix(tmp_path: Path) -> None:
    root = miniatures.make_dns(tmp_path)
    clean, noise = dns.recordings(root)
    assert (clean.kind, clean.speaker, clean.split) == ("speech/dns", "reader_06709", "train")
    assert (noise.kind, noise.speaker) == ("sfx/ambience_dns", "")
    assert len(list(dns.CORPUS.mixtures(root))) == 4
    shutil.rmtree(root / "datasets/clean")
    shutil.rmtree(root / "datasets/noise")
    assert list(dns.CORPUS.recordings(root)) == []
    with pytest.raises(DataError, match="has no datasets/clean, datasets/noise"):
        next(dns.recordings(root))


@pytest.mark.parametrize("name", RECORDINGS)
def test_an_unreadable_recording_is_named(name: str, tmp_path: Path) -> None:
    make, recordings = RECORDINGS[name]
    root = make(tmp_path)
    path = root / list(recordings(root))[-1].path
    path.write_text("not audio")
    with pytest.raises(DataError, match=rf"{path.name}: (not an audio file|its header says 0 )"):
        list(recordings(root))


@pytest.mark.parametrize("name", RECORDINGS)
def test_folders_that_hold_no_recordings_are_refused(name: str, tmp_path: Path) -> None:
    _, recordings = RECORDINGS[name]
    with pytest.raises(DataError, match="nowhere: no such folder; give the folder of"):
        next(recordings(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="not a whole copy of"):
        next(recordings(tmp_path))


# ------------------------------------------------------------------ what they tell


@pytest.mark.parametrize("name", sorted(MIXTURES | RECORDINGS))
def test_every_corpus_tells_where_it_comes_from(name: str) -> None:
    corpus = find_corpus(name)
    assert (corpus.mixtures is not None) == (name in MIXTURES)
    assert (corpus.recordings is not None) == (name in RECORDINGS)
    assert corpus.licence
    assert corpus.layout
    assert corpus.how_to_get.endswith(".")
    assert corpus.url.startswith("http")
    for archive in corpus.archives:
        assert archive.url.startswith("https://")
        assert archive.name.endswith((".zip", ".tar.gz"))
        algorithm, _, digest = archive.digest.partition(":")
        assert (algorithm, len(digest)) in {("", 0), ("md5", 32)}
