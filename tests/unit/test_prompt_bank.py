"""Prompts that are added to a model: rows behind its own, one vector or one per band."""

from pathlib import Path

import pytest
import torch

from unbraid.checkpoints import Card, load_bundle, save_bundle
from unbraid.errors import CheckpointError, PromptError
from unbraid.models.inference import for_inference
from unbraid.models.waveform import WaveformModel
from unbraid.prompts import STANDARD_PROMPTS, PromptBank

BANDS = 8


def mixture(length: int = 12_000) -> torch.Tensor:
    return torch.randn(1, length, generator=torch.Generator().manual_seed(0))


def per_band(seed: int = 0) -> torch.Tensor:
    return torch.randn(BANDS, 8, generator=torch.Generator().manual_seed(seed))


def test_a_bank_grows_at_its_end_and_the_old_one_stays() -> None:
    bank = PromptBank(STANDARD_PROMPTS, 4)
    before = bank.weight.detach().clone()
    bigger = bank.with_prompts({"door-bell": torch.arange(4.0)[None], "music": torch.ones(1, 4)})
    assert bigger.names == (*STANDARD_PROMPTS, "door-bell", "music")
    assert torch.equal(
        bigger.weight, torch.cat([before, torch.arange(4.0)[None], torch.ones(1, 4)])
    )
    assert bigger.resolve(["music", "musicbg"]) == ("music", "music-mix")
    with torch.no_grad():
        bigger.weight.zero_()
    assert bank.names == STANDARD_PROMPTS
    assert torch.equal(bank.weight, before)


def test_adding_prompts_draws_no_random_numbers() -> None:
    bank = PromptBank(STANDARD_PROMPTS, 4)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    bank.with_prompts({"door-bell": torch.zeros(1, 4)})
    assert torch.equal(torch.rand(1), expected)


def test_rows_are_repeated_once_a_prompt_has_a_vector_per_band() -> None:
    bank = PromptBank(["speech"], 2, query_vectors=(1, 3)).with_prompts({"one": torch.ones(1, 2)})
    wide = bank.with_prompts({"three": torch.arange(6.0).view(3, 2)})
    assert torch.equal(wide.weight[:2], bank.weight.repeat(1, 3))
    assert wide.weight[2].tolist() == [0, 1, 2, 3, 4, 5]
    again = wide.with_prompts({"four": torch.full((1, 2), 4.0)})
    assert torch.equal(again.weight[:3], wide.weight)
    assert again.weight[3].tolist() == [4.0] * 6


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("speech", (1, 2), "has one of that name already"),
        ("", (1, 2), "no name for a prompt"),
        (" bell", (1, 2), "no name for a prompt"),
        ("bell", (1, 3), r"\[1, 3\], but this model takes \[1, 2\] or \[3, 2\]"),
        ("bell", (2, 2), r"\[2, 2\], but"),
        ("bell", (0, 2), r"\[0, 2\], but"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, shape: tuple[int, int], words: str) -> None:
    bank = PromptBank(["speech"], 2, query_vectors=(1, 3))
    with pytest.raises(PromptError, match=words):
        bank.with_prompts({name: torch.zeros(shape)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(PromptError, match="no finite numbers"):
        PromptBank(["speech"], 2).with_prompts({"bell": torch.tensor([[0.0, value]])})


def test_models_with_fixed_outputs_take_no_prompts() -> None:
    with pytest.raises(PromptError, match=r"same outputs \(vocals, drums\)"):
        PromptBank(["vocals", "drums"], 0, [1, 1]).with_prompts({"bell": torch.zeros(1, 0)})


def test_a_copy_of_a_learned_vector_gives_the_same_sources(tiny_model: WaveformModel) -> None:
    speech = tiny_model.prompts.weight[:1].detach()
    taught = tiny_model.with_prompts({"voice": speech, "voice-bands": speech.repeat(BANDS, 1)})
    expected = tiny_model(mixture(), torch.tensor([[0, 3]]))
    # Every row is now a vector per band, the learned ones too.
    assert taught.prompts.weight.shape[1] == BANDS * 8
    for row in (0, 8, 9):
        assert torch.equal(taught(mixture(), torch.tensor([[row, 3]])), expected)
    assert taught.network is tiny_model.network
    assert tiny_model.prompts.names == STANDARD_PROMPTS


def test_every_vector_of_a_prompt_is_heard(tiny_model: WaveformModel) -> None:
    vectors = per_band()
    rows = torch.tensor([[8]])
    base = tiny_model.with_prompts({"bell": vectors})(mixture(), rows)
    assert (base - tiny_model(mixture(), torch.tensor([[0]]))).abs().max() > 1e-5
    for band in range(BANDS):
        changed = vectors.clone()
        changed[band] += 1.0
        other = tiny_model.with_prompts({"bell": changed})(mixture(), rows)
        assert (other - base).abs().max() > 1e-6, band


def test_the_fast_path_knows_vectors_per_band(tiny_model: WaveformModel) -> None:
    taught = tiny_model.with_prompts({"bell": per_band()})
    rows = torch.tensor([[8, 0]])
    with torch.inference_mode():
        slow, fast = taught(mixture(), rows), for_inference(taught)(mixture(), rows)
    assert (slow - fast).abs().max() < 1e-5 * slow.abs().max()


def test_queries_of_any_other_width_are_no_queries(tiny_model: WaveformModel) -> None:
    spectrogram = torch.randn(1, 2, 5, 1025)
    assert tiny_model.network.query_vectors == (1, BANDS)
    with pytest.raises(RuntimeError):
        tiny_model.network(spectrogram, torch.randn(1, 1, 3 * 8))


def test_models_are_saved_with_prompts_of_one_vector_only(
    tiny_model: WaveformModel, tmp_path: Path
) -> None:
    narrow = tiny_model.with_prompts({"bell": torch.ones(1, 8)})
    loaded = load_bundle(save_bundle(narrow, tmp_path / "narrow", Card("tiny", "CC0-1.0"))).model
    assert loaded.prompts.names == (*STANDARD_PROMPTS, "bell")
    assert torch.equal(loaded.prompts.weight, narrow.prompts.weight)
    with pytest.raises(CheckpointError, match="one vector per prompt"):
        save_bundle(
            tiny_model.with_prompts({"bell": per_band()}),
            tmp_path / "wide",
            Card("tiny", "CC0-1.0"),
        )
    assert not (tmp_path / "wide").exists()
