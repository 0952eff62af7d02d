"""What Prometheus may ask for."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from unbraid.serve.jobs import Job

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """The numbers of one server, in a registry of its own."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._registry = registry
        self._accepted = Counter(
            "unbraid_jobs_accepted", "Jobs that were queued.", registry=registry
        )
        self._finished = Counter(
            "unbraid_jobs_finished", "Jobs that came to an end.", ["state"], registry=registry
        )
        self._refused = Counter(
            "unbraid_requests_refused", "Requests turned away.", ["status"], registry=registry
        )
        self._upload_bytes = Counter(
            "unbraid_upload_bytes", "Bytes of the uploads of jobs.", registry=registry
        )
        self._audio_s = Counter(
            "unbraid_audio_seconds", "Seconds of recordings separated.", registry=registry
        )
        self._waiting_s = Histogram(
            "unbraid_job_waiting_seconds",
            "From the upload of a job to its beginning.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._working_s = Histogram(
            "unbraid_job_working_seconds",
            "From the beginning of a job to its end.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._num_queued = Gauge("unbraid_jobs_queued", "Jobs that wait.", registry=registry)
        self._num_running = Gauge(
            "unbraid_jobs_running", "Jobs that are worked on.", registry=registry
        )
        self._num_bytes = Gauge(
            "unbraid_spool_bytes", "Bytes of uploads and stems that are kept.", registry=registry
        )
        for state in ("done", "failed", "cancelled"):
            self._finished.labels(state)

    def accepted(self, job: Job) -> None:
        """Count a job that is queued now."""
        self._accepted.inc()
        self._upload_bytes.inc(job.num_bytes)

    def started(self, job: Job) -> None:
        """Count a job that begins."""
        assert job.started is not None, "it begins"
        self._waiting_s.observe(max(0.0, job.started - job.created))

    def finished(self, job: Job) -> None:
        """Count a job that has come to an end."""
        self._finished.labels(job.state).inc()
        if job.started is not None and job.finished is not None:
            self._working_s.observe(max(0.0, job.finished - job.started))
        if job.state == "done":
            self._audio_s.inc(job.sound.duration_s)

    def refused(self, status: int) -> None:
        """Count a request that was turned away."""
        self._refused.labels(str(status)).inc()

    def measured(self, *, num_queued: int, num_running: int, num_bytes: int) -> None:
        """Take down how much there is just now."""
        self._num_queued.set(num_queued)
        self._num_running.set(num_running)
        self._num_bytes.set(num_bytes)

    def text(self) -> bytes:
        """All of it, in the text format of Prometheus."""
        return generate_latest(self._registry)
