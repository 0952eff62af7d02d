"""What starts quickly imports nothing that it does not need."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unbraid.audio import write
from unbraid.types import Waveform

#: Never needed to separate: half a second and 50 MiB each.
COMPILERS = {"sympy", "torch._dynamo", "torch._inductor", "torch.fx.experimental.symbolic_shapes"}
NEVER = {"matplotlib", "huggingface_hub", "lightning", "scipy", "torchmetrics", "gradio", "onnx"}
TORCH = {"torch", "numpy", "av", "soundfile", "safetensors"}

RUN = """
import json, sys
from unbraid.cli import main
sys.argv = ["unbraid", *sys.argv[2:]]
try:
    main()
finally:
    sys.stdout.flush()
    with open({notes!r}, "w") as file:
        json.dump(sorted(sys.modules), file)
"""


def modules_after(notes: Path, *arguments: str) -> set[str]:
    """The modules that a run of the program has imported."""
    code = RUN.format(notes=str(notes))
    command = [sys.executable, "-c", code, "unbraid", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return set(json.loads(notes.read_text()))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["separate", "--help"]])
def test_help_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    modules = modules_after(tmp_path / "notes.json", *arguments)
    assert "unbraid.cli.separate" in modules
    assert not modules & (COMPILERS | NEVER | TORCH)


def test_separating_imports_no_compiler_and_nothing_of_other_commands(tmp_path: Path) -> None:
    recording = tmp_path / "tone.wav"
    write(recording, Waveform(0.1 * torch.randn(2, 4800), 48000))
    modules = modules_after(
        tmp_path / "notes.json",
        *("separate", str(recording), "--out", str(tmp_path / "out"), "--device", "cpu"),
    )
    assert "unbraid.separation.separator" in modules
    assert list((tmp_path / "out").rglob("speech.wav"))
    # No terminal is there to draw a progress bar on.
    assert not modules & (COMPILERS | NEVER | {"rich.progress"})


def test_loading_a_model_imports_no_compiler() -> None:
    code = (
        "import sys, unbraid; unbraid.load_separator('mini', device='cpu'); "
        f"sys.exit(', '.join({COMPILERS | NEVER!r} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
