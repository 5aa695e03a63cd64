"""What the server prints and counts: a JSON line for each request, and nothing of a patient, a token or a query."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from clinic import Clinic, appointment, slot
from db import Database
from fhir_sched import logs
from server import Server

CANARY = "Zwetschgenkuchen"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJad2V0c2NoZ2VuIn0.c2lnbmF0dXJlLW9mLXRoZS1jYW5hcnk"
PATIENT = UUID("0badcafe-0000-4000-8000-00000c0ffee5")


@pytest.fixture(scope="module")
def talkative(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that logs every request into a file."""
    server = Server(database.app_url, log_level="debug")
    server.log = tmp_path_factory.mktemp("log") / "stderr"
    with server:
        yield server


def _lines(server: Server) -> list[dict[str, Any]]:
    assert server.log is not None
    return [json.loads(line) for line in server.log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _access(server: Server, request_id: str) -> dict[str, Any]:
    """The line of a request; it is written once the answer is on its way."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for line in _lines(server):
            if line.get("request_id") == request_id:
                return line
        time.sleep(0.005)
    raise AssertionError(f"no line has {request_id}")


def test_a_request_is_one_line_with_its_route_and_without_its_url(
    talkative: Server, database: Database, tenant: UUID
) -> None:
    clinic = Clinic(talkative, database, tenant)
    made = clinic.slot(clinic.schedule(), "2031-01-01T09:00:00Z")
    answer = clinic.http.get(f"Slot/{made['id']}?_pretty=true", headers={"X-Request-Id": "asked-1"})
    clinic.close()
    assert answer.headers["x-request-id"] == "asked-1"
    line = _access(talkative, "asked-1")
    assert line.pop("time").endswith("Z")
    assert 0 < line.pop("duration_ms") < 10_000
    assert line == {
        "level": "info",
        "logger": "fhir_sched.access",
        "request_id": "asked-1",
        "tenant": str(tenant),
        "route": "Slot/{id}",
        "method": "GET",
        "status": 200,
    }


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "Jane%20Doe", "é"])
def test_a_request_id_that_is_none_is_replaced(talkative: Server, tenant: UUID, given: str) -> None:
    headers = [(b"X-Request-Id", given.encode("latin-1"))] if given else []
    answer = talkative.client.get(f"/fhir/{tenant}/metadata", headers=headers)
    made = answer.headers["x-request-id"]
    assert made != given
    assert _access(talkative, made)["route"] == "metadata"


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("Slot?status=free", "Slot"),
        ("Slot/_search", "Slot/_search"),
        (f"Slot/{CANARY}", "Slot/{id}"),
        (f"Appointment/{CANARY}/_history/7", "Appointment/{id}/_history/{version}"),
        (f"Patient/{PATIENT}/Appointment", "Patient/{id}/Appointment"),
        (f"{CANARY}", "{unknown}"),
        (f"Slot/a/b/{CANARY}", "{unknown}"),
        ("", "base"),
    ],
)
def test_the_route_is_a_name_of_ours(talkative: Server, tenant: UUID, path: str, route: str) -> None:
    answer = talkative.client.get(f"/fhir/{tenant}/{path}")
    assert _access(talkative, answer.headers["x-request-id"])["route"] == route


def test_nothing_that_a_client_sends_is_printed_or_counted(talkative: Server, database: Database, tenant: UUID) -> None:
    clinic = Clinic(talkative, database, tenant)
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "Cookie": f"name={CANARY}",
        "User-Agent": CANARY,
        "Prefer": f"return={CANARY}",
        "If-None-Exist": f"identifier=urn:names|{CANARY}",
    }
    schedule = clinic.schedule()
    free = [clinic.slot(schedule, f"2031-01-01T{hour:02}:00:00Z") for hour in range(8, 12)]
    named: dict[str, Any] = {
        "patient": f"Patient/{PATIENT}",
        "description": CANARY,
        "identifier": [{"system": "urn:names", "value": CANARY}],
        "contained": [{"resourceType": "Patient", "id": "p", "name": [{"family": CANARY}]}],
        "supportingInformation": [{"reference": "#p"}],
    }
    secret = [clinic.book(free[0], **named).json()["id"]]
    for method, path, body in (
        ("POST", "Appointment", appointment(free[0], **named)),
        ("POST", "Appointment", appointment(free[1], **named) | {"status": CANARY}),
        ("POST", "Slot", slot(schedule, "2031-01-01T08:05:00Z", comment=CANARY)),
        ("PUT", f"Appointment/{secret[0]}", {"resourceType": "Appointment", "id": CANARY}),
        ("POST", "", {"resourceType": "Bundle", "type": "batch", "entry": [
            {"resource": appointment(free[2], **named), "request": {"method": "POST", "url": "Appointment"}},
            {"request": {"method": "GET", "url": f"Patient/{PATIENT}/Appointment?identifier={CANARY}"}},
        ]}),
        ("PATCH", f"Appointment/{secret[0]}", [{"op": "test", "path": "/description", "value": CANARY + "!"}]),
    ):  # fmt: skip
        clinic.http.request(method, path, json=body, headers=headers)
        clinic.http.request(method, path, json=body)
    for path in (
        f"Appointment/{CANARY}",
        f"Appointment?patient=Patient/{PATIENT}&identifier=urn:names|{CANARY}",
        f"Appointment?{CANARY}={CANARY}",
        f"Appointment?_page={CANARY}",
        f"Patient/{PATIENT}/Appointment",
        f"{CANARY}/%00%ff",
        f"../{CANARY}",
    ):
        clinic.http.get(path, headers=headers)
    clinic.http.post("Appointment", content=f'{{"a": "{CANARY}"'.encode())
    with socket.create_connection(("127.0.0.1", int(talkative.url.rpartition(":")[2]))) as broken:
        broken.sendall(f"{CANARY} / HTTP/9\r\n{TOKEN}\r\n\r\n".encode())
        broken.recv(4096)
    # what PostgreSQL says when it refuses, and when it breaks: both hold values of rows
    clinic.sql("alter table appointments add constraint no_cake check (fhir->>'description' is null) not valid")
    refused = clinic.http.post("Appointment", json=appointment(free[3], **named))
    clinic.sql("alter table appointments drop constraint no_cake")
    assert refused.status_code == 422
    clinic.sql("alter table slots rename to hidden")
    assert clinic.http.get(f"Slot/{free[0]['id']}").status_code == 500
    clinic.sql("alter table hidden rename to slots")
    clinic.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'fhir-sched'")
    counted = talkative.client.get("/metrics").text
    clinic.close()
    assert talkative.log is not None
    printed = talkative.log.read_text()
    assert len(_lines(talkative)) > 30
    assert {"error", "info", "warning"} <= {line["level"] for line in _lines(talkative)}
    for planted in (CANARY, TOKEN, TOKEN.split(".")[2], str(PATIENT), "urn:names", *secret, free[0]["id"]):
        assert planted not in printed
        assert planted not in counted


def test_an_exception_is_told_by_its_types_and_places(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        try:
            {"another": 1}[CANARY]
        except KeyError as error:
            raise ValueError(f"no {CANARY}") from error

    record = logging.LogRecord("fhir_sched.http", logging.ERROR, __file__, 1, "request failed", (), None)
    try:
        fail()
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    line = orjson.loads(logs.JsonFormatter().format(record))
    assert line["exception"] == ["builtins.ValueError", "builtins.KeyError"]
    assert line["stack"][-1].endswith(" fail")
    assert CANARY not in json.dumps(line)


def test_what_a_library_adds_about_a_task_is_left_out() -> None:
    said = f"Task exception was never retrieved\nfuture: <Task exception=KeyError('{CANARY}')>"
    record = logging.LogRecord("asyncio", logging.ERROR, __file__, 1, said, (), None)
    assert orjson.loads(logs.JsonFormatter().format(record))["message"] == "Task exception was never retrieved"


def test_a_log_that_nobody_reads_holds_nobody_up_and_loses_whole_lines() -> None:
    reader, writer = os.pipe()
    sink = logs.Sink(writer)
    line = b"x" * 99 + b"\n"
    for _ in range(2000):
        sink.write(line)
    assert sink.dropped > 0
    os.close(writer)
    with os.fdopen(reader, "rb") as unread:
        assert set(unread.read().split(b"\n")) == {line[:-1], b""}


def test_a_log_whose_reader_has_gone_is_no_failure(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    sink = logs.Sink(writer)
    sink.write(b"nobody reads this\n")
    os.close(writer)
    assert sink.dropped == 1


def test_lines_of_requests_are_left_out_above_info(database: Database, tmp_path: Path) -> None:
    server = Server(database.app_url, log_level="warning")
    server.log = tmp_path / "stderr"
    with server:
        server.client.get(f"/fhir/{uuid4()}/metadata")
    assert server.log.read_text() == ""
