"""Which pieces of a recording are heard, against answers worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unbraid.data.activity import SFC, TUSS, ActivityConfig, active_pieces_s, all_pieces_s

RATE = 100  # a piece has 800 samples, a chunk of TUSS 50, one of SFC 80


def loud_from(start_s: float, end_s: float, duration_s: float, level: float = 1.0) -> torch.Tensor:
    samples = torch.zeros(round(duration_s * RATE))
    samples[round(start_s * RATE) : round(end_s * RATE)] = level
    return samples


def test_a_steady_sound_with_one_quiet_piece_keeps_the_others() -> None:
    # Pieces at 0, 4, 8, 12, 16, of 16 chunks each. Of all 80 the 24 quiet ones, 8 of the piece
    # at 12 and all of the piece at 16, are more than 15 percent.
    samples = loud_from(0, 24, 24)
    samples[16 * RATE :] = 0.1
    # The threshold is a quiet chunk's own power, and equal is not above.
    assert active_pieces_s(samples, RATE, TUSS) == (0.0, 4.0, 8.0, 12.0)


def test_a_piece_is_kept_from_half_of_its_chunks_on() -> None:
    # 12 s: pieces at 0 and 4. Sound from 4 s to 8 s is just 8 of 16 chunks of both.
    assert active_pieces_s(loud_from(4, 8, 12), RATE, TUSS) == (0.0, 4.0)
    # One chunk less, and neither has enough.
    assert active_pieces_s(loud_from(4.5, 8, 12), RATE, TUSS) == ()


def test_half_of_ten_chunks_is_enough_for_sfc() -> None:
    # Chunks of 0.8 s: from 0 to 4 s it is 5 of 10 in the piece at 0, none in the one at 4.
    assert active_pieces_s(loud_from(0, 4, 12), RATE, SFC) == (0.0,)
    assert active_pieces_s(loud_from(0, 3.2, 12), RATE, SFC) == ()


def test_tuss_measures_mean_power_after_the_peak_is_brought_to_one() -> None:
    whisper = loud_from(0, 8, 8, level=1e-4)
    whisper[:250] = 0.9e-4
    # Power 1 and 0.81 after normalisation. Of 16 chunks 5 are quieter; the 15th percentile is
    # theirs, and the other 11 are above it.
    assert active_pieces_s(whisper, RATE, TUSS) == (0.0,)
    without = ActivityConfig(16, 8, "power", is_peak_normalised=False)
    assert active_pieces_s(whisper, RATE, without) == ()


def test_sfc_measures_energy_which_grows_with_the_rate() -> None:
    quiet = loud_from(0, 8, 8, level=3e-3)
    quiet[:160] = 0.0
    # 80 samples of 9e-6 are 7.2e-4: below the least threshold of 1e-3. At ten times the rate
    # the same sound has 7.2e-3.
    assert active_pieces_s(quiet, RATE, SFC) == ()
    assert active_pieces_s(quiet.repeat_interleave(10), 10 * RATE, SFC) == (0.0,)


def test_sfc_adds_channels_up_where_tuss_takes_their_mean() -> None:
    sound = loud_from(0, 8, 8, level=3e-3)
    sound[:160] = 0.0
    # Energy 7.2e-4 per chunk of one channel, 1.44e-3 of two.
    assert active_pieces_s(torch.stack([sound, sound]), RATE, SFC) == (0.0,)
    assert active_pieces_s(sound[None], RATE, SFC) == ()
    stereo = torch.stack([sound, torch.zeros_like(sound)])
    power = ActivityConfig(16, 8, "power", is_peak_normalised=False)
    louder = stereo / 3e-3 * 0.04  # power 1.6e-3 in one channel, 8e-4 in the mean
    assert active_pieces_s(louder[:1], RATE, power) == (0.0,)
    assert active_pieces_s(louder, RATE, power) == ()


def test_the_threshold_is_a_percentile_of_the_whole_recording() -> None:
    # 8 s that rise a little, then 32 s that are much louder: 9 pieces, 144 chunks. By itself the
    # beginning has 13 chunks above its 15th percentile. In the whole, 24 of the chunks are
    # of the beginning, and the percentile, number 21.45 of all, lies near the loudest of them.
    samples = torch.full((40 * RATE,), 0.5)
    samples[: 8 * RATE] = torch.linspace(0.1, 0.11, 8 * RATE)
    assert active_pieces_s(samples[: 8 * RATE], RATE, TUSS) == (0.0,)
    assert active_pieces_s(samples, RATE, TUSS) == tuple(4.0 * n for n in range(1, 9))


def test_fifteen_percent_of_sixteen_chunks_are_the_quietest_three() -> None:
    # Sixteen levels: the 15th percentile is number 2.25 of 0 to 15, so 13 are above it.
    samples = torch.linspace(0.2, 1, 16).repeat_interleave(50)
    for min_active, kept in ((13, (0.0,)), (14, ())):
        config = ActivityConfig(16, min_active, "power", is_peak_normalised=False)
        assert active_pieces_s(samples, RATE, config) == kept


@pytest.mark.parametrize("config", [TUSS, SFC])
def test_silence_and_short_recordings_have_no_active_piece(config: ActivityConfig) -> None:
    assert active_pieces_s(torch.zeros(20 * RATE), RATE, config) == ()
    assert active_pieces_s(torch.ones(8 * RATE - 1), RATE, config) == ()
    assert active_pieces_s(torch.zeros(0), RATE, config) == ()


def test_what_follows_the_last_whole_piece_is_not_looked_at() -> None:
    samples = torch.cat([torch.zeros(8 * RATE), torch.ones(4 * RATE - 1)])
    assert active_pieces_s(samples, RATE, TUSS) == ()


def test_the_input_is_left_as_it_was() -> None:
    samples = loud_from(0, 8, 8, level=0.5)
    before = samples.clone()
    active_pieces_s(samples, RATE, TUSS)
    assert torch.equal(samples, before)


@given(seed=st.integers(0, 1000), config=st.sampled_from([TUSS, SFC]))
def test_it_agrees_with_loops_over_pieces_and_chunks(seed: int, config: ActivityConfig) -> None:
    rng = np.random.default_rng(seed)
    rate = int(rng.integers(9, 15))  # chunks do not divide the piece
    envelope = (rng.choice([0.0, 0.05, 1.0], 9) * rng.uniform(0.5, 1, 9)).repeat(4 * rate)
    samples = envelope * rng.uniform(-1, 1, envelope.size)
    kept = active_pieces_s(torch.from_numpy(samples), rate, config)
    assert kept == by_loops(samples, rate, config)


def by_loops(samples: np.ndarray, rate: int, config: ActivityConfig) -> tuple[float, ...]:
    if config.is_peak_normalised and samples.any():
        samples = samples / np.abs(samples).max()
    length, hop = 8 * rate, 4 * rate
    chunk = length // config.num_chunks
    levels = []
    for start in range(0, len(samples) - length + 1, hop):
        row = []
        for number in range(config.num_chunks):
            begin = start + number * chunk
            squares = samples[begin : begin + chunk] ** 2
            level = squares.mean() if config.level == "power" else squares.sum()
            row.append(level if level != 0 else 1e-5)
        levels.append(row)
    threshold = max(np.percentile(levels, 15), 1e-3)
    return tuple(
        4.0 * number
        for number, row in enumerate(levels)
        if sum(level > threshold for level in row) >= config.min_active
    )


@pytest.mark.parametrize(
    ("duration_s", "starts_s"),
    [
        (0.0, (0.0,)),
        (7.99, (0.0,)),
        (8.0, (0.0,)),
        (11.99, (0.0,)),
        (12.0, (0.0, 4.0)),
        (300.0, tuple(4.0 * number for number in range(74))),
    ],
)
def test_all_whole_pieces_are_listed(duration_s: float, starts_s: tuple[float, ...]) -> None:
    assert all_pieces_s(duration_s) == starts_s
