"""The server's addresses: what can be asked, and how it is answered. No work is done here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, FastAPI, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from unbraid._version import __version__
from unbraid.apps.separate_files import PRESENCE
from unbraid.errors import UnbraidError
from unbraid.serve.access import check_access
from unbraid.serve.answers import (
    FORM,
    ID_PATTERN,
    HealthAnswer,
    JobAnswer,
    OfferAnswer,
    RefusalAnswer,
    job_answer,
    offer_answer,
)
from unbraid.serve.archive import zipped
from unbraid.serve.book import JobBook
from unbraid.serve.engine import Engine, without_paths
from unbraid.serve.jobs import Job, Offer, new_id, parse_request
from unbraid.serve.metrics import Metrics
from unbraid.serve.refusals import Refusal, refusal_of
from unbraid.serve.spool import Spool
from unbraid.serve.uploads import Form, check_length, drain, keep, received

_DESCRIPTION = """\
Send a recording and the names of what to separate it into; ask how far the work is; fetch the
stems.

Recordings are uploaded. Addresses of other servers and paths on this one are never taken.
"""
_MEDIA_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
}
#: How many uploads are decoded at a time, before they become jobs.
_NUM_ACCEPTING = 4
_HTTP_KINDS = {404: "NotFound", 405: "MethodNotAllowed"}

JobId = Annotated[str, Path(description="As the answer to the upload says.", pattern=ID_PATTERN)]


@dataclass(frozen=True)
class Service:
    """All that a server consists of.

    Attributes:
        offer: What it separates with, and its limits.
        spool: Where jobs are kept.
        book: All jobs.
        engine: What works on them.
        metrics: What is counted.
        token: Without it nobody gets in; None if everybody on this machine may.
    """

    offer: Offer
    spool: Spool
    book: JobBook
    engine: Engine
    metrics: Metrics
    token: str | None = None


def build_app(service: Service) -> FastAPI:
    """The application that answers for a service. Starting and stopping that is left to others."""
    app = FastAPI(
        title="unbraid",
        summary="Separates any recording into the sources you name.",
        description=_DESCRIPTION,
        version=__version__,
        redoc_url=None,
    )
    app.add_exception_handler(Refusal, _answer_refusal(service))
    app.add_exception_handler(RequestValidationError, _answer_refusal(service))
    app.add_exception_handler(HTTPException, _answer_refusal(service))
    app.include_router(_open_routes(service))
    app.include_router(_guarded_routes(service))
    return app


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says about answers with these statuses."""
    words = {
        400: "The form is broken, or broke off.",
        401: "The token is missing or wrong.",
        403: "Asked by a foreign page or name.",
        404: "There is no such job, or no such stem.",
        408: "The upload took too long.",
        409: "The job is not done.",
        410: "The stems are not kept any more.",
        413: "Too large, too long, or too many channels.",
        415: "The body is no form.",
        422: "What is asked for makes no sense, or the upload is no recording.",
        429: "The queue or the disk is full; Retry-After says when to try again.",
        503: "The server is about to stop.",
        507: "The disk is full.",
    }
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        found[status] = {"model": RefusalAnswer, "description": words[status]}
        if status in (429, 503):
            found[status]["headers"] = {
                "Retry-After": {"description": "In seconds.", "schema": {"type": "integer"}}
            }
    return found


def _open_routes(service: Service) -> APIRouter:
    """What needs no token."""
    router = APIRouter(tags=["server"])

    @router.get("/healthz", summary="Whether jobs are taken", responses=_refusals(503))
    def health() -> HealthAnswer:
        if service.book.is_closed:
            raise Refusal(503, "Stopping", "the server is about to stop; try again later.", 10)
        return HealthAnswer(status="ok")

    @router.get("/", include_in_schema=False)
    def front_door() -> RedirectResponse:
        # Relative, for a proxy may have the server below a path of its own.
        return RedirectResponse("docs")

    return router


def _guarded_routes(service: Service) -> APIRouter:
    def authorized(request: Request) -> None:
        check_access(request, service.token)

    scheme = HTTPBearer(auto_error=False, description="Needed if the server has a token.")
    router = APIRouter(
        dependencies=[Depends(authorized), Depends(scheme)], responses=_refusals(401, 403)
    )
    limits = service.offer.limits
    accepting = CapacityLimiter(_NUM_ACCEPTING)

    def standing(job_id: str) -> JobAnswer:
        return job_answer(service.book.standing(job_id), limits)

    @router.get(
        "/metrics",
        tags=["server"],
        summary="Numbers for Prometheus",
        response_class=PlainTextResponse,
    )
    def metrics() -> PlainTextResponse:
        return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @router.get("/v1/offer", tags=["server"], summary="Model, prompts and limits")
    def offer() -> OfferAnswer:
        return offer_answer(service.offer)

    @router.post(
        "/v1/jobs",
        status_code=202,
        tags=["jobs"],
        summary="Upload a recording and queue it",
        openapi_extra={"requestBody": FORM},
        responses=_refusals(400, 408, 413, 415, 422, 429, 503, 507),
    )
    async def submit(request: Request, response: Response) -> JobAnswer:
        check_length(request.headers, limits)
        # Never on the loop: the book waits for the disk.
        await run_in_threadpool(service.book.reserve)
        try:
            request.scope[_IS_READ] = False
            async with received(request, limits) as form:
                request.scope[_IS_READ] = True
                # Decoding takes long, and must not keep questions from being answered.
                job = await to_thread.run_sync(_accept, service, form, limiter=accepting)
        finally:
            with CancelScope(shield=True):
                await run_in_threadpool(service.book.release)
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return await run_in_threadpool(standing, job.id)

    @router.get(
        "/v1/jobs/{job_id}",
        tags=["jobs"],
        summary="Where a job stands",
        responses=_refusals(404, 422),
    )
    def status(job_id: JobId) -> JobAnswer:
        return standing(job_id)

    @router.delete(
        "/v1/jobs/{job_id}",
        tags=["jobs"],
        summary="Cancel a job, or delete its stems",
        description="A job that waits or runs is cancelled; a running one ends a little later. The "
        "stems of one that is done are deleted.",
        responses=_refusals(404, 422),
    )
    def cancel(job_id: JobId) -> JobAnswer:
        service.book.cancel(job_id)
        return standing(job_id)

    @router.get(
        "/v1/jobs/{job_id}/stems/{name}",
        tags=["jobs"],
        summary="Fetch a stem",
        response_class=FileResponse,
        responses={
            200: {
                "description": "The stem, in the format that was asked for.",
                "content": {kind: {} for kind in dict.fromkeys(_MEDIA_TYPES.values())},
            },
            **_refusals(404, 409, 410, 422),
        },
    )
    def stem(
        job_id: JobId, name: Annotated[str, Path(description="As the job's answer says.")]
    ) -> FileResponse:
        job = _done(service, job_id)
        files = {each.name: each.file for each in job.stems}
        if name not in files:
            raise Refusal(
                404, "UnknownStem", f"this job has no such stem; it has {', '.join(files)}."
            )
        return FileResponse(
            service.spool.results(job_id) / files[name],
            media_type=_MEDIA_TYPES[job.request.format],
            filename=files[name],
        )

    @router.get(
        "/v1/jobs/{job_id}/stems.zip",
        tags=["jobs"],
        summary="Fetch all stems as one zip",
        description="With presence.csv, which says when each sound is there.",
        response_class=StreamingResponse,
        responses={
            200: {"description": "The zip.", "content": {"application/zip": {}}},
            **_refusals(404, 409, 410, 422),
        },
    )
    def archive(job_id: JobId) -> StreamingResponse:
        job = _done(service, job_id)
        folder = service.spool.results(job_id)
        names = [*(each.file for each in job.stems), f"{PRESENCE}.csv"]
        try:
            pieces = zipped({name: folder / name for name in names})
        except FileNotFoundError as error:
            raise _gone() from error
        return StreamingResponse(
            pieces,
            media_type="application/zip",
            headers={"Content-Disposition": 'attachment; filename="stems.zip"'},
        )

    return router


#: In the scope of a request that has a body: whether all of it was read.
_IS_READ = "unbraid.is_read"


def _accept(service: Service, form: Form) -> Job:
    """Make a job of a form that has arrived.

    Raises:
        Refusal: If anything about it is wrong.
    """
    limits = service.offer.limits
    with service.spool.incoming() as recording:
        try:
            request = parse_request(form.fields)
            service.engine.check(request)
            if len(request.prompts) > limits.stems:
                raise Refusal(
                    413,
                    "TooManyStems",
                    f"{len(request.prompts)} prompts; at most {limits.stems} are taken.",
                )
            sound = keep(form.recording, recording, limits, request.track)
            num_bytes = recording.stat().st_size
            job = Job(new_id(), request, sound, num_bytes, created=time.time())
            service.book.add(job, recording)
        except UnbraidError as error:
            refusal = refusal_of(error)
            refusal.detail = without_paths(refusal.detail, recording)
            raise refusal from error
    return job


def _done(service: Service, job_id: str) -> Job:
    """A job whose stems can be fetched.

    Raises:
        Refusal: 404, 409 or 410 if they cannot.
    """
    job = service.book.standing(job_id).job
    if job.state == "expired":
        raise _gone()
    if job.state != "done":
        raise Refusal(409, "NotDone", f"the job is {job.state}, so there are no stems.")
    return job


def _gone() -> Refusal:
    return Refusal(410, "Expired", "the stems are not kept any more; send the recording again.")


def _answer_refusal(service: Service) -> Any:
    async def answer(request: Request, error: Exception) -> JSONResponse:
        refusal = error if isinstance(error, Refusal) else _as_refusal(error)
        is_read = request.scope.get(_IS_READ)
        if is_read is None:
            is_read = await drain(request)
        service.metrics.refused(refusal.status)
        content = RefusalAnswer(
            kind=refusal.kind, detail=refusal.detail, retry_after_s=refusal.retry_after_s
        )
        headers: Mapping[str, str] = getattr(error, "headers", None) or {}
        closing = {} if is_read else {"Connection": "close"}
        return JSONResponse(
            content.model_dump(), refusal.status, {**headers, **_headers_of(refusal), **closing}
        )

    return answer


def _headers_of(refusal: Refusal) -> dict[str, str]:
    headers = {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def _as_refusal(error: Exception) -> Refusal:
    """What FastAPI itself found wrong with a request."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"][1:]))
        return Refusal(422, "ConfigError", f"{place}: {first['msg']}.")
    assert isinstance(error, HTTPException)
    kind = _HTTP_KINDS.get(error.status_code, "HTTPError")
    return Refusal(error.status_code, kind, f"{error.detail}.")
