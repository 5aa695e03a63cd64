"""A schedule exception over booked time: the answer names the appointments, which stay; a move or a delete frees."""

from __future__ import annotations

from typing import Any

import pytest

from clinic import EXTENSION, Clinic, Resource, as_resource, name, slot

CLOSED = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "meeting"}]
NINE, TEN, ELEVEN = (f"2031-03-03T{hour}:00:00Z" for hour in ("09", "10", "11"))


@pytest.fixture
def schedule(clinic: Clinic) -> Resource:
    """One with three free slots of an hour, from nine."""
    made = clinic.schedule()
    for start in (NINE, TEN, ELEVEN):
        clinic.slot(made, start, 60)
    return made


def slots(clinic: Clinic, schedule: Resource) -> list[Resource]:
    found = clinic.matches(f"Slot?schedule={name(schedule)}&_sort=start")
    return [each for each in found if each["id"].startswith("slt-")]


def statuses(clinic: Clinic, schedule: Resource) -> list[str]:
    return [each["status"] for each in slots(clinic, schedule)]


def exception(of: Resource, start: str, minutes: int = 60, **more: Any) -> Resource:
    return slot(of, start, minutes, status="busy-unavailable", extension=CLOSED, **more)


def conflicts(shown: Resource) -> list[str]:
    """What the extension names."""
    return [
        each["valueReference"]["reference"]
        for each in shown.get("extension", ())
        if each["url"] == EXTENSION + "schedule-conflict"
    ]


def test_the_answer_names_what_is_booked_and_leaves_it(clinic: Clinic, schedule: Resource) -> None:
    nine, ten, _ = slots(clinic, schedule)
    booked = clinic.booked(nine)
    later = clinic.booked(ten)
    made = clinic.create(exception(schedule, NINE, 90))
    assert conflicts(made) == [name(booked), name(later)]
    assert clinic.read(made) == made
    assert clinic.matches(f"Slot?_id={made['id']}") == [made]
    assert clinic.read(booked) == booked
    assert statuses(clinic, schedule) == ["busy", "busy", "free"]
    (event,) = clinic.sql(
        "select payload from outbox where tenant_id = %s and event_type = 'schedule.conflict'", clinic.tenant
    )
    assert [f"Appointment/apt-{each}" for each in event[0]["appointments"]] == conflicts(made)
    assert event[0]["exception"]["id"] == made["id"].removeprefix("exc-")


def test_moving_it_names_anew_and_deleting_it_frees(clinic: Clinic, schedule: Resource) -> None:
    booked = clinic.booked(slots(clinic, schedule)[0])
    made = clinic.create(exception(schedule, ELEVEN))
    assert (conflicts(made), statuses(clinic, schedule)) == ([], ["busy", "free", "busy-unavailable"])

    moved = as_resource(clinic.put({**made, "start": NINE, "end": ELEVEN}))
    assert (conflicts(moved), statuses(clinic, schedule)) == ([name(booked)], ["busy", "busy-unavailable", "free"])

    patch = [{"op": "replace", "path": "/start", "value": TEN}]
    kind = {"Content-Type": "application/json-patch+json"}
    patched = as_resource(clinic.http.patch(name(made), json=patch, headers=kind))
    assert (conflicts(patched), statuses(clinic, schedule)) == ([], ["busy", "busy-unavailable", "free"])
    assert conflicts(clinic.read(f"{name(made)}/_history/2")) == [name(booked)]

    assert clinic.http.delete(name(made)).status_code == 204
    assert statuses(clinic, schedule) == ["busy", "free", "free"]


def test_clients_do_not_write_it(clinic: Clinic, schedule: Resource) -> None:
    booked = clinic.booked(slots(clinic, schedule)[0])
    said = {"url": EXTENSION + "schedule-conflict", "valueReference": {"reference": "Appointment/apt-1"}}
    made = clinic.create({**exception(schedule, NINE), "extension": [*CLOSED, said]})
    assert conflicts(made) == [name(booked)]
    changed = as_resource(clinic.put({**made, "comment": "Painters", "extension": [*CLOSED, said, said]}))
    assert (conflicts(changed), changed["comment"]) == ([name(booked)], "Painters")
    assert conflicts(as_resource(clinic.put({**made, "extension": CLOSED}))) == [name(booked)]


def test_an_operation_outcome_and_the_entry_of_a_bundle_name_it_as_well(clinic: Clinic, schedule: Resource) -> None:
    booked = clinic.booked(slots(clinic, schedule)[0])
    asked = clinic.http.post(
        "Slot", json=exception(schedule, NINE), headers={"Prefer": "return=OperationOutcome"}
    ).json()
    assert [(issue["severity"], issue["code"]) for issue in asked["issue"]] == [
        ("information", "informational"), ("warning", "conflict"),
    ]  # fmt: skip
    assert asked["issue"][1]["diagnostics"].startswith(f"{name(booked)} was booked before")
    for kind in ("batch", "transaction"):
        entry = {"request": {"method": "POST", "url": "Slot"}, "resource": exception(schedule, NINE)}
        answer = clinic.http.post("", json={"resourceType": "Bundle", "type": kind, "entry": [entry]})
        (made,) = answer.json()["entry"]
        assert made["response"]["outcome"]["issue"][0]["code"] == "conflict"
        assert conflicts(made["resource"]) == [name(booked)]


def test_xml_says_the_same(clinic: Clinic, schedule: Resource) -> None:
    booked = clinic.booked(slots(clinic, schedule)[0])
    made = clinic.create(exception(schedule, NINE))
    xml = clinic.http.get(f"{name(made)}?_format=xml").text
    assert f'<valueReference><reference value="{name(booked)}"/></valueReference>' in xml
