"""Runs the command line inside the test process and shows what it did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from typer.testing import CliRunner

from unbraid.cli import app


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def events(self) -> list[Any]:
        """What ``separate --json`` printed, line by line."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def results(self) -> list[Any]:
        """One event per recording, in the order in which they were done."""
        return [event for event in self.events if event["event"] == "result"]

    @property
    def error(self) -> str:
        """The one line of an expected failure."""
        lines = self.stderr.splitlines()
        assert len(lines) == 1, f"one line was expected: {self.stderr}"
        assert lines[0].startswith("error: ")
        return lines[0]


def unbraid(*arguments: str | Path) -> Outcome:
    """Run ``unbraid`` with these arguments; an unforeseen error fails the test."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Run the command line as a process of its own, on one thread."""
    return subprocess.Popen(
        [sys.executable, "-m", "unbraid", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=None if sys.platform == "win32" else _heed_ctrl_c,
    )


def _heed_ctrl_c() -> None:
    # Jobs in the background ignore Ctrl-C, and so do their children.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def noise(num_samples: int, num_channels: int = 2) -> np.ndarray:
    """Half-loud noise ``[time, channel]``."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (num_samples, num_channels))
    return samples.astype(np.float32)


def write_audio(
    path: Path,
    num_samples: int = 12_000,
    *,
    rate: int = 48_000,
    num_channels: int = 2,
    subtype: str = "PCM_16",
) -> Path:
    """Write noise to a file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(num_samples, num_channels), rate, subtype=subtype)
    return path


def files_below(folder: Path) -> list[str]:
    """All files and folders below ``folder``, hidden ones included."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
