"""One worker: holds a model, and separates one recording after the other."""

from __future__ import annotations

import os
import platform
import tempfile
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from unbraid.apps.recordings import RecordingFile
from unbraid.apps.separate_files import FileJob, FileResult, SeparateOptions
from unbraid.apps.separator import Separator, load_separator
from unbraid.apps.sidecar import marker_content, parse_sidecar
from unbraid.apps.whole_files import remove_empty
from unbraid.audio import safe_name
from unbraid.checkpoints import find_prompts, model_info
from unbraid.cluster import stores
from unbraid.cluster.claims import Claims
from unbraid.cluster.manifest import Entry
from unbraid.errors import (
    Cancelled,
    CheckpointError,
    ClusterError,
    ConfigError,
    UnbraidError,
)
from unbraid.nn.products import PRODUCTS
from unbraid.separation.settings import SeparationConfig


@dataclass(frozen=True)
class Setup:
    """All that a worker has to know before its first recording; the same for all workers.

    Attributes:
        model: A name, a folder that every machine sees, or a model on the hub.
        config: How to separate.
        options: How stems are named and stored; the worker's model must have its digest.
        prompts: All names and prompt files that recordings are separated into.
        prompt_digests: Name → SHA-256 of those that the model has not learned.
        out: A folder that every machine sees, or an address.
        products: What multiplies matrices on processors, ``blas`` or ``onednn``. They round
            differently, so workers may not choose for themselves, as ``nn.products`` does.
    """

    model: str
    config: SeparationConfig
    options: SeparateOptions
    prompts: tuple[str, ...]
    prompt_digests: Mapping[str, str]
    out: str
    products: str


@dataclass(frozen=True)
class Outcome:
    """What became of one recording on one worker.

    Attributes:
        status: ``written``; ``skipped`` where the stems were there already; ``failed``; ``busy``
            where somebody else is at it just now.
        audio_s: Length of the recording; 0 where it is not known.
        work_s: How long the worker had it.
        machine: The worker's machine.
        error: Why it failed.
        cpu_s: Processor time of the worker meanwhile, over its threads. Unlike ``work_s``, other
            work on the machine adds little to it.
    """

    status: Literal["written", "skipped", "failed", "busy"]
    audio_s: float = 0.0
    work_s: float = 0.0
    machine: str = ""
    error: UnbraidError | None = None
    cpu_s: float = 0.0


def load_for(setup: Setup, device: str | None) -> Separator:
    """The separator of a worker; it sets ``UNBRAID_PRODUCTS`` for the process.

    Raises:
        CheckpointError: If model or prompts are missing, or others than those of the machine
            that began the run.
        PromptError, ConfigError: As ``load_separator``.
    """
    os.environ[PRODUCTS] = setup.products
    info = model_info(setup.model)
    if info.digest != setup.options.model_digest:
        raise CheckpointError(
            f"{platform.node()}: the model {info.name!r} here differs from the one that this run "
            "began with; install the same on every machine."
        )
    asked = find_prompts(info.path, setup.prompts)
    if asked.digests != dict(setup.prompt_digests):
        raise CheckpointError(
            f"{platform.node()}: the installed prompts here differ from those that this run began "
            "with; install the same on every machine."
        )
    files = [stored.path for stored in asked.taught.values()]
    return load_separator(info.path, setup.config, device=device, prompts=files)


class Worker:
    """Separates recordings of a manifest with one model.

    Args:
        setup: What all workers share.
        name: What tells it from all others, ever.
        separator: Does the work.
        num_threads: How many threads PyTorch may use; None to leave that alone.
        claims: Where results go into a store: its claims there. None for new ones.
    """

    def __init__(
        self,
        setup: Setup,
        name: str,
        separator: Separator,
        num_threads: int | None = None,
        claims: Claims | None = None,
    ) -> None:
        self._setup = setup
        self._separator = separator
        self._num_threads = num_threads
        self._claims = claims or Claims(setup.out, name)

    def separate(self, entry: Entry, dead: Collection[str], cancel: threading.Event) -> Outcome:
        """Separate one recording, unless its stems are there already.

        The stems are those that ``unbraid separate`` makes: the same function makes them.

        Args:
            entry: The recording; its prompts are set.
            dead: Workers that are known to be dead.
            cancel: Set it, from any thread, to stop.

        Raises:
            Cancelled: If ``cancel`` was set; nothing is left behind.
        """
        if self._num_threads is not None:
            torch.set_num_threads(self._num_threads)  # each thread has a number of its own
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        error: UnbraidError | None = None
        result: FileResult | None = None
        try:
            result = self._attempt(entry, dead, cancel)
        except Cancelled:
            raise
        except UnbraidError as known:
            error = known
        except Exception as unforeseen:  # one bad recording of millions must not end the run
            error = ClusterError(f"{entry.path}: {type(unforeseen).__name__}: {unforeseen}")
        spent: dict[str, Any] = {
            "work_s": time.monotonic() - started_s,
            "cpu_s": time.process_time() - started_cpu_s,
            "machine": platform.node(),
        }
        if error is not None:
            return Outcome("failed", error=error, **spent)
        if result is None:
            return Outcome("busy", **spent)
        return Outcome(result.status, result.duration_s, **spent)

    def _attempt(
        self, entry: Entry, dead: Collection[str], cancel: threading.Event
    ) -> FileResult | None:
        with ExitStack() as cleanup:
            if not (stores.is_address(entry.path) or stores.is_address(self._setup.out)):
                return self._in_folder(RecordingFile(Path(entry.path), entry.track), entry, cancel)
            scratch = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="unbraid-")))
            recording = RecordingFile(Path(entry.path), entry.track)
            if stores.is_address(entry.path):
                # The name decides what a video is, and says what an error is about.
                copy = scratch / safe_name(stores.name_below(entry.path, "").name)
                recording = RecordingFile(copy, entry.track, stores.origin_of(entry.path))
            try:
                if stores.is_address(self._setup.out):
                    return self._into_store(recording, entry, dead, cancel, scratch / "results")
                return self._in_folder(recording, entry, cancel)
            except UnbraidError as error:
                if str(recording.path) == entry.path or str(recording.path) not in str(error):
                    raise
                text = str(error).replace(str(recording.path), entry.path)
                raise type(error)(text) from error

    def _in_folder(
        self, recording: RecordingFile, entry: Entry, cancel: threading.Event
    ) -> FileResult | None:
        job = self._job(recording, entry, Path(self._setup.out))
        try:
            return job.attempt(None, cancel, lambda: _bring(entry, recording))
        finally:
            remove_empty(job.new_folders)

    def _into_store(
        self,
        recording: RecordingFile,
        entry: Entry,
        dead: Collection[str],
        cancel: threading.Event,
        folder: Path,
    ) -> FileResult | None:
        job = self._job(recording, entry, folder)
        addresses = {
            file: f"{self._setup.out.rstrip('/')}/{file.relative_to(folder).as_posix()}"
            for file in job.results
        }
        sidecar = addresses[job.results[-1]]
        if (finished := self._finished_there(job, addresses)) is not None:
            return finished
        with self._claims.claim(sidecar, dead) as claim:
            if claim is None:
                return None
            # Another run may just have finished it.
            if (finished := self._finished_there(job, addresses)) is not None:
                return finished
            former = parse_sidecar(stores.read(sidecar) or b"")
            if obstacle := job.obstacle(former):
                for address in addresses.values():
                    if stores.exists(address):
                        raise ConfigError(f"{address}: {obstacle}")
            result = job.attempt(None, cancel, lambda: _bring(entry, recording))
            assert result is not None, "the folder is this worker's own"
            # Whoever took this worker for dead is at it, or has finished and taken all claims away.
            if not claim.is_held:
                return None
            if (finished := self._finished_there(job, addresses)) is not None:
                return finished
            stores.write(marker_content(result.record), sidecar)
            for file, address in addresses.items():
                if cancel.is_set():
                    raise Cancelled("the separation was cancelled.")
                stores.put(file, address)  # the sidecar comes last
            return result

    def _finished_there(self, job: FileJob, addresses: Mapping[Path, str]) -> FileResult | None:
        *others, sidecar = addresses.values()
        record = parse_sidecar(stores.read(sidecar) or b"")
        if job.is_answered_by(record) and all(map(stores.exists, others)):
            return FileResult(job.results[-1], "skipped", record=record)
        return None

    def _job(self, recording: RecordingFile, entry: Entry, folder: Path) -> FileJob:
        return FileJob(self._separator, recording, entry.prompts, folder, self._setup.options)


def _bring(entry: Entry, recording: RecordingFile) -> None:
    if recording.origin is not None:
        stores.fetch(entry.path, recording.path)
