"""The benchmarks that papers quote, by their rules, with the numbers that they report.

Rules differ more than names suggest: which channel, which rate, chunks or whole, what counts
as a mixture, mean or median of what. Each entry says so in its protocol and notes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from unbraid.config import nearest
from unbraid.data.corpora import (
    dnr_v2,
    dns,
    esc50,
    fuss,
    libri2mix,
    musdb18,
    musdb18_hq,
    vctk_demand,
    wham,
    whamr,
    wsj0_2mix,
)
from unbraid.data.corpora.base import MixtureFiles, ReferenceFiles, Track
from unbraid.data.manifest import Recording
from unbraid.errors import DataError
from unbraid.evaluation.benchmark import Benchmark, PublishedResult
from unbraid.evaluation.items import Protocol

_TUSS = "Saijo et al., Task-aware unified source separation, ICASSP 2025"
_TUSS_TALK = "slides to " + _TUSS
_LOCOFORMER = "Saijo et al., TF-Locoformer, IWAENC 2024"
_LOCOFORMER_RELEASE = "results of the TF-Locoformer release"
_SFC = "Saijo and Bando, Input-adaptive spectral feature compression, TASLP 2026"
_APT = "Audio prompt tuning for universal sound separation, arXiv 2311.18399"
_AUDIOSLOTS = "Reddy et al., AudioSlots, ICASSP SASB 2023"
_SECOND_HAND = "second-hand"

#: TUSS clips SI-SDR here before it takes means.
_CEILING_DB = 70.0
#: The test pairs of ESC-50 are not published; these are ours.
_PAIR_SEED = 2026


def _tuss(values: Sequence[float], measure: str = "si_sdr_db") -> tuple[PublishedResult, ...]:
    """The lines of the TUSS papers about one task, in the order of ``_TUSS_SYSTEMS``."""
    return tuple(
        PublishedResult(system, {measure: value}, source)
        for (system, source), value in zip(_TUSS_SYSTEMS, values, strict=True)
    )


_TUSS_SYSTEMS = (
    ("unconditional, medium", _TUSS),
    ("TUSS medium", _TUSS),
    ("specialist, medium", _TUSS),
    ("TUSS large", _TUSS),
    ("specialist, large", _TUSS),
    ("TUSS medium, batch 4", _TUSS_TALK),
    ("TUSS medium with SFC, 61 bands", _TUSS_TALK),
    ("TUSS medium with SFC, 64 bands", _TUSS_TALK),
)


def _fuss_of_several(root: Path) -> Iterator[MixtureFiles]:
    """Mixtures of two to four sources; a lone source is no mixture."""
    return (files for files in fuss.mixtures(root, split="eval") if len(files.references) > 1)


def _esc50_pairs(root: Path) -> Iterator[MixtureFiles]:
    """Every clip of folds 4 and 5 with a clip of another class, drawn once and for all."""
    clips = [clip for clip in esc50.recordings(root) if clip.split in ("fold4", "fold5")]
    if len({clip.kind for clip in clips}) < 2:
        raise DataError(f"{root}: folds 4 and 5 of ESC-50 must hold at least two classes.")
    yield from class_pairs(clips)


def class_pairs(clips: Sequence[Recording]) -> Iterator[MixtureFiles]:
    """Every clip with one of another class; the prompts are the classes.

    A clip's partner depends on its path and on the other clips, not on their order.

    Args:
        clips: Of at least two classes.
    """
    ordered = sorted(clips, key=lambda clip: clip.path)
    for clip in clips:
        rng = random.Random(f"{_PAIR_SEED}/{clip.path}")
        partner = rng.choice([other for other in ordered if other.kind != clip.kind])
        yield MixtureFiles(
            name=Path(clip.path).stem,
            split="test",
            references=(_class_reference(clip), _class_reference(partner)),
            group=class_of(clip),
        )


def class_of(clip: Recording) -> str:
    """The class of a recording, without its category."""
    return clip.kind.partition("/")[2]


def _class_reference(clip: Recording) -> ReferenceFiles:
    return ReferenceFiles(class_of(clip), (Track(clip.path),))


_BENCHMARKS = (
    Benchmark(
        name="vctk-demand",
        title="Speech enhancement: VCTK-DEMAND",
        corpus="vctk-demand",
        protocol=Protocol(measures=("si_sdr_db", "snr_db"), ceiling_db=_CEILING_DB),
        mixtures=partial(vctk_demand.mixtures, split="test"),
        published=_tuss((14.0, 14.8, 15.9, 15.1, 16.0, 15.2, 15.4, 15.5)),
        source=_TUSS,
        notes="824 utterances at 48 kHz; the noise is noisy minus clean and counts as a source.",
    ),
    Benchmark(
        name="wham",
        title="Speech separation in noise: WHAM!, 16 kHz, max",
        corpus="wham",
        protocol=Protocol(measures=("si_sdr_db", "snr_db"), ceiling_db=_CEILING_DB),
        mixtures=partial(
            wham.mixtures, split="tt", sample_rate=16000, length="max", task="sep_noisy"
        ),
        published=_tuss((6.8, 9.1, 10.3, 10.3, 11.4, 9.0, 9.1, 9.2)),
        source=_TUSS,
        notes="Two anechoic speakers and the noise, which counts as a source.",
    ),
    Benchmark(
        name="fuss",
        title="Universal sound separation: FUSS",
        corpus="fuss",
        protocol=Protocol(measures=("si_sdr_db", "snr_db"), ceiling_db=_CEILING_DB),
        mixtures=_fuss_of_several,
        published=_tuss((8.1, 9.6, 10.2, 12.2, 10.0, 9.1, 10.6, 10.4)),
        source=_TUSS,
        notes="Evaluation mixtures of two, three and four sources together.",
    ),
    Benchmark(
        name="musdb18-hq",
        title="Music separation: MUSDB18-HQ, channel by channel",
        corpus="musdb18-hq",
        protocol=Protocol(
            chunks="fixed", segment_s=6.0, channels="each", measures=("snr_db", "si_sdr_db")
        ),
        mixtures=partial(musdb18_hq.mixtures, split="test"),
        published=_tuss((4.9, 6.8, 8.3, 7.4, 9.1, 6.8, 6.8, 7.2), measure="snr_db"),
        source=_TUSS,
        notes="SNR over whole songs; left and right are two mono mixtures. Chunks of 6 s that "
        "do not overlap.",
    ),
    Benchmark(
        name="dnr",
        title="Cinematic separation: Divide and Remaster",
        corpus="dnr-v2",
        protocol=Protocol(
            chunks="fixed",
            segment_s=6.0,
            measures=("si_sdr_db", "snr_db"),
            ceiling_db=_CEILING_DB,
        ),
        mixtures=partial(dnr_v2.mixtures, split="test"),
        published=_tuss((6.0, 9.1, 9.7, 10.1, 10.0, 9.1, 9.2, 9.3)),
        source=_TUSS,
        notes="Files of 60 s, in chunks of 6 s that do not overlap.",
    ),
    Benchmark(
        name="musdb18-hq-stereo",
        title="Music separation: MUSDB18-HQ, stereo, uSDR and cSDR",
        corpus="musdb18-hq",
        protocol=Protocol(
            chunks="fixed",
            segment_s=12.0,
            overlap_s=6.0,
            channels="all",
            measures=("snr_db", "csdr_db"),
            medians=("csdr_db",),
        ),
        mixtures=partial(musdb18_hq.mixtures, split="test"),
        published=tuple(
            PublishedResult(system, {"csdr_db": csdr, "snr_db": usdr}, _SFC, note=_SECOND_HAND)
            for system, csdr, usdr in (
                ("BS-Locoformer small", 8.72, 8.26),
                ("SFC-CA small", 9.27, 8.95),
                ("BS-Locoformer medium", 9.42, 8.79),
                ("SFC-CA medium", 9.95, 9.38),
            )
        ),
        source=_SFC,
        notes="SNR here is uSDR: per channel, mean over channels, stems and songs. cSDR: median "
        "over windows of 1 s, median over songs, mean over stems. Chunks of 12 s every 6 s.",
    ),
    Benchmark(
        name="dnr-mono",
        title="Cinematic separation: Divide and Remaster, SNR and SI-SDR",
        corpus="dnr-v2",
        protocol=Protocol(
            chunks="fixed", segment_s=12.0, overlap_s=6.0, measures=("snr_db", "si_sdr_db")
        ),
        mixtures=partial(dnr_v2.mixtures, split="test"),
        published=tuple(
            PublishedResult(system, {"snr_db": snr, "si_sdr_db": si_sdr}, _SFC, note=_SECOND_HAND)
            for system, snr, si_sdr in (
                ("BS-Locoformer medium", 11.9, 11.6),
                ("SFC-CA medium", 12.2, 11.8),
            )
        ),
        source=_SFC,
        notes="Mono at 44.1 kHz, chunks of 12 s every 6 s.",
    ),
    Benchmark(
        name="wsj0-2mix",
        title="Two speakers: WSJ0-2mix, 8 kHz, min",
        corpus="wsj0-2mix",
        protocol=Protocol(measures=("si_sdr_db", "sdr_v3_db", "stoi")),
        mixtures=partial(wsj0_2mix.mixtures, split="tt", sample_rate=8000, length="min"),
        published=(
            PublishedResult("TF-GridNet", {"si_sdr_db_improvement": 23.5}, _LOCOFORMER),
            PublishedResult("TF-Locoformer S", {"si_sdr_db_improvement": 22.0}, _LOCOFORMER),
            PublishedResult("TF-Locoformer M", {"si_sdr_db_improvement": 23.6}, _LOCOFORMER),
            PublishedResult("TF-Locoformer L", {"si_sdr_db_improvement": 24.2}, _LOCOFORMER),
            PublishedResult(
                "TF-Locoformer M, released",
                {"si_sdr_db": 23.64, "sdr_v3_db": 23.93, "stoi": 0.9891},
                _LOCOFORMER_RELEASE,
            ),
        ),
        source=_LOCOFORMER,
        notes="Whole utterances; means are removed before SI-SDR; SDR is that of BSS Eval v3.",
    ),
    Benchmark(
        name="whamr",
        title="Two speakers in noise and reverberation: WHAMR!, 8 kHz, min",
        corpus="whamr",
        protocol=Protocol(measures=("si_sdr_db", "sdr_v3_db", "stoi")),
        mixtures=partial(
            whamr.mixtures,
            split="tt",
            sample_rate=8000,
            length="min",
            mixture="mix_both_reverb",
            target="anechoic",
        ),
        published=(
            PublishedResult("TF-GridNet", {"si_sdr_db_improvement": 17.1}, _LOCOFORMER),
            PublishedResult("TF-Locoformer S", {"si_sdr_db_improvement": 17.4}, _LOCOFORMER),
            PublishedResult("TF-Locoformer M", {"si_sdr_db_improvement": 18.5}, _LOCOFORMER),
            PublishedResult(
                "TF-Locoformer S", {"sdr_v3_db_improvement": 15.9}, _LOCOFORMER, note=_SECOND_HAND
            ),
            PublishedResult(
                "TF-Locoformer M", {"sdr_v3_db_improvement": 16.9}, _LOCOFORMER, note=_SECOND_HAND
            ),
            PublishedResult(
                "TF-Locoformer M, released",
                {"si_sdr_db": 12.15, "sdr_v3_db": 13.14, "stoi": 0.9327},
                _LOCOFORMER_RELEASE,
            ),
            PublishedResult(
                "TF-Locoformer S, released",
                {"si_sdr_db": 11.43, "sdr_v3_db": 12.44, "stoi": 0.9231},
                _LOCOFORMER_RELEASE,
            ),
        ),
        source=_LOCOFORMER,
        notes="From the noisy, reverberant mixture to anechoic speech. The sources do not add up "
        "to the mixture.",
    ),
    Benchmark(
        name="libri2mix",
        title="Two speakers: Libri2Mix, clean, 8 kHz, min",
        corpus="libri2mix",
        protocol=Protocol(measures=("si_sdr_db", "sdr_v3_db", "stoi")),
        mixtures=partial(
            libri2mix.mixtures, split="test", sample_rate=8000, length="min", task="mix_clean"
        ),
        published=(
            PublishedResult(
                "TF-Locoformer M",
                {"si_sdr_db_improvement": 22.1},
                _LOCOFORMER,
                note=_SECOND_HAND,
            ),
        ),
        source=_LOCOFORMER,
    ),
    *(
        Benchmark(
            name=f"dns-{name}",
            title=f"Speech enhancement: DNS 2020, {title}",
            corpus="dns",
            protocol=Protocol(
                sample_rate=16000, measures=("si_sdr_db", "sdr_v3_db", "stoi", "pesq_wb")
            ),
            mixtures=partial(dns.mixtures, reverb=reverb),
            published=published,
            source=_LOCOFORMER,
            notes="Speech alone counts. PESQ needs the extra `pesq`.",
        )
        for name, title, reverb, published in (
            (
                "no-reverb",
                "no reverberation",
                False,
                (
                    PublishedResult(
                        "TF-Locoformer M, released",
                        {"si_sdr_db": 23.23, "sdr_v3_db": 23.35, "stoi": 0.9879},
                        _LOCOFORMER_RELEASE,
                    ),
                    PublishedResult(
                        "TF-Locoformer M",
                        {"si_sdr_db": 23.3, "pesq_wb": 3.72, "stoi": 0.988},
                        _LOCOFORMER,
                        note=_SECOND_HAND,
                    ),
                ),
            ),
            (
                "reverb",
                "with reverberation",
                True,
                (
                    PublishedResult(
                        "TF-Locoformer M, released",
                        {"si_sdr_db": 10.97, "sdr_v3_db": 13.17, "stoi": 0.8319},
                        _LOCOFORMER_RELEASE,
                    ),
                ),
            ),
        )
    ),
    Benchmark(
        name="musdb18-pieces",
        title="Music separation by query: MUSDB18, pieces of 2 s",
        corpus="musdb18",
        protocol=Protocol(
            channels="mono",
            sample_rate=32000,
            pieces_s=2.0,
            wiener=True,
            measures=("sdr_v4_db",),
            summary="median-of-groups",
        ),
        mixtures=partial(musdb18.mixtures, split="test"),
        published=tuple(
            PublishedResult(system, {"sdr_v4_db": value}, _APT, row=prompt)
            for system, values in (
                ("query-based baseline", (6.15, 5.44, 3.80, 3.05, 4.31)),
                ("APT", (6.31, 6.36, 4.92, 3.12, 4.98)),
                ("APT, separator tuned too", (6.42, 6.41, 5.11, 3.93, 5.02)),
            )
            for prompt, value in zip(
                ("vocals", "drums", "bass", "other", "all"), values, strict=True
            )
        ),
        source=_APT,
        notes="Mean of left and right at 32 kHz; SDR of BSS Eval v4 with one window per piece, "
        "silent pieces left out; median over pieces, then over songs; over everything, the "
        "median over all pieces. A Wiener filter shares the mixture out among the four stems.",
    ),
    Benchmark(
        name="esc50-pairs",
        title="Sound separation by class: ESC-50, folds 4 and 5",
        corpus="esc50",
        protocol=Protocol(
            sample_rate=32000, channels="mono", measures=("sdr_v4_db",), summary="median"
        ),
        mixtures=_esc50_pairs,
        published=(
            *(
                PublishedResult(f"{system}, {shots}", {"sdr_v4_db": value}, _APT)
                for shots, *values in (
                    ("24 clips", 6.44, 8.50),
                    ("1 clip", 4.09, 4.57),
                    ("5 clips", 5.59, 6.68),
                    ("10 clips", 6.10, 7.59),
                )
                for system, value in zip(("query-based baseline", "APT"), values, strict=True)
            ),
            PublishedResult("APT, separator tuned too, 24 clips", {"sdr_v4_db": 9.32}, _APT),
        ),
        source=_APT,
        stand_in="sfx",
        notes="Each test clip with one of another class, drawn by a fixed seed (the paper's pairs "
        "are not published); median over clips. Prompts are the 50 classes; a model that does "
        "not know them is asked for two effects, in the better order.",
    ),
    Benchmark(
        name="libri2mix-10s",
        title="Two speakers: Libri2Mix, clean, 16 kHz, 10 s",
        corpus="libri2mix",
        protocol=Protocol(duration_s=10.0, measures=("si_sdr_raw_db",), oracle_stft=(512, 128)),
        mixtures=partial(
            libri2mix.mixtures, split="test", sample_rate=16000, length="min", task="mix_clean"
        ),
        published=(
            PublishedResult(
                "AudioSlots",
                {"si_sdr_raw_db": 9.9},
                _AUDIOSLOTS,
                note="between 9.81 and 10.00: the decimals are derived",
            ),
            PublishedResult(
                "its autoencoder",
                {"si_sdr_raw_db": 10.1},
                _AUDIOSLOTS,
                note="between 10.00 and 10.19: the decimals are derived",
            ),
        ),
        source=_AUDIOSLOTS,
        notes="Items of 10 s, shorter ones filled up with zeros; SI-SNR without removal of means. "
        "AudioSlots puts chunks in order by looking at the references.",
    ),
)


def benchmarks() -> dict[str, Benchmark]:
    """All published benchmarks by name."""
    return {benchmark.name: benchmark for benchmark in _BENCHMARKS}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        DataError: If there is none, with near names.
    """
    known = benchmarks()
    if name not in known:
        raise DataError(f"unknown benchmark {name!r}; {nearest(name, list(known))}")
    return known[name]
