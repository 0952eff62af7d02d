"""Sounds that are computed: the same every time, all at one level, none like another."""

import pytest
import torch

from unbraid.apps.odd_clips import likeness, our_tagger
from unbraid.data.shelf import ClipShelf
from unbraid.mixing.textures import events, textures

RATE = 16_000


@pytest.mark.parametrize("make", [textures, events])
@pytest.mark.parametrize("rate", [8000, 48_000])
def test_sounds_have_their_length_and_level(make: object, rate: int) -> None:
    for sound in make(1.3, rate).values():  # type: ignore[operator]
        assert sound.shape == (round(1.3 * rate),)
        assert torch.isfinite(sound).all()
        assert sound.square().mean().sqrt() == pytest.approx(0.1, rel=1e-3)


def test_the_seed_alone_decides() -> None:
    first, again, other = (events(1.0, RATE, seed)["knocks"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_global_random_number_is_drawn() -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    textures(0.5, RATE)
    assert torch.equal(before, torch.get_rng_state())


def test_no_two_sounds_are_alike() -> None:
    sounds = textures(2.0, RATE) | events(2.0, RATE)
    alike = likeness(list(sounds.values()), RATE, our_tagger()).fill_diagonal_(-1)
    assert alike.max() < 0.97


def test_an_empty_sound_has_one_sample() -> None:
    assert all(sound.shape == (1,) for sound in textures(0.0, RATE).values())


def test_a_shelf_gives_what_was_put_on_it_and_zeros_around() -> None:
    shelf = ClipShelf(10)
    clip = shelf.add("a", torch.arange(1.0, 11.0), bandwidth_hz=3.0)
    assert (clip.key, clip.duration_s, clip.bandwidth_hz) == ("a", 1.0, 3.0)
    assert clip.active_s
    assert shelf.read("a", -2, 4).tolist() == [0, 0, 1, 2]
    assert shelf.read("a", 8, 4).tolist() == [9, 10, 0, 0]
    assert shelf.read("a", 20, 2).tolist() == [0, 0]
    assert shelf.add("b", torch.zeros(10)).active_s == ()
    with pytest.raises(ValueError, match="already"):
        shelf.add("a", torch.zeros(3))
