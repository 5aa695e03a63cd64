"""/openapi.json and /docs: valid, complete, true. What is in it is served, and what is served is in it."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from clinic import Clinic, Resource, appointment, schedule, slot
from db import Database
from fhir_sched.definition import METHODS, SYSTEM_METHODS
from fhir_sched.http.app import create_app
from fhir_sched.openapi import document
from fhir_sched.resources import RESOURCES
from fhir_sched.settings import load
from server import Server

Document = dict[str, Any]
DOCUMENT: Document = document()
OPERATIONS = [
    (path, method, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method != "parameters"
]
NAMED = [pytest.param(*each, id=f"{each[1]} {each[0]}") for each in OPERATIONS]


def resolved(value: Document) -> Document:
    """What a reference within the document points at."""
    if "$ref" not in value:
        return value
    found = DOCUMENT
    for part in value["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found


def validator(name: str) -> jsonschema_rs.Validator:
    """The validator of one of its schemas."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft202012Validator(schema)


@pytest.fixture(scope="module")
def clinic(server: Server, database: Database) -> Iterator[Clinic]:
    """The tenant of this module."""
    tenant = Clinic(server, database)
    yield tenant
    tenant.close()


@pytest.fixture(scope="module")
def made(clinic: Clinic) -> dict[str, Resource]:
    """One resource of each type."""
    practice = clinic.schedule()
    free = clinic.slot(practice, "2026-06-02T09:00:00Z")
    return {"Schedule": practice, "Slot": free, "Appointment": clinic.booked()}


def filled(path: str, clinic: Clinic, made: dict[str, Resource]) -> str:
    """A URL of that path on which there is something."""
    kind = path.split("/")[3] if path.count("/") > 2 else ""
    fhir_id = made[kind]["id"] if kind in made else "schedule-timezone" if kind == "StructureDefinition" else "1"
    return path.format(tenant=clinic.tenant, id=fhir_id, version="1", type="Appointment", file="Slot.ndjson")


# Valid


def test_it_is_served_as_it_is_made_and_is_valid_openapi(server: Server) -> None:
    answer = server.client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    OpenAPIV31SpecValidator(answer.json()).validate()
    assert answer.json()["paths"].keys() == DOCUMENT["paths"].keys()


def test_every_operation_has_an_id_of_its_own_a_tag_and_its_refusals() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for _, _, operation in OPERATIONS:
        assert set(operation["tags"]) <= tags
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert "application/fhir+json" in resolved(answer)["content"]


def test_every_pattern_and_example_holds_together() -> None:
    for _, _, operation in OPERATIONS:
        for parameter in map(resolved, operation.get("parameters", [])):
            check = jsonschema_rs.Draft202012Validator(parameter["schema"])
            for example in parameter["schema"].get("examples", []):
                assert check.is_valid(example), parameter["name"]
    for _, _, operation in OPERATIONS:
        for content in operation.get("requestBody", {}).get("content", {}).values():
            check = jsonschema_rs.Draft202012Validator({**content["schema"], "components": DOCUMENT["components"]})
            for example in content.get("examples", {}).values():
                check.validate(example["value"])


# Complete


def test_every_interaction_of_every_type_has_its_operation() -> None:
    headers = {"conditional-read": "If-None-Match", "conditional-create": "If-None-Exist"}
    by_id = {operation["operationId"]: operation for _, _, operation in OPERATIONS}
    for kind, resource in RESOURCES.items():
        for code in resource.interactions:
            operation = by_id.get(f"{code}{kind}") or by_id[f"{code.removeprefix('conditional-')}{kind}"]
            names = {resolved(each)["name"] for each in operation.get("parameters", [])}
            assert code not in headers or headers[code] in names
    assert {f"{code}{kind}" for kind in RESOURCES for code in METHODS if code not in headers} <= by_id.keys()


def test_every_interaction_on_the_system_has_its_operation(clinic: Clinic) -> None:
    documented = {(path, method.upper()) for path, method, _ in OPERATIONS}
    paths = {
        "transaction": "/fhir/{tenant}",
        "batch": "/fhir/{tenant}",
        "search-system": "/fhir/{tenant}",
        "search-system-form": "/fhir/{tenant}/_search",
        "search-compartment": "/fhir/{tenant}/Patient/{id}/{type}",
        "search-compartment-form": "/fhir/{tenant}/Patient/{id}/{type}/_search",
        "history-system": "/fhir/{tenant}/_history",
    }
    assert {(paths[code], method) for code, method in SYSTEM_METHODS.items()} <= documented


def test_every_page_has_its_operation(database: Database) -> None:
    app = create_app(load(database_url=database.app_url, auth="open"))
    assert set(app.pages) == {path for path, _, _ in OPERATIONS if not path.startswith("/fhir/")}


@pytest.mark.parametrize("kind", RESOURCES)
def test_every_search_parameter_is_there_by_get_and_by_form(kind: str) -> None:
    item = DOCUMENT["paths"][f"/fhir/{{tenant}}/{kind}"]
    queried = {resolved(each)["name"] for each in item["get"]["parameters"] if resolved(each)["in"] == "query"}
    posted = DOCUMENT["paths"][f"/fhir/{{tenant}}/{kind}/_search"]["post"]["requestBody"]["content"]
    fields = posted["application/x-www-form-urlencoded"]["schema"]["properties"]
    assert set(RESOURCES[kind].param) < queried
    assert queried == set(fields)


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_a_path_takes_the_methods_that_are_in_it_and_no_other(
    clinic: Clinic, made: dict[str, Resource], path: str
) -> None:
    url = filled(path, clinic, made)
    said = clinic.server.client.options(url)
    documented = {method.upper() for method in DOCUMENT["paths"][path] if method != "parameters"}
    taken = set(said.headers["allow"].split(", ")) - {"OPTIONS", "HEAD"}
    assert taken == documented
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - taken:
        refused = clinic.server.client.request(method, url)
        assert refused.status_code == 405
        assert refused.headers["content-type"].startswith("application/fhir+json")
        assert refused.headers["allow"]


# True


@pytest.mark.parametrize(("path", "method", "operation"), NAMED)
def test_an_operation_is_answered_as_it_says(
    clinic: Clinic, made: dict[str, Resource], path: str, method: str, operation: Document
) -> None:
    body = operation.get("requestBody", {}).get("content", {})
    kind: str = next(iter(body), "")
    content: Document = body.get(kind, {})
    examples = content.get("examples", {})
    answer = clinic.server.client.request(
        method,
        filled(path, clinic, made),
        json=next(iter(examples.values()))["value"] if examples else None,
        headers={"Content-Type": kind, "Accept": "*/*"} if kind else {"Accept": "*/*"},
    )
    assert str(answer.status_code) in operation["responses"], answer.text
    if answer.status_code >= 500 and path != "/readyz":
        pytest.fail(answer.text)
    said = resolved(operation["responses"][str(answer.status_code)])
    if answer.content:
        media = answer.headers["content-type"].partition(";")[0]
        schema = {**said["content"][media]["schema"], "components": DOCUMENT["components"]}
        if media.endswith("json"):
            jsonschema_rs.Draft202012Validator(schema).validate(answer.json())


def test_bodies_that_clients_write_fit_the_schemas(clinic: Clinic, made: dict[str, Resource]) -> None:
    for resource in (
        schedule(),
        slot(made["Schedule"], "2026-06-02T09:00:00Z"),
        appointment(made["Slot"]),
        appointment(status="waitlist"),
    ):
        validator(resource["resourceType"]).validate(resource)
    wrong: tuple[Resource, ...] = (
        {"status": "nonsense"},
        {"participant": []},
        {"start": "2026-02-30"},
        {"nonsense": 1},
        {"end": None},
    )
    for change in wrong:
        assert not validator("Appointment").is_valid(appointment(made["Slot"]) | change)


def test_a_row_of_another_program_fits_what_is_served(clinic: Clinic) -> None:
    clinic.sql(
        "insert into appointments (tenant_id, patient_id, status, created_by) "
        "values (%s, gen_random_uuid(), 'booked', gen_random_uuid())",
        clinic.tenant,
    )
    found = clinic.matches("Appointment?status=booked&date:missing=true")
    assert found
    for each in found:
        validator("ServedAppointment").validate(each)


# The pages


def test_the_docs_show_every_path_and_need_nothing_from_elsewhere(server: Server) -> None:
    answer = server.client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for path in DOCUMENT["paths"]:
        assert f"<code>{path}</code>" in answer.text
    assert not re.search(r"<(script|img|iframe|object|link)|\bon\w+=|src=|@import", answer.text)
    assert all(url.startswith("/") for url in re.findall(r'href="([^"]*)"', answer.text))
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_start_page_leads_on(server: Server) -> None:
    answer = server.client.get("/")
    for url in re.findall(r'href="([^"]*)"', answer.text):
        assert server.client.get(url.replace("&amp;", "&")).status_code == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/openapi.json", "/docs"])
def test_head_is_get_without_the_body(server: Server, path: str) -> None:
    head, whole = server.client.head(path), server.client.get(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-length"] == whole.headers["content-length"] == str(len(whole.content))


def test_readyz_says_what_is_wrong(server: Server, database: Database) -> None:
    with database.connect_admin() as connection:
        connection.execute("update fhir_sched_migrations set checksum = 'x' || checksum where version = 2")
        reasons = {issue["diagnostics"] for issue in _after_a_second(server).json()["issue"]}
        connection.execute("update fhir_sched_migrations set checksum = substr(checksum, 2) where version = 2")
    assert "not ready: the migrations are not current" in reasons
    # The clusters of tests are not durable, which a server that is ready must be.
    assert "not ready: fsync is off" in reasons
    assert server.client.get("/healthz").json() == {"status": "up"}


def _after_a_second(server: Server) -> httpx.Response:
    time.sleep(1.1)
    answer = server.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"].startswith("application/fhir+json")
    return answer


# What is no HTTP


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/9.9\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nA" * 9, b"400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 66_000, b"431"),
    ],
)
def test_bytes_that_are_no_http_are_refused_as_fhir_says_it(server: Server, sent: bytes, status: bytes) -> None:
    where = urlsplit(server.url)
    with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
        connection.sendall(sent)
        received = b""
        while part := connection.recv(65536):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert b"content-type: application/fhir+json" in head.lower()
    assert b'"resourceType":"OperationOutcome"' in body
