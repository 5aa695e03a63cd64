"""A Slot with room for several: the extension slot-capacity, busy when it is full and free below."""

from __future__ import annotations

from threading import Barrier, Thread
from typing import Any

import pytest

from clinic import EXTENSION, Clinic, Resource, appointment, refusal

URL = EXTENSION + "slot-capacity"
START = "2031-06-02T09:00:00Z"


def capacity(value: Any) -> list[Resource]:
    return [{"url": URL, "valueInteger": value}]


def course(clinic: Clinic, room: int) -> Resource:
    return clinic.slot(clinic.schedule(), START, extension=capacity(room))


def test_it_comes_back_as_it_was_written_and_is_one_without_it(clinic: Clinic) -> None:
    slot = course(clinic, 8)
    assert clinic.read(slot)["extension"] == capacity(8)
    assert clinic.sql("select capacity from slots where tenant_id = %s", clinic.tenant) == [(8,)]
    plain = clinic.slot(clinic.schedule(), START)
    assert "extension" not in clinic.read(plain)
    put = clinic.put({key: value for key, value in slot.items() if key != "extension"})
    assert "extension" not in put.json()


def test_it_is_busy_when_it_is_full_and_free_below(clinic: Clinic) -> None:
    slot = course(clinic, 2)
    first = clinic.booked(slot, patient="Patient/1", doctor="Practitioner/teacher")
    assert clinic.read(slot)["status"] == "free"
    clinic.booked(slot, patient="Patient/2", doctor="Practitioner/teacher")
    assert clinic.read(slot)["status"] == "busy"
    refusal(clinic.book(slot, patient="Patient/3"), 409)
    clinic.put({**first, "status": "cancelled"}).raise_for_status()
    assert clinic.read(slot)["status"] == "free"


def test_of_many_as_many_win_as_there_is_room(clinic: Clinic) -> None:
    slot, start, answers = course(clinic, 3), Barrier(8), []

    def run(number: int) -> None:
        body = appointment(slot, patient=f"Patient/{number}", doctor="Practitioner/teacher")
        start.wait()
        answers.append(clinic.http.post("Appointment", json=body).status_code)

    threads = [Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201] * 3 + [409] * 5
    assert clinic.read(slot)["status"] == "busy"


def test_it_can_grow_and_shrink_but_nobody_is_put_out(clinic: Clinic) -> None:
    slot = course(clinic, 1)
    clinic.booked(slot, patient="Patient/1")
    grown = clinic.put({**clinic.read(slot), "extension": capacity(2)}).json()
    assert grown["status"] == "free"
    clinic.booked(slot, patient="Patient/2")
    refusal(clinic.put({**clinic.read(slot), "extension": capacity(1)}), 409)


@pytest.mark.parametrize("value", [0, -1, 10_001])
def test_a_number_that_is_no_room_breaks_a_rule(clinic: Clinic, value: int) -> None:
    schedule = clinic.schedule()
    body = {"resourceType": "Slot", "schedule": {"reference": f"Schedule/{schedule['id']}"}, "status": "free"}
    times = {"start": START, "end": "2031-06-02T09:15:00Z"}
    refusal(clinic.http.post("Slot", json={**body, **times, "extension": capacity(value)}), 422)
