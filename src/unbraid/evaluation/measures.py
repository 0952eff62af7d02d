"""The measures that users choose from, by name.

A measure that has no meaning for a source, such as any ratio to a silent reference, is nan
there, and means leave it out. What has several channels is measured channel by channel and
averaged, unless the measure says otherwise; channels with a silent reference are left out.

Estimates are never moved or scaled to fit: ``*_db`` and all others are of the estimate as it is.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config import nearest
from unbraid.dsp.resample import resample
from unbraid.errors import ConfigError, DataError, MissingExtra
from unbraid.evaluation.oracles import oracle_stft
from unbraid.evaluation.results import IMPROVEMENT
from unbraid.objectives.measures import (
    LIMIT_DB,
    audible_windows,
    leak_suppression_db,
    level_error,
    log_spectral_distance,
    si_sdr_db,
    snr_db,
    windowed_sdr_db,
)

#: One number from one channel of an estimate and its reference, which is not silent.
_OfChannel: TypeAlias = Callable[[Float[Tensor, "time"], Float[Tensor, "time"]], float]

_FILTER_TAPS = 512
# STOI looks at stretches of 30 frames of 256 samples, half overlapping, at 10 kHz.
_SHORTEST_FOR_STOI_S = 0.4
_WORST_PESQ = 1.0


@dataclass(frozen=True, eq=False)
class Comparison:
    """Estimates of one mixture beside what they should be.

    Attributes:
        estimates: In the order of the references.
        references: What they should be.
        mixture: What they were separated from.
        sample_rate: Of all of them.
    """

    estimates: Float[Tensor, "source channel time"]
    references: Float[Tensor, "source channel time"]
    mixture: Float[Tensor, "channel time"]
    sample_rate: int

    @cached_property
    def bss_eval_v4(self) -> Mapping[str, list[float]]:
        """``isr``, ``sir`` and ``sar`` of each source: the toolkit works out all at once."""
        return _bss_eval_v4(self)


@dataclass(frozen=True)
class Measure:
    """How close estimates are to their references, in one respect.

    Attributes:
        name: What it is called in results and on the command line.
        title: What it is called in tables.
        unit: ``dB``, or empty.
        is_better: Which values are.
        description: What it measures, and where it is not defined.
        extra: The optional dependencies that it needs, ``eval`` or ``pesq``; empty for none.
        compute: One value per source; nan where it is not defined.
        packages: What the optional dependencies are, by import name.
    """

    name: str
    title: str
    unit: str
    is_better: Literal["higher", "lower", "near-zero"]
    description: str
    extra: str
    compute: Callable[[Comparison], list[float]]
    packages: tuple[str, ...] = ()


def find_measure(name: str) -> Measure:
    """The measure of that name.

    Raises:
        ConfigError: If there is none.
    """
    if name not in MEASURES:
        raise ConfigError(f"unknown measure {name!r}; {nearest(name, list(MEASURES))}")
    return MEASURES[name]


def check_packages(names: Iterable[str]) -> None:
    """Find out before a long run whether what its measures need is installed.

    Raises:
        ConfigError: If there is no measure of a name.
        MissingExtra: If a measure needs a package that is not installed.
    """
    for name in names:
        measure = find_measure(name)
        for package in measure.packages:
            if importlib.util.find_spec(package) is None:
                raise MissingExtra(
                    f"the measure {name} needs the package {package}; "
                    f"install it with: pip install 'unbraid[{measure.extra}]'"
                )


def measure_all(names: Sequence[str], comparison: Comparison) -> list[dict[str, float]]:
    """Several measures of each source.

    Raises:
        ConfigError: If there is no measure of a name.
        DataError: If an estimate holds values that are no numbers.
        MissingExtra: If a measure needs a package that is not installed.
    """
    check_packages(names)
    for number, estimate in enumerate(comparison.estimates, start=1):
        # One sum instead of a test of each sample: it is finite only if all of them are.
        if not estimate.sum().isfinite():
            raise DataError(
                f"estimate {number} of {len(comparison.estimates)} holds values that are no "
                "numbers; the model cannot be measured on this mixture."
            )
    columns = {name: find_measure(name).compute(comparison) for name in names}
    return [
        {name: column[source] for name, column in columns.items()}
        for source in range(len(comparison.references))
    ]


def merit(name: str, value: float) -> float:
    """A measure's value turned so that a higher one is better; for comparing only.

    Gains over the mixture are as good as the measure they are of. Names that the catalogue does
    not have count as better when higher.
    """
    measure = MEASURES.get(name.removesuffix(IMPROVEMENT))
    if measure is None or measure.is_better == "higher":
        return value
    return -value if measure.is_better == "lower" else -abs(value)


def _by_channel(of_channel: _OfChannel, comparison: Comparison) -> list[float]:
    values = []
    for estimate, reference in zip(comparison.estimates, comparison.references, strict=True):
        of_source = [
            of_channel(*channels)
            for channels in zip(estimate, reference, strict=True)
            if not _is_silent(channels[1])
        ]
        defined = [value for value in of_source if not math.isnan(value)]
        values.append(statistics.fmean(defined) if defined else math.nan)
    return values


def _is_silent(waveform: Float[Tensor, "*axes"]) -> bool:
    return waveform.numel() == 0 or not (waveform.amax() or waveform.amin())


def _snr(estimate: Float[Tensor, "time"], reference: Float[Tensor, "time"]) -> float:
    return float(snr_db(estimate, reference))


def _si_sdr(
    estimate: Float[Tensor, "time"], reference: Float[Tensor, "time"], *, remove_mean: bool
) -> float:
    return float(si_sdr_db(estimate, reference, remove_mean=remove_mean))


def _sdr_v3(estimate: Float[Tensor, "time"], reference: Float[Tensor, "time"]) -> float:
    import fast_bss_eval

    if _is_silent(estimate):
        return -LIMIT_DB
    if len(reference) < _FILTER_TAPS:
        return math.nan
    try:
        # The function whose name ends on "loss" wants no permutation; the sign is a loss's.
        loss = fast_bss_eval.sdr_loss(
            estimate.double(), reference.double(), filter_length=_FILTER_TAPS, clamp_db=LIMIT_DB
        )
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return math.nan
    return -float(loss)


def _sdr_v4(comparison: Comparison) -> list[float]:
    length = comparison.mixture.shape[-1]
    return [
        math.nan if _is_silent(reference) else float(windowed_sdr_db(estimate, reference, length))
        for estimate, reference in zip(comparison.estimates, comparison.references, strict=True)
    ]


def _csdr(comparison: Comparison) -> list[float]:
    window = comparison.sample_rate
    pairs = list(zip(comparison.estimates, comparison.references, strict=True))
    # One source at a time: four stems of a song fill gigabytes in a few steps.
    counted = None
    for waveform in (*comparison.references, *comparison.estimates):
        audible = audible_windows(waveform, window)
        if audible.any():
            counted = audible if counted is None else counted & audible
    values = []
    for estimate, reference in pairs:
        if counted is None or not counted.any() or not audible_windows(reference, window).any():
            values.append(math.nan)
            continue
        values.append(_median(windowed_sdr_db(estimate, reference, window)[counted]))
    return values


def _bss_eval_v4(comparison: Comparison) -> dict[str, list[float]]:
    whole = comparison.references.shape[-1]
    names = ("isr", "sir", "sar")
    columns = {name: [math.nan] * len(comparison.references) for name in names}
    present = [
        source
        for source, reference in enumerate(comparison.references)
        if audible_windows(reference, whole).any()
    ]
    if not present or whole < _FILTER_TAPS:
        return columns
    references = comparison.references[present]
    estimates = comparison.estimates[present]
    silent = [
        row for row, estimate in enumerate(estimates) if not audible_windows(estimate, whole).any()
    ]
    # The toolkit refuses silent estimates. Perfect ones in their place change nothing for the
    # others, which are held against the references alone.
    estimates[silent] = references[silent]
    window = comparison.sample_rate
    try:
        with np.errstate(all="ignore"):
            _, *values, _ = _museval_metrics().bss_eval(
                *(each.double().movedim(-1, -2).numpy() for each in (references, estimates)),
                window=window,
                hop=window,
            )
    # Its handler of singular matrices asks NumPy for a name that newer releases do not have.
    except (np.linalg.LinAlgError, AttributeError):
        return columns
    for name, of_sources in zip(names, values, strict=True):
        for row, source in enumerate(present):
            if row not in silent:
                columns[name][source] = _median(torch.from_numpy(of_sources[row]))
    return columns


def _museval_metrics() -> Any:
    # By its path, because the package itself imports what decodes music, and fails where there
    # is no program called ffmpeg; this one file needs nothing but NumPy and SciPy.
    package = importlib.util.find_spec("museval")
    assert package is not None, "check_packages has found it"
    assert package.submodule_search_locations, "museval is a folder"
    file = Path(package.submodule_search_locations[0]) / "metrics.py"
    spec = importlib.util.spec_from_file_location("museval_metrics", file)
    assert spec is not None, "the file's ending is that of a module"
    assert spec.loader is not None, "a spec made from a file has a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _of_bss_eval_v4(name: str, comparison: Comparison) -> list[float]:
    return comparison.bss_eval_v4[name]


def _median(values: Float[Tensor, "window"]) -> float:
    """Of those that are defined, each within ±``LIMIT_DB``; nan where none is."""
    defined = values[~values.isnan()].clamp(-LIMIT_DB, LIMIT_DB)
    return statistics.median(defined.tolist()) if len(defined) else math.nan


def _stoi(comparison: Comparison, *, extended: bool) -> list[float]:
    from torchmetrics.functional.audio.stoi import short_time_objective_intelligibility

    rate = comparison.sample_rate

    def of_channel(estimate: Float[Tensor, "time"], reference: Float[Tensor, "time"]) -> float:
        if len(reference) < _SHORTEST_FOR_STOI_S * rate:
            return math.nan
        with warnings.catch_warnings():
            # Otherwise a recording with too little speech gets a number that means nothing.
            warnings.filterwarnings("error", message="Not enough STFT frames")
            try:
                value = short_time_objective_intelligibility(
                    estimate.double(), reference.double(), rate, extended
                )
            except RuntimeWarning:
                return math.nan
        return float(value)

    return _by_channel(of_channel, comparison)


def _pesq(comparison: Comparison, *, sample_rate: int, mode: str) -> list[float]:
    from pesq import PesqError
    from torchmetrics.functional.audio.pesq import perceptual_evaluation_speech_quality

    if comparison.sample_rate < sample_rate:
        return [math.nan] * len(comparison.references)

    def of_channel(estimate: Float[Tensor, "time"], reference: Float[Tensor, "time"]) -> float:
        if _is_silent(estimate):
            return _WORST_PESQ
        pair = torch.stack([estimate, reference])
        resampled = resample(pair, comparison.sample_rate, sample_rate)
        try:
            return float(
                perceptual_evaluation_speech_quality(resampled[0], resampled[1], sample_rate, mode)
            )
        # The latter where its own arithmetic ends in nan, as for next to nothing.
        except (PesqError, ValueError):
            return math.nan

    return _by_channel(of_channel, comparison)


def _log_spectral_distance(comparison: Comparison) -> list[float]:
    config = oracle_stft(comparison.sample_rate)

    def of_channel(estimate: Float[Tensor, "time"], reference: Float[Tensor, "time"]) -> float:
        return float(log_spectral_distance(estimate[None], reference[None], config))

    return _by_channel(of_channel, comparison)


def _level_error(comparison: Comparison) -> list[float]:
    return [
        math.nan
        if _is_silent(reference)
        else float(level_error(estimate.flatten(), reference.flatten()))
        for estimate, reference in zip(comparison.estimates, comparison.references, strict=True)
    ]


def _leak_suppression(comparison: Comparison) -> list[float]:
    mixture = comparison.mixture.flatten()
    return [
        float(leak_suppression_db(estimate.flatten(), mixture))
        if _is_silent(reference) and not _is_silent(mixture)
        else math.nan
        for estimate, reference in zip(comparison.estimates, comparison.references, strict=True)
    ]


_NOT_FOR_SILENCE = "Not defined for a silent reference."

_CATALOGUE = (
    Measure(
        name="snr_db",
        title="SNR",
        unit="dB",
        is_better="higher",
        description="Power of the reference over power of the error, channel by channel; over "
        "whole songs it is known as uSDR. A silent estimate has 0 dB. " + _NOT_FOR_SILENCE,
        extra="",
        compute=partial(_by_channel, _snr),
    ),
    Measure(
        name="si_sdr_db",
        title="SI-SDR",
        unit="dB",
        is_better="higher",
        description="Power of the scaled reference over power of the rest, means removed before; "
        "also known as SI-SNR. The level of the estimate does not count; a silent one has -100 dB. "
        + _NOT_FOR_SILENCE,
        extra="",
        compute=partial(_by_channel, partial(_si_sdr, remove_mean=True)),
    ),
    Measure(
        name="si_sdr_raw_db",
        title="SI-SDR, means kept",
        unit="dB",
        is_better="higher",
        description="SI-SDR as first published: means are not removed. " + _NOT_FOR_SILENCE,
        extra="",
        compute=partial(_by_channel, partial(_si_sdr, remove_mean=False)),
    ),
    Measure(
        name="sdr_v3_db",
        title="SDR (BSS Eval v3)",
        unit="dB",
        is_better="higher",
        description="SDR after the best filter of 512 taps between reference and estimate, which "
        "forgives any equaliser. Not defined for a silent reference, nor for one that is shorter "
        "than the filter or leaves the filter undetermined.",
        extra="eval",
        compute=partial(_by_channel, _sdr_v3),
        packages=("fast_bss_eval",),
    ),
    Measure(
        name="sdr_v4_db",
        title="SDR (BSS Eval v4)",
        unit="dB",
        is_better="higher",
        description="Power of the reference over power of the error, all channels and the whole "
        "recording together: museval with a window of any length. " + _NOT_FOR_SILENCE,
        extra="",
        compute=_sdr_v4,
    ),
    Measure(
        name="csdr_db",
        title="cSDR",
        unit="dB",
        is_better="higher",
        description="Median SDR (BSS Eval v4) over windows of one second, side by side, all "
        "channels together, as museval gives it. Windows in which any source or estimate is "
        "silent do not count, for any source; sources and estimates that are silent throughout "
        "are left out of this rule, where museval would stop. Not defined for a silent reference "
        "and where no window counts.",
        extra="",
        compute=_csdr,
    ),
    *(
        Measure(
            name=f"{short}_v4_db",
            title=f"{short.upper()} (BSS Eval v4)",
            unit="dB",
            is_better="higher",
            description=f"{text}: median over windows of one second, by museval. Slow: minutes "
            "for a song. Not defined for a silent reference or estimate, nor for recordings of "
            "fewer than 512 samples.",
            extra="eval",
            compute=partial(_of_bss_eval_v4, short),
            packages=("museval", "scipy"),
        )
        for short, text in (
            ("isr", "How little the estimate is filtered or moved between channels"),
            ("sir", "How little of the other sources is left in the estimate"),
            ("sar", "How little is in the estimate that no source explains"),
        )
    ),
    *(
        Measure(
            name=name,
            title=title,
            unit="",
            is_better="higher",
            description=f"{text} for speech, at most 1, by pystoi. Not defined for a silent "
            "reference, nor where less than 0.4 s of it is louder than 40 dB below its peak.",
            extra="eval",
            compute=partial(_stoi, extended=extended),
            packages=("torchmetrics", "pystoi"),
        )
        for name, title, text, extended in (
            ("stoi", "STOI", "Short-time objective intelligibility", False),
            ("estoi", "ESTOI", "Extended short-time objective intelligibility", True),
        )
    ),
    *(
        Measure(
            name=name,
            title=title,
            unit="",
            is_better="higher",
            description=f"{text}, as a mean opinion score from 1 to 4.64, at {rate // 1000} kHz. "
            "For speech. A silent estimate has 1. Not defined at lower sample rates, for a silent "
            "reference, and where the method finds no speech or less than a quarter of a second.",
            extra="pesq",
            compute=partial(_pesq, sample_rate=rate, mode=mode),
            packages=("torchmetrics", "pesq"),
        )
        for name, title, text, rate, mode in (
            ("pesq_wb", "PESQ-WB", "Perceptual quality, ITU-T P.862.2", 16000, "wb"),
            ("pesq_nb", "PESQ-NB", "Perceptual quality, ITU-T P.862.1", 8000, "nb"),
        )
    ),
    Measure(
        name="log_spectral_distance",
        title="LSD",
        unit="dB",
        is_better="lower",
        description="Log-spectral distance: how far the magnitudes of the estimate are from the "
        "reference's, down to 80 dB below its loudest bin. " + _NOT_FOR_SILENCE,
        extra="",
        compute=_log_spectral_distance,
    ),
    Measure(
        name="level_error",
        title="Level error",
        unit="dB",
        is_better="near-zero",
        description="Level of the estimate above that of the reference, all channels together. "
        + _NOT_FOR_SILENCE,
        extra="",
        compute=_level_error,
    ),
    Measure(
        name="leak_suppression_db",
        title="Leak suppression",
        unit="dB",
        is_better="higher",
        description="How far the estimate of a source that is not there lies below the mixture, "
        "all channels together. Defined for silent references only.",
        extra="",
        compute=_leak_suppression,
    ),
)

#: Name → measure.
MEASURES: Mapping[str, Measure] = MappingProxyType({each.name: each for each in _CATALOGUE})
