"""The log-mel front end, and what is peculiar to the tagger; parity proves its numbers."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from unbraid.dsp.mel import MelConfig, log_mel, mel_filters
from unbraid.dsp.stft import StftConfig
from unbraid.errors import ConfigError
from unbraid.models.taggers.htsat import EXAMPLE, Htsat, HtsatConfig

MEL = HtsatConfig().mel


@pytest.fixture(scope="module")
def tagger() -> Htsat:
    torch.manual_seed(0)
    return Htsat(EXAMPLE).eval()


def noise(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(length, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("samples", "frames"), [(64_000, 201), (160_000, 501), (320_000, 1001)])
def test_clips_have_the_published_number_of_frames(samples: int, frames: int) -> None:
    assert log_mel(torch.zeros(1, samples), MEL).shape == (1, frames, 64)


@pytest.mark.parametrize("samples", [0, 1, 319, 320, 512, 1000])
def test_short_clips_and_silence_have_frames_too(samples: int) -> None:
    levels = log_mel(torch.zeros(1, samples), MEL)
    assert levels.shape == (1, samples // 320 + 1, 64)
    assert bool((levels == -100.0).all())


def test_all_bands_count_the_same_area() -> None:
    # Of triangles that are many bins wide, so that sums over bins are near to integrals.
    filters = mel_filters(MelConfig(32_000, StftConfig(32_768, 320), 64, 50.0, 14_000.0))
    areas = filters.sum(dim=0) * 32_000 / 32_768
    torch.testing.assert_close(areas, torch.ones(64), rtol=1e-3, atol=0.0)


def test_the_scale_is_linear_below_1_khz_and_27_steps_make_6_4_above() -> None:
    # Edges on whole mels: 200/3 Hz apart up to 1 kHz (15 mels); 42 mels are 6.4 kHz.
    filters = mel_filters(MelConfig(32_000, StftConfig(32_000, 320), 41, 0.0, 6400.0))
    centres = filters.argmax(dim=0)
    expected = [
        mel * 200 / 3 if mel <= 15 else 1000 * 6.4 ** ((mel - 15) / 27) for mel in range(43)
    ]
    assert centres.tolist() == pytest.approx(expected[1:42], abs=0.6)


def test_a_tone_sounds_in_its_band() -> None:
    time = torch.arange(32_000) / 32_000
    levels = log_mel(torch.sin(2 * torch.pi * 3000 * time)[None], MEL)[0].mean(dim=0)
    centres_hz = mel_filters(MEL).argmax(dim=0) * 32_000 / 1024
    assert abs(float(centres_hz[levels.argmax()]) - 3000) < 200


def test_the_ends_are_reflected() -> None:
    clip = noise(3000)
    mirrored = torch.cat([clip[1:641].flip(0), clip, clip[-641:-1].flip(0)])
    config = replace(MEL, stft=StftConfig(1024, 320, "hann", "reflect"))
    # Frame 0 is centred on the first sample: of the longer clip it is frame 2.
    expected = log_mel(mirrored[None], config)[:, 2:][:, : 3000 // 320 + 1]
    torch.testing.assert_close(log_mel(clip[None], config), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("low_hz", "high_hz", "num_mels"), [(50, 20_000, 64), (900, 100, 64), (0, 100, 0)]
)
def test_bands_that_cannot_be_cut_are_refused(low_hz: float, high_hz: float, num_mels: int) -> None:
    with pytest.raises(ConfigError, match="mel bands"):
        MelConfig(32_000, StftConfig(1024, 320), num_mels, low_hz, high_hz)


def test_tags_are_scores(tagger: Htsat) -> None:
    with torch.no_grad():
        tags = tagger(torch.stack([noise(3000), noise(3000, seed=1)]))
    assert tags.embedding.shape == (2, EXAMPLE.embedding_dim)
    assert tags.clip_scores.shape == (2, EXAMPLE.num_classes)
    assert tags.frame_scores.shape == (2, EXAMPLE.num_frames, EXAMPLE.num_classes)
    for scores in (tags.clip_scores, tags.frame_scores):
        assert bool(((scores > 0) & (scores < 1)).all())


def test_clips_of_a_batch_do_not_hear_each_other(tagger: Htsat) -> None:
    with torch.no_grad():
        together = tagger(torch.stack([noise(3000), noise(3000, seed=1)])).embedding
        alone = tagger(noise(3000, seed=1)[None]).embedding
    torch.testing.assert_close(together[1:], alone)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_what_is_beyond_the_longest_clip_is_not_heard(tagger: Htsat) -> None:
    longest = EXAMPLE.clip_samples
    with torch.no_grad():
        whole, cut = (tagger(noise(longest + 500)[None, :end]) for end in (None, longest))
    assert torch.equal(whole.embedding, cut.embedding)


def test_long_clips_are_heard_in_equal_pieces(tagger: Htsat) -> None:
    clip = noise(2 * EXAMPLE.clip_samples + 10)
    length = -(-len(clip) // 3)
    with torch.no_grad():
        pieces = [tagger(piece[None]).embedding[0] for piece in clip.split(length)]
        torch.testing.assert_close(tagger.embed(clip), torch.stack(pieces).mean(dim=0))
        short = clip[:3000]
        torch.testing.assert_close(tagger.embed(short), tagger(short[None]).embedding[0])
        assert torch.isfinite(tagger.embed(clip[:0])).all()


def test_shifted_windows_see_no_neighbours_from_the_opposite_edge() -> None:
    torch.manual_seed(0)
    block = Htsat(EXAMPLE).stages[0].blocks[1].eval()
    size = EXAMPLE.image_size // EXAMPLE.patch_size
    tokens = torch.randn(1, size, size, EXAMPLE.dim)
    changed = tokens.clone()
    changed[:, 0, 0] = torch.randn(EXAMPLE.dim)
    with torch.no_grad():
        moved = (block(tokens) - block(changed)).abs().amax(dim=-1)[0]
    # Windows of 4 that are shifted by 2: the corner shares its window with rows and columns 0, 1.
    assert bool((moved[:2, :2] > 1e-7).all())
    assert float(moved[2:].max()) < 1e-7
    assert float(moved[:, 2:].max()) < 1e-7


@pytest.mark.parametrize(
    "change",
    [
        {"depths": (2,)},
        {"num_heads": (3, 2)},
        {"image_size": 36},
        {"window": 3},
        {"num_classes": 0},
        {"patch_size": 16},
        {"drop_path": 1.0},
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="tagger"):
        replace(EXAMPLE, **change)


def test_a_tagger_with_a_level_of_its_own_hears_no_levels(tagger: Htsat) -> None:
    blind = Htsat(replace(EXAMPLE, level_db=-25.0)).eval()
    blind.load_state_dict(tagger.state_dict())
    clips = noise(8000).unflatten(0, (2, -1))
    torch.testing.assert_close(blind(0.01 * clips).embedding, blind(clips).embedding)
    at_level = clips * (10 ** (-25 / 20) / clips.square().mean(dim=1, keepdim=True).sqrt())
    torch.testing.assert_close(blind(clips).embedding, tagger(at_level).embedding)
    silence = torch.zeros(1, 4000)
    assert torch.equal(blind(silence).embedding, tagger(silence).embedding)


def test_blocks_are_skipped_while_training_only() -> None:
    torch.manual_seed(0)
    tagger = Htsat(replace(EXAMPLE, drop_path=0.5))
    # Batch norm would tell clips apart too, by their company.
    tagger.mel_norm.eval()
    clips = noise(4000)[None].expand(40, -1)
    embeddings = tagger(clips).embedding
    distinct = {tuple(row) for row in embeddings.detach().mul(1e4).round().tolist()}
    # Three blocks, the first never skipped, two branches in each of the others.
    assert 2 < len(distinct) <= 16
    assert not torch.equal(tagger(clips).embedding, embeddings)
    tagger.eval()
    assert torch.equal(tagger(clips).embedding, tagger(clips).embedding)
    # On average the branches count as much as in the end.
    tagger.train().mel_norm.eval()
    mean = torch.stack([tagger(clips).embedding.mean(dim=0) for _ in range(30)]).mean(dim=0)
    torch.testing.assert_close(mean, tagger.eval()(clips[:1]).embedding[0], atol=0.05, rtol=0.05)
