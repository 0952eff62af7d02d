"""``separate --json``: one JSON object per line, for machines that follow the work."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbraid._version import __version__
from unbraid.cli.console import one_line

if TYPE_CHECKING:
    from unbraid.apps.batch import BatchResult
    from unbraid.apps.separate_files import FileResult
    from unbraid.types import Progress

#: How long a recording keeps silent between two reports of its progress.
_PROGRESS_EVERY_S = 1.0


class JsonLines:
    """Prints events to stdout, each on a line of its own and at once."""

    def __init__(self) -> None:
        self._reported_s: dict[Path, float] = {}

    def start(
        self, model_name: str, model_digest: str, prompts: list[str], out: Path, num_recordings: int
    ) -> None:
        """Say what begins."""
        _print(
            "start",
            unbraid=__version__,
            model={"name": model_name, "digest": model_digest},
            prompts=prompts,
            out=str(out),
            num_recordings=num_recordings,
        )

    def progress(self, path: Path, progress: Progress) -> None:
        """Say how far a recording has come, unless that was said just now."""
        now_s = time.monotonic()
        if now_s - self._reported_s.get(path, -_PROGRESS_EVERY_S) < _PROGRESS_EVERY_S:
            return
        self._reported_s[path] = now_s
        _print("progress", path=str(path), done_s=progress.done_s, total_s=progress.total_s)

    def result(self, result: FileResult) -> None:
        """Say what became of a recording."""
        self._reported_s.pop(result.path, None)
        error = result.error
        _print(
            "result",
            path=str(result.path),
            status=result.status,
            sidecar=None if result.sidecar is None else str(result.sidecar),
            stems={name: str(file) for name, file in result.stems.items()},
            presence=None if result.presence is None else str(result.presence),
            videos={name: str(file) for name, file in result.videos.items()},
            warnings=list(result.warnings),
            error=None
            if error is None
            else {
                "kind": type(error).__name__,
                "message": one_line(error),
                "exit_code": error.exit_code,
            },
            record=dict(result.record) or None,
        )

    def summary(self, result: BatchResult) -> None:
        """Say what became of everything."""
        _print(
            "summary",
            **{f"num_{status}": count for status, count in result.counts.items()},
            exit_code=result.exit_code,
            audio_s=result.audio_s,
            wall_s=result.wall_s,
        )


def _print(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)
