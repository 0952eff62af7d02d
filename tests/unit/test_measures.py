"""The catalogue of measures: against hand-computed cases and against the toolkits."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from unbraid.errors import ConfigError, DataError, MissingExtra
from unbraid.evaluation import measures
from unbraid.evaluation.measures import (
    MEASURES,
    Comparison,
    check_packages,
    find_measure,
    measure_all,
    merit,
)
from unbraid.objectives.measures import LIMIT_DB, audible_windows, windowed_sdr_db

RATE = 8000

#: What needs no further package.
BASE = [name for name, measure in MEASURES.items() if not measure.extra]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compare(
    estimates: torch.Tensor, references: torch.Tensor, sample_rate: int = RATE
) -> Comparison:
    return Comparison(estimates, references, references.sum(dim=0), sample_rate)


def values(name: str, comparison: Comparison) -> list[float]:
    return [source[name] for source in measure_all([name], comparison)]


def value(name: str, estimate: torch.Tensor, reference: torch.Tensor, rate: int = RATE) -> float:
    return values(name, compare(estimate[None], reference[None], rate))[0]


def square_wave(level: float, num_samples: int = RATE) -> torch.Tensor:
    """Power ``level ** 2`` and no mean."""
    wave = torch.full((1, num_samples), level)
    wave[:, ::2] *= -1
    return wave


def orthogonal_to_it(level: float, num_samples: int = RATE) -> torch.Tensor:
    """A square wave of half the frequency."""
    return level * torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(num_samples // 4)[None]


def test_an_unknown_measure_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"'si_sdr'.*did you mean si_sdr_db"):
        find_measure("si_sdr")


def test_every_measure_is_found_by_its_name_and_says_what_it_is() -> None:
    for name, measure in MEASURES.items():
        assert find_measure(name) is measure
        assert measure.name == name
        assert measure.title
        assert measure.description.endswith(".")
        assert bool(measure.extra) == bool(measure.packages)
        if name.endswith("_db"):
            assert (measure.unit, measure.is_better) == ("dB", "higher")


def test_ratios_by_hand() -> None:
    reference = square_wave(0.5)
    estimate = reference + orthogonal_to_it(0.05)  # a tenth of the amplitude: 20 dB
    for name in ("snr_db", "si_sdr_db", "si_sdr_raw_db", "sdr_v4_db", "csdr_db"):
        assert value(name, estimate, reference) == pytest.approx(20.0, abs=1e-3), name
    # Half the level: an error of half the amplitude, but no distortion.
    for name in ("snr_db", "sdr_v4_db", "csdr_db"):
        assert value(name, reference / 2, reference) == pytest.approx(6.0206, abs=1e-3), name
    assert value("si_sdr_db", reference / 2, reference) == LIMIT_DB
    assert value("level_error", reference / 2, reference) == pytest.approx(-6.0206, abs=1e-3)
    assert value("level_error", reference * 10, reference) == pytest.approx(20.0, abs=1e-3)


def test_only_one_kind_of_si_sdr_counts_the_mean() -> None:
    reference = square_wave(1.0)
    estimate = reference + 1.0
    assert value("si_sdr_db", estimate, reference) == LIMIT_DB
    assert value("si_sdr_raw_db", estimate, reference) == pytest.approx(0.0, abs=1e-3)


def test_snr_is_averaged_over_channels_and_sdr_takes_them_together() -> None:
    reference = torch.cat([square_wave(1.0), square_wave(0.1)])
    estimate = reference + torch.cat([orthogonal_to_it(0.1), orthogonal_to_it(0.1)])
    # Channel by channel 20 dB and 0 dB; together powers of 1.01 over 0.02.
    assert value("snr_db", estimate, reference) == pytest.approx(10.0, abs=1e-3)
    together = 10 * math.log10(1.01 / 0.02)
    assert value("sdr_v4_db", estimate, reference) == pytest.approx(together, abs=1e-3)


def test_a_silent_channel_of_a_reference_is_left_out() -> None:
    reference = torch.cat([square_wave(1.0), torch.zeros(1, RATE)])
    estimate = reference + torch.cat([orthogonal_to_it(0.1), orthogonal_to_it(0.7)])
    assert value("snr_db", estimate, reference) == pytest.approx(20.0, abs=1e-3)


def test_leak_suppression_is_how_far_below_the_mixture_an_absent_source_lies() -> None:
    references = torch.stack([square_wave(1.0), torch.zeros(1, RATE), torch.zeros(1, RATE)])
    estimates = torch.stack([references[0], 0.01 * references[0], references[1]])
    suppression = values("leak_suppression_db", compare(estimates, references))
    assert math.isnan(suppression[0])
    assert suppression[1:] == pytest.approx([40.0, LIMIT_DB], abs=1e-3)


def test_a_silent_reference_gives_no_number_but_for_the_leak() -> None:
    references = torch.stack([square_wave(1.0), torch.zeros(1, RATE)])
    measured = measure_all(BASE, compare(0.5 * references + 0.1, references))
    for name in BASE:
        is_defined = [not math.isnan(source[name]) for source in measured]
        assert is_defined == ([False, True] if "leak" in name else [True, False]), name


@pytest.mark.parametrize("num_samples", [0, 1, 100])
def test_silence_and_shortness_never_crash(num_samples: int) -> None:
    silence = torch.zeros(2, 2, num_samples)
    for estimates in (silence, silence + 0.5):
        for source in measure_all(BASE, compare(estimates, silence)):
            assert all(math.isnan(number) for number in source.values())
    sound = noise(2, 2, num_samples)
    for source in measure_all(BASE, compare(silence, sound)):
        assert all(
            math.isnan(number) == (num_samples == 0 or "leak" in name)
            for name, number in source.items()
        )


def test_a_silent_estimate_is_measured() -> None:
    reference = square_wave(1.0)
    silence = torch.zeros_like(reference)
    expected = {
        "snr_db": 0.0,
        "sdr_v4_db": 0.0,
        "csdr_db": 0.0,
        "si_sdr_db": -LIMIT_DB,
        "level_error": -LIMIT_DB,
    }
    measured = measure_all(list(expected), compare(silence[None], reference[None]))[0]
    assert measured == pytest.approx(expected)


def test_estimates_that_are_no_numbers_are_refused() -> None:
    references = noise(3, 1, RATE)
    for broken in (math.nan, math.inf):
        estimates = references.clone()
        estimates[1, 0, 5] = broken
        with pytest.raises(DataError, match="estimate 2 of 3"):
            measure_all(["snr_db"], compare(estimates, references))


def test_inputs_are_left_as_they_are() -> None:
    references, estimates = noise(2, 2, RATE), noise(2, 2, RATE, seed=1)
    before = references.clone(), estimates.clone()
    measure_all(BASE, compare(estimates, references))
    assert torch.equal(references, before[0])
    assert torch.equal(estimates, before[1])


def test_csdr_is_the_median_over_seconds_and_drops_the_rest() -> None:
    num_samples = 3 * RATE + RATE // 2
    reference = square_wave(1.0, num_samples)
    error = orthogonal_to_it(1.0, num_samples)
    for second, level in enumerate([0.1, 0.01, 1.0, 100.0]):  # 20, 40, 0 dB, and a rest
        error[:, second * RATE : (second + 1) * RATE] *= level
    assert value("csdr_db", reference + error, reference) == pytest.approx(20.0, abs=1e-3)


def test_seconds_in_which_any_source_is_silent_count_for_none() -> None:
    references = torch.stack([square_wave(1.0, 3 * RATE), square_wave(1.0, 3 * RATE)])
    errors = torch.stack([orthogonal_to_it(1.0, 3 * RATE)] * 2)
    errors[..., :RATE] *= 0.1
    errors[..., RATE : 2 * RATE] *= 0.01
    references[1, :, RATE : 2 * RATE] = 0.0
    # The second second is out, though the first source is there: 20 dB and 0 dB are left.
    csdr = values("csdr_db", compare(references + errors, references))
    assert csdr == pytest.approx([10.0, 10.0], abs=1e-3)


def test_a_source_that_is_never_there_does_not_take_all_seconds_away() -> None:
    references = torch.stack([square_wave(1.0), torch.zeros(1, RATE), square_wave(0.5)])
    estimates = references + orthogonal_to_it(0.1)
    estimates[2] = 0.0
    first, absent, lost = values("csdr_db", compare(estimates, references))
    assert first == pytest.approx(20.0, abs=1e-3)
    assert math.isnan(absent)
    assert lost == pytest.approx(0.0, abs=1e-6)


def test_windows_of_a_waveform_by_hand() -> None:
    reference = torch.tensor([[1.0, 1.0, 2.0, 0.0, 0.0, 0.0, 9.0]])
    estimate = reference + torch.tensor([[0.1, 0.1, 0.2, 0.0, 0.0, 1.0, 0.0]])
    assert windowed_sdr_db(estimate, reference, 2).tolist() == pytest.approx(
        [20.0, 20.0, -LIMIT_DB], abs=1e-4
    )
    assert audible_windows(reference, 2).tolist() == [True, True, False]
    assert windowed_sdr_db(estimate, reference, 100).shape == (1,)
    # Channels that cancel out are silent to museval, whose rule this is.
    assert audible_windows(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]), 1).tolist() == [False, True]


def test_log_spectral_distance_by_hand() -> None:
    reference = noise(1, RATE)
    assert value("log_spectral_distance", reference, reference) == 0.0
    assert value("log_spectral_distance", -reference, reference) == 0.0
    # Everything ten times as loud: 20 dB in all bins but those below the floor of 80 dB.
    distance = value("log_spectral_distance", 10 * reference, reference)
    assert distance == pytest.approx(20.0, abs=0.01)


def test_long_songs_lose_no_precision() -> None:
    reference = noise(1, 1, 4_000_000) * 1e-3
    error = noise(1, 1, 4_000_000, seed=1) * 1e-6
    exact = 10 * math.log10(
        float(reference.double().square().sum() / error.double().square().sum())
    )
    comparison = compare(reference + error, reference, 44100)
    for name in ("snr_db", "si_sdr_db", "sdr_v4_db"):
        assert values(name, comparison)[0] == pytest.approx(exact, abs=1e-3), name


def test_merit_is_higher_for_what_is_better() -> None:
    assert merit("si_sdr_db", 3.0) > merit("si_sdr_db", 2.0)
    assert merit("log_spectral_distance", 3.0) < merit("log_spectral_distance", 2.0)
    assert merit("level_error", 3.0) < merit("level_error", -2.0)
    assert merit("of_another_version", 3.0) > merit("of_another_version", 2.0)


def test_a_missing_package_is_named_with_its_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measures.importlib.util, "find_spec", lambda name: None)
    check_packages(BASE)
    with pytest.raises(MissingExtra, match=r"sir_v4_db.*museval.*pip install 'unbraid\[eval\]'"):
        check_packages(["snr_db", "sir_v4_db"])
    with pytest.raises(MissingExtra, match=r"pesq_wb.*pip install 'unbraid\[pesq\]'"):
        measure_all(["pesq_wb"], compare(noise(1, 1, RATE), noise(1, 1, RATE)))


def test_ratios_agree_with_torchmetrics() -> None:
    audio = pytest.importorskip("torchmetrics.functional.audio")
    references = noise(2, 2, RATE) + 0.1
    estimates = references + 0.3 * noise(2, 2, RATE, seed=1) - 0.05
    comparison = compare(estimates, references)
    for name, theirs in {
        "snr_db": audio.signal_noise_ratio(estimates, references),
        "si_sdr_db": audio.scale_invariant_signal_distortion_ratio(
            estimates, references, zero_mean=True
        ),
        "si_sdr_raw_db": audio.scale_invariant_signal_distortion_ratio(estimates, references),
    }.items():
        expected = theirs.mean(dim=1).tolist()
        assert values(name, comparison) == pytest.approx(expected, abs=1e-3), name


def test_bss_eval_3_agrees_with_torchmetrics_and_forgives_a_filter() -> None:
    pytest.importorskip("fast_bss_eval")
    audio = pytest.importorskip("torchmetrics.functional.audio")
    references = noise(2, 2, RATE)
    echo = torch.nn.functional.pad(references, (5, 0))[..., :RATE]
    estimates = references - 0.7 * echo + 0.3 * noise(2, 2, RATE, seed=1)
    theirs = audio.signal_distortion_ratio(estimates.double(), references.double())
    ours = values("sdr_v3_db", compare(estimates, references))
    assert ours == pytest.approx(theirs.mean(dim=1).tolist(), abs=1e-3)
    assert min(ours) > max(values("si_sdr_db", compare(estimates, references))) + 2.0


def test_bss_eval_3_is_defined_or_nan_in_every_corner() -> None:
    pytest.importorskip("fast_bss_eval")
    reference = noise(1, RATE)
    assert value("sdr_v3_db", torch.zeros(1, RATE), reference) == -LIMIT_DB
    assert value("sdr_v3_db", reference, reference) > 80.0
    assert math.isnan(value("sdr_v3_db", reference, torch.zeros(1, RATE)))
    assert math.isnan(value("sdr_v3_db", reference[:, :511], reference[:, :511]))
    # A tone leaves most of 512 taps open: no number, or one inside the limits, but no crash.
    tone = value("sdr_v3_db", reference, square_wave(1.0))
    assert math.isnan(tone) or abs(tone) <= LIMIT_DB


def song(num_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two stereo sources, estimates with leaks and noise, and silent stretches."""
    references = noise(2, 2, num_samples)
    leaks = references.roll(1, dims=0) * 0.2
    estimates = 0.9 * references + leaks + 0.1 * noise(2, 2, num_samples, seed=1)
    second = slice(RATE, 2 * RATE)
    references[0, :, second] = 0.0
    estimates[1, :, 2 * RATE : 3 * RATE] = 0.0
    return estimates, references


def museval_frames(comparison: Comparison, window: float) -> tuple[torch.Tensor, ...]:
    """SDR, ISR, SIR and SAR of museval itself: ``[source, window]`` each."""
    if measures.importlib.util.find_spec("museval") is None:
        pytest.skip("needs museval")
    arrays = [
        each.double().movedim(-1, -2).numpy()
        for each in (comparison.references, comparison.estimates)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        *found, _ = measures._museval_metrics().bss_eval(*arrays, window=window, hop=window)
    return tuple(torch.from_numpy(each) for each in found)


def test_csdr_and_sdr_are_those_of_museval() -> None:
    for num_samples in (5 * RATE + 123, 3 * RATE, RATE // 2):
        estimates, references = song(num_samples)
        comparison = compare(estimates, references)
        by_second = museval_frames(comparison, RATE)[0]
        ours = windowed_sdr_db(estimates, references, RATE)
        counted = ~by_second.isnan()
        assert by_second.shape == ours.shape
        assert torch.allclose(by_second[counted].float(), ours[counted], atol=1e-3)
        expected = [float(row[~row.isnan()].quantile(0.5)) for row in by_second]
        assert values("csdr_db", comparison) == pytest.approx(expected, abs=1e-3)
        whole = museval_frames(comparison, math.inf)[0][:, 0].tolist()
        assert values("sdr_v4_db", comparison) == pytest.approx(whole, abs=1e-3)


def test_bss_eval_4_is_that_of_museval() -> None:
    estimates, references = song(4 * RATE)
    comparison = compare(estimates, references)
    _, *theirs = museval_frames(comparison, RATE)
    names = ["isr_v4_db", "sir_v4_db", "sar_v4_db"]
    ours = measure_all(names, comparison)
    for name, frames in zip(names, theirs, strict=True):
        expected = [float(row[~row.isnan()].quantile(0.5)) for row in frames]
        assert [source[name] for source in ours] == pytest.approx(expected, abs=1e-6)


def test_silent_sources_and_estimates_change_bss_eval_4_of_no_other() -> None:
    estimates, references = song(RATE)
    two = compare(estimates, references)
    alone = [museval_frames(two, RATE)[number][0, 0].item() for number in (1, 2, 3)]
    silence = torch.zeros_like(references[:1])
    names = ["isr_v4_db", "sir_v4_db", "sar_v4_db"]
    with_absent = measure_all(
        names,
        compare(
            torch.cat([estimates[:1], silence, estimates[1:2]]),
            torch.cat([references, silence]),
        ),
    )
    assert list(with_absent[0].values()) == pytest.approx(alone, abs=1e-6)
    for source in with_absent[1:]:
        assert all(math.isnan(number) for number in source.values())
    for source in measure_all(names, compare(estimates[..., :500], references[..., :500])):
        assert all(math.isnan(number) for number in source.values())


def speech_like(seconds: float, sample_rate: int) -> torch.Tensor:
    """Noise in bursts, as syllables are."""
    time = torch.arange(int(seconds * sample_rate)) / sample_rate
    bursts = (2 * math.pi * 3 * time).sin().clamp_min(0.01)
    return (bursts * noise(len(time)))[None] * 0.1


@pytest.mark.parametrize("name", ["stoi", "estoi"])
def test_intelligibility_is_that_of_pystoi(name: str) -> None:
    pystoi = pytest.importorskip("pystoi")
    pytest.importorskip("torchmetrics")
    reference = speech_like(2.0, RATE)
    estimate = reference + 0.05 * noise(1, len(reference[0]), seed=1)
    expected = pystoi.stoi(
        reference[0].double().numpy(), estimate[0].double().numpy(), RATE, name == "estoi"
    )
    assert 0.0 < expected < 0.99
    assert value(name, estimate, reference) == pytest.approx(expected, abs=1e-9)
    assert value(name, reference, reference) == pytest.approx(1.0, abs=1e-6)


def test_intelligibility_of_too_little_speech_is_undefined() -> None:
    pytest.importorskip("pystoi")
    pytest.importorskip("torchmetrics")
    short = speech_like(0.3, RATE)
    mostly_silent = torch.cat([speech_like(0.35, RATE), torch.zeros(1, RATE)], dim=1)
    for reference in (short, mostly_silent, torch.zeros(1, RATE)):
        assert math.isnan(value("stoi", reference + 0.1, reference))
    reference = speech_like(2.0, RATE)
    assert abs(value("stoi", torch.zeros_like(reference), reference)) < 0.1


def test_perceptual_quality_is_that_of_pesq() -> None:
    pesq = pytest.importorskip("pesq")
    pytest.importorskip("torchmetrics")
    reference = speech_like(2.0, 16000)
    estimate = reference + 0.02 * noise(1, len(reference[0]), seed=1)
    expected = pesq.pesq(16000, reference[0].numpy(), estimate[0].numpy(), "wb")
    assert 1.0 < expected < 4.6
    assert value("pesq_wb", estimate, reference, 16000) == pytest.approx(expected, abs=1e-6)
    assert value("pesq_nb", reference, reference, 16000) == pytest.approx(4.55, abs=0.01)


def test_perceptual_quality_is_undefined_rather_than_a_crash() -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("torchmetrics")
    reference = speech_like(2.0, 16000)
    assert math.isnan(value("pesq_wb", reference, reference, 8000))
    assert math.isnan(value("pesq_wb", reference, torch.zeros_like(reference), 16000))
    assert math.isnan(value("pesq_wb", reference[:, :1000], reference[:, :1000], 16000))
    assert value("pesq_wb", torch.zeros_like(reference), reference, 16000) == 1.0
    faint = value("pesq_wb", reference * 1e-20, reference, 16000)
    assert math.isnan(faint) or 1.0 <= faint <= 4.65
