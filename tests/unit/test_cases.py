"""What there is to listen to: the right sources, the right stretch, one gain for all."""

import io
import math
from pathlib import Path

import pytest
import soundfile
import torch
from matplotlib.image import imread

from hand_made_runs import make_item, make_run, make_source
from unbraid.apps.cases import Case, Choice, choose_cases, loudest_stretch, make_case
from unbraid.audio import read
from unbraid.dsp.levels import rms
from unbraid.evaluation.items import Item
from unbraid.evaluation.results import ItemResult
from unbraid.objectives.measures import si_sdr_db
from unbraid.types import Waveform

RATE = 16_000


def three_items() -> list[ItemResult]:
    return [
        make_item("a", make_source("speech", 5.0), make_source("music", 1.0)),
        make_item("b", make_source("speech", -3.0), make_source("music", 9.0)),
        make_item("c", make_source("speech", 2.0), make_source("music", math.nan)),
    ]


def test_the_worst_and_the_best_are_chosen_from_different_mixtures() -> None:
    assert choose_cases(make_run(three_items()), 1, 1) == (
        Choice("b", "speech", is_best=False),
        Choice("a", "speech", is_best=True),
    )


def test_few_mixtures_are_all_shown_as_the_worst() -> None:
    choices = choose_cases(make_run(three_items()), 4, 2)
    assert [(choice.item, choice.is_best) for choice in choices] == [
        ("b", False),
        ("a", False),
        ("c", False),
    ]


def test_where_lower_is_better_the_worst_is_the_highest() -> None:
    run = make_run(three_items(), measures=("log_spectral_distance",))
    for item in run.items:
        for source in item.sources:
            distance = source.estimate["si_sdr_db"]
            source.estimate["log_spectral_distance"] = distance  # type: ignore[index]
    assert choose_cases(run, 1, 0) == (Choice("b", "music", is_best=False),)


def test_a_run_without_defined_values_has_nothing_to_show() -> None:
    assert choose_cases(make_run([make_item("a", make_source("speech", math.nan))])) == ()


# ------------------------------------------------------------------ one case


def make_sounds(
    duration_s: float = 2.0, rate: int = RATE, channels: int = 1
) -> tuple[Item, torch.Tensor, ItemResult]:
    """Two sines, the second estimated with a third one as an error."""
    time_s = torch.arange(round(duration_s * rate)) / rate
    tones = [torch.sin(2 * math.pi * hz * time_s).repeat(channels, 1) for hz in (440, 660, 1000)]
    references = 0.1 * torch.stack(tones[:2])
    item = Item("song", Waveform(references.sum(dim=0), rate), references, ("speech", "music"))
    estimates = references.clone()
    estimates[1] += 0.05 * tones[2]
    result = make_item("song", make_source("speech", 20.0), make_source("music", 3.0))
    return item, estimates, result


def samples_of(case: Case, position: int) -> tuple[torch.Tensor, int]:
    samples, rate = soundfile.read(io.BytesIO(case.sounds[position].content), dtype="float32")
    return torch.as_tensor(samples), rate


def test_a_case_holds_mixture_estimate_and_reference_of_its_source() -> None:
    item, estimates, result = make_sounds()
    case = make_case(item, estimates, result, "music")
    assert case.title == "song: music"
    assert [sound.label for sound in case.sounds] == ["Mixture", "Estimate", "Reference"]
    assert {sound.mime for sound in case.sounds} == {"audio/mpeg"}
    gain = 0.7 / float(item.mixture.samples.abs().max())
    wanted = (item.mixture.samples[0], estimates[1, 0], item.references[1, 0])
    for position, expected in enumerate(wanted):
        sound, rate = samples_of(case, position)
        assert (rate, len(sound)) == (RATE, item.mixture.num_samples)
        assert si_sdr_db(sound, expected) > 20
        assert rms(sound) == pytest.approx(gain * float(rms(expected)), rel=0.05)


def test_without_a_name_it_is_the_worst_source() -> None:
    item, estimates, result = make_sounds()
    assert make_case(item, estimates, result).title == "song: music"


def test_the_text_says_what_was_asked_for_and_how_much_louder_it_is() -> None:
    item, estimates, result = make_sounds()
    peak = float(item.mixture.samples.abs().max())
    text = make_case(item, estimates, result, "music").text
    assert "Asked for: speech, music." in text
    assert f"{20 * math.log10(0.7 / peak):.0f} dB louder" in text
    assert "Shown" not in text


def test_the_picture_and_the_numbers_are_there(tmp_path: Path) -> None:
    item, estimates, result = make_sounds()
    case = make_case(item, estimates, result, "music", is_best=True)
    assert case.is_best
    assert case.picture is not None
    (tmp_path / "picture.png").write_bytes(case.picture)
    assert imread(tmp_path / "picture.png").shape[2] == 4
    assert case.numbers is not None
    assert case.numbers.rows[0].cells[:3] == ("SI-SDR (dB)", "0.0", "3.0")


@pytest.mark.parametrize(("is_best", "begin_s"), [(False, 20), (True, 3)])
def test_of_a_long_mixture_the_telling_stretch_is_shown(is_best: bool, begin_s: int) -> None:
    references = torch.zeros(1, 1, 40 * RATE)
    references[..., 3 * RATE : 15 * RATE] = 0.1
    estimates = references.clone()
    estimates[..., 20 * RATE : 32 * RATE] = 0.05
    item = Item("long", Waveform(references[0], RATE), references, ("speech",))
    result = make_item("long", make_source("speech", 3.0))
    case = make_case(item, estimates, result, is_best=is_best)
    assert f"Shown: 0:{begin_s:02d} to 0:{begin_s + 12} of 0:40" in case.text
    assert samples_of(case, 0)[0].shape == (12 * RATE,)


def test_the_loudest_stretch_is_found_to_a_tenth_of_a_second() -> None:
    sound = 0.01 * torch.ones(2, 30 * 1000)
    sound[1, 8_450:8_460] = 1.0
    sound[0, 20_300:20_310] = 1.0
    stretch = loudest_stretch(sound, 1000)
    assert stretch.stop - stretch.start == 12_000
    assert stretch.start <= 8_450
    assert stretch.stop >= 20_310


@pytest.mark.parametrize(
    ("rate", "channels", "heard"), [(96_000, 2, (48_000, 2)), (48_000, 6, (48_000, 1))]
)
def test_rates_and_channels_that_an_mp3_has_not_are_brought_down(
    tmp_path: Path, rate: int, channels: int, heard: tuple[int, int]
) -> None:
    case = make_case(*make_sounds(1.0, rate, channels), "speech")
    (tmp_path / "sound.mp3").write_bytes(case.sounds[0].content)
    sound = read(tmp_path / "sound.mp3")
    assert (sound.sample_rate, sound.num_channels) == heard
    assert sound.duration_s == pytest.approx(1.0)


def test_silence_is_shown_as_silence() -> None:
    silence = torch.zeros(1, 1, RATE)
    item = Item("silence", Waveform(silence[0], RATE), silence, ("speech",))
    case = make_case(item, silence, make_item("silence", make_source("speech", math.nan)))
    assert not samples_of(case, 1)[0].any()
    assert "louder" not in case.text
