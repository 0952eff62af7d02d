"""The threads that work: each takes a job, separates it as ``unbraid separate`` does, and goes on.

There is one model on each device. Several threads may share it: on a GPU what they bring at the
same time goes through the network together (``separation.batching``), on a processor each works
with its share of the cores.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import torch

from unbraid.apps.recordings import RecordingFile
from unbraid.apps.separate_files import FileResult, SeparateOptions, separate_file, stems_of
from unbraid.apps.separator import Separator
from unbraid.errors import Cancelled, UnbraidError
from unbraid.serve.book import JobBook
from unbraid.serve.jobs import Failure, Job, JobRequest, Offer, Stem
from unbraid.serve.refusals import in_fields
from unbraid.serve.spool import Spool
from unbraid.types import Progress

#: What the results of every job are called after; its own folder tells them apart.
TRACK = "recording"
_TEMPLATE = "{stem}.{ext}"
_CLEAR_EVERY_S = 1.0
#: How many jobs a device works on at a time where nobody says. On a GPU they fill its batches; on
#: a processor there is no use for more than there are cores.
_GPU_JOBS = 8
_MOST_CPU_JOBS = 4

log = logging.getLogger(__name__)


class Engine:
    """All threads that work on jobs.

    Args:
        separators: One for each device, with equal models and settings.
        book: Where the jobs come from.
        spool: Where their files are.
        offer: What the model is called.
        num_jobs: How many jobs each device works on at a time; None for what suits it.
    """

    def __init__(
        self,
        separators: Sequence[Separator],
        book: JobBook,
        spool: Spool,
        offer: Offer,
        num_jobs: int | None = None,
    ) -> None:
        self._separators = separators
        self._book = book
        self._spool = spool
        self._offer = offer
        self._num_threads = torch.get_num_threads()
        self._is_over = threading.Event()
        workers = [
            separator
            for separator in separators
            for _ in range(num_jobs or usual_jobs(separator.engine.device))
        ]
        book.num_workers = len(workers)
        self._threads = [
            threading.Thread(target=self._work, args=(each,), daemon=True) for each in workers
        ]
        self._threads.append(threading.Thread(target=self._clear, daemon=True))

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def stop(self, grace_s: float) -> None:
        """Begin no more jobs, and wait for those that run; after so long, put them back."""
        self._book.close()
        if not self._book.wait_for_running(grace_s):
            self._book.stop_running()
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def check(self, request: JobRequest) -> None:
        """Refuse what cannot end well before there is a job.

        Raises:
            PromptError: For an unknown prompt or an empty list.
            ConfigError: For options that make no sense.
        """
        stems_of(self._separators[0], request.prompts, self._options(request))

    def _options(self, request: JobRequest) -> SeparateOptions:
        return SeparateOptions(
            model_name=self._offer.model,
            model_digest=self._offer.digest,
            audio_format=request.audio_format,
            template=_TEMPLATE,
            has_residual=request.residual,
            track=request.track,
            peak_dbfs=request.peak_dbfs,
        )

    def _clear(self) -> None:
        while not self._is_over.wait(_CLEAR_EVERY_S):
            self._book.clear()

    def _work(self, separator: Separator) -> None:
        while (taken := self._book.take()) is not None:
            job, stop, num_running = taken
            # Alone, a job has all cores; new threads begin with the last number that was set.
            torch.set_num_threads(max(1, self._num_threads // num_running))
            try:
                result = self._separated(separator, job, stop)
            except Cancelled:
                self._book.give_back(job.id)
            except UnbraidError as error:
                self._book.finish(job.id, state="failed", failure=self._failure(job, error))
            except Exception:
                log.exception("job %s failed", job.id)
                failure = Failure("Unforeseen", "the server failed; its log says why.")
                self._book.finish(job.id, state="failed", failure=failure)
            else:
                self._book.finish(job.id, state="done", **_facts(result))

    def _separated(self, separator: Separator, job: Job, stop: threading.Event) -> FileResult:
        def progress(progress: Progress) -> None:
            self._book.advance(job.id, progress.done_s)

        request = job.request
        return separate_file(
            separator.finishing(gate=request.gate, consistency=request.consistency),
            RecordingFile(self._spool.recording(job.id), PurePath(TRACK)),
            request.prompts,
            self._spool.results(job.id),
            self._options(request),
            progress,
            stop,
        )

    def _failure(self, job: Job, error: UnbraidError) -> Failure:
        return Failure(
            type(error).__name__,
            in_fields(without_paths(str(error), self._spool.recording(job.id))),
        )


def usual_jobs(device: torch.device) -> int:
    """How many jobs a device works on at a time where nobody says."""
    return _GPU_JOBS if device.type == "cuda" else min(torch.get_num_threads(), _MOST_CPU_JOBS)


def without_paths(text: str, recording: Path) -> str:
    """A message about a recording without its place on the server's disk."""
    for path, word in ((recording, "the recording"), (recording.parent, "the server's folder")):
        for spelling in (str(path.absolute()), str(path)):
            text = text.replace(spelling, word)
    return text


def _facts(result: FileResult) -> Mapping[str, Any]:
    record = result.record
    return {
        "stems": tuple(
            _stem(name, result.stems[name], stem) for name, stem in record["stems"].items()
        ),
        "residual_to_mixture_db": record["residual_to_mixture_db"],
        "warnings": tuple(map(in_fields, record["warnings"])),
    }


def _stem(name: str, file: Path, record: Mapping[str, Any]) -> Stem:
    presence = record.get("presence")
    return Stem(
        name,
        file.name,
        file.stat().st_size,
        record["level_dbfs"],
        None if presence is None else presence["score"],
    )
