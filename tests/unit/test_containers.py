"""The container files: what can be known of them without an engine."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from documented import refused

dockerfile = pytest.importorskip("dockerfile", reason="the parser comes with the group `dev`")

FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
NAMES = [path.name for path in FILES]


def steps(path: Path, *commands: str) -> list[Any]:
    return [step for step in dockerfile.parse_file(str(path)) if step.cmd.upper() in commands]


def test_there_is_one_for_processors_and_one_for_gpus() -> None:
    assert NAMES == ["cpu.Dockerfile", "cuda.Dockerfile"]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_linter_has_nothing_to_say(path: Path) -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("hadolint is not installed (group `dev`)")
    outcome = subprocess.run([linter, path], capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_what_is_copied_exists_and_is_not_ignored(path: Path) -> None:
    kept = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = {
        source
        for step in steps(path, "COPY")
        if not any(flag.startswith("--from=") for flag in step.flags)
        for source in step.value[:-1]
    }
    assert copied == kept
    assert all((ROOT / source).exists() for source in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"], "src", "pyproject.toml"} <= copied


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_it_runs_unbraid_as_somebody_who_may_little(path: Path) -> None:
    (user,) = steps(path, "USER")
    assert user.value == ("1000",)
    assert user.start_line > steps(path, "RUN")[-1].start_line
    (entry,) = steps(path, "ENTRYPOINT")
    assert entry.value == ("unbraid",)
    (health,) = steps(path, "HEALTHCHECK")
    assert health.value[:2] == ("CMD", "unbraid")
    (default,) = steps(path, "CMD")
    for arguments in (health.value[2:], default.value):
        assert refused(list(arguments)) is None


def test_both_differ_only_in_what_gpus_need() -> None:
    texts = [path.read_text().partition("ARG PYTHON")[2] for path in FILES]
    plain = [
        re.sub(r"^#.*\n|^ARG TORCH_INDEX=.*\n", "", text, flags=re.MULTILINE) for text in texts
    ]
    without = re.sub(r" \\\n    NVIDIA_VISIBLE_DEVICES=all \\\n    NVIDIA_DRIVER.*", "", plain[1])
    assert plain[0] == without
