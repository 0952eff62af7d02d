"""The model that ships inside the package."""

import dataclasses
from pathlib import Path

import pytest
import torch

import unbraid
from unbraid.apps.demo import SCENES, mix_scene
from unbraid.checkpoints import model_info, resolve_model
from unbraid.config import dump
from unbraid.objectives.measures import si_sdr_db
from unbraid.prompts import STANDARD_PROMPTS
from unbraid.training.recipe_files import load_recipe

RECIPE = Path(unbraid.__file__).parent / "training" / "recipes" / "mini.yaml"


@pytest.fixture(scope="module")
def mini() -> unbraid.Separator:
    return unbraid.load_separator("mini", device="cpu")


def test_it_is_small_knows_all_prompts_and_states_its_licence() -> None:
    info = model_info("mini")
    assert info.origin == "embedded"
    assert info.licence == "Apache-2.0"
    assert info.prompts == STANDARD_PROMPTS
    assert info.sample_rate == 48000
    assert sum(file.stat().st_size for file in info.path.iterdir()) <= 8_000_000


def test_it_is_what_the_recipe_makes() -> None:
    bundle = unbraid.load_bundle(resolve_model("mini"))
    config = load_recipe(RECIPE)
    # How to tell what is there is measured on what was trained.
    as_trained = dataclasses.replace(bundle.config, presence={}, discovery={})
    assert dump(as_trained) == dump(config.model)
    assert str(config.max_steps) in bundle.card.source
    assert f"{bundle.model.num_parameters:,}" in bundle.card.text


def test_it_takes_the_demo_scene_apart(mini: unbraid.Separator) -> None:
    mixture, references = mix_scene(SCENES[0])
    prompts = [source.prompt for source in SCENES[0].sources]
    estimates = mini.separate(mixture, prompts).sources[:, 0]
    before = si_sdr_db(mixture.samples.expand_as(references), references)
    after = si_sdr_db(estimates, references)
    assert (after - before).min() > 3.0


def test_a_prompt_alone_brings_out_its_source(mini: unbraid.Separator) -> None:
    mixture, references = mix_scene(SCENES[0])
    alone = mini.separate(mixture, ["speech"]).sources[0]
    before = si_sdr_db(mixture.samples[0], references[0])
    assert si_sdr_db(alone[0], references[0]) - before > 2.0


def test_chunked_and_whole_agree(mini: unbraid.Separator) -> None:
    mixture, _ = mix_scene(SCENES[0])
    prompts = ["speech", "sfx-mix", "music-mix"]
    chunked = mini.separate(mixture, prompts).sources
    whole = (
        unbraid.Separator(mini.model, unbraid.SeparationConfig(segment_s=60.0))
        .separate(mixture, prompts)
        .sources
    )
    # Context differs, so the estimates do a little; borders must not stand out.
    error = (chunked - whole).square().mean(dim=(0, 1))
    border = 7 * 48000  # middle of the one overlap: segments of 8 s that share 2 s
    near = error[border - 12000 : border + 12000].mean()
    assert near < 4 * error.mean()
    assert torch.linalg.norm(chunked - whole) < 0.3 * torch.linalg.norm(whole)
