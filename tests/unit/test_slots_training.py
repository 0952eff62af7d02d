"""Learning slots: what is compared with what, and that it is learnt."""

from dataclasses import replace

import pytest
import torch

from tiny_slots import RATE, SMALL, STFT
from unbraid.config import dump
from unbraid.data.dynamic import MixtureBatch
from unbraid.errors import ConfigError
from unbraid.models.architectures.audio_slots import compressed_magnitudes
from unbraid.models.architectures.unconditional import ARCHITECTURE as UNCONDITIONAL
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.training.methods.slots import SlotsConfig, autoencoder_estimates, slots_loss

NETWORK = replace(SMALL, num_layers=1, decoder_dim=32)


def model_of(*outputs: str, level: str = "deviation", **changes: object) -> WaveformModel:
    torch.manual_seed(0)
    network = replace(NETWORK, num_slots=len(outputs), **changes)
    return build_model(
        ModelConfig("audio_slots", RATE, STFT, dump(network), outputs=outputs, level=level)
    )


def low_and_high(length: int = 256, seed: int = 0) -> MixtureBatch:
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(length) / RATE
    hz = torch.tensor([[300.0], [1500.0]]) * (1 + 0.1 * torch.rand(4, 2, 1, generator=generator))
    sources = torch.sin(6.28 * hz * time)
    return MixtureBatch(sources.sum(dim=1), sources, torch.zeros(4, 2, dtype=torch.long))


def images(signals: torch.Tensor, batch: MixtureBatch) -> torch.Tensor:
    """Compressed magnitudes by PyTorch's own transform."""
    scaled = signals / (batch.mixture.std(dim=-1)[:, None, None] + 1e-8)
    spectrum = torch.stft(
        scaled.flatten(0, 1), 64, 16, window=torch.hann_window(64), return_complex=True
    )
    return spectrum.abs()[:, :32, :16].pow(0.3).mT.unflatten(0, signals.shape[:2])


@torch.no_grad()
def test_the_loss_compares_what_slots_generate_with_the_sources() -> None:
    model, batch = model_of("speech", "speech"), low_and_high()
    network = model.network
    heard = images(batch.mixture[:, None], batch)[:, 0]
    torch.testing.assert_close(
        compressed_magnitudes(torch.zeros(1, 2, 3, 33)), torch.zeros(1, 2, 32)
    )
    generated, targets = network.magnitudes(heard), images(batch.references, batch)
    straight = (generated - targets).square().mean(dim=(1, 2, 3))
    crossed = (generated - targets.flip(1)).square().mean(dim=(1, 2, 3))
    expected = torch.minimum(straight, crossed).mean()
    torch.testing.assert_close(slots_loss(model, batch), expected, rtol=1e-4, atol=1e-5)
    # Outputs of different kinds do not trade places.
    named = model_of("speech", "sfx-mix")
    rows = MixtureBatch(batch.mixture, batch.references, torch.tensor([[0, 1]] * 4))
    torch.testing.assert_close(slots_loss(named, rows), straight.mean(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_share_of_the_frames_stands_for_all() -> None:
    batch = low_and_high()
    for model in (model_of("speech", "speech"), model_of("speech")):
        whole = float(slots_loss(model, batch))
        torch.manual_seed(0)
        drawn = torch.stack([slots_loss(model, batch, 0.25) for _ in range(200)])
        assert float(drawn.std()) > 1e-3 * whole
        assert float(drawn.mean()) == pytest.approx(whole, rel=0.05)


def test_other_networks_and_no_frames_are_refused() -> None:
    with pytest.raises(ConfigError, match="above 0, not 0"):
        SlotsConfig(drawn_share=0.0)
    other = build_model(
        ModelConfig(
            "unconditional", RATE, STFT, dump(next(iter(UNCONDITIONAL.examples.values()))),
            outputs=("source", "source"),
        )
    )  # fmt: skip
    with pytest.raises(ConfigError, match="for the architecture audio_slots, not unconditional"):
        slots_loss(other, low_and_high())


@torch.no_grad()
def test_a_slot_without_a_source_is_to_be_silent() -> None:
    model, batch = model_of("speech", "speech", "speech"), low_and_high()
    silence = torch.zeros(4, 1, 256)
    complete = MixtureBatch(
        batch.mixture,
        torch.cat([batch.references, silence], dim=1),
        torch.zeros(4, 3, dtype=torch.long),
    )
    torch.testing.assert_close(slots_loss(model, batch), slots_loss(model, complete))


def test_the_loss_and_its_estimates_do_not_depend_on_the_level() -> None:
    batch = low_and_high()
    quiet = MixtureBatch(1e-2 * batch.mixture, 1e-2 * batch.references, batch.prompt_indices)
    for model in (model_of("speech", "speech"), model_of("speech")):
        torch.testing.assert_close(
            slots_loss(model, quiet), slots_loss(model, batch), rtol=1e-3, atol=1e-4
        )


def test_slots_at_absolute_levels_are_refused() -> None:
    with pytest.raises(ConfigError, match="level deviation, not none"):
        slots_loss(model_of("speech", "speech", level="none"), low_and_high())


def test_carried_slots_learn_from_mixtures_of_several_chunks() -> None:
    batch = low_and_high(700)
    with pytest.raises(ConfigError, match="carries_slots"):
        slots_loss(model_of("speech", "speech"), batch)
    model = model_of("speech", "speech", carries_slots=True)
    slots_loss(model, batch).backward()
    assert all(bool(each.grad.any()) for each in model.network.parameters())


def test_an_autoencoder_learns_what_masks_need() -> None:
    model = model_of("speech")
    batch = low_and_high()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(120):
        optimiser.zero_grad()
        slots_loss(model, low_and_high(seed=step)).backward()
        optimiser.step()
    with torch.no_grad():
        wiener = autoencoder_estimates(model, batch)
        binary = autoencoder_estimates(model, batch, "binary")
    for estimates in (wiener, binary):
        assert estimates.shape == batch.references.shape
        torch.testing.assert_close(estimates.sum(dim=1), batch.mixture, atol=1e-4, rtol=1e-4)
        error = (estimates - batch.references).square().mean()
        assert float(error) < 0.03 * float(batch.references.square().mean())
