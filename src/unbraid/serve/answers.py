"""What the server answers, as types: OpenAPI is made of them, examples included."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from unbraid.audio.formats import Container
from unbraid.serve.book import Standing
from unbraid.serve.jobs import Failure, Limits, Offer, State

_JOB = "6f1d0c9b8a7e4f3d92c5b1a0e8f7d6c4"

#: The id of a job, as it stands in addresses.
ID_PATTERN = "^[0-9a-f]{32}$"


class StemAnswer(BaseModel):
    """One stem of a job that is done."""

    name: str = Field(description="The prompt, numbered where it repeats, or `residual`.")
    path: str = Field(description="Where to fetch it, on this server.")
    num_bytes: int = Field(ge=0)
    level_dbfs: float | None = Field(description="0 is full scale; null is silence.")
    presence: float | None = Field(
        description="From 0 to 1, how sure it is that the sound is there; null for the residual."
    )


class FailureAnswer(BaseModel):
    """Why a job failed."""

    kind: str
    detail: str


class JobAnswer(BaseModel):
    """Where a job stands."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": _JOB,
                    "state": "done",
                    "progress": 1.0,
                    "done_s": 12.5,
                    "total_s": 12.5,
                    "position": None,
                    "prompts": ["speech", "music-mix"],
                    "format": "wav",
                    "sample_rate": 48000,
                    "num_channels": 2,
                    "created": 1790000000.0,
                    "started": 1790000000.1,
                    "finished": 1790000002.6,
                    "expires": 1790003602.6,
                    "stems": [
                        {
                            "name": "speech",
                            "path": f"/v1/jobs/{_JOB}/stems/speech",
                            "num_bytes": 2400044,
                            "level_dbfs": -23.1,
                            "presence": 0.98,
                        }
                    ],
                    "archive": f"/v1/jobs/{_JOB}/stems.zip",
                    "residual_to_mixture_db": -31.2,
                    "warnings": [],
                    "failure": None,
                }
            ]
        }
    )

    id: str = Field(pattern=ID_PATTERN)
    state: State
    progress: float = Field(ge=0, le=1, description="The part of the recording that is separated.")
    done_s: float = Field(ge=0, description="Seconds of the recording that are separated.")
    total_s: float = Field(ge=0, description="Seconds of the recording.")
    position: int | None = Field(description="How many jobs come before this one, if it waits.")
    prompts: list[str]
    format: Container
    sample_rate: int
    num_channels: int
    created: float = Field(description="Seconds since 1970, as all times here.")
    started: float | None
    finished: float | None
    expires: float | None = Field(description="Until when the stems can be fetched.")
    stems: list[StemAnswer]
    archive: str | None = Field(description="Where to fetch all stems as one zip.")
    residual_to_mixture_db: float | None
    warnings: list[str]
    failure: FailureAnswer | None


class RefusalAnswer(BaseModel):
    """Why a request was turned away."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kind": "PromptError",
                    "detail": "unknown prompt 'spech'; did you mean speech?",
                    "retry_after_s": None,
                }
            ]
        }
    )

    kind: str = Field(description="A word for programs.")
    detail: str = Field(description="What is wrong and what to do about it, for people.")
    retry_after_s: int | None = Field(
        default=None, description="When it makes sense to ask again, as in Retry-After."
    )


class LimitsAnswer(BaseModel):
    """What the server takes; more is turned away with 413 or 429."""

    upload_bytes: int
    audio_s: float
    channels: int
    stems: int
    queued_jobs: int
    kept_s: float


class OfferAnswer(BaseModel):
    """What the server separates with."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "mini",
                    "digest": "9d0f" * 16,
                    "prompts": ["speech", "sfx", "sfx-mix", "music-mix"],
                    "sample_rate": 48000,
                    "limits": {
                        "upload_bytes": 536870912,
                        "audio_s": 3600.0,
                        "channels": 8,
                        "stems": 8,
                        "queued_jobs": 100,
                        "kept_s": 3600.0,
                    },
                }
            ]
        }
    )

    model: str
    digest: str = Field(description="SHA-256 of the model.")
    prompts: list[str]
    sample_rate: int = Field(description="What the model works at; recordings may have any rate.")
    limits: LimitsAnswer


class HealthAnswer(BaseModel):
    """Whether the server takes jobs."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: str


def job_answer(standing: Standing, limits: Limits) -> JobAnswer:
    """The answer about a job."""
    job = standing.job
    total_s = job.sound.duration_s
    is_done = job.state in ("done", "expired")
    progress = 1.0 if is_done else min(standing.done_s / total_s, 1.0) if total_s else 0.0
    at = f"/v1/jobs/{job.id}"
    has_stems = job.state == "done" and job.finished is not None
    return JobAnswer(
        id=job.id,
        state=job.state,
        progress=progress,
        done_s=total_s if is_done else standing.done_s,
        total_s=total_s,
        position=standing.position,
        prompts=list(job.request.prompts),
        format=job.request.format,
        sample_rate=job.sound.sample_rate,
        num_channels=job.sound.num_channels,
        created=job.created,
        started=job.started,
        finished=job.finished,
        expires=job.finished + limits.kept_s if has_stems and job.finished else None,
        stems=[
            StemAnswer(
                name=stem.name,
                path=f"{at}/stems/{stem.name}",
                num_bytes=stem.num_bytes,
                level_dbfs=stem.level_dbfs,
                presence=stem.presence,
            )
            for stem in job.stems
        ],
        archive=f"{at}/stems.zip" if has_stems else None,
        residual_to_mixture_db=job.residual_to_mixture_db,
        warnings=list(job.warnings),
        failure=_failure_answer(job.failure),
    )


def offer_answer(offer: Offer) -> OfferAnswer:
    """The answer about the server."""
    limits = offer.limits
    return OfferAnswer(
        model=offer.model,
        digest=offer.digest,
        prompts=list(offer.prompts),
        sample_rate=offer.sample_rate,
        limits=LimitsAnswer(
            upload_bytes=limits.upload_bytes,
            audio_s=limits.audio_s,
            channels=limits.channels,
            stems=limits.stems,
            queued_jobs=limits.queued_jobs,
            kept_s=limits.kept_s,
        ),
    )


def _failure_answer(failure: Failure | None) -> FailureAnswer | None:
    return None if failure is None else FailureAnswer(kind=failure.kind, detail=failure.detail)


#: The form that makes a job, for OpenAPI; ``jobs.JobRequest`` is what is made of it.
FORM: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file", "prompts"],
                "additionalProperties": False,
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": "The recording itself, in any format that can be read here. "
                        "No address and no path; its name does not matter.",
                    },
                    "prompts": {
                        "type": "string",
                        "description": "What to separate into: names with commas between them.",
                        "examples": ["speech,sfx-mix,music-mix"],
                    },
                    "format": {
                        "type": "string",
                        "enum": ["wav", "flac", "ogg", "opus", "mp3", "m4a"],
                        "default": "wav",
                    },
                    "depth": {
                        "type": "string",
                        "enum": ["int16", "int24", "float32"],
                        "description": "Left out: the recording's own.",
                    },
                    "bitrate_kbps": {"type": "integer", "minimum": 6, "maximum": 2048},
                    "residual": {
                        "type": "boolean",
                        "default": False,
                        "description": "Give what the stems leave over as one more stem.",
                    },
                    "gate": {
                        "type": "boolean",
                        "default": False,
                        "description": "Make a stem silent where its sound is absent.",
                    },
                    "consistency": {
                        "type": "string",
                        "enum": ["off", "project"],
                        "default": "off",
                        "description": "`project`: the stems add up to the recording.",
                    },
                    "peak_dbfs": {
                        "type": "number",
                        "minimum": -200,
                        "maximum": 0,
                        "description": "Bring the highest peak of all stems to this level.",
                    },
                    "track": {"type": "integer", "minimum": 1},
                },
            },
            "encoding": {"file": {"contentType": "application/octet-stream"}},
        }
    },
}
