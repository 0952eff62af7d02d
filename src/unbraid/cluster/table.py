"""What became of the recordings: a row for each, and a summary."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from unbraid.cluster.manifest import Entry
from unbraid.cluster.worker import Outcome

_COLUMNS = (
    "path",
    "name",
    "status",
    "audio_s",
    "work_s",
    "cpu_s",
    "machine",
    "worker",
    "num_attempts",
    "error",
)


@dataclass(frozen=True)
class Row:
    """What became of a recording.

    Attributes:
        entry: The recording.
        worker: Who had it last.
        outcome: What became of it there.
        num_attempts: How often it was tried.
    """

    entry: Entry
    worker: str
    outcome: Outcome
    num_attempts: int


@dataclass(frozen=True)
class WorkerReport:
    """What one worker did.

    Attributes:
        worker: Its name.
        machine: Where it was.
        num_written: How many recordings it separated.
        audio_s: How long they are.
        work_s: How long that took, with fetching and putting.
        cpu_s: How much processor time that took.
        rtf: Seconds of work per second of audio; None where it separated nothing.
    """

    worker: str
    machine: str
    num_written: int
    audio_s: float
    work_s: float
    cpu_s: float
    rtf: float | None


@dataclass(frozen=True)
class Summary:
    """What became of all recordings.

    Attributes:
        num_recordings: How many there are.
        num_written: How many were separated.
        num_skipped: How many were finished before.
        num_failed: How many could not be separated.
        num_open: How many are left, because the run was interrupted.
        audio_hours: Length of what was separated.
        wall_s: How long the run took, with the start of its workers.
        workers: What each of them did, those that separated anything.
        failed: The recordings that failed, and why.
    """

    num_recordings: int
    num_written: int
    num_skipped: int
    num_failed: int
    num_open: int
    audio_hours: float
    wall_s: float
    workers: tuple[WorkerReport, ...]
    failed: dict[str, str]

    @property
    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"


def summarise(rows: Sequence[Row | None], wall_s: float) -> Summary:
    """Sum up.

    Args:
        rows: One for each recording; None for those that are left.
        wall_s: How long the run took.
    """
    done = [row for row in rows if row is not None]
    written = [row for row in done if row.outcome.status == "written"]
    failed = [row for row in done if row.outcome.status == "failed"]
    by_worker: dict[str, list[Outcome]] = {}
    for row in written:
        by_worker.setdefault(row.worker, []).append(row.outcome)
    return Summary(
        num_recordings=len(rows),
        num_written=len(written),
        num_skipped=len(done) - len(written) - len(failed),
        num_failed=len(failed),
        num_open=len(rows) - len(done),
        audio_hours=sum(row.outcome.audio_s for row in written) / 3600,
        wall_s=wall_s,
        workers=tuple(_report(name, outcomes) for name, outcomes in sorted(by_worker.items())),
        failed={row.entry.path: str(row.outcome.error) for row in failed},
    )


def table_text(rows: Iterable[Row | None]) -> str:
    """The rows as CSV, without what is left."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        if row is None:
            continue
        outcome = row.outcome
        writer.writerow(
            (
                row.entry.path,
                row.entry.track.as_posix(),
                outcome.status,
                f"{outcome.audio_s:.3f}",
                f"{outcome.work_s:.3f}",
                f"{outcome.cpu_s:.3f}",
                outcome.machine,
                row.worker,
                row.num_attempts,
                "" if outcome.error is None else " ".join(str(outcome.error).split()),
            )
        )
    return text.getvalue()


def _report(worker: str, outcomes: Sequence[Outcome]) -> WorkerReport:
    audio_s = sum(outcome.audio_s for outcome in outcomes)
    work_s = sum(outcome.work_s for outcome in outcomes)
    return WorkerReport(
        worker,
        outcomes[-1].machine,
        len(outcomes),
        audio_s,
        work_s,
        sum(outcome.cpu_s for outcome in outcomes),
        work_s / audio_s if audio_s else None,
    )
