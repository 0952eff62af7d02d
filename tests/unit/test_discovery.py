"""Finding out which prompts suit a stretch, and which stretches to hear, with made-up answers."""

from collections.abc import Callable, Mapping

import pytest
import torch

from unbraid.models.waveform import DiscoveryWeights
from unbraid.separation.discovery import (
    NOTHING,
    PARTS,
    WHOLES,
    Heard,
    StretchPicker,
    Trial,
    describe,
    hear,
    joined,
    trial_of,
)
from unbraid.types import SeparatedBlock

ALL = ("speech", "sfx", "sfx-mix", "vocals", "drums", "bass", "other", "music-mix")
ZEROS = (0.0, 0.0, 0.0)


def answers(
    scores: Mapping[str, float],
    asked: list[tuple[str, ...]] | None = None,
    left_db: Mapping[str, float] | None = None,
) -> Callable:
    """A model whose stems have these scores; of two equal prompts the second has ``NAME 2``.

    By itself, a prompt leaves ``left_db``.
    """

    def attempt(prompts: tuple[str, ...]) -> Trial:
        if asked is not None:
            asked.append(prompts)
        seen = []
        for place, name in enumerate(prompts):
            again = name in prompts[:place]
            seen.append(scores.get(f"{name} 2" if again else name, 0.1))
        left = (left_db or {}).get(prompts[0], -3.0) if len(prompts) == 1 else -20.0
        return Trial(tuple(seen), tuple(-10.0 for _ in prompts), left)

    return attempt


def believes(position: int) -> DiscoveryWeights:
    """There if its score beside the others is above one half."""
    slopes = tuple(1.0 if place == position else 0.0 for place in range(3))
    return DiscoveryWeights(0.0, slopes, ZEROS, ZEROS, ZEROS, ZEROS, ZEROS, (0.0,) * 4)


WEIGHTS = {name: believes(place) for place, name in enumerate(WHOLES)}


def test_weights_decide_where_there_are_any() -> None:
    heard = hear(answers({"speech": 0.9, "music-mix": 0.7}), ALL, WEIGHTS, 0.5)
    assert heard.prompts == ("speech", "music-mix")
    assert heard.sureness["speech"] == pytest.approx(0.9)
    assert heard.sureness["sfx-mix"] == pytest.approx(0.1)
    assert hear(answers({"speech": 0.9, "music-mix": 0.7}), ALL, WEIGHTS, 0.8).prompts == (
        "speech",
    )


def test_something_is_heard_in_what_is_not_silent() -> None:
    heard = hear(answers({"sfx-mix": 0.3}), ALL, WEIGHTS, 0.5)
    assert heard.counts == {"sfx-mix": 1}


def test_without_weights_the_least_present_is_left_out_until_none_looks_like_a_leak() -> None:
    asked: list[tuple[str, ...]] = []
    attempt = answers({"a": 0.9, "b": 0.2, "c": 0.4, "d": 0.6}, asked)
    heard = hear(attempt, ("a", "b", "c", "d"), {}, 0.5)
    assert heard.prompts == ("a", "d")
    assert asked == [("a", "b", "c", "d"), ("a", "c", "d"), ("a", "d")]
    assert heard.sureness == {"a": 0.9, "b": 0.2, "c": 0.4, "d": 0.6}
    assert hear(answers({}), ("a", "b"), {}, 0.5).prompts == ("b",)


def test_finer_prompts_are_no_candidates_beside_wholes_but_may_be_all_there_is() -> None:
    asked: list[tuple[str, ...]] = []
    hear(answers({"speech": 0.9}, asked), ("speech", "sfx", "sfx-mix"), {}, 0.5)
    assert asked[0] == ("speech", "sfx-mix")
    heard = hear(answers({"drums": 0.9, "bass": 0.8}), PARTS, {}, 0.5)
    assert heard.prompts == ("drums", "bass")


@pytest.mark.parametrize(("second", "count"), [(0.7, 2), (0.3, 1)])
def test_a_second_voice_is_asked_for(second: float, count: int) -> None:
    scores = {"speech": 0.9, "speech 2": second, "sfx-mix": 0.8, "sfx-mix 2": 0.8}
    heard = hear(answers(scores), ALL, WEIGHTS, 0.5)
    assert heard.prompts == ("speech",) * count + ("sfx-mix",)


def test_added_prompts_are_tried_beside_what_was_found() -> None:
    asked: list[tuple[str, ...]] = []
    scores = {"speech": 0.9, "door-bell": 0.8, "siren": 0.3}
    heard = hear(answers(scores, asked), (*ALL, "door-bell", "siren"), WEIGHTS, 0.5)
    assert heard.prompts == ("speech", "door-bell")
    assert ("speech", "door-bell") in asked
    assert heard.sureness["siren"] == 0.3


def test_music_alone_is_asked_for_in_its_parts_if_it_has_several() -> None:
    def prompts(**scores: float) -> tuple[str, ...]:
        named = {name.replace("_", "-"): score for name, score in scores.items()}
        return hear(answers(named), ALL, WEIGHTS, 0.5).prompts

    assert prompts(music_mix=0.9, drums=0.8, bass=0.7) == ("drums", "bass")
    assert prompts(music_mix=0.9, drums=0.8) == ("music-mix",)
    assert prompts(music_mix=0.9, drums=0.8, bass=0.7, speech=0.9) == ("speech", "music-mix")


@pytest.mark.parametrize(
    ("left_db", "drums", "is_song"),
    [(-5.0, 0.1, True), (-9.0, 0.1, False), (-9.0, 0.7, True), (-26.0, 0.7, False)],
    ids=["two sounds", "a cello", "drums hide a flute", "nothing but drums"],
)
def test_music_is_not_taken_apart_where_one_part_explains_it(
    left_db: float, drums: float, is_song: bool
) -> None:
    scores = {"music-mix": 0.9, "vocals": 0.8, "other": 0.7, "drums": drums}
    heard = hear(answers(scores, left_db={"other": left_db}), ALL, WEIGHTS, 0.5)
    assert heard.is_song is is_song
    assert heard.prompts[0] == ("vocals" if is_song else "music-mix")
    other = Heard({}, {"music-mix": 1}, {"bass": 0.9})
    assert joined([other, heard, other]).is_song is is_song


def test_a_recording_holds_what_one_of_its_stretches_holds() -> None:
    heard = joined(
        [
            Heard({"speech": 0.2, "music-mix": 0.9}, {"music-mix": 1}, {"drums": 0.3}),
            Heard({"speech": 0.8, "music-mix": 0.1}, {"speech": 2, "bell": 1}, {"drums": 0.6}),
        ]
    )
    assert heard.prompts == ("speech", "speech", "music-mix", "bell")
    assert heard.sureness == {"speech": 0.8, "music-mix": 0.9}
    assert heard.parts == {"drums": 0.6}
    assert joined([]) == NOTHING


def test_features_stand_in_the_order_of_the_weights() -> None:
    attempt = answers({"speech": 0.5})
    features = describe(attempt)
    (weights,) = {len(each.slopes) for each in WEIGHTS.values()}
    assert len(features) == weights
    assert features[0] == 0.0  # the log odds of one half
    assert features[3] == -1.0  # ten decibels below


def test_a_trial_measures_stems_against_the_mixture() -> None:
    mixture = torch.ones(2, 100)
    sources = torch.stack([0.5 * mixture, 0.0 * mixture])
    block = SeparatedBlock(mixture, sources, torch.tensor([[0.2, 0.4], [0.0, 0.1]]))
    trial = trial_of(block)
    assert trial.levels_db == pytest.approx((-6.02, -40.0), abs=0.01)
    assert trial.left_db == pytest.approx(-6.02, abs=0.01)
    assert trial.scores == pytest.approx((0.3, 0.05))


# ------------------------------------------------------------------ stretches


def buzz(level: float, num_samples: int) -> torch.Tensor:
    """As loud as its level, and without a constant part."""
    return level * (-1.0) ** torch.arange(num_samples)[None]


def pick(
    levels: list[float], scores: list[float], *, rest: int = 0, constant: float = 0.0
) -> list[int]:
    """Which stretches of two windows of ten samples are kept, of one prompt."""
    picker = StretchPicker(1, 2, lambda number: 10 * number)
    for level, score in zip(levels, scores, strict=True):
        block = buzz(level, 20) + constant
        presence = torch.full((1, 2), score)
        picker.add(SeparatedBlock(block, block[None], presence))
    if rest:
        block = buzz(1.0, rest)
        picker.add(SeparatedBlock(block, block[None], torch.ones(1, 1)))
    return [stretch.number for stretch in picker.finish()]


def test_a_short_recording_is_heard_whole() -> None:
    assert pick([1.0, 1.0], [0.1, 0.9]) == [0, 1]
    assert pick([], [], rest=3) == [0]


def test_of_a_long_one_the_best_and_the_loudest_stretches_are_kept() -> None:
    levels = [0.1] * 20
    levels[4] = 1.0
    scores = [0.1] * 20
    scores[11], scores[15] = 0.9, 0.8
    assert pick(levels, scores) == [4, 11, 15]


def test_silence_is_not_heard_and_a_short_rest_neither() -> None:
    assert pick([0.0, 1.0, 0.0], [0.5, 0.5, 0.5]) == [1]
    assert pick([1.0], [0.5], rest=4) == [0]
    assert pick([1.0], [0.5], rest=5) == [0, 1]


def test_what_is_below_80_db_is_silence_wherever_zero_lies() -> None:
    levels, scores = [0.99e-4, 1.01e-4], [0.5, 0.5]
    assert pick(levels, scores) == [1]
    assert pick(levels, scores, constant=0.5) == [1]
    assert pick([0.0], [0.5], rest=1) == [], "a single sample does not move"


def test_scores_may_lag_behind_samples() -> None:
    picker = StretchPicker(1, 2, lambda number: 10 * number)
    ones = buzz(1.0, 30)
    picker.add(SeparatedBlock(ones, ones[None], torch.zeros(1, 1)))
    assert picker._number == 0
    picker.add(SeparatedBlock(ones[:, :10], ones[None, :, :10], torch.tensor([[0.6, 0.2, 0.2]])))
    first, second = picker.finish()
    assert first.scores == pytest.approx((0.3,))
    assert second.scores == pytest.approx((0.2,))
    assert first.samples.shape == second.samples.shape == (1, 20)
