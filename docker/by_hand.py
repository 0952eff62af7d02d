"""Do what a Dockerfile says without an engine: a check for machines that have none.

    python docker/by_hand.py docker/cpu.Dockerfile [--arg NAME=VALUE]

Every stage is a folder that stands for its root. ``COPY`` copies (what ``.dockerignore`` leaves
out is not there to be copied), ``RUN`` runs in the shell of this machine with the paths below
that root, and at the end the health check and the default command run in the environment that
the last stage describes. What differs from a real build: the base image is this machine and its
Python, and steps that need a root of their own (users) are left out and named.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import dockerfile

CONTEXT = Path(__file__).resolve().parents[1]
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")
#: Programs that change the machine itself.
_NEEDS_A_ROOT = ("useradd", "apt-get")


@dataclass
class Stage:
    """What is known of a stage so far.

    Attributes:
        root: The folder that stands for ``/``.
        variables: ARG and ENV.
        workdir: Where steps run.
        entrypoint: The program.
        command: Its default arguments.
        health_check: The command that says whether a container is well.
    """

    root: Path
    variables: dict[str, str]
    workdir: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health_check: list[str] = field(default_factory=list)

    def here(self, text: str) -> str:
        """Absolute paths of the image, as paths of this machine."""
        return re.sub(r"(?<![\w/.:-])/(?=(opt|build|data|models)\b)", f"{self.root}/", text)

    def environment(self) -> dict[str, str]:
        """The variables of a process inside."""
        own = {name: self.here(value) for name, value in self.variables.items()}
        return {**os.environ, **own}


def build(path: Path, arguments: dict[str, str], into: Path) -> Stage:
    """Carry a Dockerfile out, and return its last stage."""
    context = context_files(into / "context")
    stages: dict[str, Stage] = {}
    defaults: dict[str, str] = {}
    stage: Stage | None = None
    for step in dockerfile.parse_file(str(path)):
        print(step.original, flush=True)
        name, value = step.cmd.upper(), list(step.value)
        if name == "FROM":
            stage = Stage(into / f"stage{len(stages)}", {})
            stage.root.mkdir()
            stages[value[2] if len(value) == 3 else str(len(stages))] = stage
        elif stage is None:
            defaults |= dict(one.partition("=")[::2] for one in value)
        elif name == "ARG":
            key, _, default = value[0].partition("=")
            stage.variables[key] = arguments.get(key, default)
        elif name == "ENV":
            for key, text in zip(value[::2], value[1::2], strict=True):
                stage.variables[key] = _filled(text, {**os.environ, **stage.variables})
        elif name == "WORKDIR":
            stage.workdir = value[0]
            (stage.root / value[0].lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            origin = [flag.partition("=")[2] for flag in step.flags if flag.startswith("--from=")]
            _copy(value, stages[origin[0]].root if origin else context, stage)
        elif name == "RUN":
            _run(value[0], stage)
        elif name == "HEALTHCHECK":
            stage.health_check = value[1:]
        elif name == "ENTRYPOINT":
            stage.entrypoint = value
        elif name == "CMD":
            stage.command = value
    assert stage is not None, f"{path} has no stage"
    return stage


def context_files(into: Path) -> Path:
    """The files that an engine would be given: those that ``.dockerignore`` names after a ``!``."""
    into.mkdir(parents=True)
    for line in (CONTEXT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            _place(CONTEXT / line[1:], into / line[1:])
    return into


def _copy(paths: list[str], origin: Path, stage: Stage) -> None:
    *sources, target = paths
    for source in sources:
        place = stage.root / (stage.workdir + "/" + target).lstrip("/")
        if target.startswith("/"):
            place = stage.root / target.lstrip("/")
        _place(origin / source.lstrip("/"), place / source if target.endswith("/") else place)


def _place(source: Path, target: Path) -> None:
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, symlinks=True, ignore=ignored)
    else:
        shutil.copy(source, target)


def _run(command: str, stage: Stage) -> None:
    if any(program in command for program in _NEEDS_A_ROOT):
        print("  left out: it needs a root of its own", flush=True)
        return
    where = stage.root / stage.workdir.lstrip("/")
    subprocess.run(
        ["sh", "-ec", stage.here(command)], cwd=where, env=stage.environment(), check=True
    )


def _filled(text: str, variables: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda found: variables.get(found[1] or found[2], ""), text)


def try_out(stage: Stage, build_root: Path) -> None:
    """Run the health check and the default command as a container would."""
    for what in (stage.health_check, [*stage.entrypoint, *stage.command]):
        print("$", *what, flush=True)
        environment = stage.environment()
        program = shutil.which(what[0], path=environment["PATH"])
        assert program is not None, f"{what[0]} is not in the image's PATH"
        assert program.startswith(str(stage.root)), f"{program} is this machine's, not the image's"
        # Scripts begin with the path of their interpreter, which moved with the stage.
        script = Path(program)
        script.write_text(script.read_text().replace(str(build_root), str(stage.root)))
        subprocess.run([program, *what[1:]], cwd=stage.root, env=environment, check=True)


def main() -> None:
    """Build what the arguments name in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    arguments = dict(one.partition("=")[::2] for one in options.arg)
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder).resolve()
        last = build(options.file, arguments, into)
        try_out(last, into / "stage0")
        size = sum(file.lstat().st_size for file in last.root.rglob("*") if file.is_file())
        print(f"{size / 1e6:,.0f} MB above the base image")


if __name__ == "__main__":
    main()
