"""Manifests, pools, the store of decoded clips, and mixtures that stay the same."""

import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from synthetic_pool import POOLS, make_pool
from unbraid.data.catalogue import open_pools, select
from unbraid.data.dynamic import DynamicMixtures, MixtureBatch, MixtureStream, render_batch
from unbraid.data.fixed import fixed_plans
from unbraid.data.manifest import Recording, read_manifest
from unbraid.data.store import ClipStore
from unbraid.data.unreadable import UnreadableClips
from unbraid.errors import ConfigError, DataError, UnreadableClip
from unbraid.mixing.recipe import Clip, MixRecipe, Planner, Scene
from unbraid.models.waveform import WaveformModel

HEADER = "path,category,class,split,seconds,orig_sr,sample_rate"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pool(tmp_path_factory.mktemp("pool"))


def test_a_manifest_is_read_row_by_row(manifest: Path) -> None:
    recordings = read_manifest(manifest)
    speech = [row for row in recordings if row.kind == "speech/en" and row.split == "train"]
    assert [row.duration_s for row in speech] == [1.5, 2.0, 2.5, 3.0]
    assert [row.bandwidth_hz for row in speech] == [8000, 24000, 8000, 24000]
    assert speech[0].speaker == "train0"
    assert speech[0].licence == "CC0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("path,category\nx,y\n", "lacks the columns class, split, seconds"),
        (
            "path,category,class,split,seconds,orig_sr,sample_rate\na,b,c,train,long,8000,8000\n",
            "line 2: seconds must be a number .*long",
        ),
        (f"{HEADER}\n\na,b,c,train,1,8000,inf\n", "line 3: sample_rate must be"),
        (f"{HEADER}\na,b,c,train,1,8000,8000\na,b,c,tr\n", "line 3: .* column seconds, as"),
        (f"{HEADER}\na,b,c,train,1,8000,8000\n\0\0\n", "line 3: holds a zero byte"),
        (f"{HEADER}\n{'a' * 200_000},b,c,train,1,8000,8000\n", "line 2: no CSV"),
        (f"{HEADER}\nm\udce4,b,c,train,1,8000,8000\n", "line 2: no UTF-8"),
    ],
)
def test_manifests_that_make_no_sense_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match=message):
        read_manifest(path)


def test_a_manifest_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(f"{HEADER}\na.wav,b,c,train,1,8000,8000\n", encoding="utf-8-sig")
    assert [row.path for row in read_manifest(path)] == ["a.wav"]


def test_patterns_let_in_and_take_away(manifest: Path) -> None:
    recordings = read_manifest(manifest)
    pools = select(recordings, {"sfx": ["sfx/*", "!sfx/rain"], "other": ["music*/*"]}, "eval")
    assert {row.kind for row in pools["sfx"]} == {"sfx/door"}
    assert {row.kind.split("/")[0] for row in pools["other"]} == {"music_stems", "music"}
    assert {row.split for row in pools["other"]} == {"eval"}
    with pytest.raises(DataError, match="'spech/\\*' matches no recording"):
        select(recordings, {"speech": ["spech/*"]}, "eval")


def row(path: str, seconds: float = 1.0) -> Recording:
    return Recording(path, "sfx/x", "train", seconds, 24000.0, "", "", 48000)


def test_the_store_gives_what_the_files_hold(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    loud = 0.9 * rng.uniform(-1, 1, 48000)
    quiet = np.concatenate([np.zeros(48000), 1e-3 * rng.uniform(-1, 1, 24000)])
    soundfile.write(tmp_path / "loud.wav", loud, 48000, subtype="FLOAT")
    soundfile.write(tmp_path / "quiet.wav", quiet, 48000, subtype="FLOAT")
    soundfile.write(tmp_path / "silent.wav", np.zeros(1000), 48000)
    rows = [row("loud.wav"), row("quiet.wav", 1.5), row("silent.wav")]
    store = ClipStore(tmp_path, rows, 48000, tmp_path / "cache")
    read = store.read("quiet.wav", 48000, 24000).numpy()
    assert np.abs(read - quiet[48000:]).max() < 1e-3 * 2**-15  # relative to its own peak
    inside = store.read("loud.wav", 100, 50).numpy()
    assert np.abs(inside - loud[100:150]).max() < 2**-15
    outside = store.read("loud.wav", -10, 48020).numpy()
    assert not outside[:10].any()
    assert not outside[-10:].any()
    assert np.abs(outside[10:-10] - loud).max() < 2**-15
    assert store.active_s("loud.wav") == (0.0, 0.5)
    assert store.active_s("silent.wav") == ()
    # 1e-3 lies below -50 dBFS: nothing of this recording is worth separating
    assert store.active_s("quiet.wav") == ()


def test_the_store_is_kept_until_its_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(4800, 0.5), 48000)
    ClipStore(tmp_path, [row("a.wav")], 48000, tmp_path / "cache")
    monkeypatch.setattr("unbraid.data.store.read", lambda _: pytest.fail("decoded again"))
    again = ClipStore(tmp_path, [row("a.wav")], 48000, tmp_path / "cache")
    assert again.read("a.wav", 0, 10).mean() == pytest.approx(0.5, abs=1e-4)
    monkeypatch.undo()
    soundfile.write(tmp_path / "a.wav", np.full(9600, 0.25), 48000)
    changed = ClipStore(tmp_path, [row("a.wav")], 48000, tmp_path / "cache")
    assert changed.read("a.wav", 0, 10).mean() == pytest.approx(0.25, abs=1e-4)


def test_one_bad_file_in_many_is_left_out_and_more_are_an_error(tmp_path: Path) -> None:
    rows = []
    for number in range(101):
        path = f"{number}.wav"
        soundfile.write(tmp_path / path, np.full(100, 0.5), 48000)
        rows.append(row(path))
    (tmp_path / "7.wav").write_text("not audio")
    store = ClipStore(tmp_path, rows, 48000, tmp_path / "cache")
    assert "7.wav" not in store
    assert "8.wav" in store
    (tmp_path / "8.wav").unlink()
    with pytest.raises(DataError, match=r"2 of 101 recordings cannot be read.*7\.wav, 8\.wav"):
        ClipStore(tmp_path, rows, 48000, tmp_path / "cache")


def test_unreadable_files_are_counted_named_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soundfile.write(tmp_path / "good.wav", np.full(100, 0.5), 48000)
    (tmp_path / "bad.wav").write_text("not audio")
    rows = [row("good.wav"), row("bad.wav"), row("missing.wav")]
    for words in ("not an audio file", "could not be read when the cache was made"):
        caplog.clear()
        store = ClipStore(tmp_path, rows, 48000, tmp_path / "cache", max_unreadable=0.7)
        assert store.unreadable.keys == ("bad.wav", "missing.wav")
        assert [record.getMessage().count("bad.wav") for record in caplog.records] == [1, 0]
        assert words in caplog.text
    # A cache that exists does not make the limit go away.
    with pytest.raises(DataError, match=r"2 of 3 recordings.*max_unreadable allows \(50 %\)"):
        ClipStore(tmp_path, rows, 48000, tmp_path / "cache", max_unreadable=0.5)
    with pytest.raises(DataError, match=r"1 of 3 recordings"):
        ClipStore(tmp_path, rows, 8000, tmp_path / "cache", max_unreadable=0.0)
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_store_goes_to_another_process_as_a_path(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(48000, 0.5), 48000)
    store = ClipStore(tmp_path, [row("a.wav")], 48000, tmp_path / "cache")
    sent = ForkingPickler.dumps(store)
    assert len(sent) < 10_000
    assert torch.equal(pickle.loads(sent).read("a.wav", 0, 9), store.read("a.wav", 0, 9))


class Failing:
    """A store of which some clips have become unreadable, as all workers see it."""

    def __init__(self, store: ClipStore, keys: set[str], max_unreadable: float = 0.5) -> None:
        self.unreadable = UnreadableClips(store.keys, max_unreadable)
        self._store = store
        self._keys = keys

    def read(self, key: str, start: int, count: int) -> torch.Tensor:
        if key in self._keys:
            self.unreadable.note(key, f"{key} is broken")
            raise UnreadableClip(f"{key} is broken")
        return self._store.read(key, start, count)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_mixtures_with_unreadable_clips_are_drawn_again_alike_everywhere(
    manifest: Path, tmp_path: Path
) -> None:
    clips, store = open_pools(
        manifest, read_manifest(manifest), POOLS, "train", 8000, tmp_path / "cache"
    )
    broken = {clips[prompt][0].key for prompt in ("sfx", "speech", "drums")}
    rows = {name: number for number, name in enumerate(POOLS)}
    planner = Planner(MixRecipe(crop_s=0.2, unasked_probability=0.5), clips)

    def mixtures(source: Failing | ClipStore) -> DynamicMixtures:
        return DynamicMixtures(planner, source.read, 8000, rows, 4, 7)

    once = Failing(store, broken)
    alone = [mixtures(once).batch(number) for number in range(4)]
    assert set(once.unreadable.keys) == broken
    untouched = [mixtures(store).batch(number) for number in range(4)]
    changed = [
        not torch.equal(ours, theirs)
        for batch, before in zip(alone, untouched, strict=True)
        for ours, theirs in zip(batch.mixture, before.mixture, strict=True)
    ]
    assert any(changed)
    assert not all(changed)
    for batch, before in zip(alone, untouched, strict=True):
        assert torch.equal(batch.prompt_indices, before.prompt_indices)
    # Workers and ranks, each with an own history of failures, draw the same again.
    for rank in range(2):
        source = Failing(store, broken)
        stream = MixtureStream(mixtures(source), 0, rank, 2)
        loader = DataLoader(stream, batch_size=None, num_workers=2)
        for whole, part in zip(alone, loader, strict=False):
            assert torch.equal(part.mixture, whole.mixture[rank::2])
        # What the workers met is known here, too.
        assert source.unreadable.keys


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_too_many_unreadable_clips_end_a_run_and_all_of_them_no_loop(
    manifest: Path, tmp_path: Path, num_workers: int
) -> None:
    clips, store = open_pools(
        manifest, read_manifest(manifest), POOLS, "train", 8000, tmp_path / "cache"
    )
    rows = {name: number for number, name in enumerate(POOLS)}
    planner = Planner(MixRecipe(crop_s=0.2), clips)
    for limit, message in ((0.1, "recordings cannot be read.*10 %"), (1.0, "drawn 100 times")):
        source = Failing(store, set(store.keys), limit)
        stream = MixtureStream(DynamicMixtures(planner, source.read, 8000, rows, 4, 7))
        with pytest.raises(DataError, match=message):
            next(iter(DataLoader(stream, batch_size=None, num_workers=num_workers)))


def test_fixed_mixtures_pass_over_unreadable_clips(manifest: Path, tmp_path: Path) -> None:
    clips, store = open_pools(
        manifest, read_manifest(manifest), POOLS, "eval", 8000, tmp_path / "cache"
    )
    source = Failing(store, {clips["speech"][0].key})
    planner = Planner(MixRecipe(crop_s=0.5), clips)
    plans = fixed_plans(planner, [Scene(("speech", "sfx-mix"))], 5, source.read, 8000, seed=1)
    used = {part.clip for plan in plans["speech + sfx-mix"] for part in plan.sources[0].parts}
    assert source.unreadable.keys
    assert used
    assert not used & set(source.unreadable.keys)


def test_batches_come_in_order_and_can_start_anywhere(manifest: Path, tmp_path: Path) -> None:
    clips, store = open_pools(
        manifest, read_manifest(manifest), POOLS, "train", 48000, tmp_path / "cache"
    )
    rows = {name: number for number, name in enumerate(POOLS)}
    planner = Planner(MixRecipe(crop_s=0.3), clips)
    source = DynamicMixtures(planner, store.read, 48000, rows, 2, 5)

    def stream(first: int) -> list[torch.Tensor]:
        batches = iter(MixtureStream(source, first))
        return [next(batches).mixture for _ in range(3)]

    start, later = stream(0), stream(2)
    assert torch.equal(start[2], later[0])
    assert not torch.equal(start[0], start[1])


# A machine of few cores advises against workers.
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("num_ranks", "num_workers", "first"), [(1, 2, 0), (2, 0, 0), (4, 0, 2), (2, 3, 2)]
)
def test_a_step_hears_the_same_for_any_number_of_ranks_and_workers(
    manifest: Path, tmp_path: Path, num_ranks: int, num_workers: int, first: int
) -> None:
    clips, store = open_pools(
        manifest, read_manifest(manifest), POOLS, "train", 8000, tmp_path / "cache"
    )
    rows = {name: number for number, name in enumerate(POOLS)}
    planner = Planner(MixRecipe(crop_s=0.2, unasked_probability=0.5), clips)
    alone = DynamicMixtures(planner, store.read, 8000, rows, batch_size=4, seed=5)

    def share(rank: int) -> list[MixtureBatch]:
        stream = MixtureStream(alone, first, rank, num_ranks)
        batches = iter(DataLoader(stream, batch_size=None, num_workers=num_workers))
        return [next(batches) for _ in range(3)]

    shares = [share(rank) for rank in range(num_ranks)]
    for step in range(3):
        whole = alone.batch(first + step)
        for rank, batches in enumerate(shares):
            part = batches[step]
            assert torch.equal(part.mixture, whole.mixture[rank::num_ranks])
            assert torch.equal(part.references, whole.references[rank::num_ranks])
            assert torch.equal(part.prompt_indices, whole.prompt_indices[rank::num_ranks])


@pytest.mark.parametrize(
    ("rank", "num_ranks", "message"),
    [(0, 3, "make batch_size.*a multiple of 3"), (2, 2, "count from 0"), (-1, 2, "count from 0")],
)
def test_ranks_that_cannot_share_are_refused(rank: int, num_ranks: int, message: str) -> None:
    planner = Planner(
        MixRecipe(first={}, following={}, num_sources={1: 1.0}), {"x": [Clip("", 1, 1)]}
    )
    source = DynamicMixtures(planner, lambda *_: torch.zeros(1), 8, {}, 4, 0)
    with pytest.raises(ConfigError, match=message):
        MixtureStream(source, 0, rank, num_ranks)


def test_fixed_mixtures_stay_the_same_and_all_their_sources_sound(
    manifest: Path, tmp_path: Path, tiny_model: WaveformModel
) -> None:
    clips, store = open_pools(
        manifest, read_manifest(manifest), POOLS, "eval", 48000, tmp_path / "cache"
    )
    scenes = (Scene(("speech", "sfx-mix")), Scene(("speech", "speech")))
    planner = Planner(MixRecipe(crop_s=1.0), clips)
    plans = fixed_plans(planner, scenes, 3, store.read, 48000, seed=1)
    assert plans == fixed_plans(planner, scenes, 3, store.read, 48000, seed=1)
    assert plans != fixed_plans(planner, scenes, 3, store.read, 48000, seed=2)
    rows = {name: number for number, name in enumerate(tiny_model.prompts.names)}
    for scene_plans in plans.values():
        batch = render_batch(scene_plans, store.read, 48000, rows)
        assert batch.references.abs().amax(dim=-1).min() > 0


def test_a_store_of_nothing_holds_nothing(tmp_path: Path) -> None:
    store = ClipStore(tmp_path, [], 48000, tmp_path / "cache")
    assert "clip" not in store
