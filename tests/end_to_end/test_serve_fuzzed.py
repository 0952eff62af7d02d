"""The server under requests that schemathesis makes up from its own description."""

# ruff: noqa: E402 - without the packages there is nothing to import

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="needs unbraid[serve]")
schemathesis = pytest.importorskip("schemathesis", reason="needs the development tools")

from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from serving import DIGEST
from unbraid.apps.separator import Separator
from unbraid.models.waveform import WaveformModel
from unbraid.serve.api import build_app
from unbraid.serve.jobs import Limits, Offer
from unbraid.serve.server import ServeOptions, opened_service

TOKEN = "a-token-for-this-test"
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.missing_required_header,
    checks.unsupported_method,
    checks.ignored_auth,
]


@pytest.fixture(scope="module")
def description(built_tiny_model: WaveformModel) -> Iterator[object]:
    separator = Separator(built_tiny_model)
    limits = Limits(upload_bytes=100_000, queued_jobs=3)
    offer = Offer("tiny", DIGEST, separator.prompts, separator.sample_rate, limits)
    options = ServeOptions(token=TOKEN, num_jobs=1, grace_s=5)
    with opened_service([separator], offer, options) as service:
        yield schemathesis.openapi.from_asgi("/openapi.json", build_app(service))


schema = schemathesis.pytest.from_fixture("description")


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_asked_the_answer_is_one_of_those_described(
    case: schemathesis.Case,
) -> None:
    case.call_and_validate(checks=CHECKS, headers={"Authorization": f"Bearer {TOKEN}"})
