"""What the README and the guides show is run as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from command_line import unbraid
from conftest import ROOT
from recording_miniatures import make_recordings
from song_miniatures import make_songs

DOCUMENTS = [
    "README.md",
    "docs/python.md",
    "docs/prompts.md",
    "docs/teaching.md",
    "docs/finetuning.md",
    # All of its checks take some ten seconds.
    pytest.param("docs/adapting.md", marks=pytest.mark.slow),
]
GUIDES = [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_python_in_it_runs(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    array = 0.1 * np.random.default_rng(0).standard_normal((2, 30000)).astype(np.float32)
    for name in ("film.wav", "theirs.wav", "eight-hours.flac"):
        soundfile.write(name, array.T, 44100)
    make_songs(tmp_path / "songs", 2, seconds=2.0)
    make_recordings(tmp_path / "recordings", 4, seconds=3.0)
    names = {"array": array, "user_pressed_stop": False}
    for block in blocks:
        exec(compile(block, document, "exec"), names)


@pytest.mark.parametrize("document", ["README.md", *GUIDES])
def test_its_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_the_flags_it_names_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a narrow help page cuts flags off
    names = ("command-line", "prompts", "teaching", "finetuning", "adapting")
    guides = [f"docs/{name}.md" for name in names]
    text = "".join((ROOT / guide).read_text() for guide in guides)
    named = set(re.findall(r"--[a-z][a-z0-9]+", text))
    commands = [
        "", "separate", "discover", "train", "demo", "export", "models list", "models import",
        "evaluate", "compare", "data list", "data prepare", "data pack", "models download",
        "models verify", "models remove", "teach", "finetune", "adapt", "models convert",
        "models inspect", "prompts list", "prompts show", "prompts install", "prompts remove",
        "prompts map",
    ]  # fmt: skip
    pages = [unbraid(*command.split(), "--help").stdout for command in commands]
    assert named <= set(re.findall(r"--[a-z][a-z0-9]+", " ".join(pages)))
