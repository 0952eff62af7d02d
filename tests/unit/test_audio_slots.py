"""The slot model: the proofs that its specification asks for."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tiny_slots import RATE, SMALL, STFT
from unbraid.config import dump
from unbraid.dsp.stft import FftTransform, StftConfig
from unbraid.errors import ConfigError
from unbraid.models.architectures.audio_slots import (
    ARCHITECTURE,
    AudioSlots,
    AudioSlotsConfig,
    compressed_magnitudes,
    expanded_magnitudes,
    masked,
    masks_of,
)
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.objectives.assignment import assign_freely, assign_within_equal_prompts
from unbraid.objectives.losses import matched_mse_loss
from unbraid.objectives.measures import si_sdr_db
from unbraid.separation.separator import StreamSeparator, separate_waveform
from unbraid.separation.settings import SeparationConfig
from unbraid.types import Waveform

PAPER_STFT = StftConfig(512, 125, "hann", "reflect")
VARIANTS = {
    "transformer": SMALL,
    "slot attention": replace(SMALL, attention="slot"),
    "sine positions": replace(SMALL, positions="sine"),
    "detail": replace(SMALL, detail_dim=4),
}


def build(config: AudioSlotsConfig = SMALL, stft: StftConfig = STFT) -> AudioSlots:
    torch.manual_seed(0)
    network = ARCHITECTURE.build(config, RATE, stft).eval()
    assert isinstance(network, AudioSlots)
    return network


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------ shapes and sizes


@pytest.mark.parametrize(("preset", "frames"), [("base", 64), ("base-1s", 128)])
def test_the_shapes_of_the_paper(preset: str, frames: int) -> None:
    config = ARCHITECTURE.presets[preset]
    seconds = frames * 125 / 16_000
    assert PAPER_STFT.num_frames(round(seconds * 16_000)) == frames + 1
    with torch.device("meta"):
        network = ARCHITECTURE.build(config, 16_000, PAPER_STFT)
        assert isinstance(network, AudioSlots)
        image = network.image(torch.empty(2, 2, frames + 1, 257))
        assert image.shape == (2, frames, 256)
        maps = [tuple(each.shape) for each in network.encoder(image[:, None])]
        assert maps[0] == (2, 64, frames, 256)
        assert maps[-1] == (2, 512, frames // 8, 32)
        assert network.slots(image).shape == (2, 1, 2, 512)
        assert network.magnitudes(image).shape == (2, 2, frames, 256)


def test_the_sizes_of_the_presets() -> None:
    sizes = {}
    for name, config in ARCHITECTURE.presets.items():
        with torch.device("meta"):
            network = ARCHITECTURE.build(config, 16_000, PAPER_STFT)
        parts = {
            part: sum(each.numel() for each in getattr(network, part).parameters())
            for part in ("encoder", "attention", "decoder")
        }
        sizes[name] = parts | {"all": sum(each.numel() for each in network.parameters())}
    # The ResNet-34 of torchvision has 21,797,672 with its last layer of 513,000, and hears three
    # colours in its root.
    assert sizes["base"]["encoder"] == 21_797_672 - 513_000 - 2 * 64 * 49
    assert sizes["base"]["all"] == 39_276_737
    # A layer as wide as the paper's slots has 4 D^2 in self-attention, 2 D^2 + 2 D C in
    # cross-attention, 2 D^2 in its MLP, and O(D).
    dim, channels = 4096, 512
    layer = 8 * dim**2 + 2 * dim * channels + 6 * dim + 2 * dim
    assert sizes["paper"]["attention"] == 4 * layer + 2 * dim
    assert sizes["paper"]["all"] == 578_105_537
    assert sizes["base-autoencoder"]["all"] == sizes["base"]["all"] - 512


# ------------------------------------------------------------------ equivariance and assignment


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_another_order_of_queries_gives_the_slots_in_that_order(variant: str) -> None:
    network = build(VARIANTS[variant])
    image = noise(2, 16, 32).abs()
    queries = network.queries.clone()
    slots, outputs = network.generate(image)
    torch.testing.assert_close(network.slots(image), slots)
    assert (slots[:, :, 0] - slots[:, :, 1]).abs().max() > 1e-2
    for order in itertools.permutations(range(3)):
        permuted = network.slots(image, queries[list(order)].expand(2, -1, -1))
        torch.testing.assert_close(permuted, slots[:, :, order], atol=1e-6, rtol=1e-5)
        network.queries.copy_(queries[list(order)])
        drawn = network.magnitudes(image)
        torch.testing.assert_close(drawn, outputs[:, order], atol=1e-6, rtol=1e-5)


def test_the_loss_is_that_of_the_hungarian_algorithm() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    for size in range(1, 7):
        estimates, references = noise(3, size, 4, 5), noise(3, size, 4, 5, seed=1)
        pairwise = (estimates[:, :, None] - references[:, None]).square().mean(dim=(-2, -1))
        rows = torch.zeros(3, size, dtype=torch.long)
        chosen = [optimize.linear_sum_assignment(each.numpy().T)[1] for each in pairwise]
        expected = torch.tensor([list(each) for each in chosen])
        assert torch.equal(assign_within_equal_prompts(pairwise, rows), expected)
        assert torch.equal(assign_freely(pairwise), expected)
        best = min(
            itertools.permutations(range(size)),
            key=lambda order: float(pairwise[0, list(order), range(size)].sum()),
        )
        assert list(best) == expected[0].tolist()
        mean = pairwise.gather(1, expected[:, None]).mean()
        torch.testing.assert_close(matched_mse_loss(estimates, references, rows), mean)


def test_the_loss_does_not_depend_on_the_order_of_equal_references() -> None:
    estimates, references = noise(2, 3, 4, 5), noise(2, 3, 4, 5, seed=1)
    equal = torch.zeros(2, 3, dtype=torch.long)
    different = torch.tensor([[0, 1, 2]] * 2)
    base = matched_mse_loss(estimates, references, equal)
    for order in itertools.permutations(range(3)):
        torch.testing.assert_close(matched_mse_loss(estimates, references[:, order], equal), base)
    swapped = matched_mse_loss(estimates, estimates[:, [1, 0, 2]], different)
    assert float(swapped) > 0.1
    assert float(matched_mse_loss(estimates, estimates[:, [1, 0, 2]], equal)) == 0.0


# ------------------------------------------------------------------ decoder


def test_a_value_depends_on_its_slot_alone() -> None:
    network = build()
    slots = noise(2, 3, 16)
    with torch.no_grad():
        before = network.decode(slots)
        slots[0, 1] += 1.0
        changed = (network.decode(slots) != before).flatten(2).any(dim=2)
    assert changed.tolist() == [[False, True, False], [False, False, False]]


@torch.no_grad()
def test_a_grid_that_is_twice_as_fine_goes_through_the_same_places() -> None:
    network = build()
    slots = noise(1, 2, 16)
    coarse, fine = network.decode(slots), network.decode(slots, 32, 64)
    assert fine.shape == (1, 2, 32, 64)
    torch.testing.assert_close(fine[..., ::2, ::2], coarse, atol=1e-5, rtol=1e-5)
    assert (fine[..., 1::2, :] - fine[..., ::2, :]).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_frames_are_drawn_each_by_itself(variant: str) -> None:
    network = build(replace(VARIANTS[variant], carries_slots=True))
    image = noise(2, 32, 32).abs()
    every = network.magnitudes(image).unflatten(2, (2, 16))
    frames = torch.tensor([5, 0, 15])
    drawn = network.magnitudes(image, frames).unflatten(2, (2, 3))
    torch.testing.assert_close(drawn, every[:, :, :, frames])


@torch.no_grad()
def test_detail_follows_the_bins_of_the_mixture() -> None:
    plain, network = build(), build(replace(SMALL, detail_dim=4))
    plain.load_state_dict(network.state_dict(), strict=False)
    image = noise(1, 16, 32).abs()
    detail = network.magnitudes(image) - plain.magnitudes(image)
    assert 0.0 < detail.abs().mean() < 0.3, "it begins faint"
    # One bin changes it most in that bin.
    network.detail.from_slot.weight.mul_(50.0)
    sharp = network.magnitudes(image) - plain.magnitudes(image)
    image[0, 8, 20] += 1.0
    moved = network.magnitudes(image) - plain.magnitudes(image) - sharp
    assert moved[0, :, 8, 20].abs().max() > 3.0 * moved.abs().mean()


# ------------------------------------------------------------------ magnitudes and masks


def test_compression_can_be_undone() -> None:
    spectrogram = noise(2, 2, 9, 33) * 10.0 ** noise(2, 1, 9, 33)
    compressed = compressed_magnitudes(spectrogram)
    magnitude = spectrogram.square().sum(dim=1).sqrt()[:, :-1, :-1]
    torch.testing.assert_close(compressed, magnitude**0.3)
    torch.testing.assert_close(expanded_magnitudes(compressed), magnitude, rtol=1e-4, atol=0.0)
    assert not expanded_magnitudes(-compressed).any()


@torch.no_grad()
def test_masks_share_out_what_is_there() -> None:
    compressed = noise(2, 3, 5, 7)
    binary, wiener = masks_of(compressed, "binary"), masks_of(compressed, "wiener")
    assert set(binary.flatten().tolist()) == {0.0, 1.0}
    assert bool((binary.sum(dim=1) == 1.0).all())
    loudest = compressed.clamp_min(1e-2).argmax(dim=1)
    assert torch.equal(binary.argmax(dim=1), loudest)
    torch.testing.assert_close(wiener.sum(dim=1), torch.ones(2, 5, 7))
    loud = compressed.abs() + 0.1
    power = expanded_magnitudes(loud).square()
    shares = power / power.sum(dim=1, keepdim=True)
    torch.testing.assert_close(masks_of(loud, "wiener"), shares, rtol=1e-4, atol=1e-7)
    silent = masks_of(torch.full((1, 3, 1, 1), -1.0), "wiener")
    torch.testing.assert_close(silent, torch.full((1, 3, 1, 1), 1 / 3))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["wiener", "binary"])
def test_the_dropped_frame_and_bin_take_the_masks_beside_them(kind: str) -> None:
    mixture = noise(1, 2, 12, 33)
    compressed = torch.nn.functional.pad(noise(1, 2, 11, 32).abs(), (0, 0, 0, 5))
    sources = masked(mixture, compressed, kind)
    torch.testing.assert_close(sources.sum(dim=1), mixture)
    masks = masks_of(compressed, kind)
    for frame, beside in ((10, 10), (11, 10)):
        expected = masks[:, :, beside, 31] * mixture[:, 0, frame, 32]
        torch.testing.assert_close(sources[:, :, 0, frame, 32], expected)
    torch.testing.assert_close(
        sources[:, :, :, :11, :32], masks[:, :, None, :11] * mixture[:, None, :, :11, :32]
    )


# ------------------------------------------------------------------ lengths


def model_of(config: AudioSlotsConfig, **settings: float) -> WaveformModel:
    torch.manual_seed(0)
    outputs = ("speech",) * config.num_slots
    settings = {"segment_s": 0.064, "overlap_s": 0.032} | settings
    return build_model(
        ModelConfig("audio_slots", RATE, STFT, dump(config), outputs=outputs, **settings)
    ).eval()


@torch.no_grad()
def test_sources_add_up_to_the_mixture_at_any_length() -> None:
    model = model_of(SMALL)
    for length in (1, 15, 16, 17, 100, 255, 256):
        signal = noise(1, length)
        sources = model(signal, torch.tensor([[0, 0, 0]]))
        torch.testing.assert_close(sources.sum(dim=1), signal, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_longer_input_is_refused_unless_slots_are_carried() -> None:
    asked = torch.tensor([[0, 0, 0]])
    with pytest.raises(ConfigError, match=r"hears 0\.064 s at once, and was given 0\.068 s"):
        model_of(SMALL)(noise(1, 257), asked)
    carries = model_of(replace(SMALL, carries_slots=True))
    assert carries(noise(1, 1000), asked).shape == (1, 3, 1000)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["transformer", "slot"])
def test_carried_slots_start_the_next_chunk(attention: str) -> None:
    network = build(replace(SMALL, carries_slots=True, attention=attention))
    image = noise(2, 48, 32).abs()
    slots = network.slots(image)
    assert slots.shape == (2, 3, 3, 16)
    first = network.slots(image[:, :16])
    second = network.slots(image[:, 16:32], first[:, 0])
    torch.testing.assert_close(slots[:, 0], first[:, 0])
    torch.testing.assert_close(slots[:, 1], second[:, 0])
    fresh = build(replace(SMALL, attention=attention)).slots(image)
    assert (fresh[:, 1] - slots[:, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("segment_s", [None, 0.02, 8.0])
def test_recordings_of_any_length_are_separated(segment_s: float | None) -> None:
    model = model_of(replace(SMALL, num_slots=2))
    separator = StreamSeparator(model, SeparationConfig(segment_s=segment_s))
    expected = {None: (0.064, 0.032), 0.02: (0.02, 0.005), 8.0: (0.064, 0.032)}[segment_s]
    assert (separator.config.segment_s, separator.config.overlap_s) == expected
    recording = Waveform(0.1 * noise(1, 5001), 8000)
    done = separate_waveform(separator, recording, ("speech", "speech"))
    assert done.sources.shape == (2, 1, 5001)
    assert bool(torch.isfinite(done.sources).all())


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_slots": 0}, "num_slots must be positive"),
        ({"frames": 12}, "multiple of 8, not 12"),
        ({"frames": 0}, "multiple of 8, not 0"),
        ({"decoder_layers": 1}, "at least 2"),
        ({"detail_dim": -1}, "may not be negative"),
        ({"detail_dim": 4, "num_slots": 1}, "would copy its input"),
        ({"depths": (1, 0, 1, 1)}, "must be positive"),
        ({"norm_groups": 3}, r"norm_groups \(3\) must divide"),
        ({"num_heads": 3}, r"num_heads \(3\) must divide dim"),
        ({"positions": "sine", "channels": (2, 2, 2, 2)}, "multiple of 4"),
    ],
)
def test_sizes_that_make_no_network_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(SMALL, **change)


def test_bins_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ConfigError, match="halves 50 bins three times"):
        build(stft=StftConfig(100, 50))


# ------------------------------------------------------------------ learning


def two_tones_and_two_noises(length: int) -> Tensor:
    """Eight pairs of sources: four of tones, four of noises in two bands, as loud as recordings."""
    time = torch.arange(length) / RATE
    pairs = []
    for item in range(4):
        low, high = 300.0 + 90.0 * item, 1000.0 + 170.0 * item
        pairs.append(torch.stack([torch.sin(2 * math.pi * hz * time) for hz in (low, high)]))
        spectrum = torch.fft.rfft(noise(2, length, seed=item))
        hz = torch.fft.rfftfreq(length, 1 / RATE)
        is_low = hz < 700.0 + 120.0 * item
        pairs.append(torch.fft.irfft(spectrum * torch.stack([is_low, ~is_low]), n=length))
    sources = torch.stack(pairs)
    return 0.1 * sources / sources.std(dim=-1, keepdim=True)


@pytest.mark.slow
def test_eight_mixtures_are_learnt_by_heart_and_separated() -> None:
    config = replace(
        SMALL, num_slots=2, channels=(8, 16, 16, 32), dim=64, hidden_dim=64,
        decoder_dim=128, decoder_layers=4,
    )  # fmt: skip
    model = model_of(config)
    network = model.network
    assert isinstance(network, AudioSlots)
    references = two_tones_and_two_noises(256)
    mixture = references.sum(dim=1)
    transform = FftTransform(STFT)
    image = network.image(transform.analyse(mixture))
    targets = network.image(transform.analyse(references.flatten(0, 1))).unflatten(0, (8, 2))
    rows = torch.zeros(8, 2, dtype=torch.long)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    num_steps = 1200
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, num_steps)
    for _ in range(num_steps):
        optimiser.zero_grad()
        loss = matched_mse_loss(network.magnitudes(image), targets, rows)
        loss.backward()
        optimiser.step()
        schedule.step()
    assert float(loss.detach()) < 1e-3
    with torch.no_grad():
        sources = masked(transform.analyse(mixture), network.magnitudes(image), "wiener")
        estimates = transform.synthesise(sources.flatten(0, 1), 256).unflatten(0, (8, 2))
    pairwise = si_sdr_db(
        estimates[:, :, None].expand(-1, -1, 2, -1), references[:, None].expand(-1, 2, -1, -1)
    )
    assert float(-(pairwise.gather(1, assign_freely(-pairwise)[:, None])).mean()) < -10.0
