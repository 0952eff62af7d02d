"""Songs as a store holds them, and what is mixed of them."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from song_miniatures import make_songs
from unbraid.data.corpora.base import MixtureFiles, ReferenceFiles, Track
from unbraid.data.songs import SongStore, is_heard, song_batches
from unbraid.errors import DataError
from unbraid.evaluation.stem_folders import list_mixtures
from unbraid.mixing.recipe import Clip
from unbraid.mixing.songs import Song, SongPlanner, Stem, render_stems

RATE = 8_000


def song(name: str, *prompts: str, active: tuple[float, ...] = (0.0, 0.5)) -> Song:
    return Song(
        name,
        tuple(
            Stem(prompt, Clip(f"{name}/{place}", 4.0, RATE / 2, active_s=active))
            for place, prompt in enumerate(prompts)
        ),
    )


def read(key: str, start: int, count: int) -> torch.Tensor:
    level = 1.0 + sum(map(ord, key))
    return level * torch.sin(torch.arange(start, start + count) / 9.0)


def test_a_stretch_of_a_song_keeps_time_and_nearly_its_levels() -> None:
    planner = SongPlanner([song("a", "vocals", "drums", "bass")], 1.0, 1.0)
    for plan in planner.draw_batch(8, "seed"):
        assert plan.keeps_levels
        assert len({stem.start_s for stem in plan.stems}) == 1
        assert all(abs(stem.gain_db) <= 2.0 for stem in plan.stems)
        sources = render_stems(plan, read, 100, RATE)
        for stem, source in zip(plan.stems, sources, strict=True):
            recorded = read(stem.clip, round(stem.start_s * RATE), 100)
            assert torch.allclose(source, recorded * 10 ** (stem.gain_db / 20))


def test_stems_that_are_put_together_anew_have_the_levels_that_were_drawn() -> None:
    songs = [song("a", "vocals", "drums"), song("b", "vocals", "drums")]
    plans = SongPlanner(songs, 1.0, 0.0).draw_batch(20, "seed")
    assert len({stem.clip[0] for plan in plans for stem in plan.stems}) == 2
    for plan in plans:
        levels = 20 * render_stems(plan, read, 4000, RATE).square().mean(1).sqrt().log10()
        assert torch.allclose(levels, torch.tensor([s.gain_db for s in plan.stems]), atol=1e-3)


def test_prompts_come_in_every_order_and_alike_in_a_batch() -> None:
    planner = SongPlanner([song("a", "vocals", "drums"), song("b", "bass")], 1.0, 0.5)
    orders = set()
    for number in range(30):
        batch = planner.draw_batch(3, str(number))
        assert batch == planner.draw_batch(3, str(number))
        assert len({tuple(stem.prompt for stem in plan.stems) for plan in batch}) == 1
        orders.add(tuple(stem.prompt for stem in batch[0].stems))
    assert orders == {("vocals", "drums"), ("drums", "vocals"), ("bass",)}


def test_equal_prompts_never_share_a_recording() -> None:
    planner = SongPlanner([song("a", "speech", "speech")], 1.0, 0.5)
    for plan in planner.draw_batch(20, "seed"):
        assert len({stem.clip for stem in plan.stems}) == 2


def test_a_stem_without_a_recording_left_is_silent() -> None:
    quiet = song("a", "speech")
    resting = Stem("drums", Clip("rest", 4.0, RATE / 2, active_s=()))
    planner = SongPlanner([Song("a", (*quiet.stems, resting))], 1.0, 0.0)
    (plan,) = planner.draw_batch(1, "seed")
    sources = render_stems(plan, read, 100, RATE)
    names = [stem.prompt for stem in plan.stems]
    assert not sources[names.index("drums")].any()
    assert sources[names.index("speech")].any()


def test_what_is_far_below_the_mixture_is_not_heard() -> None:
    sources = torch.stack([torch.ones(4), torch.full((4,), 1e-3), torch.full((4,), 2e-2)])[None]
    assert is_heard(sources, sources.sum(1)).flatten().tolist() == [True, False, True]


@pytest.mark.parametrize("channels", [1, 2])
def test_a_store_gives_what_is_in_the_files(tmp_path: Path, channels: int) -> None:
    data = make_songs(tmp_path / "songs", 1, seconds=1.0, rate=RATE, num_channels=2)
    root, mixtures = list_mixtures(data, ["vocals", "drums"], {})
    store = SongStore(root, mixtures, RATE, channels, tmp_path / "cache")
    for stem in store.songs[0].stems:
        wanted, _ = soundfile.read(data / "song0" / f"{stem.prompt}.wav", dtype="float32")
        got = store.read(stem.clip.key, -10, RATE + 10)
        assert got.shape == ((2, RATE + 10) if channels == 2 else (RATE + 10,))
        assert not got[..., :10].any()
        rows = got if channels == 2 else got[None]
        assert np.allclose(rows[:, 10:].numpy().T, wanted[:, :channels], atol=1e-4)
        assert stem.clip.active_s == (0.0, 0.5)
        assert stem.clip.duration_s == 1.0


def test_a_stem_may_be_a_sum_and_a_difference(tmp_path: Path) -> None:
    for name, level in (("a", 0.5), ("b", 0.25), ("c", 0.125)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(RATE, level), RATE)
    stem = ReferenceFiles("other", (Track("a.wav"), Track("b.wav")), (Track("c.wav"),))
    files = MixtureFiles("x", "all", (stem, ReferenceFiles("drums", ())))
    store = SongStore(tmp_path, [files], RATE, 1, tmp_path / "cache")
    heard, silent = store.songs[0].stems
    assert torch.allclose(store.read(heard.clip.key, 0, 5), torch.tensor(0.625), atol=1e-4)
    assert not silent.clip.active_s
    assert not store.read(silent.clip.key, 0, 5).any()


def test_files_that_changed_are_read_again(tmp_path: Path) -> None:
    data = make_songs(tmp_path / "songs", 1, seconds=1.0, rate=RATE)
    root, mixtures = list_mixtures(data, ["vocals", "drums"], {})
    path = data / "song0" / "vocals.wav"
    size = path.stat().st_size
    before = SongStore(root, mixtures, RATE, 1, tmp_path / "cache")
    soundfile.write(path, np.full(RATE, 0.5), RATE)
    os.utime(path, (1, 1))
    assert path.stat().st_size == size
    after = SongStore(root, mixtures, RATE, 1, tmp_path / "cache")
    key = next(stem.clip.key for stem in after.songs[0].stems if stem.prompt == "vocals")
    assert torch.allclose(after.read(key, 0, 9), torch.tensor(0.5), atol=1e-4)
    assert not torch.allclose(before.read(key, 0, 9), torch.tensor(0.5), atol=1e-4)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    data = make_songs(tmp_path / "songs", 1, seconds=1.0, rate=RATE)
    (data / "song0" / "drums.wav").write_bytes(b"no sound")
    root, mixtures = list_mixtures(data, ["vocals", "drums"], {})
    with pytest.raises(DataError, match=r"drums\.wav"):
        SongStore(root, mixtures, RATE, 1, tmp_path / "cache")


def test_batches_add_up_and_depend_on_their_number(tmp_path: Path) -> None:
    data = make_songs(tmp_path / "songs", 2, seconds=2.0, rate=RATE, num_channels=2)
    root, mixtures = list_mixtures(data, ["vocals", "drums"], {})
    store = SongStore(root, mixtures, RATE, 2, tmp_path / "cache")
    planner = SongPlanner(store.songs, 0.5, 0.5)
    streams = [song_batches(planner, store, {"vocals": 3, "drums": 4}, 0.5, 2, 7) for _ in "ab"]
    for _ in range(3):
        one, other = (next(stream) for stream in streams)
        assert one.mixture.shape == (2, 2, RATE // 2)
        assert torch.equal(one.mixture, other.mixture)
        assert torch.allclose(one.references.sum(1), one.mixture, atol=1e-6)
        assert set(one.prompt_indices.flatten().tolist()) == {3, 4}
