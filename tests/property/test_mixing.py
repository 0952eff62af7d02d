"""Plans and mixtures: frequencies, rules that never break, and sums that are exact."""

import math
import random
from collections import Counter

import pytest
import torch

from unbraid.errors import ConfigError, DataError
from unbraid.mixing.recipe import (
    Clip,
    MixPlan,
    MixRecipe,
    PartPlan,
    Planner,
    Scene,
    SourcePlan,
)
from unbraid.mixing.render import render
from unbraid.prompts import STANDARD_PROMPTS

INSTRUMENTS = {"vocals", "drums", "bass", "other"}
RATE = 8000


def clips() -> dict[str, list[Clip]]:
    pools = {
        prompt: [
            Clip(
                f"{prompt}/{take}", 3.0 + take, 4000.0, song=f"song{take}" * (prompt in INSTRUMENTS)
            )
            for take in range(6)
        ]
        for prompt in STANDARD_PROMPTS
    }
    pools["speech"] = [
        Clip(f"speech/{take}", 4.0, 4000.0, performer=f"voice{take // 3}") for take in range(15)
    ]
    return pools


def read_clip(key: str, start: int, count: int) -> torch.Tensor:
    """A tone of its own for every clip, three seconds long."""
    pitch = 100 + sum(key.encode()) % 900
    position = torch.arange(start, start + count)
    tone = torch.sin(2 * math.pi * pitch * position / RATE)
    return torch.where((position >= 0) & (position < 3 * RATE), tone, torch.zeros(()))


@pytest.mark.slow
def test_the_chain_of_prompts_has_the_published_frequencies() -> None:
    planner = Planner(MixRecipe(), clips())
    counts: Counter[tuple[str, ...]] = Counter()
    totals: Counter[int] = Counter()
    for number in range(6000):
        (plan,) = planner.draw_batch(1, seed=f"0/{number}")
        names = tuple(sorted(source.prompt for source in plan.sources))
        counts[names] += 1
        totals[len(names)] += 1
    published = {
        ("music-mix", "sfx-mix"): 0.1467,
        ("sfx-mix", "speech"): 0.14,
        ("music-mix", "speech"): 0.1067,
        ("sfx", "sfx"): 0.1,
        ("speech", "speech"): 0.08,
        ("bass", "drums"): 0.03,
        ("music-mix", "sfx-mix", "speech"): 0.2236,
        ("speech", "speech", "speech"): 0.032,
        ("music-mix", "sfx-mix", "speech", "speech"): 0.2721,
        ("bass", "drums", "other", "vocals"): 0.1158,
    }
    for names, share in published.items():
        total = totals[len(names)]
        sigma = math.sqrt(share * (1 - share) / total)
        assert abs(counts[names] / total - share) < 4 * sigma, names
    assert all(abs(totals[size] / 6000 - 1 / 3) < 0.03 for size in (2, 3, 4))
    for names in counts:
        if "music-mix" in names:
            assert not INSTRUMENTS & set(names)
        assert not {"sfx", "sfx-mix"} <= set(names)
        for name in set(names) - {"speech", "sfx"}:
            assert names.count(name) == 1


def test_without_a_chain_all_prompts_are_drawn_alike_and_none_twice() -> None:
    recipe = MixRecipe(
        first={}, following={}, num_sources={2: 1.0}, gain_db={}, other_gain_db=(-3.0, 3.0)
    )
    planner = Planner(recipe, {"speech": [], **{f"kind {n}": clips()["sfx"] for n in range(5)}})
    pairs: Counter[tuple[str, ...]] = Counter()
    for number in range(4000):
        (plan,) = planner.draw_batch(1, seed=f"0/{number}")
        pairs[tuple(sorted(source.prompt for source in plan.sources))] += 1
        assert all(-3 <= source.gain_db <= 3 for source in plan.sources)
    assert len(pairs) == 10
    assert all(abs(count - 400) < 4 * math.sqrt(4000 * 0.1 * 0.9) for count in pairs.values())


def test_a_plan_depends_on_its_seed_alone() -> None:
    planner = Planner(MixRecipe(tone_probability=0.5, unasked_probability=0.5), clips())
    plans = [planner.draw_batch(3, seed=f"7/{number}") for number in range(20)]
    again = Planner(MixRecipe(tone_probability=0.5, unasked_probability=0.5), clips())
    assert [again.draw_batch(3, seed=f"7/{number}") for number in reversed(range(20))] == plans[
        ::-1
    ]
    assert len({repr(plan) for plan in plans}) == 20


def test_a_recording_counts_as_often_as_it_has_pieces() -> None:
    pool = {"sfx-mix": [Clip("long", 60.0, 4000.0, num_pieces=9), Clip("short", 8.0, 4000.0)]}
    planner = Planner(MixRecipe(scenes=(Scene(("sfx-mix",)),), composed={}), pool)
    drawn = Counter(
        planner.draw_batch(1, seed=str(number))[0].sources[0].parts[0].clip
        for number in range(1000)
    )
    assert abs(drawn["long"] - 900) < 4 * math.sqrt(1000 * 0.9 * 0.1)


def test_two_voices_never_share_a_speaker_and_no_clip_stands_twice() -> None:
    planner = Planner(MixRecipe(scenes=(Scene(("speech", "speech", "sfx-mix")),)), clips())
    for number in range(300):
        (plan,) = planner.draw_batch(1, seed=str(number))
        keys = [part.clip for source in plan.sources for part in source.parts]
        assert len(set(keys)) == len(keys)
        voices = [int(key.split("/")[1]) // 3 for key in keys if key.startswith("speech/")]
        assert len(set(voices)) == 2


def test_crops_hold_sound_and_stay_inside_the_clip() -> None:
    pool = {"speech": [Clip("a", 10.0, 4000.0, active_s=(7.0,)), Clip("b", 1.0, 4000.0)]}
    recipe = MixRecipe(crop_s=2.0, scenes=(Scene(("speech",)),))
    planner = Planner(recipe, pool)
    for number in range(200):
        (plan,) = planner.draw_batch(1, seed=str(number))
        (part,) = plan.sources[0].parts
        if part.clip == "a":
            assert 5.5 <= part.start_s <= 7.0
        else:  # shorter than the crop: silence before and after, in a random share
            assert -1.0 <= part.start_s <= 0.0


def test_instruments_of_one_song_play_together() -> None:
    recipe = MixRecipe(
        crop_s=1.0, scenes=(Scene(("vocals", "drums", "bass")),), same_song_probability=1.0
    )
    for number in range(50):
        (plan,) = Planner(recipe, clips()).draw_batch(1, seed=str(number))
        parts = [source.parts[0] for source in plan.sources]
        assert len({part.clip.split("/")[1] for part in parts}) == 1
        assert len({part.start_s for part in parts}) == 1


def test_every_mixture_of_a_batch_asks_for_as_many_sources() -> None:
    recipe = MixRecipe(unasked_probability=0.5, absent_probability=0.3)
    planner = Planner(recipe, clips())
    left_out = absent = 0
    for number in range(200):
        plans = planner.draw_batch(4, seed=str(number))
        asked = {sum(source.is_asked for source in plan.sources) for plan in plans}
        assert len(asked) == 1
        assert asked.pop() >= 1
        left_out += sum(not source.is_asked for plan in plans for source in plan.sources)
        absent += sum(not source.parts for plan in plans for source in plan.sources)
        assert all(any(source.parts for source in plan.sources) for plan in plans)
    assert left_out > 50
    assert absent > 50


def test_prompt_dropout_leaves_out_as_many_as_it_may() -> None:
    recipe = MixRecipe(num_sources={4: 1.0}, unasked_probability=0.5, most_unasked=None)
    planner = Planner(recipe, clips())
    dropped: Counter[int] = Counter()
    limits: list[int] = []
    for number in range(1500):
        plans = planner.draw_batch(2, seed=str(number))
        names = [[source.prompt for source in plan.sources] for plan in plans]
        unique = [sum(each.count(name) == 1 for name in each) for each in names]
        limits.append(min(*unique, 3))
        counts = {sum(not source.is_asked for source in plan.sources) for plan in plans}
        assert len(counts) == 1
        assert max(counts) <= limits[-1]
        dropped.update(counts)
        for plan, prompts in zip(plans, names, strict=True):
            left_out = [source.prompt for source in plan.sources if not source.is_asked]
            assert all(prompts.count(name) == 1 for name in left_out)
    # None with probability 1 - p, else each number from one to the limit alike.
    expected = {
        count: sum(0.5 / limit for limit in limits if 1 <= count <= limit) for count in (1, 2, 3)
    }
    for count, number in expected.items():
        assert abs(dropped[count] - number) < 4 * math.sqrt(number)
    assert dropped[0] > 700


def test_what_is_never_asked_is_in_every_mixture() -> None:
    scenes = (Scene(("speech", "sfx-mix")), Scene(("speech",)))
    recipe = MixRecipe(scenes=scenes, never_asked=("sfx-mix",))
    planner = Planner(recipe, clips())
    sizes: Counter[int] = Counter()
    for number in range(100):
        for plan in planner.draw_batch(2, seed=str(number)):
            sizes[len(plan.sources)] += 1
            assert [source.prompt for source in plan.sources if source.is_asked] == ["speech"]
    assert min(sizes[1], sizes[2]) > 50
    with pytest.raises(ConfigError, match=r"never_asked needs recipe\.scenes"):
        MixRecipe(never_asked=("sfx-mix",))
    with pytest.raises(ConfigError, match="most_unasked must be at least 1"):
        MixRecipe(most_unasked=0)


def test_references_sum_to_the_mixture_at_their_levels() -> None:
    planner = Planner(MixRecipe(crop_s=1.0), clips())
    for number in range(30):
        (plan,) = planner.draw_batch(1, seed=str(number))
        mix = render(plan, read_clip, RATE)
        torch.testing.assert_close(mix.references.sum(dim=0), mix.mixture)
        for source, reference in zip(plan.sources, mix.references, strict=True):
            level = 10 * torch.log10(reference.square().mean())
            assert level.item() == pytest.approx(source.gain_db, abs=1e-3)


def test_what_is_not_asked_is_heard_but_not_referenced() -> None:
    def source(clip: str, is_asked: bool) -> SourcePlan:
        return SourcePlan("speech", (PartPlan(clip, 0.0),), -6.0, is_asked)

    mix = render(MixPlan(1.0, (source("a", True), source("b", False))), read_clip, RATE)
    assert mix.prompts == ("speech",)
    assert mix.references.shape == (1, RATE)
    assert (mix.mixture - mix.references[0]).square().mean() > 0.1


def test_the_bandwidth_is_cut_and_nothing_below_it() -> None:
    torch.manual_seed(0)
    noise = torch.randn(RATE)
    plan = SourcePlan("sfx", (PartPlan("noise", 0.0),), 0.0)
    full = render(MixPlan(1.0, (plan,)), lambda *_: noise, RATE).mixture
    cut = render(MixPlan(1.0, (plan,), bandwidth_hz=2000.0), lambda *_: noise, RATE).mixture
    power = torch.fft.rfft(cut).abs().square() / torch.fft.rfft(full).abs().square()
    assert power[2001:].max() < 1e-8
    torch.testing.assert_close(power[100:1890], power[100:101].expand(1790), rtol=1e-2, atol=0)


def test_a_tone_control_sets_the_levels_it_says() -> None:
    impulse = torch.zeros(48000)
    impulse[100] = 1.0
    part = PartPlan("impulse", 0.0, tone_db=(0.0, 6.0, 0.0, -6.0, 0.0))
    signal = render(
        MixPlan(1.0, (SourcePlan("sfx", (part,), 0.0),)), lambda *_: impulse, 48000
    ).mixture
    level = 20 * torch.log10(torch.fft.rfft(signal).abs())
    assert (level[250] - level[1000]).item() == pytest.approx(6.0, abs=0.05)
    assert (level[4000] - level[1000]).item() == pytest.approx(-6.0, abs=0.05)


def test_silent_crops_give_silent_references() -> None:
    plan = MixPlan(1.0, (SourcePlan("sfx", (PartPlan("late", 100.0),), 0.0),))
    assert not render(plan, read_clip, RATE).references.any()


def test_recipes_that_cannot_be_cooked_are_refused() -> None:
    with pytest.raises(DataError, match="no clips for the prompt 'bass'"):
        Planner(MixRecipe(), {**clips(), "bass": []})
    recipe = MixRecipe(scenes=(Scene(("speech", "speech")),))
    pool = {"speech": [Clip("a", 3.0, 4000.0, "x"), Clip("b", 3.0, 4000.0, "x")]}
    with pytest.raises(DataError, match="too few"):
        Planner(recipe, pool).draw_mixture(("speech", "speech"), random.Random(0))
    with pytest.raises(ConfigError, match="above 0"):
        MixRecipe(crop_s=0.0)
    with pytest.raises(ConfigError, match="probability"):
        MixRecipe(tone_probability=1.5)
    with pytest.raises(ConfigError, match="belong together"):
        MixRecipe(first={})
    without_chain = MixRecipe(first={}, following={})
    with pytest.raises(DataError, match="needs as many with clips; only 3"):
        Planner(without_chain, {name: clips()["sfx"] for name in ("a", "b", "c")})
