"""read (R4 3.1.0.1): a resource, what never was, what was deleted, what is no id."""

from __future__ import annotations

from uuid import uuid4

import pytest

from clinic import EXTENSION, Clinic, appointment, as_resource, name, refusal, row_id
from clinic import slot as a_slot
from fhir_sched.validate import resource_issues


def _one_of_each(clinic: Clinic) -> dict[str, dict[str, object]]:
    schedule = clinic.schedule()
    slot = clinic.slot(schedule, "2026-06-02T09:00:00Z")
    closed = a_slot(schedule, "2026-06-03T09:00:00Z", status="busy-unavailable")
    closed["extension"] = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}]
    return {
        "sch": schedule,
        "slt": slot,
        "exc": clinic.create(closed),
        "apt": clinic.booked(slot),
        "wl": clinic.create(appointment(status="waitlist")),
    }


@pytest.mark.parametrize("prefix", ["sch", "slt", "exc", "apt", "wl"])
def test_every_kind_of_row_is_read_by_its_id_with_etag_and_time(clinic: Clinic, prefix: str) -> None:
    made = _one_of_each(clinic)[prefix]
    answer = clinic.http.get(name(made))
    shown = as_resource(answer)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/fhir+json")
    assert shown["id"] == made["id"]
    assert shown["id"].startswith(prefix + "-")
    assert {"system": "urn:fhir-sched:id", "value": f"{prefix}_{row_id(made)}"} in shown["identifier"]
    assert answer.headers["etag"] == f'W/"{shown["meta"]["versionId"]}"'
    assert answer.headers["last-modified"].endswith("GMT")
    assert resource_issues(shown, shown["resourceType"]) == []


def test_what_a_create_answers_is_what_a_read_answers(clinic: Clinic) -> None:
    for prefix, made in _one_of_each(clinic).items():
        if prefix != "slt":  # that one was booked meanwhile
            assert clinic.read(made) == made


def test_head_is_a_read_without_a_body(clinic: Clinic) -> None:
    made = clinic.schedule()
    read, head = clinic.http.get(name(made)), clinic.http.head(name(made))
    assert (head.status_code, head.content) == (200, b"")
    for header in ("etag", "last-modified", "content-type", "content-length"):
        assert head.headers[header] == read.headers[header]


UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    "url",
    [
        f"Schedule/sch-{UNKNOWN}",
        f"Slot/slt-{UNKNOWN}",
        f"Slot/exc-{UNKNOWN}",
        f"Appointment/apt-{UNKNOWN}",
        f"Appointment/wl-{UNKNOWN}",
        f"Appointment/slt-{UNKNOWN}",
        f"Slot/apt-{UNKNOWN}",
        f"Slot/sch-{UNKNOWN}",
        f"Slot/{UNKNOWN}",
        "Slot/slt-ABCDEF00-0000-4000-8000-000000000000",
        "Slot/1",
        "Slot/slt-",
        "Slot/slt_00000000-0000-4000-8000-000000000000",
        "Slot/" + "a" * 65,
        "Slot/%00",
        "Slot/a%2Fb",
        "Slot/%C3%A9",
        "Slot/slt-00000000-0000-4000-8000-00000000000%E2%82%80",
        "Slot/-",
        "Slot/%20",
    ],
)
def test_an_id_that_never_was_is_404(clinic: Clinic, url: str) -> None:
    assert refusal(clinic.http.get(url), 404)[0]["code"] == "not-found"


def test_the_row_of_one_tenant_is_404_at_another(clinic: Clinic) -> None:
    made = clinic.schedule()
    elsewhere = clinic.http.get(f"{clinic.server.base(uuid4())}/{name(made)}")
    assert refusal(elsewhere, 404)[0]["code"] == "not-found"


def test_a_deleted_resource_is_410_with_the_version_of_its_deletion(clinic: Clinic) -> None:
    made = clinic.schedule()
    assert clinic.http.delete(name(made)).status_code == 204
    answer = clinic.http.get(name(made))
    assert refusal(answer, 410)[0]["code"] == "deleted"
    assert answer.headers["etag"] == 'W/"2"'


@pytest.mark.parametrize(
    ("accept", "status", "content_type"),
    [
        ("application/fhir+json", 200, "application/fhir+json"),
        ("application/json", 200, "application/json"),
        ("text/json", 200, "text/json"),
        ("*/*", 200, "application/fhir+json"),
        ("", 200, "application/fhir+json"),
        ("application/fhir+json; fhirVersion=4.0", 200, "application/fhir+json"),
        ("application/fhir+json; fhirVersion=3.0", 406, "application/fhir+json"),
        ("text/turtle, application/fhir+json;q=0.5", 200, "application/fhir+json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", 200, "application/fhir+json"),
        ("text/turtle", 406, "application/fhir+json"),
        ("application/fhir+json;q=0", 406, "application/fhir+json"),
        ("garbage;;;===,,,", 406, "application/fhir+json"),
    ],
)
def test_the_answer_has_the_format_that_accept_asks_for(
    clinic: Clinic, accept: str, status: int, content_type: str
) -> None:
    answer = clinic.http.get(name(clinic.schedule()), headers={"Accept": accept})
    assert answer.status_code == status
    assert answer.headers["content-type"].partition(";")[0] == content_type


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("json", 200),
        ("application/json", 200),
        ("application/fhir+json", 200),
        ("application/fhir%2Bjson", 200),
        ("text/json", 200),
        ("ttl", 406),
        ("text/turtle", 406),
        ("nonsense", 406),
    ],
)
def test_format_overrides_accept(clinic: Clinic, word: str, status: int) -> None:
    answer = clinic.http.get(f"{name(clinic.schedule())}?_format={word}", headers={"Accept": "text/turtle"})
    assert answer.status_code == status


def test_the_request_id_comes_back_and_any_origin_may_ask(clinic: Clinic) -> None:
    answer = clinic.http.get(
        name(clinic.schedule()), headers={"X-Request-Id": "abc-1", "Origin": "https://app.example"}
    )
    assert answer.headers["x-request-id"] == "abc-1"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "ETag" in answer.headers["access-control-expose-headers"]
