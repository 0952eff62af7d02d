"""From the body of a request to a recording on disk: counted, timed, decoded.

Nothing is believed: not the length that is announced, not the name, not the type. Bytes are counted
while they arrive, and the sound is decoded to its end before there is a job.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from unbraid.audio.decode import count_samples
from unbraid.audio.packed_file import is_packed
from unbraid.errors import AudioError
from unbraid.serve.jobs import Limits, Sound
from unbraid.serve.refusals import Refusal

#: The field with the recording.
FILE = "file"
#: Boundaries, headers and the other fields of a form; far more than any honest one needs.
_FORM_BYTES = 64 * 2**10
_MOST_FIELDS = 16
#: What is left of a body that is turned away is read up to so much: some clients listen to an
#: answer only when they have sent everything.
_DRAINED_BYTES = 2**20
_DRAINING_S = 5.0
_HEAD_BYTES = 16


@dataclass(frozen=True)
class Form:
    """A form that has arrived.

    Attributes:
        fields: What stands in it beside the recording.
        recording: The recording, in a temporary file without a name.
    """

    fields: Mapping[str, str]
    recording: IO[bytes]


def check_length(headers: Headers, limits: Limits) -> None:
    """Turn away what announces that it is too large, before any of it is read.

    Raises:
        Refusal: 413 for too much; 400 for what is no number; 415 for another type than a form.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise Refusal(
            415,
            "UnsupportedMediaType",
            f"send a form (multipart/form-data) with the recording as the field {FILE!r}, as "
            f"`curl --form {FILE}=@recording.wav` does, not {kind or 'something without a type'}.",
        )
    announced = headers.get("content-length")
    if announced is None:
        return
    if not announced.isascii() or not announced.isdigit():
        raise Refusal(400, "BadRequest", "Content-Length must be a number of bytes.")
    if int(announced) > limits.upload_bytes + _FORM_BYTES:
        raise _too_large(limits)


@asynccontextmanager
async def received(request: Request, limits: Limits) -> AsyncIterator[Form]:
    """Read the form of a request; its temporary file is removed at the end of the block.

    Raises:
        Refusal: 413 when too much has arrived; 408 when it took too long; 400 for a form that is
            broken, or broken off; 422 for one without a recording, or with two of a field.
    """
    parser = MultiPartParser(
        request.headers,
        _counted(request, limits),
        max_files=1,
        max_fields=_MOST_FIELDS,
        max_part_size=_FORM_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal(400, "BadForm", f"the form cannot be read: {error.message}") from error
    try:
        fields: dict[str, str] = {}
        recording: IO[bytes] | None = None
        for name, value in form.multi_items():
            if name in fields or (name == FILE and recording is not None):
                raise Refusal(422, "ConfigError", f"the form has the field {name!r} twice.")
            if isinstance(value, UploadFile):
                if name != FILE:
                    raise Refusal(
                        422,
                        "ConfigError",
                        f"the recording must be the field {FILE!r}, not {name!r}.",
                    )
                recording = value.file
            else:
                fields[name] = value
        if recording is None:
            raise Refusal(
                422,
                "AudioError",
                f"the form has no recording; send one as the field {FILE!r}, as `curl --form "
                f"{FILE}=@recording.wav` does. Addresses and paths are not taken.",
            )
        yield Form(fields, recording)
    finally:
        await form.close()


async def _counted(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """The body, as long as there is not too much of it and it does not take too long."""
    chunks = request.stream()
    ends = time.monotonic() + limits.upload_s
    total = 0
    while True:
        try:
            async with asyncio.timeout(max(0.0, ends - time.monotonic())):
                chunk = await anext(chunks, None)
        except TimeoutError as error:
            raise Refusal(
                408, "TooSlow", f"the upload took longer than {limits.upload_s:g} s; try again."
            ) from error
        except ClientDisconnect as error:
            raise Refusal(400, "BrokenOff", "the upload broke off.") from error
        if chunk is None:
            return
        total += len(chunk)
        if total > limits.upload_bytes + _FORM_BYTES:
            raise _too_large(limits)
        yield chunk


def _too_large(limits: Limits) -> Refusal:
    return Refusal(
        413,
        "TooLarge",
        f"an upload may have {limits.upload_bytes / 2**20:.1f} MiB; send less, for example "
        "as FLAC.",
    )


async def drain(request: Request) -> bool:
    """Read what is left of a small body, so that the client hears why it was turned away.

    Returns:
        Whether all of it was read; if not, the connection is of no more use.
    """
    announced = request.headers.get("content-length", "0")
    is_chunked = "transfer-encoding" in request.headers
    if is_chunked or not announced.isdigit() or int(announced) > _DRAINED_BYTES:
        return False
    try:
        async with asyncio.timeout(_DRAINING_S):
            while True:
                message = await request.receive()
                if message["type"] != "http.request":
                    return False
                if not message.get("more_body", False):
                    return True
    except TimeoutError:
        return False


def keep(recording: IO[bytes], path: Path, limits: Limits, track: int | None) -> Sound:
    """Copy a recording to its place, and decode it there to its end.

    Args:
        recording: What has arrived.
        path: Where it goes.
        limits: What is taken.
        track: Which audio track is wanted, from 1; None for its default.

    Returns:
        What it holds.

    Raises:
        Refusal: 413 if the file is too large, the sound too long, or has too many channels; 507 if
            the disk is full.
        AudioError: If it is no recording, damaged, or has no such track.
    """
    recording.seek(0)
    try:
        with path.open("xb") as file:
            shutil.copyfileobj(recording, file, 2**20)
            num_bytes = file.tell()
    except OSError as error:
        raise Refusal(507, "DiskFull", "the server has no room for this upload.", 300) from error
    if num_bytes > limits.upload_bytes:
        raise _too_large(limits)
    # Such a file may name other files to read its samples from.
    with path.open("rb") as file:
        if is_packed(file.read(_HEAD_BYTES)):
            raise AudioError(f"{path}: HDF5 is not taken here; send wav or flac.")
    sample_rate, num_channels, num_samples = count_samples(path, track, limits.audio_s)
    sound = Sound(sample_rate, num_channels, num_samples)
    if num_channels > limits.channels:
        raise Refusal(
            413,
            "TooManyChannels",
            f"the recording has {num_channels} channels; {limits.channels} are taken.",
        )
    if sound.duration_s > limits.audio_s:
        raise Refusal(
            413,
            "TooLong",
            f"the recording is longer than {limits.audio_s:g} s; send it in pieces, or use "
            "`unbraid separate`.",
        )
    return sound
