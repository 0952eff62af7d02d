"""The mixtures of a lesson: what is checked is never learnt from."""

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.lesson_plan import BackgroundParts, LessonPlan, part_backgrounds
from unbraid.data.shelf import ClipShelf
from unbraid.mixing.recipe import Clip
from unbraid.models.waveform import WaveformModel

RATE = 48_000


class ListeningShelf(ClipShelf):
    """Remembers what was read."""

    def __init__(self) -> None:
        super().__init__(RATE)
        self.heard: set[str] = set()

    def read(self, key: str, start: int, count: int) -> Float[Tensor, "time"]:
        self.heard.add(key)
        return super().read(key, start, count)


def noise(seconds: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(round(seconds * RATE), generator=generator)


def pool(shelf: ClipShelf, name: str, count: int, seconds: float) -> tuple[Clip, ...]:
    return shelf.add_all({f"{name}{n}": noise(seconds, n) for n in range(count)})


def keys(clips: tuple[Clip, ...]) -> set[str]:
    return {clip.key for clip in clips}


def test_one_recording_in_three_is_held_back_where_there_are_enough() -> None:
    shelf = ClipShelf(RATE)
    clips = pool(shelf, "rain", 7, 0.5)
    parts = part_backgrounds({"sfx": clips}, shelf, seed=0)
    assert len(parts.held_back["sfx"]) == 2
    assert keys(parts.held_back["sfx"]) | keys(parts.learnt["sfx"]) == keys(clips)
    assert not keys(parts.held_back["sfx"]) & keys(parts.learnt["sfx"])
    assert parts.shared == ()
    others = [part_backgrounds({"sfx": clips}, shelf, seed).held_back for seed in range(1, 9)]
    assert any(each != parts.held_back for each in others)


def test_of_few_recordings_the_ends_are_held_back() -> None:
    shelf = ClipShelf(RATE)
    (clip,) = pool(shelf, "talk", 1, 8.0)
    parts = part_backgrounds({"speech": (clip,)}, shelf, seed=0)
    (beginning,), (end,) = parts.learnt["speech"], parts.held_back["speech"]
    assert (beginning.duration_s, end.duration_s) == (6.0, 2.0)
    both = [shelf.read(part.key, 0, round(part.duration_s * RATE)) for part in (beginning, end)]
    assert torch.equal(torch.cat(both), noise(8.0))


def test_what_is_short_or_silent_in_the_end_is_not_parted() -> None:
    shelf = ClipShelf(RATE)
    short = (*pool(shelf, "long", 1, 8.0), *pool(shelf, "short", 1, 3.0))
    silent_end = shelf.add("silent end", torch.cat([noise(6.0), torch.zeros(3 * RATE)]))
    parts = part_backgrounds({"speech": short, "sfx": (silent_end,)}, shelf, seed=0)
    assert parts.shared == ("speech", "sfx")
    assert parts.learnt == parts.held_back == {"speech": short, "sfx": (silent_end,)}


def test_checks_hear_nothing_that_is_learnt_from(tiny_model: WaveformModel) -> None:
    shelf = ListeningShelf()
    parts = BackgroundParts(
        {"speech": pool(shelf, "learnt", 2, 3.0)}, {"speech": pool(shelf, "other", 2, 3.0)}, ()
    )
    sound, held_back = pool(shelf, "bell", 2, 1.0), pool(shelf, "held back", 1, 1.0)
    plan = LessonPlan(sound, held_back, parts, tiny_model, shelf, seed=0)
    vectors = torch.ones(1, tiny_model.prompts.dim)
    knows = tiny_model.with_prompts({"bell": vectors})
    plan.score(knows)
    examples = plan.examples(knows, knows)
    levels = plan.levels_when_absent_db(knows)
    assert shelf.heard == {"other0", "other1", "held back0"}
    assert len(levels) == len(examples) >= 4

    # No state is chosen on a mixture that it is reported with.
    chosen = [batch.mixture[0] for batch in plan._choosing]
    assert len(chosen) == len(examples)
    assert not any(torch.equal(each.mixture, one) for each in examples for one in chosen)

    shelf.heard.clear()
    looks = plan.looks()
    assert 8 <= sum(len(batch.mixture) for batch in looks) <= 16
    assert shelf.heard <= {"learnt0", "learnt1", "bell0", "bell1"}
