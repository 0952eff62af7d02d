"""The query-conditioned U-Net: what the contract does not ask and parity does not show."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unbraid.config import dump
from unbraid.dsp.stft import StftConfig
from unbraid.errors import ConfigError, PromptError
from unbraid.models.architectures.query_unet import ARCHITECTURE, QueryUnet, QueryUnetConfig
from unbraid.models.taggers.htsat import EXAMPLE
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model

STFT = StftConfig(256, 80, "hann", "reflect")
CONFIG = ModelConfig(
    "query_unet",
    16_000,
    STFT,
    dump(ARCHITECTURE.examples["two levels"]),
    prompts=("speech", "dog"),
    level="none",
    tagger=EXAMPLE,
)


@pytest.fixture
def model() -> WaveformModel:
    torch.manual_seed(0)
    return build_model(CONFIG).eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_published_size() -> None:
    stft = StftConfig(2048, 320, "hann", "reflect")
    with torch.device("meta"):
        network = ARCHITECTURE.build(ARCHITECTURE.presets["published"], 32_000, stft)
    sizes = {name: each.numel() for name, each in network.named_parameters()}
    assert sum(sizes.values()) == 167_614_499
    conditions = [size for name, size in sizes.items() if ".condition." in name]
    assert sum(conditions) == 29_177_760


def test_masks_take_between_nothing_and_all(model: WaveformModel) -> None:
    mixture, queries = noise(2, 2, 13, 129), noise(2, 3, 8)
    with torch.no_grad():
        sources = model.network(mixture, queries)
    gains = sources / mixture[:, None]
    assert float(gains.min()) > 0.0
    assert float(gains.max()) < 1.0
    # One mask for both parts keeps the phase; the highest bin has no mask of its own.
    torch.testing.assert_close(gains[:, :, 0], gains[:, :, 1])
    assert bool((sources[..., -1] == 0.5 * mixture[:, None, ..., -1]).all())


def test_sources_do_not_see_each_other(model: WaveformModel) -> None:
    mixture = noise(1, 4000)
    with torch.no_grad():
        together = model(mixture, torch.tensor([[0, 1]]))
        alone = model(mixture, torch.tensor([[1]]))
    torch.testing.assert_close(together[:, 1:], alone)


def test_without_normalisation_levels_are_heard(model: WaveformModel) -> None:
    mixture, asked = noise(1, 4000), torch.tensor([[0]])
    blind = copy.deepcopy(model)
    blind.config = replace(CONFIG, level="deviation")
    with torch.no_grad():
        for each, hears_levels in ((model, True), (blind, False)):
            quiet, loud = each(mixture, asked), each(100.0 * mixture, asked) / 100.0
            assert ((loud - quiet).abs().max() > 0.01 * quiet.abs().max()) == hears_levels


def test_batch_norms_learn_in_training_only(model: WaveformModel) -> None:
    assert isinstance(model.network, QueryUnet)
    before = copy.deepcopy(model.network.state_dict())
    model(noise(2, 4000), torch.tensor([[0], [1]]))
    assert all(torch.equal(each, before[name]) for name, each in model.network.state_dict().items())
    model.network.train()
    model(noise(2, 4000), torch.tensor([[0], [1]]))
    assert not torch.equal(model.network.bin_norm.running_mean, before["bin_norm.running_mean"])


def test_tuning_a_prompt_leaves_all_else_alone(model: WaveformModel) -> None:
    model.network.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    target = 0.1 * noise(1, 1, 4000)
    optimiser = torch.optim.Adam(model.prompts.parameters(), lr=0.05)
    losses = []
    for _ in range(8):
        loss = (model(noise(1, 4000), torch.tensor([[1]])) - target).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    after = model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "prompts.weight"
    }
    assert torch.equal(before["prompts.weight"][0], after["prompts.weight"][0])


def test_the_tagger_is_frozen_and_no_part_of_the_size(model: WaveformModel) -> None:
    assert model.tagger is not None
    assert not any(each.requires_grad for each in model.tagger.parameters())
    assert build_model(replace(CONFIG, tagger=None)).num_parameters == model.num_parameters


def test_a_tagger_with_other_embeddings_is_refused() -> None:
    with pytest.raises(ConfigError, match="embeddings of the tagger have 16 numbers"):
        build_model(replace(CONFIG, tagger=replace(EXAMPLE, dim=8)))


def test_prompts_are_added_without_touching_the_model(model: WaveformModel) -> None:
    mixture, vector = noise(1, 4000), noise(1, 8)
    more = model.with_prompts({"bell": vector})
    assert more.prompts.names == more.config.prompts == ("speech", "dog", "bell")
    assert model.prompts.names == model.config.prompts == ("speech", "dog")
    assert more.network is model.network
    assert more.tagger is model.tagger
    with torch.no_grad():
        same = more(mixture, more.prompts.indices(["dog"])[None])
        assert torch.equal(same, model(mixture, model.prompts.indices(["dog"])[None]))
        bell = more(mixture, more.prompts.indices(["bell"])[None])
        assert (bell - same).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "shape"), [("dog", (1, 8)), ("", (1, 8)), (" bell", (1, 8)), ("bell", (1, 9))]
)
def test_prompts_that_do_not_fit_are_refused(
    model: WaveformModel, name: str, shape: tuple[int, int]
) -> None:
    with pytest.raises(PromptError):
        model.with_prompts({name: torch.zeros(shape)})


@pytest.mark.parametrize("change", [{"channels": (4,)}, {"channels": (4, 0)}, {"query_dim": 0}])
def test_sizes_that_make_no_network_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        replace(ARCHITECTURE.examples["two levels"], **change)


def test_bins_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 4"):
        QueryUnet(QueryUnetConfig((2, 2, 2), 4), 16_000, StftConfig(250, 50))
