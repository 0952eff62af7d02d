"""Measuring one mixture, where the right answer is known."""

import math

import pytest
import torch
from torch import Tensor

from unbraid.errors import DataError
from unbraid.evaluation.items import Item, Protocol
from unbraid.evaluation.runner import measure_item
from unbraid.evaluation.wiener import wiener_filtered
from unbraid.types import Waveform

RATE = 8000


def tones(*pitches_hz: float, channels: int = 1) -> Tensor:
    time = torch.arange(RATE) / RATE
    rows = [torch.sin(2 * math.pi * pitch * time) for pitch in pitches_hz]
    return torch.stack(rows)[:, None].expand(-1, channels, -1).contiguous()


def item_of(references: Tensor, *prompts: str) -> Item:
    return Item("one", Waveform(references.sum(dim=0), RATE), references, prompts)


def test_a_known_error_has_its_known_snr() -> None:
    item = item_of(tones(500, 1000), "speech", "sfx")
    # Half the level is an error of a quarter of the power: 6.02 dB; SI-SDR does not hear it.
    result, _ = measure_item(
        item, lambda item, prompts: item.references / 2, Protocol(measures=("snr_db", "si_sdr_db"))
    )
    for source in result.sources:
        assert source.estimate["snr_db"] == pytest.approx(6.0206, abs=1e-3)
        assert source.estimate["si_sdr_db"] > 60
        # The other tone is as loud: the mixture has an SNR of 0 dB.
        assert source.mixture["snr_db"] == pytest.approx(0.0, abs=1e-3)
        assert source.value("snr_db_improvement") == pytest.approx(6.0206, abs=1e-3)


def test_only_outputs_with_equal_prompts_may_trade_places() -> None:
    references = tones(500, 1000, 1500)
    item = item_of(references, "speech", "sfx", "speech")
    swapped, _ = measure_item(item, lambda item, prompts: references[[2, 1, 0]], Protocol())
    assert all(source.estimate["si_sdr_db"] > 60 for source in swapped.sources)
    wrong, _ = measure_item(item, lambda item, prompts: references[[1, 0, 2]], Protocol())
    assert [source.estimate["si_sdr_db"] > 60 for source in wrong.sources] == [False, False, True]
    assert [source.stem for source in wrong.sources] == ["speech_1", "sfx", "speech_2"]


def test_estimates_come_back_in_the_order_of_the_references() -> None:
    references = tones(500, 1000, channels=2)
    item = item_of(references, "speech", "speech")
    _, estimates = measure_item(item, lambda item, prompts: references.flip(0), Protocol())
    assert torch.equal(estimates, references)


def test_single_prompts_are_asked_one_at_a_time_and_equal_ones_together() -> None:
    references = tones(500, 1000, 1500)
    item = item_of(references, "speech", "sfx", "speech")
    asked = []

    def separate(item: Item, prompts: tuple[str, ...]) -> Tensor:
        asked.append(prompts)
        return references[[0, 2]] if prompts == ("speech", "speech") else references[[1]]

    result, _ = measure_item(item, separate, Protocol(single_prompt=True))
    assert asked == [("speech", "speech"), ("sfx",)]
    assert all(source.estimate["si_sdr_db"] > 60 for source in result.sources)


def test_a_silent_reference_is_marked_and_has_no_ratio() -> None:
    references = tones(500, 1000)
    references[1] = 0
    item = item_of(references, "speech", "sfx")
    leak = torch.stack([references[0], 0.01 * references[0]])
    result, _ = measure_item(
        item, lambda item, prompts: leak, Protocol(measures=("si_sdr_db", "leak_suppression_db"))
    )
    heard, silent = result.sources
    assert (heard.is_silent, silent.is_silent) == (False, True)
    assert math.isnan(silent.estimate["si_sdr_db"])
    assert silent.estimate["leak_suppression_db"] == pytest.approx(40.0, abs=1e-3)
    assert math.isnan(heard.estimate["leak_suppression_db"])


def test_values_stop_at_the_ceiling_of_the_protocol() -> None:
    item = item_of(tones(500, 1000), "speech", "sfx")
    result, _ = measure_item(item, lambda item, prompts: item.references, Protocol(ceiling_db=30.0))
    assert [source.estimate["si_sdr_db"] for source in result.sources] == [30.0, 30.0]


def test_oracles_stand_beside_and_can_be_left_out() -> None:
    item = item_of(tones(500, 2000), "speech", "sfx")
    with_them, _ = measure_item(item, lambda item, prompts: item.references, Protocol())
    for source in with_them.sources:
        assert set(source.oracles) == {
            "ideal_binary", "ideal_ratio", "wiener_like", "phase_sensitive",
        }  # fmt: skip
        # Tones far apart fall into different bins: masks take them apart nearly perfectly.
        assert all(values["si_sdr_db"] > 20 for values in source.oracles.values())
    without, _ = measure_item(
        item, lambda item, prompts: item.references, Protocol(), with_oracles=False
    )
    assert all(not source.oracles for source in without.sources)


def test_the_wiener_filter_shares_the_mixture_out() -> None:
    references = tones(500, 2000)
    mixture = references.sum(dim=0)
    # Estimates that leak: each holds a third of the other.
    leaking = references + references.flip(0) / 3
    filtered = wiener_filtered(leaking, mixture)
    # Where a tone is, magnitudes stand as 3 to 1, powers as 9 to 1.
    expected = 0.9 * references + 0.1 * references.flip(0)
    inside = slice(1024, -1024)
    assert torch.allclose(filtered[..., inside], expected[..., inside], atol=5e-3)
    assert float((filtered.sum(dim=0) - mixture).abs().max()) < 1e-2
    assert torch.isfinite(wiener_filtered(torch.zeros_like(references), mixture)).all()
    silent = wiener_filtered(torch.zeros_like(references), torch.zeros_like(mixture))
    assert not silent.any()


def test_a_separator_that_names_nothing_is_matched_freely() -> None:
    references = tones(500, 1000, 1500)
    item = item_of(references, "speech", "sfx", "music-mix")
    silence = torch.zeros(1, 1, RATE)
    outputs = torch.cat([references[2:], silence, references[:2]])
    result, estimates = measure_item(item, lambda item, prompts: outputs, Protocol())
    assert torch.equal(estimates, references)
    assert all(source.estimate["si_sdr_db"] > 60 for source in result.sources)
    with pytest.raises(DataError, match="has 3 sources, but the model gives 2"):
        measure_item(item, lambda item, prompts: references[:2], Protocol())
