"""$generate-slots: what goes in, what comes back, and what is refused; the slots themselves in tests/sql."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from clinic import EXTENSION, Clinic, Resource, name, refusal, said

MORNING = {"start": "2031-03-03", "end": "2031-03-04"}


def rule(start: str = "09:00:00", end: str = "10:00:00", minutes: int = 20, **more: str) -> Resource:
    parts: list[Resource] = [{"url": "daysOfWeek", "valueCode": day} for day in ("mon", "tue", "wed", "thu", "fri")]
    parts += [{"url": "startTime", "valueTime": start}, {"url": "endTime", "valueTime": end}]
    parts.append({"url": "slotMinutes", "valuePositiveInt": minutes})
    parts += [{"url": url, "valueCode": code} for url, code in more.items()]
    return {"url": EXTENSION + "schedule-availability", "extension": parts}


def parameters(**days: str) -> Resource:
    listed = [{"name": name, "valueDate": day} for name, day in days.items()]
    return {"resourceType": "Parameters", "parameter": listed}


def generate(clinic: Clinic, schedule: Resource | str, **days: str) -> httpx.Response:
    path = schedule if isinstance(schedule, str) else name(schedule)
    return clinic.http.post(f"{path}/$generate-slots", json=parameters(**days or MORNING))


def counts(answer: httpx.Response) -> dict[str, int]:
    assert answer.status_code == 200, answer.text
    assert answer.json()["resourceType"] == "Parameters"
    return {each["name"]: each["valueUnsignedInt"] for each in answer.json()["parameter"]}


def test_the_rules_of_a_schedule_become_free_slots_and_again_nothing_is_added(clinic: Clinic) -> None:
    schedule = clinic.schedule("America/New_York", extension=[rule(appointmentType="ROUTINE")])
    assert counts(generate(clinic, schedule)) == {"added": 6, "withdrawn": 0}
    made = clinic.matches(f"Slot?schedule={name(schedule)}&status=free&_sort=start")
    assert [slot["start"] for slot in made[:3]] == [f"2031-03-03T14:{minute}:00Z" for minute in ("00", "20", "40")]
    assert (made[-1]["end"], made[0]["schedule"]) == ("2031-03-04T15:00:00Z", {"reference": name(schedule)})
    assert made[0]["appointmentType"]["coding"][0]["code"] == "ROUTINE"

    assert counts(generate(clinic, schedule)) == {"added": 0, "withdrawn": 0}
    assert clinic.matches(f"Slot?schedule={name(schedule)}&_sort=start") == made
    events = clinic.sql(
        "select event_type from outbox where tenant_id = %s and event_type like 'slot%%'", clinic.tenant
    )
    assert events == [("slots.generated",)]


def test_generated_slots_are_booked_and_outlive_a_change_of_the_rules(clinic: Clinic) -> None:
    schedule = clinic.schedule(extension=[rule()])
    generate(clinic, schedule)
    taken, free, *_ = clinic.matches(f"Slot?schedule={name(schedule)}&_sort=start")
    booked = clinic.booked(taken)
    changed = clinic.put({**schedule, "extension": [rule("09:20:00", "10:00:00", 40)]})
    assert changed.status_code == 200, changed.text
    assert counts(generate(clinic, schedule)) == {"added": 2, "withdrawn": 5}
    assert clinic.read(taken)["status"] == "busy"
    assert clinic.read(booked)["status"] == "booked"
    # What was shown once can be read, and says that it is no more to be had.
    assert clinic.read(free)["status"] == "entered-in-error"
    assert said(clinic.book(free), 409).startswith("Nothing can be booked in Slot/slt-")

    clinic.put({**schedule, "extension": [rule()]})
    assert counts(generate(clinic, schedule)) == {"added": 5, "withdrawn": 2}
    assert clinic.read(free)["status"] == "free"
    clinic.booked(free)


def test_time_under_an_exception_is_left_out(clinic: Clinic) -> None:
    schedule = clinic.schedule(extension=[rule()])
    closed = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "meeting"}]
    clinic.slot(schedule, "2031-03-03T09:30:00Z", 15, status="busy-unavailable", extension=closed)
    assert counts(generate(clinic, schedule, start="2031-03-03", end="2031-03-03")) == {"added": 1, "withdrawn": 0}
    assert [slot["start"] for slot in clinic.matches("Slot?status=free")] == ["2031-03-03T09:00:00Z"]


def test_inputs_come_in_xml_and_in_the_url_as_well(clinic: Clinic) -> None:
    schedule = clinic.schedule(extension=[rule()])
    xml = (
        '<Parameters xmlns="http://hl7.org/fhir">'
        '<parameter><name value="start"/><valueDate value="2031-03-03"/></parameter>'
        '<parameter><name value="end"/><valueDate value="2031-03-03"/></parameter></Parameters>'
    )
    kind = {"Content-Type": "application/fhir+xml", "Accept": "application/fhir+xml"}
    answer = clinic.http.post(f"{name(schedule)}/$generate-slots", content=xml, headers=kind)
    assert answer.status_code == 200, answer.text
    assert '<name value="added"/><valueUnsignedInt value="3"/>' in answer.text
    by_url = clinic.http.post(f"{name(schedule)}/$generate-slots?start=2031-03-04&end=2031-03")
    assert counts(by_url) == {"added": 3 * 20, "withdrawn": 0}


def test_a_bundle_can_ask_for_it(clinic: Clinic) -> None:
    schedule = clinic.schedule(extension=[rule()])
    entry = {
        "request": {"method": "POST", "url": f"{name(schedule)}/$generate-slots"},
        "resource": parameters(**MORNING),
    }
    answer = clinic.http.post("", json={"resourceType": "Bundle", "type": "batch", "entry": [entry]})
    assert answer.json()["entry"][0]["resource"]["parameter"][0] == {"name": "added", "valueUnsignedInt": 6}


def test_a_key_that_is_sent_again_gets_the_first_answer(clinic: Clinic) -> None:
    schedule = clinic.schedule(extension=[rule()])
    path, headers = f"{name(schedule)}/$generate-slots", {"Idempotency-Key": str(uuid4())}
    first, again = (clinic.http.post(path, json=parameters(**MORNING), headers=headers) for _ in range(2))
    assert counts(first) == counts(again) == {"added": 6, "withdrawn": 0}


@pytest.mark.parametrize(
    ("days", "status", "sentence"),
    [
        ({"start": "2031-03-03"}, 400, "the parameter 'end' is needed"),
        ({"start": "2031-03-03", "end": "soon"}, 400, "'soon' is not valid"),
        ({"start": "2031-02-30", "end": "2031-03-03"}, 400, "'2031-02-30' is not valid"),
        ({"start": "2031-03-03", "end": "2031-03-04", "until": "2031-03-05"}, 400, "no parameter 'until'"),
        ({"start": "2031-03-04", "end": "2031-03-03"}, 422, "is before start"),
        ({"start": "2031", "end": "2034"}, 422, "more than 1100 days"),
        ({"start": "0001-01-01", "end": "9998-12-31"}, 422, "more than 1100 days"),
    ],
)
def test_wrong_days_are_refused(clinic: Clinic, days: dict[str, str], status: int, sentence: str) -> None:
    assert sentence in said(generate(clinic, clinic.schedule(extension=[rule()]), **days), status)


@pytest.mark.parametrize("days", [("9999-12-31", "9999-12-31"), ("0001-01-01", "0001-01-02"), ("9999", "9999")])
def test_the_ends_of_the_calendar_are_no_failure(clinic: Clinic, days: tuple[str, str]) -> None:
    schedule = clinic.schedule("Asia/Kathmandu", extension=[rule()])
    assert generate(clinic, schedule, start=days[0], end=days[1]).status_code in (200, 400, 422)


def test_what_cannot_be_generated_for_is_refused(clinic: Clinic) -> None:
    inactive = clinic.schedule(extension=[rule()], active=False)
    assert refusal(generate(clinic, inactive), 422)[0]["expression"] == ["Schedule.active"]
    refusal(generate(clinic, f"Schedule/sch-{uuid4()}"), 404)
    refusal(generate(clinic, f"Schedule/slt-{uuid4()}"), 404)
    gone = clinic.schedule(extension=[rule()])
    clinic.http.delete(name(gone))
    refusal(generate(clinic, gone), 410)
    crowded = clinic.schedule(extension=[rule("00:00:00", "23:59:00", 1)])
    assert "ask for fewer days" in said(generate(clinic, crowded, start="2031-03", end="2031-04"), 422)
    refusal(clinic.http.get(f"{name(inactive)}/$generate-slots?start=2031-03-03&end=2031-03-03"), 405)
    assert counts(generate(clinic, clinic.schedule())) == {"added": 0, "withdrawn": 0}


def test_another_tenant_has_no_such_schedule(clinic: Clinic, server: Any) -> None:
    schedule = clinic.schedule(extension=[rule()])
    with server.fhir(uuid4()) as stranger:
        refusal(stranger.post(f"{name(schedule)}/$generate-slots", json=parameters(**MORNING)), 404)
    assert clinic.matches("Slot") == []
