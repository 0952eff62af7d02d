"""The folder in which jobs live: a folder for each, with its record, its upload and its stems.

Nothing in there has a name that a client chose. A job's folder appears when its upload is whole
and was decoded; records are replaced in one step. So whatever ends a server, the next one on the
same folder finds whole jobs only.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unbraid.apps.whole_files import rename, write_whole
from unbraid.apps.workplace import clear_leftovers, enter_workplace
from unbraid.config import dump, load_mapping, parse
from unbraid.errors import ConfigError, UnbraidError
from unbraid.serve.jobs import Job

_RECORD = "job.json"
_RECORDING = "recording"
_RESULTS = "stems"
_IS_ID = re.compile(r"[0-9a-f]{32}")

log = logging.getLogger(__name__)


class Spool:
    """The jobs on disk. Belongs to one server at a time, until ``close``.

    Args:
        folder: Where; it is made if it is not there.

    Raises:
        ConfigError: If another server has it.
        AudioError: If it cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        workplace = enter_workplace(folder, folder / "server")
        if workplace is None:
            raise ConfigError(
                f"{folder}: another server works with this folder; stop it, or choose another "
                "folder with --spool."
            )
        self._workplace = workplace

    def close(self) -> None:
        """Let another server have the folder. Uploads that never became jobs are removed."""
        self._workplace.leave()

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A place for an upload that is not a job yet; what is there at the end is removed."""
        folder = self._workplace.folder / secrets.token_hex(8)
        folder.mkdir()
        try:
            yield folder / _RECORDING
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def place(self, job: Job, recording: Path) -> None:
        """Make a job of an upload that came through ``incoming``.

        Raises:
            AudioError: If the disk does not take it.
        """
        write_whole(recording.with_name(_RECORD), _content(job))
        rename(recording.parent, self.folder / job.id)

    def note(self, job: Job) -> None:
        """Write down where a job stands.

        Raises:
            AudioError: If the disk does not take it.
        """
        write_whole(self.folder / job.id / _RECORD, _content(job))

    def recording(self, job_id: str) -> Path:
        """The upload of a job."""
        return self.folder / job_id / _RECORDING

    def results(self, job_id: str) -> Path:
        """The folder with the stems of a job; it is there when they are."""
        return self.folder / job_id / _RESULTS

    def drop_upload(self, job_id: str) -> None:
        """Remove what is of no use any more when a job has come to an end."""
        self.recording(job_id).unlink(missing_ok=True)

    def drop_results(self, job_id: str) -> None:
        """Remove the stems of a job."""
        shutil.rmtree(self.results(job_id), ignore_errors=True)

    def drop(self, job_id: str) -> None:
        """Remove all that is kept of a job."""
        shutil.rmtree(self.folder / job_id, ignore_errors=True)

    def load(self) -> list[Job]:
        """The jobs that former servers left, the oldest first.

        What cannot be read is left alone, with a warning in the log.
        """
        jobs = []
        for folder in self.folder.iterdir():
            if not _IS_ID.fullmatch(folder.name):
                continue
            try:
                job = parse(Job, load_mapping(folder / _RECORD), where=str(folder / _RECORD))
            except UnbraidError as error:
                log.warning("a job was left out: %s", error)
                continue
            clear_leftovers(self.results(job.id))
            jobs.append(job)
        return sorted(jobs, key=lambda job: job.created)


def _content(job: Job) -> bytes:
    return (json.dumps(dump(job), indent=2) + "\n").encode()
