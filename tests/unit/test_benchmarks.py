"""Every published benchmark on a hand-made copy of its corpus: what it lists, how it is scored.

Expected scores are worked out here from the papers' formulas, in numpy and without the package.
"""

import csv
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import soundfile
import torch

import sound_miniatures
import speech_miniatures
from unbraid.apps.evaluate import Evaluated, EvaluateOptions, evaluate
from unbraid.data.corpora import corpora
from unbraid.errors import DataError
from unbraid.evaluation.benchmarks import benchmarks, find_benchmark
from unbraid.evaluation.items import Item
from unbraid.evaluation.measures import find_measure
from unbraid.evaluation.summary import SummaryRow
from unbraid.evaluation.tasks import Task, benchmark_task, changed
from unbraid.prompts import STANDARD_PROMPTS


def make_esc50(folder: Path) -> Path:
    """Two classes with two clips each in the folds for testing, and one for training."""
    rows = [
        (f"{fold}-{number}-A-{target}.wav", fold, target, name, "True", number, "A")
        for fold, number, target, name in (
            (1, 1, 0, "dog"), (4, 2, 0, "dog"), (5, 3, 0, "dog"), (4, 4, 40, "helicopter"),
            (5, 5, 40, "helicopter"),
        )
    ]  # fmt: skip
    columns = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
    sound_miniatures.write_rows(folder / "ESC-50-master/meta/esc50.csv", [columns, *rows])
    for row in rows:
        sound_miniatures.write_wav(folder / "ESC-50-master/audio" / str(row[0]), rate=44100)
    return folder


Builder: TypeAlias = Callable[[Path], Path]

NUM_SONGS = 3

#: The others take the sum of their sources.
MIXTURE_IS_A_FILE = {
    "wsj0-2mix", "whamr", "libri2mix", "libri2mix-10s", "dns-reverb", "dns-no-reverb",
}  # fmt: skip


def make_songs(make: Callable[[Path, float, int], Path], seconds: float, rate: int) -> Builder:
    """A corpus of songs with three of them to test on."""

    def build(folder: Path) -> Path:
        make(folder, seconds, rate)
        [song] = (folder / "test").iterdir()
        for name in ("Another - Song", "A Third - One"):
            copy = song.with_name(name + "".join(song.suffixes[-2:] if song.is_file() else []))
            if song.is_dir():
                shutil.copytree(song, copy)
            else:
                shutil.copy(song, copy)
        return folder

    return build


#: Benchmark → how its corpus is made, the prompts of a mixture, its rate, and how many there are.
EXPECTED: dict[str, tuple[Builder, tuple[str, ...], int, int]] = {
    "vctk-demand": (speech_miniatures.make_vctk_demand, ("speech", "sfx-mix"), 48000, 2),
    "wham": (speech_miniatures.make_wham, ("speech", "speech", "sfx-mix"), 16000, 2),
    "fuss": (sound_miniatures.make_fuss, ("sfx", "sfx"), 16000, 2),
    "musdb18-hq": (
        make_songs(sound_miniatures.make_musdb18_hq, 3.5, 8000),
        ("vocals", "drums", "bass", "other"),
        8000,
        2 * NUM_SONGS,
    ),
    "dnr": (sound_miniatures.make_dnr_v2, ("speech", "music-mix", "sfx-mix"), 8000, 2),
    "musdb18-hq-stereo": (
        make_songs(sound_miniatures.make_musdb18_hq, 3.5, 8000),
        ("vocals", "drums", "bass", "other"),
        8000,
        NUM_SONGS,
    ),
    "dnr-mono": (sound_miniatures.make_dnr_v2, ("speech", "music-mix", "sfx-mix"), 8000, 2),
    "wsj0-2mix": (speech_miniatures.make_wsj0_2mix, ("speech", "speech"), 8000, 2),
    "whamr": (speech_miniatures.make_whamr, ("speech", "speech"), 8000, 2),
    "libri2mix": (speech_miniatures.make_libri2mix, ("speech", "speech"), 8000, 2),
    "dns-no-reverb": (speech_miniatures.make_dns, ("speech",), 16000, 2),
    "dns-reverb": (speech_miniatures.make_dns, ("speech",), 16000, 2),
    "musdb18-pieces": (
        make_songs(sound_miniatures.make_musdb18, 4.5, 44100),
        ("vocals", "drums", "bass", "other"),
        32000,
        2 * NUM_SONGS,
    ),
    "esc50-pairs": (make_esc50, ("dog", "helicopter"), 32000, 4),
    "libri2mix-10s": (
        lambda folder: _at_16_khz(speech_miniatures.make_libri2mix(folder)),
        ("speech", "speech"),
        16000,
        2,
    ),
}


def _at_16_khz(folder: Path) -> Path:
    """The same corpus under the other rate."""
    (folder / "Libri2Mix/wav8k").rename(folder / "Libri2Mix/wav16k")
    for path in folder.rglob("*.wav"):
        samples, _ = soundfile.read(path)
        soundfile.write(path, samples, 16000)
    return folder


def fill_with_noise(folder: Path) -> None:
    """Put noise in the place of constants, other noise in every file, of the same level."""
    for path in sorted(folder.rglob("*.wav")):
        samples, rate = soundfile.read(path, always_2d=True)
        rng = np.random.default_rng(zlib.crc32(path.relative_to(folder).as_posix().encode()))
        level = np.abs(samples).mean()
        soundfile.write(path, level * rng.uniform(-1, 1, samples.shape), rate, subtype="FLOAT")


def off_by_a_known_error(item: Item, prompts: tuple[str, ...]) -> torch.Tensor:
    """The references and noise, more of it in one item than in another."""
    seed = zlib.crc32(item.name.encode())
    noise = torch.randn(item.references.shape, generator=torch.Generator().manual_seed(seed))
    size = torch.linspace(0.02, 0.1, len(prompts))[:, None, None] * (1 + seed % 7)
    return item.references + size * noise * item.references.square().mean().sqrt()


def snr_db(estimate: np.ndarray, reference: np.ndarray) -> float:
    error = np.sum((estimate - reference) ** 2)
    return float(10 * np.log10(np.sum(reference**2) / error))


def si_sdr_db(estimate: np.ndarray, reference: np.ndarray) -> float:
    return si_sdr_raw_db(estimate - estimate.mean(), reference - reference.mean())


def si_sdr_raw_db(estimate: np.ndarray, reference: np.ndarray) -> float:
    target = np.dot(estimate, reference) / np.dot(reference, reference) * reference
    return float(10 * np.log10(np.sum(target**2) / np.sum((estimate - target) ** 2)))


FORMULAS = {"snr_db": snr_db, "si_sdr_db": si_sdr_db, "si_sdr_raw_db": si_sdr_raw_db}


def scored(task: Task, out: Path, *measures: str) -> dict[tuple[str, str], SummaryRow]:
    """Every line of the summary."""
    evaluated = Evaluated("known", "", STANDARD_PROMPTS, lambda protocol: off_by_a_known_error)
    options = EvaluateOptions(out, num_cases=0, with_oracles=False)
    done = evaluate(changed(task, measures=measures or None), evaluated, options)
    return {(row.kind, row.title): row for row in done.summary.rows}


def pairs(item: Item) -> list[tuple[np.ndarray, np.ndarray]]:
    """Estimate and reference of each source as numpy arrays ``[channel, time]``."""
    estimates = off_by_a_known_error(item, item.prompts).double().numpy()
    return list(zip(estimates, item.references.double().numpy(), strict=True))


def task_on(name: str, folder: Path) -> Task:
    EXPECTED[name][0](folder)
    if name != "musdb18-pieces":
        fill_with_noise(folder)
    return benchmark_task(find_benchmark(name), folder)


def test_every_benchmark_is_tried() -> None:
    assert set(EXPECTED) == set(benchmarks())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_it_says_what_it_is(name: str) -> None:
    benchmark = find_benchmark(name)
    assert benchmark.corpus in corpora()
    for measure in benchmark.protocol.measures:
        assert find_measure(measure).name == measure
    for result in benchmark.published:
        assert {key.removesuffix("_improvement") for key in result.values} <= set(
            benchmark.protocol.measures
        )
        assert result.source


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_it_lists_the_mixtures_of_its_corpus(name: str, tmp_path: Path) -> None:
    _, prompts, rate, count = EXPECTED[name]
    items = list(task_on(name, tmp_path).items(None))
    assert len(items) == count
    assert len({item.name for item in items}) == count
    first = items[0]
    assert first.prompts == prompts
    assert first.mixture.sample_rate == rate
    assert first.mixture.num_channels == (2 if name == "musdb18-hq-stereo" else 1)
    total = first.references.sum(dim=0)
    adds_up = bool(torch.allclose(total, first.mixture.samples, atol=1e-5))
    # Where the mixture is a file of its own it is another noise here, which shows that it is read.
    assert adds_up == (name not in MIXTURE_IS_A_FILE)


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("vctk-demand", "si_sdr_db"),
        ("wham", "si_sdr_db"),
        ("fuss", "si_sdr_db"),
        ("dnr", "si_sdr_db"),
        ("dnr-mono", "snr_db"),
        ("dnr-mono", "si_sdr_db"),
        ("wsj0-2mix", "si_sdr_db"),
        ("whamr", "si_sdr_db"),
        ("libri2mix", "si_sdr_db"),
        ("libri2mix-10s", "si_sdr_raw_db"),
        ("dns-no-reverb", "si_sdr_db"),
        ("dns-reverb", "si_sdr_db"),
    ],
)
def test_means_are_taken_over_sources_and_then_over_mixtures(
    name: str, measure: str, tmp_path: Path
) -> None:
    task = task_on(name, tmp_path / "corpus")
    expected = [
        np.mean([FORMULAS[measure](*(each[0] for each in pair)) for pair in pairs(item)])
        for item in task.items(None)
    ]
    before = [
        np.mean(
            [
                FORMULAS[measure](item.mixture.samples[0].double().numpy(), reference[0])
                for _, reference in pairs(item)
            ]
        )
        for item in task.items(None)
    ]
    row = scored(task, tmp_path, measure)["all", "all"]
    assert row.estimate[measure].value == pytest.approx(np.mean(expected), abs=1e-3)
    assert row.mixture[measure] == pytest.approx(np.mean(before), abs=1e-3)
    improvement = row.improvement[measure].value
    assert improvement == pytest.approx(np.mean(expected) - np.mean(before), abs=2e-3)


def test_fuss_pools_mixtures_of_two_to_four_and_leaves_lone_sources_out(tmp_path: Path) -> None:
    counts = [len(item.prompts) for item in task_on("fuss", tmp_path).items(None)]
    assert sorted(counts) == [2, 4]


def test_musdb_channels_are_mono_mixtures_of_their_own(tmp_path: Path) -> None:
    task = task_on("musdb18-hq", tmp_path / "corpus")
    items = list(task.items(None))
    assert [item.name[-11:] for item in items[:2]] == ["(channel 1)", "(channel 2)"]
    expected = np.mean(
        [[snr_db(estimate, reference) for estimate, reference in pairs(item)] for item in items]
    )
    row = scored(task, tmp_path, "snr_db")["all", "all"]
    assert row.estimate["snr_db"].value == pytest.approx(expected, abs=1e-3)


def test_usdr_is_a_mean_and_csdr_a_mean_of_medians(tmp_path: Path) -> None:
    task = task_on("musdb18-hq-stereo", tmp_path / "corpus")
    usdr: list[list[float]] = []
    csdr: list[list[float]] = []
    for item in task.items(None):
        rate = item.mixture.sample_rate
        usdr.append(
            [
                np.mean([snr_db(*each) for each in zip(estimate, reference, strict=True)])
                for estimate, reference in pairs(item)
            ]
        )
        csdr.append(
            [
                np.median(
                    [
                        snr_db(estimate[:, at : at + rate], reference[:, at : at + rate])
                        for at in range(0, estimate.shape[1] - rate + 1, rate)
                    ]
                )
                for estimate, reference in pairs(item)
            ]
        )
    row = scored(task, tmp_path)["all", "all"]
    assert row.estimate["snr_db"].value == pytest.approx(np.mean(usdr), abs=1e-3)
    assert row.estimate["csdr_db"].value == pytest.approx(
        np.mean(np.median(csdr, axis=0)), abs=1e-3
    )


def test_pieces_of_songs_are_scored_by_the_median_of_medians(tmp_path: Path) -> None:
    task = task_on("musdb18-pieces", tmp_path / "corpus")
    # The Wiener filter has a test of its own; here it would hide the known error.
    rows = scored(changed(task, wiener=False), tmp_path)
    by_song: dict[str, list[list[float]]] = {}
    for item in task.items(None):
        assert item.mixture.num_samples == 2 * 32000
        values = [snr_db(estimate, reference) for estimate, reference in pairs(item)]
        by_song.setdefault(item.group, []).append(values)
    assert {len(values) for values in by_song.values()} == {2}
    medians = np.median([np.median(values, axis=0) for values in by_song.values()], axis=0)
    for prompt, expected in zip(("vocals", "drums", "bass", "other"), medians, strict=True):
        value = rows["prompt", prompt].estimate["sdr_v4_db"].value
        assert value == pytest.approx(expected, abs=1e-3)
    everything = np.median(
        [value for values in by_song.values() for row in values for value in row]
    )
    assert rows["all", "all"].estimate["sdr_v4_db"].value == pytest.approx(everything, abs=1e-3)


def test_clips_of_esc50_are_paired_with_another_class_for_good(tmp_path: Path) -> None:
    task = task_on("esc50-pairs", tmp_path / "corpus")
    items = list(task.items(None))
    assert [item.name for item in items] == ["4-2-A-0", "5-3-A-0", "4-4-A-40", "5-5-A-40"]
    assert all(len(set(item.prompts)) == 2 for item in items)
    again = list(benchmark_task(find_benchmark("esc50-pairs"), tmp_path / "corpus").items(None))
    assert all(
        torch.equal(one.references, other.references)
        for one, other in zip(items, again, strict=True)
    )
    # The default prompts have no dog: two effects are asked for, and the median is taken.
    rows = scored(task, tmp_path)
    assert set(rows) == {("all", "all"), ("prompt", "sfx")}
    values = [snr_db(*each) for item in items for each in pairs(item)]
    assert rows["all", "all"].estimate["sdr_v4_db"].value == pytest.approx(
        np.median(values), abs=1e-3
    )


def test_esc50_without_a_second_class_says_so(tmp_path: Path) -> None:
    make_esc50(tmp_path)
    table = tmp_path / "ESC-50-master/meta/esc50.csv"
    with table.open(newline="") as file:
        rows = list(csv.reader(file))
    sound_miniatures.write_rows(table, [row for row in rows if "helicopter" not in row])
    with pytest.raises(DataError, match="two classes"):
        benchmark_task(find_benchmark("esc50-pairs"), tmp_path)


def test_items_of_ten_seconds_are_filled_up_and_keep_their_mean(tmp_path: Path) -> None:
    task = task_on("libri2mix-10s", tmp_path / "corpus")
    for item in task.items(None):
        assert item.mixture.num_samples == 160000
        assert not item.references[..., speech_miniatures.LENGTH :].any()


def test_scores_of_tuss_stop_at_70_db(tmp_path: Path) -> None:
    task = task_on("vctk-demand", tmp_path / "corpus")
    evaluated = Evaluated(
        "perfect", "", None, lambda protocol: lambda item, prompts: item.references
    )
    done = evaluate(task, evaluated, EvaluateOptions(tmp_path, num_cases=0, with_oracles=False))
    assert done.summary.rows[0].estimate["si_sdr_db"].value == 70.0


def test_a_missing_corpus_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unbraid data info wham"):
        benchmark_task(find_benchmark("wham"), tmp_path)


def test_limited_mixtures_are_spread_over_all(tmp_path: Path) -> None:
    EXPECTED["musdb18-hq-stereo"][0](tmp_path)
    benchmark = find_benchmark("musdb18-hq-stereo")
    names = [item.name for item in benchmark_task(benchmark, tmp_path).items(None)]
    limited = benchmark_task(benchmark, tmp_path, limit=2)
    assert [item.name for item in limited.items(None)] == names[:2]
    assert limited.notes.endswith("Only 2 of 3 mixtures were measured.")
    assert limited.digest != benchmark_task(benchmark, tmp_path).digest
