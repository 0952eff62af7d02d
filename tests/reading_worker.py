"""Reads one recording after the other in a process of its own, and says how it went.

Started as a script it takes a path per line and answers each with a line of JSON. What
only shows from outside, a crash or a file that takes for ever, is left to ``Reader``.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

LONGEST_S = 10.0
_MOST_ADDRESS_SPACE = 2**35


class Reader:
    """Hands files to a worker and starts another one when it dies or hangs."""

    def __init__(self) -> None:
        self._start()

    def read(self, path: Path) -> dict[str, Any]:
        """Return what the worker says of a file, or how it failed."""
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=LONGEST_S)
        except queue.Empty:
            self.close()
            self._start()
            return {"fault": f"took longer than {LONGEST_S:.0f} s"}
        printed = self._printed()
        if line and printed:
            return {"fault": f"prints to the terminal: {printed}"}
        if line:
            return json.loads(line)
        code = self._process.wait()
        self.close()
        self._start()
        return {"fault": f"the process died with code {code}: {printed}"}

    def close(self) -> None:
        """End the worker."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout, self._terminal):
            pipe.close()

    def _printed(self) -> str:
        """What was printed since the last time."""
        self._terminal.seek(self._num_printed)
        printed = self._terminal.read()
        self._num_printed += len(printed)
        return printed.decode(errors="replace")

    def _start(self) -> None:
        self._terminal = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the worker)
        self._num_printed = 0
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._terminal,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        assert self._lines.get(timeout=120) == "ready\n"

    def _listen(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")


def _examine(path: str) -> dict[str, Any]:
    import torch

    from unbraid.audio import probe, read_blocks
    from unbraid.errors import UnbraidError

    try:
        info = probe(path)
        num_samples = 0
        for block in read_blocks(path):
            if block.shape[0] != info.num_channels:
                return {"fault": f"{block.shape[0]} channels instead of {info.num_channels}"}
            if not torch.isfinite(block).all():
                return {"fault": "not finite"}
            num_samples += block.shape[1]
    except UnbraidError as error:
        message = str(error)
        if "\n" in message or not message.startswith(path):
            return {"fault": f"not one line with the path: {message}"}
        return {"refused": message.removeprefix(path)}
    except Exception as error:
        import traceback

        return {"fault": f"{type(error).__name__}: {traceback.format_exc()[-1500:]}"}
    if num_samples != info.num_samples:
        return {"fault": f"{num_samples} samples instead of {info.num_samples}"}
    return {"read": num_samples, "warnings": list(info.warnings)}


def _resources() -> dict[str, int]:
    """Resident memory now and at its peak in MiB, and open files."""
    # Unlike what getrusage says, this peak is not inherited from the tests' own process.
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) // 1024
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    now = pages * os.sysconf("SC_PAGE_SIZE") // 2**20
    return {"peak": peak, "now": now, "files": len(list(Path("/proc/self/fd").iterdir()))}


def _work() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESS_SPACE, _MOST_ADDRESS_SPACE))
    import unbraid.audio  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        answer = _examine(line.rstrip("\n"))
        print(json.dumps(answer | _resources()), flush=True)


if __name__ == "__main__":
    _work()
