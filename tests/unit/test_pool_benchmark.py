"""The frozen mixtures: the same for everyone, asked about in five ways."""

from pathlib import Path

import pytest
import torch

from synthetic_pool import POOLS, make_pool
from unbraid.apps.open_pool import pool_tasks
from unbraid.errors import DataError
from unbraid.evaluation.pool import QUESTIONS, SCENES, Pool, Question, open_pool

FROZEN_DIGEST = "07a97d3207a905aa50124adf7b6cd69dbf8dcd112a020340154074473eb2f7f3"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("pool")
    return open_pool(make_pool(folder), POOLS, "eval", folder / "cache", per_scene=1)


def test_every_prompt_and_two_to_five_sources_are_in_it() -> None:
    assert {name for scene in SCENES for name in scene.prompts} == set(POOLS)
    assert {len(scene.prompts) for scene in SCENES} == {2, 3, 4, 5}


def test_the_same_mixtures_are_drawn_again(pool: Pool, tmp_path: Path) -> None:
    again = open_pool(make_pool(tmp_path), POOLS, "eval", tmp_path / "cache", per_scene=1)
    assert again.digest == pool.digest
    for one, other in zip(pool.items("all"), again.items("all"), strict=True):
        assert torch.equal(one.mixture.samples, other.mixture.samples)


def test_another_recording_gives_another_digest(pool: Pool, tmp_path: Path) -> None:
    manifest = make_pool(tmp_path)
    changed = next((tmp_path / "speech" / "eval").rglob("*.wav"))
    other = changed.read_bytes()
    changed.write_bytes(other[:-2] + bytes([other[-2] ^ 1, other[-1]]))
    assert open_pool(manifest, POOLS, "eval", tmp_path / "cache", 1).digest != pool.digest


def test_references_add_up_to_the_mixture(pool: Pool) -> None:
    for question in QUESTIONS:
        for item in pool.items(question):
            total = item.references.sum(dim=0)
            assert float((total - item.mixture.samples).abs().max()) < 1e-4, (question, item.name)


def test_it_counts_its_items(pool: Pool) -> None:
    for question in QUESTIONS:
        items = list(pool.items(question))
        assert len(items) == pool.num_items(question) > 0
        assert len({item.name for item in items}) == len(items)


@pytest.mark.parametrize("question", ["single", "reversed", "absent"])
def test_a_source_keeps_its_name_however_it_is_asked_for(pool: Pool, question: Question) -> None:
    plain = {item.name: item for item in pool.items("all")}
    for item in pool.items(question):
        known = plain[item.name]
        for prompt in set(known.prompts):
            mine = [i for i, each in enumerate(item.prompts) if each == prompt]
            theirs = [i for i, each in enumerate(known.prompts) if each == prompt]
            assert torch.equal(item.references[mine], known.references[theirs])


def test_reversed_prompts_are_reversed(pool: Pool) -> None:
    plain = {item.name: item.prompts for item in pool.items("all")}
    items = list(pool.items("reversed"))
    assert all(item.prompts != plain[item.name] for item in items)
    assert ("music-mix", "sfx-mix", "speech") in {item.prompts for item in items}


def test_one_prompt_too_many_has_a_silent_reference(pool: Pool) -> None:
    for item in pool.items("absent"):
        silent = ~item.references.flatten(1).any(dim=1)
        assert silent.sum() == 1
        [added] = [prompt for prompt, is_it in zip(item.prompts, silent, strict=True) if is_it]
        assert item.prompts.count(added) == 1
        # Nothing that may be heard in what is there.
        assert not ({added, *item.prompts} >= {"music-mix", "drums"})
        assert not ({added, *item.prompts} >= {"sfx", "sfx-mix"})


def test_coarser_prompts_put_sources_together(pool: Pool) -> None:
    by_name = {item.name: item for item in pool.items("coarser")}
    item = by_name["speech + vocals + drums + bass + other 1"]
    assert item.prompts == ("speech", "music-mix")
    plain = next(one for one in pool.items("all") if one.name == item.name)
    assert torch.allclose(item.references[1], plain.references[1:].sum(dim=0), atol=1e-6)
    assert item.part == "speech + music-mix"


def test_items_can_be_picked_by_name(pool: Pool) -> None:
    picked = list(pool.items("all", {"speech + speech 1", "no such item"}))
    assert [item.name for item in picked] == ["speech + speech 1"]


def test_scenes_without_recordings_are_left_out(tmp_path: Path) -> None:
    only_speech = {"speech": POOLS["speech"], "sfx": ["nothing/*"]}
    few = open_pool(make_pool(tmp_path), only_speech, "eval", tmp_path / "cache", 1)
    assert list(few.plans) == ["speech + speech"]


def test_a_split_without_recordings_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--split"):
        open_pool(make_pool(tmp_path), POOLS, "nowhere", tmp_path / "cache", 1)


@pytest.mark.slow
def test_the_pool_of_the_readme_is_the_frozen_one(shared: Path) -> None:
    task = pool_tasks(shared / "data" / "manifest.csv")[0]
    # Changes when the mixtures change: then the figures of README and model card are stale.
    assert task.digest == FROZEN_DIGEST
    assert task.num_items == 272
