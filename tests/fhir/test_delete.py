"""delete (R4 3.1.0.7): gone from reads and searches, harmless when repeated, refused while something stands on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clinic import EXTENSION, Clinic, Resource, appointment, name, refusal, slot

NEVER = "0b5e9e52-7c1f-4d83-9a66-3f0d2c8e4b17"


@pytest.mark.parametrize("kind", ["Schedule", "Slot", "exception", "Appointment", "waitlist"])
def test_204_then_410_and_no_match(clinic: Clinic, kind: str) -> None:
    of = clinic.schedule()
    extension = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}]
    kinds: dict[str, Callable[[], Resource]] = {
        "Schedule": clinic.schedule,
        "Slot": lambda: clinic.slot(of, "2026-06-02T09:00:00Z"),
        "exception": lambda: clinic.slot(of, "2026-06-02T09:00:00Z", status="busy-unavailable", extension=extension),
        "Appointment": lambda: clinic.create(appointment()),
        "waitlist": lambda: clinic.create(appointment(status="waitlist")),
    }
    made = kinds[kind]()
    answer = clinic.http.delete(name(made))
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["etag"] == 'W/"2"'
    refusal(clinic.http.get(name(made)), 410)
    assert clinic.found(f"{made['resourceType']}?_id={made['id']}") == []


@pytest.mark.parametrize(
    "url",
    [
        f"Schedule/sch-{NEVER}",
        f"Slot/exc-{NEVER}",
        "Appointment/1",
        f"Slot/apt-{NEVER}",
    ],
)
def test_deleting_what_is_not_there_is_204(clinic: Clinic, url: str) -> None:
    assert clinic.http.delete(url).status_code == 204


def test_deleting_twice_is_204_twice(clinic: Clinic) -> None:
    made = clinic.schedule()
    assert [clinic.http.delete(name(made)).status_code for _ in range(2)] == [204, 204]


def test_the_row_of_another_tenant_stays(clinic: Clinic, shared: Clinic) -> None:
    theirs = shared.schedule()
    assert clinic.http.delete(name(theirs)).status_code == 204
    assert shared.read(theirs) == theirs


@pytest.mark.parametrize(("if_match", "status"), [('W/"2"', 204), ("*", 204), ('W/"1"', 412), ("nonsense", 400)])
def test_if_match_decides(clinic: Clinic, if_match: str, status: int) -> None:
    made = clinic.schedule()
    clinic.put(made)
    answer = clinic.http.delete(name(made), headers={"If-Match": if_match})
    assert answer.status_code == status
    assert clinic.http.get(name(made)).status_code == (410 if status == 204 else 200)


def test_a_schedule_with_slots_is_409_and_goes_when_they_have_gone(clinic: Clinic) -> None:
    of = clinic.schedule()
    first = clinic.slot(of, "2026-06-02T09:00:00Z")
    assert refusal(clinic.http.delete(name(of)), 409)[0]["code"] == "conflict"
    assert clinic.http.delete(name(first)).status_code == 204
    assert clinic.http.delete(name(of)).status_code == 204


def test_a_schedule_with_an_exception_is_409(clinic: Clinic) -> None:
    of = clinic.schedule()
    extension = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}]
    clinic.create(slot(of, "2026-06-02T09:00:00Z", status="busy-unavailable", extension=extension))
    refusal(clinic.http.delete(name(of)), 409)


@pytest.mark.parametrize("status", ["booked", "cancelled"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_slot_that_an_appointment_names_is_409(clinic: Clinic, status: str, place: int) -> None:
    of = clinic.schedule()
    two = [clinic.slot(of, "2026-06-02T09:00:00Z"), clinic.slot(of, "2026-06-02T09:15:00Z")]
    made = clinic.booked(*two, status=status)
    refusal(clinic.http.delete(name(two[place])), 409)
    clinic.http.delete(name(made))
    assert clinic.http.delete(name(two[place])).status_code == 204


def test_delete_of_a_type_is_refused_and_deletes_nothing(clinic: Clinic) -> None:
    made = clinic.schedule()
    for url in ("Schedule", "Schedule?", "Schedule/"):
        answer = clinic.http.delete(url)
        assert 400 <= answer.status_code < 500
        refusal(answer, answer.status_code)
    assert clinic.read(made) == made
