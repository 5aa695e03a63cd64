"""What stands in the headers of every answer, and what a client's headers can't do."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import httpx
import pytest

from clinic import Clinic, slot
from db import Database
from server import Server

PUBLIC = "https://fhir.example/base"
PORTAL = "https://portal.example"


@pytest.fixture(scope="module")
def public(database: Database) -> Iterator[Server]:
    """A server behind a proxy, which knows its own address and whose pages may call it."""
    with Server(database.app_url, public_url=PUBLIC, cors_origins=f"{PORTAL},https://other.example") as running:
        yield running


@pytest.mark.parametrize(
    "path", ["/fhir/{}/Slot", "/fhir/{}/Slot/none", "/fhir/{}/metadata", "/healthz", "/docs", "/no"]
)
def test_every_answer_has_them(server: Server, tenant: UUID, path: str) -> None:
    answer = server.client.get(path.format(tenant))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-request-id"]
    assert "strict-transport-security" not in answer.headers
    assert "server" not in answer.headers


def test_what_may_hold_a_patients_data_is_kept_by_nobody(server: Server, clinic: Clinic) -> None:
    made = clinic.slot(clinic.schedule(), "2031-01-01T09:00:00Z")
    for answer in (
        clinic.http.get("Slot"),
        clinic.http.get(f"Slot/{made['id']}"),
        clinic.http.get(f"Slot/{made['id']}", headers={"If-None-Match": 'W/"1"'}),
        clinic.http.get("Appointment/none"),
        clinic.http.post("Slot", json={}),
    ):
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_may_run_nothing(server: Server, path: str) -> None:
    policy = server.client.get(path).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy


def test_https_is_remembered_where_the_public_address_has_it(public: Server) -> None:
    assert public.client.get("/healthz").headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher"},
        {"Forwarded": "host=evil.example;proto=http"},
        {"X-Original-URL": "http://evil.example/"},
    ],
)
def test_no_header_changes_a_link_once_the_public_address_is_known(
    public: Server, database: Database, headers: dict[str, str]
) -> None:
    clinic = Clinic(public, database, uuid4())
    schedule = clinic.schedule()
    made = clinic.http.post("Slot", json=slot(schedule, "2031-01-01T09:00:00Z"), headers=headers)
    clinic.slot(schedule, "2031-01-01T10:00:00Z")
    page = clinic.http.get("Slot?_count=1", headers=headers)
    statement = clinic.http.get("metadata", headers=headers)
    clinic.close()
    assert made.headers["location"].startswith(f"{PUBLIC}/fhir/{clinic.tenant}/Slot/")
    assert {link["url"].partition("/fhir/")[0] for link in page.json()["link"]} == {PUBLIC}
    assert {entry["fullUrl"].partition("/fhir/")[0] for entry in page.json()["entry"]} == {PUBLIC}
    for answer in (made, page, statement):
        assert "evil.example" not in answer.text
        assert "gopher" not in answer.text


def test_a_web_page_of_any_origin_may_call_unless_some_are_named(server: Server, public: Server, tenant: UUID) -> None:
    def allowed(of: Server, origin: str, **headers: str) -> httpx.Headers:
        asked = {"Origin": origin, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return of.client.request("OPTIONS" if headers else "GET", f"/fhir/{tenant}/metadata", headers=asked).headers

    assert allowed(server, "https://any.example")["access-control-allow-origin"] == "*"
    granted = allowed(public, PORTAL)
    assert granted["access-control-allow-origin"] == PORTAL
    assert "Origin" in granted["vary"]
    before = allowed(public, PORTAL, Access_Control_Request_Method="PUT")
    assert "PUT" in before["access-control-allow-methods"]
    for refused in ("https://evil.example", "null", PORTAL + ".evil.example", PORTAL.replace("https", "http")):
        assert "access-control-allow-origin" not in allowed(public, refused)
        assert "access-control-allow-origin" not in allowed(public, refused, Access_Control_Request_Method="PUT")
