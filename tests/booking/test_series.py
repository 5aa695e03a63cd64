"""A recurring appointment: all of its occurrences or none, every reason at once, and the same hour right across DST."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from clinic import DOCTOR, Clinic, Resource, appointment, later, name, refusal, row_id

NEW_YORK = ZoneInfo("America/New_York")


def _asked(first: Resource, **inputs: Any) -> Resource:
    parameters = [{"name": key, "valuePositiveInt": value} for key, value in inputs.items()]
    return {"resourceType": "Parameters", "parameter": [{"name": "appointment", "resource": first}, *parameters]}


def _series(clinic: Clinic, first: Resource, **inputs: Any) -> httpx.Response:
    return clinic.http.post("Appointment/$book-series", json=_asked(first, **inputs))


def _weekly(clinic: Clinic, of: Resource, count: int, begins: datetime, weeks: int = 1) -> list[Resource]:
    """Slots at the same hour of the clock, week after week."""
    moments = [begins + timedelta(weeks=weeks * number) for number in range(count)]
    return [clinic.slot(of, moment.isoformat(), 30) for moment in moments]


def _made(answer: httpx.Response) -> list[Resource]:
    assert answer.status_code == 200, answer.text
    bundle = answer.json()
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "collection")
    return [entry["resource"] for entry in bundle["entry"]]


def _reasons(answer: httpx.Response, status: int) -> list[str]:
    return [issue["diagnostics"].partition(",")[0] for issue in refusal(answer, status)]


@pytest.fixture
def autumn() -> datetime:
    """A Monday before the clocks of New York go back."""
    return datetime(2036, 10, 20, 9, tzinfo=NEW_YORK)


def test_a_weekly_series_keeps_its_hour_when_the_clocks_change(clinic: Clinic, autumn: datetime) -> None:
    of = clinic.schedule("America/New_York")
    slots = _weekly(clinic, of, 4, autumn)
    made = _made(_series(clinic, appointment(slots[0], comment="therapy"), count=4))
    assert [each["slot"][0]["reference"] for each in made] == [name(slot) for slot in slots]
    starts = [datetime.fromisoformat(each["start"]).astimezone(NEW_YORK) for each in made]
    assert [(start.hour, start.utcoffset()) for start in starts] == [
        (9, timedelta(hours=hours)) for hours in (-4, -4, -5, -5)
    ]
    assert {each["comment"] for each in made} == {"therapy"}
    assert [clinic.read(slot)["status"] for slot in slots] == ["busy"] * 4
    (shared,) = {each["identifier"][0]["value"] for each in made}
    assert set(clinic.found(f"Appointment?identifier=urn:fhir-sched:series|{shared}")) == {name(each) for each in made}


def test_every_second_week_leaves_out_the_others(clinic: Clinic, autumn: datetime) -> None:
    of = clinic.schedule("America/New_York")
    slots = _weekly(clinic, of, 5, autumn)
    made = _made(_series(clinic, appointment(slots[0]), count=3, weeks=2))
    assert [each["slot"][0]["reference"] for each in made] == [name(slots[number]) for number in (0, 2, 4)]


def test_several_slots_come_again_together(clinic: Clinic, autumn: datetime) -> None:
    of = clinic.schedule("America/New_York")
    early = _weekly(clinic, of, 2, autumn)
    late = _weekly(clinic, of, 2, autumn + timedelta(minutes=30))
    made = _made(_series(clinic, appointment(early[0], late[0]), count=2))
    assert [len(each["slot"]) for each in made] == [2, 2]
    assert datetime.fromisoformat(made[1]["end"]) == datetime.fromisoformat(late[1]["end"])


def test_every_occurrence_that_can_not_be_is_told_and_nothing_is_booked(clinic: Clinic, autumn: datetime) -> None:
    of = clinic.schedule("America/New_York")
    slots = _weekly(clinic, of, 6, autumn)
    clinic.booked(slots[1])
    clinic.put({**slots[3], "status": "busy-unavailable"})
    clinic.http.delete(name(slots[4]))
    start = slots[5]["start"]
    clinic.booked(doctor=DOCTOR, start=start, end=later(start, 15))
    answer = _series(clinic, appointment(slots[0], doctor=DOCTOR), count=6)
    assert _reasons(answer, 409) == [f"occurrence {number}" for number in (2, 4, 5, 6)]
    said = [issue["diagnostics"] for issue in answer.json()["issue"]]
    assert name(slots[1]) in said[0]
    assert "is blocked" in said[1]
    assert f"there is no slot in {name(of)}" in said[2]
    assert "practitioner" in said[3]
    assert [clinic.read(slots[number])["status"] for number in (0, 2, 5)] == ["free"] * 3
    assert len(clinic.found("Appointment?status=booked")) == 2


def test_a_rule_of_the_clinic_refuses_the_occurrences_that_it_is_about(clinic: Clinic) -> None:
    of = clinic.schedule()
    tomorrow = datetime.now(NEW_YORK).replace(microsecond=0) + timedelta(days=1)
    slots = _weekly(clinic, of, 4, tomorrow)
    clinic.sql("insert into booking_rules values (%s, 'staff', null, 'book-horizon', 10)", clinic.tenant)
    assert _reasons(_series(clinic, appointment(slots[0]), count=4), 422) == ["occurrence 3", "occurrence 4"]


def test_of_two_series_that_want_one_slot_one_is_booked(clinic: Clinic, autumn: datetime) -> None:
    of = clinic.schedule("America/New_York")
    slots = _weekly(clinic, of, 8, autumn)

    def ask(patient: str) -> int:
        with clinic.server.fhir(clinic.tenant) as http:
            body = _asked(appointment(slots[0], patient=patient), count=8)
            return http.post("Appointment/$book-series", json=body).status_code

    with ThreadPoolExecutor(6) as pool:
        answers = sorted(pool.map(ask, [f"Patient/{number}" for number in range(6)]))
    assert answers == [200, 409, 409, 409, 409, 409]
    assert len(clinic.found("Appointment?_count=100")) == 8


@pytest.mark.parametrize(
    ("inputs", "status"), [({"count": 1}, 400), ({"count": 105}, 400), ({}, 400), ({"count": 2, "weeks": 0}, 400)]
)
def test_inputs_that_make_no_series_are_refused(clinic: Clinic, inputs: Resource, status: int) -> None:
    refusal(_series(clinic, appointment(clinic.slot(clinic.schedule(), "2036-06-02T09:00:00Z")), **inputs), status)


def _unslotted(clinic: Clinic) -> Iterator[Resource]:
    yield appointment()
    yield appointment(status="waitlist")
    missing = {"reference": "Slot/slt-00000000-0000-4000-8000-000000000000"}
    yield {**appointment(), "slot": [missing]}


def test_a_series_begins_with_slots_that_are_there(clinic: Clinic) -> None:
    for first in _unslotted(clinic):
        refusal(_series(clinic, first, count=2), 422)
    assert clinic.sql("select 1 from appointments where tenant_id = %s", clinic.tenant) == []


def test_what_is_not_valid_is_400_before_anything_is_booked(clinic: Clinic) -> None:
    slot = clinic.slot(clinic.schedule(), "2036-06-02T09:00:00Z")
    refusal(_series(clinic, {**appointment(slot), "priority": "high"}, count=2), 400)
    assert clinic.sql("select status from slots where id = %s", row_id(slot)) == [("free",)]
