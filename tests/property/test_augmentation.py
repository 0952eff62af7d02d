"""What each augmentation does to a mixture and to its references."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unbraid.config import parse
from unbraid.errors import ConfigError, DataError
from unbraid.mixing.augmentation import Augmentation, Coding, Room, Warp
from unbraid.mixing.recipe import Clip, MixPlan, MixRecipe, PartPlan, Planner, Scene, SourcePlan
from unbraid.mixing.render import Effects, RenderedMix, render
from unbraid.objectives.losses import thresholded_snr_loss
from unbraid.prompts import STANDARD_PROMPTS

RATE = 8000
INSTRUMENTS = {"vocals", "drums", "bass", "other"}
ROOMS = (Clip("room/a", 0.5, 4000.0), Clip("room/b", 0.25, 4000.0))


def clips() -> dict[str, list[Clip]]:
    return {
        prompt: [
            Clip(f"{prompt}/{take}", 3.0, 4000.0, song=f"song{take}" * (prompt in INSTRUMENTS))
            for take in range(5)
        ]
        for prompt in STANDARD_PROMPTS
    }


def pitch_hz(key: str) -> int:
    return 100 + sum(key.encode()) % 900


def read_clip(key: str, start: int, count: int) -> torch.Tensor:
    """A tone of its own for every clip, three seconds long; rooms with an echo after 100 ms."""
    output = torch.zeros(count)
    if key.startswith("room/"):
        output[[40, 40 + 800]] = torch.tensor([-0.5, 0.25])
        return output
    position = torch.arange(start, start + count)
    tone = torch.sin(2 * math.pi * pitch_hz(key) * position / RATE)
    return torch.where((position >= 0) & (position < 3 * RATE), tone, output)


def halved(signal: torch.Tensor, sample_rate: int, coding: Coding) -> torch.Tensor:
    """Stands for a codec: it rounds, and so is not linear."""
    assert sample_rate == RATE
    assert float(signal.abs().max()) <= 1.0
    return (signal * coding.kbps).round() / coding.kbps


def squeezed(
    signal: torch.Tensor, sample_rate: int, tempo: float, semitones: float
) -> torch.Tensor:
    """Stands for a change of tempo: it picks the nearest samples."""
    assert sample_rate == RATE
    wanted = (torch.arange(round(len(signal) / tempo)) * tempo).long()
    return signal[wanted.clamp(max=len(signal) - 1)] * (1.0 + semitones / 100)


EFFECTS = Effects(code=halved, stretch=squeezed)

EVERYTHING = Augmentation(
    polarity_probability=0.5,
    speed_probability=0.5,
    tempo_probability=0.5,
    pitch_probability=0.5,
    room_probability=0.5,
    source_codec_probability=0.5,
    clipping_probability=0.5,
    codec_probability=0.5,
    level_probability=0.5,
)


def plans_of(augmentation: Augmentation, count: int = 60, **changes: Any) -> list[MixPlan]:
    recipe = MixRecipe(
        crop_s=0.5,
        same_song_probability=0.5,
        tone_probability=0.5,
        unasked_probability=0.3,
        absent_probability=0.1,
        **changes,
    )
    planner = Planner(replace(recipe, augmentation=augmentation), clips(), ROOMS)
    return [plan for number in range(count) for plan in planner.draw_batch(2, seed=f"3/{number}")]


# ------------------------------------------------------------------ drawing


def without_augmentation(plan: MixPlan) -> list[Any]:
    """All that a plan said before there was any, but for starts, which a warp moves."""
    return [
        plan.crop_s,
        [
            (
                source.prompt,
                source.gain_db,
                source.is_asked,
                *((part.clip, part.gain_db, part.tone_db) for part in source.parts),
            )
            for source in plan.sources
        ],
    ]


def test_plans_without_augmentation_are_what_they_always_were() -> None:
    plans = plans_of(Augmentation())
    starts = [part.start_s for plan in plans for source in plan.sources for part in source.parts]
    drawn = [[without_augmentation(plan), plan.bandwidth_hz] for plan in plans]
    text = json.dumps([drawn, starts])
    # Taken from the code as it was before.
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        == "f392f6b899be00ee31b7d27d19b9d9f1396b60fe121d01008655a39f87d49195"
    )


def test_probabilities_of_zero_change_no_bit() -> None:
    odd = Augmentation(
        speed=(1.5, 2.0), room_target="early", damage_target="damaged", level_db=(-9, -6)
    )
    plans = plans_of(Augmentation())
    assert plans_of(odd) == plans
    for plan in plans[:10]:
        mix, other = render(plan, read_clip, RATE), render(plan, read_clip, RATE, EFFECTS)
        assert torch.equal(mix.mixture, other.mixture)
        assert torch.equal(mix.references, other.references)
        if all(source.is_asked for source in plan.sources):
            assert torch.equal(mix.references.sum(dim=0), mix.mixture)


def test_an_augmentation_leaves_clips_levels_and_tones_as_they_were() -> None:
    plain, augmented = plans_of(Augmentation()), plans_of(EVERYTHING)
    assert augmented != plain
    assert [*map(without_augmentation, augmented)] == [*map(without_augmentation, plain)]
    assert plans_of(EVERYTHING) == augmented


def test_what_is_drawn_lies_in_its_ranges_as_often_as_it_should() -> None:
    plans = plans_of(EVERYTHING, count=200)
    sources = [source for plan in plans for source in plan.sources if source.parts]
    warps = [part.warp for source in sources for part in source.parts]
    shares = {
        "polarity": [source.is_inverted for source in sources],
        "room": [source.room is not None for source in sources],
        "source codec": [source.coding is not None for source in sources],
        "speed": [warp.speed != 1.0 for warp in warps],
        "tempo": [warp.tempo != 1.0 for warp in warps],
        "pitch": [warp.pitch_semitones != 0.0 for warp in warps],
        "clipping": [plan.clipping_db is not None for plan in plans],
        "codec": [plan.coding is not None for plan in plans],
        "level": [plan.level_db != 0.0 for plan in plans],
    }
    for name, happened in shares.items():
        assert abs(sum(happened) / len(happened) - 0.5) < 0.1, name
    assert {round(100 * warp.speed) for warp in warps} == set(range(90, 111))
    assert all(0.9 <= warp.tempo <= 1.1 and abs(warp.pitch_semitones) <= 2 for warp in warps)
    codings = [source.coding for source in sources] + [plan.coding for plan in plans]
    drawn = [coding for coding in codings if coding is not None]
    assert {coding.codec for coding in drawn} == set(EVERYTHING.codecs)
    for coding in drawn:
        low, high = EVERYTHING.codecs[coding.codec]
        assert low <= coding.kbps <= high
    assert all(1 <= plan.clipping_db <= 12 for plan in plans if plan.clipping_db is not None)


def test_parts_of_one_song_keep_their_time() -> None:
    settings = Augmentation(speed_probability=1.0, tempo_probability=1.0, pitch_probability=1.0)
    scenes = (Scene(("vocals", "drums", "bass")),)
    recipe = MixRecipe(crop_s=1.0, scenes=scenes, same_song_probability=1.0, augmentation=settings)
    planner = Planner(recipe, clips())
    seen = set()
    for number in range(30):
        (plan,) = planner.draw_batch(1, seed=str(number))
        parts = [source.parts[0] for source in plan.sources]
        assert len({(part.warp, part.start_s) for part in parts}) == 1
        assert parts[0].start_s + parts[0].warp.pace <= 3.0 + 1e-9
        seen.add(parts[0].warp)
    assert len(seen) == 30


def test_a_faster_crop_still_holds_sound_and_its_bandwidth_is_known() -> None:
    pool = {"speech": [Clip("a", 10.0, 3000.0, active_s=(7.0,))]}
    recipe = MixRecipe(
        crop_s=2.0,
        scenes=(Scene(("speech",)),),
        augmentation=Augmentation(speed_probability=1.0, speed=(0.5, 2.0)),
    )
    planner = Planner(recipe, pool)
    for number in range(100):
        (plan,) = planner.draw_batch(1, seed=str(number))
        (part,) = plan.sources[0].parts
        # The block of half a second at 7 s lies inside what is heard of the clip.
        assert part.start_s <= 7.0
        assert part.start_s + 2.0 * part.warp.speed >= 7.5 - 1e-9
        assert plan.bandwidth_hz == pytest.approx(3000.0 * part.warp.speed)


# ------------------------------------------------------------------ applying


def source(clip: str, **changes: Any) -> SourcePlan:
    warp = changes.pop("warp", Warp())
    return SourcePlan("speech", (PartPlan(clip, 0.5, warp=warp),), -6.0, **changes)


def mixed(first: SourcePlan, **changes: Any) -> RenderedMix:
    plan = MixPlan(1.0, (first, source("other")), **changes)
    return render(plan, read_clip, RATE, EFFECTS)


def loudest_hz(signal: torch.Tensor) -> float:
    spectrum = torch.fft.rfft(signal * torch.hann_window(len(signal))).abs()
    return float(spectrum.argmax()) * RATE / len(signal)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    target=st.sampled_from(["reverberant", "early"]),
    damage=st.sampled_from(["clean", "damaged"]),
)
def test_whatever_is_drawn_renders_finite_and_whole(seed: int, target: Any, damage: Any) -> None:
    augmentation = replace(EVERYTHING, room_target=target, damage_target=damage)
    recipe = MixRecipe(crop_s=0.5, absent_probability=0.2, augmentation=augmentation)
    plans = Planner(recipe, clips(), ROOMS).draw_batch(2, seed=str(seed))
    for plan in plans:
        mix = render(plan, read_clip, RATE, EFFECTS)
        asked = sum(each.is_asked for each in plan.sources)
        assert mix.mixture.shape == (4000,)
        assert mix.references.shape == (asked, 4000)
        assert bool(mix.mixture.isfinite().all())
        assert bool(mix.references.isfinite().all())
        again = render(plan, read_clip, RATE, EFFECTS)
        assert torch.equal(again.mixture, mix.mixture)
        rows = torch.zeros(1, asked, dtype=torch.long)
        loss = thresholded_snr_loss(mix.references[None], mix.references[None], rows)
        assert bool(loss.isfinite())


def test_polarity_turns_a_source_and_its_reference_over() -> None:
    plain, inverted = mixed(source("a")), mixed(source("a", is_inverted=True))
    assert torch.equal(inverted.references[0], -plain.references[0])
    assert torch.equal(inverted.references[1], plain.references[1])
    torch.testing.assert_close(inverted.references.sum(dim=0), inverted.mixture)


def in_stereo(key: str, start: int, count: int) -> torch.Tensor:
    """Left as in mono, right half as loud and later."""
    return torch.stack([read_clip(key, start, count), 0.5 * read_clip(key, start - 3, count)])


@given(width=st.floats(0.0, 2.0))
def test_width_spreads_a_source_and_its_reference_alike(width: float) -> None:
    plain, wide = (
        render(MixPlan(1.0, (source("a", width=each), source("b"))), in_stereo, RATE)
        for each in (1.0, width)
    )
    before, after = plain.references[0], wide.references[0]
    sides = [float((each[0] - each[1]).norm() / each.sum(dim=0).norm()) for each in (before, after)]
    assert sides[1] == pytest.approx(width * sides[0], rel=1e-3, abs=1e-6)
    assert float(after.square().mean()) == pytest.approx(float(before.square().mean()), rel=1e-4)
    assert torch.equal(wide.references[1], plain.references[1])
    torch.testing.assert_close(wide.references.sum(dim=0), wide.mixture)


def test_width_is_drawn_as_often_as_it_should() -> None:
    plans = plans_of(Augmentation(width_probability=0.5, width=(0.2, 0.4)), count=200)
    widths = [source.width for plan in plans for source in plan.sources if source.parts]
    drawn = [width for width in widths if width != 1.0]
    assert abs(len(drawn) / len(widths) - 0.5) < 0.1
    assert all(0.2 <= width <= 0.4 for width in drawn)


@settings(max_examples=20, deadline=None)
@given(percent=st.integers(50, 200))
def test_speed_moves_pitch_and_time_of_source_and_reference_alike(percent: int) -> None:
    mix = mixed(source("a", warp=Warp(speed=percent / 100)))
    assert loudest_hz(mix.references[0]) == pytest.approx(pitch_hz("a") * percent / 100, abs=1)
    torch.testing.assert_close(mix.references.sum(dim=0), mix.mixture)


def test_a_faster_clip_passes_in_less_time() -> None:
    def click(key: str, start: int, count: int) -> torch.Tensor:
        return ((torch.arange(start, start + count)) == 6000).float()

    for warp in (Warp(speed=1.25), Warp(speed=0.8), Warp(tempo=1.25), Warp(1.25, 0.8, 1.0)):
        plan = MixPlan(1.0, (SourcePlan("sfx", (PartPlan("a", 0.5, warp=warp),), 0.0),))
        rendered = render(plan, click, RATE, EFFECTS).mixture
        assert rendered.shape == (RATE,)
        # 0.25 s after the start of the cut, in the clip's own time.
        assert int(rendered.abs().argmax()) == pytest.approx(2000 / warp.pace, abs=2)


def test_a_room_stays_in_the_reference_or_all_but_its_early_part_is_left_out() -> None:
    dry = mixed(source("a"))
    echo = torch.zeros(RATE)
    echo[800:] = dry.references[0, :-800]
    whole = mixed(source("a", room=Room("room/a", 0.5)))
    expected = dry.references[0] - 0.5 * echo
    scale = dry.references[0].square().mean().sqrt() / expected.square().mean().sqrt()
    torch.testing.assert_close(whole.references[0], expected * scale, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole.references.sum(dim=0), whole.mixture)
    early = mixed(source("a", room=Room("room/a", 0.5, early_s=0.05)))
    torch.testing.assert_close(early.mixture, whole.mixture)
    torch.testing.assert_close(early.references[0], dry.references[0] * scale, atol=1e-5, rtol=1e-4)
    assert torch.equal(early.references[1], dry.references[1])


def test_a_codec_of_a_source_is_heard_in_its_reference() -> None:
    plain, coded = mixed(source("a")), mixed(source("a", coding=Coding("mp3", 8)))
    assert len(coded.references[0].unique()) <= 17  # the levels of our codec
    assert len(plain.references[0].unique()) > 100
    torch.testing.assert_close(coded.references.sum(dim=0), coded.mixture)


def test_clipping_leaves_references_clean_or_turns_them_down_together() -> None:
    plain = mixed(source("a"))
    limit = plain.mixture.abs().max() / 10 ** (6 / 20)
    clean = mixed(source("a"), clipping_db=6.0)
    torch.testing.assert_close(clean.mixture, plain.mixture.clamp(-limit, limit))
    assert torch.equal(clean.references, plain.references)
    damaged = mixed(source("a"), clipping_db=6.0, has_damaged_references=True)
    assert torch.equal(damaged.mixture, clean.mixture)
    torch.testing.assert_close(damaged.references.sum(dim=0), damaged.mixture)
    untouched = plain.mixture.abs() <= limit
    assert torch.equal(damaged.references[:, untouched], plain.references[:, untouched])


def test_a_codec_of_the_mixture_leaves_references_clean_or_takes_each() -> None:
    plain, coding = mixed(source("a")), Coding("opus", 8)
    peak = plain.mixture.abs().max()

    def coded(signal: torch.Tensor) -> torch.Tensor:
        return halved(signal * (0.9 / peak), RATE, coding) / (0.9 / peak)

    clean = mixed(source("a"), coding=coding)
    torch.testing.assert_close(clean.mixture, coded(plain.mixture))
    assert torch.equal(clean.references, plain.references)
    damaged = mixed(source("a"), coding=coding, has_damaged_references=True)
    torch.testing.assert_close(damaged.references, coded(plain.references))


def test_the_level_moves_the_mixture_and_all_references() -> None:
    plain, soft = mixed(source("a")), mixed(source("a"), level_db=-20.0)
    torch.testing.assert_close(soft.mixture, 0.1 * plain.mixture)
    torch.testing.assert_close(soft.references, 0.1 * plain.references)


def test_silence_passes_through_everything() -> None:
    late = SourcePlan(
        "sfx",
        (PartPlan("late", 100.0, warp=Warp(1.1, 1.1, 1.0)),),
        0.0,
        coding=Coding("mp3", 64),
        is_inverted=True,
        room=Room("room/a", 0.5, 0.05),
    )
    plan = MixPlan(1.0, (late,), 2000.0, 6.0, Coding("mp3", 64), True, -10.0)
    mix = render(plan, read_clip, RATE, EFFECTS)
    assert not mix.mixture.any()
    assert not mix.references.any()


@pytest.mark.parametrize(
    "plan",
    [
        MixPlan(1.0, (source("a"),), coding=Coding("mp3", 64)),
        MixPlan(1.0, (source("a", coding=Coding("mp3", 64)),)),
        MixPlan(1.0, (source("a", warp=Warp(tempo=1.1)),)),
    ],
)
def test_plans_that_need_effects_say_so(plan: MixPlan) -> None:
    with pytest.raises(ValueError, match="needs effects"):
        render(plan, read_clip, RATE)


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Augmentation(polarity_probability=1.5), "polarity_probability is a probability"),
        (lambda: Augmentation(codec_probability=-0.1), "codec_probability is a probability"),
        (lambda: Augmentation(speed=(1.1, 0.9)), "speed goes from a low to a high number"),
        (lambda: Augmentation(speed=(0.1, 1.0)), "between 0.5 and 2"),
        (lambda: Augmentation(tempo=(1.0, math.nan)), "tempo goes"),
        (lambda: Augmentation(pitch_semitones=(-24.0, 0.0)), "between -12 and 12"),
        (lambda: Augmentation(clipping_db=(-3.0, 3.0)), "clipping_db goes"),
        (lambda: Augmentation(early_s=-0.01), "early_s lies"),
        (lambda: Augmentation(width=(-1.0, 1.0)), "width goes .* between 0 and 4"),
        (
            lambda: Augmentation(room_probability=0.1).check_channels(2),
            "room_probability is for mono, and the model hears 2 channels",
        ),
        (
            lambda: Augmentation(width_probability=0.1).check_channels(1),
            "width_probability is for two channels, and the model hears 1",
        ),
        (lambda: Augmentation(codecs={"mp3": (4, 64)}), r"codecs\.mp3 goes .* between 8 and 320"),
        (lambda: Augmentation(codecs={}, codec_probability=0.1), "codecs must name one"),
        (lambda: parse(Augmentation, {"codecs": {"mp4": [32, 64]}}), "mp4"),
        (lambda: parse(MixRecipe, {"augmentation": {"polarity": 1}}), "polarity_probability"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_rooms_are_asked_for_where_there_are_none() -> None:
    recipe = MixRecipe(augmentation=Augmentation(room_probability=0.1))
    with pytest.raises(DataError, match=r"name some with data\.rooms"):
        Planner(recipe, clips())
