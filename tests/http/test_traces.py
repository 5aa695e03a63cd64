"""OpenTelemetry traces as a collector receives them, and what they cost where nobody asks for them."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from authority import Site
from clinic import Clinic
from db import Database
from fhir_sched import telemetry
from server import Server

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01"
SERVER, CLIENT = 2, 3


class Collector:
    """What an OTLP collector is sent over HTTP."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.serve["/v1/traces"] = lambda _: (200, {"Content-Type": "application/x-protobuf"}, b"")

    def spans(self, trace: str, count: int) -> list[Any]:
        """The spans of a trace, waited for until there are so many."""
        deadline = time.monotonic() + 20
        while len(found := [span for span in self._received() if span.trace_id.hex() == trace]) < count:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        assert len(found) == count, found
        return found

    def resource(self) -> dict[str, str]:
        """What the first request says of who sends it."""
        sent = ExportTraceServiceRequest.FromString(self.site.sent[0][1])
        return {each.key: each.value.string_value for each in sent.resource_spans[0].resource.attributes}

    def _received(self) -> Iterator[Any]:
        for _, body in list(self.site.sent):
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for of_scope in of_resource.scope_spans:
                    yield from of_scope.spans


def told(span: Any) -> dict[str, Any]:
    """The attributes of a span."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """One that the servers of this test send to."""
    with Site().running() as site:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", site.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=tests")
        yield Collector(site)


def test_a_request_is_a_span_below_its_callers_with_a_child_for_the_database(
    collector: Collector, database: Database, tenant: UUID
) -> None:
    with Server(database.app_url) as traced:
        clinic = Clinic(traced, database, tenant)
        free = clinic.slot(clinic.schedule(), "2031-01-01T09:00:00Z")
        clinic.http.headers["traceparent"] = PARENT
        assert clinic.http.get(f"Slot/{free['id']}?_summary=false").status_code == 200
        clinic.http.headers["X-Request-Id"] = "booking-1"
        assert clinic.book(free, patient="Patient/canary-4711").status_code == 201
        assert clinic.http.get("Appointment?patient=Patient/canary-4711").json()["total"] == 1
        clinic.close()
        spans = collector.spans(TRACE, 6)

    requests = {span.name: span for span in spans if span.kind == SERVER}
    assert set(requests) == {"GET Slot/{id}", "POST Appointment", "GET Appointment"}
    for span in requests.values():
        assert span.parent_span_id.hex() == CALLER
    assert told(requests["POST Appointment"]) == {
        "http.request.method": "POST",
        "http.route": "Appointment",
        "fhir_sched.tenant": str(tenant),
        "fhir_sched.request_id": "booking-1",
        "http.response.status_code": 201,
    }
    trips = {span.parent_span_id: span for span in spans if span.kind == CLIENT}
    assert set(trips) == {span.span_id for span in requests.values()}
    read = trips[requests["GET Slot/{id}"].span_id]
    assert (read.name, told(read)["db.system.name"]) == ("postgresql read", "postgresql")
    assert {"service.name": "fhir-sched", "deployment.environment": "tests"}.items() <= collector.resource().items()
    everything = b"".join(body for _, body in collector.site.sent)
    assert b"canary" not in everything
    assert free["id"].encode() not in everything


def test_a_refusal_is_told_by_its_status_and_type_alone(collector: Collector, database: Database, tenant: UUID) -> None:
    with Server(database.app_url) as traced:
        clinic = Clinic(traced, database, tenant)
        free = clinic.slot(clinic.schedule(), "2031-01-02T09:00:00Z")
        clinic.booked(free)
        clinic.http.headers["traceparent"] = PARENT
        assert clinic.book(free).status_code == 409
        clinic.close()
        trip, request = sorted(collector.spans(TRACE, 2), key=lambda span: -span.kind)
    assert told(request)["http.response.status_code"] == 409
    assert (request.status.code, trip.status.code) == (0, 2)
    assert told(trip)["error.type"] == "FhirError"
    assert not trip.events
    assert not trip.status.message


def test_a_collector_that_does_not_answer_holds_up_neither_a_request_nor_the_end(
    monkeypatch: pytest.MonkeyPatch, database: Database, tenant: UUID
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        # the server's end, which must not take as long as the collector's answer, is awaited within the stack
        with ExitStack() as stack, Server(database.app_url, log_level="error") as traced, traced.fhir(tenant) as http:
            assert http.get("Slot").status_code == 200
            silent.settimeout(30)
            stack.enter_context(silent.accept()[0])  # the spans are on their way
            assert http.get("Slot").status_code == 200


def test_without_the_variables_nothing_of_opentelemetry_is_there() -> None:
    program = (
        "import asyncio, sys\n"
        "from fhir_sched import serving\n"
        "async def main(): return serving.application()\n"
        "print(type(asyncio.run(main())).__name__, any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "FHIR_SCHED_"))}
    given = {"FHIR_SCHED_DATABASE_URL": "postgresql://nobody@/none", "FHIR_SCHED_AUTH": "open"}

    def said(**more: str) -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env={**bare, **given, **more}, check=True, capture_output=True, text=True).stdout

    assert said() == "App False\n"
    assert said(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318") == "TracedApp True\n"


@pytest.mark.parametrize(
    ("environment", "expected", "warned"),
    [
        ({}, False, ""),
        ({"OTEL_SERVICE_NAME": "clinic"}, False, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True, ""),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True, ""),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, ""),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False, ""),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False, ""),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, False, "OTEL_TRACES_EXPORTER can be otlp or none"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False, "can be http/protobuf"),
    ],
)
def test_the_standard_variables_decide(
    environment: dict[str, str], expected: bool, warned: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fhir_sched.telemetry"):
        assert telemetry.wanted(environment) is expected
    assert (warned in caplog.text) if warned else not caplog.text


def test_a_server_without_the_packages_says_which_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(telemetry, "find_spec", lambda _: None)
    with caplog.at_level(logging.WARNING, "fhir_sched.telemetry"):
        assert not telemetry.wanted({"OTEL_TRACES_EXPORTER": "otlp"})
    assert "install fhir-sched[otel]" in caplog.text
