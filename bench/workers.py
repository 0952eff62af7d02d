"""Processes that measure: one for each thing whose memory or environment is its own.

Only the standard library is used here, since the second environment of ``peers.py`` uses it
too, and since on some systems a process inherits the peak memory of the one that starts it:
what starts them has to stay small.

Requests and answers are lines of JSON. A worker answers one request at a time and sleeps
between them, so that several can be kept warm and asked in turn.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

FOLDER = Path(__file__).parent
OURS = FOLDER / "our_worker.py"


class WorkerFailed(Exception):
    """A worker could not do what it was asked; the message says why."""


class Worker:
    """A process that answers requests, with so many threads for its arithmetic.

    Args:
        script: What it runs; it calls ``serve``.
        threads: For OpenMP.
        python: The interpreter, and with it the environment.
        is_bound: Bind each of OpenMP's threads to a core. Steadier for a model alone, but
            threads that Python starts, as ours for rows, are then kept from the other cores.

    Attributes:
        peak_mib: The most memory that it had resident, as of its last answer.
    """

    def __init__(
        self,
        script: Path,
        threads: int,
        python: str | Path = sys.executable,
        *,
        is_bound: bool = False,
    ) -> None:
        bound = {"OMP_PROC_BIND": "true"} if is_bound else {}
        self.peak_mib = 0.0
        self._process = subprocess.Popen(
            [python, script],
            env=os.environ | bound | {"OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: str, **arguments: Any) -> Any:
        """The answer to one request.

        Raises:
            WorkerFailed: If the worker reports an exception, or ends.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([request, arguments]) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # it has ended; its missing answer says so below
            pass
        line = self._process.stdout.readline()
        if not line:
            raise WorkerFailed(f"the process ended with status {self._process.wait()}")
        answer = json.loads(line)
        if answer["failed"] is not None:
            raise WorkerFailed(answer["failed"])
        self.peak_mib = answer["peak_mib"]
        return answer["result"]

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.communicate()


def serve(handlers: Mapping[str, Callable[..., Any]]) -> None:
    """Answer requests by name until there are no more. Runs in the worker."""
    # What the measured code prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request, arguments = json.loads(line)
        result, failed = None, None
        try:
            result = handlers[request](**arguments)
        except Exception as error:
            failed = f"{type(error).__name__}: {error}"
        answer = {"result": result, "failed": failed, "peak_mib": peak_mib()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def peak_mib() -> float:
    """The most memory that this process had resident so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # unlike what getrusage says, not inherited from the parent
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 2**10
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def repeated(run: Callable[[], float], runs: int, at_most_s: float) -> list[float]:
    """Seconds of up to ``runs`` runs; no other is begun once they took ``at_most_s``."""
    walls = [run()]
    while len(walls) < runs and sum(walls) < at_most_s:
        walls.append(run())
    return walls
