"""Sources with equal prompts keep their places: through swaps, pauses, channels and levels."""

import itertools
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unbraid.audio import read
from unbraid.data.manifest import read_manifest
from unbraid.separation.chunking import Chunk, ChunkPlan, cut, make_plan
from unbraid.separation.identity import frames_of
from unbraid.separation.stitching import Stitcher, _changes

RATE = 16000
PLAN = make_plan(2.0, 0.5, RATE)


def voice(speaker: int, seconds: float, take: int = 0) -> torch.Tensor:
    """Noise with resonances that are a speaker's own, in syllables."""
    resonances = torch.rand(4, generator=torch.Generator().manual_seed(speaker))
    centres_hz = 300.0 * 20.0 ** ((torch.arange(4) + resonances) / 4)
    generator = torch.Generator().manual_seed(1000 * take + speaker)
    length = round(seconds * RATE)
    spectrum = torch.fft.rfft(torch.randn(length, generator=generator))
    octaves = torch.fft.rfftfreq(length, 1 / RATE).clamp_min(50.0).log2()
    peaks = torch.exp(-32.0 * (octaves[:, None] - centres_hz.log2()).square()).sum(dim=1)
    sound = torch.fft.irfft(spectrum * (peaks + 0.03) * 2.0 ** (8.0 - octaves), n=length)
    syllables = torch.rand(1, 1, length // 3200 + 2, generator=generator)
    envelope = torch.nn.functional.interpolate(syllables, length, mode="linear")[0, 0]
    return 0.05 * envelope * sound / sound.std()


def conversation(
    turns: list[tuple[int, float]], pause_s: float, voices: list[torch.Tensor]
) -> torch.Tensor:
    """References ``[source, time]``: turns of (who, seconds) with pauses between them."""
    pieces = []
    position = [0] * len(voices)
    for who, seconds in turns:
        count = round(seconds * RATE)
        piece = torch.zeros(len(voices), count + round(pause_s * RATE))
        piece[who, :count] = voices[who][position[who] : position[who] + count]
        position[who] += count
        pieces.append(piece)
    return torch.cat(pieces, dim=1)


def permuted_and_stitched(
    references: torch.Tensor,
    seed: int = 0,
    leakage: float = 0.15,
    gain: float = 1.0,
    *,
    remembers: bool = True,
    rate: int = RATE,
    plan: ChunkPlan = PLAN,
) -> torch.Tensor:
    """Stitch references ``[source, channel, time]`` whose order is random in every chunk."""
    sources, channels, length = references.shape
    generator = torch.Generator().manual_seed(seed)
    leaky = (1 - leakage) * references + leakage * references.sum(dim=0)
    noise = 1e-5 * torch.randn(channels, length, generator=generator)
    estimates = gain * (leaky + noise)
    stitcher = Stitcher(plan, ["speech"] * sources, sample_rate=rate, remembers=remembers)
    rng = random.Random(seed)
    pieces = []
    start = 0
    for chunk in cut([references.sum(dim=0)], plan):
        part = estimates[..., start : start + chunk.samples.shape[1]].clone()
        for channel in range(channels):
            part[:, channel] = part[rng.sample(range(sources), sources), channel]
        pieces.append(stitcher.add(part, chunk))
        start += plan.hop
    return torch.cat(pieces, dim=-1) / gain


def is_in_place(references: torch.Tensor, outputs: torch.Tensor) -> bool:
    """Whether one assignment fits every second of every channel in which something sounds."""
    right = set()
    for source, reference in enumerate(references):
        products = (outputs * reference).unfold(-1, RATE // 2, RATE // 2).sum(dim=-1)
        power = reference.square().unfold(-1, RATE // 2, RATE // 2).sum(dim=-1)
        places = products.argmax(dim=0)[power > 0.1 * power.max()]
        right |= {(source, int(place)) for place in places}
    return len(right) == len({place for _, place in right}) == len(references)


TURNS = [(0, 5.0), (1, 4.0), (0, 4.0), (0, 4.0), (1, 5.0), (1, 4.0), (0, 5.0), (1, 4.0)]


@pytest.fixture(scope="module")
def talk() -> torch.Tensor:
    return conversation(TURNS, 5.0, [voice(1, 30.0), voice(2, 30.0)])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("leakage", [0.0, 0.15, 0.3])
def test_speakers_find_their_places_again_after_pauses(
    talk: torch.Tensor, seed: int, leakage: float
) -> None:
    outputs = permuted_and_stitched(talk[:, None], seed, leakage)
    assert is_in_place(talk[:, None], outputs)


def test_without_memory_pauses_lose_them(talk: torch.Tensor) -> None:
    references = talk[:, None]
    outputs = [permuted_and_stitched(references, seed, remembers=False) for seed in range(3)]
    assert not all(is_in_place(references, output) for output in outputs)
    # Inside a turn the overlap is enough.
    turn = conversation([(0, 12.0)], 0.0, [voice(1, 30.0), voice(2, 30.0)])
    turn[1] = voice(2, 12.0)
    assert is_in_place(turn[:, None], permuted_and_stitched(turn[:, None], remembers=False))


@pytest.mark.slow
def test_a_long_pause_is_not_forgetting() -> None:
    voices = [voice(1, 30.0), voice(2, 30.0)]
    before = conversation([(0, 5.0), (1, 5.0)], 60.0, voices)
    after = conversation([(1, 5.0), (0, 5.0)], 60.0, [each.flip(0) for each in voices])
    references = torch.cat([before, after], dim=1)[:, None]
    for seed in range(3):
        assert is_in_place(references, permuted_and_stitched(references, seed))


def test_stereo_channels_agree(talk: torch.Tensor) -> None:
    late = talk.roll(8, dims=1)
    stereo = torch.stack(
        [torch.stack([talk[0], 0.5 * late[0]]), torch.stack([0.4 * late[1], talk[1]])]
    )
    for seed in range(3):
        assert is_in_place(stereo, permuted_and_stitched(stereo, seed))


def test_voices_that_share_no_channel_keep_different_places() -> None:
    # Both at once, each in one channel only: nothing but memory can tell whose is whose.
    first, second = voice(1, 12.0, take=1), voice(2, 12.0, take=1)
    lead = conversation([(0, 5.0), (1, 5.0)], 3.0, [voice(1, 9.0), voice(2, 9.0)])
    references = torch.cat([lead, torch.stack([first, second])], dim=1)
    silent = torch.zeros_like(references[0])
    stereo = torch.stack(
        [torch.stack([references[0], silent]), torch.stack([silent, references[1]])]
    )
    for seed in range(3):
        assert is_in_place(stereo, permuted_and_stitched(stereo, seed))


def test_only_sounds_that_change_together_agree() -> None:
    first, second = voice(1, 8.0), voice(2, 8.0)
    weights = torch.ones(frames_of(first[None], RATE).amplitudes.shape[1])
    here, late, other = (
        _changes(frames_of(sound[None], RATE), weights)
        for sound in (first, 0.3 * first.roll(16), second)
    )
    assert float(here @ late.mT) > 0.9
    assert abs(float(here @ other.mT)) < 0.35


def test_other_voices_in_the_other_channel_do_not_pull() -> None:
    # Without memory only the overlap says where the right channel's voice belongs. The left
    # channel's voice has nothing to do with it, although all voices are somewhat alike.
    both = torch.stack([voice(1, 16.0), voice(2, 16.0)])
    fades = torch.ones(2, 2, both.shape[1])
    fades[0, 1, 4 * RATE :] = 0.0
    fades[1, 0, 7 * RATE :] = 0.0
    stereo = both[:, None] * fades
    for seed in range(3):
        outputs = permuted_and_stitched(stereo, seed, leakage=0.0, remembers=False)
        assert is_in_place(stereo, outputs)


def test_three_effects(talk: torch.Tensor) -> None:
    voices = [voice(speaker, 30.0) for speaker in (1, 2, 3)]
    turns = [(0, 3.0), (1, 3.0), (2, 3.0), (1, 3.0), (0, 3.0), (2, 3.0), (0, 3.0), (1, 3.0)]
    references = conversation(turns, 4.0, voices)[:, None]
    for seed in range(3):
        assert is_in_place(references, permuted_and_stitched(references, seed))


@pytest.mark.parametrize("gain", [2.0**-60, 2.0**-10, 2.0**60])
def test_level_does_not_matter(talk: torch.Tensor, gain: float) -> None:
    references = talk[:, None, : 30 * RATE]
    plain = permuted_and_stitched(references)
    assert torch.equal(permuted_and_stitched(references, gain=gain), plain)


def test_a_recording_that_begins_with_quiet_babble_is_not_misled(talk: torch.Tensor) -> None:
    # Both voices far away, and from all places: nothing to be remembered once they are near.
    babble = 0.003 * (voice(1, 20.0, take=3) + voice(2, 20.0, take=3))
    quiet = torch.stack([babble, torch.zeros_like(babble)])
    references = torch.cat([quiet, talk], dim=1)[:, None]
    for seed in range(3):
        assert is_in_place(references, permuted_and_stitched(references, seed))


@settings(deadline=None, max_examples=30)
@given(
    prompts=st.lists(st.sampled_from(["speech", "sfx", "drums"]), min_size=1, max_size=7),
    channels=st.integers(1, 3),
    silent=st.booleans(),
    remembers=st.booleans(),
    seed=st.integers(0, 100),
)
def test_only_equal_prompts_are_exchanged_and_nothing_is_changed(
    prompts: list[str], channels: int, silent: bool, remembers: bool, seed: int
) -> None:
    # Without overlap a chunk comes out as it went in, except for the order.
    plan = ChunkPlan(800, 0)
    generator = torch.Generator().manual_seed(seed)
    sources = len(prompts)
    estimates = torch.randn(sources, channels, 2500, generator=generator)
    if silent:
        estimates[..., 700:1700] = 0.0
    stitcher = Stitcher(plan, prompts, sample_rate=8000, remembers=remembers)
    start = 0
    for chunk in cut([estimates.sum(dim=0)], plan):
        part = estimates[..., start : start + chunk.samples.shape[1]]
        given_part = part.clone()
        outputs = stitcher.add(part, chunk)
        assert torch.equal(part, given_part)  # the caller's tensor is left alone
        start += plan.hop
        for channel in range(channels):
            for prompt in set(prompts):
                group = [place for place in range(sources) if prompts[place] == prompt]
                orders = itertools.permutations(group)
                assert any(
                    torch.equal(outputs[group, channel], part[list(order), channel])
                    for order in orders
                )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("segment", "overlap"), [(5, 2), (3000, 100), (9000, 4000)])
@pytest.mark.parametrize("gain", [1e-38, 1e30])
def test_short_chunks_and_odd_numbers_are_joined_all_the_same(
    segment: int, overlap: int, dtype: torch.dtype, gain: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    length = 3 * segment + 1
    estimates = gain * torch.randn(2, 2, length, generator=generator, dtype=dtype)
    plan = ChunkPlan(segment, overlap)
    stitcher = Stitcher(plan, ["sfx", "sfx"], sample_rate=RATE)
    pieces = []
    for number, chunk in enumerate(cut([estimates.sum(dim=0)], plan)):
        start = number * plan.hop
        pieces.append(stitcher.add(estimates[..., start : start + chunk.samples.shape[1]], chunk))
    joined = torch.cat(pieces, dim=-1).sum(dim=0) / gain
    torch.testing.assert_close(joined, estimates.sum(dim=0) / gain, atol=1e-4, rtol=1e-4)


def test_different_prompts_are_only_joined() -> None:
    generator = torch.Generator().manual_seed(0)
    stitchers = [
        Stitcher(PLAN, ["speech", "drums"], sample_rate=RATE, remembers=remembers)
        for remembers in (True, False)
    ]
    for number in range(3):
        part = torch.randn(2, 1, PLAN.segment, generator=generator)
        chunk = Chunk(part.sum(dim=0), number == 0, number == 2)
        first, second = (stitcher.add(part, chunk) for stitcher in stitchers)
        assert torch.equal(first, second)


def test_silence_stays_silent_and_the_same_again_is_the_same(talk: torch.Tensor) -> None:
    silence = torch.zeros(2, 2, 5 * RATE)
    stitcher = Stitcher(PLAN, ["sfx", "sfx"], sample_rate=RATE)
    for start, chunk in enumerate(cut([silence[0]], PLAN)):
        part = silence[..., start * PLAN.hop :][..., : chunk.samples.shape[1]]
        assert not stitcher.add(part, chunk).any()
    references = talk[:, None]
    assert torch.equal(permuted_and_stitched(references, 5), permuted_and_stitched(references, 5))


def test_real_speakers_keep_their_places(shared: Path) -> None:
    manifest = shared / "data" / "manifest.csv"
    speakers = ("libri_1688", "libri_1998")
    voices = []
    for speaker in speakers:
        rows = [row for row in read_manifest(manifest) if row.speaker == speaker]
        clips = [read(manifest.parent / row.path) for row in rows]
        samples = torch.cat([clip.samples[0] / clip.samples.std() for clip in clips])
        assert {clip.sample_rate for clip in clips} == {RATE}
        voices.append(0.05 * samples)
    turns = [
        (0, 4.0),
        (1, 3.0),
        (1, 2.0),
        (0, 3.0),
        (1, 4.0),
        (0, 2.0),
        (0, 4.0),
        (1, 3.0),
        (0, 3.0),
        (1, 2.0),
    ]
    references = conversation(turns, 7.0, voices)[:, None]
    plan = make_plan(4.0, 1.0, RATE)
    results = {
        remembers: [
            is_in_place(
                references,
                permuted_and_stitched(references, seed, remembers=remembers, plan=plan),
            )
            for seed in range(3)
        ]
        for remembers in (True, False)
    }
    assert all(results[True])
    assert not all(results[False])


def test_channels_that_agree_are_never_taken_apart() -> None:
    # What the right channel holds speaks for the other order; it must follow all the same.
    first, second = voice(1, 6.0), voice(2, 6.0)
    estimates = torch.stack(
        [torch.stack([first, 0.1 * second]), torch.stack([second, 0.1 * first])]
    )
    stitcher = Stitcher(PLAN, ["speech", "speech"], sample_rate=RATE, channels_agree=True)
    pieces = []
    start = 0
    for number, chunk in enumerate(cut([estimates[0]], PLAN)):
        part = estimates[..., start : start + chunk.samples.shape[1]]
        pieces.append(stitcher.add(part.flip(0) if number % 2 else part, chunk))
        start += PLAN.hop
    torch.testing.assert_close(torch.cat(pieces, dim=-1), estimates, atol=1e-6, rtol=0)
