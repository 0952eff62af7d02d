"""The server under requests that schemathesis makes up from its own description."""

# ruff: noqa: E402 - without the packages there is nothing to import

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs unbraid[serve]")
schemathesis = pytest.importorskip("schemathesis", reason="needs the development tools")

from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from command_line import write_audio
from serving import DIGEST
from unbraid.apps.separator import Separator
from unbraid.models.waveform import WaveformModel
from unbraid.serve.api import build_app
from unbraid.serve.client import Client
from unbraid.serve.jobs import Limits, Offer
from unbraid.serve.server import ServeOptions, listening, opened_service

TOKEN = "a-token-for-this-test"
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.missing_required_header,
    checks.unsupported_method,
    checks.ignored_auth,
]


@dataclass(frozen=True)
class Fuzzed:
    """A server, its description, and a client that prepares what the fuzzer cannot make up."""

    description: Any
    client: Client
    recording: Path


@pytest.fixture(scope="module")
def fuzzed(
    built_tiny_model: WaveformModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fuzzed]:
    separator = Separator(built_tiny_model)
    limits = Limits(upload_bytes=100_000, queued_jobs=3)
    offer = Offer("tiny", DIGEST, separator.prompts, separator.sample_rate, limits)
    options = ServeOptions(port=0, token=TOKEN, num_jobs=1, grace_s=5)
    with (
        opened_service([separator], offer, options) as service,
        listening(service, options) as address,
    ):
        yield Fuzzed(
            schemathesis.openapi.from_asgi("/openapi.json", build_app(service)),
            Client(address, TOKEN),
            write_audio(tmp_path_factory.mktemp("fuzzed") / "a.wav", 2000, num_channels=1),
        )


# The server works in threads of this process meanwhile, and may draw random numbers.
@pytest.mark.filterwarnings("ignore:Do not use the .random. module")
@pytest.mark.slow
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/healthz"),
        ("GET", "/metrics"),
        ("GET", "/v1/offer"),
        ("POST", "/v1/jobs"),
        ("GET", "/v1/jobs/{job_id}"),
        ("DELETE", "/v1/jobs/{job_id}"),
        ("GET", "/v1/jobs/{job_id}/stems/{name}"),
        ("GET", "/v1/jobs/{job_id}/stems.zip"),
    ],
)
def test_whatever_is_asked_the_answer_is_one_of_those_described(
    fuzzed: Fuzzed, method: str, path: str, mode: Any
) -> None:
    operation = fuzzed.description[path][method]
    is_sensible = mode is schemathesis.GenerationMode.POSITIVE
    has_parts = "{" in path or method == "POST"
    if not has_parts and not is_sensible:
        pytest.skip("nothing about it can be wrong")
    done = fuzzed.client.submit(fuzzed.recording, ["speech"])
    fuzzed.client.wait(done.id, every_s=0.02)

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    def ask(case: Any) -> None:
        # What is sensible by the description rarely is a job that exists, or sound.
        if is_sensible and "{" in path:
            case.path_parameters["job_id"] = done.id
        if is_sensible and method == "POST":
            case.body |= {"file": fuzzed.recording.read_bytes(), "prompts": "speech,sfx"}
        chosen = CHECKS if is_sensible else [*CHECKS, checks.negative_data_rejection]
        case.call_and_validate(checks=chosen, headers={"Authorization": f"Bearer {TOKEN}"})

    ask()


@pytest.mark.slow
def test_every_address_is_fuzzed(fuzzed: Fuzzed) -> None:
    described = [found.ok() for found in fuzzed.description.get_all_operations()]
    marks = test_whatever_is_asked_the_answer_is_one_of_those_described.pytestmark
    listed = next(mark.args[1] for mark in marks if mark.args[:1] == (("method", "path"),))
    assert {(each.method.upper(), each.path) for each in described} == set(listed)
