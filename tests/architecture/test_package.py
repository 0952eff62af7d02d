"""What users and readers hold on to: public names, light imports, layers, tensor names."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import unbraid
from conftest import ROOT
from unbraid.config import dump
from unbraid.dsp.stft import StftConfig
from unbraid.errors import MissingExtra
from unbraid.models.architectures.tuss import ARCHITECTURE
from unbraid.models.waveform import ModelConfig, build_model

#: Of extras; where they are not installed, what needs them is skipped. CI has them all.
OPTIONAL = {"fastapi", "prometheus_client", "starlette", "uvicorn"}

MODULES = [module.name for module in pkgutil.walk_packages(unbraid.__path__, "unbraid.")]


def test_public_names_are_sorted_and_there() -> None:
    assert unbraid.__all__ == sorted(unbraid.__all__)
    for name in unbraid.__all__:
        assert getattr(unbraid, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'seperate'"):
        unbraid.seperate  # noqa: B018 - the access is the test


def test_importing_the_package_is_light_and_changes_nothing() -> None:
    code = (
        "import sys, unbraid; "
        "heavy = {'torch', 'numpy', 'lightning', 'matplotlib', 'pydantic'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_every_module_can_be_imported_and_says_what_it_is(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except (ModuleNotFoundError, MissingExtra) as error:
        missing = error.__cause__ if isinstance(error, MissingExtra) else error
        if getattr(missing, "name", None) not in OPTIONAL:
            raise
        pytest.skip(str(error))
    assert module.__doc__
    for attribute, value in vars(module).items():
        is_public = not attribute.startswith("_") and inspect.getmodule(value) is module
        if is_public and (inspect.isclass(value) or inspect.isfunction(value)):
            assert inspect.getdoc(value), f"{name}.{attribute} has no docstring"


def test_imports_go_down_only() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_tensors_of_saved_models_keep_their_names() -> None:
    with torch.device("meta"):
        network = dump(ARCHITECTURE.presets["medium"])
        model = build_model(ModelConfig("tuss", 48000, StftConfig(), network))
    block = "blocks.0.freq_path."
    held = {
        "prompts.weight": (8, 64),
        "network.start_of_sequence": (64,),
        "network.codec.encoders.0.norm.weight": (4,),
        "network.codec.encoders.60.project.weight": (64, 134),
        "network.codec.decoders.60.last.weight": (268, 256),
        "network.cross_prompt.freq_rotary.frequencies": (16,),
        f"network.cross_prompt.{block}norm_before.gain": (64,),
        f"network.cross_prompt.{block}feed_forward_before.expand.weight": (768, 64, 4),
        f"network.cross_prompt.{block}attention.queries_keys_values.weight": (384, 64),
        f"network.cross_prompt.{block}attention.output.weight": (64, 128),
        f"network.extraction.{block}feed_forward_after.reduce.weight": (256, 64, 4),
        "network.extraction.blocks.1.frame_path.feed_forward_after.reduce.bias": (64,),
    }
    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {name: state.get(name) for name in held} == held
    prompts_and_start, rotary, per_path = 2, 4, 13
    assert len(state) == prompts_and_start + rotary + 61 * (4 + 8) + 6 * 2 * per_path
